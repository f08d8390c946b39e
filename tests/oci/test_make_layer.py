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
from collections.abc import Iterator
from typing import Any

import pytest

from oci import layer
from oci.layout import content
from oci.private import make_layer
from tests.oci import debs


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Maker:
    """Makes packages, and layers from them: `members` and `data` are the last layer's."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def deb(self, name: str, *members: tarfile.TarInfo, contents: dict[str, bytes], mtime: int = 0) -> str:
        return str(debs.write_deb(self.folder / f"{name}.deb", name, list(members), contents, mtime))

    def layer(self, **spec: Any) -> dict[str, tarfile.TarInfo]:
        self.output = self.folder / "layer.tar.gz"
        make_layer.make_layer(spec).write(self.output)
        with tarfile.open(self.output) as tar:
            self.members = tar.getmembers()
            self.data = {member.name: content(tar, member) for member in self.members if member.isreg()}
        return {member.name: member for member in self.members}


@pytest.fixture
def maker(tmp_path: pathlib.Path) -> Maker:
    return Maker(tmp_path)


def test_paths_are_on_the_merged_usr(maker: Maker) -> None:
    package = maker.deb(
        "shell",
        debs.directory("./bin"),
        debs.symlink("./bin/rsh", "sh"),
        debs.hard_link("./sbin/hard", "./bin/sh"),
        debs.symlink("./lib64/ld.so", "/lib/x/ld.so"),
        contents={"./bin/sh": b"sh", "./lib/x/ld.so": b"ld", "./etc/bin/lib": b"not moved"},
    )
    found = maker.layer(packages=[package], symlinks={"bin": "usr/bin"})
    assert maker.data["usr/bin/sh"] == b"sh"
    assert maker.data["usr/lib/x/ld.so"] == b"ld"
    assert "etc/bin/lib" in found
    assert found["usr/bin/rsh"].linkname == "sh"
    assert found["usr/lib64/ld.so"].linkname == "/lib/x/ld.so"
    assert found["usr/sbin/hard"].linkname == "usr/bin/sh"
    assert found["bin"].issym()
    assert "sbin" not in found


def test_an_archive_that_is_not_compressed_has_the_same_bytes(tmp_path: pathlib.Path) -> None:
    made = make_layer.make_layer({"directories": {"workspace": "0775 1000 0"}, "symlinks": {"bin": "usr/bin"}})
    made.write(tmp_path / "layer.tar.gz")
    written = made.write(tmp_path / "layer.tar")
    plain = (tmp_path / "layer.tar").read_bytes()
    assert plain == gzip.decompress((tmp_path / "layer.tar.gz").read_bytes())
    descriptor = {"mediaType": layer.TAR, "digest": digest(plain), "size": len(plain)}
    assert written == layer.Written(descriptor, digest(plain))


def test_a_hard_link_follows_its_file(maker: Maker) -> None:
    maker.layer(packages=[maker.deb("p", debs.hard_link("./usr/bin/a", "./usr/bin/z"), contents={"./usr/bin/z": b"z"})])
    names = [member.name for member in maker.members]
    assert names.index("usr/bin/a") > names.index("usr/bin/z")


def test_different_content_at_one_path_names_path_and_both_packages(maker: Maker) -> None:
    packages = [maker.deb(name, contents={"./etc/same": b"same", "./etc/x": name.encode()}) for name in ("one", "two")]
    with pytest.raises(layer.LayerError, match="/etc/x comes from package one and, different, from package two"):
        maker.layer(packages=packages)
    maker.layer(packages=packages, exclude=["etc/x"])
    assert maker.data["etc/same"] == b"same"


def test_the_two_halves_of_a_merged_usr_may_not_differ_either(maker: Maker) -> None:
    packages = [maker.deb("one", contents={"./bin/x": b"1"}), maker.deb("two", contents={"./usr/bin/x": b"2"})]
    with pytest.raises(layer.LayerError, match="/usr/bin/x .*package one.*package two"):
        maker.layer(packages=packages)


def test_owners_and_modes_are_the_packages_but_no_set_id_bit_survives(maker: Maker) -> None:
    package = maker.deb(
        "p",
        debs.file_facts("./usr/bin/su", 0o4755),
        debs.file_facts("./usr/bin/wall", 0o2755, gid=5),
        debs.directory("./tmp", 0o1777),
        debs.directory("./var/local", 0o2775),
        contents={},
    )
    found = maker.layer(packages=[package])
    facts = {
        path: (oct(found[path].mode), found[path].gid) for path in ("usr/bin/su", "usr/bin/wall", "tmp", "var/local")
    }
    assert facts == {
        "usr/bin/su": ("0o755", 0),
        "usr/bin/wall": ("0o755", 5),
        "tmp": ("0o1777", 0),
        "var/local": ("0o775", 0),
    }


def test_copyright_files_stay_and_other_documentation_goes(maker: Maker) -> None:
    package = maker.deb(
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
    found = maker.layer(packages=[package])
    assert sorted(path for path in found if path.startswith("usr/share") and not found[path].isdir()) == [
        "usr/share/doc/libp",
        "usr/share/doc/p/copyright",
        "usr/share/documents/x",
    ]


def test_each_package_is_on_record_with_its_files(maker: Maker) -> None:
    maker.layer(packages=[maker.deb("p", contents={"./etc/p": b"p", "./usr/share/man/p": b"gone"})])
    assert (
        maker.data["var/lib/dpkg/status.d/p"].decode()
        == "Package: p\nStatus: install ok installed\nVersion: 1.0\nArchitecture: all\nDescription: a package\n of the"
        " test\n"
    )
    assert maker.data["var/lib/dpkg/status.d/p.md5sums"].decode() == f"{hashlib.md5(b'p').hexdigest()}  etc/p\n"


def test_what_scripts_would_make_is_stated(maker: Maker) -> None:
    package = maker.deb(
        "p",
        debs.symlink("./usr/share/t", "t1"),
        contents={"./usr/share/t1": b"template", "./certs/b": b"B\n", "./certs/a": b"A\n"},
    )
    found = maker.layer(
        packages=[package],
        copies={"etc/t": "usr/share/t"},
        concatenations={"etc/bundle": "certs/*"},
        directories={"workspace": "0700 1000 1001"},
        symlinks={"usr/bin/awk": "mawk"},
    )
    assert maker.data["etc/t"] == b"template"
    assert maker.data["etc/bundle"] == b"A\nB\n"
    workspace = found["workspace"]
    assert (workspace.isdir(), workspace.mode, workspace.uid, workspace.gid) == (True, 0o700, 1000, 1001)
    assert found["usr/bin/awk"].linkname == "mawk"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"copies": {"etc/t": "usr/share/t"}}, "/usr/share/t: expected a regular file"),
        ({"concatenations": {"etc/bundle": "certs/*"}}, "/etc/bundle: expected files that match 'certs/\\*'"),
        ({"package": []}, "keys that nobody reads: package"),
        ({"symlinks": {"/etc/x": "y"}}, "'/etc/x' is not a clean path"),
        ({"symlinks": {"a/../../x": "y"}}, "not a clean path"),
        ({"symlinks": {"etc": "y", "etc/x": "y"}}, "/etc/x: /etc, .* is not a directory"),
    ],
)
def test_what_is_stated_must_be_there(maker: Maker, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(layer.LayerError, match=message):
        maker.layer(**spec)


def test_trees_take_modes_that_do_not_depend_on_the_build(maker: Maker) -> None:
    tree = maker.folder / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/a.py").write_bytes(b"a")
    (tree / "sub/a.py").chmod(0o555)
    (tree / "b").symlink_to(tree / "sub/a.py")
    found = maker.layer(trees=[[str(tree), "opt/x"]])
    assert {path for path in found if not found[path].isdir()} == {"opt/x/sub/a.py", "opt/x/b"}
    assert (found["opt/x/b"].isreg(), oct(found["opt/x/sub/a.py"].mode)) == (True, "0o644")


def test_bytecode_is_what_an_import_would_write(maker: Maker, tmp_path: pathlib.Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "module.py").write_text('"""Doc."""\nNAMES = {"b", "a"} if "\\d" else None\n')
    (site / "template.py").write_text("{{ no module }} else\n")
    (site / "data.txt").write_text("x")
    links = {"usr/site/linked.py": "module.py", "usr/site/away.py": "/etc/away.py"}
    found = maker.layer(trees=[[str(site), "usr/site"]], symlinks=links, bytecode=True)
    folder, suffix = "usr/site/__pycache__", f"{sys.implementation.cache_tag}.pyc"
    cached = f"{folder}/module.{suffix}"
    assert {path for path in found if "__pycache__" in path} == {folder, cached, f"{folder}/linked.{suffix}"}
    unpacked = tmp_path / "unpacked"
    with tarfile.open(maker.output) as tar:
        tar.extractall(unpacked)
    program = "import module; print(module.__cached__, module.NAMES == {'a', 'b'}, module.__doc__)"
    environment = {"PYTHONPATH": str(unpacked / "usr/site"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-v", "-c", program]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == f"{unpacked / cached} True Doc.\n"
    assert f"matches {unpacked / 'usr/site/module.py'}" in ran.stderr


def test_console_scripts_run_what_the_distributions_name(maker: Maker) -> None:
    site = maker.folder / "site"
    (site / "tool-1.0.dist-info").mkdir(parents=True)
    (site / "tool.py").write_text(
        "class Main:\n    @staticmethod\n    def run():\n        print('ran')\n        return 3\n"
    )
    (site / "tool-1.0.dist-info/entry_points.txt").write_text(
        "[console_scripts]\nTool = tool:Main.run [extra]\n\n[other]\nx = y:z\n"
    )
    found = maker.layer(trees=[[str(site), "site"]], console_scripts="usr/local/bin")
    assert {path for path in found if path.startswith("usr/local/bin/")} == {"usr/local/bin/Tool"}
    assert found["usr/local/bin/Tool"].mode == 0o755
    assert maker.data["usr/local/bin/Tool"].startswith(b"#!/usr/bin/python3\n")
    ran = subprocess.run(
        [sys.executable, "-c", maker.data["usr/local/bin/Tool"]],
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (3, "ran\n"), ran.stderr


@pytest.fixture
def umask() -> Iterator[None]:
    """A known umask, which the test may change."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_same_content_gives_the_same_bytes(tmp_path: pathlib.Path, umask: None) -> None:
    def build(folder: pathlib.Path, mask: int, environment: dict[str, str], mtime: int, reverse: bool) -> bytes:
        os.umask(mask)
        names = ["b.txt", "a.txt", "sub/c.txt"]
        for name in reversed(names) if reverse else names:
            path = folder / "tree" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
            os.utime(path, (mtime, mtime))
        package = debs.write_deb(folder / "p.deb", "p", [debs.directory("./etc")], {"./etc/p": b"p" * 100_000}, mtime)
        spec = folder / "spec.json"
        spec.write_text(
            json.dumps({"packages": [str(package)], "trees": [[str(folder / "tree"), "opt"]], "symlinks": {"x": "opt"}})
        )
        output, written = folder / "layer.tar.gz", folder / "written.json"
        command = [sys.executable, make_layer.__file__, "--spec", str(spec), "--output", str(output)]
        command += ["--label", "//x:y", "--written", str(written)]
        subprocess.run(command, check=True, env={"PYTHONPATH": os.pathsep.join(sys.path), **environment})
        content = output.read_bytes()
        assert json.loads(written.read_text()) == {
            "descriptor": {
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": digest(content),
                "size": len(content),
            },
            "diff_id": digest(gzip.decompress(content)),
            "history": {"created": "1970-01-01T00:00:00Z", "created_by": "bazel build //x:y"},
        }
        return content

    (tmp_path / "one").mkdir()
    (tmp_path / "another-name").mkdir()
    one = build(tmp_path / "one", 0o022, {"TZ": "UTC", "PYTHONHASHSEED": "1"}, 1, False)
    two = build(tmp_path / "another-name", 0o077, {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2", "LANG": "C"}, 2**31, True)
    assert hashlib.sha256(one).hexdigest() == hashlib.sha256(two).hexdigest()
    assert one[3:8] == b"\0" * 5, "gzip header: no name, no time"
    assert b"opt/sub/c.txt" in gzip.decompress(one)


def test_entries_are_sorted_and_carry_one_time_and_no_names(maker: Maker) -> None:
    maker.layer(packages=[maker.deb("p", mtime=5, contents={"./z": b"", "./a/b": b""})], symlinks={"m": "a"})
    names = [member.name for member in maker.members]
    assert names == sorted(names)
    assert {(member.mtime, member.uname, member.gname) for member in maker.members} == {
        (layer.SOURCE_DATE_EPOCH, "", "")
    }
