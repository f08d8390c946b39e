"""Writes a wheel (PEP 427) whose bytes depend only on the content of its inputs.

Standard library only: it runs with the registered Python toolchain and no packages.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import itertools
import json
import re
import stat
import zipfile
from pathlib import Path
from typing import BinaryIO

# The earliest time that a zip archive can hold.
EPOCH = (1980, 1, 1, 0, 0, 0)

# The normal form of PEP 440, https://peps.python.org/pep-0440/#appendix-b-parsing-version-strings-with-regular-expressions,
# with a normal local version label.
VERSION = re.compile(
    r"([1-9][0-9]*!)?(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*((a|b|rc)(0|[1-9][0-9]*))?"
    r"(\.post(0|[1-9][0-9]*))?(\.dev(0|[1-9][0-9]*))?"
    r"(\+(0|[1-9][0-9]*|[0-9]*[a-z][a-z0-9]*)(\.(0|[1-9][0-9]*|[0-9]*[a-z][a-z0-9]*))*)?"
)

# Upstream's line, so that the wheels of both profiles are equal.
GENERATOR = "bazel-wheelmaker 1.0"

# Upstream's mode too: every file is executable. Installers look only at this bit, and the modes of Bazel's files mean
# nothing.
MODE = stat.S_IFREG | 0o777


class WheelError(Exception):
    """An error in a target, for its author."""


class Wheel:
    """Writes a wheel: adds each file once, with its line in RECORD.

    Args:
        archive: the zip archive to write to.
        dist_info: `<distribution>-<version>.dist-info`.
        compression: zipfile.ZIP_DEFLATED or zipfile.ZIP_STORED.
    """

    def __init__(self, archive: zipfile.ZipFile, dist_info: str, compression: int) -> None:
        self.archive = archive
        self.dist_info = dist_info
        self.compression = compression
        self.record: dict[str, tuple[str, int]] = {}

    def add(self, name: str, source: BinaryIO, zip64: bool) -> None:
        """Adds a file, reading it once.

        Args:
            name: its path in the wheel.
            source: its content.
            zip64: whether its entry has room for sizes beyond 4 GB, as upstream's entries of files on disk have.
        """
        if name in self.record:
            raise WheelError(f"two files would become {name} in the wheel; see strip_path_prefixes and deps")
        info = zipfile.ZipInfo(name, EPOCH)
        info.create_system = 3  # Unix on every machine, because the mode below is Unix's.
        info.compress_type = self.compression
        info.external_attr = MODE << 16
        digest, length = hashlib.sha256(), 0
        with self.archive.open(info, "w", force_zip64=zip64) as target:
            while block := source.read(1 << 20):
                digest.update(block)
                length += len(block)
                target.write(block)
        encoded = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
        self.record[name] = (f"sha256={encoded}", length)

    def add_file(self, name: str, path: Path) -> None:
        """Adds a file, or every file below a directory."""
        if path.is_dir():
            for child in sorted(path.iterdir()):
                self.add_file(f"{name}/{child.name}", child)
            return
        with path.open("rb") as source:
            self.add(name, source, zip64=True)

    def add_metadata(self, name: str, text: str, zip64: bool = False) -> None:
        """Adds a text file to the .dist-info folder."""
        self.add(f"{self.dist_info}/{name}", io.BytesIO(text.encode()), zip64)

    def add_record(self) -> None:
        """Adds RECORD, https://packaging.python.org/specifications/recording-installed-packages/."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for name, (digest, length) in self.record.items():
            writer.writerow([name, digest, length])
        writer.writerow([f"{self.dist_info}/RECORD", "", ""])
        self.add_metadata("RECORD", text.getvalue())


def placed(path: str, strip: list[str], prefix: str) -> str:
    """Returns a file's path in the wheel: strips the first matching prefix, then prepends `prefix`."""
    for candidate in strip:
        if path.startswith(candidate):
            path = path[len(candidate) :]
            break
    path = prefix + path
    if path.startswith("/") or ".." in path.split("/"):
        raise WheelError(f"{path} is no place inside a wheel; strip_path_prefixes end in a slash")
    return path


def expanded_tags(python: str, abi: str, platform: str) -> list[str]:
    """Spells out compressed tag sets, https://packaging.python.org/specifications/platform-compatibility-tags/."""
    return ["-".join(tag) for tag in itertools.product(python.split("."), abi.split("."), platform.split("."))]


def pairs(path: Path) -> list[tuple[str, Path]]:
    """Reads a list of files: lines `<path in the wheel>;<path on disk>`."""
    lines = (line.partition(";") for line in path.read_text().splitlines())
    return [(name, Path(disk)) for name, _, disk in lines]


def build(spec: dict, files: list[tuple[str, Path]], output: Path) -> None:
    """Writes the wheel.

    Args:
        spec: py_wheel's specification (wheel.bzl); keys are its attributes.
        files: path before stripping, and path on disk.
        output: the wheel to write.
    """
    version = spec["version"]
    if not VERSION.fullmatch(version):
        raise WheelError(f"version {version!r} is not in the normal form of PEP 440, which the file name needs")
    prefix = f"{spec['escaped_distribution']}-{version}"
    compression = zipfile.ZIP_DEFLATED if spec["compress"] else zipfile.ZIP_STORED
    with zipfile.ZipFile(output, "w", compression) as archive:
        wheel = Wheel(archive, f"{prefix}.dist-info", compression)
        for name, path in sorted(files):
            wheel.add_file(placed(name, spec["strip_path_prefixes"], spec["add_path_prefix"]), path)
        tags = expanded_tags(spec["python_tag"], spec["abi"], spec["platform"])
        wheel.add_metadata(
            "WHEEL",
            "Wheel-Version: 1.0\n"
            f"Generator: {GENERATOR}\n"
            f"Root-Is-Purelib: {'true' if spec['platform'] == 'any' else 'false'}\n"
            + "".join(f"Tag: {tag}\n" for tag in tags),
        )
        description = (
            Path(spec["description_file"]).read_text(encoding="utf-8") if spec["description_file"] else "UNKNOWN"
        )
        wheel.add_metadata("METADATA", "\n".join([*spec["metadata"], f"Version: {version}", "", description]) + "\n")
        if spec["entry_points"]:
            # Upstream reads it from a file, and so gives it a zip64 header.
            wheel.add_metadata("entry_points.txt", spec["entry_points"], zip64=True)
        for name, path in sorted(spec["data_files"]):
            wheel.add_file(f"{prefix}.data/{name}", Path(path))
        for name, path in sorted(spec["extra_distinfo_files"]):
            wheel.add_file(f"{prefix}.dist-info/{name}", Path(path))
        wheel.add_record()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", type=Path, required=True, help="JSON file with the attributes of py_wheel")
    parser.add_argument("--files", type=Path, required=True, help="lines of '<path in the wheel>;<path on disk>'")
    parser.add_argument("--output", type=Path, required=True, help="the wheel to write")
    arguments = parser.parse_args()
    spec = json.loads(arguments.spec.read_text(encoding="utf-8"))
    try:
        build(spec, pairs(arguments.files), arguments.output)
    except WheelError as error:
        parser.exit(1, f"{spec['label']}: {error}\n")


if __name__ == "__main__":
    main()
