// Configuration header of sentencepiece, which upstream's CMake generates. Keep the version equal to locks/sources.packages.json.
#ifndef MLC_BAZEL_SENTENCEPIECE_CONFIG_H_
#define MLC_BAZEL_SENTENCEPIECE_CONFIG_H_

#define VERSION "0.2.0"
#define PACKAGE "sentencepiece"
#define PACKAGE_STRING "sentencepiece"

#endif  // MLC_BAZEL_SENTENCEPIECE_CONFIG_H_
