"""Compiles a model when it is served without a library, where there is no C++ compiler.

Upstream compiles it with `mlc_llm compile` in another process, links it with a C++ compiler, and keeps the library
under the hash of the model's configuration. Here

* GNU ld alone links it: objects of LLVM need nothing that a C++ compiler adds (C++'s runtime, start files);
* a library is kept apart for each build of TVM and each CPU. A cache on a volume outlives both, and the wrong library
  would be refused by `model_check`, or end the process with SIGILL;
* it is complete once it is there: it is moved within one file system, and servers that start together compile it once;
* a library is a program, so one that another user could have written is refused. Upstream loads whatever has its name;
* the configuration is compared with the weights first: one that does not fit them would compile for ever or in vain;
* a failure is one line that says what to do.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tvm.support import cc
from tvm.target import codegen

from mlc_llm.support import constants

from . import versions  # type: ignore[attr-defined]  # written by the build
from .after_import import after_import
from .checkpoint_config import in_a_line
from .hub import locked
from .library_parts import SPLIT
from .model_check import CONFIG, WEIGHTS, ModelError, check_library, read_json, read_shards

LIBRARIES = ("libm.so.6", "libgcc_s.so.1", "libc.so.6")
"""What generated code calls: functions of mathematics, conversions of float16, memset. A C++ compiler adds them too."""


def link(output: str, objects: list[str], ld: str) -> None:
    """Links a shared library with GNU ld alone.

    Args:
        output: the library to write.
        objects: object files.
        ld: path of the linker.

    Raises:
        RuntimeError: it fails. Names the command and what the linker said.
    """
    command = [ld, "-shared", "--eh-frame-hdr", "--build-id=none", "-z", "noexecstack", "-o", output, *objects]
    done = subprocess.run(
        [*command, "--as-needed", *(f"-l:{name}" for name in LIBRARIES)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)}: expected a library, found exit status {done.returncode}: {done.stdout}"
        )


def linking_without_compiler(upstream_create: Callable[..., None]) -> Callable[..., None]:
    """Wraps TVM's `create_shared`, which needs a C++ compiler, to use GNU ld where there is none."""

    @functools.wraps(upstream_create)
    def create_shared(output: str, objects: list[str], *arguments: Any, **options: Any) -> None:
        ld = shutil.which("ld")
        plain = not any(arguments) and not any(options.values()) and all(path.endswith(".o") for path in objects)
        if ld and plain and cc._is_linux_like() and not cc.get_cc():
            link(output, objects, ld)
        else:
            upstream_create(output, objects, *arguments, **options)

    return create_shared


def libraries_of_this_machine() -> Path:
    """Returns the folder that upstream keeps its `model_lib` in: one for each build of TVM and each CPU."""
    build = versions.TVM.rpartition("+")[2] or versions.TVM
    return Path(constants.MLC_LLM_HOME) / "model_lib" / f"{build}-{codegen.llvm_get_system_cpu()}"


