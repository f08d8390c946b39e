"""A release page gets exactly the tested files of a clean, tagged commit, whole or not at all, and every refusal says
what to do.

The real gh and git run, against tests/release/fake_github.py.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_github import TOKEN, FakeGitHub, Fault

from release.private import publish

GH = pathlib.Path(os.environ["GH"]).absolute()
COSIGN = pathlib.Path(os.environ["COSIGN"]).absolute()
NOT_SIGNED = "not signed (--unsigned): nobody can verify that this comes from you\n"
GIT = os.environ.get("GIT", "/usr/bin/git")
ROOT = pathlib.Path(publish.__file__).parents[2]
REPOSITORY, TAG = "owner/repo", "v0.1.0"
WHEEL = "pkg-0.1.0+cpu-py3-none-any.whl"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Checkout:
    """A git checkout with the tag, a folder of files made of it, and the release page."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.work, self.dist = folder, folder / "work", folder / "dist"
        self.settings = folder / "settings.json"
        self.set(release_repository=REPOSITORY)
        self.work.mkdir()
        (self.work / "file").write_text("a")
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit()
        self.git("tag", TAG)
        self.write_dist()
        self.host = FakeGitHub(REPOSITORY, {TAG: self.head})

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    @property
    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.dist.iterdir()}

    def git(self, *arguments: str) -> str:
        identity = (
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.org",
            "-c",
            "commit.gpgsign=false",
            "-c",
            "tag.gpgsign=false",
        )
        environment = {
            "HOME": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z",
        }
        command = [GIT, "-C", str(self.work), *identity, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    def commit(self) -> None:
        self.git("add", ".")
        self.git("commit", "--quiet", "--message=m", "--date=2000-01-01T00:00:00Z")

    def set(self, **settings: str) -> None:
        self.settings.write_text(json.dumps({"image_repository": "", "release_repository": ""} | settings))

    def write_dist(self, revision: str = "", **others: str) -> None:
        """Writes the release's files; keywords replace facts of release.json."""
        shutil.rmtree(self.dist, ignore_errors=True)
        self.dist.mkdir()
        facts = {"version": TAG[1:], "tag": TAG, "revision": revision or self.head} | others
        (self.dist / "release.json").write_text(json.dumps(facts))
        (self.dist / "notes.md").write_text("What is new\n")
        self.write_audit(datetime.datetime.now(datetime.UTC).date())
        (self.dist / WHEEL).write_bytes(bytes(range(256)) * 4096)
        self.write_sums()

    def write_audit(self, day: datetime.date | str, **unchecked: int) -> None:
        """Writes the known vulnerabilities of one image."""
        content = {"date": str(day), "images": {"small": {"unchecked": unchecked}}}
        (self.dist / "vulnerabilities.json").write_text(json.dumps(content))

    def write_sums(self) -> None:
        (self.dist / "SHA256SUMS").unlink(missing_ok=True)
        (self.dist / "SHA256SUMS").write_text(
            "".join(f"{sha256(data)}  {name}\n" for name, data in sorted(self.files.items()))
        )

    def publish(
        self,
        *arguments: str,
        gh: pathlib.Path = GH,
        keys: tuple[str, ...] = ("--unsigned",),
        tested: bool = True,
        **environment: str,
    ) -> subprocess.CompletedProcess:
        """Runs the program as Bazel does, with the host's environment and these variables, except for empty ones.

        Without `tested`, as tools/bazel does before the tests.
        """
        variables = {
            "PATH": os.path.dirname(GIT),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(self.folder / "home"),
            "GH_CONFIG_DIR": str(self.folder / "gh"),
            "BUILD_WORKSPACE_DIRECTORY": str(self.work),
        }
        variables |= self.host.environment | environment
        command = [sys.executable, "-m", "release.private.publish"]
        command += [
            *([f"--dist={self.dist}"] if tested else ["--version=0.1.0", "--stamped"]),
            f"--gh={gh}",
            f"--cosign={COSIGN}",
            f"--settings={self.settings}",
            *keys,
            *arguments,
        ]
        variables = {name: value for name, value in variables.items() if value}
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600
        )
        done.stderr = done.stderr.removeprefix(NOT_SIGNED)
        return done

    def refusal(self, *arguments: str, **options: Any) -> str:
        """The one line of a run that must fail."""
        done = self.publish(*arguments, **options)
        assert done.returncode == 1, done
        assert done.stderr.startswith("publish: ") and done.stderr.count("\n") == 1, done.stderr
        assert TOKEN not in done.stderr + done.stdout
        return done.stderr

    def published(self, *arguments: str, **options: Any) -> str:
        """What a run that must succeed prints."""
        done = self.publish(*arguments, **options)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def assert_published_whole(self) -> None:
        (release,) = self.host.releases
        assert not release["draft"]
        assert {asset["name"]: (asset["state"], asset["data"]) for asset in release["assets"]} == {
            name: ("uploaded", data) for name, data in self.files.items()
        }
        assert (release["tag_name"], release["name"], release["body"]) == (TAG, TAG, "What is new\n")


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> Iterator[Checkout]:
    made = Checkout(tmp_path)
    yield made
    made.host.close()


