"""py_library under its own upstream load path."""

load("//python/private:rules.bzl", _py_library = "py_library")

py_library = _py_library
