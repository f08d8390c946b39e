"""Checks a model's files before loading them. Without this, upstream hangs on a broken file or dies from a signal.

As a command it reads every byte, which the start of an engine should not do:

    python -m mlc_llm._mlc_bazel.model_check FOLDER [LIBRARY]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import platform
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

from . import library_parts, versions  # type: ignore[attr-defined]  # the build writes versions

logger = logging.getLogger(__name__)

CONFIG = "mlc-chat-config.json"
WEIGHTS = "tensor-cache.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_model")
"""Files that cpp/tokenizers/tokenizers.cc accepts as a tokenizer. It uses the first one that exists."""

MAX_FILE_BYTES = 256 << 20
"""Size of a JSON file or tokenizer. The largest tokenizer.json known, Gemma 3's, has 33 MB."""

MAX_DEPTH = 64
"""Nesting of JSON. Native parsers recurse without a limit, and the stack overflows."""

MAX_EXTRA_TOKENS = 64
"""Tokens that a tokenizer may add to those of its model. Gemma 3 adds one for images, others one for padding."""

TOKENIZER_SECONDS = 120
"""Time to load a tokenizer. Gemma 3's takes two seconds."""

LOAD_TOKENIZER = """
import ctypes, json, os, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
folder, path, libraries = sys.argv[1], *map(json.loads, sys.argv[2:])
sys.path[:] = path
import tvm_ffi
for library in libraries:
    ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
load, encode = (tvm_ffi.get_global_func(f"mlc.tokenizers.{name}") for name in ("Tokenizer", "TokenizerEncode"))
print("ready", flush=True)
try:
    tokens = encode(load(folder), "Hello")
except Exception as error:
    sys.exit(" ".join(str(error).split()) or repr(error))
# sentencepiece ignores that it could not parse a model.
if not len(tokens) and not os.path.exists(os.path.join(folder, "tokenizer.json")):
    sys.exit("no tokens for the text 'Hello'")
"""
"""Loads a tokenizer with the native code only: 0.6 seconds, where importing mlc_llm takes 5."""

MAX_METADATA_BYTES = 64 << 20

LIBRARY_SYMBOL = b"__tvm_ffi__library_bin"
"""A symbol in every library for a TVM with tvm_ffi (0.22 or newer). Older libraries have
`__tvm_dev_mblob`.
"""

METADATA_KEY = "tvm_version"
"""The key in a model's metadata for the version of TVM that compiled it. Only this build's mlc-llm writes it."""

CPU_KEY = "cpu"
"""The key for LLVM's name of the CPU, as `cpu_target` has it."""

CPU_FLAGS: dict[str, frozenset[str]] = {
    "x86-64-v2": frozenset({"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"})
}
CPU_FLAGS["x86-64-v3"] = CPU_FLAGS["x86-64-v2"] | {
    "abm",
    "avx",
    "avx2",
    "bmi1",
    "bmi2",
    "f16c",
    "fma",
    "movbe",
    "xsave",
}
CPU_FLAGS["x86-64-v4"] = CPU_FLAGS["x86-64-v3"] | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
CPU_FLAGS["armv8.2-a+dotprod"] = frozenset({"asimddp"})
"""What /proc/cpuinfo must list for a library not to end the process with SIGILL (x86-64 psABI, table 3.1; Linux,
arm64's hardware capabilities).
"""

CPU_INFORMATION = Path("/proc/cpuinfo")

OLD_LIBRARY_SYMBOL = b"__tvm_dev_mblob"

METADATA_START = b'{"model_type": '
STAMP = re.compile(rb'"%s": "([^"]{0,100})"' % METADATA_KEY.encode())
PROGRAM_HEADER = struct.Struct("<8xQ16xQ16x")
"""Offset and size of a segment in the file."""

ELF_MACHINES = {"aarch64": 183, "x86_64": 62}
"""Maps the output of `uname -m` to ELF's e_machine."""


class ModelError(ValueError):
    """A model cannot be loaded. The message says what was expected, what was found, and the command that fixes it."""


