"""Debian packages as layer content, as `dpkg --unpack` writes it on a merged-/usr system; no maintainer script runs."""

from __future__ import annotations

import fnmatch
import hashlib
import pathlib
import posixpath
import tarfile

from fetch import archives
from fetch.debian.archive import Deb
from oci.layer import Entry, Layer
from oci.layout import content as content_of

# Debian 12 has a merged /usr: these are symbolic links into /usr, but packages may still ship /bin/sh or /lib/x.
_MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")

# Documentation that nobody reads in a container. Copyright files stay, because the licences require it.
_DOCUMENTATION = (
    "usr/share/bash-completion/*",
    "usr/share/bug/*",
    "usr/share/doc-base/*",
    "usr/share/info/*",
    "usr/share/lintian/*",
    "usr/share/locale/*",
    "usr/share/man/*",
)
_DOC_FOLDER = "usr/share/doc"


def add_package(layer: Layer, path: pathlib.Path, exclude: tuple[str, ...] = ()) -> str:
    """Adds one .deb and its record in /var/lib/dpkg/status.d, where scanners look for packages installed without dpkg.

    Owners (numeric) and permissions come from the package, except the set-id bits, which every layer drops.

    Args:
        layer: the layer to add to.
        path: the .deb.
        exclude: globs of paths without leading slash to leave out (`*` also matches `/`).

    Returns:
        The package's name.

    Raises:
        ArchiveError: the package is damaged, or one of its names leads out of the image.
        LayerError: another package has shipped one of its paths with different content.
    """
    deb = Deb(path)
    name = deb.control["Package"]
    sums = []
    with deb.data() as data:
        for member in data:
            target = archives.relative_name(member.name, path.name)
            merged = _merged(target)
            if not target or _left_out(target, member, exclude):
                continue
            content = content_of(data, member)
            link = _merged(archives.relative_name(member.linkname, path.name)) if member.islnk() else member.linkname
            kind = tarfile.REGTYPE if member.isreg() else member.type
            # GNU tar records 0777 for every symbolic link, but some packages were built with another umask.
            mode = 0o777 if member.issym() else member.mode
            layer.add(merged, Entry(kind, f"package {name}", mode, member.uid, member.gid, content, link))
            if member.isreg():
                sums.append(f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}  {target}\n")
    fields = {"Package": name, "Status": "install ok installed", **deb.control}
    # deb822: a continuation line starts with a space.
    record = "".join(f"{key}: {value}".replace("\n", "\n ") + "\n" for key, value in fields.items())
    layer.add_file(f"var/lib/dpkg/status.d/{name}", record.encode(), f"package {name}")
    layer.add_file(f"var/lib/dpkg/status.d/{name}.md5sums", "".join(sums).encode(), f"package {name}")
    return name


def _merged(path: str) -> str:
    return f"usr/{path}" if path.split("/", 1)[0] in _MERGED else path


def _left_out(path: str, member: tarfile.TarInfo, exclude: tuple[str, ...]) -> bool:
    folder, _, below = path.partition(_DOC_FOLDER + "/")
    if not folder and below:
        # /usr/share/doc/<package>/copyright, or /usr/share/doc/<package> as a link to the package that carries it.
        return not (
            posixpath.basename(below) == "copyright" and below.count("/") == 1 or member.issym() and "/" not in below
        )
    return any(fnmatch.fnmatchcase(path, glob) for glob in _DOCUMENTATION + exclude)
