"""Unpacked Debian packages are the same in every folder, work from there, and clashes are errors that name the package."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
import tempfile
import unittest
from pathlib import Path

from fetch.debian import unpack

LOADER = "#!/bin/sh\necho loader \"$@\"\n# --argv0\n"


def deb(path: Path, files: dict[str, str]) -> Path:
    """Writes a .deb with these files; content that begins with "->" makes a link."""
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
    with open(path, "wb") as archive:
        archive.write(b"!<arch>\n")
        for name, content in (("debian-binary", b"2.0\n"), ("data.tar.xz", data.getvalue())):
            archive.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2))
    return path


class Unpacked(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR"))
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)

    def unpack(self, files: dict[str, str], *wrappers: str, more: dict[str, str] | None = None) -> tuple[int, str, Path]:
        root = Path(tempfile.mkdtemp(dir=self.scratch))
        debs = [deb(self.scratch / "one_1_amd64.deb", files)] + ([deb(self.scratch / "two_1_amd64.deb", more)] if more else [])
        arguments = [f"--wrapper={wrapper}" for wrapper in wrappers]
        with contextlib.redirect_stderr(io.StringIO()) as said:
            status = unpack.main(["--root", str(root), *arguments, *map(str, debs)])
        return status, said.getvalue(), root

    def test_absolute_links_become_relative_and_dangling_ones_go(self):
        files = {"lib/libm.so.6": "m", "usr/lib/libm.so": "->/lib/libm.so.6", "usr/lib/gone.so": "->/lib/gone.so.1"}
        status, said, root = self.unpack(files)
        self.assertEqual((status, said), (0, ""))
        self.assertEqual(os.readlink(root / "usr/lib/libm.so"), "../../lib/libm.so.6")
        self.assertFalse(os.path.lexists(root / "usr/lib/gone.so"))

    def test_linker_scripts_name_no_folder(self):
        script = "/* GNU ld script */\nGROUP ( /lib/x/libc.so.6 /usr/lib/x/libc_nonshared.a AS_NEEDED ( /lib64/ld.so.2 ) )\n"
        status, said, root = self.unpack({"usr/lib/x86_64-linux-gnu/libc.so": script})
        self.assertEqual((status, said), (0, ""))
        text = (root / "usr/lib/x86_64-linux-gnu/libc.so").read_text()
        self.assertEqual(text, "/* GNU ld script */\nGROUP ( libc.so.6 libc_nonshared.a AS_NEEDED ( ld.so.2 ) )\n")

    def test_a_wrapper_runs_the_program_with_the_folders_loader(self):
        files = {unpack.LOADERS[0]: LOADER, "lib/x86_64-linux-gnu/libc.so.6": "", "usr/bin/tool": "the program"}
        status, said, root = self.unpack(files, "usr/bin/tool=usr/bin/tool --sysroot={root}")
        self.assertEqual((status, said), (0, ""))
        self.assertEqual((root / "usr/bin/tool.unwrapped").read_text(), "the program")
        shown = subprocess.run(["usr/bin/tool", "a b"], cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout
        self.assertNotIn(str(root), shown)
        moved = self.scratch / "moved"
        root.rename(moved)
        shown = subprocess.run([moved / "usr/bin/tool", "a b"], stdout=subprocess.PIPE, text=True, check=True).stdout
        expected = f"loader --inhibit-cache --library-path {moved}/lib/x86_64-linux-gnu --argv0 {moved}/usr/bin/tool "
        self.assertEqual(shown.strip(), f"{expected}{moved}/usr/bin/tool.unwrapped --sysroot={moved} a b")

    def test_a_wrapper_sets_what_the_program_is_to_see(self):
        # As `bwrap --chdir` does on a remote worker, whatever the action's environment says.
        environment = {"PWD": "/", "PATH": os.environ.get("PATH", "/usr/bin:/bin")}
        loader = '#!/bin/sh\necho "$PWD"\n'
        files = {unpack.LOADERS[0]: loader, "usr/bin/tool": "the program"}
        status, said, root = self.unpack(files, "usr/bin/tool=PWD=/proc/self/cwd usr/bin/tool")
        self.assertEqual((status, said), (0, ""))
        shown = subprocess.run(["usr/bin/tool"], cwd=root, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
        self.assertEqual(shown.strip(), "/proc/self/cwd")

    def test_two_packages_with_one_file_are_an_error(self):
        status, said, _ = self.unpack({"usr/lib/a": "1"}, more={"usr/lib/a": "2"})
        self.assertEqual(status, 1)
        self.assertIn("two_1_amd64.deb: usr/lib/a", said)

    def test_a_wrapper_for_a_program_that_is_not_there_is_an_error(self):
        status, said, _ = self.unpack({unpack.LOADERS[0]: LOADER}, "usr/bin/x=usr/bin/tool")
        self.assertEqual(status, 1)
        self.assertIn("usr/bin/tool", said)


if __name__ == "__main__":
    unittest.main()