def check_model(folder: Path, library: Path | None = None, hashes: bool = False) -> None:
    """Checks that an engine can load a model.

    Args:
        folder: folder with mlc-chat-config.json, tensor-cache.json, weight shards and tokenizer.
        library: the compiled model.
        hashes: also verify the content of weight shards, which reads all of them.

    Raises:
        ModelError: it cannot; names the first problem.
    """
    if not folder.is_dir():
        raise ModelError(
            f"{folder}: expected the folder of a model, found {'a file' if folder.exists() else 'nothing'}"
        )
    make_config = f"mlc_llm gen_config CHECKPOINT --output {folder}"
    config = read_json(folder / CONFIG, make_config)
    vocabulary = config.get("vocab_size", 1)
    if type(vocabulary) is not int or vocabulary < 1:
        raise ModelError(
            f"{folder / CONFIG}: vocab_size: expected a number of tokens, found {json.dumps(vocabulary)[:100]};"
            f" make it: {make_config}"
        )
    if "vocab_size" in config:
        _check_token_numbers(config, folder / CONFIG, make_config)
    convert = _copy_again(folder)
    shards = read_shards(folder)
    for shard in shards:
        path = folder / shard["dataPath"]
        if not path.is_file():
            raise ModelError(f"{path}: expected a weight shard of {shard['nbytes']} bytes, found nothing; {convert}")
        size = path.stat().st_size
        if size != shard["nbytes"]:
            raise ModelError(f"{path}: expected a weight shard of {shard['nbytes']} bytes, found {size}; {convert}")
        if hashes and "md5sum" in shard:
            if (found := file_md5(path)) != shard["md5sum"]:
                raise ModelError(f"{path}: expected md5 {shard['md5sum']}, found {found}; {convert}")
    tokenizer = next((folder / name for name in TOKENIZERS if (folder / name).is_file()), None)
    if tokenizer is None:
        raise ModelError(
            f"{folder}: expected a tokenizer ({', '.join(TOKENIZERS)}), found none; copy it there: mlc_llm gen_config"
        )
    _check_tokenizer(tokenizer, config.get("vocab_size"))
    if library is not None:
        remedy = f"mlc_llm compile {folder / CONFIG} --device cpu --output {library}"
        metadata = check_library(library, remedy)
        if "vocab_size" in config:
            _check_vocabulary(vocabulary, folder / CONFIG, shards, metadata)
    _load_tokenizer(tokenizer)


def _check_token_numbers(config: dict[str, Any], path: Path, remedy: str) -> None:
    """Compares the numbers of tokens in a configuration with its vocab_size.

    Raises:
        ModelError: the model has no such token. The native code would use it as an index.
    """
    template = config.get("conv_template")
    for section, where in ((config, ""), (template if isinstance(template, dict) else {}, "conv_template.")):
        for key, value in section.items():
            if value is None or not re.search(r"(^|_)token_ids?$", key):
                continue
            # The engine computes with the tokens of a prefix. It only compares others; -1 then stands for none.
            computed = key == "system_prefix_token_ids"
            first, end = (0, 0) if computed else (-1, MAX_EXTRA_TOKENS)
            end += config["vocab_size"]
            for number in value if isinstance(value, list) else [value]:
                if type(number) is not int or not first <= number < end:
                    raise ModelError(
                        f"{path}: {where}{key}: expected tokens from {first} to {end - 1}, for a vocab_size of"
                        f" {config['vocab_size']}, found {json.dumps(number)[:100]}; make it: {remedy}"
                    )


