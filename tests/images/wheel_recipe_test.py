"""`build` gives the very wheels that an image was made of, or says why it cannot."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import pathlib
import shutil
import sys
import tempfile
import unittest
import unittest.mock
import zipfile

from images.commands import build
from images.private import make_wheel_recipe


RECORD = "tool-1.0.dist-info/RECORD"
FILES = {"tool/library.so": bytes(range(256)) * 10_000, "tool/__init__.py": b"x = 1\n", "tool/small.py": b"x = 2\n"}


def write_wheel(path: pathlib.Path, compression: int = zipfile.ZIP_DEFLATED) -> pathlib.Path:
    """A wheel whose entries differ in time, mode and header."""
    record = [f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')},{len(data)}" for name, data in FILES.items()]
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(zipfile.ZipInfo("tool/"), b"")
        executable = zipfile.ZipInfo("tool/library.so", (2020, 2, 2, 2, 2, 2))
        executable.external_attr, executable.compress_type = 0o100755 << 16, compression
        archive.writestr(executable, FILES["tool/library.so"])
        archive.writestr(zipfile.ZipInfo("tool/__init__.py"), FILES["tool/__init__.py"], compression)
        # As upstream's py_wheel writes every file.
        small = zipfile.ZipInfo("tool/small.py")
        small.compress_type = compression
        with archive.open(small, "w", force_zip64=True) as file:
            file.write(FILES["tool/small.py"])
        archive.writestr(zipfile.ZipInfo(RECORD), "\n".join([*record, f"{RECORD},,"]), compression)
    return path


class WheelRecipeTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.wheel = write_wheel(self.folder / "tool-1.0-py3-none-any.whl")
        self.installed = self.folder / "site"
        with zipfile.ZipFile(self.wheel) as archive:
            archive.extractall(self.installed)
        # pip writes the list of files anew.
        (self.installed / RECORD).write_text("as pip has it")
        self.output = self.folder / "dist"
        self.output.mkdir()

    def recipe(self) -> dict:
        return json.loads(json.dumps(make_wheel_recipe.wheel_recipe(self.wheel, self.installed)))

    def test_the_wheel_comes_back_byte_for_byte(self):
        packed = build.write_wheel(self.recipe(), self.installed, self.output)
        self.assertEqual(packed, self.output / self.wheel.name)
        self.assertEqual(packed.read_bytes(), self.wheel.read_bytes())
        self.assertEqual(os.listdir(self.output), [self.wheel.name])

    def test_an_uncompressed_wheel_comes_back_compressed(self):
        plain = write_wheel(self.folder / "plain" / self.wheel.name, zipfile.ZIP_STORED)
        self.assertGreater(plain.stat().st_size, self.wheel.stat().st_size)
        self.assertEqual(make_wheel_recipe.wheel_recipe(plain, self.installed), make_wheel_recipe.wheel_recipe(self.wheel, self.installed))

    def test_a_recipe_holds_only_what_installation_changed(self):
        self.assertEqual([entry["filename"] for entry in self.recipe()["entries"] if "content" in entry], [RECORD])

    def test_a_changed_or_missing_file_leaves_no_wheel(self):
        recipe = self.recipe()
        (self.installed / "tool/__init__.py").write_text("x = 2\n")
        with self.assertRaisesRegex(build.WheelError, f"{self.wheel.name}: .*tool/__init__.py: expected sha256=\\S+, found sha256=\\S+: it is no longer"):
            build.write_wheel(recipe, self.installed, self.output)
        (self.installed / "tool/__init__.py").unlink()
        with self.assertRaisesRegex(build.WheelError, "expected its file .*tool/__init__.py, found none"):
            build.write_wheel(recipe, self.installed, self.output)
        self.assertEqual(os.listdir(self.output), [])

    def test_a_folder_of_another_wheel_is_refused_at_build_time(self):
        shutil.rmtree(self.installed / "tool")
        with self.assertRaisesRegex(build.WheelError, "tool/library.so .2,560,000 bytes. differs"):
            self.recipe()

    def run_build(self, output: pathlib.Path) -> tuple[int, str, str]:
        recipes = self.folder / "recipes"
        recipes.mkdir(exist_ok=True)
        (recipes / "tool.json").write_text(json.dumps(self.recipe()))
        out, err = io.StringIO(), io.StringIO()
        with (
            unittest.mock.patch.multiple(build, RECIPES=recipes, INSTALLED=self.installed),
            unittest.mock.patch.object(sys, "argv", ["build", "--output", str(output)]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = build.main()
        return code, out.getvalue(), err.getvalue()

    def test_the_command_says_what_it_wrote(self):
        code, out, err = self.run_build(self.folder / "new/folder")
        self.assertEqual((code, err), (0, ""))
        self.assertIn(f"{self.folder}/new/folder/{self.wheel.name}", out)
        self.assertIn(build.sha256(self.wheel), out)

    def test_an_unwritable_output_says_what_to_do(self):
        # Not by permission: the test may run as root.
        blocked = self.folder / "blocked"
        blocked.write_text("a file")
        code, out, err = self.run_build(blocked / "dist")
        self.assertEqual((code, out), (1, ""))
        self.assertRegex(err, f"cannot write to {blocked}/dist as uid {os.getuid()}: .*--output")

    def test_no_recipes_is_an_error(self):
        with unittest.mock.patch.object(build, "RECIPES", self.folder / "none"):
            with unittest.mock.patch.object(sys, "argv", ["build", "--output", str(self.output)]):
                err = io.StringIO()
                with contextlib.redirect_stderr(err):
                    self.assertEqual(build.main(), 1)
        self.assertIn("expected recipes in", err.getvalue())


if __name__ == "__main__":
    unittest.main()
