"""Bazel 7's built-in Python rules, limited to the attributes that they share with upstream's rules."""

load(":stand_in.bzl", "COMMON", "TEST", "check")

_LIBRARY = COMMON + ["data", "deps", "imports", "srcs", "srcs_version"]
_EXECUTABLE = _LIBRARY + ["args", "env", "legacy_create_init", "main", "python_version", "stamp"]
_TEST = _EXECUTABLE + TEST + ["env_inherit"]
_RUNTIME = COMMON + ["bootstrap_template", "coverage_tool", "files", "interpreter", "interpreter_path", "python_version", "stub_shebang"]

# Facts about the interpreter, for precompiling and virtual environments. The built-in rules do neither.
_RUNTIME_IGNORED = ["abi_flags", "implementation_name", "interpreter_version_info", "pyc_tag"]

def py_library(name, **kwargs):
    """Upstream's py_library; see native.py_library for the attributes."""
    check("@rules_python//python:defs.bzl%py_library", name, kwargs, _LIBRARY)

    # buildifier: disable=native-py
    native.py_library(name = name, **kwargs)

def py_binary(name, **kwargs):
    """Upstream's py_binary; see native.py_binary for the attributes."""
    check("@rules_python//python:defs.bzl%py_binary", name, kwargs, _EXECUTABLE)

    # buildifier: disable=native-py
    native.py_binary(name = name, **kwargs)

def py_test(name, **kwargs):
    """Upstream's py_test; see native.py_test for the attributes."""
    check("@rules_python//python:defs.bzl%py_test", name, kwargs, _TEST)

    # buildifier: disable=native-py
    native.py_test(name = name, **kwargs)

def py_runtime(name, **kwargs):
    """Upstream's py_runtime; accepts and ignores facts that only upstream's rules need."""
    check("@rules_python//python:defs.bzl%py_runtime", name, kwargs, _RUNTIME + _RUNTIME_IGNORED)

    # buildifier: disable=native-py
    native.py_runtime(
        name = name,
        **{key: value for key, value in kwargs.items() if key not in _RUNTIME_IGNORED}
    )
