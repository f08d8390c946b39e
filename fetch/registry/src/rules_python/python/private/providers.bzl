"""The providers of Bazel 7's built-in Python rules under names that public files can re-export."""

PY_INFO = PyInfo
PY_RUNTIME_INFO = PyRuntimeInfo
