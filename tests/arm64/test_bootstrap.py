"""On a Debian 12 of arm64 without Bazel, the launcher installs the locked one, and that one builds.

The root has Debian's base and Python, this checkout, and the packages that bazel_arm64.lock.json pins. No server
answers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import emulated_root
import pytest

from fetch import archives
from release.private.reproduce.second_workspace import SecondWorkspace

WORKSPACE = Path(os.environ["WORKSPACE_FILE"]).resolve().parent
LOCK = json.loads((WORKSPACE / "locks/bazel_arm64.lock.json").read_text())
VERSION = (WORKSPACE / ".bazelversion").read_text().strip()

# Its action starts programs.
TARGET = """genrule(
    name = "processor",
    outs = ["processor.txt"],
    cmd = "uname -m > $@",
)
"""


class Machine:
    """The root and the launcher in it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        for layer in os.environ["LAYERS"].split():
            with archives.open_tar_file(Path(layer)) as tar, archives.Extractor(self.root, layer) as extractor:
                for entry in tar:
                    extractor.add(tar, entry)
                    if entry.isdir():  # Else only those with files are made.
                        (self.root / entry.name).mkdir(parents=True, exist_ok=True)
        self.checkout = SecondWorkspace(WORKSPACE, self.root).root
        (self.checkout / "emulated").mkdir()
        (self.checkout / "emulated/BUILD.bazel").write_text(TARGET)
        self._provide(self.root / "cache/downloads")

    def _provide(self, downloads: Path) -> None:
        """Puts the packages where the launcher looks before it downloads."""
        downloads.mkdir(parents=True)
        files = {Path(path).name: Path(path) for path in os.environ["PACKAGES"].split()}
        for package in LOCK["packages"].values():
            shutil.copy(files[Path(package["path"]).name], downloads / f"{package['sha256']}.deb")
        for wheel in LOCK["wheels"]:
            shutil.copy(files[wheel], downloads)

    def bazel(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs tools/bazel."""
        nobody = "http://127.0.0.1:1/"
        return emulated_root.run(
            self.root,
            os.environ["EMULATOR"],
            "/bin/sh",
            "tools/bazel",
            *arguments,
            folder=f"/{self.checkout.relative_to(self.root)}",
            environment={
                "HOME": "/tmp",
                "MLC_BAZEL_CACHE": "/cache",
                "MLC_DEBIAN_MIRROR": nobody,
                "MLC_PROFILE": "registries",
                "PATH": "/usr/bin",
                "PIP_INDEX_URL": nobody,
            },
        )


@pytest.fixture(scope="module", name="machine")
def machine_with_bazel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("arm64"))
    (machine.root / "tmp").mkdir(exist_ok=True)
    yield machine
    machine.bazel("shutdown")


def test_the_launcher_installs_the_locked_bazel(machine: Machine) -> None:
    done = machine.bazel("version")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"(?m)^Build label: {re.escape(VERSION)}$", done.stdout), done
    assert f"installed Bazel {VERSION} in" in done.stderr and "bazel_arm64.lock.json" not in done.stderr, done.stderr
    (installed,) = (machine.root / "cache").glob("bazel-*-aarch64")
    manifest = json.loads((installed / "manifest.json").read_text())
    assert manifest["wheels"].keys() == LOCK["wheels"].keys()


def test_it_builds_what_is_in_this_checkout(machine: Machine) -> None:
    done = machine.bazel("build", "--curses=no", "--spawn_strategy=local", "//emulated:processor", "//platforms:docs")
    assert done.returncode == 0, done.stderr
    (built,) = (machine.root / "tmp").glob(".cache/bazel/*/*/execroot/_main/bazel-out/*/bin/emulated/processor.txt")
    assert built.read_text() == "aarch64\n"
