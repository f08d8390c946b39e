"""A model without a library is compiled where it is served: linked by ld alone, kept for this TVM and CPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlc_llm._mlc_bazel import model_check, versions
from mlc_llm.interface import jit
from mlc_llm.support import constants
from tiny_model_files import WEIGHTS, child_environment, tiny_hub
from tvm.support import cc
from tvm.target import codegen


@pytest.fixture
def only_ld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a linker and no compiler; the linker writes its arguments where the library would be."""
    ld = tmp_path / "bin/ld"
    ld.parent.mkdir()
    ld.write_text(
        f"#!{sys.executable} -IS\nimport sys\nif 'bad.o' in sys.argv: sys.exit('bad.o: no object')\n"
        "open(sys.argv[sys.argv.index('-o') + 1], 'w').write(' '.join(sys.argv[1:]))\n"
    )
    ld.chmod(0o755)
    monkeypatch.setenv("PATH", str(ld.parent))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    return ld


def test_ld_alone_links_what_a_compiler_would(only_ld: Path, tmp_path: Path) -> None:
    cc.create_shared(str(tmp_path / "x.so"), ["a.o", "b.o"])
    said = (tmp_path / "x.so").read_text()
    assert said.startswith("-shared ") and f"-o {tmp_path}/x.so a.o b.o " in said
    assert said.endswith("--as-needed -l:libm.so.6 -l:libgcc_s.so.1 -l:libc.so.6")


def test_a_compiler_is_used_where_there_is_one(only_ld: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = only_ld.with_name("g++")
    compiler.write_text(f"#!{sys.executable} -IS\nimport sys\nopen({str(tmp_path / 'used')!r}, 'w')\n")
    compiler.chmod(0o755)
    cc.create_shared(str(tmp_path / "x.so"), ["a.o"])
    assert (tmp_path / "used").exists() and not (tmp_path / "x.so").exists()


def test_what_the_linker_says_is_in_the_error(only_ld: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"expected a library, found exit status 1: bad\.o: no object"):
        cc.create_shared(str(tmp_path / "x.so"), ["bad.o"])


def test_importing_mlc_llm_imports_no_architectures(tmp_path: Path) -> None:
    program = "import sys, mlc_llm; print([name for name in sys.modules if name.startswith('mlc_llm.model.llama')])"
    done = subprocess.run(
        [sys.executable, "-c", program], env=child_environment(tmp_path), capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setattr(constants, "MLC_LLM_HOME", tmp_path / "home")
    monkeypatch.setattr(jit, "MLC_LLM_HOME", tmp_path / "home")
    monkeypatch.setattr(jit, "MLC_TEMP_DIR", None)
    return tmp_path / "home"


def test_a_library_is_kept_for_this_tvm_and_this_cpu(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def compile_it(command: list[str], **_: object) -> None:
        commands.append(command)
        Path(command[command.index("--output") + 1]).write_bytes(b"library")

    monkeypatch.setattr(jit.subprocess, "run", compile_it)
    build = versions.TVM.partition("+")[2]
    cpu = codegen.llvm_get_system_cpu()
    for _ in range(2):
        found = Path(jit.jit(WEIGHTS, {}, "cpu:0").model_lib_path)
        assert found.read_bytes() == b"library"
        assert found.parent == home / f"model_lib/{build}-{cpu}/model_lib"
    assert len(commands) == 1, "the second time, it is there"
    # It was compiled in the same file system, so no one ever sees a part of it.
    assert Path(commands[0][commands[0].index("--output") + 1]).is_relative_to(found.parent)
    monkeypatch.setattr(codegen, "llvm_get_system_cpu", lambda: "another")
    assert Path(jit.jit(WEIGHTS, {}, "cpu:0").model_lib_path).parts[-3] == f"{build}-another"
    assert len(commands) == 2


def test_a_failed_compilation_is_one_line_with_the_remedy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit.subprocess, "run", lambda *_, **__: None)
    with pytest.raises(
        model_check.ModelError, match="compilation failed; name it with --model-lib, or make it: mlc_llm"
    ):
        jit.jit(WEIGHTS, {}, "cpu:0")


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a hub with the tiny model as owner/tiny-MLC, and nothing else."""
    with tiny_hub("owner/tiny-MLC") as (address, _):
        yield address


@pytest.mark.parametrize(
    ("address", "variables", "said"),
    [
        ("HF://owner/other", {}, "/owner/other: expected mlc-chat-config.json and tensor-cache.json, found no such"),
        (
            "HF://owner/tiny-MLC",
            {"MLC_JIT_POLICY": "OFF"},
            "found: JIT is disabled by MLC_JIT_POLICY=OFF; name it with",
        ),
        ("HF://owner/tiny-MLC", {"HF_ENDPOINT": "http://127.0.0.1:1"}, "found ConnectionError; try again later"),
    ],
)
def test_the_server_ends_with_one_line(
    hub: str, tmp_path: Path, address: str, variables: dict[str, str], said: str
) -> None:
    environment = {
        **child_environment(tmp_path),
        "HF_ENDPOINT": hub,
        "NO_PROXY": "*",
        "MLC_LLM_HOME": str(tmp_path / "home"),
        **variables,
    }
    command = [sys.executable, "-m", "mlc_llm", "serve", address, "--device", "cpu", "--port", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith("mlc_llm serve: ") and said in last, done.stderr
    assert "Traceback" not in done.stderr
