"""The corpus of hostile archives: what an archive can carry to get out of the folder that it is unpacked into."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile

from tests.private.deb import deb

CONTROL = b"Package: x\nVersion: 1\nArchitecture: all\n"
OUTSIDE = "outside"
"""A folder next to the one that archives are unpacked into, with the file `victim`."""


def member(
    name: str, kind: bytes = tarfile.REGTYPE, to: str = "", data: bytes = b"", **fields: object
) -> tuple[tarfile.TarInfo, bytes]:
    """One member of a tar archive.

    Args:
        to: a link's destination.
        fields: further attributes of TarInfo.
    """
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, to, len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form, errors="surrogateescape") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return raw.getvalue()


def package(data: bytes, control: bytes = CONTROL) -> bytes:
    """A .deb with these two archives."""
    files = {"control.tar.xz": lzma.compress(tar(member("./control", data=control)))}
    return deb({**files, "data.tar.xz": lzma.compress(data)})


def with_checksums(data: bytes) -> bytes:
    """A tar archive whose first header's checksum is right, whatever has been changed in it (pax(1), ustar)."""
    head = bytearray(data[:512])
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data[512:]


def patched(data: bytes, offset: int, field: bytes) -> bytes:
    """A tar archive with other bytes in its first header."""
    return with_checksums(data[:offset] + field + data[offset + len(field) :])


