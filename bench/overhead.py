"""Part `launcher`: the time that tools/bazel adds to the Bazel command it becomes."""

from __future__ import annotations

import argparse
import json
import sys
from statistics import median

import commands
import report

# Prints the command line that the launcher would execute.
_ASK = (
    "import json, sys; sys.path.insert(0, sys.argv[1]); from tools.launcher import start;"
    " print(json.dumps(start.command_line(sys.argv[2:])[1]))"
)


def measure(workspace: commands.Bazel, options: argparse.Namespace) -> tuple[str, str]:
    """This part's table, and the versions of what was measured."""
    command = workspace.command("info", "release")
    real = json.loads(commands.output([sys.executable, "-c", _ASK, workspace.root, *command[1:]]))
    commands.say(f"{options.launcher_runs} calls each of tools/bazel and of Bazel, in turns")
    for warm_up in (command, real):
        commands.seconds(warm_up, cwd=workspace.root)
    pairs = [
        [commands.seconds(each, cwd=workspace.root) for each in (command, real)] for _ in range(options.launcher_runs)
    ]
    with_launcher, without = (median(column) for column in zip(*pairs))
    row = [
        "`info release`",
        *map(report.duration, (with_launcher, without, with_launcher - without)),
        report.ratio(with_launcher, without),
        str(len(pairs)),
    ]
    head = ["command, server running, median", "tools/bazel", "Bazel itself", "launcher", "ratio", "runs"]
    return report.table(head, [row]), workspace.output("--version").strip()
