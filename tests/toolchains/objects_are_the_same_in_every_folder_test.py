"""The command that Bazel compiles with gives the same object, byte by byte, wherever the work tree and the cache are."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from tests.toolchains import runfiles

CC = runfiles.repository("debian_cc")


def compile_command() -> dict:
    actions = [json.loads(line) for line in (runfiles.HERE / "hello_actions.jsonl").read_text().splitlines() if line]
    return next(action for action in actions if action["mnemonic"] == "CppCompile" and "tests/toolchains/hello.cc" in action["arguments"])


def compile_in(folder: Path, action: dict, extra: list[str]) -> bytes:
    """Runs the action in a folder laid out as Bazel's, and gives back the object."""
    output = folder / action["arguments"][action["arguments"].index("-o") + 1]
    output.parent.mkdir(parents=True)
    (folder / "external").mkdir()
    (folder / "external" / CC.name).symlink_to(CC)
    (folder / "tests/toolchains").mkdir(parents=True)
    for name in ("greeting.h", "hello.cc"):
        # Newer in one folder than in the other: no time may get in.
        (folder / "tests/toolchains" / name).write_bytes((runfiles.HERE / name).read_bytes())
    done = subprocess.run([*action["arguments"], *extra], cwd=folder, env={"PWD": "/proc/self/cwd"}, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    return output.read_bytes()


class Objects(unittest.TestCase):
    def test_two_folders_one_object(self):
        action = compile_command()
        for extra in ([], ["-g", "-O2"]):
            with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as scratch:
                one = compile_in(Path(scratch, "one"), action, extra)
                other = compile_in(Path(scratch, "another/place"), action, extra)
                self.assertTrue(one == other, f"the objects differ (flags {extra})")
                self.assertNotIn(scratch.encode(), one)


if __name__ == "__main__":
    unittest.main()
