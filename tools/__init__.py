"""A package, not a namespace: tools/bazel imports it from the source tree, before whatever else is installed under this
name.
"""
