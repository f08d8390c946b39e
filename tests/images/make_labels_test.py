"""Labels name the revision only where the build is stamped, so that a commit without new content changes no digest."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from oci.private import make_labels

_REVISION = "org.opencontainers.image.revision"


class MakeLabelsTest(unittest.TestCase):
    def make(self, status: str | None) -> tuple[int, str, str]:
        with tempfile.TemporaryDirectory() as folder:
            file, output = pathlib.Path(folder, "status.txt"), pathlib.Path(folder, "labels.txt")
            file.write_text(status or "")
            command = [sys.executable, make_labels.__file__, "--label", "z=1", "--label", "a=x y", "--output", str(output)]
            command += ["--status", str(file)] if status is not None else []
            done = subprocess.run(command, env={"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True)
            return done.returncode, done.stderr, output.read_text() if output.exists() else ""

    def test_unstamped(self):
        self.assertEqual(self.make(None), (0, "", f"a=x y\n{_REVISION}=unstamped\nz=1\n"))

    def test_stamped(self):
        self.assertEqual(self.make("BUILD_USER me\nSTABLE_REVISION 0123abc\n"), (0, "", f"a=x y\n{_REVISION}=0123abc\nz=1\n"))

    def test_a_stamp_without_revision_is_an_error(self):
        for status in ("", "BUILD_USER me\n", "STABLE_REVISION \n"):
            with self.subTest(status):
                code, said, labels = self.make(status)
                self.assertEqual((code, labels), (1, ""))
                self.assertIn("no STABLE_REVISION: build with --config=release", said)
                self.assertNotIn("Traceback", said)


if __name__ == "__main__":
    unittest.main()
