"""A model without a library is compiled where it is served: linked by ld alone, kept for this TVM and CPU."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlc_llm._mlc_bazel import compile_here, model_check, versions
from mlc_llm.interface import jit
from mlc_llm.model import MODELS
from mlc_llm.quantization import QUANTIZATION
from mlc_llm.support import constants
from tiny_model_files import LIBRARY, WEIGHTS, child_environment, tiny_hub
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


def output_of(command: list[str]) -> Path:
    """Where `mlc_llm compile` is to write the library."""
    return Path(command[command.index("--output") + 1])


@pytest.fixture
def compiling(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would compile a model; each gives the tiny model's library."""
    commands: list[list[str]] = []

    def compile_it(command: list[str], **_: object) -> None:
        commands.append(command)
        shutil.copyfile(LIBRARY, output_of(command))
        output_of(command).chmod(0o775)

    monkeypatch.setattr(jit.subprocess, "run", compile_it)
    return commands


def test_two_servers_compile_a_model_once(compiling: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    both, lock = threading.Barrier(2), compile_here.locked

    @contextlib.contextmanager
    def locked(path: Path) -> Iterator[None]:
        both.wait(600)
        with lock(path):
            yield
            assert len(compiling) == 1, "it is compiled before another server goes on"

    monkeypatch.setattr(compile_here, "locked", locked)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = {one.model_lib_path for one in pool.map(lambda _: jit.jit(WEIGHTS, {}, "cpu:0"), range(2))}
    assert len(found) == len(compiling) == 1


def test_no_one_else_can_write_a_compiled_library(compiling: list[list[str]], home: Path) -> None:
    usual = os.umask(0o002)  # The default of some distributions.
    try:
        library = Path(jit.jit(WEIGHTS, {}, "cpu:0").model_lib_path)
    finally:
        os.umask(usual)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (library, library.parent)] == [0o644, 0o755]
    assert jit.jit(WEIGHTS, {}, "cpu:0").model_lib_path == str(library)


@pytest.mark.parametrize("which", ["library", "folder"])
@pytest.mark.parametrize(
    ("mode", "user", "accepted"),
    [(0o775, None, False), (0o757, None, False), (0o755, 4321, False), (0o755, 0, True), (0o555, None, True)],
)
def test_a_cached_library_that_another_user_could_have_written_is_refused(
    compiling: list[list[str]], monkeypatch: pytest.MonkeyPatch, which: str, mode: int, user: int | None, accepted: bool
) -> None:
    """A library is a program. Upstream loads it."""
    library = Path(jit.jit(WEIGHTS, {}, "cpu:0").model_lib_path)
    path = library if which == "library" else library.parent
    usual = Path.stat

    def found(of: Path, **options: bool) -> os.stat_result:
        status = list(usual(of, **options))
        if of == path:
            status[0] = stat.S_IFMT(int(status[0])) | mode
            status[4] = status[4] if user is None else user
        return os.stat_result(status)

    monkeypatch.setattr(Path, "stat", found)
    if accepted:
        assert jit.jit(WEIGHTS, {}, "cpu:0").model_lib_path == str(library)
        return
    with pytest.raises(model_check.ModelError) as caught:
        jit.jit(WEIGHTS, {}, "cpu:0")
    said = str(caught.value)
    assert said.startswith(f"{path}: expected it to be user {os.geteuid()}'s or root's") and f"mode {mode:o}" in said
    assert "remove it, or set MLC_LLM_HOME" in said and len(compiling) == 1


def test_a_cached_library_that_is_damaged_is_refused(compiling: list[list[str]]) -> None:
    library = Path(jit.jit(WEIGHTS, {}, "cpu:0").model_lib_path)
    os.truncate(library, 400_000)
    with pytest.raises(model_check.ModelError, match="found 400000: the file is truncated.*remove it"):
        jit.jit(WEIGHTS, {}, "cpu:0")


