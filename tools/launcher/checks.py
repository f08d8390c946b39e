"""What `tools/bazel run` checks before Bazel runs the tests that a command waits for.

//images:push and //release:publish depend on the gate, so Bazel starts them minutes later. Each has a second target,
the same program without the gate, which checks the arguments, the key and what the registry or the host answers, and
sends nothing. The launcher runs that one first, with the same options. The command itself then checks all of it again.
"""

from __future__ import annotations

import os
import subprocess

from . import options

# Target → the target that checks for it.
CHECKS = {
    "//images:push": "//release:push_check",
    "//release:publish": "//release:publish_check",
    "//release:push": "//release:push_check",
}

# Set for a check, so that a launcher that it starts runs no other.
_CHECKING = "MLC_LAUNCHER_CHECKS"


def before(program: str, line: options.CommandLine) -> tuple[list[str], int]:
    """Runs the check that comes before a command, if one does.

    Args:
      program: Bazel.
      line: `run` with everything behind it.

    Returns:
      The arguments to go on with, and the exit status of the check: if that is not 0, there is nothing to go on with.
      Where help is wanted, these arguments are the check's, which prints the same.
    """
    position = options.first_residue(line.arguments, len(line.startup) + 1)
    if (
        position is None
        or os.environ.get(_CHECKING)
        or any(each.startswith("--script_path") for each in line.arguments[:position])
    ):
        return line.arguments, 0
    label = line.arguments[position].lstrip("@")
    check = CHECKS.get(label) or CHECKS.get("//" + label)
    if not check:
        return line.arguments, 0
    given = line.arguments[position + 1 :]
    arguments = [*line.arguments[:position], check, *given]
    if not {"-h", "--help"}.isdisjoint(given):
        return arguments, 0
    process = subprocess.Popen([program, *arguments], env={**os.environ, _CHECKING: "1"})
    while True:
        try:
            # A signal ends it with a negative number.
            return line.arguments, abs(process.wait())
        except KeyboardInterrupt:  # Bazel has got it too, and ends.
            continue
