"""A regular package, so that tools/bazel imports it from the source tree before any installed package of this name."""
