"""py_test under its own upstream load path."""

load("//python/private:rules.bzl", _py_test = "py_test")

py_test = _py_test