# What is published.


def test_publishes_every_file_and_makes_it_public_last(checkout: Checkout) -> None:
    printed = checkout.published()
    checkout.assert_published_whole()
    assert checkout.host.writes[0] == "POST /repos/owner/repo/releases"
    assert checkout.host.writes[-1].startswith("PATCH ")
    for name in checkout.files:
        assert f"uploaded  {name} (" in printed
    assert printed.endswith(f"published {TAG}: http://github.localhost/{REPOSITORY}/releases/tag/{TAG}\n")


def test_a_second_run_sends_nothing(checkout: Checkout) -> None:
    checkout.published()
    checkout.host.requests.clear()
    assert "published already with the same 5 files" in checkout.published()
    assert checkout.host.writes == []


def test_finds_a_release_beyond_the_first_page(checkout: Checkout) -> None:
    checkout.host.add_release(TAG, checkout.files)
    checkout.host.add_release("v0.0.9", {})
    checkout.host.page_size = 1
    assert "published already" in checkout.published()


def test_hashes_the_bytes_where_the_host_gives_no_digest(checkout: Checkout) -> None:
    checkout.host.digests = False
    checkout.published()
    checkout.assert_published_whole()
    checkout.host.releases[0]["assets"][0]["data"] = b"other"
    assert f"found {sha256(b'other')}" in checkout.refusal()


def test_a_dry_run_says_what_it_would_send_and_asks_nobody(checkout: Checkout) -> None:
    printed = checkout.published("--dry-run", GH_TOKEN="")
    for name, data in checkout.files.items():
        assert f"would upload  {sha256(data)}  {name}\n" in printed
    assert checkout.host.requests == []


@pytest.mark.parametrize(
    ("arguments", "setting", "variable", "asked"),
    [
        (["--repository=a/flag"], "a/setting", "a/variable", "a/flag"),
        ([], "a/setting", "a/variable", "a/setting"),
        ([], "", "a/variable", "a/variable"),
    ],
)
def test_repository_is_the_flags_then_the_settings_then_the_workflows(
    checkout: Checkout, arguments: Any, setting: str, variable: str, asked: Any
) -> None:
    checkout.set(release_repository=setting)
    assert f"would publish {TAG} in {asked};" in checkout.published("--dry-run", *arguments, GITHUB_REPOSITORY=variable)


# Signatures.


