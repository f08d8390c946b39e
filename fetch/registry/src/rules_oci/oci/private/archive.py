"""Turns an OCI image layout into the archive that `docker load` and `podman load` read, and can load it.

Images become the form of `docker save`, indexes an OCI archive. Standard library only.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import IO

INDEX = "application/vnd.oci.image.index.v1+json"
LOADERS = ("docker", "podman", "nerdctl")


def _header(name: str, size: int) -> tarfile.TarInfo:
    """A header that says nothing about this machine: no owner, no time."""
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    return header


def write_archive(layout: Path, kind: str, tags: list[str], output: IO[bytes]) -> None:
    """Writes the archive, reading every blob once.

    Args:
        layout: folder of the image layout.
        kind: "docker" for an image, "oci" for an index. Upstream does not convert between them.
        tags: names such as "repository:tag".
        output: where to write; need not be seekable.

    Raises:
        ValueError: the layout is not of this kind.
    """
    descriptor = json.loads((layout / "index.json").read_bytes())["manifests"][0]
    if (kind == "oci") != (descriptor["mediaType"] == INDEX):
        raise ValueError(
            f'format = "{kind}" takes {"an oci_image_index" if kind == "oci" else "an oci_image"}, found'
            f" {descriptor['mediaType']}"
        )

    def blob(digest: str) -> Path:
        return layout / "blobs" / digest.replace(":", "/")

    with tarfile.open(fileobj=output, mode="w|") as archive:

        def add(name: str, path: Path) -> None:
            with path.open("rb") as content:
                archive.addfile(_header(name, path.stat().st_size), content)

        def add_json(name: str, document: object) -> None:
            content = json.dumps(document, sort_keys=True).encode()
            archive.addfile(_header(name, len(content)), io.BytesIO(content))

        if kind == "oci":
            add("oci-layout", layout / "oci-layout")
            for path in sorted((layout / "blobs/sha256").iterdir()):
                add(f"blobs/sha256/{path.name}", path)
            names = [{**descriptor, "annotations": {"org.opencontainers.image.ref.name": tag}} for tag in tags]
            add_json("index.json", {"schemaVersion": 2, "manifests": names or [descriptor]})
            return
        manifest = json.loads(blob(descriptor["digest"]).read_bytes())
        config = "blobs/" + manifest["config"]["digest"].replace(":", "/")
        add(config, blob(manifest["config"]["digest"]))
        layers = []
        for layer in manifest["layers"]:
            name = "blobs/" + layer["digest"].replace(":", "/") + ".tar.gz"
            if name not in layers:
                add(name, blob(layer["digest"]))
            layers.append(name)
        add_json("manifest.json", [{"Config": config, "RepoTags": tags, "Layers": layers}])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layout", type=Path, required=True, help="folder of the OCI image layout")
    parser.add_argument("--format", choices=["docker", "oci"], default="docker")
    parser.add_argument("--tags", type=Path, required=True, help="file with one repository:tag a line")
    parser.add_argument(
        "--output", type=Path, help="archive to write; without it, load the image into the container engine"
    )
    parser.add_argument("--loader", help="container tool instead of the first of " + ", ".join(LOADERS))
    arguments = parser.parse_args()
    tags = arguments.tags.read_text().split()
    if arguments.output:
        with arguments.output.open("wb") as output:
            write_archive(arguments.layout, arguments.format, tags, output)
        return
    loader = arguments.loader or next(filter(shutil.which, LOADERS), None)
    if not loader:
        sys.exit(f"expected one of {', '.join(LOADERS)} on PATH, found none; install one or set oci_load's loader")
    # Both engines read the archive from standard input when no --input is given.
    process = subprocess.Popen([loader, "load"], stdin=subprocess.PIPE)
    assert process.stdin
    try:
        write_archive(arguments.layout, arguments.format, tags, process.stdin)
        process.stdin.close()
    except BrokenPipeError:
        pass  # The engine gave up and says why; its exit status is ours.
    sys.exit(process.wait())


if __name__ == "__main__":
    main()
