"""The image's command `serve` finds the library of a model, and says what is missing."""

from __future__ import annotations

import errno
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import types
from typing import Any

import pytest

from images.commands import serve
from tests.private import python_program


class Place:
    """A folder with a model, and a program that takes the place of mlc_llm."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.model = self.folder / "model"
        self.model.mkdir()
        (self.model / "mlc-chat-config.json").write_text("{}")

    def run_serve(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Runs `serve` with an mlc_llm that prints its arguments, and TVM_USE_RUNTIME_LIB as an error."""
        program = "import os, sys\nprint(sys.argv[1:])\nprint(os.environ.get('TVM_USE_RUNTIME_LIB'), file=sys.stderr)\n"
        python_program.write(self.folder / "mlc_llm", program)
        command = [sys.executable, serve.__file__, *arguments]
        environment = {"PATH": str(self.folder), **environment}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Place:
    return Place(tmp_path)


def test_the_library_beside_the_folder_goes_before_one_in_it(place: Place) -> None:
    within, beside = place.model / "lib.so", place.folder / "model.so"
    within.touch()
    assert serve.model_library(place.model) == within
    beside.touch()
    assert serve.model_library(place.model) == beside


def test_without_a_library_the_command_that_makes_one_is_named(place: Place) -> None:
    with pytest.raises(
        serve.ModelError,
        match=(
            r"expected the compiled library .*/model\.so, or one \*\.so .* found none: .*mlc_llm compile .*/model"
            r" --output"
        ),
    ):
        serve.model_library(place.model)


def test_of_several_libraries_none_is_guessed(place: Place) -> None:
    for name in ("b.so", "a.so"):
        (place.model / name).touch()
    with pytest.raises(serve.ModelError, match="found a.so, b.so: name it with --model-lib"):
        serve.model_library(place.model)


def test_a_folder_without_configuration_is_no_model(place: Place) -> None:
    (place.model / "mlc-chat-config.json").unlink()
    with pytest.raises(serve.ModelError, match="expected a folder with mlc-chat-config.json, found none"):
        serve.model_folder(place.model)


def test_the_one_model_in_a_mounted_image_is_found(place: Place) -> None:
    """At the image's root as Kubernetes mounts it, or in its folder models as KServe does."""
    volume = place.folder / "volume"
    (volume / "models").mkdir(parents=True)
    model = place.model.rename(volume / "models/model")
    assert serve.model_folder(volume) == serve.model_folder(volume / "models") == serve.model_folder(model) == model
    (volume / "models/model.so").touch()
    ran = place.run_serve("volume")
    assert f"'serve', '{model.resolve()}', '--model-lib', '{model.resolve()}.so'" in ran.stdout, ran.stderr


def test_of_several_models_none_is_guessed(place: Place) -> None:
    (place.folder / "another").mkdir()
    (place.folder / "another" / serve.CONFIG).write_text("{}")
    with pytest.raises(serve.ModelError, match="expected one model, found another, model: serve one of these folders"):
        serve.model_folder(place.folder)