class Key:
    """A cosign key, and the way to give it to the program: a file, or a variable."""

    def __init__(self, folder: pathlib.Path, name: str) -> None:
        self.prefix = folder / name
        self.environment = {"COSIGN_PASSWORD": "secret", "HOME": str(folder), "PATH": "/usr/bin:/bin"}
        self.cosign("generate-key-pair", "--output-key-prefix", str(self.prefix))

    def cosign(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([str(COSIGN), *arguments], env=self.environment, capture_output=True, text=True)

    def publish(self, checkout: Checkout) -> str:
        return checkout.published(keys=("--key", f"{self.prefix}.key"), COSIGN_PASSWORD="secret")

    def verifies(self, checkout: Checkout) -> bool:
        """Whether the real cosign takes what lies on the release page."""
        assets = {asset["name"]: asset["data"] for asset in checkout.host.releases[0]["assets"]}
        files = {name: self.prefix.with_name(name) for name in ("SHA256SUMS", "SHA256SUMS.sig")}
        for name, file in files.items():
            file.write_bytes(assets[name])
        flags = [
            "--key",
            f"{self.prefix}.pub",
            "--insecure-ignore-tlog=true",
            "--signature",
            str(files["SHA256SUMS.sig"]),
        ]
        return self.cosign("verify-blob", *flags, str(files["SHA256SUMS"])).returncode == 0


@pytest.fixture
def key(tmp_path: pathlib.Path) -> Key:
    return Key(tmp_path, "ours")


def test_the_sums_are_signed_and_the_real_cosign_verifies_them(
    checkout: Checkout, key: Key, tmp_path: pathlib.Path
) -> None:
    assert "uploaded  SHA256SUMS.sig (" in key.publish(checkout)
    assert key.verifies(checkout)
    assert not Key(tmp_path, "stranger").verifies(checkout)


def test_the_key_may_come_from_the_environment(checkout: Checkout, key: Key) -> None:
    content = pathlib.Path(f"{key.prefix}.key").read_text()
    checkout.published(keys=(), COSIGN_PRIVATE_KEY=content, COSIGN_PASSWORD="secret")
    assert key.verifies(checkout)


def test_gh_does_not_get_the_signing_key(checkout: Checkout, key: Key, tmp_path: pathlib.Path) -> None:
    wrapper = tmp_path / "gh-wrapper"
    wrapper.write_text(f'#!/bin/sh\nenv | cut -d= -f1 >> {tmp_path}/variables\nexec {GH} "$@"\n')
    wrapper.chmod(0o755)
    content = pathlib.Path(f"{key.prefix}.key").read_text()
    done = checkout.publish(
        gh=wrapper, keys=(), COSIGN_PRIVATE_KEY=content, COSIGN_PASSWORD="secret", ACTIONS_RUNTIME_TOKEN="other"
    )
    assert done.returncode == 0, done.stderr
    seen = set((tmp_path / "variables").read_text().split())
    assert {"GH_TOKEN", "HOME", "PATH"} <= seen
    assert not [name for name in seen if name.startswith(("COSIGN_", "ACTIONS_"))]


def test_a_signature_that_is_there_is_kept(checkout: Checkout, key: Key) -> None:
    checkout.host.faults = [Fault(r"PATCH .*", 500, "Server Error")]
    assert "HTTP 500" in checkout.refusal(keys=("--key", f"{key.prefix}.key"), COSIGN_PASSWORD="secret")
    checkout.host.faults = []
    assert "kept      SHA256SUMS.sig\n" in key.publish(checkout)
    checkout.host.requests.clear()
    assert "published already with the same 6 files" in key.publish(checkout)
    assert checkout.host.writes == []


def test_a_public_release_with_another_signature_is_refused(
    checkout: Checkout, key: Key, tmp_path: pathlib.Path
) -> None:
    Key(tmp_path, "stranger").publish(checkout)
    message = checkout.refusal(keys=("--key", f"{key.prefix}.key"), COSIGN_PASSWORD="secret")
    assert "with other files: SHA256SUMS.sig: expected " in message
    assert "SHA256SUMS.sig: expected no such file" in checkout.refusal()


@pytest.mark.parametrize(
    ("keys", "environment", "says"),
    [
        ((), {}, "no signing key: pass --key FILE or set COSIGN_PRIVATE_KEY"),
        (("--key", "nowhere"), {}, "--key: expected a file with a cosign private key, found none at nowhere"),
        (
            (),
            {"COSIGN_PRIVATE_KEY": "no key", "COSIGN_PASSWORD": "secret"},
            "signing key: expected a cosign private key",
        ),
    ],
)
def test_without_a_good_key_the_host_is_not_asked(checkout: Checkout, keys: Any, environment: Any, says: str) -> None:
    assert says in checkout.refusal(keys=keys, **environment)
    assert checkout.host.requests == []


# What breaks off.


def test_a_cut_upload_leaves_a_draft_and_the_next_run_ends_it(checkout: Checkout) -> None:
    checkout.host.faults = [Fault(r"POST .*/assets", None, times=1)]
    assert "run the same command again" in checkout.refusal()
    (release,) = checkout.host.releases
    assert release["draft"] and [asset["state"] for asset in release["assets"]] == ["starter"]
    checkout.published()
    checkout.assert_published_whole()


def test_a_resumed_upload_keeps_whole_files_and_replaces_broken_ones(checkout: Checkout) -> None:
    draft = checkout.host.add_release(
        TAG, {"notes.md": checkout.files["notes.md"], "release.json": b"of an older build"}, draft=True
    )
    checkout.host.add_asset(draft, WHEEL, b"half", state="starter")
    checkout.host.add_asset(draft, "SHA256SUMS", checkout.files["SHA256SUMS"], state="starter")
    printed = checkout.published()
    assert "kept      notes.md\n" in printed
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("uploaded")] == [
        "SHA256SUMS",
        WHEEL,
        "release.json",
        "vulnerabilities.json",
    ]
    checkout.assert_published_whole()


