"""A Rust package gives the same static library wherever it is built, without the path of any build folder."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toolchains import runfiles
from toolchains.rust.private import cargo_build

PACKAGE = runfiles.HERE / "rust"
TOOL = runfiles.MAIN / "toolchains/rust/private/cargo_build.py"
REPOSITORIES = {name: runfiles.repository(name) for name in ("crates_tests", "debian_cc", "debian_rust")}
# Bazel built this in its sandbox.
LIBRARY = PACKAGE / "libsum.a"


def build_in(folder: Path, jobs: int, *, broken: bool = False) -> subprocess.CompletedProcess:
    """Runs the action in a folder laid out as Bazel's; the library is libsum.a there."""
    (folder / "external").mkdir(parents=True)
    for name, path in REPOSITORIES.items():
        (folder / "external" / name).symlink_to(path)
    shutil.copytree(PACKAGE, folder / "package", ignore=shutil.ignore_patterns("libsum.a"))
    if broken:
        (folder / "package/src/lib.rs").write_text("fn broken( {}\n")
    command: list[str | Path] = [
        sys.executable,
        TOOL,
        "--output=libsum.a",
        f"--jobs={jobs}",
        "--manifest=package/Cargo.toml",
        "--lock=package/Cargo.lock",
    ]
    command += [f"--{tool}=external/debian_rust/usr/bin/{tool}" for tool in ("cargo", "rustc")]
    command += [
        f"--{option}=external/debian_cc/usr/bin/{tool}"
        for option, tool in {"cc": "gcc", "cxx": "g++", "ar": "ar", "strip": "strip"}.items()
    ]
    command += [f"--source=package/{name}" for name in ("build.rs", "src/add.c", "src/lib.rs")]
    command += [
        f"--crate={path.relative_to(folder)}" for path in sorted((folder / "external/crates_tests").glob("*.crate"))
    ]
    return subprocess.run(command, cwd=folder, env={}, stderr=subprocess.PIPE, text=True)


def test_two_folders_one_library(tmp_path: Path) -> None:
    for folder, jobs in ((tmp_path / "one", 1), (tmp_path / "another/longer place", 4)):
        done = build_in(folder, jobs)
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in folder.iterdir()) == ["external", "libsum.a", "package"]
        assert (folder / "libsum.a").read_bytes() == LIBRARY.read_bytes(), (
            f"not what Bazel built: {folder / 'libsum.a'}"
        )


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (".cargo/config.toml", '[build]\nrustc-wrapper = "{program}"\n'),
        (".cargo/config.toml", "[profile.release]\nopt-level = 0\noverflow-checks = true\n"),
        (".cargo/config", '[env]\nCFLAGS = {{ value = "-DNDEBUG", force = true }}\n'),
        (
            ".cargo/config.toml",
            '[source.crates-io]\nreplace-with = "mirror"\n[source.mirror]\nregistry = "sparse+https://r.example.org/"\n',
        ),
        ("Cargo.toml", '[workspace]\nmembers = ["**/package"]\n[profile.release]\nopt-level = 0\n'),
    ],
)
def test_no_file_above_the_build_changes_the_library(tmp_path: Path, file: str, content: str) -> None:
    """Bazel's output base is below the user's home by default."""
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\n: > {tmp_path}/ran\nexec "$@"\n')
    program.chmod(0o755)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(content.format(program=program))
    done = build_in(tmp_path / "cache", 4)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists(), "a program of somebody's configuration ran"
    assert (tmp_path / "cache/libsum.a").read_bytes() == LIBRARY.read_bytes()


def test_a_configuration_in_the_root_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cargo reads that one from everywhere."""
    monkeypatch.setattr(cargo_build, "_ROOT", tmp_path)
    (tmp_path / ".cargo").mkdir()
    (tmp_path / ".cargo/config").touch()
    with pytest.raises(cargo_build.BuildError, match=f"found {tmp_path}/.cargo/config, which would change"):
        cargo_build.build(argparse.Namespace(), tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_no_folder_of_the_build_is_in_the_library() -> None:
    content = LIBRARY.read_bytes()
    # Assertions name their sources by mapped paths.
    assert b"\0./package/src/add.c\0" in content
    assert re.search(rb"\./target/release/build/sum-[0-9a-f]+/out/require\.rs", content)
    for part in (b"sandbox", b"execroot", b"bazel-out", b"external/", b".cargo/registry"):
        assert part not in content


def test_a_compile_error_shows_the_compilers_message(tmp_path: Path) -> None:
    done = build_in(tmp_path / "one", 1, broken=True)
    assert done.returncode == 1
    assert "src/lib.rs:1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "one/libsum.a").exists()
