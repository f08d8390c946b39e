"""A package, not a namespace: tools/bazel and repository rules import it from the source tree."""