def test_a_file_that_arrives_damaged_is_not_published(checkout: Checkout) -> None:
    draft = checkout.host.add_release(TAG, {}, draft=True)
    add = checkout.host.add_asset
    checkout.host.add_asset = lambda release, name, data: add(release, name, data[:-1] if name == WHEEL else data)
    message = checkout.refusal()
    assert f"{WHEEL}: expected {sha256(checkout.files[WHEEL])}, found {sha256(checkout.files[WHEEL][:-1])}" in message
    assert draft["draft"]


def test_a_draft_with_a_foreign_file_is_not_published(checkout: Checkout) -> None:
    draft = checkout.host.add_release(TAG, {"virus.exe": b""}, draft=True)
    assert f"gh release delete-asset {TAG} virus.exe --repo {REPOSITORY}" in checkout.refusal()
    assert draft["draft"] and checkout.host.writes == []


def test_two_drafts_are_refused(checkout: Checkout) -> None:
    for _ in range(2):
        checkout.host.add_release(TAG, {}, draft=True)
    assert "expected one draft, found 2" in checkout.refusal()
    assert checkout.host.writes == []


# What is public already.


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({WHEEL: b"other"}, f"{WHEEL}: expected {sha256(bytes(range(256)) * 4096)}, found {sha256(b'other')}"),
        ({"notes.md": None}, f"notes.md: expected {sha256(b'What is new' + bytes([10]))}, found no such file"),
        ({"extra": b"more"}, f"extra: expected no such file, found {sha256(b'more')}"),
    ],
)
def test_a_public_release_with_other_files_is_refused(checkout: Checkout, change: Any, says: str) -> None:
    files = {name: data for name, data in (checkout.files | change).items() if data is not None}
    checkout.host.add_release(TAG, files)
    message = checkout.refusal()
    assert says in message and "raise VERSION" in message
    assert checkout.host.writes == []


# What is refused before anything is sent.


def untracked(checkout: Checkout) -> str:
    (checkout.work / "new file").write_text("")
    return "checkout: expected no file that differs from its commit, found new file. "


def changed(checkout: Checkout) -> str:
    (checkout.work / "file").write_text("b")
    return "checkout: expected no file that differs from its commit, found file. To fix it: git stash"


def no_tag(checkout: Checkout) -> str:
    checkout.git("tag", "--delete", TAG)
    return f"found no such tag. To fix it: git tag {TAG} && git push origin {TAG}"


def tag_elsewhere(checkout: Checkout) -> str:
    (checkout.work / "file").write_text("b")
    tagged = checkout.head
    checkout.commit()
    checkout.write_dist()
    return (
        f"tag {TAG}: expected on {checkout.head}, which is checked out, found on {tagged}."
        f" To fix it: git checkout {TAG}"
    )


def unstamped(checkout: Checkout) -> str:
    checkout.write_dist("unstamped")
    return "found unstamped. To build them: tools/bazel run --config=release //release:publish"


def another_commit(checkout: Checkout) -> str:
    checkout.write_dist("0" * 40)
    return f"expected files built from {checkout.head}, found {'0' * 40}"


def other_bytes(checkout: Checkout) -> str:
    (checkout.dist / WHEEL).write_bytes(b"other")
    return f"{WHEEL}: expected {sha256(bytes(range(256)) * 4096)}, as SHA256SUMS says, found {sha256(b'other')}"


def missing_file(checkout: Checkout) -> str:
    (checkout.dist / WHEEL).unlink()
    return f"{WHEEL}: expected {sha256(bytes(range(256)) * 4096)}, as SHA256SUMS says, found no such file"


def unlisted_file(checkout: Checkout) -> str:
    (checkout.dist / "extra").write_bytes(b"more")
    return f"extra: expected no such file, as SHA256SUMS says, found {sha256(b'more')}"


def no_notes(checkout: Checkout) -> str:
    (checkout.dist / "notes.md").unlink()
    checkout.write_sums()
    return "notes.md: expected the release's text, found no such file"


