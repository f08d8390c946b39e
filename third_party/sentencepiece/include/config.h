// Configuration header of sentencepiece, which upstream makes with CMake; the same version as in locks/sources.packages.json.
#ifndef MLC_BAZEL_SENTENCEPIECE_CONFIG_H_
#define MLC_BAZEL_SENTENCEPIECE_CONFIG_H_

#define VERSION "0.2.0"
#define PACKAGE "sentencepiece"
#define PACKAGE_STRING "sentencepiece"

#endif  // MLC_BAZEL_SENTENCEPIECE_CONFIG_H_