def compiling_for_this_machine(upstream_jit: Callable[..., Any], module: Any) -> Callable[..., Any]:
    """Wraps upstream's compilation of a model without a library, in its module."""

    @functools.wraps(upstream_jit)
    def jit(model_path: Path, overrides: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        home = libraries_of_this_machine()
        folder = home / "model_lib"
        module.MLC_LLM_HOME = home
        # The library moves from here into the cache, which must be one file system.
        module.MLC_TEMP_DIR = str(folder)
        module.shutil = types.SimpleNamespace(move=_keep)
        try:
            _check_fits(model_path, overrides)
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            _check_owner(folder)
            with _one_at_a_time(folder, model_path):
                done = upstream_jit(model_path, overrides, *arguments, **options)
            library = Path(done.model_lib_path)
            _check_owner(library)
            check_library(library, "remove it, and start again")
        except ModelError:
            raise
        except Exception as error:  # Upstream raises whatever a wrong value leads to.
            found = " ".join(str(error).split()).encode("unicode_escape").decode()[:500]
            found = found if isinstance(error, RuntimeError) else f"{type(error).__name__}: {found}"
            raise ModelError(
                f"{model_path}: expected its compiled library or one that can be compiled here, found: {found};"
                f" name it with --model-lib, or make it: mlc_llm compile {model_path} --output {model_path}.so in the"
                " image mlc_llm_dev, or the rule mlc_model"
            ) from None
        return done

    return jit


def _keep(compiled: str, library: str) -> None:
    """Moves a library into the cache, where no other user can change it, whatever the umask."""
    os.chmod(compiled, 0o644)
    os.replace(compiled, library)


@contextlib.contextmanager
def _one_at_a_time(folder: Path, model: Path) -> Iterator[None]:
    """Waits until no other process compiles this model; the cache then has its library."""
    if not os.access(folder, os.W_OK):  # Nothing can be compiled into it.
        yield
        return
    name = hashlib.sha256((model / CONFIG).read_bytes()).hexdigest()
    with locked(folder / f".{name}.lock"):
        yield


def _check_owner(path: Path) -> None:
    """Raises ModelError if another user than this one and root could have written a part of the cache."""
    found, user = path.stat(), os.geteuid()
    if found.st_uid not in (0, user) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ModelError(
            f"{path}: expected it to be user {user}'s or root's, and no one else's to write, found user {found.st_uid}"
            f" and mode {stat.S_IMODE(found.st_mode):o}: a library is a program; remove it, or set MLC_LLM_HOME to a"
            " folder that others cannot write in"
        )


def _check_fits(model: Path, overrides: dict[str, Any]) -> None:
    """Compares a model's configuration with its weights, by what upstream would compile of it.

    Raises:
        ModelError: upstream does not know its architecture or quantization, or it has other weights.
        Exception: upstream refuses a value.
    """
    from mlc_llm.model import MODELS
    from mlc_llm.quantization import QUANTIZATION

    path = model / CONFIG
    remedy = f"copy it again or make it: mlc_llm gen_config CHECKPOINT --output {model}"

    def wrong(what: str, expected: str, found: object) -> ModelError:
        return ModelError(f"{path}: {what}: expected {expected}, found {ascii(found)[:100]}; {remedy}")

    config = read_json(path, remedy)
    chosen = []
    for key, known in (("model_type", MODELS), ("quantization", QUANTIZATION)):
        name = config.pop(key, None)
        if not isinstance(name, str) or name not in known:
            raise wrong(key, "one that mlc_llm compile knows", name)
        chosen.append(known[name])
    architecture, quantization = chosen
    values = config.pop("model_config", None)
    if not isinstance(values, dict):
        raise wrong("model_config", "a JSON object", values)
    values = {**values, **config}
    tensors = {tensor["name"]: tensor for shard in read_shards(model) for tensor in shard["records"]}
    for key, value in _layer_counts(values):  # Upstream counts up to them.
        if value > len(tensors):
            raise wrong(key, f"at most {len(tensors)}, as many as {WEIGHTS} has tensors", value)

    def parameters(changes: dict[str, int]) -> dict[str, Any]:
        settings = architecture.config.from_dict({**copy.deepcopy(values), **changes})
        quantized, _ = architecture.quantize[quantization.kind](settings, quantization)
        return dict(quantized.named_parameters())

    split = {key: overrides.get(key) or values.get(key, 1) for key in SPLIT}
    if any(number != 1 for number in split.values()):
        parameters(split)
    if any(re.search(r"_shard-\d+$", name) for name in tensors):  # MLC_INTERNAL_PRESHARD_NUM
        return
    # Weights are split when they are loaded.
    expected = parameters(dict.fromkeys(split, 1))
    for name, parameter in expected.items():
        tensor = tensors.get(name)
        shape = [length if isinstance(length, int) else str(length) for length in parameter.shape]
        if tensor is None or not _fits(tensor, shape, str(parameter.dtype)):
            what = f"the tensor {name} of shape {shape} and {parameter.dtype} in {WEIGHTS}"
            raise wrong("model_config", what, tensor and f"{tensor['shape']} and {tensor['dtype']}")
    alike = {re.sub(r"\d+", "0", name) for name in expected}
    for name in tensors.keys() - expected.keys():
        if re.sub(r"\d+", "0", name) in alike:
            raise wrong("model_config", f"all layers of {WEIGHTS}", f"none for {name}")


def _layer_counts(values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields the numbers of layers in a model's configuration, and in those of its parts."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _layer_counts(value)
        elif re.search(r"layers?$|^medusa_num_heads$", key) and isinstance(value, (int, float)):
            yield key, value


def _fits(tensor: dict[str, Any], shape: list[int | str], dtype: str) -> bool:
    """Returns whether a tensor has this type and shape, in which a name is any length."""
    return (
        tensor["dtype"] == dtype
        and len(tensor["shape"]) == len(shape)
        and all(isinstance(length, str) or length == found for length, found in zip(shape, tensor["shape"]))
    )


def _change_jit(module: Any) -> None:
    module.jit = compiling_for_this_machine(module.jit, module)


def install() -> None:
    """Replaces both. TVM looks its function up at each call, engines look up theirs when they start."""
    # As runtime_only does where there is no compiler.
    sys.excepthook = in_a_line(sys.excepthook, ModelError)
    cc.create_shared = linking_without_compiler(cc.create_shared)
    after_import("mlc_llm.interface.jit", _change_jit)