def test_a_cache_that_cannot_be_written_gives_its_libraries(
    compiling: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = jit.jit(WEIGHTS, {}, "cpu:0").model_lib_path
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(compile_here, "locked", None)
    assert jit.jit(WEIGHTS, {}, "cpu:0").model_lib_path == library


def test_the_lock_of_a_cache_follows_no_link(compiling: list[list[str]], home: Path, tmp_path: Path) -> None:
    """In a folder that others can write, a link would have this user empty another file."""
    (tmp_path / "victim").write_bytes(b"victim")
    jit.jit(WEIGHTS, {}, "cpu:0")
    (lock,) = home.rglob(".*.lock")
    lock.unlink()
    lock.symlink_to(tmp_path / "victim")
    with pytest.raises(model_check.ModelError, match="found: OSError"):
        jit.jit(WEIGHTS, {}, "cpu:0")
    assert (tmp_path / "victim").read_bytes() == b"victim"


def set_(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda config: config.update(values)


def set_model(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["model_config"].update(values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_(model_type="../../x"), "model_type: expected one that mlc_llm compile knows, found '../../x'"),
        (set_(model_type=["llama"]), "model_type: expected one that mlc_llm compile knows, found ['llama']"),
        (lambda config: config.pop("model_type"), "model_type: expected one that mlc_llm compile knows, found None"),
        (lambda config: config.pop("quantization"), "quantization: expected one that"),
        (set_(quantization="q9\n\x1b[31m"), r"found 'q9\n\x1b[31m'"),
        (lambda config: config.pop("model_config"), "model_config: expected a JSON object, found None"),
        (set_(model_config=[1]), "model_config: expected a JSON object, found [1]"),
        (set_model(head_dim=0, num_attention_heads=0), "found: ZeroDivisionError"),
        (set_model(hidden_size="__import__('os')"), "found: TypeError"),
        (lambda config: config["model_config"].pop("hidden_size"), "found: TypeError"),
        (
            set_model(num_hidden_layers=10**9),
            "num_hidden_layers: expected at most 15, as many as tensor-cache.json has",
        ),
        (set_model(num_hidden_layers=1e999), "num_hidden_layers: expected at most 15"),
        (set_model(num_hidden_layers=3), "expected the tensor model.layers.2."),
        (set_model(num_hidden_layers=1), "expected all layers of tensor-cache.json, found 'none for model.layers.1."),
        (
            set_model(hidden_size=10**6, num_attention_heads=62500),
            "model_config: expected the tensor model.embed_tokens",
        ),
        (
            set_(quantization="q0f16"),
            "of shape ['vocab_size', 64] and float16 in tensor-cache.json, found '[320, 64] and",
        ),
        (set_(quantization="q4f16_1"), "expected the tensor "),
        (set_(tensor_parallel_shards=64), "found: AssertionError: num_kv_heads(2) must be divisible"),
        (set_(tensor_parallel_shards="many"), "found: TypeError"),
        (set_(pipeline_parallel_stages=64), "found: ValueError: Invalid"),
    ],
)
def test_a_configuration_that_does_not_fit_the_weights_is_not_compiled(
    compiling: list[list[str]], tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(WEIGHTS, model, copy_function=shutil.copyfile)
    model.chmod(0o755)  # Bazel's folders are read-only.
    config = json.loads((model / "mlc-chat-config.json").read_text())
    change(config)
    (model / "mlc-chat-config.json").unlink()
    (model / "mlc-chat-config.json").write_text(json.dumps(config))
    with pytest.raises(model_check.ModelError) as caught:
        jit.jit(model, {}, "cpu:0")
    line = str(caught.value)
    assert said in line and line.startswith(str(model)) and line.isprintable() and len(line) < 1000
    assert not compiling


def test_what_is_asked_of_the_server_is_tried_before_it_is_compiled(compiling: list[list[str]]) -> None:
    with pytest.raises(model_check.ModelError, match="found: AssertionError: num_kv_heads"):
        jit.jit(WEIGHTS, {"tensor_parallel_shards": 64}, "cpu:0")
    jit.jit(WEIGHTS, {"tensor_parallel_shards": 2, "max_batch_size": 4, "opt": "O0"}, "cpu:0")
    assert len(compiling) == 1


@pytest.mark.parametrize("quantization", ["q0f32", "q4f16_1", "q3f16_0"])
def test_weights_are_compared_with_what_a_converter_makes(quantization: str) -> None:
    """`mlc_llm convert_weight` and the compiler ask for the parameters in another way."""
    values = json.loads((WEIGHTS / "mlc-chat-config.json").read_text())["model_config"]
    model, chosen = MODELS["llama"], QUANTIZATION[quantization]
    quantized, _ = model.quantize[chosen.kind](model.config.from_dict(values), chosen)
    _, parameters, _ = quantized.export_tvm(spec=quantized.get_default_spec(), allow_extern=True)
    assert dict(quantized.named_parameters()).keys() == dict(parameters).keys()


def test_a_library_is_kept_for_this_tvm_and_this_cpu(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def compile_it(command: list[str], **_: object) -> None:
        commands.append(command)
        shutil.copyfile(LIBRARY, output_of(command))

    monkeypatch.setattr(jit.subprocess, "run", compile_it)
    build = versions.TVM.partition("+")[2]
    cpu = codegen.llvm_get_system_cpu()
    for _ in range(2):
        found = Path(jit.jit(WEIGHTS, {}, "cpu:0").model_lib_path)
        assert found.read_bytes() == LIBRARY.read_bytes()
        assert found.parent == home / f"model_lib/{build}-{cpu}/model_lib"
    assert len(commands) == 1, "the second time, it is there"
    # It was compiled in the same file system, so no one ever sees a part of it.
    assert output_of(commands[0]).is_relative_to(found.parent)
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
        ("HF://owner/tiny-MLC", {"HF_ENDPOINT": "ftp://127.0.0.1"}, "HF_ENDPOINT: expected https://HOST without a"),
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
