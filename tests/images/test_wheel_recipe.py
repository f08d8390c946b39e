"""`build` writes the very wheels that an image was built from, or says why it cannot."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import sys
import unittest.mock
import zipfile

import pytest

from images.commands import build
from images.private import make_wheel_recipe
from wheels.finished import FinishedWheel, identify

RECORD = "tool-1.0.dist-info/RECORD"
FILES = {
    "tool/library.so": bytes(range(256)) * 10_000,
    "tool/__init__.py": b"x = 1\n",
    "tool/small.py": b"x = 2\n",
    "tool-1.0.dist-info/METADATA": b"Name: tool\nVersion: 1.0\n\n",
}


def write_wheel(path: pathlib.Path) -> pathlib.Path:
    """A wheel without build id, whose entries differ in time, mode and header."""
    compression = zipfile.ZIP_STORED
    record = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')},{len(data)}"
        for name, data in FILES.items()
    ]
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", compression) as archive:
        executable = zipfile.ZipInfo("tool/library.so", (2020, 2, 2, 2, 2, 2))
        executable.external_attr, executable.compress_type = 0o100755 << 16, compression
        archive.writestr(executable, FILES["tool/library.so"])
        archive.writestr(zipfile.ZipInfo("tool/__init__.py"), FILES["tool/__init__.py"], compression)
        # As upstream's py_wheel writes every file.
        small = zipfile.ZipInfo("tool/small.py")
        small.compress_type = compression
        with archive.open(small, "w", force_zip64=True) as file:
            file.write(FILES["tool/small.py"])
        metadata = "tool-1.0.dist-info/METADATA"
        archive.writestr(zipfile.ZipInfo(metadata), FILES[metadata], compression)
        archive.writestr(zipfile.ZipInfo(RECORD), "\n".join([*record, f"{RECORD},,"]), compression)
    return path


class Place:
    """A wheel, the folder that it is installed in, and a folder to write wheels to."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        unversioned = write_wheel(self.folder / "unversioned/tool-1.0-py3-none-any.whl")
        self.assembled = FinishedWheel(unversioned, identify(unversioned, []))
        self.wheel = self.assembled.write_to(self.folder)
        self.installed = self.folder / "site"
        with zipfile.ZipFile(self.wheel) as archive:
            archive.extractall(self.installed)
            (self.record,) = (name for name in archive.namelist() if name.endswith("/RECORD"))
        # pip rewrites the list of files.
        (self.installed / self.record).write_text("as pip has it")
        self.output = self.folder / "dist"
        self.output.mkdir()

    def recipe(self) -> dict:
        return json.loads(json.dumps(make_wheel_recipe.wheel_recipe(self.assembled, self.installed)))

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


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Place:
    return Place(tmp_path)


def test_the_wheel_comes_back_byte_for_byte(place: Place) -> None:
    packed = build.write_wheel(place.recipe(), place.installed, place.output)
    assert packed == place.output / place.wheel.name
    assert packed.read_bytes() == place.wheel.read_bytes()
    assert os.listdir(place.output) == [place.wheel.name]


def test_a_recipe_holds_only_what_installation_changed(place: Place) -> None:
    assert [entry["filename"] for entry in place.recipe()["entries"] if "content" in entry] == [place.record]


def test_a_changed_or_missing_file_leaves_no_wheel(place: Place) -> None:
    recipe = place.recipe()
    (place.installed / "tool/__init__.py").write_text("x = 2\n")
    with pytest.raises(
        build.WheelError,
        match=f"{place.wheel.name}: .*tool/__init__.py: expected sha256=\\S+, found sha256=\\S+: the file has changed",
    ):
        build.write_wheel(recipe, place.installed, place.output)
    (place.installed / "tool/__init__.py").unlink()
    with pytest.raises(build.WheelError, match="expected its file .*tool/__init__.py, found none"):
        build.write_wheel(recipe, place.installed, place.output)
    assert os.listdir(place.output) == []


def test_a_folder_of_another_wheel_is_refused_at_build_time(place: Place) -> None:
    shutil.rmtree(place.installed / "tool")
    with pytest.raises(build.WheelError, match="tool/library.so .2,560,000 bytes. differs"):
        place.recipe()


def test_the_command_says_what_it_wrote(place: Place) -> None:
    code, out, err = place.run_build(place.folder / "new/folder")
    assert (code, err) == (0, "")
    assert f"{place.folder}/new/folder/{place.wheel.name}" in out
    assert build.sha256(place.wheel) in out


def test_an_unwritable_output_says_what_to_do(place: Place) -> None:
    # Not by permission: the test may run as root.
    blocked = place.folder / "blocked"
    blocked.write_text("a file")
    code, out, err = place.run_build(blocked / "dist")
    assert (code, out) == (1, "")
    assert re.search(f"cannot write to {blocked}/dist as uid {os.getuid()}: .*--output", err)


def test_no_recipes_is_an_error(place: Place) -> None:
    with unittest.mock.patch.object(build, "RECIPES", place.folder / "none"):
        with unittest.mock.patch.object(sys, "argv", ["build", "--output", str(place.output)]):
            err = io.StringIO()
            with contextlib.redirect_stderr(err):
                assert build.main() == 1
    assert "expected recipes in" in err.getvalue()
