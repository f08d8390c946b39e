"""Uploads a release to its page on GitHub with gh, only from a clean checkout of a tag that matches the version.

    tools/bazel run --config=release //release:publish -- [--tag vX.Y.Z] [--repository OWNER/REPO] [--dry-run]

The files go into a draft, which becomes public once the host has every file with the right sha256. An interrupted
upload leaves the draft; run the same command again to continue. A public release is never changed.

A cosign key (--key, or the content of $COSIGN_PRIVATE_KEY; password $COSIGN_PASSWORD) signs SHA256SUMS, and thereby
every file. Credentials are gh's: GH_TOKEN, GITHUB_TOKEN or its own login. GH_HOST names a host other than github.com.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from fetch import arguments, errors, programs, strict_json
from fetch.hashes import file_sha256
from oci.status import UNSTAMPED
from release import checkout
from release.private import signing, tool_environment

SUMS, FACTS, NOTES, VULNERABILITIES = "SHA256SUMS", "release.json", "notes.md", "vulnerabilities.json"
SIGNATURE = SUMS + ".sig"
_TARGET = "--config=release //release:publish"
_COMMAND = f"tools/bazel run {_TARGET}"
_MAKE_AGAIN = f"To build it again: {_COMMAND}"
# Semantic Versioning 2.0.0, clause 2: no leading zeros. Pre-releases are not published.
TAG = re.compile(r"v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
# GitHub renames files with other characters in their names, which would break links and sums.
_FILE_NAME = re.compile(r"[A-Za-z0-9_+@-]+(\.[A-Za-z0-9_+@-]+)*")
# Days for which an audit says enough of what is published.
_AUDIT_DAYS = 30
# GitHub takes files of less than 2 GiB.
_MOST_BYTES = 2 << 30
# A release has some tens of files. A list that is cut off lacks some of them.
_MOST_SUMS = 1 << 20
_SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S+)")

_Answer = TypeVar("_Answer")


class Refused(Exception):
    """Nothing more is published; the message says what was expected and found, and names the command that fixes it."""


class HostError(Exception):
    """gh failed.

    Attributes:
        status: HTTP status of the host's answer, or None if there was none.
        reason: gh's message, in one line.
    """

    def __init__(self, text: str) -> None:
        self.reason = errors.one_line(text, 1000).removeprefix("gh: ") or "gh said nothing"
        codes = re.search(r"HTTP (\d{3})|status code: (\d{3})", self.reason)
        self.status = int(codes[1] or codes[2]) if codes else None
        super().__init__(self.reason)


@dataclasses.dataclass(frozen=True)
class Distribution:
    """A release as a folder of files.

    Attributes:
        folder: the folder.
        tag: the tag that the version requires.
        revision: the commit that the files were built from, or "unstamped".
        sums: name → sha256 of every file, including the list of sums.
        signature: a file outside the folder with the signature of the list of sums, or None.
    """

    folder: pathlib.Path
    tag: str
    revision: str
    sums: dict[str, str]
    signature: pathlib.Path | None = None

    def file(self, name: str) -> pathlib.Path:
        """The path of one of the files."""
        return self.signature if self.signature and name == SIGNATURE else self.folder / name

    def signed(self, signature: pathlib.Path) -> Distribution:
        """The same with the signature as one more file."""
        return dataclasses.replace(self, signature=signature, sums=self.sums | {SIGNATURE: file_sha256(signature)})

    @classmethod
    def read(cls, folder: pathlib.Path) -> Distribution:
        """Reads a folder and compares every file with SHA256SUMS (the format of coreutils' sha256sum).

        Raises:
            Refused: a file is missing, not listed or different, or the folder is not a release.
        """
        try:
            with open(folder / SUMS, encoding="utf-8") as file:
                lines = file.read(_MOST_SUMS).splitlines()
            facts = strict_json.read(folder / FACTS)
            tag, revision = facts["tag"], facts["revision"]
            present = sorted(path.name for path in folder.iterdir())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Refused(
                f"{folder}: expected a release with {SUMS} and {FACTS}, found {error!r}. {_MAKE_AGAIN}"
            ) from None
        listed = {}
        for line in lines:
            match = _SUM_LINE.fullmatch(line)
            if not match:
                raise Refused(f"{SUMS}: expected lines of sha256 and file name, found {line!r}. {_MAKE_AGAIN}")
            listed[match[2]] = match[1]
        for name in sorted({*listed, *present} - {SUMS}):
            path = folder / name
            found = file_sha256(path) if path.is_file() else "no such file"
            if listed.get(name) != found:
                raise Refused(
                    f"{name}: expected {listed.get(name, 'no such file')}, as {SUMS} says, found {found}. {_MAKE_AGAIN}"
                )
            if not _FILE_NAME.fullmatch(name):
                raise Refused(
                    f"{name}: expected a name that the host keeps (letters, digits, . _ + @ -), found others. Rename it"
                    " in //release"
                )
        if NOTES not in listed:
            raise Refused(f"{NOTES}: expected the release's text, found no such file. {_MAKE_AGAIN}")
        return cls(folder, tag, revision, listed | {SUMS: file_sha256(folder / SUMS)})


def check_checkout(workspace: pathlib.Path, tag: str) -> str:
    """The commit that is checked out, once it is clean and the tag is on it.

    Raises:
        Refused: files differ from the commit or are untracked; the tag is missing or elsewhere; there is no git or no
          commit.
    """
    folder = str(workspace)
    try:
        # A copy of the sources in a folder of another repository is no checkout: git would answer for that one.
        top = checkout.root(folder)
        if top != os.path.realpath(folder):
            raise Refused(
                f"{workspace}: expected a git checkout, found a folder in that of {top}. A release is made in a clone"
            )
        changed = checkout.differences(folder)
        head = checkout.head(folder)
    except checkout.NoCheckout as error:
        raise Refused(
            str(error)
            if str(error).startswith("git: ")
            else f"{workspace}: expected a git checkout, found {str(error)!r}. A release is made in a clone"
        ) from None
    if changed:
        files = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        raise Refused(
            f"checkout: expected no file that differs from its commit, found {files}. To fix it: git stash"
            " --include-untracked, or use a fresh clone"
        )
    try:
        tagged = checkout.git(folder, "rev-parse", "--quiet", "--verify", f"refs/tags/{tag}^{{commit}}").strip()
    except checkout.NoCheckout:
        tagged = ""
    if not tagged:
        raise Refused(
            f"tag {tag}: expected on {head}, found no such tag. To fix it: git tag {tag} && git push origin {tag}"
        )
    if tagged != head:
        raise Refused(
            f"tag {tag}: expected on {head}, which is checked out, found on {tagged}. To fix it: git checkout {tag} &&"
            f" {_COMMAND}"
        )
    return head


def check_hosts_tag(page: ReleasePage, head: str) -> None:
    """Checks that the host has the tag on the same commit.

    Raises:
        Refused: it has not.
        HostError: it does not answer.
    """
    tagged = page.tagged_commit()
    if tagged != head:
        raise Refused(
            f"tag {page.tag} in {page.repository}: expected on {head}, found {tagged or 'none'}. To fix it: git push"
            f" origin {page.tag}"
        )


def check_audit(distribution: Distribution, today: datetime.date) -> None:
    """Checks that the audit whose numbers are on the page is recent and covers all images.

    Raises:
        Refused: it does not.
    """
    path = distribution.folder / VULNERABILITIES
    again = (
        "To audit: tools/bazel run //locks:audit -- --record --data PLACE … (locks/README.md), commit"
        " locks/vulnerabilities.lock.json and tag that; or publish as it is, and the page says so: --accept-audit"
    )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        days = (today - datetime.date.fromisoformat(content["date"])).days
        counts = {name: list(facts["unchecked"].values()) for name, facts in content["images"].items()}
        if days < -1 or not counts or min([0, *(number for listed in counts.values() for number in listed)]) < 0:
            raise ValueError("a date to come, no image, or less than nothing")
        unchecked = {name: sum(listed) for name, listed in counts.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{path.name}: expected known vulnerabilities, found {error!r}. {_MAKE_AGAIN}") from None
    if days > _AUDIT_DAYS:
        raise Refused(
            f"{path.name}: expected an audit of the last {_AUDIT_DAYS} days, found one of {content['date']}. {again}"
        )
    if any(unchecked.values()):
        listed = ", ".join(f"{number} of {name}" for name, number in unchecked.items() if number)
        raise Refused(f"{path.name}: expected every component checked, found unchecked ones: {listed}. {again}")


class ReleasePage:
    """The releases of a repository on the host, through gh.

    Args:
        gh: path of the program.
        repository: OWNER/REPO.
        tag: the release's tag.
    """

    def __init__(self, gh: pathlib.Path, repository: str, tag: str) -> None:
        self.gh, self.repository, self.tag = gh, repository, tag
        self._hashes: dict[int, str] = {}

    def _run(self, *words: str, **options: Any) -> str:
        environment = tool_environment.only(os.environ, *tool_environment.GITHUB) | {
            "GH_NO_UPDATE_NOTIFIER": "1",
            "GH_PROMPT_DISABLED": "1",
            "NO_COLOR": "1",
        }
        try:
            return programs.run([str(self.gh), *words], environment=environment, **options)
        except programs.ProgramError as error:
            raise HostError(error.said) from None

    def _answer(self, text: str, read: Callable[[Any], _Answer]) -> _Answer:
        """What the host answers as JSON, taken apart by `read`.

        Raises:
            HostError: it is of another form.
        """
        try:
            return read(strict_json.parse(text))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise HostError(f"the host's answer: expected JSON as GitHub writes it, found {error!r:.200}") from None

    def _release(self, command: str, *words: str, **options: Any) -> str:
        return self._run("release", command, self.tag, "--repo", self.repository, *words, **options)

    def has_credentials(self) -> bool:
        """Whether gh has a token for its host; does not contact the host."""
        try:
            return bool(self._run("auth", "token"))
        except HostError:
            return False

    def tagged_commit(self) -> str | None:
        """The commit that the tag is on at the host, or None."""
        try:
            text = self._run("api", f"repos/{self.repository}/commits/tags/{self.tag}")
            return self._answer(text, lambda commit: str(commit["sha"]))
        except HostError as error:
            if error.status == 422:  # "No commit found for SHA": the repository exists, the tag does not.
                return None
            raise

    def find(self) -> list[dict]:
        """All releases of the tag, including drafts, which the host's look-up by tag leaves out."""
        of_tag = f'.[] | select(.tag_name == "{self.tag}")'
        lines = self._run("api", "--paginate", f"repos/{self.repository}/releases?per_page=100", "--jq", of_tag)
        return [self._answer(line, _release) for line in lines.splitlines()]

    def again(self, release: dict) -> dict:
        """A release as the host has it now."""
        return self._answer(self._run("api", release["url"]), _release)

    def create_draft(self, notes: pathlib.Path) -> dict:
        self._release("create", "--draft", "--verify-tag", "--title", self.tag, "--notes-file", str(notes))
        return self.again({"url": self._release("view", "--json", "apiUrl", "--jq", ".apiUrl").strip()})

    def upload(self, file: pathlib.Path) -> None:
        self._release("upload", "--clobber", str(file), seconds=programs.SECONDS_OF_TRANSFER)

    def publish(self, notes: pathlib.Path) -> None:
        self._release("edit", "--draft=false", "--title", self.tag, "--notes-file", str(notes))

    def sums(self, release: dict) -> dict[str, str]:
        """Name → sha256 of a release's files, or "incomplete upload" for a file whose upload was interrupted."""
        return {asset["name"]: self._sum(asset) for asset in release["assets"]}

    def _sum(self, asset: dict) -> str:
        if asset["state"] != "uploaded":
            return "incomplete upload"
        # Older hosts do not report it, so download and hash the file.
        said = (asset.get("digest") or "").removeprefix("sha256:")
        if not said and asset["id"] not in self._hashes:
            digest = hashlib.sha256()
            self._download(asset, digest.update, _MOST_BYTES)
            self._hashes[asset["id"]] = digest.hexdigest()
        return said or self._hashes[asset["id"]]

    def _download(self, asset: dict, sink: Callable[[bytes], None], most: int) -> None:
        words = ("api", asset["url"], "--header", "Accept: application/octet-stream")
        self._run(*words, sink=sink, most=most, seconds=programs.SECONDS_OF_TRANSFER)

    def read(self, releases: list[dict], name: str) -> bytes | None:
        """The content of a small file, from the first release that has it completely, or None."""
        for asset in (asset for release in releases for asset in release["assets"]):
            if (asset["name"], asset["state"]) == (name, "uploaded"):
                content = bytearray()
                self._download(asset, content.extend, _MOST_SUMS)
                return bytes(content)
        return None


def _release(content: Any) -> dict:
    """A release as the host describes it, once it has what is read of it.

    Raises:
        KeyError, TypeError, ValueError: it has not.
    """
    texts = [content["url"], content["html_url"]]
    for asset in content["assets"]:
        texts += [asset["name"], asset["state"], asset["url"], asset.get("digest") or ""]
        if not isinstance(asset["id"], int):
            raise TypeError("a file without id")
    if not all(isinstance(text, str) for text in texts) or not isinstance(content["draft"], bool):
        raise TypeError("a release without names")
    return dict(content)


def first_difference(expected: dict[str, str], found: dict[str, str]) -> str | None:
    """The first file, by name, on which two sets of sums (name → sha256) disagree, or None."""
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            return f"{name}: expected {expected.get(name, 'no such file')}, found {found.get(name, 'no such file')}"
    return None


def sign(
    page: ReleasePage, releases: list[dict], distribution: Distribution, key: signing.Key, scratch: pathlib.Path
) -> Distribution:
    """The distribution with a signature of its sums: the host's if valid, because every new signature differs."""
    there = page.read(releases, SIGNATURE)
    sums, signature = distribution.folder / SUMS, scratch / SIGNATURE
    signature.write_bytes(there if there and key.has_signed(sums, there) else key.sign_file(sums))
    return distribution.signed(signature)


def upload(
    page: ReleasePage, distribution: Distribution, head: str, key: signing.Key | None, scratch: pathlib.Path
) -> None:
    """Publishes exactly the distribution's files and their signature, unless they are public already.

    Args:
        page: the page to upload to.
        distribution: the files to upload.
        head: the commit that they were built from.
        key: the key that signs the sums.
        scratch: a folder for the signature.

    Raises:
        Refused: the host's files cannot become this release.
        HostError: the host or the connection failed; uploaded files stay in a draft.
    """
    tag = page.tag
    check_hosts_tag(page, head)
    releases = page.find()
    if key:
        distribution = sign(page, releases, distribution, key, scratch)
    sums, notes = distribution.sums, distribution.folder / NOTES
    for release in releases:
        if not release["draft"]:
            if difference := first_difference(sums, page.sums(release)):
                raise Refused(
                    f"release {tag} is public at {release['html_url']} with other files: {difference}. "
                    "It stays as it is: raise VERSION in version.bzl, tag that, and publish it"
                )
            print(f"{tag} is published already with the same {len(sums)} files: {errors.one_line(release['html_url'])}")
            return
    if len(releases) > 1:
        delete = f"gh release delete {tag} --repo {page.repository}"
        raise Refused(f"release {tag}: expected one draft, found {len(releases)}. To delete one: {delete}")
    draft = releases[0] if releases else page.create_draft(notes)
    found = page.sums(draft)
    if foreign := sorted(found.keys() - sums.keys()):
        raise Refused(
            f"draft of {tag}: expected only files of this release, found {', '.join(foreign)}. "
            f"To delete it: gh release delete-asset {tag} {foreign[0]} --repo {page.repository}"
        )
    for name in sorted(sums):
        if found.get(name) == sums[name]:
            print(f"kept      {name}", flush=True)
        else:
            page.upload(distribution.file(name))
            print(f"uploaded  {name} ({distribution.file(name).stat().st_size / 1e6:.1f} MB)", flush=True)
    if difference := first_difference(sums, page.sums(page.again(draft))):
        raise Refused(
            f"draft of {tag}, after the upload: {difference}. It is not published; to replace the file: {_COMMAND}"
        )
    page.publish(notes)
    published = page.again(draft)
    if published["draft"]:
        raise Refused(f"release {tag}: expected it to be public, found it still a draft. To publish it: {_COMMAND}")
    print(f"published {tag}: {errors.one_line(published['html_url'])}")


def remedy(error: HostError, repository: str) -> str:
    """What to do about an error of the host."""
    again = f"run the same command again, which keeps what was uploaded: {_COMMAND}"
    if error.status == 429 or "rate limit" in error.reason:
        return f"wait until the limit is reset (`gh api rate_limit` says when), then {again}"
    if error.status == 401:
        return (
            f"expected a valid token: set GH_TOKEN to one that may write the contents of {repository}, or run gh auth"
            " login"
        )
    if error.status == 403:
        return (
            f"expected a token that may write the contents of {repository} (in a workflow: permissions: contents:"
            " write)"
        )
    if error.status == 404:
        return (
            f"expected the repository {repository}: correct --repository, or set GH_TOKEN to a token that may read and"
            " write it"
        )
    if error.status == 422:
        return f"an interrupted upload leaves such a file, and the next run replaces it; {again}"
    if error.status:
        return f"the host has a problem; later {again}"
    return f"check the network and the proxy, then {again}"


def prepare(options: argparse.Namespace, expected: str) -> tuple[ReleasePage, str]:
    """Checks what needs no built file; returns the page to upload to, and the commit that is checked out.

    Args:
        options: see `main`.
        expected: the tag that the version requires.

    Raises:
        Refused: see the message.
    """
    environment = os.environ
    if "BUILD_WORKSPACE_DIRECTORY" not in environment:
        raise Refused(
            "publish: expected to be run by Bazel in a checkout, found no BUILD_WORKSPACE_DIRECTORY. To run it:"
            f" {_COMMAND}"
        )
    tag = (
        options.tag
        or (environment.get("GITHUB_REF_NAME") if environment.get("GITHUB_REF_TYPE") == "tag" else None)
        or expected
    )
    if not TAG.fullmatch(tag):
        raise Refused(
            f"tag {tag}: expected vX.Y.Z with three plain numbers, found {tag!r}. To fix it: git tag {expected}"
        )
    if tag != expected:
        raise Refused(
            f"tag {tag}: expected {expected}, the version in version.bzl, found {tag}. "
            f"To fix it: git tag {expected}, or change VERSION in version.bzl"
        )
    head = check_checkout(pathlib.Path(environment["BUILD_WORKSPACE_DIRECTORY"]), tag)
    set_here = json.loads(options.settings.read_text())["release_repository"]
    repository = options.repository
    if repository is None:
        repository = set_here or environment.get("GITHUB_REPOSITORY", "")
    if not _REPOSITORY.fullmatch(repository):
        raise Refused(
            f"repository: expected OWNER/REPO, found {repository or 'none'}. To name it: {_COMMAND} -- --repository"
            " OWNER/REPO"
        )
    if not os.access(options.gh, os.X_OK):
        raise Refused(f"gh: expected at {options.gh}, found none. To fetch it: {_COMMAND}")
    page = ReleasePage(options.gh.absolute(), repository, tag)
    if not options.dry_run and not page.has_credentials():
        raise Refused(
            "credentials: expected GH_TOKEN, GITHUB_TOKEN or gh's own login, found none. To fix it: export GH_TOKEN, or"
            " gh auth login"
        )
    return page, head


def check_revision(head: str, revision: str) -> None:
    """Checks that files are built from the commit that is checked out.

    Raises:
        Refused: they are not.
    """
    if revision != head:
        raise Refused(f"{FACTS}: expected files built from {head}, found {revision}. To build them: {_COMMAND}")


@contextlib.contextmanager
def refusing(repository: str) -> Iterator[None]:
    """Says what to do where the key or the host fails."""
    try:
        yield
    except signing.SigningError as error:
        raise Refused(str(error)) from None
    except HostError as error:
        raise Refused(
            f"{repository}: the host failed: {error.reason.rstrip('.')}; {remedy(error, repository)}"
        ) from None


def check(options: argparse.Namespace) -> None:
    """Says what can be said before the tests have run: of the arguments, the checkout, the key and the host's answer.

    Raises:
        Refused: see the message.
    """
    page, head = prepare(options, f"v{options.version}")
    if not options.stamped:
        check_revision(head, UNSTAMPED)
    if options.dry_run:
        return
    with refusing(page.repository):
        signing.check(options, dict(os.environ))
        check_hosts_tag(page, head)
    print("publish: the checkout, the key and the host's answer are good; the tests are next", file=sys.stderr)


def publish(options: argparse.Namespace) -> None:
    """Checks everything that this machine can check, then uploads.

    Raises:
        Refused: see the message.
    """
    distribution = Distribution.read(options.dist)
    page, head = prepare(options, distribution.tag)
    check_revision(head, distribution.revision)
    if not options.accept_audit:
        check_audit(distribution, datetime.datetime.now(datetime.UTC).date())
    if options.dry_run:
        for name, digest in sorted(distribution.sums.items()):
            print(f"would upload  {digest}  {name}")
        print(f"would publish {page.tag} in {page.repository}; the host was not contacted")
        return
    with (
        refusing(page.repository),
        signing.key(options, dict(os.environ)) as key,
        tempfile.TemporaryDirectory() as scratch,
    ):
        upload(page, distribution, head, key, pathlib.Path(scratch))


def main() -> int:
    parser = arguments.Parser(_TARGET, __doc__)
    for flag in ("--gh", "--settings"):
        parser.add_argument(flag, type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    # Without files it only checks, for this version.
    parser.add_argument("--dist", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--version", help=argparse.SUPPRESS)
    parser.add_argument("--stamped", action="store_true", help=argparse.SUPPRESS)
    signing.add_arguments(parser)
    parser.add_argument(
        "--accept-audit",
        action="store_true",
        help=f"publish although the audit is older than {_AUDIT_DAYS} days or does not cover every component",
    )
    parser.add_argument("--tag", help="vX.Y.Z (default: the workflow's tag, otherwise the version's)")
    parser.add_argument(
        "--repository", help="OWNER/REPO (default: `release_repository` in the settings, otherwise $GITHUB_REPOSITORY)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check what this machine can, list the uploads, contact no host"
    )
    options = parser.parse_args()
    programs.interrupt_on_signals()
    try:
        (publish if options.dist else check)(options)
    except KeyboardInterrupt:
        errors.tell("publish", f"interrupted; look at the release page, then run the same command again: {_COMMAND}")
        return 130
    except Refused as refusal:
        errors.tell("publish", refusal)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
