"""The copyright file of a Debian package, out of its .deb."""

from __future__ import annotations

import posixpath
from pathlib import Path

from fetch import archives
from fetch.debian.archive import Deb, DebianError


def copyright_file(path: Path, package: str) -> tuple[str, str]:
    """A Debian package's copyright file (Debian policy 12.5).

    Returns:
        The package that the file belongs to, and its text. If a link leads to another package, that package and "".

    Raises:
        DebianError: the package has none.
    """
    folder = f"usr/share/doc/{package}"
    with Deb(path).data() as data:
        for member in data:
            name = posixpath.normpath(member.name).lstrip("/")
            if name not in (folder, f"{folder}/copyright"):
                continue
            if member.issym():
                target = posixpath.normpath(posixpath.join("/", posixpath.dirname(name), member.linkname))
                return target.removeprefix("/usr/share/doc/").split("/")[0], ""
            if member.isreg():
                return package, archives.content(data, member).read().decode("utf-8", "replace")
    raise DebianError(
        f"{package}: expected /{folder}/copyright or a link there, found neither: dpkg-deb --contents {path}"
    )
