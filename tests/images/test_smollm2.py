"""SmolLM2 answers from containers: in an image of its own, and mounted from an image that holds nothing else."""

from __future__ import annotations

import pathlib

from tests.images.containers import Container
from tests.images.served import CLIENT
from tests.images.smollm2_answers import QUESTION, check, mounted


def test_the_image_answers_when_started_without_a_command(container: Container) -> None:
    command = container.image_config["Cmd"]
    assert command == ["serve", "/models/smollm2_q0f32"]
    check(container.said("python", "-c", CLIENT, QUESTION, *container.entrypoint, *command, read_only=True))


def test_a_server_answers_with_a_mounted_model(container: Container, folder: pathlib.Path) -> None:
    mounted(folder)
    command = ("serve", "/mnt/models")
    output = container.said(
        "python", "-c", CLIENT, QUESTION, *container.entrypoint, *command, volumes={"/mnt": folder}, read_only=True
    )
    check(output)
    assert "/mnt/models/smollm2.so is on a file system mounted noexec: loading the copy" in output
