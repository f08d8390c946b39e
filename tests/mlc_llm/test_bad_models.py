"""A model that cannot be loaded gives one clear error, never a hang or a signal."""

from __future__ import annotations

import json
import platform
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import tvm_ffi
from mlc_llm._mlc_bazel import library_parts, model_check, versions
from tiny_model_files import CHECKPOINT, LIBRARY, WEIGHTS, child_environment

from mlc_llm import MLCEngine

CONFIG, SHARD, CACHE = "mlc-chat-config.json", "params_shard_0.bin", "tensor-cache.json"
EXPECTED_SHARD = f"{SHARD}: expected a weight shard of 254592 bytes"
SYMBOL = b"__tvm_ffi__library_bin"

# Seconds after which a process counts as hanging. These processes end within five.
PATIENCE = 600

START = """
import sys
from mlc_llm import MLCEngine
from mlc_llm.serve import EngineConfig
folder, library, tokens = sys.argv[1:]
config = EngineConfig(max_total_sequence_length=int(tokens))
engine = MLCEngine(folder, model_lib=library, device="cpu", engine_config=config)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the model to spoil."""
    folder = tmp_path / "model"
    shutil.copytree(WEIGHTS, folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    return folder


def run(home: Path, *arguments: object) -> subprocess.CompletedProcess:
    """Runs Python to its end, which must be an error, but not a signal."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=home,
        env=child_environment(home),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode > 0, (
        f"{'killed by ' + signal.Signals(-done.returncode).name if done.returncode else 'no error'}\n{done.stderr}"
    )
    return done


def truncate(path: Path, size: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:size])


def remove_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# How the model is spoilt, what the error says, and the command that fixes it.
SPOILT: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no folder": (shutil.rmtree, "expected the folder of a model, found nothing", ""),
    "no configuration": (lambda folder: (folder / CONFIG).unlink(), f"{CONFIG}: expected a file", "gen_config"),
    "configuration cut short": (lambda folder: truncate(folder / CONFIG, 99), f"{CONFIG}: expected JSON", "gen_config"),
    "no list of weights": (lambda folder: (folder / CACHE).unlink(), f"{CACHE}: expected a file", "convert_weight"),
    "no shard": (lambda folder: (folder / SHARD).unlink(), f"{EXPECTED_SHARD}, found nothing", "convert_weight"),
    "shard cut short": (
        lambda folder: truncate(folder / SHARD, 100),
        f"{EXPECTED_SHARD}, found 100;",
        "convert_weight",
    ),
    "no tokenizer": (
        remove_tokenizer,
        "expected a tokenizer",
        "gen_config",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_model_is_refused_in_one_line(folder: Path, what: str) -> None:
    spoil, message, command = SPOILT[what]
    spoil(folder)
    with pytest.raises(model_check.ModelError) as caught:
        MLCEngine(str(folder), model_lib=str(LIBRARY), device="cpu")
    line = str(caught.value)
    assert line.startswith(str(folder)) and "\n" not in line
    assert message in line and command in line


def replace_tokenizer(name: str, content: bytes) -> Callable[[Path], object]:
    """Leaves this file as a model's only tokenizer."""

    def replace(folder: Path) -> None:
        remove_tokenizer(folder)
        (folder / name).write_bytes(content)

    return replace


def edit_tokenizer(change: Callable[[dict], object]) -> Callable[[Path], object]:
    return lambda folder: edit(folder / "tokenizer.json", change)


def token(number: object) -> dict[str, object]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": number, "content": "zz", **flags}


# How the tokenizer is spoilt, the file that is named, and what the error says.
SPOILT_TOKENIZERS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    # These would kill the process: an abort of Rust, and a stack that overflows.
    "empty object": (replace_tokenizer("tokenizer.json", b"{}"), "tokenizer.json", "can be loaded, found: SIGABRT: "),
    "nested": (replace_tokenizer("tokenizer.json", b"[" * 200_000), "tokenizer.json", "expected JSON, found: "),
    "nested object": (
        replace_tokenizer("tokenizer.json", b'{"x":' * 65 + b"1" + b"}" * 65),
        "tokenizer.json",
        "expected JSON with at most 64 levels, found more",
    ),
    "cut short": (lambda folder: truncate(folder / "tokenizer.json", 4000), "tokenizer.json", "expected JSON, found: "),
    "no text": (replace_tokenizer("tokenizer.json", b"\xff{}"), "tokenizer.json", "expected JSON, found: "),
    "no object": (replace_tokenizer("tokenizer.json", b"[]"), "tokenizer.json", "expected a JSON object, found list"),
    "merges of other tokens": (
        edit_tokenizer(lambda content: content["model"].update(merges=["never before"])),
        "tokenizer.json",
        "can be loaded, found: SIGABRT: ",
    ),
    "sentencepiece": (replace_tokenizer("tokenizer.model", b"\xff" * 500), "tokenizer.model", "can be loaded, found: "),
    "RWKV": (replace_tokenizer("tokenizer_model", b"\xff" * 500), "tokenizer_model", "can be loaded, found: "),
    "token number": (
        edit_tokenizer(lambda content: content["added_tokens"].append(token(4294967290))),
        "tokenizer.json",
        "expected tokens from 0 to 383, for a vocab_size of 320, found 4294967290",
    ),
    "token number in the vocabulary": (
        edit_tokenizer(lambda content: content["model"]["vocab"].update(zz=384)),
        "tokenizer.json",
        "found 384",
    ),
    "token number in the template": (
        edit_tokenizer(
            lambda content: content.update(
                post_processor={"type": "TemplateProcessing", "special_tokens": {"<s>": {"id": "<s>", "ids": [-1]}}}
            )
        ),
        "tokenizer.json",
        "found -1",
    ),
}


