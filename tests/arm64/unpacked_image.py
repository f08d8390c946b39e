"""The image under test, unpacked, and programs in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import emulated_root
import pytest

from fetch import archives
from oci import layout

IMAGE = layout.Image(Path(os.environ["IMAGE"]))


@pytest.fixture(scope="module", name="root")
def unpacked_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's files."""
    folder = tmp_path_factory.mktemp("root")
    with archives.Extractor(folder, "the image") as extractor:
        for number in range(len(IMAGE.layer_digests)):
            for _, entry, tar in IMAGE.walk(number):
                extractor.add(tar, entry)
                if entry.isdir():  # Else only those with files are made.
                    (folder / entry.name).mkdir(parents=True, exist_ok=True)
    return folder


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command as a container of the image does."""
    # One thread, as for all tests (tests/defs.bzl), and a place that this test's user may write to.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TVM_NUM_THREADS"), "1")
    config = IMAGE.config["config"]
    inside = dict(each.split("=", 1) for each in config["Env"]) | threads | {"HOME": "/tmp"}
    return emulated_root.run(root, os.environ["EMULATOR"], *command, folder=config["WorkingDir"], environment=inside)
