"""py_runtime under its own upstream load path."""

load("//python/private:rules.bzl", _py_runtime = "py_runtime")

py_runtime = _py_runtime
