"""What was tampered with is refused, by the real Bazel and the real repository rules: packages, wheels, sources,
crates, git commits, caches.

In a second workspace the locks' entries are those of small files on a server on loopback. Each test first sees that the
untampered file is accepted.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

from release.private.reproduce.second_workspace import SecondWorkspace
from tests.git_sources.repositories import Repository, git
from tests.proofs.tampering import small

PACKAGE = """\
[genrule(
    name = name,
    outs = [name + ".txt"],
    cmd = "echo {} > $@".format(name),
) for name in ["first", "other"]]
"""
# Of one length, so that one can stand in for the other.
GOOD, OTHER = "first\n", "other\n"

WHEEL_REPOSITORY = "@@rules_python~~pip~pypi__installer"


class TamperingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.place = pathlib.Path(os.environ["TEST_TMPDIR"]).resolve()
        workspace = pathlib.Path(arguments.workspace_file).resolve().parent
        cls.server = small.Server()
        cls.addClassCleanup(cls.server.close)
        # Which modules there are is not what is tested; the stand-ins need no network.
        cls.second = cls.enterClassContext(SecondWorkspace(workspace, cls.place, MLC_PROFILE="registries"))
        cls.root = cls.second.root
        cls.deb, cls.wheel = small.deb(), small.wheel()
        cls.sdist = small.tar_of({"sentencepiece-0.2.0/sentencepiece/LICENSE": "MIT\n"})
        cls.crate = small.tar_of({"itoa-1.0.15/LICENSE": "MIT\n"})
        cls.repository = Repository.make(cls.place / "checkouts" / "xgrammar")
        cls._write_locks()
        (cls.root / "tampered").mkdir()
        (cls.root / "tampered/BUILD.bazel").write_text(PACKAGE)

    @classmethod
    def _write_locks(cls) -> None:
        locks = cls.root / "locks"

        def change(name: str, edit) -> None:
            content = json.loads((locks / name).read_text())
            edit(content)
            (locks / name).write_text(json.dumps(content))

        def debian(lock) -> None:
            entry = {
                "version": "1-1",
                "sha256": small.sha256(cls.deb),
                "size": len(cls.deb),
                "path": small.DEB,
                "archive": "debian",
            }
            lock["packages"]["bookworm/small"] = entry
            # rust: the rule for crates asks where its cargo is.
            lock["sets"].update(dict.fromkeys(("cxx_headers", "image_python", "rust"), ["bookworm/small"]))

        def crates(lock) -> None:
            lock["crates"]["1/itoa"] = {"name": "itoa", "version": "1.0.15", "sha256": small.sha256(cls.crate)}
            lock["sets"]["tests"] = ["1/itoa"]

        change("debian.lock.json", debian)
        change("crates.lock.json", crates)
        change(
            "sources.lock.json",
            lambda lock: lock["sources"]["sentencepiece"].update(sha256=small.sha256(cls.sdist), file=small.SDIST),
        )
        change("sources.lock.json", lambda lock: lock["sources"].update(xgrammar=cls.repository.entry()))
        requirements = locks / "requirements.lock.txt"
        text = re.sub(
            r"(?m)^installer==.*\\\n.*$",
            f"installer==1.1.0 \\\\\n    --hash=sha256:{small.sha256(cls.wheel)}",
            requirements.read_text(),
        )
        requirements.write_text(text)

    def setUp(self) -> None:
        # Nothing that another test has downloaded, or tampered with.
        self.cache = self.place / self.id().rpartition(".")[2]
        self.serve()
        (self.root / "user.bazelrc").write_text("")

    def serve(self, deb=None, wheel=None, sdist=None, crate=None) -> None:
        """Serves the untampered files, or others in their place."""
        self.server.files.clear()
        self.server.files[small.DEB] = deb or self.deb
        self.server.index("installer", small.WHEEL, wheel or self.wheel)
        self.server.index("sentencepiece", small.SDIST, sdist or self.sdist)
        self.server.files[small.CRATE] = crate or self.crate

    def run_bazel(self, *arguments: str) -> subprocess.CompletedProcess:
        done = self.second.bazel(*arguments, check=False, stderr=subprocess.PIPE)
        sys.stderr.write(done.stderr[-4000:])
        return done

    def fetch(self, repository: str, cache: str) -> subprocess.CompletedProcess:
        """Fetches one repository anew with a repository cache of that name."""
        url = self.server.url
        settings = {
            "MLC_CRATES_URL": url,
            "MLC_DEBIAN_MIRROR": url,
            "MLC_DEBIAN_SECURITY_MIRROR": url,
            "MLC_FETCH_SOURCES": "0",
            "MLC_SOURCES": str(self.repository.folder.parent),
            "PIP_INDEX_URL": f"{url}/simple",
        }
        options = [
            "--color=no",
            "--curses=no",
            f"--repository_cache={self.cache / cache}",
            *(f"--repo_env={name}={value}" for name, value in settings.items()),
        ]
        return self.run_bazel("fetch", "--force", *options, f"--repo={repository}")

    def accepted(self, repository: str, cache: str = "good") -> None:
        self.assertEqual(self.fetch(repository, cache).returncode, 0)

    def refused(self, repository: str, *parts: str, cache: str = "bad") -> None:
        done = self.fetch(repository, cache)
        self.assertNotEqual(done.returncode, 0)
        for part in parts:
            self.assertIn(part, done.stderr)

    # What is downloaded.

    def test_a_debian_package(self) -> None:
        for repository in ("@debian_image_python", "@debian_cxx_headers"):
            with self.subTest(repository):
                self.serve()
                self.accepted(repository, "good" + repository)
                tampered = small.flipped(self.deb)
                self.serve(deb=tampered)
                what = (
                    "bookworm/small 1-1: the mirror has another file than locks/debian.lock.json: expected sha256"
                    f" {small.sha256(self.deb)}, found {small.sha256(tampered)}"
                )
                self.refused(repository, what, "//locks:update_debian", cache="bad" + repository)

    def test_a_wheel_that_the_index_lists_as_it_is(self) -> None:
        """The index was tampered with too: it gives the hash that the tampered wheel has."""
        self.accepted(WHEEL_REPOSITORY)
        tampered = small.flipped(self.wheel)
        self.serve(wheel=tampered)
        self.refused(
            WHEEL_REPOSITORY,
            f"expected a file with sha256 {small.sha256(self.wheel)}, found in the index: {small.WHEEL}"
            f" {small.sha256(tampered)}",
        )

    def test_a_wheel_that_the_index_lists_as_locked(self) -> None:
        self.accepted(WHEEL_REPOSITORY)
        self.server.files[f"files/{small.WHEEL}"] = small.flipped(self.wheel)
        self.refused(
            WHEEL_REPOSITORY,
            f"Checksum was {small.sha256(small.flipped(self.wheel))} but wanted {small.sha256(self.wheel)}",
        )

    def test_an_sdist(self) -> None:
        self.accepted("@sentencepiece")
        tampered = small.flipped(self.sdist)
        self.serve(sdist=tampered)
        self.refused(
            "@sentencepiece",
            f"expected a file with sha256 {small.sha256(self.sdist)}, found in the index: {small.SDIST}"
            f" {small.sha256(tampered)}",
            "//locks:update_sources",
        )
        self.serve()
        self.server.files[f"files/{small.SDIST}"] = tampered
        self.refused("@sentencepiece", f"Checksum was {small.sha256(tampered)} but wanted {small.sha256(self.sdist)}")

    def test_a_crate(self) -> None:
        self.accepted("@crates_tests")
        self.serve(crate=small.flipped(self.crate))
        self.refused(
            "@crates_tests",
            f"itoa-1.0.15.crate: expected a file with sha256 {small.sha256(self.crate)}",
            "//locks:update_crates",
        )

    # Git.

    def test_a_git_commit_with_other_content(self) -> None:
        """git itself is told to show another tree under the locked commit's id, as a broken SHA-1 would."""
        self.accepted("@xgrammar")
        folder, locked = self.repository.folder, self.repository.commit
        file = folder / "cpp/engine.cc"
        original = file.read_text()
        try:
            file.write_text("int evil;\n")
            git(folder, "commit", "--quiet", "--all", "--message=evil")
            evil = git(folder, "rev-parse", "HEAD")
            git(folder, "reset", "--quiet", "--hard", locked)
            git(folder, "replace", locked, evil)
            git(folder, "checkout", "--quiet", "--force", locked, "--", ".")
            self.refused("@xgrammar", f"expected a tar of commit {locked} with sha256 ", "//locks:update_sources")
        finally:
            git(folder, "replace", "--delete", locked)
            git(folder, "reset", "--quiet", "--hard", locked)
        self.assertEqual(file.read_text(), original)

    def test_a_git_checkout_with_a_damaged_object(self) -> None:
        self.accepted("@xgrammar")
        folder = self.repository.folder
        name = git(folder, "rev-parse", "HEAD:cpp/engine.cc")
        loose = folder / ".git/objects" / name[:2] / name[2:]
        whole = loose.read_bytes()
        loose.chmod(0o644)
        try:
            loose.write_bytes(small.flipped(whole))
            self.refused("@xgrammar", "xgrammar: expected ")
        finally:
            loose.write_bytes(whole)

    # Caches.

    def test_the_repository_cache(self) -> None:
        self.accepted("@debian_image_python")
        entry = self.cache / "good/content_addressable/sha256" / small.sha256(self.deb) / "file"
        entry.chmod(0o644)
        entry.write_bytes(small.flipped(self.deb))
        # The mirror has the right one: that is taken.
        self.accepted("@debian_image_python")
        base = self.second.bazel("info", "--color=no", "output_base").stdout.strip()
        (taken,) = pathlib.Path(base).glob("external/*debian_image_python/small_1-1_all.deb")
        self.assertEqual(small.sha256(taken.read_bytes()), small.sha256(self.deb))
        # It has none: nothing is taken.
        entry.write_bytes(small.flipped(self.deb))
        self.server.files.clear()
        self.refused("@debian_image_python", "bookworm/small 1-1: ", cache="good")

    def build(self, cache: pathlib.Path | None, *options: str) -> str:
        """Builds with a disk cache and nothing of an earlier build; returns what came out, "" if nothing did."""
        self.run_bazel("clean")
        chosen = [f"--disk_cache={cache}"] if cache else []
        done = self.run_bazel("build", "--color=no", "--curses=no", *chosen, *options, "//tampered/...")
        output = self.root / "bazel-bin/tampered/first.txt"
        return output.read_text() if done.returncode == 0 else ""

    def filled(self) -> pathlib.Path:
        """A disk cache with both results in it, which are taken from there."""
        cache = self.cache / "disk"
        self.assertEqual(self.build(cache), GOOD)
        self.assertEqual(self.build(cache), GOOD)
        self.assertTrue(self.blob(cache, GOOD).exists() and self.blob(cache, OTHER).exists())
        return cache

    def blob(self, cache: pathlib.Path, text: str) -> pathlib.Path:
        name = small.sha256(text.encode())
        return cache / "cas" / name[:2] / name

    def swap(self, cache: pathlib.Path) -> None:
        """Makes the stored result of one action point to the other's output: a blob that is whole and of its hash."""
        good, other = (small.sha256(text.encode()).encode() for text in (GOOD, OTHER))
        swapped = 0
        for entry in (cache / "ac").rglob("*"):
            if entry.is_file() and good in (data := entry.read_bytes()) and b"first.txt" in data:
                entry.chmod(0o644)
                entry.write_bytes(data.replace(good, other))
                swapped += 1
        self.assertEqual(swapped, 1)

    def test_a_blob_of_the_disk_cache(self) -> None:
        cache = self.filled()
        blob = self.blob(cache, GOOD)
        blob.chmod(0o644)
        blob.write_bytes(small.flipped(blob.read_bytes()))
        # Bazel says so, and runs the action again.
        self.assertEqual(self.build(cache), GOOD)

    def test_an_action_result_of_the_disk_cache_is_trusted(self) -> None:
        """No client can know that a result is not the action's: whoever may write a cache decides what is built from it
        (locks/README.md).
        """
        cache = self.filled()
        self.swap(cache)
        self.assertEqual(self.build(cache), OTHER)

    def test_a_release_takes_nothing_from_a_cache(self) -> None:
        cache = self.filled()
        self.swap(cache)
        status = "--workspace_status_command=/bin/true"
        for line in (
            f"build --disk_cache={cache}",
            f"build:release --disk_cache={cache}",
            f"common:release --disk_cache={cache}",
        ):
            with self.subTest(line):
                (self.root / "user.bazelrc").write_text(line + "\n")
                if not line.startswith(("build:release", "common:release")):
                    self.assertEqual(self.build(None, status), OTHER)
                self.assertEqual(self.build(None, "--config=release", status), GOOD)

    def test_a_release_takes_nothing_that_another_build_took_from_a_cache(self) -> None:
        """What Bazel does without an output base of the caller's: the release is not built in the one with the tampered
        result.
        """
        cache = self.filled()
        self.swap(cache)

        def release(command: str, *arguments: str) -> None:
            line = [str(self.root / "tools/bazel"), command, "--config=release", *arguments]
            subprocess.run(line, cwd=self.root, env=self.second.environment, check=True)

        try:
            self.assertEqual(self.build(cache), OTHER)
            output = self.root / "bazel-bin/tampered/first.txt"
            release("build", "--color=no", "--curses=no", "--workspace_status_command=/bin/true", "//tampered/...")
            self.assertEqual(output.read_text(), GOOD)
            # The other has it still.
            self.run_bazel("build", "--color=no", "--curses=no", "//tampered/...")
            self.assertEqual(output.read_text(), OTHER)
        finally:
            release("clean", "--expunge")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace_file", required=True, help="a file at the workspace's root")
    arguments, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
