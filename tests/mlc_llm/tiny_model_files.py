"""Where the tiny model lies: what //models/tiny builds, under Bazel and in the image; and how a test starts a Python of
its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent


def _place(variable: str, name: str) -> Path:
    """Under Bazel a variable says it, relative to the runfiles, in which tests run; in the image it lies beside this
    file.
    """
    path = Path(os.environ.get(variable, HERE / name)).absolute()
    assert path.exists(), f"{path}: expected a part of //models/tiny there, found nothing; {variable} says where it is"
    return path


WEIGHTS = _place("MLC_TINY_WEIGHTS", "tiny")
"""Folder of mlc-chat-config.json, weight shards and tokenizer: quantisation q0f32, template chatml, context 512, batch
4, chunk 128.
"""

LIBRARY = _place("MLC_TINY_LIBRARY", "tiny.so")
CHECKPOINT = _place("MLC_TINY_CHECKPOINT", "checkpoint")
"""Folder of config.json and model.safetensors."""

SYSTEM_MESSAGE = (
    "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers."
)
"""Of the template chatml, as mlc-llm has it."""


def chatml(*messages: tuple[str, str]) -> str:
    """The prompt that the template chatml makes of (role, text)s, up to where the assistant's answer begins."""
    turns = [("system", SYSTEM_MESSAGE), *messages]
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + "<|im_start|>assistant\n"


def child_environment(home: Path) -> dict[str, str]:
    """The environment of a Python that imports what this one imports, and finds nothing else of the machine."""
    return {
        "HOME": str(home),
        "PATH": "/nonexistent",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONUNBUFFERED": "1",
        # Servers that spin on every core slow each other down: they take as many threads as the test.
        **{name: os.environ[name] for name in ("OMP_NUM_THREADS", "TVM_NUM_THREADS") if name in os.environ},
    }
