"""The licence text has every licence once, with the names of all parts under it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.private.deb import deb as debian_package
from wheels.private import collect_licenses

MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software: " + "words " * 20
BSD = "Redistribution and use in source and binary forms, with or without modification, are permitted: " + "words " * 20


def crate(folder: Path, name: str, files: dict[str, str]) -> Path:
    path = folder / f"{name}.crate"
    with tarfile.open(path, "w:gz") as tar:
        for place, text in files.items():
            entry = tarfile.TarInfo(f"{name}/{place}")
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return path


def deb(folder: Path, name: str, files: dict[str, str]) -> Path:
    """A Debian package of these files; text that starts with "->" makes a link."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for place, text in files.items():
            entry = tarfile.TarInfo(place)
            if text.startswith("->"):
                entry.type, entry.linkname = tarfile.SYMTYPE, text[2:]
            entry.size = 0 if entry.issym() else len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    path = folder / f"{name}_1_all.deb"
    path.write_bytes(debian_package({"data.tar.gz": packed.getvalue()}))
    return path


def test_takes_the_copyright_file_of_a_debian_package(tmp_path: Path) -> None:
    files = {"./usr/bin/one": "x", "./usr/share/doc/one/copyright": MIT}
    assert collect_licenses.of_file(deb(tmp_path, "one", files)) == MIT
    with pytest.raises(
        ValueError, match="expected /usr/share/doc/two/copyright in it, found a link to that of one: take"
    ):
        collect_licenses.of_file(deb(tmp_path, "two", {"./usr/share/doc/two": "->one"}))


def test_takes_only_the_licence_files_of_a_crate(tmp_path: Path) -> None:
    files = {
        "LICENSE-MIT": MIT,
        "bundled/COPYING": BSD,
        "README.md": MIT + "readme",
        "src/license.rs": BSD + "code",
        "LICENSE-LINK": "../LICENSE",
    }
    assert collect_licenses.of_crate(crate(tmp_path, "one-1.0.0", files)) == [MIT, BSD]


@pytest.mark.parametrize("name", ["LICENSE", "LICENCE.md", "license-apache", "UNLICENSE", "COPYRIGHT", "NOTICE.txt"])
def test_recognizes_the_names_of_licence_files(tmp_path: Path, name: str) -> None:
    assert collect_licenses.of_crate(crate(tmp_path, "one-1.0.0", {name: MIT})) == [MIT]


def test_a_shared_licence_appears_once_after_the_names_of_its_parts() -> None:
    text = collect_licenses.collect([("one", [MIT]), ("two", [BSD]), ("three", [MIT.replace("words ", "words\r\n  ")])])
    assert text.count("Permission is hereby granted") == text.count("Redistribution and use") == 1
    assert "\none, three\n" in text and "\ntwo\n" in text
    assert text.index("one, three") < text.index("Permission") < text.index("\ntwo\n") < text.index("Redistribution")


def test_takes_the_first_comment_of_a_header(tmp_path: Path) -> None:
    header = tmp_path / "a.h"
    header.write_text(f"/*\n * {MIT}\n */\n#pragma once\n/* another */\n")
    assert collect_licenses.of_file(header).split() == MIT.split()
    header.write_text("#pragma once\n")
    with pytest.raises(ValueError, match=r"a\.h: expected a comment with the licence at its beginning, found none"):
        collect_licenses.of_file(header)


def test_the_program_writes_the_text_or_fails_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text(BSD)
    crate(tmp_path, "one-1.0.0", {"LICENSE": MIT})
    command = [
        sys.executable,
        collect_licenses.__file__,
        "--part",
        "a part=LICENSE",
        "--output",
        "out.txt",
        "one-1.0.0.crate",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "out.txt").read_text()
    assert "\na part\n" in text and "\none-1.0.0\n" in text
    (tmp_path / "one-1.0.0.crate").write_bytes(b"no archive")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("collect_licenses: ") and done.stderr.count("\n") == 1
