"""A wheel of py_wheel installs with pip, has the metadata of its BUILD file, and has the same bytes everywhere."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import json
import os
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from given import runfile


def python(
    *arguments: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None, umask: int = -1
) -> subprocess.CompletedProcess[str]:
    """Runs this interpreter with this test's packages, by default without the rest of the environment."""
    environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": os.environ["TEST_TMPDIR"],
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment if env is None else env,
        cwd=cwd,
        umask=umask,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def install(wheel: Path, folder: Path) -> importlib.metadata.Distribution:
    """Installs one wheel with the locked pip into an empty folder; returns the installed distribution."""
    options = ["--isolated", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", f"--target={folder}"]
    done = python("-m", "pip", "install", *options, wheel)
    assert done.returncode == 0, done.stdout
    (distribution,) = importlib.metadata.distributions(path=[str(folder)])
    return distribution


def test_file_name_follows_the_specification() -> None:
    assert runfile("GREETING_WHEEL").name == "greeting_wheel-1.0.post1+mlc.2-py3-none-any.whl"
    assert runfile("ANSWER_WHEEL").name == "answer-2-py3-none-manylinux_2_31_x86_64.whl"


def test_installs_with_pip_and_has_its_metadata(tmp_path: Path) -> None:
    distribution = install(runfile("GREETING_WHEEL"), tmp_path)
    metadata = distribution.metadata
    assert (metadata["Name"], distribution.version) == ("Greeting.Wheel", "1.0.post1+mlc.2")
    assert distribution.requires == ["packaging", "numpy>=1; extra == 'fast'"]
    assert metadata["Requires-Python"] == ">=3.9"
    assert metadata["Summary"] == "A wheel for tests."
    assert metadata["License"] == "Apache-2.0"
    assert metadata["Project-URL"] == "Source, https://example.invalid/source"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.json["description"]).startswith("# Greeting\n")
    assert [(entry.name, entry.value) for entry in distribution.entry_points] == [("greet", "greeting:main")]
    assert "No rights reserved" in (distribution.read_text("LICENSE.txt") or "")
    assert (tmp_path / "greeting/__init__.py").is_file()
    assert os.access(tmp_path / "greeting/tool.py", os.X_OK), "a file that starts with #! must be executable"


def test_platform_wheel_installs_library_and_data(tmp_path: Path) -> None:
    install(runfile("ANSWER_WHEEL"), tmp_path)
    assert (tmp_path / "answer/libanswer.so").read_bytes().startswith(b"\x7fELF")
    assert (tmp_path / "share/answer/README.md").is_file()


@pytest.mark.parametrize("variable", ["GREETING_WHEEL", "ANSWER_WHEEL"])
def test_record_lists_every_file_with_its_hash(variable: str) -> None:
    with zipfile.ZipFile(runfile(variable)) as archive:
        (record,) = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
        rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(archive.read(record).decode()))}
        assert sorted(rows) == sorted(archive.namelist())
        assert len(archive.namelist()) == len(set(archive.namelist()))
        for name, (digest, size) in rows.items():
            if name == record:
                assert (digest, size) == ("", "")
                continue
            content = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={expected}", len(content)), name


@pytest.mark.parametrize("variable", ["GREETING_WHEEL", "ANSWER_WHEEL"])
def test_passes_check_wheel_contents(variable: str) -> None:
    done = python("-m", "check_wheel_contents", "--no-config", runfile(variable))
    assert done.returncode == 0, done.stdout


def test_auditwheel_grants_the_platform_tag() -> None:
    done = python("-m", "auditwheel", "show", runfile("ANSWER_WHEEL"))
    assert done.returncode == 0, done.stdout
    # The library needs no symbol of glibc, so auditwheel grants the oldest tag.
    assert re.search(
        r'consistent with the following platform tag: "manylinux_2_5_x86_64"', " ".join(done.stdout.split())
    )


SPEC = {
    "abi": "none",
    "add_path_prefix": "",
    "compress": True,
    "data_files": [],
    "description_file": None,
    "entry_points": "",
    "escaped_distribution": "same",
    "extra_distinfo_files": [],
    "label": "//:same",
    "metadata": ["Metadata-Version: 2.1", "Name: same"],
    "platform": "any",
    "python_tag": "py2.py3",
    "strip_path_prefixes": ["in/"],
    "version": "1",
}


def make(
    folder: Path, files: list[str], spec: dict, env: dict[str, str] | None = None, umask: int = -1
) -> subprocess.CompletedProcess[str]:
    """Runs the stand-in's wheelmaker in a folder; it writes out.whl.

    Args:
        folder: has the files.
        files: lines "path in the wheel;path in the folder".
        spec: wheelmaker's specification.
        env: environment variables instead of the usual ones.
        umask: the process's umask.
    """
    (folder / "spec.json").write_text(json.dumps(spec))
    (folder / "files.txt").write_text("".join(line + "\n" for line in files))
    tool = runfile("WHEELMAKER").resolve()
    return python(
        "-I", tool, "--spec=spec.json", "--files=files.txt", "--output=out.whl", cwd=folder, env=env, umask=umask
    )


def test_bytes_depend_on_content_alone(tmp_path: Path) -> None:
    wheels = []
    for number, (umask, zone, mode, time) in enumerate(
        [(0o022, "UTC", 0o644, 0), (0o077, "Asia/Tokyo", 0o555, 1_700_000_000)]
    ):
        folder = tmp_path / str(number)
        names = ["in/a.py", "in/b/c.txt", "in/d.sh"]
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("#!/bin/sh\n" if name.endswith(".sh") else name * 1000)
            path.chmod(mode)
            os.utime(path, (time, time))
        lines = [f"{name};{name}" for name in (names if number else reversed(names))]
        done = make(folder, lines, SPEC, env={"TZ": zone, "LC_ALL": "C.UTF-8" if number else "C"}, umask=umask)
        assert done.returncode == 0, done.stdout
        wheels.append((folder / "out.whl").read_bytes())
    assert wheels[0] == wheels[1]
    with zipfile.ZipFile(io.BytesIO(wheels[0])) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        # Upstream's modes, and its room for large sizes in the local header, so that both profiles give the same bytes.
        assert {info.external_attr for info in archive.infolist()} == {(stat.S_IFREG | 0o777) << 16}
        # The length of its extra field (APPNOTE, 4.3.7): 20 bytes for two sizes.
        room = {
            info.filename: int.from_bytes(wheels[0][info.header_offset + 28 : info.header_offset + 30], "little")
            for info in archive.infolist()
        }
        assert (room["a.py"], room["same-1.dist-info/METADATA"]) == (20, 0)
        assert "Generator: bazel-wheelmaker 1.0\n" in archive.read("same-1.dist-info/WHEEL").decode()
        assert "Tag: py2-none-any\nTag: py3-none-any\n" in archive.read("same-1.dist-info/WHEEL").decode()


@pytest.mark.parametrize(
    ("files", "changes", "message"),
    [
        (["in/a.py;a.py"], {"version": "01"}, "//:same: version '01' is not in the normal form of PEP 440"),
        (["in/a.py;a.py"], {"strip_path_prefixes": ["in"]}, "/a.py is no place inside a wheel"),
        (["in/a.py;a.py", "a.py;a.py"], {}, "two files would become a.py"),
    ],
)
def test_refuses_input_for_a_broken_wheel(tmp_path: Path, files: list[str], changes: dict, message: str) -> None:
    (tmp_path / "a.py").write_text("")
    done = make(tmp_path, files, {**SPEC, **changes})
    assert done.returncode == 1
    assert message in done.stdout
