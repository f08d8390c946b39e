"""Preprocessor, compiler, assembler and linker open no file outside of the toolchain's folder but those they are given."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from tests.toolchains import runfiles

CC = runfiles.repository("debian_cc")
SOURCE = "#include <bits/stdc++.h>\n#include <linux/types.h>\n#include <pthread.h>\nint main() { std::thread([] { throw std::sin(1.0); }).join(); }\n"


class Compiler(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR"))
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)
        (self.scratch / "source.cc").write_text(SOURCE)

    def compile(self, *flags: str, program: str = "g++", expect: int = 0) -> str:
        # An empty PATH: nothing is found by name.
        done = subprocess.run(
            [CC / "usr/bin" / program, *flags], cwd=self.scratch, env={"PATH": ""}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.assertEqual(done.returncode, expect, done.stdout)
        return done.stdout

    def assert_own(self, paths: list[str], least: int):
        self.assertGreaterEqual(len(paths), least, paths)
        foreign = [path for path in paths if not os.path.normpath(os.path.join(self.scratch, path)).startswith(str(CC) + "/")]
        self.assertEqual(foreign, [])

    def test_headers(self):
        self.compile("-std=c++20", "-c", "source.cc", "-M", "-MF", "source.d")
        headers = (self.scratch / "source.d").read_text().replace("\\\n", " ").split(":", 1)[1].split()
        self.assertEqual(headers.pop(0), "source.cc")
        self.assert_own(headers, 200)

    def test_search_path(self):
        for program in ("g++", "gcc"):
            shown = self.compile("-v", "-E", "-x", "c" if program == "gcc" else "c++", "/dev/null", program=program)
            self.assert_own(re.search(r"#include <\.\.\.> search starts here:\n(.*?)End of search list", shown, re.DOTALL)[1].split(), 3)

    def test_programs(self):
        shown = self.compile("-v", "-std=c++20", "source.cc", "-pthread", "-o", "program")
        programs = re.findall(r"^ (\S+/(?:cc1plus|as|collect2)) ", shown, re.MULTILINE)
        self.assertEqual([os.path.basename(path) for path in programs], ["cc1plus", "as", "collect2"])
        self.assert_own(programs, 3)

    def test_linked_files(self):
        self.compile("-std=c++20", "-c", "source.cc")
        shown = self.compile("source.o", "-pthread", "-o", "program", "-Wl,--trace")
        files = [line.split("(")[-1].rstrip(")") if line.startswith("(") else line for line in shown.splitlines()]
        files = [path for path in files if path != "source.o"]
        self.assertTrue(any(path.endswith("libc.so.6") for path in files), shown)
        self.assert_own(files, 8)

    def test_a_header_that_only_the_host_could_have_is_not_found(self):
        (self.scratch / "source.cc").write_text("#include <expat.h>\n")
        self.assertIn("No such file", self.compile("-c", "source.cc", expect=1))


if __name__ == "__main__":
    unittest.main()
