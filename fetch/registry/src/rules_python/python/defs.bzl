"""The Python rules under upstream's main load path."""

load("@bazel_tools//tools/python:toolchain.bzl", _py_runtime_pair = "py_runtime_pair")
load("//python/private:rules.bzl", _py_binary = "py_binary", _py_library = "py_library", _py_runtime = "py_runtime", _py_test = "py_test")

py_binary = _py_binary
py_library = _py_library
py_runtime = _py_runtime
py_runtime_pair = _py_runtime_pair
py_test = _py_test
