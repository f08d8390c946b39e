"""The C and C++ rules, which are built into Bazel 7, under their upstream load path."""

cc_binary = native.cc_binary
cc_import = native.cc_import
cc_library = native.cc_library
cc_shared_library = native.cc_shared_library
cc_test = native.cc_test
cc_toolchain = native.cc_toolchain
