"""What compiles models is mlc-llm without its engine: a change of the engine's C++ compiles no library again
(models/README.md).
"""

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


def test_it_is_the_wheel_without_what_the_engine_changes() -> None:
    """The engine is in the wheel's build id, so everything that has the id goes too."""
    compiler, installed = _files(COMPILER), _files(INSTALLED)
    metadata = {name for name in installed if name.startswith("mlc_llm-") and ".dist-info/" in name}
    assert installed.keys() - compiler.keys() == {"mlc_llm/libmlc_llm.so", "mlc_llm/libmlc_llm_module.so", *metadata}
    (build_id,) = {name.partition(".dist-info/")[0].rpartition(".b")[2].encode() for name in metadata}
    assert not [name for name, content in compiler.items() if build_id in content or build_id in name.encode()]
    assert compiler == {name: content for name, content in installed.items() if name in compiler}
    assert not [name for name, content in compiler.items() if content.startswith(b"\x7fELF")]


def test_it_has_the_compiler_once_it_is_told_to_do_without_the_engine() -> None:
    done = _mlc_llm("compile", "--help", SKIP_LOADING_MLCLLM_SO="1")
    assert done.returncode == 0, done.stderr
    assert "--quantization" in done.stdout


def test_an_engine_that_is_missing_by_mistake_is_an_error() -> None:
    done = _mlc_llm("compile", "--help")
    assert done.returncode == 1
    assert "Cannot find libraries: libmlc_llm_module.so" in done.stderr
