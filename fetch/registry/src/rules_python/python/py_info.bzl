"""PyInfo, the provider of Bazel 7's built-in Python rules, under its upstream load path."""

load("//python/private:providers.bzl", "PY_INFO")

PyInfo = PY_INFO
