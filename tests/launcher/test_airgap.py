"""Promises of packs: a build out of one asks no network, a pack that would not do is refused with what is missing before Bazel starts."""

import errno
import io
import json
import os
import re
import shutil
import tarfile
import unittest
from pathlib import Path
from unittest import mock

from fake_machine import FakeMachine, sha256

from tools import pack
from tools.launcher import pack as pack_format

# What stands in for the locked files: name in the pack → content. The second is only in the later lock.
DEB, NEW_DEB, WHEEL, SDIST, CRATE, SOURCE = b"a deb" * 999, b"a newer deb" * 99, b"a wheel" * 99, b"an sdist", b"a crate", b"a tar of git"


def locks(deb=DEB, version="1-1", more_wheels=()):
    """The four locks, by name, that pin these files."""
    hashes = {name: sha256(data) for name, data in {"wheel": WHEEL, "sdist": SDIST, "crate": CRATE, "source": SOURCE}.items()}
    lines = [f"my-wheel==2.0 \\\n    --hash=sha256:{hashes['wheel']}\n", *(f"{name}==1 \\\n    --hash=sha256:{digest}\n" for name, digest in more_wheels)]
    sources = {
        "archive": {"registry": "pypi", "version": "3", "file": "archive-3.tar.gz", "size": len(SDIST), "sha256": hashes["sdist"]},
        "repository": {"registry": "git", "repository": "https://example.org/r", "commit": "c" * 40, "paths": ["a"], "sha256": hashes["source"]},
    }
    return {
        "debian.lock.json": json.dumps({"sets": {"cc": ["bookworm/x"]}, "packages": {"bookworm/x": {"version": version, "sha256": sha256(deb)}}}),
        "requirements.lock.txt": "".join(lines),
        "crates.lock.json": json.dumps({"sets": {}, "crates": {"1/itoa": {"name": "itoa", "version": "1.0.15", "sha256": hashes["crate"]}}}),
        "sources.lock.json": json.dumps({"sources": sources}),
    }


