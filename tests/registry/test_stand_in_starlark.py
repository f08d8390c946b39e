"""The stand-ins' errors say what is wrong and how to fix it, and the lock is read as pip writes it.

The tests evaluate the Starlark files as Python.
"""

from __future__ import annotations

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
    assert "the lock allows only numpy-2.0.tar.gz, and none of these is a wheel for CPython 3.11" in error


METADATA = (
    "Metadata-Version: 2.1\nName: x\nRequires-Dist: Foo.Bar[all]>=1,<2\nRequires-Dist: tomli; python_version < '3.11'\n"
    "Requires-Dist: speed ~=1.0; extra == \"fast\"\nRequires-Dist: doc; extra == 'docs'\n\nRequires-Dist: inbody\n"
)


def test_requires_only_locked_packages() -> None:
    locked = ["foo_bar", "speed", "doc", "inbody"]
    assert LOCK["required"](METADATA, [], locked) == ["foo_bar"]
    assert LOCK["required"](METADATA, ["fast"], locked) == ["foo_bar", "speed"]