class NoExec:
    """Says that folders are mounted noexec, as image volumes are in Kubernetes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *folders: pathlib.Path) -> None:
        self.folders = folders
        self.real = os.statvfs
        monkeypatch.setattr(os, "statvfs", self.statvfs)

    def statvfs(self, path: pathlib.Path) -> types.SimpleNamespace:
        flags = self.real(path).f_flag & ~os.ST_NOEXEC
        noexec = any(path.is_relative_to(folder) for folder in self.folders)
        return types.SimpleNamespace(f_flag=flags | (os.ST_NOEXEC if noexec else 0))


def test_a_library_that_no_process_may_map_is_loaded_from_a_copy(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    library = place.folder / "model.so"
    library.write_bytes(b"code")
    (place.folder / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place.folder / "tmp"))
    NoExec(monkeypatch)
    assert serve.loadable(library) == library
    NoExec(monkeypatch, library)
    copy = serve.loadable(library)
    assert (copy.name, copy.read_bytes()) == ("model.so", b"code")
    assert copy.is_relative_to(place.folder / "tmp")
    assert "mounted noexec: loading the copy" in capsys.readouterr().err
    NoExec(monkeypatch, place.folder)
    with pytest.raises(serve.ModelError, match="on a file system mounted noexec, and so is .*/tmp: set TMPDIR"):
        serve.loadable(library)


def test_without_room_for_a_copy_the_remedy_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    library = place.folder / "model.so"
    library.touch()
    monkeypatch.setattr(tempfile, "tempdir", str(place.folder / "read-only"))
    NoExec(monkeypatch, library)
    with pytest.raises(serve.ModelError, match="No such file or directory.*mount an emptyDir there, or set TMPDIR"):
        serve.loadable(library)


def test_mlc_llm_serves_it_to_all_who_reach_the_container(place: Place) -> None:
    (place.folder / "model.so").touch()
    ran = place.run_serve("model", "--port", "80", "--mode=server")
    # macOS and some others reach a temporary folder by way of links.
    folder = place.folder.resolve()
    expected = [
        "serve",
        f"{folder}/model",
        "--model-lib",
        f"{folder}/model.so",
        "--host",
        serve.all_addresses(),
        "--port",
        "80",
        "--mode=server",
    ]
    assert (ran.returncode, ran.stdout) == (0, f"{expected}\n"), ran.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--mode", "server", "--port", "80"],
        ["--enable-debug"],
        ["--enable-d"],
        ["--mode=server", "--allow-credentials", "--device", "cpu"],
        ["--additional-models", "a", "b,b.so", "--enable-tracing"],
    ],
    ids=" ".join,
)
def test_options_may_come_before_the_model(place: Place, options: list[str]) -> None:
    (place.folder / "model.so").touch()
    model = str(place.model.resolve())
    for words in ([*options, "model"], ["model", *options]):
        ran = place.run_serve(*words, "--host", "::1")
        command = ["serve", model, "--model-lib", f"{model}.so", "--host", "::1", *options]
        assert (ran.returncode, ran.stdout) == (0, f"{command}\n"), ran.stderr


def test_the_model_may_come_behind_two_dashes(place: Place) -> None:
    (place.folder / "model.so").touch()
    ran = place.run_serve("--port", "80", "--", "model")
    assert ran.returncode == 0 and f"['serve', '{place.model.resolve()}'," in ran.stdout, ran.stderr


def test_a_command_without_a_model_says_so(place: Place) -> None:
    ran = place.run_serve("--mode", "server")
    assert ran.returncode == 2 and "serve: error: expected MODEL: the model's folder" in ran.stderr, ran.stderr


def test_all_addresses_are_those_of_ipv4_where_ipv6_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoIPv6(socket.socket):
        def bind(self, address: Any) -> None:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    monkeypatch.setattr(socket, "socket", NoIPv6)
    assert serve.all_addresses() == "0.0.0.0"
    monkeypatch.undo()
    with socket.socket(socket.AF_INET6) as probe:
        if probe.connect_ex(("::1", 9)) != errno.EADDRNOTAVAIL:
            assert serve.all_addresses() == ""


def test_a_named_library_and_address_are_taken(place: Place) -> None:
    ran = place.run_serve("model", "--model-lib", "other.so", "--host", "127.0.0.1")
    assert "'--model-lib', 'other.so', '--host', '127.0.0.1'" in ran.stdout


def test_the_compiler_is_loaded_only_where_something_may_be_compiled(place: Place) -> None:
    named = ["model", "--model-lib", "other.so"]
    assert place.run_serve(*named).stderr == "1\n"
    for option in ("--additional-models", "--additional"):
        assert place.run_serve(*named, option, "second").stderr == "None\n"
    assert place.run_serve("HF://owner/model").stderr == "None\n"
    assert place.run_serve(*named, TVM_USE_RUNTIME_LIB="0").stderr == "0\n"


def test_who_starts_the_container_may_choose_the_address(place: Place) -> None:
    (place.folder / "model.so").touch()
    assert "'--host', '127.0.0.1'" in place.run_serve("model", MLC_LLM_HOST="127.0.0.1").stdout
    assert "'--host', '::1'" in place.run_serve("model", "--host", "::1", MLC_LLM_HOST="127.0.0.1").stdout


@pytest.mark.parametrize("address", ["HF://owner/tiny", "HF://owner/tiny@v1", "https://huggingface.co/owner/tiny"])
def test_a_model_on_the_hub_is_mlc_llms_to_download_and_compile(place: Place, address: str) -> None:
    ran = place.run_serve(address, "--host", "::1", "--port", "80")
    assert ran.stdout == f"{['serve', address, '--host', '::1', '--port', '80']}\n", ran.stderr
    ran = place.run_serve(address, "--model-lib", "other.so", "--host", "::1")
    assert ran.stdout == f"{['serve', address, '--model-lib', 'other.so', '--host', '::1']}\n", ran.stderr


def test_the_image_may_have_the_library_of_a_model_on_the_hub(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "MODELS", place.folder)
    assert serve.hub_library("HF://owner/tiny") is None
    (place.folder / "tiny.so").touch()
    for address in ("HF://owner/tiny", "HF://owner/tiny@v1", "HF://owner/tiny/"):
        assert serve.hub_library(address) == place.folder / "tiny.so"


def test_what_is_missing_is_one_line(place: Place) -> None:
    ran = place.run_serve("model")
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert ran.stderr.startswith("serve: "), ran.stderr
