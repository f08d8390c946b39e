"""Our wheels hold what the official ones hold, with the libraries exchanged for ours, and say so correctly."""

import base64
import csv
import hashlib
import io
import re
import subprocess
import sys
import zipfile

import pytest
from wheels_under_test import official, ours

COMPILED = {
    "tvm": {"tvm/lib/libtvm_runtime.so", "tvm/lib/libtvm_runtime_extra.so"},
    "tvm_ffi": {"tvm_ffi/lib/libtvm_ffi.so", "tvm_ffi/lib/libtvm_ffi_testing.so"},
}
# In the wheel apache-tvm-cuda, as this build makes it.
ELSEWHERE = {"tvm": {"tvm/lib/libtvm_runtime_cuda.so"}, "tvm_ffi": set()}
PACKAGES = sorted(COMPILED)


def payload(wheel) -> set[str]:
    return {name for name in wheel.names if not name.endswith("/") and ".dist-info/" not in name}


@pytest.mark.parametrize("package", PACKAGES)
def test_files_are_those_of_the_official_wheel(package) -> None:
    assert ELSEWHERE[package] <= payload(official()[package])
    assert payload(ours()[package]) == payload(official()[package]) - ELSEWHERE[package]


@pytest.mark.parametrize("package", PACKAGES)
def test_only_the_compiled_libraries_differ(package) -> None:
    mine, theirs = ours()[package], official()[package]
    differing = {name for name in payload(mine) if mine.zip.getinfo(name).CRC != theirs.zip.getinfo(name).CRC}
    assert differing == COMPILED[package]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_runtime_library_is_larger_than_the_official_one(package) -> None:
    mine, theirs = ours()[package], official()[package]
    for name in COMPILED[package]:
        assert mine.zip.getinfo(name).file_size <= theirs.zip.getinfo(name).file_size, name


@pytest.mark.parametrize("package", PACKAGES)
def test_record_lists_every_file_with_its_hash(package) -> None:
    wheel = ours()[package]
    record = {
        name: (digest, size)
        for name, digest, size in csv.reader(io.StringIO(wheel.zip.read(f"{wheel.dist_info}/RECORD").decode()))
    }
    assert set(record) == {name for name in wheel.names if not name.endswith("/")}
    assert record.pop(f"{wheel.dist_info}/RECORD") == ("", "")
    for name, (digest, size) in record.items():
        content = wheel.zip.read(name)
        assert int(size) == len(content), name
        assert digest == "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode(), (
            name
        )


@pytest.mark.parametrize("package", PACKAGES)
def test_licences_are_the_official_ones(package) -> None:
    mine, theirs = ours()[package], official()[package]
    licences = [name for name in theirs.names if f"{theirs.dist_info}/licenses/" in name and not name.endswith("/")]
    assert licences
    for name in licences:
        assert mine.zip.read(name.replace(theirs.dist_info, mine.dist_info)) == theirs.zip.read(name)


LINKED = {
    "tvm": {"builtin_fp16.h of compiler-rt", "dlpack", "parts of GCC's C++ library", "LLVM", "zlib"},
    "tvm_ffi": {"dlpack", "libbacktrace", "parts of GCC's C++ library"},
}


@pytest.mark.parametrize("package", PACKAGES)
def test_licences_of_all_that_is_linked_in_and_the_notice_are_there(package) -> None:
    wheel = ours()[package]
    text = wheel.zip.read(f"{wheel.dist_info}/licenses/THIRD_PARTY_LICENSES.txt").decode()
    headings = re.findall(r"^-{100}\n(.+)\n-{100}$", text, re.MULTILINE)
    assert {name for heading in headings for name in heading.split(", ")} == LINKED[package]
    assert b"The Apache Software Foundation" in wheel.zip.read(f"{wheel.dist_info}/licenses/NOTICE")


@pytest.mark.parametrize("package", PACKAGES)
def test_version_is_upstreams_and_a_local_part(package) -> None:
    version, upstream = ours()[package].metadata()["Version"], official()[package].metadata()["Version"]
    assert re.fullmatch(re.escape(upstream) + r"\+mlc\d+\.\d+\.\d+\.b[0-9a-f]{8}", version)
    assert ours()[package].metadata()["Name"] == official()[package].metadata()["Name"]


def test_both_wheels_are_of_one_release_and_have_build_ids_of_their_own() -> None:
    local = {wheel.metadata()["Version"].split("+")[1] for wheel in ours().values()}
    assert len(local) == 2
    assert len({part.rpartition(".b")[0] for part in local}) == 1


def test_tvm_requires_exactly_the_ffi_of_its_build() -> None:
    requirements = ours()["tvm"].metadata().get_all("Requires-Dist")
    assert f"apache-tvm-ffi=={ours()['tvm_ffi'].metadata()['Version']}" in [
        re.sub(r"\s", "", line) for line in requirements
    ]


def requirement_names(wheel) -> set[tuple[str, bool]]:
    lines = wheel.metadata().get_all("Requires-Dist") or []
    return {re.match(r"[A-Za-z0-9._-]+", line)[0].replace("_", "-").lower() for line in lines if "extra ==" not in line}


@pytest.mark.parametrize("package", PACKAGES)
def test_required_distributions_are_the_official_ones(package) -> None:
    assert requirement_names(ours()[package]) == requirement_names(official()[package])


@pytest.mark.parametrize(("package", "tag"), [("tvm", "py3-none"), ("tvm_ffi", "cp311-cp311")])
def test_tag(package, tag) -> None:
    wheel = ours()[package]
    tag += "-manylinux_2_28_x86_64"
    assert wheel.metadata("WHEEL").get_all("Tag") == [tag]
    assert wheel.metadata("WHEEL")["Root-Is-Purelib"] == "false"
    assert wheel.path.name.endswith(f"-{tag}.whl")


@pytest.mark.parametrize("package", PACKAGES)
def test_zip_entries_have_one_time_and_plain_modes(package) -> None:
    for entry in ours()[package].zip.infolist():
        assert entry.date_time == (1980, 1, 1, 0, 0, 0), entry.filename
        # 0777 is what the upstream profile's py_wheel gives to all; installers look at the executable bit only.
        assert entry.external_attr >> 16 & 0o7777 in (0o644, 0o755, 0o777), entry.filename


# W002: TVM ships equal __init__.py files and headers; W004, W005, W007, W009, W010: upstream's package layout, which is
# not ours to change.
IGNORED = "W002,W004,W005,W007,W008,W009,W010"


@pytest.mark.parametrize("package", PACKAGES)
def test_check_wheel_contents_finds_nothing(package) -> None:
    wheel = ours()[package].path
    done = subprocess.run(
        [sys.executable, "-m", "check_wheel_contents", f"--ignore={IGNORED}", str(wheel)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_wheel_contents_would_find_something(tmp_path) -> None:
    """The check above can fail: a wheel with a compiled file and none of its own fails it."""
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
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(data)}\n"
        archive.writestr("bad-1.dist-info/RECORD", record + "bad-1.dist-info/RECORD,,\n")
    done = subprocess.run(
        [sys.executable, "-m", "check_wheel_contents", f"--ignore={IGNORED}", str(bad)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode != 0 and "W001" in done.stdout + done.stderr
