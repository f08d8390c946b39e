"""build_model runs mlc-llm's commands isolated from the machine, is silent when they succeed, and reports failures."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from models.private import build_model, compile_environment

# A fake mlc_llm that records its call, prints something, and fails at the sub-command named in the file `failing`.
STAND_IN = """
import json, os, pathlib, sys
folder = pathlib.Path(__file__).parent.parent
with (folder / "calls").open("a") as calls:
    home = os.listdir(os.environ["HOME"])
    calls.write(json.dumps({"arguments": sys.argv[1:], "environment": dict(os.environ), "home": home}) + "\\n")
print("to standard output")
print("to standard error", file=sys.stderr)
failing = folder / "failing"
if failing.exists() and failing.read_text() == sys.argv[1]:
    sys.exit(3)
"""

# Replaces this repository's module of the same name: records its options, runs the program, and says two things.
CUDA_STAND_IN = """
import json, pathlib, runpy, sys
program = sys.argv.index("mlc_llm")
pathlib.Path(__file__).parents[2].joinpath("options").write_text(json.dumps(sys.argv[1:program]))
sys.argv = sys.argv[program:]
runpy.run_module("mlc_llm", run_name="__main__", alter_sys=True)
print("what nobody reads")
print("note: no FlashInfer: x")
"""


class Environment:
    """A folder of installed packages with the fake mlc_llm, and the calls it received."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "mlc_llm").mkdir(parents=True)
        (folder / "mlc_llm/__init__.py").write_text("")
        (folder / "mlc_llm/__main__.py").write_text(STAND_IN)
        (folder / "models/private").mkdir(parents=True)
        for package in ("models", "models/private"):
            (folder / package / "__init__.py").write_text("")
        (folder / "models/private/cuda_modules.py").write_text(CUDA_STAND_IN)

    def calls(self) -> list[dict]:
        file = self.folder / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def fail_at(self, command: str) -> None:
        (self.folder / "failing").write_text(command)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "environment")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def run(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def call(*arguments: str | Path) -> int:
        options = ["--environment", environment.folder, *arguments]
        monkeypatch.setattr(sys, "argv", ["build_model", *map(str, options)])
        return build_model.main()

    return call


def test_weights_are_configured_and_then_converted_silently(
    run: Callable[..., int], environment: Environment, checkpoint: Path, capfd: pytest.CaptureFixture
) -> None:
    rest = ["--conv-template", "chatml", "--max-batch-size", "4"]
    assert run("--output", "out", "weights", checkpoint, "--quantization", "q0f32", *rest) == 0
    output = ["--quantization", "q0f32", "--output", "out"]
    assert [call["arguments"] for call in environment.calls()] == [
        ["gen_config", str(checkpoint), *output, *rest],
        ["convert_weight", str(checkpoint), "--device", "cpu", *output],
    ]
    assert capfd.readouterr() == ("", "")


def test_system_message_replaces_that_of_the_template(
    run: Callable[..., int], environment: Environment, checkpoint: Path, tmp_path: Path
) -> None:
    """mlc-llm has no option for it; here its configuration is there already."""
    output = tmp_path / "out"
    output.mkdir()
    config = output / "mlc-chat-config.json"
    config.write_text(json.dumps({"conv_template": {"name": "chatml", "system_message": "Be brief."}, "top_p": 1.0}))
    rest = ["config", checkpoint, "--quantization", "q0f32"]
    assert run("--output", output, *rest) == 0
    assert json.loads(config.read_text())["conv_template"]["system_message"] == "Be brief."
    assert run("--output", output, *rest, "--system-message", "Parlez français.") == 0
    expected = {"conv_template": {"name": "chatml", "system_message": "Parlez français."}, "top_p": 1.0}
    assert json.loads(config.read_text(encoding="utf-8")) == expected
    assert all("--system-message" not in call["arguments"] for call in environment.calls())


def test_a_checkpoint_may_be_given_by_its_configuration(
    run: Callable[..., int], environment: Environment, checkpoint: Path
) -> None:
    """A filegroup of a checkpoint's files is therefore enough."""
    assert run("--output", "out", "weights", checkpoint / "config.json", "--quantization", "q0f32") == 0
    assert {call["arguments"][1] for call in environment.calls()} == {str(checkpoint)}


def test_library_is_compiled_for_the_target_by_the_given_compiler(
    run: Callable[..., int], environment: Environment, tmp_path: Path
) -> None:
    target = '{"kind": "llvm", "mcpu": "x86-64-v3"}'
    assert run("--output", "model.so", "library", tmp_path, "--target", target, "--compiler", "bin/g++") == 0
    (call,) = environment.calls()
    assert call["arguments"] == [
        "compile",
        f"{tmp_path}/mlc-chat-config.json",
        "--device",
        target,
        "--output",
        "model.so",
        "--opt",
        "O2",
    ]
    # TVM runs it from another folder.
    assert call["environment"]["CXX"] == str(Path.cwd() / "bin/g++")
    # The compiler works without the engine (test_compiler.py).
    assert call["environment"]["SKIP_LOADING_MLCLLM_SO"] == "1"


GPU = '{"kind": "cuda", "arch": "sm_90"}'


@pytest.fixture
def nvcc(tmp_path: Path) -> Path:
    nvcc = tmp_path / "cuda/bin/nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text("#!/bin/sh\necho sm_80\necho sm_90\n")
    nvcc.chmod(0o755)
    return nvcc


@pytest.mark.parametrize(
    ("opt", "expected", "optional"),
    [(["--opt", "O0"], "O0", []), ([], compile_environment.CUDA_OPT, ["--optional-flashinfer"])],
)
def test_library_for_a_gpu_has_machine_code_by_the_given_nvcc(
    run: Callable[..., int],
    environment: Environment,
    tmp_path: Path,
    nvcc: Path,
    capfd: pytest.CaptureFixture,
    opt: list[str],
    expected: str,
    optional: list[str],
) -> None:
    library = ["--output", "model.so", "library", tmp_path, "--target", GPU, "--compiler", "bin/g++", "--nvcc", nvcc]
    kernels = ["--kernels", "float16_64=a.o:b.o", "--kernels", "four_bits=c.o"]
    needed = ["--needed-library", "libcudart.so"]
    assert run(*library, "--cublas-modules", tmp_path / "libcublas_modules.so", *kernels, *needed, *opt) == 0
    assert json.loads((environment.folder / "options").read_text()) == [
        *["--target", GPU, "--cublas-modules", str(tmp_path / "libcublas_modules.so")],
        "--kernels=float16_64=a.o:b.o",
        "--kernels=four_bits=c.o",
        "--needed-library=libcudart.so",
        *optional,
    ]
    (call,) = environment.calls()
    config = f"{tmp_path}/mlc-chat-config.json"
    assert call["arguments"] == ["compile", config, "--device", GPU, "--output", "model.so", "--opt", expected]
    assert call["environment"]["PATH"] == str(nvcc.parent)
    # What was left out for a reason is said, and nothing else.
    assert capfd.readouterr() == ("", "build_model: no FlashInfer: x\n")


def test_an_architecture_unknown_to_nvcc_is_refused_before_anything_runs(
    run: Callable[..., int], environment: Environment, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho sm_90\n")
    nvcc.chmod(0o755)
    target = '{"kind": "cuda", "arch": "sm_999"}'
    assert (
        run("--output", "model.so", "library", tmp_path, "--target", target, "--compiler", "g++", "--nvcc", nvcc) == 1
    )
    assert environment.calls() == []
    assert capfd.readouterr().err.startswith(
        "build_model: target of kind cuda: expected one of the architectures sm_90, found sm_999; "
    )


def test_a_model_without_weights_is_only_configured(
    run: Callable[..., int], environment: Environment, checkpoint: Path
) -> None:
    assert (
        run(
            "--output",
            "out",
            "config",
            checkpoint / "config.json",
            "--quantization",
            "q0f16",
            "--conv-template",
            "chatml",
        )
        == 0
    )
    (call,) = environment.calls()
    assert call["arguments"] == [
        "gen_config",
        str(checkpoint),
        "--quantization",
        "q0f16",
        "--output",
        "out",
        "--conv-template",
        "chatml",
    ]


def test_commands_see_nothing_of_the_machine(
    run: Callable[..., int], environment: Environment, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "CXX", "HF_TOKEN", "MLC_LLM_HOME", "PYTHONSTARTUP", "TVM_NUM_THREADS"):
        monkeypatch.setenv(name, "of the machine")
    assert run("--output", "out", "weights", checkpoint, "--quantization", "q0f32") == 0
    for call in environment.calls():
        seen = call["environment"]
        # Python itself adds the locale (PEP 538), and the shell script that starts it adds the others.
        assert set(seen) - {"LC_CTYPE", "PWD", "SHLVL", "_"} == {
            "HOME",
            "PATH",
            "PYTHONDONTWRITEBYTECODE",
            "PYTHONHASHSEED",
            "PYTHONPATH",
            "TMPDIR",
            "TVM_BIND_THREADS",
        }
        assert (seen["PATH"], seen["PYTHONHASHSEED"]) == ("/nonexistent", "0")
        assert call["home"] == []
        assert not os.path.exists(seen["HOME"]) and not os.path.exists(seen["TMPDIR"])


@pytest.mark.parametrize(("step", "calls"), [("config", 1), ("weights", 2)])
def test_what_the_user_accepts_to_be_ignored_is_passed_on(
    run: Callable[..., int], environment: Environment, checkpoint: Path, step: str, calls: int
) -> None:
    options = ["--ignore-config-key", "one", "--ignore-config-key", "two", "--ignore-tensor", "*.bias"]
    assert run("--output", "out", step, checkpoint, "--quantization", "q0f32", *options) == 0
    assert len(environment.calls()) == calls
    for call in environment.calls():
        assert call["environment"]["MLC_IGNORE_CONFIG_KEYS"] == "one,two"
        assert call["environment"]["MLC_IGNORE_TENSORS"] == "*.bias"
        assert not [argument for argument in call["arguments"] if "ignore" in argument]


def test_the_first_environment_wins(
    run: Callable[..., int], environment: Environment, checkpoint: Path, tmp_path: Path
) -> None:
    second = Environment(tmp_path / "second")
    assert run("--environment", second.folder, "--output", "out", "weights", checkpoint, "--quantization", "q0f32") == 0
    assert len(environment.calls()) == 2 and second.calls() == []
    assert environment.calls()[0]["environment"]["PYTHONPATH"] == f"{environment.folder}:{second.folder}"


@pytest.mark.parametrize(("failing", "calls"), [("gen_config", 1), ("convert_weight", 2)])
def test_a_failed_command_stops_the_build_and_its_output_is_shown(
    run: Callable[..., int],
    environment: Environment,
    checkpoint: Path,
    capfd: pytest.CaptureFixture,
    failing: str,
    calls: int,
) -> None:
    environment.fail_at(failing)
    assert run("--output", "out", "weights", checkpoint, "--quantization", "q0f32") == 1
    assert len(environment.calls()) == calls
    error = capfd.readouterr().err
    assert "to standard output" in error and "to standard error" in error
    assert error.endswith(f"\nmlc_llm {failing} failed with exit status 3, see above\n")


def test_a_folder_without_configuration_is_refused_before_anything_runs(
    run: Callable[..., int], environment: Environment, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("--output", "out", "weights", empty, "--quantization", "q0f32") == 1
    assert environment.calls() == []
    expected = (
        f"build_model: {empty}: expected a model folder like those of Hugging Face's hub, found no config.json in it\n"
    )
    assert capfd.readouterr().err == expected


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["weights", "checkpoint", "--quantization", "q0f32"], "--output"),
        (["--output", "out", "weights", "checkpoint"], "--quantization"),
        (["--output", "out", "config", "checkpoint"], "--quantization"),
        (["--output", "out", "library", "model", "--compiler", "g++"], "--target"),
        (["--output", "out", "library", "model", "--target", "llvm"], "--compiler"),
    ],
)
def test_a_missing_option_is_named(
    run: Callable[..., int], arguments: list[str], missing: str, capfd: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        run(*arguments)
    assert f"the following arguments are required: {missing}" in capfd.readouterr().err
