"""Without git sources a build skips what needs them and says how to supply them; with a checkout it builds the locked
commit and notices every change.

Small repositories stand in for the locked ones in a second workspace.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import unittest

from release.private.reproduce.second_workspace import SecondWorkspace
from tests.git_sources.repositories import CONTENT, Repository, git
from tests.proofs import proof

NAMES = ("mlc-llm", "tokenizers-cpp", "xgrammar")
ADDED = {"cpp/forwards/to.h": "int added;\n"}
OVERLAY = """\
filegroup(
    name = "files",
    srcs = glob(["**"]),
    visibility = ["//visibility:public"],
)
"""
PACKAGE = """\
load("//fetch/git:defs.bzl", "NEEDS_SOURCES")

genrule(
    name = "copies",
    srcs = [{files}],
    outs = ["all"],
    cmd = "cat $(SRCS) > $@",
    target_compatible_with = NEEDS_SOURCES,
)

genrule(
    name = "needs_none",
    outs = ["none"],
    cmd = "touch $@",
)
"""
SKIPPED = (
    "targets that need the sources of mlc-llm are skipped: give a folder of checkouts with"
    " --repo_env=MLC_SOURCES=FOLDER"
)
INCOMPATIBLE = "constraint //fetch/git:no sources of mlc-llm here, give --repo_env=MLC_SOURCES=FOLDER"


class GitSourcesTest(unittest.TestCase):
    second: SecondWorkspace
    checkouts: pathlib.Path
    repositories: dict[str, Repository]

    @classmethod
    def setUpClass(cls) -> None:
        place = proof.place()
        cls.second = cls.enterClassContext(SecondWorkspace(arguments.workspace, place))
        cls.checkouts = place / "checkouts"
        cls.repositories = {name: Repository.make(cls.checkouts / name) for name in NAMES}
        lock = cls.second.root / "locks/sources.lock.json"
        content = json.loads(lock.read_text())
        content["sources"].update({name: repository.entry() for name, repository in cls.repositories.items()})
        lock.write_text(json.dumps(content))
        for name in (name.replace("-", "_") for name in NAMES):
            (cls.second.root / f"third_party/{name}/{name}.BUILD.bazel").write_text(OVERLAY)
        declared = cls.second.root / "third_party/third_party.MODULE.bazel"
        tag, whole = '    source = "tokenizers-cpp",\n', declared.read_text()
        assert whole.count(tag) == 1, f"{declared}: expected one line {tag!r}"
        declared.write_text(whole.replace(tag, f"    files = {json.dumps(ADDED)},\n{tag}"))
        package = cls.second.root / "needs_sources"
        package.mkdir()
        (package / "BUILD.bazel").write_text(
            PACKAGE.format(files=", ".join(f'"@{name.replace("-", "_")}//:files"' for name in NAMES))
        )

    def build(self, *arguments: str, sources: str = "", upstream: bool = False) -> subprocess.CompletedProcess:
        """Builds with sources from these places, whatever the profile says."""
        settings = [f"--repo_env=MLC_SOURCES={sources}", f"--repo_env=MLC_FETCH_SOURCES={int(upstream)}"]
        options = ["--color=no", "--curses=no", "--noshow_progress", *settings]
        done = self.second.bazel("build", *options, *arguments, check=False, stderr=subprocess.PIPE)
        sys.stderr.write(done.stderr[-6000:])
        return done

    def assert_built(self, sources: str = "", upstream: bool = False) -> None:
        done = self.build("//needs_sources:copies", sources=sources, upstream=upstream)
        self.assertEqual(done.returncode, 0)
        built = (self.second.root / "bazel-bin/needs_sources/all").read_text()
        self.assertEqual(built.count(CONTENT["cpp/engine.cc"]), len(NAMES))
        self.assertEqual(built.count(ADDED["cpp/forwards/to.h"]), 1)
        self.assertNotIn(CONTENT["other/file"], built)

    def assert_refused(self, *parts: str, sources: str = "", upstream: bool = False) -> None:
        done = self.build("//needs_sources:copies", sources=sources, upstream=upstream)
        self.assertNotEqual(done.returncode, 0)
        for part in parts:
            self.assertIn(part, done.stderr)

    def test_without_sources_a_wildcard_skips_targets_and_says_how_to_supply_them(self) -> None:
        done = self.build("//needs_sources/...")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(done.stderr.count(SKIPPED), 1)
        self.assertTrue((self.second.root / "bazel-bin/needs_sources/none").exists())
        self.assert_refused(INCOMPATIBLE)
        self.assertIn(f"xgrammar is not here: {SKIPPED.partition(': ')[2]}", self.build("@xgrammar//:files").stderr)

    def test_a_checkout_supplies_the_locked_commit_and_every_change_is_noticed(self) -> None:
        sources = str(self.checkouts)
        self.assert_built(sources=sources)
        repository = self.repositories["xgrammar"]
        locked, file = repository.commit, repository.folder / "cpp/engine.cc"

        file.write_text("int edited;\n")
        self.assert_refused("xgrammar: expected ", "found changes to cpp/engine.cc", sources=sources)
        file.write_text(CONTENT["cpp/engine.cc"])
        self.assert_built(sources=sources)

        (repository.folder / "cpp/new.cc").touch()
        git(repository.folder, "add", ".")
        self.assert_refused("found changes to cpp/new.cc", sources=sources)
        git(repository.folder, "rm", "--quiet", "--force", "cpp/new.cc")
        self.assert_built(sources=sources)

        (repository.folder / "cpp/deep").rename(repository.folder / "away")
        self.assert_refused("found changes to cpp/deep/er.h", sources=sources)
        (repository.folder / "away").rename(repository.folder / "cpp/deep")
        self.assert_built(sources=sources)

        moved = repository.move_on()
        # Moved away, because no command in a checkout that may be anyone's is safe to advise.
        clone = f"git clone file://{repository.folder}"
        self.assert_refused(f"found {moved}: move it away, then {clone}", sources=sources)
        git(repository.folder, "checkout", "--quiet", locked)
        self.assert_built(sources=sources)

        repository.folder.rename(self.checkouts / "away")
        self.assert_refused(f"found no such folder: git clone file://{repository.folder}", sources=sources)
        (self.checkouts / "away").rename(repository.folder)
        self.assert_built(sources=sources)

        self.assert_refused(INCOMPATIBLE)

    def test_upstream_supplies_the_locked_commit(self) -> None:
        self.assert_built(upstream=True)

    def test_checkouts_take_precedence_over_upstream(self) -> None:
        self.assert_refused("found no such folder", sources=str(self.checkouts / "none"), upstream=True)


if __name__ == "__main__":
    arguments, rest = proof.parser(__doc__).parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