def _check_tokenizer(tokenizer: Path, vocabulary: int | None) -> None:
    """Checks the size of a tokenizer, and the numbers of tokens in a tokenizer.json.

    Args:
        tokenizer: the file.
        vocabulary: the model's number of tokens, if known.

    Raises:
        ModelError: it is too large, or has tokens that the model has not.
    """
    remedy = "copy it again or make it: mlc_llm gen_config"
    if tokenizer.suffix != ".json":
        _check_size(tokenizer, remedy)
        return
    content = read_json(tokenizer, remedy)
    end = (vocabulary or 1 << 31) + (MAX_EXTRA_TOKENS if vocabulary else 0)
    for number in _tokens(content) if tokenizer.name == "tokenizer.json" else content.values():
        if type(number) is not int or not 0 <= number < end:
            expected = f"tokens from 0 to {end - 1}" + (f", for a vocab_size of {vocabulary}" if vocabulary else "")
            raise ModelError(f"{tokenizer}: expected {expected}, found {json.dumps(number)[:100]}; {remedy}")


def _tokens(tokenizer: dict[str, Any]) -> list[Any]:
    """Returns the numbers of tokens in a tokenizer.json. Whether the rest has its format, loading it shows."""
    numbers: list[Any] = []
    model, added, processor = (tokenizer.get(key) for key in ("model", "added_tokens", "post_processor"))
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        numbers += vocabulary.values()
    elif isinstance(vocabulary, list):
        numbers.append(max(len(vocabulary) - 1, 0))
    if isinstance(added, list):
        numbers += [token["id"] for token in added if isinstance(token, dict) and "id" in token]
    processors = processor.get("processors") if isinstance(processor, dict) else None
    for template in [processor, *(processors if isinstance(processors, list) else [])]:
        special = template.get("special_tokens") if isinstance(template, dict) else None
        for token in special.values() if isinstance(special, dict) else ():
            if isinstance(token, dict) and isinstance(token.get("ids"), list):
                numbers += token["ids"]
    return numbers


