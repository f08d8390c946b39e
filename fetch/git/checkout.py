"""Takes the files of one locked commit out of a git checkout on this machine, its upstream repository, or a tar of it.

    python3 fetch/git/checkout.py mlc-llm --repository URL --commit COMMIT --sha256 SHA256 --checkouts FOLDER --to .
    LICENSE cpp
    python3 fetch/git/checkout.py mlc-llm --repository URL --commit COMMIT --sha256 SHA256 --upstream --to . LICENSE cpp
    python3 fetch/git/checkout.py mlc-llm --repository URL --commit COMMIT --sha256 SHA256 --tar mlc-llm.tar --to .
    LICENSE cpp

Prints the files' names. It takes what git has recorded for the commit, never the files of the work tree. It still
refuses a checkout at another commit or with changes in the named paths, because such changes would have no effect.

A checkout may come from anyone, and its .git/config names programs that git starts. So git never opens it as a
repository: `opened` reads its objects and its index through an empty repository, without its configuration, hooks and
attributes. Nor does git wait for ever there, or fill the memory. The commands in messages run nothing of a checkout
either: they make a new one.

The hash is that of the tar that `git archive` writes, so that the content does not rely on SHA-1 alone. To use a mirror
of the upstream repository, configure git: git config --global url.MIRROR.insteadOf URL.

Standard library only: repository rules run this on the machine's own Python.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import io
import os
import pathlib
import re
import secrets
import selectors
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))  # repository rules run this file by path

from fetch import archives, errors

# Variables by which the user sets git up, by their beginnings; others redirect it, as those that a git hook sets.
_KEPT_VARIABLES = (
    "GIT_ALLOW_PROTOCOL",
    "GIT_ASKPASS",
    "GIT_CONFIG",
    "GIT_EXEC_PATH",
    "GIT_HTTP",
    "GIT_PROTOCOL",
    "GIT_PROXY",
    "GIT_SSH",
    "GIT_SSL",
    "GIT_TEST",
)

# Neither the user's nor the machine's settings: the tar must depend on none.
_NO_SETTINGS = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1"}

# What a checkout's own configuration may say: how its file system and its line ends are, none of which is a program.
_PLAIN_SETTINGS = ("core.autocrlf", "core.eol", "core.filemode", "core.ignorecase", "core.symlinks")
_PLAIN_VALUE = re.compile(r"true|false|input|lf|crlf|native")

# A file of a git folder other than the index is small.
_MOST_TEXT = 16 << 20

# Limits of each git command: those who write a repository, or answer for it, decide what git reads.
# The largest locked tar has 4 MB. A small object can unpack to any size.
_MOST_OUTPUT = 64 << 20
# Git reads objects up to this size whole, and converts no line ends in larger ones; locked ones are smaller.
_LARGE_FILE = "16m"
_MOST_MEMORY = 1 << 30
# The largest repository, TVM, has 40 MB of files. A fetch writes one pack, and its index.
_MOST_FILE = 2 << 30
_ONE_PACK = ["-c", "fetch.unpackLimit=1", "-c", f"core.bigFileThreshold={_LARGE_FILE}", "-c", "gc.auto=0"]
_SECONDS = 240
# With _SECONDS for git archive less than a repository rule has (source.bzl), after which Bazel says less.
_SECONDS_OF_NETWORK = 1800
_ARCHIVE = ["-c", "tar.umask=0022", "-c", "core.attributesFile=/dev/null", "-c", f"core.bigFileThreshold={_LARGE_FILE}"]

_COMMIT = re.compile(r"[0-9a-f]{40}")

_UPDATE = "tools/bazel run //locks:update_sources"
_NAMED = 3

# What git says at the limits above.
_AT_LIMITS = re.compile(rb"File too large|[Oo]ut of memory|memory exhausted|unable to create thread")
# By this variable, whose value is each command's own, its helpers are known.
_MARK = "MLC_GIT_COMMAND"


class SourceError(errors.UserError):
    """A source differs from the lock; one line says what was expected, what was found and which command fixes it."""

    def __init__(self, source: Source, expected: str, found: str, remedy: str) -> None:
        super().__init__(f"{source.name}: expected {expected}, found {found}: {remedy}")
        self.found, self.remedy = errors.redact(found), errors.redact(remedy)


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
    text = settings.read_text(encoding="utf-8", errors="surrogateescape") if settings.exists() else ""
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
    # Each git command in a checkout, such as stash or fetch, runs programs that its configuration names: only in a new
    # clone there are none.
    clone = f"git clone {source.repository} {quoted} && git -C {quoted} checkout {source.commit}"
    anew = f"move it away, then {clone}"
    if not folder.is_dir():
        raise SourceError(source, expected, "no such folder", clone)
    try:
        with _opened(source, folder) as opened:
            has_commit = not opened.git("cat-file", "-e", source.commit + "^{commit}").returncode
            if opened.bare:
                if not has_commit:
                    raise SourceError(source, expected, "a repository without that commit", anew)
                return opened.archive(source)
            if opened.head != source.commit:
                raise SourceError(source, expected, opened.head or "no commit", anew)
            status = opened.status(source.paths)
            if status.returncode:
                raise SourceError(source, expected, f"one that git cannot read ({_said(status)})", anew)
            changed = [entry[3:].decode("utf-8", "replace") for entry in status.stdout.split(b"\0") if entry]
            if changed:
                more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
                found = f"changes to {', '.join(map(_printable, changed[:_NAMED]))}{more}"
                raise SourceError(source, expected, found, anew)
            return opened.archive(source)
    except UnreadableError as error:
        raise SourceError(source, expected, f"one that git cannot read ({error})", anew) from None
    except NotARepository as error:
        raise SourceError(source, expected, f"a folder that is not one ({error})", anew) from None


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
        _git(source, folder, "init", "--quiet", "--bare", "--template=")
        options = ["--quiet", "--no-tags", "--no-recurse-submodules", "--depth", "1"]
        fetch = [*_ONE_PACK, "fetch", *options, source.repository, source.commit]
        look = "look at what the repository has there"
        try:
            fetched = _run(source, folder, fetch, {"GIT_DIR": scratch}, network=True)
        except UnreadableError as error:
            raise SourceError(source, expected, str(error), look) from None
        if fetched.returncode:
            if _AT_LIMITS.search(fetched.stderr):
                limits = f"{_MOST_FILE >> 20} MiB of disk and {_MOST_MEMORY >> 20} MiB of memory"
                raise SourceError(source, expected, f"one that takes more than {limits} ({_said(fetched)})", look)
            if b"not our ref" in fetched.stderr:
                remedy = f"name one that it has in locks/sources.packages.json, then {_UPDATE}"
                raise SourceError(source, expected, "a repository without it", remedy)
            remedy = 'set MLC_SOURCES to a folder of checkouts (README.md, "Sources of mlc-llm")'
            raise SourceError(source, expected, f"that it does not answer ({_said(fetched)})", remedy)
        try:
            return archive(source, folder)
        except UnreadableError as error:
            raise SourceError(source, expected, str(error), look) from None


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
        UnreadableError: git does not end, or writes more than a source has.
    """
    with _opened(source, repository) as opened:
        return opened.archive(source)


