"""`mlc_llm` and its sub-commands: help, errors in one line, and conversion to the bytes of the build."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import re
import subprocess
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_model_files
from mlc_llm.__main__ import main

# An option of each sub-command that the README or the image's commands use.
COMMANDS = {
    "compile": ["--device", "--model-type", "--opt", "--output", "--overrides", "--quantization"],
    "convert_weight": ["--device", "--output", "--quantization", "--source", "--source-format"],
    "gen_config": [
        "--context-window-size",
        "--conv-template",
        "--max-batch-size",
        "--output",
        "--prefill-chunk-size",
        "--quantization",
    ],
    "chat": ["--device", "--model-lib", "--overrides"],
    "serve": [
        "--additional-models",
        "--api-key",
        "--device",
        "--host",
        "--mode",
        "--model-lib",
        "--overrides",
        "--port",
    ],
    "package": ["--mlc-llm-source-dir", "--output", "--package-config"],
    "calibrate": ["--dataset", "--device", "--model-lib", "--num-calibration-samples", "--output", "--seed"],
}


@dataclasses.dataclass
class Done:
    """A command's exit status and outputs. For an exception, stderr ends with the line that Python would print."""

    status: int
    stdout: str
    stderr: str

    def refused(self, *parts: str) -> None:
        """Asserts that the command failed and its last line says why."""
        assert self.status != 0, self.stdout
        last = self.stderr.strip().splitlines()[-1]
        assert all(part in last for part in parts), self.stderr


@pytest.fixture
def mlc_llm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., Done]:
    """Calls the console script in this process, because a new one takes two seconds to start."""

    def call(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["mlc_llm", *map(str, arguments)])
        status, error = 0, ""
        try:
            main()
        except SystemExit as exit:
            status = int(exit.code or 0)
        except Exception as exception:
            status, error = 1, "".join(traceback.format_exception_only(exception))
        written = capsys.readouterr()
        return Done(status, written.out, written.err + error)

    return call


def test_the_console_script_is_the_tested_function() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="mlc_llm")
    assert script.load() is main


def test_help_names_every_sub_command(mlc_llm: Callable[..., Done]) -> None:
    done = mlc_llm("--help")
    assert (done.status, done.stderr) == (0, "")
    (listed,) = re.findall(r"\{([a-z_,\s]+)\}", done.stdout)[:1]
    assert set(re.sub(r"\s", "", listed).split(",")) == {*COMMANDS, "router"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_sub_command_names_its_options(mlc_llm: Callable[..., Done], command: str) -> None:
    done = mlc_llm(command, "--help")
    assert (done.status, done.stderr) == (0, "")
    options = re.findall(r"^  (--[a-z-]+)\b", done.stdout, re.MULTILINE)
    assert set(COMMANDS[command]) <= set(options)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Removes a module, and the mlc_llm modules that may have imported it."""

    def remove(module: str) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        for name in [name for name in sys.modules if re.match(r"mlc_llm\.(cli|interface|router)\b", name)]:
            monkeypatch.delitem(sys.modules, name)

    return remove


def test_router_needs_a_distribution_that_upstream_does_not_declare(
    mlc_llm: Callable[..., Done], without: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is aiohttp. With it installed, the sub-command prints its help."""
    without("aiohttp")
    mlc_llm("router", "--help").refused("ModuleNotFoundError", "aiohttp")
    stand_in = types.ModuleType("aiohttp")
    for name in ("ClientSession", "ClientTimeout"):
        setattr(stand_in, name, object)
    monkeypatch.setitem(sys.modules, "aiohttp", stand_in)
    done = mlc_llm("router", "--help")
    assert done.status == 0 and "--router-mode" in done.stdout, done.stderr


def test_chat_without_its_extra_names_what_is_missing(
    mlc_llm: Callable[..., Done], without: Callable[[str], None]
) -> None:
    without("prompt_toolkit")
    mlc_llm("chat", "--help").refused("ModuleNotFoundError", "prompt_toolkit")


def test_an_unknown_sub_command_is_refused_and_the_known_are_named(mlc_llm: Callable[..., Done]) -> None:
    done = mlc_llm("answer")
    assert done.status == 2
    done.refused("invalid choice: 'answer'", *COMMANDS)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["compile", "convert_weight", "gen_config"])
def test_an_unknown_quantisation_is_refused_and_the_known_are_named(
    mlc_llm: Callable[..., Done], command: str, tmp_path: Path
) -> None:
    model = tiny_model_files.WEIGHTS if command == "compile" else tiny_model_files.CHECKPOINT
    done = mlc_llm(command, model, "--quantization", "q5f17", "--output", tmp_path / "out.so")
    assert done.status == 2
    done.refused("argument --quantization: invalid choice: 'q5f17'", "'q0f32'", "'q4f16_1'")


def test_an_unknown_conversation_template_is_refused(mlc_llm: Callable[..., Done], tmp_path: Path) -> None:
    options = ["--quantization", "q0f32", "--conv-template", "gossip", "--output", tmp_path / "out"]
    done = mlc_llm("gen_config", tiny_model_files.CHECKPOINT, *options)
    done.refused("argument --conv-template: invalid choice: 'gossip'", "'chatml'")


@pytest.mark.parametrize("command", ["compile", "convert_weight", "gen_config"])
def test_a_folder_without_configuration_is_refused_by_its_name(
    mlc_llm: Callable[..., Done], command: str, tmp_path: Path
) -> None:
    """Upstream's error names the missing file, but argparse replaces the message of a ValueError by its own."""
    (tmp_path / "empty").mkdir()
    done = mlc_llm(command, tmp_path / "empty", "--quantization", "q0f32", "--output", tmp_path / "out.so")
    assert done.status == 2
    done.refused("argument", f"{tmp_path}/empty")


def test_package_without_a_source_folder_says_what_to_set(mlc_llm: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    done = mlc_llm("package", "--package-config", tmp_path / "config.json", "--output", tmp_path / "out")
    done.refused("ValueError", "MLC_LLM_SOURCE_DIR")


def test_conversion_gives_the_bytes_of_the_build(tmp_path: Path) -> None:
    """Runs the same commands on another day, in another folder, with another hash seed. None may affect a model."""
    made = json.loads((tiny_model_files.WEIGHTS / "mlc-chat-config.json").read_text())
    output = tmp_path / "model"
    options = ["--quantization", made["quantization"], "--output", output]
    sizes = []
    for name in ("context_window_size", "prefill_chunk_size", "max_batch_size"):
        sizes += ["--" + name.replace("_", "-"), made["model_config"][name]]
    environment = tiny_model_files.child_environment(tmp_path / "home") | {
        "PYTHONHASHSEED": "20261124",
        "TVM_BIND_THREADS": "0",
    }
    for command in (
        ["gen_config", tiny_model_files.CHECKPOINT, *options, "--conv-template", made["conv_template"]["name"], *sizes],
        ["convert_weight", tiny_model_files.CHECKPOINT, *options, "--device", "cpu"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "mlc_llm", *map(str, command)], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stdout + done.stderr
    expected = {path.name: path.read_bytes() for path in tiny_model_files.WEIGHTS.iterdir()}
    assert {path.name for path in output.iterdir()} == set(expected)
    assert {path.name for path in output.iterdir() if path.read_bytes() != expected[path.name]} == set()
