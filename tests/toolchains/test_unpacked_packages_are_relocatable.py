"""Unpacked Debian packages are equal and work in any folder; conflicts between packages are errors."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from fetch.debian import unpack
from tests.private.deb import deb as debian_package

# The PATH of the wrappers' shell.
SHELL = {"PATH": "/usr/bin:/bin"}
LOADER = '#!/bin/sh\necho loader "$@"\n# --argv0\n'


def deb(path: Path, files: dict[str, str]) -> Path:
    """Writes a .deb with these files; content that starts with "->" makes a link."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo("./" + name)
            member.mode, member.mtime = 0o755, 1_000_000_000 + len(str(path))
            if content.startswith("->"):
                member.type, member.linkname = tarfile.SYMTYPE, content[2:]
                tar.addfile(member)
            else:
                member.size = len(content.encode())
                tar.addfile(member, io.BytesIO(content.encode()))
    path.write_bytes(debian_package({"data.tar.xz": data.getvalue()}))
    return path


class Packages:
    """Unpacks packages below a folder."""

    def __init__(self, folder: Path) -> None:
        self.scratch = folder

    def unpack(
        self, files: dict[str, str], *wrappers: str, more: dict[str, str] | None = None
    ) -> tuple[int, str, Path]:
        root = Path(tempfile.mkdtemp(dir=self.scratch))
        debs = [deb(self.scratch / "one_1_amd64.deb", files)] + (
            [deb(self.scratch / "two_1_amd64.deb", more)] if more else []
        )
        arguments = [f"--wrapper={wrapper}" for wrapper in wrappers]
        with contextlib.redirect_stderr(io.StringIO()) as said:
            status = unpack.main(["--root", str(root), *arguments, *map(str, debs)])
        return status, said.getvalue(), root


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    return Packages(tmp_path)


def test_absolute_links_become_relative_and_dangling_ones_are_dropped(packages: Packages) -> None:
    files = {"lib/libm.so.6": "m", "usr/lib/libm.so": "->/lib/libm.so.6", "usr/lib/gone.so": "->/lib/gone.so.1"}
    status, said, root = packages.unpack(files)
    assert (status, said) == (0, "")
    assert os.readlink(root / "usr/lib/libm.so") == "../../lib/libm.so.6"
    assert not os.path.lexists(root / "usr/lib/gone.so")


@pytest.mark.parametrize(
    "folder", ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/aarch64-linux-gnu/lib"]
)
def test_linker_scripts_name_no_folder(packages: Packages, folder: str) -> None:
    script = (
        "/* GNU ld script */\nGROUP ( /lib/x/libc.so.6 /usr/lib/x/libc_nonshared.a AS_NEEDED ( /lib64/ld.so.2 ) )\n"
    )
    status, said, root = packages.unpack({f"{folder}/libc.so": script})
    assert (status, said) == (0, "")
    text = (root / folder / "libc.so").read_text()
    assert text == "/* GNU ld script */\nGROUP ( libc.so.6 libc_nonshared.a AS_NEEDED ( ld.so.2 ) )\n"


@pytest.mark.parametrize(
    ("loader", "triplet"),
    [
        ("lib64/ld-linux-x86-64.so.2", "x86_64-linux-gnu"),
        ("usr/lib64/ld-linux-x86-64.so.2", "x86_64-linux-gnu"),
        ("lib/ld-linux-aarch64.so.1", "aarch64-linux-gnu"),
        ("usr/lib/ld-linux-aarch64.so.1", "aarch64-linux-gnu"),
    ],
)
def test_a_wrapper_knows_the_loader_of_each_processor(packages: Packages, loader: str, triplet: str) -> None:
    files = {loader: LOADER, f"usr/lib/{triplet}/libc.so.6": "", "usr/bin/tool": "the program"}
    status, said, root = packages.unpack(files, "usr/bin/tool=usr/bin/tool")
    assert (status, said) == (0, "")
    wrapper = (root / "usr/bin/tool").read_text()
    assert f'exec "$root/{loader}" --inhibit-cache --library-path "$root/usr/lib/{triplet}"' in wrapper


def test_a_wrapper_runs_the_program_with_the_folders_loader(packages: Packages) -> None:
    files = {unpack.LOADERS[0]: LOADER, "lib/x86_64-linux-gnu/libc.so.6": "", "usr/bin/tool": "the program"}
    status, said, root = packages.unpack(files, "usr/bin/tool=usr/bin/tool --sysroot={root}")
    assert (status, said) == (0, "")
    assert (root / "usr/bin/tool.unwrapped").read_text() == "the program"
    shown = subprocess.run(
        ["usr/bin/tool", "a b"], cwd=root, env=SHELL, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    assert str(root) not in shown
    moved = packages.scratch / "moved"
    root.rename(moved)
    shown = subprocess.run(
        [moved / "usr/bin/tool", "a b"], env=SHELL, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    expected = f"loader --inhibit-cache --library-path {moved}/lib/x86_64-linux-gnu --argv0 {moved}/usr/bin/tool "
    assert shown.strip() == f"{expected}{moved}/usr/bin/tool.unwrapped --sysroot={moved} a b"


def test_a_wrapper_sets_variables_for_the_program(packages: Packages) -> None:
    # `bwrap --chdir` on a remote worker sets PWD, whatever the action's environment says.
    environment = {"PWD": "/", **SHELL}
    loader = '#!/bin/sh\necho "$PWD"\n'
    files = {unpack.LOADERS[0]: loader, "usr/bin/tool": "the program"}
    status, said, root = packages.unpack(files, "usr/bin/tool=PWD=/proc/self/cwd usr/bin/tool")
    assert (status, said) == (0, "")
    shown = subprocess.run(
        ["usr/bin/tool"], cwd=root, stdout=subprocess.PIPE, text=True, check=True, env=environment
    ).stdout
    assert shown.strip() == "/proc/self/cwd"


def test_two_packages_with_one_file_are_an_error(packages: Packages) -> None:
    status, said, _ = packages.unpack({"usr/lib/a": "1"}, more={"usr/lib/a": "2"})
    assert status == 1
    assert "two_1_amd64.deb: refused './usr/lib/a'" in said


def test_a_wrapper_for_a_missing_program_is_an_error(packages: Packages) -> None:
    status, said, _ = packages.unpack({unpack.LOADERS[0]: LOADER}, "usr/bin/x=usr/bin/tool")
    assert status == 1
    assert "usr/bin/tool" in said