class NotARepository(Exception):
    """A folder is neither a git checkout nor a bare repository; the message says what it lacks."""


class UnreadableError(NotARepository):
    """Git cannot read a repository safely; the message says why."""


@contextlib.contextmanager
def in_repository(folder: pathlib.Path) -> Iterator[Callable[..., subprocess.CompletedProcess[bytes]]]:
    """A function that runs git on the objects of a checkout or bare repository, without its configuration.

    Example:

        with in_repository(folder) as git:
            known = git("cat-file", "-e", commit).returncode == 0

    Raises:
        NotARepository: the folder is none.
        SourceError: there is no git.
    """
    with _opened(Source(folder.name, "", "", ()), folder) as opened:
        yield opened.git


class _Opened:
    """A checkout or bare repository of anyone's, whose objects git reads through an empty repository.

    Args:
        source: for messages.
        folder: the checkout.
        scratch: the empty repository.
    """

    def __init__(self, source: Source, folder: pathlib.Path, scratch: pathlib.Path) -> None:
        self._source, self._folder, self._scratch = source, folder, scratch
        self._own, self._shared, self.bare = _git_folders(folder)
        _refuse_special_files(self._git_files())
        made = _git(source, scratch, "init", "--quiet", "--bare", "--template=", **_NO_SETTINGS)
        if made.returncode:
            raise SourceError(source, "room for an empty repository", _said(made), "set TMPDIR to a folder with room")
        # gitrepository-layout(5): a path in quotes may have any character.
        objects = str(self._shared / "objects").replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        (scratch / "objects/info/alternates").write_bytes(os.fsencode(f'"{objects}"\n'))

    def _git_files(self) -> Iterator[pathlib.Path]:
        """What git reads of the git folders, without what other checkouts have in them."""
        try:
            for folder in {self._own, self._shared}:
                yield from folder.iterdir()
        except OSError as error:
            raise UnreadableError(f"{_printable(str(error.filename))}: {error.strerror}") from None
        for name in ("info", "objects"):
            for place, _, names in os.walk(self._shared / name):
                yield from (pathlib.Path(place, each) for each in names)

    def _rules(self, paths: Sequence[str]) -> Iterator[pathlib.Path]:
        """What git reads of the work tree to compare these paths with the index."""
        folders = {self._folder / part for path in paths for part in pathlib.Path(path).parents}
        folders |= {pathlib.Path(folder) for path in paths for folder, _, _ in os.walk(self._folder / path)}
        yield from (folder / name for folder in folders for name in (".gitattributes", ".gitignore"))

    def git(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Runs git without anyone's settings."""
        return _git(self._source, self._scratch, *arguments, GIT_DIR=str(self._scratch), **_NO_SETTINGS)

    def archive(self, source: Source) -> bytes:
        done = self.git(*_ARCHIVE, "archive", "--format=tar", source.commit, "--", *source.paths)
        if done.returncode:
            expected = f"{', '.join(source.paths)} in commit {source.commit}"
            found = f"that git cannot read them in {self._folder} ({_said(done)})"
            raise SourceError(source, expected, found, f"correct locks/sources.packages.json, then {_UPDATE}")
        found = sha256(done.stdout)
        if source.sha256 and found != source.sha256:
            remedy = f"do not build on it, find out why; if the change is intended: {_UPDATE}"
            raise SourceError(source, f"a tar of commit {source.commit} with sha256 {source.sha256}", found, remedy)
        return done.stdout

    @property
    def head(self) -> str:
        """The commit that is checked out; empty if there is none."""
        value = _text(self._own / "HEAD")
        for _ in range(5):  # Git's own limit.
            if not value.startswith("ref: refs/") or ".." in value:
                break
            name = value.removeprefix("ref: ")
            value = _text(self._own / name) or _text(self._shared / name) or self._packed(name)
        return value if _COMMIT.fullmatch(value) else ""

    def _packed(self, name: str) -> str:
        lines = (line.split(" ") for line in _text(self._shared / "packed-refs").splitlines())
        return next((line[0] for line in lines if line[1:] == [name]), "")

    def status(self, paths: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        """What the work tree has changed, with the user's settings and the checkout's plain ones."""
        _refuse_special_files(self._rules(paths))
        (self._scratch / "HEAD").write_text(self.head + "\n")
        # Older versions of git look for the other half of a split index there, not next to the index.
        for half in self._own.glob("sharedindex.*"):
            (self._scratch / half.name).symlink_to(half)
        (self._scratch / "info").mkdir(exist_ok=True)
        (self._scratch / "info/exclude").write_bytes(os.fsencode(_text(self._shared / "info/exclude")))
        index = self._own / "index"
        return _git(
            self._source,
            self._folder,
            *self._plain_settings(),
            # The tar has no submodules.
            *("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=all"),
            "--",
            *paths,
            GIT_DIR=str(self._scratch),
            GIT_WORK_TREE=str(self._folder),
            GIT_INDEX_FILE=str(index if index.is_file() else self._scratch / "index"),
        )

    def _plain_settings(self) -> Iterator[str]:
        if not (self._shared / "config").is_file():
            return
        for name in _PLAIN_SETTINGS:
            config = ["config", "--file", str(self._shared / "config"), "--no-includes", "--get", name]
            value = self.git(*config).stdout.decode("utf-8", "replace").strip().lower()
            if _PLAIN_VALUE.fullmatch(value):
                yield from ("-c", f"{name}={value}")


@contextlib.contextmanager
def _opened(source: Source, folder: pathlib.Path) -> Iterator[_Opened]:
    with tempfile.TemporaryDirectory() as scratch:
        yield _Opened(source, folder, pathlib.Path(scratch).resolve())


def _git_folders(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path, bool]:
    """A repository's own git folder, the one that it shares with its worktrees, and whether it is bare.

    gitrepository-layout(5): .git is the folder, or a file that names it in worktrees and submodules.

    Raises:
        NotARepository: there is no such folder with objects.
    """
    own, bare = folder / ".git", False
    if own.is_file():
        kind, _, place = _text(own).partition(": ")
        if kind != "gitdir" or not place:
            raise NotARepository(".git does not name a folder")
        own = folder / place
    elif not own.exists():
        own, bare = folder, True
    if not (own / "HEAD").is_file():
        raise NotARepository("it has no .git with a HEAD" if bare else f"{own} has no HEAD")
    common = _text(own / "commondir")
    shared = own / common if common else own
    if not (shared / "objects").is_dir():
        raise NotARepository(f"{shared} has no objects")
    return own.resolve(), shared.resolve(), bare


def _text(path: pathlib.Path) -> str:
    """The text of a small file of a git folder, without the line's end; empty if it is no such file."""
    try:
        # Not a FIFO, at which reading would wait.
        if not path.is_file() or path.stat().st_size > _MOST_TEXT:
            return ""
        return path.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n")
    except (OSError, ValueError):
        return ""


def sha256(content: bytes) -> str:
    """The hash of a tar of `archive`, as the lock has it."""
    return hashlib.sha256(content).hexdigest()


def export(source: Source, content: bytes, to: pathlib.Path) -> list[str]:
    """Unpacks a tar of `archive` into a folder; returns the files' names.

    Raises:
        SourceError: a member is neither file nor folder, or leads out of the folder.
    """
    names = []
    try:
        with (
            archives.open_tar(io.BytesIO(content), source.name) as tar,
            archives.Extractor(to, source.name, replace=True) as extractor,
        ):
            for member in tar:
                if not (member.isreg() or member.isdir()):
                    raise archives.ArchiveError(f"{source.name}: refused {member.name!r}: a link or a device")
                if member.isreg():
                    extractor.file(member.name, archives.content(tar, member), bool(member.mode & 0o100))
                    names.append(member.name)
    except archives.ArchiveError as error:
        expected, found = "files and folders below the repository's root", str(error).partition(": ")[2]
        raise SourceError(source, expected, found, "name other paths in locks/sources.packages.json") from None
    return names


def _refuse_special_files(paths: Iterator[pathlib.Path]) -> None:
    """Raises UnreadableError if a path is a FIFO, at which git would wait for ever, or a device."""
    for path in paths:
        try:
            mode = path.stat().st_mode
        except OSError:
            continue
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise UnreadableError(f"{_printable(str(path))} is a FIFO or a device")


def _git(source: Source, folder: pathlib.Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Runs git on what is on this machine; see `_run`."""
    return _run(source, folder, arguments, variables)


def _run(
    source: Source,
    folder: pathlib.Path,
    arguments: Sequence[str],
    variables: Mapping[str, str],
    *,
    network: bool = False,
) -> subprocess.CompletedProcess[bytes]:
    """Runs git in a folder, with these variables of git and those of the user that redirect nothing.

    Args:
        source: for messages.
        folder: its current folder.
        arguments: git's.
        variables: more of git's variables.
        network: git asks a server, which may take long, and may ask the user.

    Raises:
        SourceError: there is no git.
        UnreadableError: git does not end, or writes more than a source has.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(_KEPT_VARIABLES)
    }
    # Ask for no password, write nothing into the user's checkout, and take paths literally.
    environment.update(GIT_TERMINAL_PROMPT="0", GIT_OPTIONAL_LOCKS="0", GIT_LITERAL_PATHSPECS="1", LC_ALL="C")
    if variables.get("GIT_CONFIG_GLOBAL") == os.devnull:
        # These would come on top.
        environment = {name: value for name, value in environment.items() if not name.startswith("GIT_CONFIG")}
    mark = secrets.token_hex(16)
    environment.update(variables, **{_MARK: mark})
    program = shutil.which("git")
    if not program:
        raise SourceError(source, "git on PATH", "none", "apt-get install git")
    command = [program, "-C", str(folder), *arguments]
    process = subprocess.Popen(
        [*_with_limits(), *command],
        env=environment,
        stdin=None if network else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # The terminal's Ctrl-C is for this process, which then ends git. But ssh asks the user on the terminal.
        start_new_session=not network,
    )
    try:
        out, errors = _output(process, _SECONDS_OF_NETWORK if network else _SECONDS)
    except BaseException as error:
        process.kill()
        _kill_marked(mark)
        process.wait()
        if isinstance(error, UnreadableError):
            name = next(each for each in arguments if re.fullmatch(r"[a-z][a-z-]*", each))
            raise UnreadableError(f"git {name} {error}") from None
        raise
    finally:
        for stream in (process.stdout, process.stderr):
            assert stream
            stream.close()
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def _with_limits() -> list[str]:
    """The command that runs the one behind it with limits.

    It is a shell, because limits from here would come too late, or be for this process too. Without the signal, git
    says what is too large.
    """
    # RLIMIT_DATA rather than the address space, where git maps packs and others reserve what they never use. POSIX
    # counts a file's size in blocks of 512 bytes.
    limits = f"ulimit -d {_MOST_MEMORY >> 10}; ulimit -f {_MOST_FILE >> 9}"
    return ["/bin/sh", "-c", f'{{ {limits}; }} 2>/dev/null; trap "" XFSZ; exec "$0" "$@"']


def _kill_marked(mark: str) -> None:
    """Kills everything that a git command has started, such as the helpers of a transport.

    A helper need not be in git's process group, and outlives git.
    """
    wanted = f"{_MARK}={mark}".encode()
    # One that is not killed yet may start another meanwhile.
    for _ in range(100):
        found = False
        for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
            # It has ended, or is another user's.
            with contextlib.suppress(OSError):
                if wanted in path.read_bytes().split(b"\0"):
                    found = True
                    os.kill(int(path.parent.name), signal.SIGKILL)
        if not found:
            return
        time.sleep(0.01)


def _output(process: subprocess.Popen[bytes], seconds: float) -> tuple[bytes, bytes]:
    """Returns what a process writes on standard output and standard error until it ends.

    Raises:
        UnreadableError: it takes longer, or writes more than _MOST_OUTPUT.
    """
    end = time.monotonic() + seconds
    assert process.stdout and process.stderr
    written = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in written:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(end - time.monotonic())
            if time.monotonic() >= end:
                raise UnreadableError(f"does not end within {seconds:g} s")
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                if chunk:
                    written[key.fileobj] += chunk  # type: ignore[index]
                else:
                    selector.unregister(key.fileobj)
            if sum(map(len, written.values())) > _MOST_OUTPUT:
                raise UnreadableError(f"writes more than {_MOST_OUTPUT >> 20} MiB, which no source has")
    try:
        process.wait(max(0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise UnreadableError(f"does not end within {seconds:g} s") from None
    return bytes(written[process.stdout]), bytes(written[process.stderr])


def _printable(text: str) -> str:
    """Text with everything escaped that a terminal does not show as it is."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    """What git said, in one line."""
    return _printable(" ".join(done.stderr.decode("utf-8", "replace").split()))


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
