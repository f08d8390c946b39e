"""The archive and the page of results depend on what goes in alone. These tests need no GPU."""

import tarfile
from pathlib import Path

import make_bundle
import pytest
import results


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[str, str]]:
    for path in ("a/one.py", "a/tests/two.py", "b/one.py", "b/three.py"):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    (tmp_path / "b/three.py").chmod(0o755)
    return [(str(tmp_path / "a"), "packages"), (str(tmp_path / "b"), "packages"), (str(tmp_path / "b/three.py"), "run")]


def test_the_first_of_two_wins_and_what_is_excluded_is_out(files: list[tuple[str, str]]) -> None:
    found = make_bundle.members(files, ["*/tests/*"])
    assert {path: file.read_text() for path, file in found.items()} == {
        "packages/one.py": "a/one.py",
        "packages/three.py": "b/three.py",
        "run": "b/three.py",
    }


def test_the_same_content_makes_the_same_archive(files: list[tuple[str, str]], tmp_path: Path) -> None:
    archives = [tmp_path / "first.tar.xz", tmp_path / "second.tar.xz"]
    for archive in archives:
        make_bundle.pack(archive, "bundle", make_bundle.members(files, []))
        Path(files[2][0]).touch()
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with tarfile.open(archives[0]) as archive:
        modes = {member.name: (member.mode, member.uid, member.mtime) for member in archive}
    assert modes["bundle/run"] == (0o755, 0, 0)
    assert modes["bundle/packages/tests/two.py"] == (0o644, 0, 0)


def test_a_source_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="/nonexistent/file: expected a file or folder"):
        make_bundle.members([("/nonexistent/file", "file")], [])


def _record(device: str, tests: dict[str, dict[str, object]]) -> dict[str, object]:
    return {
        "compute_capability": "9.0",
        "components": {
            "driver": {"loaded": True, "version": "13.0", "reason": ""},
            "nccl": {"loaded": False, "version": "", "reason": "libnccl.so.2 is not there"},
        },
        "date": "2026-01-02",
        "device": device,
        "devices": 1,
        "driver": "580.1.2",
        "memory_bytes": 80 << 30,
        "runtime_only": True,
        "tests": tests,
        "tvm": "0.26.0",
    }


def test_the_page_counts_each_test_once_and_names_what_failed() -> None:
    first = {"test_a.py::test_sum[1]": {"outcome": "failed", "seconds": 1.0}, "test_a.py::test_sum[2]": {"outcome": "passed", "seconds": 1.0}}
    second = {
        "test_a.py::test_sum[1]": {"outcome": "passed", "seconds": 2.0, "relative_error": 2e-7},
        "test_b.py::the whole file": {"outcome": "crashed with exit status -11", "seconds": 0.0},
    }
    page = results.render([_record("H100", first), _record("H100", second)])
    assert page.count("## ") == 1
    assert "| tests | 2 of 3 passed |" in page
    assert "| a: sum | 2 of 2 | 3.0 | 2.0e-07 |" in page
    assert "* test_b.py::the whole file: crashed with exit status -11" in page
    assert "| NVIDIA driver | 580.1.2 |" in page
    assert "driver 13.0, nccl not loaded (libnccl.so.2 is not there)" in page


def test_each_device_has_a_section() -> None:
    passed = {"test_a.py::test_sum": {"outcome": "passed", "seconds": 1.0}}
    page = results.render([_record("H100", passed), _record("H200", passed)])
    assert [line for line in page.splitlines() if line.startswith("## ")] == ["## H100", "## H200"]
