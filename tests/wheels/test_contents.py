"""Our TVM wheels hold the files of the official ones with our libraries in place of theirs, and correct metadata."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

import pytest
from wheels_under_test import (
    Wheel,
    assert_plain_zip_entries,
    assert_record_lists_every_file,
    check_wheel_contents,
    official,
    open_wheel,
    ours,
    record_digest,
)

# Tags of the CPythons other than 3.11.
PYTHONS = os.environ["PYTHONS"].split()

COMPILED = {
    "tvm": {"tvm/lib/libtvm_runtime.so", "tvm/lib/libtvm_runtime_extra.so"},
    "tvm_ffi": {
        "tvm_ffi/core.cpython-311-x86_64-linux-gnu.so",
        "tvm_ffi/lib/libtvm_ffi.so",
        "tvm_ffi/lib/libtvm_ffi_testing.so",
    },
}
# These are in this build's wheel apache-tvm-cuda instead.
ELSEWHERE: dict[str, set[str]] = {"tvm": {"tvm/lib/libtvm_runtime_cuda.so"}, "tvm_ffi": set()}
# Additions of this build, from src/tvm.
ADDED: dict[str, set[str]] = {
    "tvm": {f"tvm/_mlc_bazel/{name}.py" for name in ("__init__", "old_names", "old_script")},
    "tvm_ffi": set(),
}
PACKAGES = sorted(COMPILED)


def payload(wheel: Wheel) -> set[str]:
    return {name for name in wheel.names if not name.endswith("/") and ".dist-info/" not in name}


@pytest.mark.parametrize("package", PACKAGES)
def test_has_the_files_of_the_official_wheel(package: str) -> None:
    theirs = payload(official()[package])
    assert ELSEWHERE[package] <= theirs and not ADDED[package] & theirs
    assert payload(ours()[package]) == theirs - ELSEWHERE[package] | ADDED[package]


@pytest.mark.parametrize("package", PACKAGES)
def test_only_the_compiled_libraries_differ(package: str) -> None:
    mine, theirs = ours()[package], official()[package]
    same_place = payload(mine) - ADDED[package]
    differing = {name for name in same_place if mine.zip.getinfo(name).CRC != theirs.zip.getinfo(name).CRC}
    assert differing == COMPILED[package]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_runtime_library_is_larger_than_the_official_one(package: str) -> None:
    mine, theirs = ours()[package], official()[package]
    for name in COMPILED[package]:
        assert mine.zip.getinfo(name).file_size <= theirs.zip.getinfo(name).file_size, name


@pytest.mark.parametrize("abi", PYTHONS)
def test_the_wheel_of_another_python_differs_in_its_module_only(abi: str) -> None:
    one, other = ours()["tvm_ffi"], open_wheel(f"TVM_FFI_{abi.upper()}")
    module = f"tvm_ffi/core.cpython-{abi.removeprefix('cp')}-x86_64-linux-gnu.so"
    assert payload(other) - payload(one) == {module}
    assert payload(one) - payload(other) == {"tvm_ffi/core.cpython-311-x86_64-linux-gnu.so"}
    same = payload(one) & payload(other)
    assert not [name for name in same if one.zip.getinfo(name).CRC != other.zip.getinfo(name).CRC]


@pytest.mark.parametrize("abi", PYTHONS)
def test_the_wheel_of_another_python_has_the_same_version_and_its_own_tags(abi: str) -> None:
    wheel, version = open_wheel(f"TVM_FFI_{abi.upper()}"), re.sub(r"cp3(\d+)t?", r"3.\1", abi)
    tag = f"{abi.removesuffix('t')}-{abi}-manylinux_2_28_x86_64"
    assert wheel.metadata()["Version"] == ours()["tvm_ffi"].metadata()["Version"]
    assert wheel.metadata()["Requires-Python"] == f"=={version}.*"
    assert wheel.metadata("WHEEL").get_all("Tag") == [tag] and wheel.path.name.endswith(f"-{tag}.whl")
    assert f"Programming Language :: Python :: {version}" in wheel.metadata().get_all("Classifier", [])
    assert wheel.license_headings() == LINKED["tvm_ffi"] - {"cpython-3.11"} | {f"cpython-{version}"}


@pytest.mark.parametrize("package", PACKAGES)
def test_record_lists_every_file_with_its_hash(package: str) -> None:
    assert_record_lists_every_file(ours()[package])


@pytest.mark.parametrize("package", PACKAGES)
def test_has_the_licences_of_the_official_wheel(package: str) -> None:
    mine, theirs = ours()[package], official()[package]
    licences = [name for name in theirs.names if f"{theirs.dist_info}/licenses/" in name and not name.endswith("/")]
    assert licences
    for name in licences:
        assert mine.zip.read(name.replace(theirs.dist_info, mine.dist_info)) == theirs.zip.read(name)


LINKED = {
    "tvm": {"builtin_fp16.h of compiler-rt", "dlpack", "parts of GCC's C++ library", "LLVM", "zlib"},
    "tvm_ffi": {"cpython-3.11", "dlpack", "libbacktrace", "parts of GCC's C++ library"},
}


@pytest.mark.parametrize("package", PACKAGES)
def test_has_the_notice_and_the_licence_of_everything_linked_in(package: str) -> None:
    wheel = ours()[package]
    assert wheel.license_headings() == LINKED[package]
    assert b"The Apache Software Foundation" in wheel.zip.read(f"{wheel.dist_info}/licenses/NOTICE")


@pytest.mark.parametrize("package", PACKAGES)
def test_version_is_upstreams_with_a_local_part(package: str) -> None:
    version, upstream = ours()[package].metadata()["Version"], official()[package].metadata()["Version"]
    assert re.fullmatch(re.escape(upstream) + r"\+mlc\d+\.\d+\.\d+\.b[0-9a-f]{8}", version)
    assert ours()[package].metadata()["Name"] == official()[package].metadata()["Name"]


def test_both_wheels_have_one_release_and_different_build_ids() -> None:
    local = {wheel.metadata()["Version"].split("+")[1] for wheel in ours().values()}
    assert len(local) == 2
    assert len({part.rpartition(".b")[0] for part in local}) == 1


def test_tvm_requires_exactly_the_ffi_of_its_build() -> None:
    requirements = ours()["tvm"].metadata().get_all("Requires-Dist", [])
    assert f"apache-tvm-ffi=={ours()['tvm_ffi'].metadata()['Version']}" in [
        re.sub(r"\s", "", line) for line in requirements
    ]


def requirement_names(wheel: Wheel) -> set[str]:
    lines = [line for line in wheel.metadata().get_all("Requires-Dist", []) if "extra ==" not in line]
    return {name.replace("_", "-").lower() for line in lines for name in re.findall(r"^[A-Za-z0-9._-]+", line)}


@pytest.mark.parametrize("package", PACKAGES)
def test_required_distributions_are_the_official_ones(package: str) -> None:
    assert requirement_names(ours()[package]) == requirement_names(official()[package])


@pytest.mark.parametrize(("package", "tag"), [("tvm", "py3-none"), ("tvm_ffi", "cp311-cp311")])
def test_tag(package: str, tag: str) -> None:
    wheel = ours()[package]
    tag += "-manylinux_2_28_x86_64"
    assert wheel.metadata("WHEEL").get_all("Tag") == [tag]
    assert wheel.metadata("WHEEL")["Root-Is-Purelib"] == "false"
    assert wheel.path.name.endswith(f"-{tag}.whl")


@pytest.mark.parametrize("package", PACKAGES)
def test_zip_entries_have_one_time_and_plain_modes(package: str) -> None:
    assert_plain_zip_entries(ours()[package])


# W002: TVM ships equal __init__.py files and headers. The others: upstream's package layout, which we do not change.
IGNORED = "W002,W004,W005,W007,W008,W009,W010"


@pytest.mark.parametrize("package", PACKAGES)
def test_check_wheel_contents_finds_nothing(package: str) -> None:
    done = check_wheel_contents(ours()[package].path, IGNORED)
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_wheel_contents_would_find_something(tmp_path: Path) -> None:
    """The check above can fail: it refuses a wheel with a compiled Python file."""
    bad = tmp_path / "bad-1-py3-none-any.whl"
    with zipfile.ZipFile(bad, "w") as archive:
        content = {
            "bad/__init__.py": b"",
            "bad/x.pyc": b"x",
            "bad-1.dist-info/METADATA": b"Name: bad\n",
            "bad-1.dist-info/WHEEL": b"Root-Is-Purelib: true\n",
        }
        record = ""
        for name, data in content.items():
            archive.writestr(name, data)
            record += f"{name},{record_digest(data)},{len(data)}\n"
        archive.writestr("bad-1.dist-info/RECORD", record + "bad-1.dist-info/RECORD,,\n")
    done = check_wheel_contents(bad, IGNORED)
    assert done.returncode != 0 and "W001" in done.stdout + done.stderr
