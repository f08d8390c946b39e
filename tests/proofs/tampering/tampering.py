"""Bazel and the repository rules refuse tampered packages, wheels, sources, crates, jars, git commits and caches.

The locks of a second workspace point to small files on a loopback server. Each test first checks that the untampered
file is accepted.
"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
import unittest
import zlib
from collections.abc import Callable
from typing import Any

from release.private.reproduce.second_workspace import SecondWorkspace
from tests.git_sources.repositories import Repository, git
from tests.proofs import proof
from tests.proofs.tampering import small

PACKAGE = """\
[genrule(
    name = name,
    outs = [name + ".txt"],
    cmd = "echo {} > $@".format(name),
) for name in ["first", "other"]]
"""
# Equally long, so that one can replace the other.
GOOD, OTHER = "first\n", "other\n"

WHEEL_REPOSITORY = "@@rules_python~~pip~pypi__installer"


class TamperingTest(unittest.TestCase):
    place: pathlib.Path
    server: small.Server
    second: SecondWorkspace
    root: pathlib.Path
    deb: bytes
    wheel: bytes
    sdist: bytes
    crate: bytes
    jar: bytes
    repository: Repository

    @classmethod
    def setUpClass(cls) -> None:
        cls.place = proof.place()
        cls.server = small.Server()
        cls.addClassCleanup(cls.server.close)
        # The stand-ins for Bazel modules need no network.
        cls.second = cls.enterClassContext(SecondWorkspace(arguments.workspace, cls.place, MLC_PROFILE="registries"))
        cls.root = cls.second.root
        cls.deb, cls.wheel = small.deb(), small.wheel()
        cls.sdist = small.tar_of({"sentencepiece-0.2.0/sentencepiece/LICENSE": "MIT\n"})
        cls.crate = small.tar_of({"itoa-1.0.15/LICENSE": "MIT\n"})
        cls.jar = small.jar()
        cls.repository = Repository.make(cls.place / "checkouts" / "xgrammar")
        cls._write_locks()
        (cls.root / "tampered").mkdir()
        (cls.root / "tampered/BUILD.bazel").write_text(PACKAGE)
        # Releases name the commit of their checkout.
        git(cls.root, "init", "--quiet")
        git(cls.root, "add", "--all")
        git(cls.root, "commit", "--quiet", "--message=one")

    @classmethod
    def _write_locks(cls) -> None:
        locks = cls.root / "locks"

        def change(name: str, edit: Callable[[dict[str, Any]], None]) -> None:
            content = json.loads((locks / name).read_text())
            edit(content)
            (locks / name).write_text(json.dumps(content))

        def debian(lock: dict[str, Any]) -> None:
            entry = {
                "version": "1-1",
                "sha256": small.sha256(cls.deb),
                "size": len(cls.deb),
                "path": small.DEB,
                "archive": "debian",
            }
            lock["packages"]["bookworm/small"] = entry
            # rust: the rule for crates runs its cargo; maven: that for jars may read its archive.
            lock["sets"].update(dict.fromkeys(("cxx_headers", "image_python", "maven", "rust"), ["bookworm/small"]))

        def crates(lock: dict[str, Any]) -> None:
            lock["crates"]["1/itoa"] = {"name": "itoa", "version": "1.0.15", "sha256": small.sha256(cls.crate)}
            lock["sets"]["tests"] = ["1/itoa"]

        change("debian.lock.json", debian)
        change("crates.lock.json", crates)
        change(
            "sources.lock.json",
            lambda lock: lock["sources"]["sentencepiece"].update(sha256=small.sha256(cls.sdist), file=small.SDIST),
        )
        change(
            "sources.lock.json",
            lambda lock: lock["sources"]["cpython-3.12"].update(sha256=small.sha256(cls.jar), path=small.JAR),
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
        # Share nothing that another test downloaded or tampered with.
        self.cache = self.place / self.id().rpartition(".")[2]
        self.serve()
        (self.root / "user.bazelrc").write_text("")

    def serve(
        self,
        deb: bytes | None = None,
        wheel: bytes | None = None,
        sdist: bytes | None = None,
        crate: bytes | None = None,
        jar: bytes | None = None,
    ) -> None:
        """Serves the untampered files, except those given."""
        self.server.files.clear()
        self.server.files[small.DEB] = deb or self.deb
        self.server.index("installer", small.WHEEL, wheel or self.wheel)
        self.server.index("sentencepiece", small.SDIST, sdist or self.sdist)
        self.server.files[small.CRATE] = crate or self.crate
        self.server.files[small.JAR] = jar or self.jar

    def run_bazel(self, *arguments: str) -> subprocess.CompletedProcess:
        done = self.second.bazel(*arguments, check=False, stderr=subprocess.PIPE)
        sys.stderr.write(done.stderr[-4000:])
        return done

    def fetch(self, repository: str, cache: str) -> subprocess.CompletedProcess:
        """Fetches a repository again, with the repository cache of this name."""
        url = self.server.url
        settings = {
            "MLC_CRATES_URL": url,
            "MLC_DEBIAN_MIRROR": url,
            "MLC_DEBIAN_SECURITY_MIRROR": url,
            "MLC_FETCH_SOURCES": "0",
            "MLC_MAVEN_URL": url,
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

    # Downloads.

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

    def test_a_wheel_whose_tampered_hash_the_index_lists(self) -> None:
        """The index is tampered with too: it lists the hash of the tampered wheel."""
        self.accepted(WHEEL_REPOSITORY)
        tampered = small.flipped(self.wheel)
        self.serve(wheel=tampered)
        self.refused(
            WHEEL_REPOSITORY,
            f"expected a file with sha256 {small.sha256(self.wheel)}, found in the index: {small.WHEEL}"
            f" {small.sha256(tampered)}",
        )

    def test_a_wheel_whose_locked_hash_the_index_lists(self) -> None:
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

    def test_a_jar(self) -> None:
        self.accepted("@cpython_cp312")
        self.serve(jar=small.flipped(self.jar))
        self.refused(
            "@cpython_cp312",
            f"(sha256 {small.sha256(self.jar)}) is not in the repository cache",
            "and the Maven repository has another file",
        )

    # Git.

    def test_a_git_commit_with_other_content(self) -> None:
        """A file has other content under its object's id, as if SHA-1 were broken: git does not check it on reading."""
        self.accepted("@xgrammar")
        folder, locked = self.repository.folder, self.repository.commit
        name = git(folder, "rev-parse", f"{locked}:cpp/engine.cc")
        stored = folder / ".git/objects" / name[:2] / name[2:]
        original, evil = stored.read_bytes(), b"int evil;\n"
        stored.chmod(0o644)
        try:
            stored.write_bytes(zlib.compress(b"blob %d\0%b" % (len(evil), evil)))
            self.refused("@xgrammar", f"expected a tar of commit {locked} with sha256 ", "//locks:update_sources")
        finally:
            stored.write_bytes(original)

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
        # The mirror has the right file: Bazel downloads it.
        self.accepted("@debian_image_python")
        base = self.second.bazel("info", "--color=no", "output_base").stdout.strip()
        (taken,) = pathlib.Path(base).glob("external/*debian_image_python/small_1-1_all.deb")
        self.assertEqual(small.sha256(taken.read_bytes()), small.sha256(self.deb))
        # The mirror has none: the fetch fails.
        entry.write_bytes(small.flipped(self.deb))
        self.server.files.clear()
        self.refused("@debian_image_python", "bookworm/small 1-1: ", cache="good")

    def build(self, cache: pathlib.Path | None, *options: str) -> str:
        """Builds from nothing with a disk cache; returns the output, "" if the build fails."""
        self.run_bazel("clean")
        chosen = [f"--disk_cache={cache}"] if cache else []
        done = self.run_bazel("build", "--color=no", "--curses=no", *chosen, *options, "//tampered/...")
        output = self.root / "bazel-bin/tampered/first.txt"
        return output.read_text() if done.returncode == 0 else ""

    def filled(self) -> pathlib.Path:
        """A disk cache that holds both results."""
        cache = self.cache / "disk"
        self.assertEqual(self.build(cache), GOOD)
        self.assertEqual(self.build(cache), GOOD)
        self.assertTrue(self.blob(cache, GOOD).exists() and self.blob(cache, OTHER).exists())
        return cache

    def blob(self, cache: pathlib.Path, text: str) -> pathlib.Path:
        name = small.sha256(text.encode())
        return cache / "cas" / name[:2] / name

    def swap(self, cache: pathlib.Path) -> None:
        """Points one action's stored result to the other's output, an intact blob."""
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
        # Bazel notices, and runs the action again.
        self.assertEqual(self.build(cache), GOOD)

    def test_an_action_result_of_the_disk_cache_is_trusted(self) -> None:
        """No client can tell that a result is not the action's: anyone who can write to a cache decides what is built
        from it (locks/README.md).
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

    def test_a_release_takes_nothing_that_an_earlier_build_took_from_a_cache(self) -> None:
        """Unless you set --output_base, a release has its own output base, without the tampered result."""
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
            # The ordinary output base still has it.
            self.run_bazel("build", "--color=no", "--curses=no", "//tampered/...")
            self.assertEqual(output.read_text(), OTHER)
        finally:
            release("clean", "--expunge")


if __name__ == "__main__":
    arguments, rest = proof.parser(__doc__).parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
