"""Starts Python programs on the packaged interpreter, so that the host needs none."""

_INTERPRETER = "{}/usr/bin/python3".format(Label("@debian_python//:python3").workspace_name)

# Bazel puts this at the start of the Python script that runs a py_binary or py_test. A shell executes it, and so runs the packaged
# interpreter on the same file; Python sees a string. The interpreter is in the program's runfiles or, if the program is part of another
# program's runfiles (as in a test), in those.
STUB_SHEBANG = """#!/bin/sh
''':'
for runfiles in "$0.runfiles" "${0%.runfiles/*}.runfiles" "${RUNFILES_DIR:-}"; do
  [ -e "$runfiles/@@" ] && exec "$runfiles/@@" "$0" "$@"
done
echo "$0: no Python interpreter at $0.runfiles/@@: build it with tools/bazel" >&2
exit 127
'''""".replace("@@", _INTERPRETER)
