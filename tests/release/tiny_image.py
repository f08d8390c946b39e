"""Images of a few bytes for tests, with the records that package managers leave."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

from tests.oci.layouts import write_layout

SITE_PACKAGES = "usr/local/lib/python3.11/dist-packages"


def make(
    folder: pathlib.Path,
    debian: Iterable[tuple[str, str]] = (),
    pypi: Iterable[tuple[str, str]] = (),
    architecture: str = "amd64",
) -> pathlib.Path:
    """Writes an OCI layout.

    Args:
        folder: where; made here.
        debian: name and version of each package that is unpacked in the image.
        pypi: name and version of each distribution that is installed in it.
        architecture: what it is for.

    Returns:
        The folder.
    """
    records = {"usr/bin/true": b"true"}
    for name, version in debian:
        records[f"var/lib/dpkg/status.d/{name}"] = (
            f"Package: {name}\nStatus: install ok installed\nVersion: {version}\n".encode()
        )
        records[f"var/lib/dpkg/status.d/{name}.md5sums"] = b""
    installed = {}
    for name, version in pypi:
        path = f"{SITE_PACKAGES}/{name.replace('-', '_')}-{version}.dist-info/METADATA"
        installed[path] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    # Two layers: what is in an image is not in one of them.
    return write_layout(folder, [records, installed], architecture=architecture)
