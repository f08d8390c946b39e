"""Tests the bundle, its program `run`, and the pages of results, all without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import make_bundle
import pytest
import results
import run_tests
import tables


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[str, str]]:
    for path in ("a/one.py", "a/tests/two.py", "b/one.py", "b/three.py"):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    (tmp_path / "b/three.py").chmod(0o755)
    return [(str(tmp_path / "a"), "packages"), (str(tmp_path / "b"), "packages"), (str(tmp_path / "b/three.py"), "run")]


def test_the_first_of_two_files_wins_and_excluded_ones_are_left_out(files: list[tuple[str, str]]) -> None:
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
    with tarfile.open(archives[0]) as members:
        modes = {member.name: (member.mode, member.uid, member.mtime) for member in members}
    assert modes["bundle/run"] == (0o755, 0, 0)
    assert modes["bundle/packages/tests/two.py"] == (0o644, 0, 0)


def test_a_missing_source_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="/nonexistent/file: expected a file or folder"):
        make_bundle.members([("/nonexistent/file", "file")], [])


def _run(bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Starts the bundle's `run` where its Python prints how it was called."""
    python = bundle / "python/usr/bin/python3"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$PYTHONPATH" "$@"\n')
    python.chmod(0o755)
    program = bundle / "run"
    program.write_bytes(Path(os.environ["BUNDLE_RUN"]).read_bytes())
    program.chmod(0o755)
    return subprocess.run(
        [program, *arguments], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("name", "program"), [("tests", "tests/run_tests.py"), ("bench", "bench/measure.py")])
def test_run_starts_a_program_with_the_packaged_python(tmp_path: Path, name: str, program: str) -> None:
    done = _run(tmp_path, name, "--results", "a b.json")
    assert done.stdout == f"{tmp_path}/bench:{tmp_path}/shared {tmp_path}/{program} --results a b.json\n"
    assert done.returncode == 0


@pytest.mark.parametrize("arguments", [[], ["test"], ["--results", "x.json"]])
def test_run_without_a_program_explains_itself(tmp_path: Path, arguments: list[str]) -> None:
    done = _run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: run tests|bench")


def test_without_a_gpu_no_test_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLC_NVIDIA_DRIVER", str(tmp_path))
    record = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", ["run tests", "--results", str(record)])
    with pytest.raises(SystemExit, match="run: expected an NVIDIA GPU, found none: .*libcuda.so.1"):
        run_tests.main()
    assert not record.exists()


def _record(device: str, tests: dict[str, dict[str, object]]) -> dict[str, object]:
    return {
        "compute_capability": "9.0",
        "components": {
            "driver": {"loaded": True, "version": "13.0", "reason": ""},
            "nccl": {"loaded": False, "version": "", "reason": "libnccl.so.2 is missing"},
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
    first = {
        "test_a.py::test_sum[1]": {"outcome": "failed", "seconds": 1.0},
        "test_a.py::test_sum[2]": {"outcome": "passed", "seconds": 1.0},
    }
    second = {
        "test_a.py::test_sum[1]": {"outcome": "passed", "seconds": 2.0, "relative_error": 2e-7},
        "test_b.py::the whole file": {"outcome": "crashed with exit status -11", "seconds": 0.0},
    }
    page = results.page([_record("H100", first), _record("H100", second)])
    assert page.count("## ") == 1
    assert "* tests: 2 of 3 passed" in page
    assert "| a: sum | 2 of 2 | 3.0 | 2.0e-07 |" in page
    assert "* test_b.py::the whole file: crashed with exit status -11" in page
    assert "* NVIDIA driver: 580.1.2" in page
    assert "driver 13.0, nccl not loaded (libnccl.so.2 is missing)" in page


def test_each_device_has_a_section() -> None:
    passed = {"test_a.py::test_sum": {"outcome": "passed", "seconds": 1.0}}
    page = results.page([_record("H100", passed), _record("H200", passed)])
    assert [line for line in page.splitlines() if line.startswith("## ")] == ["## H100", "## H200"]


MEASURED = {"when": "now", "device": "cuda", "machine": {"name": "card"}, "failed": {}}


def test_measurements_have_their_own_page() -> None:
    assert results.page([MEASURED, MEASURED]) == tables.HEADER + "\nnow; card.\n\n---\n\nnow; card.\n"


def test_records_of_tests_and_of_measurements_do_not_mix() -> None:
    with pytest.raises(SystemExit, match="expected records of tests or records of measurements, found both"):
        results.page([MEASURED, _record("H100", {})])


def test_a_section_is_appended_without_a_second_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "record.json").write_text(json.dumps(MEASURED))
    monkeypatch.setenv("BUILD_WORKING_DIRECTORY", str(tmp_path))
    for action in ("--write", "--append"):
        monkeypatch.setattr(sys, "argv", ["results", "record.json", action, "page.md"])
        assert results.main() == 0
    assert (tmp_path / "page.md").read_text() == results.page([MEASURED, MEASURED])


def test_committed_pages_have_the_headers_of_the_program() -> None:
    for variable, header in (("TESTS_PAGE", results.HEADER), ("MEASUREMENTS_PAGE", tables.HEADER)):
        assert Path(os.environ[variable]).read_text().startswith(header)
