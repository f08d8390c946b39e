"""py_binary under its own upstream load path."""

load("//python/private:rules.bzl", _py_binary = "py_binary")

py_binary = _py_binary