def no_sums(checkout: Checkout) -> str:
    (checkout.dist / "SHA256SUMS").unlink()
    return "expected a release with SHA256SUMS and release.json, found FileNotFoundError"


def not_sums(checkout: Checkout) -> str:
    (checkout.dist / "SHA256SUMS").write_text("hello\n")
    return "SHA256SUMS: expected lines of sha256 and file name, found 'hello'"


def renamed_by_the_host(checkout: Checkout) -> str:
    (checkout.dist / "a~b").write_bytes(b"")
    checkout.write_sums()
    return "a~b: expected a name that the host keeps"


def old_audit(checkout: Checkout) -> str:
    day = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=32)
    checkout.write_audit(day)
    checkout.write_sums()
    return f"expected an audit of the last 30 days, found one of {day}. To audit: tools/bazel run //locks:audit --"


def partial_audit(checkout: Checkout) -> str:
    checkout.write_audit(datetime.datetime.now(datetime.UTC).date(), crates=3, GIT=1)
    checkout.write_sums()
    return "expected every component checked, found unchecked ones: 4 of small. To audit:"


def no_audit(checkout: Checkout) -> str:
    (checkout.dist / "vulnerabilities.json").unlink()
    checkout.write_sums()
    return "vulnerabilities.json: expected known vulnerabilities, found FileNotFoundError"


def strange_audit(checkout: Checkout) -> str:
    checkout.write_audit("yesterday")
    checkout.write_sums()
    return "vulnerabilities.json: expected known vulnerabilities, found ValueError"


def audit_to_come(checkout: Checkout) -> str:
    checkout.write_audit("9999-12-31")
    checkout.write_sums()
    return "vulnerabilities.json: expected known vulnerabilities, found ValueError('a date to come"


def audit_below_nothing(checkout: Checkout) -> str:
    checkout.write_audit(datetime.datetime.now(datetime.UTC).date(), PyPI=5, crates=-5)
    checkout.write_sums()
    return "vulnerabilities.json: expected known vulnerabilities, found ValueError("


def no_repository(checkout: Checkout) -> str:
    checkout.set(release_repository="")
    return "repository: expected OWNER/REPO, found none"


def tag_elsewhere_on_the_host(checkout: Checkout) -> str:
    checkout.host.tags[TAG] = "1" * 40
    return f"tag {TAG} in {REPOSITORY}: expected on {checkout.head}, found {'1' * 40}. To fix it: git push origin {TAG}"


def tag_not_on_the_host(checkout: Checkout) -> str:
    checkout.host.tags.clear()
    return f"expected on {checkout.head}, found none. To fix it: git push origin {TAG}"


def no_checkout(checkout: Checkout) -> str:
    shutil.rmtree(checkout.work / ".git")
    # Where tests have their folders may be in a checkout, or not.
    return "expected a git checkout, found "


def folder_of_another_checkout(checkout: Checkout) -> str:
    shutil.rmtree(checkout.work / ".git")
    subprocess.run([GIT, "init", "--quiet", str(checkout.work.parent)], check=True)
    return (
        f"expected a git checkout, found a folder in that of {checkout.work.parent.resolve()}. A release is made in a"
        " clone"
    )


@pytest.mark.parametrize(
    "break_it",
    [
        untracked,
        changed,
        no_tag,
        tag_elsewhere,
        unstamped,
        another_commit,
        other_bytes,
        missing_file,
        unlisted_file,
        no_notes,
        no_sums,
        not_sums,
        renamed_by_the_host,
        old_audit,
        partial_audit,
        no_audit,
        strange_audit,
        audit_to_come,
        audit_below_nothing,
        no_repository,
        tag_elsewhere_on_the_host,
        tag_not_on_the_host,
        no_checkout,
        folder_of_another_checkout,
    ],
)
def test_refuses(checkout: Checkout, break_it: Callable[[Checkout], Any]) -> None:
    expected = break_it(checkout)
    assert expected in checkout.refusal()
    assert checkout.host.writes == []


@pytest.mark.parametrize(
    "break_it",
    [
        untracked,
        changed,
        no_tag,
        tag_elsewhere,
        no_repository,
        tag_elsewhere_on_the_host,
        tag_not_on_the_host,
        no_checkout,
        folder_of_another_checkout,
    ],
)
def test_what_needs_no_file_is_refused_before_the_tests(
    checkout: Checkout, break_it: Callable[[Checkout], Any]
) -> None:
    expected = break_it(checkout)
    assert expected in checkout.refusal(tested=False)


