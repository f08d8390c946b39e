"""`pytest_test` passes if and only if every test of every file ran and passed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

RUNNER = Path(__file__).with_name("run_pytest.py")
PASSING = "def test_passes(): pass\n"


def run(folder: Path, *sources: str, options: Sequence[str] = (), **environment: str) -> subprocess.CompletedProcess:
    files = [folder / f"test_{number}.py" for number in range(len(sources))]
    for file, source in zip(files, sources):
        file.write_text(source)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TEST_", "TESTBRIDGE_", "XML_"))}
    environments = [f"--environment={path}" for path in sys.path if path]
    return subprocess.run(
        [sys.executable, RUNNER, *environments, *options, *files],
        env={**kept, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_passing_files_pass(tmp_path: Path) -> None:
    result = run(tmp_path, PASSING, PASSING)
    assert result.returncode == 0 and "2 passed" in result.stdout, result.stdout + result.stderr


def test_no_file_above_the_tests_runs(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("raise SystemExit('ran')\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --collect-only\n")
    (tmp_path / "tests").mkdir()
    result = run(tmp_path / "tests", PASSING)
    assert result.returncode == 0 and "1 passed" in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "no test in"),
        ("def check(): assert False\n", "no test in"),
        ("def test_fails(): assert 1 == 2\n", "assert 1 == 2"),
        ("import a_module_that_is_not_there\n", "a_module_that_is_not_there"),
        ("def test_fails(missing_fixture): pass\n", "missing_fixture"),
        ("import pytest\n@pytest.mark.skip(reason='later')\ndef test_skips(): assert False\n", "counts as a failure"),
        ("import pytest\ndef test_skips(): pytest.skip('later')\n", "counts as a failure"),
        ("import pytest\npytest.importorskip('not_there')\ndef test_skips(): pass\n", "counts as a failure"),
        ("import pytest\n@pytest.mark.xfail\ndef test_fails(): assert False\n", "counts as a failure"),
        ("import pytest\n@pytest.mark.xfail\ndef test_passes(): pass\n", "XPASS"),
    ],
    ids=["empty", "no test", "fail", "import", "fixture", "skip mark", "skip call", "skip file", "xfail", "xpass"],
)
def test_any_other_outcome_fails_and_says_why(tmp_path: Path, source: str, reason: str) -> None:
    """Another file that passes does not help."""
    result = run(tmp_path, PASSING, source)
    assert result.returncode != 0 and reason in result.stdout + result.stderr, result.stdout + result.stderr


def test_allow_skips_does_not_allow_failures(tmp_path: Path) -> None:
    skipping = "import pytest\ndef test_skips(): pytest.skip('later')\n"
    assert run(tmp_path, PASSING, skipping, options=["--allow_skips"]).returncode == 0
    assert run(tmp_path, "def test_fails(): assert False\n", skipping, options=["--allow_skips"]).returncode != 0


def test_writes_results_where_bazel_asks(tmp_path: Path) -> None:
    run(tmp_path, PASSING, XML_OUTPUT_FILE=str(tmp_path / "test.xml"))
    assert [case.get("name") for case in ElementTree.parse(tmp_path / "test.xml").iter("testcase")] == ["test_passes"]


def test_every_test_runs_in_exactly_one_shard(tmp_path: Path) -> None:
    source = "".join(f"def test_{number}(): pass\n" for number in range(7))
    shards = [
        run(
            tmp_path, source, TEST_TOTAL_SHARDS="3", TEST_SHARD_INDEX=str(index), TEST_SHARD_STATUS_FILE=f"{tmp_path}/s"
        )
        for index in range(3)
    ]
    assert [shard.stdout.splitlines()[-1].split()[1] for shard in shards] == ["3", "2", "2"]
    assert (tmp_path / "s").exists()


def test_the_filter_selects_tests(tmp_path: Path) -> None:
    result = run(tmp_path, PASSING + "def test_other(): assert False\n", TESTBRIDGE_TEST_ONLY="passes")
    assert result.returncode == 0 and "1 deselected" in result.stdout


def test_home_is_a_temporary_folder_and_nothing_is_written_next_to_the_sources(tmp_path: Path) -> None:
    home, sources = tmp_path / "home", tmp_path / "sources"
    home.mkdir()
    sources.mkdir()
    source = "import os\ndef test_home(tmp_path): assert str(tmp_path).startswith(os.environ['HOME'])\n"
    result = run(sources, source, TEST_TMPDIR=str(home))
    assert result.returncode == 0, result.stdout
    assert [path.name for path in sources.iterdir()] == ["test_0.py"]
