"""Takes the files of one locked commit out of a git checkout on this machine, its upstream repository, or a tar of it.

    python3 fetch/git/checkout.py mlc-llm --repository URL --commit COMMIT --sha256 SHA256 --checkouts FOLDER --to .
    LICENSE cpp
    python3 fetch/git/checkout.py mlc-llm --repository URL --commit COMMIT --sha256 SHA256 --upstream --to . LICENSE cpp
    python3 fetch/git/checkout.py mlc-llm --repository URL --commit COMMIT --sha256 SHA256 --tar mlc-llm.tar --to .
    LICENSE cpp

Prints the files' names. It takes what git has recorded for the commit, never the files of the work tree. It still
refuses a checkout at another commit or with changes in the named paths, because such changes would have no effect.

The hash is that of the tar that `git archive` writes, so that the content does not rely on SHA-1 alone. To use a mirror
of the upstream repository, configure git: git config --global url.MIRROR.insteadOf URL.

Standard library only: repository rules run this on the machine's own Python.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

# A git hook sets these, and then a git command would ignore the folder that it is given.
_REDIRECTIONS = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
)

# The tar must not depend on this user's git configuration.
_ARCHIVE = [
    "-c",
    "tar.umask=0022",
    "-c",
    "core.attributesFile=/dev/null",
    "-c",
    "core.autocrlf=false",
    "-c",
    "core.eol=lf",
]

_UPDATE = "tools/bazel run //locks:update_sources"
_NAMED = 3


class SourceError(Exception):
    """A source differs from the lock; one line says what was expected, what was found and which command fixes it."""

    def __init__(self, source: Source, expected: str, found: str, remedy: str) -> None:
        super().__init__(f"{source.name}: expected {expected}, found {found}: {remedy}")
        self.found = found
        self.remedy = remedy


@dataclasses.dataclass(frozen=True)
class Source:
    """One git source of locks/sources.lock.json.

    Args:
        name: its key there, and its folder's name among the checkouts.
        repository: the address of upstream's.
        commit: 40 hexadecimal digits.
        paths: files and folders, from the repository's root.
        sha256: of the tar that `archive` returns, lower-case hexadecimal; empty if not known yet.
    """

    name: str
    repository: str
    commit: str
    paths: tuple[str, ...]
    sha256: str = ""


def from_entry(name: str, entry: Mapping[str, Any]) -> Source:
    """The source of an entry of locks/sources.lock.json, or of locks/sources.packages.json, which has no hash."""
    return Source(name, entry["repository"], entry["commit"], tuple(entry["paths"]), entry.get("sha256", ""))


def folder_of_checkouts(workspace: pathlib.Path) -> str:
    """MLC_SOURCES of a build in this workspace, as far as it can be known outside of Bazel; empty if not set."""
    settings = workspace / "user.bazelrc"
    text = settings.read_text(encoding="utf-8") if settings.exists() else ""
    # The last one wins, and overrides the environment.
    found = re.findall(r"^(?:common|build)\s.*--repo_env=MLC_SOURCES=(\S*)", text, re.MULTILINE)
    return found[-1] if found else os.environ.get("MLC_SOURCES", "")


def from_checkout(source: Source, checkouts: pathlib.Path) -> bytes:
    """The source as a tar, out of the checkout `checkouts`/<name>; a bare repository with the commit is enough.

    Raises:
        SourceError: there is no such checkout, it is at another commit, its paths have changes, or the content has
          another hash.
    """
    if not checkouts.is_absolute():
        raise SourceError(source, "an absolute path in MLC_SOURCES", str(checkouts), "give an absolute path")
    folder = checkouts / source.name
    quoted = shlex.quote(str(folder))
    expected = f"a git checkout of {source.repository} at {source.commit} in {folder}"
    clone = f"git clone {source.repository} {quoted} && git -C {quoted} checkout {source.commit}"
    if not folder.is_dir():
        raise SourceError(source, expected, "no such folder", clone)
    # A folder inside another checkout has a prefix.
    kind = _git(source, folder, "rev-parse", "--is-bare-repository", "--show-prefix")
    if b"dubious ownership" in kind.stderr:
        raise SourceError(source, expected, "one of another user", f"git config --global --add safe.directory {quoted}")
    if kind.returncode or kind.stdout.split() not in ([b"true"], [b"false"]):
        said = f" ({_said(kind)})" if kind.returncode else ""
        raise SourceError(source, expected, f"a folder that is not one{said}", f"move it away, then {clone}")
    has_commit = not _git(source, folder, "cat-file", "-e", source.commit + "^{commit}").returncode
    fetch = f"git -C {quoted} fetch {source.repository} {source.commit}"
    if kind.stdout.split() == [b"true"]:
        if not has_commit:
            raise SourceError(source, expected, "a repository without that commit", fetch)
        return archive(source, folder)
    head = _git(source, folder, "rev-parse", "--verify", "HEAD^{commit}").stdout.decode().strip() or "no commit"
    if head != source.commit:
        switch = f"git -C {quoted} checkout {source.commit}"
        raise SourceError(source, expected, head, switch if has_commit else f"{fetch} && {switch}")
    # The tar has no submodules.
    options = ["--porcelain", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=all"]
    status = _git(source, folder, "status", *options, "--", *source.paths)
    if status.returncode:
        raise SourceError(
            source, expected, f"one that git cannot read ({_said(status)})", f"move it away, then {clone}"
        )
    changed = [entry[3:].decode("utf-8", "replace") for entry in status.stdout.split(b"\0") if entry]
    if changed:
        more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        stash = f"git -C {quoted} stash push --include-untracked"
        raise SourceError(
            source, expected, f"changes to {', '.join(changed[:_NAMED])}{more}", f"commit them elsewhere, or {stash}"
        )
    return archive(source, folder)


def from_upstream(source: Source) -> bytes:
    """The source as a tar, out of the repository that it comes from.

    Raises:
        SourceError: the repository does not answer, does not have the commit, or the content has another hash.
    """
    expected = f"commit {source.commit} in {source.repository}"
    if no_network := os.environ.get("MLC_NO_NETWORK"):
        raise SourceError(source, expected, "a build without a network", no_network)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        _git(source, folder, "init", "--quiet", "--bare")
        fetched = _git(
            source, folder, "fetch", "--quiet", "--no-tags", "--depth", "1", source.repository, source.commit
        )
        if fetched.returncode:
            if b"not our ref" in fetched.stderr:
                remedy = f"name one that it has in locks/sources.packages.json, then {_UPDATE}"
                raise SourceError(source, expected, "a repository without it", remedy)
            remedy = 'set MLC_SOURCES to a folder of checkouts (README.md, "Sources of mlc-llm")'
            raise SourceError(source, expected, f"that it does not answer ({_said(fetched)})", remedy)
        return archive(source, folder)


def from_tar(source: Source, tar: pathlib.Path) -> bytes:
    """The source as a tar, out of a file that `archive` wrote, for example on another machine.

    Raises:
        SourceError: the file is not there, or has another hash than the lock.
    """
    content = tar.read_bytes() if tar.is_file() else None
    found = sha256(content) if content is not None else "no such file"
    if content is None or found != source.sha256:
        raise SourceError(
            source,
            f"a tar of commit {source.commit} with sha256 {source.sha256} in {tar}",
            found,
            "make the pack again",
        )
    return content


def from_anywhere(source: Source, checkouts: str) -> bytes:
    """The source as a tar, out of the folder of checkouts if it is not empty, else, or if that fails, from upstream.

    Raises:
        SourceError: what is wrong with the checkout, or with upstream if there is none.
    """
    if not checkouts:
        return from_upstream(source)
    try:
        return from_checkout(source, pathlib.Path(checkouts))
    except SourceError as error:
        try:
            return from_upstream(source)
        except SourceError:
            raise error from None


def archive(source: Source, repository: pathlib.Path) -> bytes:
    """The paths of the source's commit as `git archive` writes them: an uncompressed tar, equal for equal content.

    Raises:
        SourceError: the commit has no such path, or the tar has another hash than the lock.
    """
    done = _git(source, repository, *_ARCHIVE, "archive", "--format=tar", source.commit, "--", *source.paths)
    if done.returncode:
        expected = f"{', '.join(source.paths)} in commit {source.commit}"
        found = f"that git cannot read them in {repository} ({_said(done)})"
        raise SourceError(source, expected, found, f"correct locks/sources.packages.json, then {_UPDATE}")
    found = sha256(done.stdout)
    if source.sha256 and found != source.sha256:
        remedy = f"do not build on it, find out why; if the change is intended: {_UPDATE}"
        raise SourceError(source, f"a tar of commit {source.commit} with sha256 {source.sha256}", found, remedy)
    return done.stdout


def sha256(content: bytes) -> str:
    """The hash of a tar of `archive`, as the lock has it."""
    return hashlib.sha256(content).hexdigest()


def export(source: Source, content: bytes, to: pathlib.Path) -> list[str]:
    """Unpacks a tar of `archive` into a folder; returns the files' names.

    Raises:
        SourceError: a member is neither file nor folder, or leads out of the folder.
    """
    root = to.resolve()
    names = []
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        for member in tar:
            target = (root / member.name).resolve()
            if root not in (target, *target.parents) or not (member.isreg() or member.isdir()):
                expected, found = (
                    "files and folders below the repository's root",
                    f"{member.name}, which is a link or leads out",
                )
                raise SourceError(source, expected, found, "name other paths in locks/sources.packages.json")
            if member.isreg():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
                target.chmod(0o755 if member.mode & 0o100 else 0o644)
                names.append(member.name)
    return names


def _git(source: Source, folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment: dict[str, str] = {name: value for name, value in os.environ.items() if name not in _REDIRECTIONS}
    # Ask for no password, write nothing into the user's checkout, and take paths literally.
    environment.update(GIT_TERMINAL_PROMPT="0", GIT_OPTIONAL_LOCKS="0", GIT_LITERAL_PATHSPECS="1", LC_ALL="C")
    try:
        return subprocess.run(["git", "-C", str(folder), *arguments], env=environment, capture_output=True)
    except FileNotFoundError as error:
        raise SourceError(source, "git on PATH", "none", "apt-get install git") from error


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    """What git said, in one line."""
    return " ".join(done.stderr.decode("utf-8", "replace").split())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the source's name in locks/sources.lock.json")
    parser.add_argument("paths", nargs="+", help="files and folders to take")
    parser.add_argument("--repository", required=True, help="the address of upstream's repository")
    parser.add_argument("--commit", required=True, help="40 hexadecimal digits")
    parser.add_argument("--sha256", required=True, help="of the tar that `git archive` makes of them")
    parser.add_argument("--to", type=pathlib.Path, required=True, help="folder that receives the files")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--checkouts", type=pathlib.Path, metavar="FOLDER", help="a folder with the checkout NAME in it")
    place.add_argument("--upstream", action="store_true", help="fetch from the repository")
    place.add_argument("--tar", type=pathlib.Path, help="take them from this tar")
    options = parser.parse_intermixed_args(arguments)
    source = Source(options.name, options.repository, options.commit, tuple(options.paths), options.sha256)
    try:
        if options.tar:
            content = from_tar(source, options.tar)
        else:
            content = from_upstream(source) if options.upstream else from_checkout(source, options.checkouts)
        print("\n".join(export(source, content, options.to)))
    except SourceError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{source.name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
