"""The module extension `pip` under its upstream load path."""

load("//python/private:pip.bzl", _pip = "pip")

pip = _pip
