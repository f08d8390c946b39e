"""The command that Bazel compiles with gives the same object, byte by byte, wherever the work tree and the cache are."""

from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path

from tests.toolchains import recompile, runfiles


class Objects(unittest.TestCase):
    def test_two_folders_one_object(self):
        action = recompile.action("hello_actions.jsonl", "CppCompile", "tests/toolchains/hello.cc")
        files, repositories = ("greeting.h", "hello.cc"), (runfiles.repository("debian_cc"),)
        for extra in ([], ["-g", "-O2"]):
            with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as scratch:
                one = recompile.compile_in(Path(scratch, "one"), action, files, repositories, extra)
                other = recompile.compile_in(Path(scratch, "another/place"), action, files, repositories, extra)
                self.assertTrue(one == other, f"the objects differ (flags {extra})")
                self.assertNotIn(scratch.encode(), one)


if __name__ == "__main__":
    unittest.main()