@pytest.mark.parametrize("what", SPOILT_TOKENIZERS)
def test_a_spoilt_tokenizer_is_refused_in_one_line(folder: Path, tmp_path: Path, what: str) -> None:
    spoil, name, message = SPOILT_TOKENIZERS[what]
    spoil(folder)
    line = run(tmp_path, "-m", "mlc_llm._mlc_bazel.model_check", folder, LIBRARY).stderr.splitlines()[-1]
    assert line.startswith(f"model_check: {folder / name}: expected ") and len(line) < 1000
    assert message in line and "mlc_llm gen_config" in line


def test_a_large_tokenizer_is_refused_before_it_is_read(folder: Path) -> None:
    with (folder / "tokenizer.json").open("r+b") as file:
        file.truncate((256 << 20) + 1)
    with pytest.raises(model_check.ModelError, match="expected at most 268435456 bytes, found 268435457"):
        model_check.check_model(folder)


def test_a_tokenizer_that_does_not_end_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_check, "LOAD_TOKENIZER", "import time; print('ready', flush=True); time.sleep(600)")
    monkeypatch.setattr(model_check, "TOKENIZER_SECONDS", 1)
    with pytest.raises(model_check.ModelError, match=r"tokenizer.json: .* found: nothing after 1 seconds"):
        model_check.check_model(folder)


