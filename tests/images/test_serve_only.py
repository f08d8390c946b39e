"""mlc_llm_serve serves a mounted model without a compiler, and says what it lacks."""

from __future__ import annotations

import pathlib

import pytest

from tests.images.containers import Container
from tests.images.served import CLIENT
from tests.images.smollm2_answers import QUESTION, check, mounted

# What compiles models. TVM's own runtime-only form imports the rest of its Python package.
COMPILERS = """\
import sys
import mlc_llm.cli.serve
prefixes = ("tvm.relax", "tvm.topi", "tvm.s_tir", "mlc_llm.compiler_pass", "mlc_llm.model", "mlc_llm.quantization")
print("compilers:", sorted(name for name in sys.modules if name.startswith(prefixes)))
"""

# Python has read these files if it takes them for current: nothing can be written.
BYTECODE = """\
import importlib.util, os, sys
import mlc_llm.cli.serve
files = {module.__file__: module.__cached__ for module in sys.modules.values() if getattr(module, "__cached__", None)}
assert len(files) > 500
def current(source, cached):
    with open(cached, "rb") as file:
        header = file.read(16)
    stat = os.stat(source)
    numbers = [0, int(stat.st_mtime), stat.st_size]
    return header == importlib.util.MAGIC_NUMBER + b"".join(number.to_bytes(4, "little") for number in numbers)
stale = [name for name, cached in files.items() if not os.path.exists(cached) or not current(name, cached)]
print("not compiled:", stale)
"""

# What mlc-llm starts where GPUs share a model; it needs none to start.
SESSIONS = """\
import mlc_llm
from tvm.runtime import disco
sessions = disco.ThreadedSession(2), disco.ProcessSession(2, num_groups=1, entrypoint="mlc_llm.cli.worker")
print("sessions:", *(type(session.get_global_func("runtime.disco.empty")).__name__ for session in sessions))
"""


def test_it_answers_with_a_mounted_model(container: Container, folder: pathlib.Path) -> None:
    mounted(folder)
    command = ("serve", "/mnt/models")
    volumes = {"/mnt": folder}
    check(
        container.said(
            "python", "-c", CLIENT, QUESTION, *container.entrypoint, *command, volumes=volumes, read_only=True
        )
    )


def test_smoke_finds_that_everything_works(container: Container) -> None:
    said = container.said("smoke")
    assert "smoke: everything works" in said and "mlc-llm answers" in said and "compiler:" not in said


def test_serving_imports_nothing_that_compiles(container: Container) -> None:
    assert "compilers: []" in container.said("python", "-c", COMPILERS)


def test_serving_compiles_no_module_of_python(container: Container) -> None:
    assert "not compiled: []" in container.said("python", "-c", BYTECODE)


def test_gpus_can_share_a_model(container: Container) -> None:
    assert "sessions: DPackedFunc DPackedFunc" in container.said("python", "-c", SESSIONS)


def test_without_a_command_it_says_which_there_are(container: Container) -> None:
    said = container.said(code=2)
    assert said.startswith("entrypoint: this image has no shell") and "serve MODEL" in said


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (
            ("mlc_llm", "compile", "/tests/mlc_llm/tiny", "--output", "/tmp/x.so"),
            "run what compiles or converts models in the image mlc_llm_dev",
        ),
        (
            ("python", "-c", "import mlc_llm; import mlc_llm.interface.jit"),
            "name the model's compiled library: --model-lib LIBRARY, --additional-models MODEL,LIBRARY",
        ),
    ],
)
def test_what_compiles_is_refused_in_a_line(container: Container, command: tuple[str, ...], remedy: str) -> None:
    (line,) = container.said(*command, code=1).splitlines()[-1:]
    assert line.startswith("mlc_llm: ") and line.endswith(f"found its runtime alone: {remedy}")


def test_a_model_of_a_hub_is_refused_before_it_is_downloaded(container: Container) -> None:
    said = container.said("serve", "HF://owner/model", code=1)
    assert said == (
        "serve: HF://owner/model: expected its compiled library, because this image only serves, found none: name it"
        " with --model-lib, or let the image mlc_llm compile it\n"
    )


def test_the_locale_is_there(container: Container) -> None:
    program = "import locale; print(locale.setlocale(locale.LC_ALL, ''))"
    assert container.said("python", "-c", program) == "C.UTF-8\n"
