"""How a Python program starts on the packaged interpreter without one on the host."""

_INTERPRETER = "{}/usr/bin/python3".format(Label("@debian_python//:python3").workspace_name)

# Bazel puts this before a Python script that starts every py_binary and py_test. To a shell it is a program that runs the packaged
# interpreter on this very file; to Python it is a string. The interpreter is in the program's own runfiles, or, where the program is itself
# part of another's runfiles (as in a test), in those.
STUB_SHEBANG = """#!/bin/sh
''':'
for runfiles in "$0.runfiles" "${0%.runfiles/*}.runfiles" "${RUNFILES_DIR:-}"; do
  [ -e "$runfiles/@@" ] && exec "$runfiles/@@" "$0" "$@"
done
echo "$0: no Python interpreter at $0.runfiles/@@: build it with tools/bazel" >&2
exit 127
'''""".replace("@@", _INTERPRETER)