class PackCase(FakeMachine):
    def setUp(self):
        super().setUp()
        self.folder_of_files = self.folder / "files"
        self.folder_of_files.mkdir()
        self.lock(**{})
        self.pack = self.folder / "one.pack"

    def lock(self, **how):
        self.locks = locks(**how)
        for name, text in self.locks.items():
            (self.root / "locks" / name).write_text(text)

    def content(self, deb=DEB, version="1-1", cuda=False, left_out=()):
        """What //tools:pack would find for the locks as they are."""
        files, blobs, bazel = {}, [], {"bazel": self.VERSION, "packages": {}, "wheels": {}}

        def add(data, kind, name, version, file):
            digest = sha256(data)
            files[digest] = self.folder_of_files / digest
            files[digest].write_bytes(data)
            blobs.append(pack_format.Blob(digest, len(data), kind, name, version, file))
            return digest

        for name, data in self.packages.items():
            of = "7.7.1+ds-8+b1" if name == "bazel-bootstrap" else "2.40"
            bazel["packages"][name] = {"version": of, "sha256": add(data, "bazel", name, of, name + ".deb"), "suite": "forky"}
        for project, filename, digest, _ in self.pins:
            bazel["wheels"][filename] = {"sha256": add(self.server.files[f"/files/{filename}"], "bazel", project, "1", filename)}
        add(deb, "deb", "bookworm/x", version, "x.deb")
        add(WHEEL, "wheel", "my-wheel", "2.0", "my_wheel-2.0-py3-none-any.whl")
        add(SDIST, "sdist", "archive", "3", "archive-3.tar.gz")
        add(CRATE, "crate", "itoa", "1.0.15", "itoa-1.0.15.crate")
        add(SOURCE, "git", "repository", "c" * 40, "repository.tar")
        about = {
            "format": pack_format.FORMAT,
            "profile": "registries",
            "cuda": cuda,
            "sources": True,
            "locks": {name: sha256(text.encode()) for name, text in self.locks.items()},
            "left_out": sorted(left_out),
            "bazel": bazel,
            "base": None,
            "from_base": [],
        }
        return pack.Content(sorted(blobs, key=lambda blob: blob.sha256), files, about)

    def write(self, path=None, **how):
        path = path or self.pack
        pack.write(self.content(**how), path)
        return path

    def start_with(self, *arguments, **environment):
        """Runs the launcher where nobody is to be asked for anything."""
        away = {"MLC_DEBIAN_MIRROR": "http://127.0.0.1:1/debian", "PIP_INDEX_URL": "http://127.0.0.1:1/simple", "MLC_PROFILE": ""}
        return self.run_launcher(*arguments, fake={"upstream": {"upstream": self.server.url + "/asked"}}, **{**away, **environment})

    def built(self, *arguments, **environment):
        """Bazel's arguments, and the launcher's own lines."""
        done = self.start_with(*arguments, **environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.server.requests, [])
        return [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith("argument ")], done.stderr

    def refused(self, *parts, arguments=None, **environment):
        """The launcher fails with all of these parts in its message, and Bazel is not started."""
        done = self.start_with(*(arguments or [f"--airgap={self.pack}", "build", "//x"]), **environment)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        for part in parts:
            self.assertIn(part, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        self.assertEqual(self.server.requests, [])
        return done.stderr

    def value(self, arguments, start):
        (found,) = [argument[len(start) :] for argument in arguments if argument.startswith(start)]
        return found


class BuildTest(PackCase):
    def test_bazel_is_installed_from_it_and_nobody_is_asked(self):
        self.write()
        got, message = self.built("--batch", f"--airgap={self.pack}", "build", "//x", "--", "--airgap=of-the-program")
        self.assertTrue((self.prefix / "manifest.json").exists())
        self.assertIn(f"--install_base={self.prefix}/usr/share/bazel", got)
        self.assertEqual((got[got.index("build") - 1], got[-3:]), ("--batch", ["//x", "--", "--airgap=of-the-program"]))
        self.assertIn("--config=registries", got)
        self.assertIn("--repository_disable_download", got)
        self.assertIn("--repo_env=MLC_PACKED_SOURCES=1", got)
        self.assertIn(f"profile registries: the pack {self.pack}, without a network", message)
        self.assertIn("importing the pack", message)

    def test_the_repository_cache_has_exactly_what_the_pack_has(self):
        self.write()
        got, _ = self.built(f"--airgap={self.pack}", "build", "//x")
        cache = Path(self.value(got, "--repository_cache="), "content_addressable/sha256")
        found = {path.parent.name: path.read_bytes() for path in cache.glob("*/file")}
        self.assertEqual(found, {sha256(data): data for data in (DEB, WHEEL, SDIST, CRATE, SOURCE)})

    def test_wheels_and_sdists_are_in_an_index_under_the_names_that_they_had(self):
        from fetch.pypi import index as pypi

        self.write()
        got, _ = self.built(f"--airgap={self.pack}", "build", "//x")
        with mock.patch.dict(os.environ, PIP_INDEX_URL=self.value(got, "--repo_env=PIP_INDEX_URL=")):
            (file,) = pypi.files("my_wheel")
            self.assertRaises(pypi.PyPIError, pypi.files, "other")
        self.assertEqual((file["filename"], file["hashes"]), ("my_wheel-2.0-py3-none-any.whl", {"sha256": sha256(WHEEL)}))
        self.assertEqual(Path(file["url"].removeprefix("file://")).read_bytes(), WHEEL)

    def test_it_is_read_once(self):
        self.write()
        self.assertIn("importing", self.built(f"--airgap={self.pack}", "version")[1])
        self.assertNotIn("importing", self.built("--airgap", str(self.pack), "version")[1])
        self.assertNotIn("importing", self.built("build", "//x", MLC_AIRGAP=str(self.pack))[1])

    def test_one_that_was_written_anew_is_read_anew(self):
        self.write()
        self.built(f"--airgap={self.pack}", "version")
        self.write(cuda=True)
        self.assertIn("importing", self.built(f"--airgap={self.pack}", "version")[1])

    def test_the_doctor_has_a_row_for_it(self):
        self.write()
        done = self.start_with(f"--airgap={self.pack}", "doctor")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stdout, r"(?m)^pack +\S+one\.pack: 12 files, .*; it has all that the locks ask for")
        self.lock(deb=NEW_DEB, version="1-2")
        done = self.start_with("doctor", MLC_AIRGAP=str(self.pack))
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertRegex(done.stdout, r"(?m)^pack +\S+one\.pack +outdated: .*bookworm/x 1-2")
        self.assertEqual(self.server.requests, [])


