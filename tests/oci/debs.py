"""Small Debian packages made in a test."""

from __future__ import annotations

import io
import pathlib
import tarfile

from tests.private.deb import deb


def write_deb(
    path: pathlib.Path, name: str, members: list[tarfile.TarInfo], contents: dict[str, bytes], mtime: int = 0
) -> pathlib.Path:
    """Writes a .deb with control.tar.xz and data.tar.xz.

    Args:
        path: the file to write.
        name: the package's.
        members: data.tar's, but for plain files; see `directory`, `symlink`, `hard_link`, `file_facts`.
        contents: regular files of mode 0644 by path.
        mtime: of every file.
    """
    control = f"Package: {name}\nVersion: 1.0\nArchitecture: all\nDescription: a package\n of the test\n".encode()
    path.write_bytes(
        deb(
            {
                "control.tar.xz": _tar_xz([], {"./control": control}, mtime),
                "data.tar.xz": _tar_xz(members, contents, mtime),
            },
            mtime,
        )
    )
    return path


def directory(path: str, mode: int = 0o755) -> tarfile.TarInfo:
    return _member(path, tarfile.DIRTYPE, mode)


def symlink(path: str, target: str) -> tarfile.TarInfo:
    return _member(path, tarfile.SYMTYPE, 0o777, target)


def hard_link(path: str, target: str) -> tarfile.TarInfo:
    return _member(path, tarfile.LNKTYPE, 0o755, target)


def file_facts(path: str, mode: int, gid: int = 0) -> tarfile.TarInfo:
    """A regular file that is not root's or not 0644; its content is among write_deb's `contents`."""
    info = _member(path, tarfile.REGTYPE, mode)
    info.gid = gid
    return info


def _member(path: str, kind: bytes, mode: int, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.linkname = kind, mode, target
    return info


def _tar_xz(members: list[tarfile.TarInfo], contents: dict[str, bytes], mtime: int) -> bytes:
    stated = {member.name for member in members}
    plain = [file_facts(path, 0o644) for path in contents if path not in stated]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", format=tarfile.GNU_FORMAT) as tar:
        # Regular files first: a hard link follows what it names.
        for info in sorted(members + plain, key=lambda info: info.type != tarfile.REGTYPE):
            info.mtime = mtime
            data = contents.get(info.name, b"") if info.isreg() else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
