"""What the layer tool promises: deterministic layers, a merged /usr, packages on record, no silent overwriting."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import unittest

from oci import layer
from oci.private import make_layer, select_files
from tests.images import debs


class MakeLayerTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def deb(self, name: str, *members: tarfile.TarInfo, contents: dict[str, bytes], mtime: int = 0) -> str:
        return str(debs.write_deb(self.folder / f"{name}.deb", name, list(members), contents, mtime))

    def layer(self, **spec) -> dict[str, tarfile.TarInfo]:
        self.output = self.folder / "layer.tar.gz"
        make_layer.make_layer(spec).write(self.output)
        with tarfile.open(self.output) as tar:
            self.members = tar.getmembers()
            self.data = {member.name: tar.extractfile(member).read() for member in self.members if member.isreg()}
        return {member.name: member for member in self.members}

    def test_paths_are_on_the_merged_usr(self):
        package = self.deb(
            "shell",
            debs.directory("./bin"),
            debs.symlink("./bin/rsh", "sh"),
            debs.hard_link("./sbin/hard", "./bin/sh"),
            debs.symlink("./lib64/ld.so", "/lib/x/ld.so"),
            contents={"./bin/sh": b"sh", "./lib/x/ld.so": b"ld", "./etc/bin/lib": b"not moved"},
        )
        found = self.layer(packages=[package], symlinks={"bin": "usr/bin"})
        self.assertEqual(self.data["usr/bin/sh"], b"sh")
        self.assertEqual(self.data["usr/lib/x/ld.so"], b"ld")
        self.assertIn("etc/bin/lib", found)
        self.assertEqual(found["usr/bin/rsh"].linkname, "sh")
        self.assertEqual(found["usr/lib64/ld.so"].linkname, "/lib/x/ld.so")
        self.assertEqual(found["usr/sbin/hard"].linkname, "usr/bin/sh")
        self.assertTrue(found["bin"].issym())
        self.assertNotIn("sbin", found)

    def test_a_hard_link_follows_its_file(self):
        self.layer(packages=[self.deb("p", debs.hard_link("./usr/bin/a", "./usr/bin/z"), contents={"./usr/bin/z": b"z"})])
        names = [member.name for member in self.members]
        self.assertGreater(names.index("usr/bin/a"), names.index("usr/bin/z"))

    def test_different_content_at_one_path_names_path_and_both_packages(self):
        packages = [self.deb(name, contents={"./etc/same": b"same", "./etc/x": name.encode()}) for name in ("one", "two")]
        with self.assertRaisesRegex(layer.LayerError, "/etc/x comes from package one and, different, from package two"):
            self.layer(packages=packages)
        self.layer(packages=packages, exclude=["etc/x"])
        self.assertEqual(self.data["etc/same"], b"same")

    def test_the_two_halves_of_a_merged_usr_may_not_differ_either(self):
        packages = [self.deb("one", contents={"./bin/x": b"1"}), self.deb("two", contents={"./usr/bin/x": b"2"})]
        with self.assertRaisesRegex(layer.LayerError, "/usr/bin/x .*package one.*package two"):
            self.layer(packages=packages)

    def test_owners_and_modes_are_the_packages_but_no_set_id_bit_survives(self):
        package = self.deb(
            "p",
            debs.file_facts("./usr/bin/su", 0o4755),
            debs.file_facts("./usr/bin/wall", 0o2755, gid=5),
            debs.directory("./tmp", 0o1777),
            debs.directory("./var/local", 0o2775),
            contents={},
        )
        found = self.layer(packages=[package])
        facts = {path: (oct(found[path].mode), found[path].gid) for path in ("usr/bin/su", "usr/bin/wall", "tmp", "var/local")}
        self.assertEqual(facts, {"usr/bin/su": ("0o755", 0), "usr/bin/wall": ("0o755", 5), "tmp": ("0o1777", 0), "var/local": ("0o775", 0)})

    def test_copyright_files_stay_and_other_documentation_goes(self):
        package = self.deb(
            "p",
            debs.symlink("./usr/share/doc/libp", "p"),
            debs.symlink("./usr/share/doc/p/changes", "changelog"),
            contents={
                "./usr/share/doc/p/copyright": b"(c)",
                "./usr/share/doc/p/changelog": b"",
                "./usr/share/doc/p/examples/copyright": b"",
                "./usr/share/man/man1/p.1": b"",
                "./usr/share/locale/de/p.mo": b"",
                "./usr/share/documents/x": b"kept",
            },
        )
        found = self.layer(packages=[package])
        self.assertEqual(
            sorted(path for path in found if path.startswith("usr/share") and not found[path].isdir()),
            ["usr/share/doc/libp", "usr/share/doc/p/copyright", "usr/share/documents/x"],
        )

    def test_each_package_is_on_record_with_its_files(self):
        self.layer(packages=[self.deb("p", contents={"./etc/p": b"p", "./usr/share/man/p": b"gone"})])
        self.assertEqual(
            self.data["var/lib/dpkg/status.d/p"].decode(),
            "Package: p\nStatus: install ok installed\nVersion: 1.0\nArchitecture: all\nDescription: a package\n of the test\n",
        )
        self.assertEqual(self.data["var/lib/dpkg/status.d/p.md5sums"].decode(), f"{hashlib.md5(b'p').hexdigest()}  etc/p\n")

    def test_what_scripts_would_make_is_stated(self):
        package = self.deb("p", debs.symlink("./usr/share/t", "t1"), contents={"./usr/share/t1": b"template", "./certs/b": b"B\n", "./certs/a": b"A\n"})
        found = self.layer(
            packages=[package],
            copies={"etc/t": "usr/share/t"},
            concatenations={"etc/bundle": "certs/*"},
            directories={"workspace": "0700 1000 1001"},
            symlinks={"usr/bin/awk": "mawk"},
        )
        self.assertEqual(self.data["etc/t"], b"template")
        self.assertEqual(self.data["etc/bundle"], b"A\nB\n")
        workspace = found["workspace"]
        self.assertEqual((workspace.isdir(), workspace.mode, workspace.uid, workspace.gid), (True, 0o700, 1000, 1001))
        self.assertEqual(found["usr/bin/awk"].linkname, "mawk")

    def test_what_is_stated_must_be_there(self):
        for spec, message in (
            ({"copies": {"etc/t": "usr/share/t"}}, "/usr/share/t: expected a regular file"),
            ({"concatenations": {"etc/bundle": "certs/*"}}, "/etc/bundle: expected files that match 'certs/\\*'"),
            ({"package": []}, "keys that nobody reads: package"),
            ({"symlinks": {"/etc/x": "y"}}, "'/etc/x' is not a clean path"),
            ({"symlinks": {"a/../../x": "y"}}, "not a clean path"),
            ({"symlinks": {"etc": "y", "etc/x": "y"}}, "/etc/x: /etc, .* is not a directory"),
        ):
            with self.subTest(spec), self.assertRaisesRegex(layer.LayerError, message):
                self.layer(**spec)

    def test_trees_take_modes_that_do_not_depend_on_the_build(self):
        tree = self.folder / "tree"
        (tree / "sub").mkdir(parents=True)
        (tree / "sub/a.py").write_bytes(b"a")
        (tree / "sub/a.py").chmod(0o555)
        (tree / "b").symlink_to(tree / "sub/a.py")
        found = self.layer(trees=[[str(tree), "opt/x"]])
        self.assertEqual({path for path in found if not found[path].isdir()}, {"opt/x/sub/a.py", "opt/x/b"})
        self.assertEqual((found["opt/x/b"].isreg(), oct(found["opt/x/sub/a.py"].mode)), (True, "0o644"))

    def test_files_are_selected_by_globs_and_copied(self):
        tree = self.folder / "tree"
        for path in ("bin/tool", "lib/deep/a.so", "lib/b.py"):
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(path)
        (tree / "link").symlink_to(tree / "lib")
        for number, (globs, expected) in enumerate((
            ({}, {"bin/tool", "lib/deep/a.so", "lib/b.py", "link/deep/a.so", "link/b.py"}),
            ({"exclude": ["bin/*", "link/*"]}, {"lib/deep/a.so", "lib/b.py"}),
            ({"include": ["*.so"], "exclude": ["link/*"]}, {"lib/deep/a.so"}),
            ({"include": ["nothing"]}, set()),
        )):
            with self.subTest(globs):
                to = self.folder / f"selected{number}"
                select_files.select(tree, to, **globs)
                found = {file.relative_to(to).as_posix(): file.read_text() for file in to.rglob("*") if file.is_file()}
                self.assertEqual(found, {path: path.replace("link/", "lib/") for path in expected})

    def test_console_scripts_run_what_the_distributions_name(self):
        site = self.folder / "site"
        (site / "tool-1.0.dist-info").mkdir(parents=True)
        (site / "tool.py").write_text("class Main:\n    @staticmethod\n    def run():\n        print('ran')\n        return 3\n")
        (site / "tool-1.0.dist-info/entry_points.txt").write_text("[console_scripts]\nTool = tool:Main.run [extra]\n\n[other]\nx = y:z\n")
        found = self.layer(trees=[[str(site), "site"]], console_scripts="usr/local/bin")
        self.assertEqual({path for path in found if path.startswith("usr/local/bin/")}, {"usr/local/bin/Tool"})
        self.assertEqual(found["usr/local/bin/Tool"].mode, 0o755)
        self.assertTrue(self.data["usr/local/bin/Tool"].startswith(b"#!/usr/bin/python3\n"))
        ran = subprocess.run(
            [sys.executable, "-c", self.data["usr/local/bin/Tool"]], env={"PYTHONPATH": str(site)}, capture_output=True, text=True, check=False
        )
        self.assertEqual((ran.returncode, ran.stdout), (3, "ran\n"), ran.stderr)

    def test_same_content_gives_the_same_bytes(self):
        def build(folder: pathlib.Path, umask: int, environment: dict[str, str], mtime: int, reverse: bool) -> bytes:
            os.umask(umask)
            names = ["b.txt", "a.txt", "sub/c.txt"]
            for name in reversed(names) if reverse else names:
                path = folder / "tree" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(name)
                os.utime(path, (mtime, mtime))
            package = debs.write_deb(folder / "p.deb", "p", [debs.directory("./etc")], {"./etc/p": b"p" * 100_000}, mtime)
            spec = folder / "spec.json"
            spec.write_text(json.dumps({"packages": [str(package)], "trees": [[str(folder / "tree"), "opt"]], "symlinks": {"x": "opt"}}))
            output = folder / "layer.tar.gz"
            command = [sys.executable, make_layer.__file__, "--spec", spec, "--output", output]
            subprocess.run(command, check=True, env={"PYTHONPATH": os.pathsep.join(sys.path), **environment})
            return output.read_bytes()

        before = os.umask(0o022)
        self.addCleanup(os.umask, before)
        (self.folder / "one").mkdir()
        (self.folder / "another-name").mkdir()
        one = build(self.folder / "one", 0o022, {"TZ": "UTC", "PYTHONHASHSEED": "1"}, 1, False)
        two = build(self.folder / "another-name", 0o077, {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2", "LANG": "C"}, 2**31, True)
        self.assertEqual(hashlib.sha256(one).hexdigest(), hashlib.sha256(two).hexdigest())
        self.assertEqual(one[3:8], b"\0" * 5, "gzip header: no name, no time")
        self.assertIn(b"opt/sub/c.txt", gzip.decompress(one))

    def test_entries_are_sorted_and_carry_one_time_and_no_names(self):
        self.layer(packages=[self.deb("p", mtime=5, contents={"./z": b"", "./a/b": b""})], symlinks={"m": "a"})
        names = [member.name for member in self.members]
        self.assertEqual(names, sorted(names))
        self.assertEqual({(member.mtime, member.uname, member.gname) for member in self.members}, {(layer.SOURCE_DATE_EPOCH, "", "")})


if __name__ == "__main__":
    unittest.main()
