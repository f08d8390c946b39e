"""PyRuntimeInfo, the provider of Bazel 7's built-in Python rules, under its upstream load path."""

load("//python/private:providers.bzl", "PY_RUNTIME_INFO")

PyRuntimeInfo = PY_RUNTIME_INFO
