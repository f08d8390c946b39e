"""Starts Python programs on the packaged interpreter, so that the host needs none."""

# Bazel puts this at the start of the Python script that runs a py_binary or py_test. A shell executes it, and so runs the packaged
# interpreter on the same file; Python sees a string. The interpreter is in the program's runfiles or, if the program is part of another
# program's runfiles (as in a test), in those.
_STUB_SHEBANG = """#!/bin/sh
''':'
for runfiles in "$0.runfiles" "${0%.runfiles/*}.runfiles" "${RUNFILES_DIR:-}"; do
  [ -e "$runfiles/@@" ] && exec "$runfiles/@@" "$0" "$@"
done
echo "$0: no Python interpreter at $0.runfiles/@@: build it with tools/bazel" >&2
exit 127
'''"""

# The processors that the build runs on, as @platforms//cpu calls them → the interpreter there.
INTERPRETERS = {
    "aarch64": Label("@debian_python_arm64//:python3"),
    "x86_64": Label("@debian_python//:python3"),
}

def stub_shebang(interpreter):
    """The start of a script that runs on one of INTERPRETERS."""
    return _STUB_SHEBANG.replace("@@", "{}/usr/bin/python3".format(interpreter.workspace_name))

def _python(version, repository, defines = [], interpreter = True):
    return {
        "defines": defines,
        "headers": repository + "//:headers",
        "interpreter": repository + "//:python3" if interpreter else None,
        "license": repository + "//:LICENSE",
        "version": version,
    }

# The CPythons that wheels are for, by the tag of their ABI: `version` as in metadata; targets with `headers`, `license` and, or None, `interpreter`;
# `defines`, macros for the headers.
PYTHONS = {
    "cp310": _python("3.10", "@cpython_cp310"),
    "cp311": _python("3.11", "@cpython_cp311"),
    "cp312": _python("3.12", "@cpython_cp312"),
    "cp313": _python("3.13", "@cpython_cp313"),
    "cp314": _python("3.14", "@cpython_cp314"),
    # The free-threaded build has the same headers. No registry has its interpreter.
    "cp314t": _python("3.14", "@cpython_cp314", ["Py_GIL_DISABLED=1"], interpreter = False),
}

# What else tests can run on: the CPython of tools, tests and images for arm64.
ARM64_INTERPRETER = Label("//toolchains/python:arm64")

# That of tools, tests and images.
PYTHON = "cp311"