def test_a_python_that_cannot_try_tokenizers_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that embeds Python, for example, has another program in sys.executable."""
    for program in ("", "/nonexistent/python", shutil.which("false") or ""):
        monkeypatch.setattr(sys, "executable", program)
        model_check.check_model(folder, LIBRARY)


@pytest.mark.parametrize("number", [0, 319, 383])
def test_a_tokenizer_may_have_some_tokens_more_than_the_model(folder: Path, number: int) -> None:
    edit(folder / "tokenizer.json", lambda content: content["model"]["vocab"].update(zz=number))
    model_check.check_model(folder, LIBRARY)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        (
            "conv_template",
            "system_prefix_token_ids",
            [1, 99999999],
            "expected tokens from 0 to 319, for a vocab_size of",
        ),
        ("conv_template", "system_prefix_token_ids", [320], "found 320"),
        ("conv_template", "system_prefix_token_ids", [-7], "found -7"),
        (
            "conv_template",
            "stop_token_ids",
            [2, 1 << 40],
            "expected tokens from -1 to 383, for a vocab_size of 320, found",
        ),
        ("conv_template", "stop_token_ids", ["2"], 'found "2"'),
        ("conv_template", "stop_token_ids", [True], "found true"),
        ("", "bos_token_id", 384, "found 384"),
        ("", "eos_token_id", [2, -2], "found -2"),
        ("", "pad_token_id", 0.5, "found 0.5"),
    ],
)
def test_a_token_that_the_model_has_not_is_refused(
    folder: Path, section: str, key: str, value: object, message: str
) -> None:
    edit(folder / CONFIG, lambda config: (config[section] if section else config).update({key: value}))
    with pytest.raises(model_check.ModelError) as caught:
        MLCEngine(str(folder), model_lib=str(LIBRARY), device="cpu")
    line = str(caught.value)
    path = f"{section}.{key}".removeprefix(".")
    assert line.startswith(f"{folder / CONFIG}: {path}: expected tokens") and "\n" not in line
    assert message in line and "gen_config" in line


@pytest.mark.parametrize(("key", "value"), [("pad_token_id", -1), ("eos_token_id", [2, 320]), ("bos_token_id", None)])
def test_a_token_that_stands_for_none_passes(folder: Path, key: str, value: object) -> None:
    edit(folder / CONFIG, lambda config: config.update({key: value}))
    model_check.check_model(folder, LIBRARY)


def test_a_vocabulary_of_another_size_than_the_weights_is_refused(folder: Path) -> None:
    """Upstream loads the model, and its first request fails the engine."""
    edit(folder / CONFIG, lambda config: config.update(vocab_size=100_000))
    with pytest.raises(model_check.ModelError) as caught:
        MLCEngine(str(folder), model_lib=str(LIBRARY), device="cpu")
    line = str(caught.value)
    assert line.startswith(f"{folder / CONFIG}: vocab_size: expected 320, as the weights ") and "\n" not in line
    assert "found 100000" in line and "gen_config" in line


TENSOR = {"name": "x", "shape": [4], "dtype": "float32", "format": "raw", "nbytes": 16, "byteOffset": 48}
WEIGHT = {"dataPath": "p.bin", "format": "raw-shard", "nbytes": 64, "records": [TENSOR]}


def check_records(folder: Path, cache: object, config: object = None) -> None:
    """Checks a model with one shard of 64 bytes and this list of tensors, which nothing else reads."""
    (folder / "p.bin").write_bytes(bytes(64))
    shutil.copyfile(WEIGHTS / "tokenizer.json", folder / "tokenizer.json")
    (folder / CONFIG).write_text(json.dumps(config or {}))
    (folder / CACHE).write_text(cache if isinstance(cache, str) else json.dumps(cache))
    model_check.check_model(folder, hashes=True)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"byteOffset": 0, "nbytes": 0, "shape": [0, 4]},
        {"byteOffset": 0, "nbytes": 64, "shape": [2, 16], "dtype": "float16"},
        {"nbytes": 3, "shape": [3], "dtype": "float8_e4m3fn"},
        {"nbytes": 3, "shape": [6], "dtype": "uint4"},
        {"nbytes": 4, "shape": [4], "dtype": "bool"},
        {"nbytes": 8, "format": "f32-to-bf16"},
        {"nbytes": 4, "shape": []},
    ],
    ids=str,
)
def test_a_tensor_inside_its_shard_passes(tmp_path: Path, change: dict[str, object]) -> None:
    check_records(tmp_path, {"records": [{**WEIGHT, "records": [{**TENSOR, **change}]}]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"byteOffset": 1 << 40}, "expected a tensor inside the 64 bytes of its shard, found bytes 1099511627776 to"),
        ({"byteOffset": 49}, "found bytes 49 to 65"),
        ({"byteOffset": -4096}, "byteOffset: expected a number of bytes, found -4096"),
        ({"byteOffset": True}, "byteOffset: expected a number of bytes, found true"),
        ({"byteOffset": 1.0}, "byteOffset: expected a number of bytes, found 1.0"),
        ({"nbytes": 1 << 30, "shape": [1 << 28]}, "expected a tensor inside"),
        ({"shape": [1 << 28]}, "expected 1073741824 bytes for shape [268435456] of float32, found 16"),
        ({"shape": [-2, -2]}, "shape: expected at most 16 sizes"),
        ({"shape": ["4"]}, "shape: expected at most 16 sizes"),
        ({"shape": None}, "shape: expected a list, found null"),
        ({"dtype": "object"}, "dtype: expected a type of numbers, found 'object'"),
        ({"dtype": 32}, "dtype: expected text, found 32"),
        ({"format": "f32-to-bf16"}, "expected 8 bytes"),
        ({"format": None}, "format: expected text"),
        ({"name": 1}, "name: expected text"),
    ],
)
def test_a_tensor_outside_of_its_shard_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """Upstream copies from any place in memory."""
    refused(tmp_path, {"records": [{**WEIGHT, "records": [{**TENSOR, **change}]}]}, message)


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        ({}, "records: expected a list, found null"),
        ({"records": None}, "records: expected a list, found null"),
        ({"records": ["x"]}, "records[0].dataPath: expected text, found null"),
        ({"records": [{}]}, "records[0].dataPath: expected text, found null"),
        ({"records": [{**WEIGHT, "nbytes": "64"}]}, 'records[0].nbytes: expected a number of bytes, found "64"'),
        ({"records": [{**WEIGHT, "records": {}}]}, "records[0].records: expected a list, found {}"),
        ({"records": [{**WEIGHT, "records": [[]]}]}, "records[0].records[0].name: expected text"),
        ({"records": [{**WEIGHT, "md5sum": 5}]}, "records[0].md5sum: expected text"),
        ({"records": [{**WEIGHT, "format": "npy"}]}, "records[0].format: expected 'raw-shard', found 'npy'"),
        ('{"records":' + "[" * 100_000, "expected JSON, found: maximum recursion depth"),
        *(
            (
                {"records": [{**WEIGHT, "dataPath": path}]},
                "records[0].dataPath: expected the name of a file in this folder",
            )
            for path in ("../../etc/hostname", "/etc/hostname", "a/p.bin", "a\\p.bin", "..", ".", "", "p.bin\0")
        ),
    ],
)
def test_a_damaged_list_of_weights_is_refused_in_one_line(tmp_path: Path, cache: object, message: str) -> None:
    refused(tmp_path, cache, message)


@pytest.mark.parametrize("size", [-1, 0, "320", None, 320.0])
def test_a_vocabulary_of_no_tokens_is_refused(tmp_path: Path, size: object) -> None:
    with pytest.raises(model_check.ModelError, match="vocab_size: expected a number of tokens, found"):
        check_records(tmp_path, {"records": [WEIGHT]}, {"vocab_size": size})


def refused(folder: Path, cache: object, message: str) -> None:
    with pytest.raises(model_check.ModelError) as caught:
        check_records(folder, cache)
    line = str(caught.value)
    assert line.startswith(f"{folder / CACHE}: ") and "\n" not in line and len(line) < 1000
    assert message in line and "convert_weight" in line


STAMP = f'"{model_check.METADATA_KEY}": "{versions.TVM}"'.encode()


def elf(offset: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content[:offset] + value + content[offset + len(value) :]


# How the library is spoilt, and what the error says.
SPOILT_LIBRARIES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "text": (lambda content: b"no library", "found b'no libra'"),
    "empty": (lambda content: b"", "found b''"),
    "for 32 bits": (elf(4, b"\x01"), "an ELF file of 64 bits, found"),
    "for another processor": (elf(0x12, b"\xf3\x00"), "found one for ELF machine 243"),
    # Loading it would kill the process with SIGBUS.
    "cut short": (lambda content: content[:400_000], "bytes, found 400000: the file is truncated"),
    "for an older TVM": (
        lambda content: content.replace(SYMBOL, b"__tvm_dev_mblob\0______"),
        "found one for an older TVM",
    ),
    "of another release": (
        lambda content: content.replace(STAMP, STAMP.replace(b"0.26", b"0.25")),
        "found one for 0.25.0+mlc",
    ),
    "stamp that is no text": (
        lambda content: content.replace(STAMP, STAMP.replace(b"0.26", b"0.\xff\n")),
        r"found one for 0.\xff\n.0+mlc",
    ),
    "damaged metadata": (
        lambda content: content.replace(b'{"model_type": "', b'{"model_type": \xff'),
        "expected metadata in JSON, found: Expecting value",
    ),
    "program headers of no size": (elf(0x36, b"\x01\0"), "expected ELF program headers of 56 bytes, found"),
    "no program headers": (elf(0x38, b"\0\0"), "expected ELF program headers of 56 bytes, found 0 of 56"),
    "program headers far away": (elf(0x20, b"\xff" * 8), "the file is truncated"),
    "something else": (
        lambda content: content.replace(SYMBOL, b"__tvm_ffi__something__"),
        "found a library without models",
    ),
}


def test_a_library_says_which_tvm_compiled_it() -> None:
    assert LIBRARY.read_bytes().count(STAMP) == 1


def test_another_build_of_the_same_release_is_accepted(tmp_path: Path) -> None:
    library = tmp_path / "other.so"
    library.write_bytes(LIBRARY.read_bytes().replace(STAMP, STAMP.replace(b"+mlc", b"+abc")))
    model_check.check_library(library, "")


@pytest.mark.parametrize("what", SPOILT_LIBRARIES)
def test_a_spoilt_library_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    spoil, message = SPOILT_LIBRARIES[what]
    library = tmp_path / "spoilt.so"
    library.write_bytes(spoil(LIBRARY.read_bytes()))
    with pytest.raises(model_check.ModelError) as caught:
        MLCEngine(str(WEIGHTS), model_lib=str(library), device="cpu")
    line = str(caught.value)
    assert line.startswith(f"{library}: expected ") and "\n" not in line
    assert message in line and f"mlc_llm compile {WEIGHTS}" in line


@pytest.mark.parametrize("size", [64, 1000, 4096])
def test_a_library_is_read_in_parts(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """What is searched for is then on the border of parts."""
    monkeypatch.setattr(library_parts, "READ_BYTES", size)
    metadata = model_check.check_library(LIBRARY, "")
    assert metadata["model_type"] == "llama" and metadata[model_check.METADATA_KEY] == versions.TVM


@pytest.mark.parametrize(
    ("level", "line", "lacking"),
    [
        ("x86-64-v2", "flags\t\t", "sse4_2"),
        ("x86-64-v4", "flags", "avx512f"),
        ("armv8.2-a+dotprod", "Features\t", "asimddp"),
    ],
)
def test_a_library_for_a_newer_cpu_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str, line: str, lacking: str
) -> None:
    """The process ended with SIGILL."""
    found = model_check.check_library(LIBRARY, "")[model_check.CPU_KEY]
    assert found == {"aarch64": "armv8-a", "x86_64": "x86-64-v2"}[platform.machine()]
    monkeypatch.setattr(model_check, "CPU_INFORMATION", tmp_path / "cpuinfo")
    monkeypatch.setitem(model_check.CPU_FLAGS, found, model_check.CPU_FLAGS[level])
    model_check.check_library(LIBRARY, "")  # Nothing is known.
    flags = sorted(model_check.CPU_FLAGS[level])
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{line}: {' '.join(flags)} more\nbugs : x\n")
    model_check.check_library(LIBRARY, "")
    flags.remove(lacking)
    (tmp_path / "cpuinfo").write_text(f"{line}: {' '.join(flags)}\n")
    with pytest.raises(
        model_check.ModelError, match=f"a CPU of the level {found}, .* without {lacking}; make it"
    ) as caught:
        model_check.check_library(LIBRARY, "mlc_llm compile")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("mark", library_parts.MARKS)
def test_a_library_for_gpus_where_cuda_is_not_loaded_is_refused_in_one_line(tmp_path: Path, mark: bytes) -> None:
    library = tmp_path / "gpu.so"
    library.write_bytes(LIBRARY.read_bytes() + mark)
    with pytest.raises(model_check.ModelError) as caught:
        model_check.check_library(library, "")
    line = str(caught.value)
    assert line.startswith(f"{library}: expected CUDA, which this model calls, found ") and "\n" not in line
    # Either the package is missing, or it says why it loaded nothing.
    assert "apache-tvm-cuda" in line or "driver" in line


@pytest.mark.parametrize(
    ("calls", "missing"),
    [
        (b"\13\0\0\0\0\0\0\0cublas_json", library_parts.CUBLAS),
        (b'\4\0\0\0\0\0\0\0cuda"tensor_parallel_shards": 2', library_parts.NCCL),
        (b'\4\0\0\0\0\0\0\0cuda"pipeline_parallel_stages": 2', library_parts.NCCL),
    ],
)
def test_the_part_of_cuda_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: bytes, missing: library_parts.CudaPart
) -> None:
    library = tmp_path / "gpu.so"
    library.write_bytes(LIBRARY.read_bytes() + calls)
    monkeypatch.setattr(tvm_ffi, "get_global_func", lambda name, allow_missing: name != missing.function)
    with pytest.raises(model_check.ModelError, match=f"expected {missing.title}, which this model calls, found "):
        model_check.check_library(library, "")
    monkeypatch.setattr(tvm_ffi, "get_global_func", lambda name, allow_missing: True)
    model_check.check_library(library, "")


def test_a_large_library_takes_little_memory(tmp_path: Path) -> None:
    library = tmp_path / "large.so"
    shutil.copyfile(LIBRARY, library)
    with library.open("r+b") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    try:
        model_check.check_library(library, "")
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


def test_the_good_model_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    model_check.check_model(WEIGHTS, LIBRARY, hashes=True)
    # A name without a folder is in the working directory, where the native code does not look.
    monkeypatch.chdir(LIBRARY.parent)
    engine = MLCEngine(str(WEIGHTS), model_lib=LIBRARY.name, device="cpu")
    assert engine.completions.create(prompt="the", max_tokens=1).choices
    engine.terminate()


def test_a_changed_byte_of_a_shard_is_found_by_the_command(folder: Path, tmp_path: Path) -> None:
    content = bytearray((folder / SHARD).read_bytes())
    content[1000] ^= 1
    (folder / SHARD).write_bytes(content)
    done = run(tmp_path, "-m", "mlc_llm._mlc_bazel.model_check", folder, LIBRARY)
    assert f"model_check: {folder / SHARD}: expected md5 " in done.stderr.splitlines()[-1]


def test_an_error_in_native_code_is_reported_too(folder: Path, tmp_path: Path) -> None:
    """The weights do not fit the library. Upstream waits forever."""
    missing = json.loads((folder / CACHE).read_text())["records"][0]["records"][0]["name"]
    edit(folder / CACHE, lambda cache: cache["records"][0]["records"][0].update(name="renamed"))
    done = run(tmp_path, "-c", START, folder, LIBRARY, 512)
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"mlc_llm._mlc_bazel.model_check.ModelError: {folder} with {LIBRARY}: cannot be loaded: ")
    assert missing in line


def test_no_memory_for_the_kv_cache_is_an_error(tmp_path: Path) -> None:
    """It would take 512 TB. Upstream waits forever."""
    done = run(tmp_path, "-c", START, WEIGHTS, LIBRARY, 10**12)
    assert (
        "not enough memory for weights and a KV cache of 1000000000000 tokens; ask for less"
        in done.stderr.splitlines()[-1]
    )


def test_serve_ends_with_the_error(folder: Path, tmp_path: Path) -> None:
    (folder / SHARD).unlink()
    done = run(
        tmp_path,
        "-m",
        "mlc_llm",
        "serve",
        folder,
        "--model-lib",
        LIBRARY,
        "--device",
        "cpu",
        "--host",
        "127.0.0.1",
        "--port",
        0,
    )
    assert f"{EXPECTED_SHARD}, found nothing" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "wrong", "known"),
    [
        (
            ["gen_config", CHECKPOINT, "--quantization", "q5f99", "--conv-template", "chatml", "--output", "out"],
            "q5f99",
            "q4f16_1",
        ),
        (
            ["convert_weight", CHECKPOINT, "--quantization", "q5f99", "--device", "cpu", "--output", "out"],
            "q5f99",
            "q4f16_1",
        ),
        (["compile", WEIGHTS, "--quantization", "q5f99", "--device", "cpu", "--output", "out.so"], "q5f99", "q4f16_1"),
        (
            ["gen_config", CHECKPOINT, "--quantization", "q0f32", "--conv-template", "nobody", "--output", "out"],
            "nobody",
            "chatml",
        ),
    ],
    ids=["gen_config", "convert_weight", "compile", "template"],
)
def test_an_unknown_name_is_refused_with_the_known_ones(
    tmp_path: Path, arguments: list[object], wrong: str, known: str
) -> None:
    line = run(tmp_path, "-m", "mlc_llm", *arguments).stderr.splitlines()[-1]
    assert "invalid choice" in line and wrong in line and known in line
    assert not list(tmp_path.glob("out*"))


def test_a_program_with_an_error_ends(tmp_path: Path) -> None:
    """Upstream prints the error, but its engine keeps the process running."""
    done = run(tmp_path, "-c", START + "raise SystemError('the end')", WEIGHTS, LIBRARY, 512)
    assert done.stderr.splitlines()[-1] == "SystemError: the end"
