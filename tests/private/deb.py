"""Writes Debian packages for tests."""

from __future__ import annotations


def deb(members: dict[str, bytes], mtime: int = 0) -> bytes:
    """A package (deb(5)): an ar archive, member name → content. Most readers need only data.tar.*."""
    archive = b"!<arch>\n"
    for name, content in {"debian-binary": b"2.0\n", **members}.items():
        header = f"{name:<16}{mtime:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n"
        archive += header.encode() + content + b"\n" * (len(content) % 2)
    return archive