class RefusalTest(PackCase):
    def test_one_that_is_cut_short_names_what_is_missing_and_goes_on_with_a_whole_one(self):
        whole = self.write().read_bytes()
        self.pack.write_bytes(whole[: len(whole) // 2])
        last = self.content().blobs[-1]
        message = self.refused("a damaged or incomplete pack", "copy it again".capitalize(), "tools/bazel run //tools:pack")
        self.assertRegex(message, r"missing:\n  (bazel|deb|wheel|sdist|crate|git) \S+ \S+ \(sha256 [0-9a-f]{64}\)")
        self.assertTrue(str(last) in message or "more" in message)
        kept = {path.name: path.stat().st_ino for path in (self.cache / "airgap/blobs").iterdir()}
        self.assertTrue(kept)
        self.assertEqual(list((self.cache / "airgap/packs").iterdir()), [])
        self.pack.write_bytes(whole)
        self.built(f"--airgap={self.pack}", "build", "//x")
        now = {path.name: path.stat().st_ino for path in (self.cache / "airgap/blobs").iterdir()}
        self.assertEqual({name: now[name] for name in kept}, kept)

    def test_a_bit_that_has_flipped_names_the_file_it_is_in(self):
        whole = bytearray(self.write().read_bytes())
        whole[whole.index(DEB) + 7] ^= 1
        self.pack.write_bytes(whole)
        self.refused("found these changed:\n  deb bookworm/x 1-1 (sha256 " + sha256(DEB))

    def test_a_bit_that_has_flipped_in_its_list_is_found(self):
        whole = self.write().read_bytes()
        for part, message in ((b'"bookworm/x"', "damaged: expected sha256 "), (b'"left_out"', "damaged: expected sha256 ")):
            changed = bytearray(whole)
            changed[whole.index(part) + 1] ^= 1
            self.pack.write_bytes(changed)
            self.refused(message)

    def test_a_file_that_is_missing_is_named(self):
        self.write()
        with tarfile.open(self.pack) as old, tarfile.open(self.folder / "less", "w") as new:
            for member in old:
                if not member.name.endswith(sha256(CRATE)):
                    new.addfile(member, old.extractfile(member))
        shutil.move(self.folder / "less", self.pack)
        self.refused(f"found these missing:\n  crate itoa 1.0.15 (sha256 {sha256(CRATE)})")

    def test_one_of_older_locks_names_what_the_locks_pin_now(self):
        self.write()
        self.lock(deb=NEW_DEB, version="1-2", more_wheels=[("added", "ab" * 32)])
        self.refused("outdated", f"deb bookworm/x 1-2 (sha256 {sha256(NEW_DEB)})", f"wheel added 1 (sha256 {'ab' * 32})", "tools/bazel run //tools:pack", "--since")

    def test_what_no_build_needs_is_not_missed(self):
        wheels = [("only-with-cuda", "ab" * 32)]
        self.lock(more_wheels=wheels)
        self.write(left_out=["ab" * 32])
        self.built(f"--airgap={self.pack}", "build", "//x")
        self.lock(version="1-1.1", more_wheels=wheels)  # Other digests of the locks, the same files.
        self.built(f"--airgap={self.pack}", "build", "//x")

    def test_another_version_of_bazel_is_outdated(self):
        self.write()
        (self.root / ".bazelversion").write_text("7.8.0\n")
        self.refused("outdated: expected Bazel 7.8.0 (.bazelversion) in it, found 7.7.1")

    def test_a_foreign_file_is_no_pack(self):
        for data in (b"", b"text" * 9999, self.packages["libc6"]):
            self.pack.write_bytes(data)
            self.refused("expected a pack", "found another file", "//tools:pack")
        with tarfile.open(self.pack, "w") as tar:
            tar.addfile(tarfile.TarInfo("other"))
        self.refused("expected a pack", "'other' where 'oci-layout' is expected")
        with tarfile.open(self.pack, "w") as tar:
            for name, data in (("oci-layout", pack_format.LAYOUT), ("index.json", b'{"manifests": [{"mediaType": "an image"}]}')):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        self.refused("found another file: an OCI layout of an image")
        self.pack.unlink()
        self.refused("no such file")

    def test_a_later_format_is_refused(self):
        with mock.patch.object(pack_format, "FORMAT", 2):
            self.write()
        self.refused("expected a pack of format 1, found format 2")

    def test_what_it_was_not_made_for_is_refused(self):
        self.write()
        self.refused("a pack without CUDA", "--config=cuda //tools:pack", arguments=[f"--airgap={self.pack}", "build", "--config=cuda", "//x"])
        self.refused("of the profile registries", arguments=[f"--airgap={self.pack}", "build", "--config=upstream", "//x"])

    def test_a_disk_that_fills_up_while_it_is_read(self):
        self.write()
        done = self.run_launcher(f"--airgap={self.pack}", "build", "//x", fake={"file_limit": 2000})
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        for part in ("File too large", "MLC_BAZEL_CACHE", "run the same command again"):
            self.assertIn(part, done.stderr)


class IncrementTest(PackCase):
    def setUp(self):
        super().setUp()
        self.write()
        self.lock(deb=NEW_DEB, version="1-2")
        self.new = self.folder / "two.pack"
        pack.write(pack.since(self.content(deb=NEW_DEB, version="1-2"), self.pack), self.new)

    def test_it_carries_only_what_is_new(self):
        with pack_format.Reader(str(self.new)) as reader:
            self.assertEqual([name for name, _, _ in reader], [sha256(NEW_DEB)])
            self.assertEqual(len(reader.pack.blobs), 12)

    def test_it_builds_with_its_base_named_before_it_or_imported_once(self):
        got, _ = self.built(f"--airgap={self.pack}", f"--airgap={self.new}", "build", "//x")
        cache = Path(self.value(got, "--repository_cache="), "content_addressable/sha256")
        self.assertTrue((cache / sha256(NEW_DEB) / "file").exists())
        self.assertFalse((cache / sha256(DEB)).exists())
        self.pack.unlink()
        self.assertEqual(self.built(f"--airgap={self.new}", "build", "//x")[0], got)

    def test_without_its_base_it_is_refused_with_the_reason(self):
        with pack_format.Reader(str(self.pack)) as reader:
            base = reader.pack.name
        self.pack = self.new
        message = self.refused(f"an incremental pack, whose base (pack {base[:12]}) this machine does not have", "--airgap=BASE")
        self.assertNotIn("damaged", message)

    def test_a_new_file_that_is_missing_is_no_matter_of_the_base(self):
        with tarfile.open(self.new) as old, tarfile.open(self.folder / "less", "w") as less:
            for member in list(old)[:-1]:
                less.addfile(member, old.extractfile(member))
        self.pack = self.folder / "less"
        self.refused("a damaged or incomplete pack", f"deb bookworm/x 1-2 (sha256 {sha256(NEW_DEB)})")


class WritingTest(PackCase):
    def test_the_same_locks_give_the_same_bytes(self):
        first = self.write().read_bytes()
        os.utime(self.content().files[sha256(DEB)], (1, 1))
        self.assertEqual(self.write(self.folder / "two.pack").read_bytes(), first)

    def test_it_is_an_oci_image_layout_whose_list_comes_first(self):
        with tarfile.open(self.write()) as tar:
            names = tar.getnames()
            index = json.load(tar.extractfile("index.json"))
        self.assertEqual(names[:3], ["oci-layout", "index.json", "blobs/sha256/" + index["manifests"][0]["digest"].partition(":")[2]])
        self.assertEqual(names[4:], sorted(names[4:]))

    def test_a_changed_file_of_the_cache_is_not_packed(self):
        content = self.content()
        content.files[sha256(DEB)].write_bytes(DEB[::-1])
        with self.assertRaisesRegex(pack_format.PackError, "expected deb bookworm/x 1-1 .*, found sha256 "):
            pack.write(content, self.pack)
        self.assertEqual(list(self.folder.glob("one.pack*")), [])

    def test_a_disk_without_room_or_a_folder_that_is_not_there_is_an_error_and_leaves_nothing(self):
        with mock.patch.object(shutil, "disk_usage", return_value=mock.Mock(free=1)):
            with self.assertRaisesRegex(pack_format.PackError, "No space left on device.* The pack takes "):
                pack.write(self.content(), self.pack)
        full = OSError(errno.ENOSPC, "full")
        with mock.patch.object(tarfile.TarFile, "addfile", side_effect=full), self.assertRaisesRegex(pack_format.PackError, "No space left"):
            pack.write(self.content(), self.pack)
        with self.assertRaisesRegex(pack_format.PackError, "No such file or directory"):
            pack.write(self.content(), self.folder / "none" / "one.pack")
        self.assertEqual(list(self.folder.glob("one.pack*")), [])

    def test_what_bazel_asked_for_is_read_from_its_log(self):
        name, digest = b"folder/x_1.deb", b"0f" * 32
        download = b"\x0a\x03u:x\x12" + bytes([len(name)]) + name + b"\x1a\x40" + digest
        execution = b"\x12\x40" + digest + b"\x12\x02-B"
        self.assertEqual(pack.downloads(execution + download + execution), {digest.decode(): "x_1.deb"})

    def test_the_locks_of_this_repository_can_be_read(self):
        from fetch import locked

        found = locked.entries(str(Path(os.environ["LOCKS"]).parents[1]))
        kinds = {kind for kind, _, _ in found.values()}
        self.assertEqual(kinds, {"crate", "deb", "git", "sdist", "wheel"})
        text = "".join(path.read_text() for path in map(Path(os.environ["LOCKS"]).with_name, locked.LOCKS))
        self.assertEqual(set(found), set(re.findall(r"\b[0-9a-f]{64}\b", text)))


if __name__ == "__main__":
    unittest.main()
