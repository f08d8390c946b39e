"""The tools of the rules_oci stand-in write the same bytes everywhere and refuse what they cannot support."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from given import runfile


def load(variable: str) -> ModuleType:
    """Imports a tool from its path."""
    specification = importlib.util.spec_from_file_location(variable.lower(), runfile(variable))
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


ARCHIVE, DESCRIPTOR, LAYOUT = map(load, ("ARCHIVE", "DESCRIPTOR", "LAYOUT"))
LAYERS = [["layer.tar", "layer.json"]]
SPEC: dict[str, Any] = {
    "base": None,
    "files": {},
    "label": "//:image",
    "layers": LAYERS,
    "platform": {"os": "linux", "architecture": "amd64"},
    "values": {"env": "PATH=/bin", "cmd": "a\nb%5Cnc", "labels": "k=v"},
}


def write_image(folder: Path, **changes: object) -> Path:
    """Writes an image with one small layer; returns its layout."""
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w"):
        pass
    (folder / "layer.tar").write_bytes(content.getvalue())
    content.seek(0)
    (folder / "layer.json").write_text(json.dumps(DESCRIPTOR.describe(content, "//:layer")))
    layers = [[str(folder / name) for name in pair] for pair in LAYERS]
    LAYOUT.write_image({**SPEC, "layers": layers, **changes}, folder / "layout")
    return folder / "layout"


def test_gzip_of_several_members_is_described() -> None:
    content = os.urandom(3_000_000)
    packed = gzip.compress(content[:1000]) + gzip.compress(content[1000:])
    description = DESCRIPTOR.describe(io.BytesIO(packed), "//:layer")
    assert description["diff_id"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert description["descriptor"]["digest"] == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert description["descriptor"]["size"] == len(packed)
    assert description["descriptor"]["mediaType"].endswith("+gzip")


def test_a_zstd_layer_is_refused() -> None:
    with pytest.raises(DESCRIPTOR.LayerError, match="zstd need --config=upstream"):
        DESCRIPTOR.describe(io.BytesIO(b"\x28\xb5\x2f\xfd...."), "//:layer")


def test_a_damaged_layer_is_refused() -> None:
    packed = gzip.compress(os.urandom(100_000))
    with pytest.raises(DESCRIPTOR.LayerError, match="ends early"):
        DESCRIPTOR.describe(io.BytesIO(packed[:-10]), "//:layer")
    with pytest.raises(DESCRIPTOR.LayerError, match="found damage"):
        DESCRIPTOR.describe(io.BytesIO(packed[:1000] + bytes(100) + packed[1100:]), "//:layer")


def test_bytes_depend_on_content_alone(tmp_path: Path) -> None:
    trees = []
    for number, (umask, zone) in enumerate([(0o022, "UTC"), (0o077, "Asia/Tokyo")]):
        folder = tmp_path / str(number)
        write_image(folder / "inputs")
        for name in ("layer.tar", "layer.json"):
            (folder / "inputs" / name).rename(folder / name)
            os.utime(folder / name, (number, number))
        (folder / "spec.json").write_text(json.dumps(dict(SPEC if number else reversed(SPEC.items()))))
        command: list[str | Path] = [
            sys.executable,
            "-I",
            "-B",
            runfile("LAYOUT").resolve(),
            "image",
            "--spec=spec.json",
            "--output=out",
            "--digest=digest",
        ]
        subprocess.run(command, check=True, cwd=folder, env={"TZ": zone}, umask=umask)
        files = {
            str(path.relative_to(folder / "out")): path.read_bytes()
            for path in (folder / "out").rglob("*")
            if path.is_file()
        }
        trees.append({**files, "digest": (folder / "digest").read_bytes()})
    assert trees[0] == trees[1]


def test_archive_has_no_time_and_no_owner(tmp_path: Path) -> None:
    output = io.BytesIO()
    ARCHIVE.write_archive(write_image(tmp_path), "docker", ["a/b:c"], output)
    output.seek(0)
    with tarfile.open(fileobj=output) as archive:
        members = archive.getmembers()
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}
        (entry,) = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert entry["RepoTags"] == ["a/b:c"]
    assert {entry["Config"], *entry["Layers"], "manifest.json"} == {member.name for member in members}


def test_archive_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='format = "oci" takes an oci_image_index'):
        ARCHIVE.write_archive(write_image(tmp_path), "oci", [], io.BytesIO())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"env": "PATH=$NOWHERE/bin"}, "env: PATH=.NOWHERE/bin needs NOWHERE, which neither"),
        ({"labels": "novalue"}, "labels: expected KEY=VALUE, found 'novalue'"),
        ({"created": "1970-01-01T00:00:00Z\n"}, "created: expected a time .* and no newline"),
    ],
)
def test_meaningless_values_are_refused(tmp_path: Path, values: dict[str, str], message: str) -> None:
    with pytest.raises(LAYOUT.ImageError, match=message):
        write_image(tmp_path, values=values)


def test_newline_inside_an_argument_is_kept(tmp_path: Path) -> None:
    layout = LAYOUT.Layout(write_image(tmp_path))
    config = layout.read(layout.read(layout.single()["digest"])["config"]["digest"])
    assert config["config"]["Cmd"] == ["a", "b\nc"]
