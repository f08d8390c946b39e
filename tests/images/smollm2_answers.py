"""SmolLM2 in a container: mounted from an image that holds nothing else, and asked."""

from __future__ import annotations

import os
import pathlib

from oci.layout import Image
from tests.images.served import answers

QUESTION = "What is the capital of France?"


def check(output: str) -> None:
    """Checks what CLIENT printed for QUESTION."""
    (choice,) = answers(output)["answer"]["choices"]
    assert choice["message"]["content"] == "The capital of France is Paris."
    assert choice["finish_reason"] == "stop"


def mounted(folder: pathlib.Path) -> None:
    """Unpacks the image $MODEL_IMAGE, which holds nothing but a model, into a folder, as where it is mounted."""
    for path, file in Image(pathlib.Path(os.environ["MODEL_IMAGE"])).files.items():
        if file.entry.isdir():
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(file.data)