def test_credentials_tag_and_key_are_checked_before_the_tests(checkout: Checkout) -> None:
    refusal = functools.partial(checkout.refusal, tested=False)
    assert "expected GH_TOKEN, GITHUB_TOKEN or gh's own login, found none" in refusal(GH_TOKEN="")
    assert "Bad credentials" in refusal(GH_TOKEN="another")
    assert "expected v0.1.0, the version in version.bzl, found v0.2.0" in refusal("--tag=v0.2.0")
    assert "no signing key" in refusal(keys=())
    assert "--key: expected a file with a cosign private key, found none at" in refusal(keys=("--key=absent",))
    done = checkout.publish(tested=False)
    assert (done.returncode, done.stdout) == (0, "") and "good; the tests are next" in done.stderr
    assert checkout.host.writes == []


def test_an_unstamped_build_is_refused_before_it_begins(checkout: Checkout) -> None:
    command = [sys.executable, "-m", "release.private.publish", f"--gh={GH}", f"--cosign={COSIGN}", "--version=0.1.0"]
    command += [f"--settings={checkout.settings}", "--unsigned", "--dry-run"]
    environment = {"PATH": os.path.dirname(GIT), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    environment |= {"BUILD_WORKSPACE_DIRECTORY": str(checkout.work)} | checkout.host.environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and unstamped(checkout) in done.stderr, done.stderr


@pytest.mark.parametrize("break_it", [old_audit, partial_audit])
def test_an_audit_can_be_accepted_as_it_is(checkout: Checkout, break_it: Callable[[Checkout], Any]) -> None:
    break_it(checkout)
    checkout.published("--accept-audit")
    checkout.assert_published_whole()


@pytest.mark.parametrize("tag", ["0.1.0", "v0.1", "v0.1.0-rc1", "v0.1.00", "release", "v0.1.0\n"])
def test_a_tag_that_is_no_version_is_refused(checkout: Checkout, tag: str) -> None:
    assert f"expected vX.Y.Z with three plain numbers, found {tag!r}" in " ".join(
        checkout.publish("--tag", tag).stderr.splitlines()
    )
    assert checkout.host.requests == []


def test_a_tag_that_is_not_the_versions_is_refused(checkout: Checkout) -> None:
    checkout.git("tag", "v0.2.0")
    assert "expected v0.1.0, the version in version.bzl, found v0.2.0" in checkout.refusal("--tag=v0.2.0")
    assert "found v0.2.0" in checkout.refusal(GITHUB_REF_TYPE="tag", GITHUB_REF_NAME="v0.2.0")
    assert "would publish v0.1.0" in checkout.published("--dry-run", GITHUB_REF_TYPE="branch", GITHUB_REF_NAME="v0.2.0")
    assert checkout.host.requests == []


def test_an_annotated_tag_counts_as_on_its_commit(checkout: Checkout) -> None:
    checkout.git("tag", "--force", "--annotate", "--message=m", TAG)
    assert "would publish" in checkout.published("--dry-run")


def test_no_credentials(checkout: Checkout) -> None:
    assert "expected GH_TOKEN, GITHUB_TOKEN or gh's own login, found none" in checkout.refusal(GH_TOKEN="")
    assert checkout.host.requests == []


def test_what_the_machine_must_have(checkout: Checkout) -> None:
    assert "git: expected on PATH, found none" in checkout.refusal(PATH="/nonexistent")
    assert "gh: expected at /nonexistent/gh, found none" in checkout.refusal(gh=pathlib.Path("/nonexistent/gh"))
    assert "found no BUILD_WORKSPACE_DIRECTORY" in checkout.refusal(BUILD_WORKSPACE_DIRECTORY="")


# What the host answers.


@pytest.mark.parametrize(
    ("request_", "status", "message", "says", "advice"),
    [
        ("GET .*", 401, "Bad credentials", "Bad credentials", "set GH_TOKEN"),
        ("GET .*", 404, "Not Found", "Not Found", f"expected the repository {REPOSITORY}"),
        ("GET .*", 500, "Server Error", "HTTP 500", "the host has a problem"),
        ("GET .*", 403, "API rate limit exceeded for user", "API rate limit exceeded", "wait until the limit is reset"),
        ("POST .*/releases", 403, "Resource not accessible by integration", "not accessible", "contents: write"),
        ("POST .*/releases", 422, "Validation Failed", "Validation Failed", "run the same command again"),
        ("POST .*/assets", 502, "Bad Gateway", "HTTP 502", "run the same command again, which keeps what was uploaded"),
        ("PATCH .*", 500, "Server Error", "HTTP 500", "the host has a problem"),
    ],
)
def test_a_failure_of_the_host_is_one_line_with_its_reason_and_what_to_do(
    checkout: Checkout, request_: str, status: int | None, message: str, says: str, advice: str
) -> None:
    checkout.host.faults = [Fault(request_, status, message)]
    line = checkout.refusal()
    assert says in line and advice in line
    assert all(release["draft"] for release in checkout.host.releases)


def test_a_token_that_the_host_does_not_know(checkout: Checkout) -> None:
    line = checkout.refusal(GH_TOKEN="another")
    assert "Bad credentials" in line and "another" not in line
    assert checkout.host.writes == []


def test_a_host_that_does_not_answer(checkout: Checkout) -> None:
    line = checkout.refusal(HTTP_PROXY="http://127.0.0.1:1")
    assert "connection refused" in line and "check the network and the proxy" in line


def test_a_download_that_breaks_off_is_no_difference_of_bytes(checkout: Checkout) -> None:
    checkout.host.digests = False
    checkout.host.add_release(TAG, checkout.files)
    checkout.host.faults = [Fault(r"GET /\d+", 503, "Slow down")]
    assert "the host failed: " in checkout.refusal()


ASSET = {"name": "x", "state": "uploaded", "url": "https://x", "id": 1}
RELEASE = {"url": "https://x", "html_url": "https://x", "draft": False, "assets": [ASSET]}


@pytest.mark.parametrize(
    ("part", "answer"),
    [
        *(("commits", answer) for answer in ("", "[", "[]", "7", "{}")),
        *(("releases", answer) for answer in ("[", "[]", "7", "{}", "[" * 50_000)),
        *(
            ("releases", json.dumps(RELEASE | {key: value}))
            for key in ("url", "html_url", "draft", "assets")
            for value in (None, 7, [7])
        ),
        *(
            ("releases", json.dumps(RELEASE | {"assets": [{**ASSET, key: value}]}))
            for key in ("name", "state", "url", "id", "digest")
            for value in ({"x": 1}, [7])
        ),
    ],
    ids=lambda text: text[:90],
)
def test_an_answer_of_another_form_is_one_line(
    checkout: Checkout, tmp_path: pathlib.Path, part: str, answer: str
) -> None:
    (tmp_path / "answer").write_text(answer)
    said = checkout.refusal(instead_of_gh(tmp_path, part, f"cat {tmp_path / 'answer'}"))
    assert "the host failed: the host's answer: expected JSON as GitHub writes it, found " in said
    assert checkout.host.writes == []


def instead_of_gh(folder: pathlib.Path, part: str, does: str) -> str:
    """A program that does something else if its words have a part, and is gh otherwise."""
    program = folder / "other-gh"
    program.write_text(f'#!/bin/sh\ncase "$*" in *{part}*) {does};; *) exec {GH} "$@";; esac\n')
    program.chmod(0o755)
    return f"--gh={program}"


def test_an_answer_without_end_is_one_line(checkout: Checkout, tmp_path: pathlib.Path) -> None:
    assert "the host failed: other-gh: wrote more than " in checkout.refusal(
        instead_of_gh(tmp_path, "releases", "exec yes")
    )


def test_a_download_without_end_is_given_up(checkout: Checkout, tmp_path: pathlib.Path, key: Key) -> None:
    checkout.host.add_release(TAG, checkout.files | {"SHA256SUMS.sig": b"x"})
    gh = instead_of_gh(tmp_path, "://", "exec yes")
    said = checkout.refusal(gh, keys=("--key", f"{key.prefix}.key"), COSIGN_PASSWORD="secret")
    assert "the host failed: other-gh: wrote more than 1048576 bytes" in said


def test_what_the_host_says_is_no_command() -> None:
    error = publish.HostError("gh: not now (HTTP 503)\n::error::revoked\x1b[2J ##[x]\n")
    assert (error.reason, error.status) == (r"not now (HTTP 503) ::error::revoked\x1b[2J ##\[x]", 503)
