"""A Rust package gives the same static library, byte by byte, wherever it is built, and no folder of the build is in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tests.toolchains import runfiles

PACKAGE = runfiles.HERE / "rust"
TOOL = runfiles.MAIN / "toolchains/rust/private/cargo_build.py"
REPOSITORIES = {name: runfiles.repository(name) for name in ("crates_tests", "debian_cc", "debian_rust")}
# As built by Bazel, in its sandbox.
LIBRARY = PACKAGE / "libsum.a"


def build_in(folder: Path, jobs: int, *, broken: bool = False) -> subprocess.CompletedProcess:
    """Runs the action in a folder laid out as Bazel's; the library is libsum.a there."""
    (folder / "external").mkdir(parents=True)
    for name, path in REPOSITORIES.items():
        (folder / "external" / name).symlink_to(path)
    shutil.copytree(PACKAGE, folder / "package", ignore=shutil.ignore_patterns("libsum.a"))
    if broken:
        (folder / "package/src/lib.rs").write_text("fn broken( {}\n")
    command = [sys.executable, TOOL, "--output=libsum.a", f"--jobs={jobs}", "--manifest=package/Cargo.toml", "--lock=package/Cargo.lock"]
    command += [f"--{tool}=external/debian_rust/usr/bin/{tool}" for tool in ("cargo", "rustc")]
    command += [f"--{option}=external/debian_cc/usr/bin/{tool}" for option, tool in {"cc": "gcc", "cxx": "g++", "ar": "ar", "strip": "strip"}.items()]
    command += [f"--source=package/{name}" for name in ("build.rs", "src/add.c", "src/lib.rs")]
    command += [f"--crate={path.relative_to(folder)}" for path in sorted((folder / "external/crates_tests").glob("*.crate"))]
    return subprocess.run(command, cwd=folder, env={}, stderr=subprocess.PIPE, text=True)


class RustLibrary(unittest.TestCase):
    def test_two_folders_one_library(self):
        with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as scratch:
            for folder, jobs in ((Path(scratch, "one"), 1), (Path(scratch, "another/longer place"), 4)):
                done = build_in(folder, jobs)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(sorted(path.name for path in folder.iterdir()), ["external", "libsum.a", "package"])
                self.assertTrue((folder / "libsum.a").read_bytes() == LIBRARY.read_bytes(), f"not what Bazel built: {folder / 'libsum.a'}")

    def test_no_folder_of_the_build_is_in_the_library(self):
        content = LIBRARY.read_bytes()
        # What assertions name is in it: mapped, not left out.
        self.assertIn(b"\0./package/src/add.c\0", content)
        self.assertRegex(content, rb"\./target/release/build/sum-[0-9a-f]+/out/require\.rs")
        for part in (b"sandbox", b"execroot", b"bazel-out", b"external/", b".cargo/registry"):
            self.assertNotIn(part, content)

    def test_what_does_not_compile_is_an_error_that_shows_the_compilers_words(self):
        with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as scratch:
            done = build_in(Path(scratch, "one"), 1, broken=True)
            self.assertEqual(done.returncode, 1)
            self.assertIn("src/lib.rs:1", done.stderr)
            self.assertNotIn("Traceback", done.stderr)
            self.assertFalse(Path(scratch, "one/libsum.a").exists())


if __name__ == "__main__":
    unittest.main()