def _load_tokenizer(tokenizer: Path) -> None:
    """Loads a tokenizer in another process, because the native code aborts or overflows its stack if one is damaged.

    Raises:
        ModelError: it cannot be loaded. Names the last line that the native code wrote.
    """
    import tvm.base

    from mlc_llm import libinfo

    runtime = Path(tvm.base._LOADED_LIBS["tvm_runtime"]._name)
    extra = runtime.with_name("libtvm_runtime_extra.so")
    libraries = [str(runtime), *([str(extra)] if extra.exists() else []), libinfo.find_lib_path("mlc_llm")[0]]
    command = [sys.executable, "-I", "-S", "-B", "-c", LOAD_TOKENIZER, str(tokenizer.parent.absolute())]
    try:
        done = subprocess.run(
            [*command, json.dumps(sys.path), json.dumps(libraries)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TOKENIZER_SECONDS,
        )
    except subprocess.TimeoutExpired:
        found = f"nothing after {TOKENIZER_SECONDS} seconds"
    except OSError as error:
        logger.warning("%s: not tried before loading it: %s", tokenizer, error)
        return
    else:
        if not done.returncode:
            return
        # Rust ends with advice, not with the error.
        lines = [
            line
            for line in map(str.strip, done.stderr.splitlines())
            if line and not re.match("note:|fatal runtime", line)
        ]
        found = (lines or ["no message"])[-1][:300]
        if done.stdout.strip() != "ready":
            # Python without a usual installation, for example in another program. It is not the tokenizer's fault.
            logger.warning("%s: not tried before loading it: %s", tokenizer, found)
            return
        if done.returncode < 0:
            found = f"{signal.Signals(-done.returncode).name}: {found}"
    raise ModelError(
        f"{tokenizer}: expected a tokenizer that can be loaded, found: {found}; copy it again or make it:"
        " mlc_llm gen_config"
    )


def _check_vocabulary(vocabulary: int, path: Path, shards: list[dict[str, Any]], metadata: dict[str, Any]) -> None:
    """Compares vocab_size with the weights whose shape depends on it, according to the library's metadata.

    Raises:
        ModelError: it differs. The engine would fail at its first request.
    """
    shapes = {tensor["name"]: tensor["shape"] for shard in shards for tensor in shard["records"]}
    parameters = metadata.get("params")
    for parameter in parameters if isinstance(parameters, list) else []:
        name, dimensions = (
            (parameter.get(key) for key in ("name", "shape")) if isinstance(parameter, dict) else ("", ())
        )
        found = shapes.get(name) if isinstance(name, str) else None
        if found is None or not isinstance(dimensions, list) or len(dimensions) != len(found):
            continue
        for dimension, length in zip(dimensions, found):
            if dimension == "vocab_size" and length != vocabulary:
                raise ModelError(
                    f"{path}: vocab_size: expected {length}, as the weights {name} have, found {vocabulary}; make it:"
                    f" mlc_llm gen_config CHECKPOINT --output {path.parent}"
                )


def file_md5(path: Path) -> str:
    """The MD5 of a file, lower-case hexadecimal: what tensor-cache.json has of each shard."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_shards(folder: Path) -> list[dict[str, Any]]:
    """Returns the records of a model's weight shards (dataPath, nbytes and more), without looking for the files.

    Raises:
        ModelError: the folder has no tensor-cache.json, or one that is damaged or leads out of the folder.
    """
    cache = folder / WEIGHTS
    try:
        return _shards(read_json(cache, f"mlc_llm convert_weight CHECKPOINT --output {folder}"))
    except _RecordError as error:
        raise ModelError(f"{cache}: {error}; {_copy_again(folder)}") from None


def _copy_again(folder: Path) -> str:
    return f"copy it again or make it: mlc_llm convert_weight CHECKPOINT --output {folder}"


class _RecordError(ValueError):
    """A record in tensor-cache.json is damaged."""


def _shards(cache: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the records of weight shards. Upstream copies tensors from the places in them without checking any.

    The format is that of TVM's `src/runtime/vm/tensor_cache_support.cc`.

    Raises:
        _RecordError: one has not the keys and types of the format, names a file in another folder, or has a tensor
            that is not inside its shard or not as large as its shape and type.
    """
    shards = _field(cache, "", "records", list)
    for number, shard in enumerate(shards):
        where = f"records[{number}]"
        path = _field(shard, where, "dataPath", str)
        if path in ("", ".", "..") or re.search(r"[/\\\0]", path):
            raise _RecordError(f"{where}.dataPath: expected the name of a file in this folder, found {path!r}")
        size = _field(shard, where, "nbytes", int)
        if "md5sum" in shard:
            _field(shard, where, "md5sum", str)
        if _field(shard, where, "format", str) != "raw-shard":
            raise _RecordError(f"{where}.format: expected 'raw-shard', found {shard['format']!r}")
        for index, tensor in enumerate(_field(shard, where, "records", list)):
            _check_tensor(tensor, f"{where}.records[{index}]", size)
    return shards


def _check_tensor(tensor: Any, where: str, shard_size: int) -> None:
    """Checks one tensor of a shard with this many bytes."""
    _field(tensor, where, "name", str)
    start, size = _field(tensor, where, "byteOffset", int), _field(tensor, where, "nbytes", int)
    if start + size > shard_size:
        raise _RecordError(
            f"{where}: expected a tensor inside the {shard_size} bytes of its shard, found bytes {start} to"
            f" {start + size}"
        )
    shape, dtype = _field(tensor, where, "shape", list), _field(tensor, where, "dtype", str)
    if len(shape) > 16 or not all(type(length) is int and 0 <= length < 1 << 63 for length in shape):
        raise _RecordError(f"{where}.shape: expected at most 16 sizes, found {str(shape)[:100]}")
    bits = re.fullmatch(r"(?:u?int|b?float)(\d{1,3})(?:_\w+)?", "uint8" if dtype == "bool" else dtype)
    if not bits:
        raise _RecordError(f"{where}.dtype: expected a type of numbers, found {dtype[:100]!r}")
    # Written in half the size: the upper 16 bits of a float32.
    halved = _field(tensor, where, "format", str) == "f32-to-bf16" and dtype == "float32"
    expected = (math.prod(shape) * (16 if halved else int(bits[1])) + 7) // 8
    if size != expected:
        raise _RecordError(f"{where}: expected {expected} bytes for shape {shape} of {dtype}, found {size}")


def _field(record: Any, where: str, key: str, kind: type) -> Any:
    """Returns a value of a record; integers are sizes and not negative."""
    value = record.get(key) if isinstance(record, dict) else None
    if type(value) is not kind or (isinstance(value, int) and value < 0):
        names = {list: "a list", str: "text", int: "a number of bytes"}
        path = f"{where}.{key}".removeprefix(".")
        raise _RecordError(f"{path}: expected {names[kind]}, found {json.dumps(value)[:100]}")
    return value


def check_library(library: Path, remedy: str) -> dict[str, Any]:
    """Checks that a file is the library of a model without loading it, because a truncated one would kill the process.

    This reads the ELF-64 header and program headers (System V ABI, chapters 4 and 5), and searches the file's bytes for
    symbols by name.

    Args:
        library: the file.
        remedy: the command that makes the library.

    Returns:
        The model's metadata; empty if mlc-llm without this build's additions compiled it.

    Raises:
        ModelError: it is not the library of a model.
    """
    if not library.is_file():
        raise ModelError(f"{library}: expected the library of a model, found nothing; make it: {remedy}")
    try:
        with library.open("rb") as file:
            _check_elf(file, library, remedy)
            metadata, called = _metadata(file, library, remedy)
    except OSError as error:
        raise ModelError(f"{library}: expected the library of a model, found: {error.strerror}; {remedy}") from None
    _check_cpu(metadata.get(CPU_KEY), library, remedy)
    for part in called:
        _check_cuda(library, part)
    return metadata


def _check_cuda(library: Path, part: library_parts.CudaPart) -> None:
    """Refuses a library that calls a part of tvm_cuda that is not loaded; TVM would name a function that it lacks."""
    import tvm_ffi

    if not tvm_ffi.get_global_func(part.function, allow_missing=True):
        raise ModelError(f"{library}: expected {part.title}, which this model calls, found {why_not_loaded(part)}")


def why_not_loaded(part: library_parts.CudaPart) -> str:
    """Says why a part of tvm_cuda is not loaded, and what to do."""
    try:
        import tvm_cuda
    except ImportError:
        return "no package tvm_cuda: install the wheel apache-tvm-cuda of this build, or use an image for GPUs"
    parts = tvm_cuda.status()
    if not parts["driver"].loaded:
        return str(parts["driver"].reason)
    if not parts[part.name].loaded:
        return f"{parts[part.name].reason}, or use an image of this build with {part.title}"
    return "another TVM"


def _check_cpu(wanted: Any, library: Path, remedy: str) -> None:
    """Refuses a library for a newer CPU than this machine's."""
    needed = CPU_FLAGS.get(wanted) if isinstance(wanted, str) else None
    if needed is None:
        return
    try:
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", CPU_INFORMATION.read_text(), re.MULTILINE)
    except OSError:
        return
    if found and (missing := needed - set(found[1].split())):
        raise ModelError(
            f"{library}: expected a CPU of the level {wanted}, for which it was compiled, found one without"
            f" {', '.join(sorted(missing))}; make it for this machine: {remedy}"
        )


def _check_elf(file: BinaryIO, library: Path, remedy: str) -> None:
    """Checks that the parts that a library's ELF header names are in the file."""
    header = file.read(64)
    if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
        raise ModelError(
            f"{library}: expected the library of a model, an ELF file of 64 bits, found {header[:8]!r}; make it:"
            f" {remedy}"
        )
    (machine,) = struct.unpack_from("<H", header, 0x12)
    here = platform.machine()
    if machine != ELF_MACHINES.get(here, machine):
        raise ModelError(
            f"{library}: expected a library for {here}, found one for ELF machine {machine}; make it: {remedy}"
        )
    start, section_start = struct.unpack_from("<QQ", header, 0x20)
    size, count, section_size, section_count = struct.unpack_from("<HHHH", header, 0x36)
    if size != PROGRAM_HEADER.size or not count:
        raise ModelError(
            f"{library}: expected ELF program headers of {PROGRAM_HEADER.size} bytes, found {count} of {size}: the file"
            f" is damaged; make it: {remedy}"
        )
    found = library.stat().st_size
    expected = max(start + size * count, section_start + section_size * section_count)
    if found >= expected:
        file.seek(start)
        ends = [offset + length for offset, length in PROGRAM_HEADER.iter_unpack(file.read(size * count))]
        expected = max(expected, *ends)
    if found < expected:
        raise ModelError(
            f"{library}: expected {expected} bytes, found {found}: the file is truncated; make it: {remedy}"
        )


def _metadata(file: BinaryIO, library: Path, remedy: str) -> tuple[dict[str, Any], list[library_parts.CudaPart]]:
    """Returns the metadata in a library, and which parts of tvm_cuda it calls.

    Its data contains the metadata as plain JSON. There are none if it has no stamp.
    """
    found, called, metadata_start, stamp = set(), set(), None, None
    for start, part in library_parts.read(file):
        found |= {symbol for symbol in (LIBRARY_SYMBOL, OLD_LIBRARY_SYMBOL) if symbol in part}
        called |= library_parts.called(part)
        if stamp is None:
            stamp = STAMP.search(part)
            begin = part.rfind(METADATA_START, 0, stamp.start() if stamp else len(part))
            metadata_start = start + begin if begin >= 0 else metadata_start
    if LIBRARY_SYMBOL not in found:
        what = "one for an older TVM" if OLD_LIBRARY_SYMBOL in found else "a library without models"
        raise ModelError(
            f"{library}: expected a model compiled for this TVM ({LIBRARY_SYMBOL.decode()}), found {what}; make it:"
            f" {remedy}"
        )
    cuda_parts = library_parts.in_order(called)
    if stamp is None:
        return {}, cuda_parts
    # All builds of a TVM release run each other's models.
    version = stamp[1].decode("latin-1")
    if _release(version) != _release(versions.TVM):
        raise ModelError(
            f"{library}: expected a model compiled for TVM {versions.TVM}, found one for {_short(version)}; make it"
            f" again: {remedy}"
        )
    file.seek(metadata_start or 0)
    try:
        # A character is a byte: JSON from Python is ASCII.
        metadata, _ = json.JSONDecoder().raw_decode(file.read(MAX_METADATA_BYTES).decode("latin-1"))
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{library}: expected metadata in JSON, found: {_short(str(error))}: the file is damaged; make it: {remedy}"
        ) from None
    return metadata if isinstance(metadata, dict) else {}, cuda_parts