def long_name(size: int, name: bytes) -> bytes:
    """GNU's header for a long name."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = b"L", size
    return info.tobuf(tarfile.GNU_FORMAT) + name + b"\0" * (-len(name) % 512)


LINK, HARD, FOLDER = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
_PLAIN = tar(member("a", data=b"content"))
_SIZE = 124

# What no unpacker may take: data.tar by what it tries.
TARS: dict[str, bytes] = {
    "absolute name": tar(member("/tmp/absolute", data=b"x")),
    "name with ..": tar(member(f"../{OUTSIDE}/new", data=b"x")),
    "name with .. inside": tar(member(f"a/../../{OUTSIDE}/new", data=b"x")),
    "file through a link": tar(member("l", LINK, f"../{OUTSIDE}"), member("l/new", data=b"x")),
    "file through a link to a link": tar(
        member("a", LINK, f"../{OUTSIDE}"), member("b", LINK, "a"), member("b/new", data=b"x")
    ),
    "file through a link that stays inside": tar(member("d/f", data=b"x"), member("l", LINK, "d"), member("l/new")),
    "overwrites through a link": tar(member("l", LINK, f"../{OUTSIDE}/victim"), member("l", data=b"x")),
    "link that leads out": tar(member("l", LINK, f"../{OUTSIDE}/victim")),
    "link that leads out by way of another": tar(
        member("a/b/up", LINK, "../.."), member("a/b/out", LINK, f"up/../{OUTSIDE}/victim")
    ),
    "link through a folder and back": tar(member("a/l", LINK, "b/../../../x")),
    "empty link": tar(member("l", LINK, "")),
    "hard link to a file of the machine": tar(member("h", HARD, "/etc/passwd")),
    "hard link with ..": tar(member("h", HARD, f"../{OUTSIDE}/victim")),
    "hard link through a link": tar(member("l", LINK, f"../{OUTSIDE}"), member("h", HARD, "l/victim")),
    "hard link that is then overwritten": tar(
        member("h", HARD, f"../{OUTSIDE}/victim"), member("h", data=b"x"), form=tarfile.GNU_FORMAT
    ),
    "hard link to what another archive wrote": tar(member("h", HARD, "before")),
    "hard link to a symbolic link": tar(member("l", LINK, "f"), member("h", HARD, "l")),
    "hard link to itself": tar(member("h", HARD, "h")),
    "character device": tar(member("d", tarfile.CHRTYPE, devmajor=1, devminor=3)),
    "block device": tar(member("d", tarfile.BLKTYPE, devmajor=7)),
    "FIFO": tar(member("f", tarfile.FIFOTYPE)),
    "file twice": tar(member("a", data=b"1"), member("a", data=b"2")),
    "file twice under two names": tar(member("a", data=b"1"), member("./a", data=b"2")),
    "file, then link": tar(member("a", data=b"1"), member("a", LINK, "b")),
    "link, then file": tar(member("a", LINK, "b"), member("a", data=b"1")),
    "link, then folder": tar(member("a", LINK, "b"), member("a", FOLDER)),
    "folder, then link": tar(member("a", FOLDER), member("a", LINK, "b")),
    "file, then a file in it": tar(member("a", data=b"1"), member("a/b", data=b"2")),
    "another archive's file": tar(member("before", data=b"x")),
    "another archive's link": tar(member("before_link/x", data=b"x")),
    "the folder itself": tar(member("./", data=b"x")),
    "sparse file": patched(tar(member("s"), form=tarfile.GNU_FORMAT), 156, b"S"),
    "sparse file of 8 GiB": patched(
        patched(tar(member("s"), form=tarfile.GNU_FORMAT), 483, b"77777777777\0"), 156, b"S"
    ),
    "sparse file by a pax header": tar(
        member("s", data=b"x", pax_headers={"GNU.sparse.major": "0", "GNU.sparse.map": "0,1", "GNU.sparse.size": "99"})
    ),
    "negative size": patched(_PLAIN, _SIZE, b"\xff" * 11 + b"\x00"),
    "negative size in an extended header": tar(member("a", data=b"x", pax_headers={"size": "-1024"})),
    "huge size": patched(_PLAIN, _SIZE, b"\x80\x00\x00\x00\x10" + b"\0" * 7),
    "size beyond the end": patched(_PLAIN, _SIZE, b"00000100000\0"),
    "long name of 64 MiB": long_name(64 << 20, b"n" * (64 << 20)) + _PLAIN,
    "2000 long names": long_name(2, b"n") * 2000 + _PLAIN,
    "deep path": tar(member("d/" * 3000 + "f", data=b"x")),
    "long path": tar(member("n" * 5000, data=b"x")),
    "name with NUL": tar(member("a", data=b"x", pax_headers={"path": "a\0b"})),
    "name with a newline": tar(member("a\nb", data=b"x")),
    "name with an escape sequence": tar(member("a\x1b[2Jb", data=b"x")),
    "name that is not UTF-8": tar(member("a\udcff", data=b"x"), form=tarfile.GNU_FORMAT),
    "link with NUL": tar(member("l", LINK, "x", pax_headers={"linkpath": "a\0b"})),
    "broken second header": _PLAIN[:1024] + b"\x01" * 512 + b"\0" * 1024,
    "truncated in a header": _PLAIN[:1024] + tar(member("b"))[:100],
    "no archive": b"hello" * 200,
    "empty": b"",
}

# What an unpacker takes: data.tar and the files that come of it.
HARMLESS: dict[str, tuple[bytes, dict[str, str]]] = {
    "links that stay inside": (
        tar(
            member("./usr/lib/f", data=b"1"),
            member("./usr/lib/absolute", LINK, "/usr/lib/f"),
            member("./usr/lib/up", LINK, "../lib/f"),
            member("./usr/lib/here", LINK, "./f"),
            member("./lib", LINK, "usr/lib"),
        ),
        {
            "usr/lib/f": "1",
            "usr/lib/absolute": "-> f",
            "usr/lib/up": "-> ../lib/f",
            "usr/lib/here": "-> ./f",
            "lib": "-> usr/lib",
        },
    ),
    "an absolute link with .., which stops at the root": (
        tar(member("a/l", LINK, "/../../f"), member("f", data=b"1")),
        {"a/l": "-> ../f", "f": "1"},
    ),
    "a hard link to a file of the same archive": (
        tar(member("d/f", data=b"1"), member("d/h", HARD, "./d/f")),
        {"d/f": "1", "d/h": "1"},
    ),
    "names of other alphabets": (tar(member("naïve/файл", data=b"1")), {"naïve/файл": "1"}),
    "a folder twice": (tar(member("d", FOLDER), member("./d/", FOLDER), member("d/f", data=b"1")), {"d/f": "1"}),
}


def zipped(*entries: tuple[str, bytes], mode: int = 0o100644) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return raw.getvalue()


_WHEEL = zipped(("a.py", b"content" * 9))


def _with_twice() -> bytes:
    return zipped(("a.py", b"1"), ("b.py", b"2")).replace(b"b.py", b"a.py")


# Wheels that no unpacker may take.
WHEELS: dict[str, bytes] = {
    "absolute name": zipped(("/tmp/absolute", b"x")),
    "name with ..": zipped((f"../{OUTSIDE}/new", b"x")),
    "symbolic link": zipped(("l", b"../outside"), mode=0o120777),
    "device": zipped(("d", b""), mode=0o020644),
    "file twice": _with_twice(),
    "file, then a file in it": zipped(("a", b"1"), ("a/b", b"2")),
    "name with a newline": zipped(("a\nb", b"x")),
    "through another archive's link": zipped(("before_link/x", b"x")),
    "damaged content": _WHEEL.replace(_WHEEL[34:40], b"\xff" * 6),
    "another checksum": _WHEEL[:14] + b"\0\0\0\0" + _WHEEL[18:].replace(_WHEEL[14:18], b"\0\0\0\0"),
    "encrypted": bytes(_WHEEL).replace(b"PK\1\2\x14\x03\x14\0\0\0", b"PK\1\2\x14\x03\x14\0\1\0"),
    "unknown compression": _WHEEL.replace(b"PK\1\2\x14\x03\x14\0\0\0\x08\0", b"PK\1\2\x14\x03\x14\0\0\0\x63\0"),
}


def _ar(name: bytes, size: bytes, data: bytes = b"") -> bytes:
    return b"!<arch>\n" + name.ljust(16) + b"0".ljust(32) + size.ljust(10) + b"`\n" + data


# Debian packages that no reader may take, without a hostile tar archive in them.
PACKAGES: dict[str, bytes] = {
    "no ar archive": b"<html>",
    "negative size in ar": _ar(b"data.tar", b"-60") * 2,
    "size with an underscore in ar": _ar(b"data.tar", b"1_0", b"x" * 10),
    "size beyond the end in ar": _ar(b"data.tar", b"9999999999"),
    "no size in ar": _ar(b"data.tar", b""),
    "name in ar that is no text": _ar(b"\xff\xfe", b"0"),
    "no data": deb({"control.tar": tar(member("control", data=CONTROL))}),
    "data twice": package(_PLAIN) + _ar(b"data.tar.xz", b"0")[8:],
    "data that is not xz": deb({"data.tar.xz": b"\xfd7zXZ\0" + b"x" * 100}),
    "data that is not gzip": deb({"data.tar.gz": b"\x1f\x8b\x08" + b"x" * 100}),
    "data that ends early": deb({"data.tar.xz": lzma.compress(tar(member("a", data=bytes(range(256)) * 64)))[:-60]}),
}
