"""The image's command `serve` finds the library of a model, and says what is missing."""

from __future__ import annotations

import errno
import pathlib
import socket
import subprocess
import sys
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

    def run_serve(self, *arguments: str) -> subprocess.CompletedProcess:
        """Runs `serve` with an mlc_llm that prints its arguments."""
        python_program.write(self.folder / "mlc_llm", "import sys\nprint(sys.argv[1:])\n")
        command = [sys.executable, serve.__file__, *arguments]
        return subprocess.run(command, cwd=self.folder, env={"PATH": str(self.folder)}, capture_output=True, text=True)


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
        serve.model_library(place.model)


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


def test_what_is_missing_is_one_line(place: Place) -> None:
    ran = place.run_serve("model")
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert ran.stderr.startswith("serve: "), ran.stderr
