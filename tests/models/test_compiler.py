"""mlc-llm without its engine compiles models: changes to the engine's C++ recompile no library (models/README.md)."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

COMPILER, INSTALLED = (pathlib.Path(os.environ[name]).absolute() for name in ("COMPILER", "INSTALLED"))


def _files(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _mlc_llm(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(COMPILER), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "mlc_llm", *arguments],
        env={"PATH": "/nonexistent", "HOME": os.environ["TEST_TMPDIR"], "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )


def test_it_is_the_wheel_without_files_that_depend_on_the_engine() -> None:
    """The build id depends on the engine, so the compiler lacks every file that contains the id."""
    compiler, installed = _files(COMPILER), _files(INSTALLED)
    metadata = {name for name in installed if name.startswith("mlc_llm-") and ".dist-info/" in name}
    assert installed.keys() - compiler.keys() == {"mlc_llm/libmlc_llm.so", "mlc_llm/libmlc_llm_module.so", *metadata}
    (build_id,) = {name.partition(".dist-info/")[0].rpartition(".b")[2].encode() for name in metadata}
    assert not [name for name, content in compiler.items() if build_id in content or build_id in name.encode()]
    assert compiler == {name: content for name, content in installed.items() if name in compiler}
    assert not [name for name, content in compiler.items() if content.startswith(b"\x7fELF")]


def test_it_compiles_if_told_to_skip_the_engine() -> None:
    done = _mlc_llm("compile", "--help", SKIP_LOADING_MLCLLM_SO="1")
    assert done.returncode == 0, done.stderr
    assert "--quantization" in done.stdout


def test_a_missing_engine_is_otherwise_an_error() -> None:
    done = _mlc_llm("compile", "--help")
    assert done.returncode == 1
    assert "Cannot find libraries: libmlc_llm_module.so" in done.stderr
