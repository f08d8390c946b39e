"""SmolLM2 answers from containers: in an image of its own, and mounted from an image that holds nothing else."""

from __future__ import annotations

import os
import pathlib

from oci.layout import Image
from tests.images.containers import Container
from tests.images.served import CLIENT, answers

QUESTION = "What is the capital of France?"


def check(output: str) -> None:
    (choice,) = answers(output)["answer"]["choices"]
    assert choice["message"]["content"] == "The capital of France is Paris."
    assert choice["finish_reason"] == "stop"


def test_the_image_answers_when_started_without_a_command(container: Container) -> None:
    command = container.image_config["Cmd"]
    assert command == ["serve", "/models/smollm2_q0f32"]
    check(container.said("python", "-c", CLIENT, QUESTION, *container.entrypoint, *command, read_only=True))


def test_a_server_answers_with_a_mounted_model(container: Container, folder: pathlib.Path) -> None:
    for path, file in Image(pathlib.Path(os.environ["MODEL_IMAGE"])).files.items():
        if file.entry.isdir():
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(file.data)
    command = ("serve", "/mnt/models")
    output = container.said(
        "python", "-c", CLIENT, QUESTION, *container.entrypoint, *command, volumes={"/mnt": folder}, read_only=True
    )
    check(output)
    assert "/mnt/models/smollm2.so is on a file system mounted noexec: loading the copy" in output