def _short(text: str) -> str:
    """Returns text from a damaged file in a form that fits in a line."""
    return text.encode("unicode_escape").decode()[:100]


def _release(version: str) -> str:
    """Returns the public part of a version (PEP 440)."""
    return version.partition("+")[0]


def _check_size(path: Path, remedy: str) -> None:
    """Raises:
    ModelError: the file is too large.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ModelError(f"{path}: expected at most {MAX_FILE_BYTES} bytes, found {size}; {remedy}")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a JSON object from a file.

    Raises:
        ModelError: there is none, or native code could not parse it.
    """
    if not path.is_file():
        raise ModelError(f"{path}: expected a file of the model, found nothing; make it: {remedy}")
    _check_size(path, remedy)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: expected JSON, found: {error}; make it: {remedy}") from None
    except OSError as error:
        raise ModelError(f"{path}: expected JSON, found: {error.strerror}; make it: {remedy}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(content).__name__}; make it: {remedy}")
    level: list[Any] = [content]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
    if level:
        raise ModelError(f"{path}: expected JSON with at most {MAX_DEPTH} levels, found more; make it: {remedy}")
    return content


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of a model")
    parser.add_argument("library", type=Path, nargs="?", help="its library")
    options = parser.parse_args()
    try:
        check_model(options.folder, options.library, hashes=True)
    except ModelError as error:
        print(f"model_check: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
