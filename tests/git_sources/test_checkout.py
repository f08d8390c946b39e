"""checkout.py takes the locked commit's files and nothing else; one line says what it refuses, why, and what to do."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import socketserver
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fetch.git import checkout, update_sources
from tests.git_sources.repositories import CONTENT, PATH, PATHS, Repository, git

Run = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """The machine's git, on settings of nobody, and no checkouts that the user has."""
    monkeypatch.setenv("PATH", PATH)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.delenv("MLC_SOURCES", raising=False)


@pytest.fixture
def repository(tmp_path: pathlib.Path) -> Repository:
    return Repository.make(tmp_path / "with space" / "engine")


@pytest.fixture
def run(repository: Repository, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the program on the repository as it was locked; returns exit status and what it said of errors."""
    entry = repository.entry()

    def run(*place: str, **changes: Any) -> tuple[int, str]:
        locked = {**entry, **changes}
        options = [item for name in ("repository", "commit", "sha256") for item in (f"--{name}", locked[name])]
        place = place or ("--checkouts", str(repository.folder.parent))
        code = checkout.main(["engine", *options, "--to", str(tmp_path / "to"), *place, *locked["paths"]])
        printed = capsys.readouterr()
        assert sorted(printed.out.splitlines()) == (sorted(taken(tmp_path)) if code == 0 else [])
        return code, printed.err

    return run


def taken(tmp_path: pathlib.Path) -> dict[str, str]:
    folder = tmp_path / "to"
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def wanted() -> dict[str, str]:
    return {name: text for name, text in CONTENT.items() if name.split("/")[0] in PATHS}


def refused(run: Run, *parts: str, place: tuple[str, ...] = (), **changes: Any) -> str:
    code, said = run(*place, **changes)
    assert code == 1
    assert len(said.splitlines()) == 1, said
    assert said.startswith("engine: expected ")
    for part in parts:
        assert part in said
    return said


def anew(folder: pathlib.Path, upstream: Repository, commit: str) -> str:
    """The remedy for a checkout, in which no git command may be advised: it would run programs of the checkout."""
    place = shlex.quote(str(folder))
    return f"move it away, then git clone file://{upstream.folder} {place} && git -C {place} checkout {commit}"


def test_the_named_paths_of_the_commit_are_taken(run: Run, repository: Repository, tmp_path: pathlib.Path) -> None:
    assert run() == (0, "")
    assert taken(tmp_path) == wanted()
    assert (tmp_path / "to/cpp/engine.cc").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "to/LICENSE").stat().st_mode & 0o777 == 0o644


def test_the_hash_is_of_what_git_archive_writes(repository: Repository) -> None:
    command = [
        "-c",
        "tar.umask=0022",
        "archive",
        "--format=tar",
        f"--output={repository.folder.parent}/tar",
        "HEAD",
        "--",
        *PATHS,
    ]
    git(repository.folder, *command)
    assert repository.entry()["sha256"] == hashlib.sha256((repository.folder.parent / "tar").read_bytes()).hexdigest()


def test_the_hash_does_not_hang_on_the_users_settings(
    run: Run, repository: Repository, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attributes = tmp_path / "attributes"
    attributes.write_text("*.cc export-ignore\n* text=auto\n")
    settings = tmp_path / "gitconfig"
    settings.write_text(f"[core]\n\tattributesFile = {attributes}\n\tautocrlf = true\n[tar]\n\tumask = 0077\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    assert run() == (0, "")
    assert taken(tmp_path) == wanted()


def test_a_git_that_starts_the_build_redirects_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nonexistent")
    assert run() == (0, "")


def test_a_bare_repository_with_the_commit_will_do(run: Run, repository: Repository, tmp_path: pathlib.Path) -> None:
    bare = tmp_path / "bare/engine"
    git(tmp_path, "clone", "--quiet", "--bare", str(repository.folder), str(bare))
    place = ("--checkouts", str(bare.parent))
    assert run(*place) == (0, "")
    assert taken(tmp_path) == wanted()
    said = refused(run, "a repository without that commit", place=place, commit="2" * 40)
    assert said.endswith(f": {anew(bare, repository, '2' * 40)}\n")


@pytest.mark.parametrize("place", ["checkout", "bare", "upstream", "bare upstream"])
def test_a_user_who_forbids_bare_repositories_to_be_found(
    run: Run, repository: Repository, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """safe.bareRepository=explicit is git's advice and, from version 3, its default."""
    (tmp_path / "gitconfig").write_text("[safe]\n\tbareRepository = explicit\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    bare = tmp_path / "bare/engine"
    git(repository.folder, "clone", "--quiet", "--bare", str(repository.folder), str(bare))
    denied = subprocess.run(["git", "-C", str(bare), "log"], capture_output=True, text=True)
    assert "safe.bareRepository is 'explicit'" in denied.stderr
    arguments = {"checkout": [], "bare": ["--checkouts", str(bare.parent)]}.get(place, ["--upstream"])
    changes = {"repository": f"file://{bare}"} if place == "bare upstream" else {}
    assert run(*arguments, **changes) == (0, "")
    assert taken(tmp_path) == wanted()


def test_what_is_changed_elsewhere_does_not_matter(run: Run, repository: Repository, tmp_path: pathlib.Path) -> None:
    (repository.folder / "other/file").unlink()
    (repository.folder / "new").write_text("new")
    assert run() == (0, "")


def test_a_missing_folder(run: Run, repository: Repository, tmp_path: pathlib.Path) -> None:
    place = ("--checkouts", str(tmp_path / "none"))
    clone = (
        f"git clone file://{repository.folder} {tmp_path}/none/engine && git -C {tmp_path}/none/engine checkout"
        f" {repository.commit}"
    )
    assert refused(run, "found no such folder", place=place).endswith(f": {clone}\n")


def test_a_relative_folder(run: Run) -> None:
    refused(run, "an absolute path in MLC_SOURCES", "found sources", place=("--checkouts", "sources"))


@pytest.mark.parametrize("inside", [False, True], ids=["of nothing", "of another checkout"])
def test_a_folder_that_is_no_checkout(run: Run, repository: Repository, tmp_path: pathlib.Path, inside: str) -> None:
    place = repository.folder if inside else tmp_path / "folders"
    (place / "engine").mkdir(parents=True)
    refused(run, "found a folder that is not one", "move it away, then git clone", place=("--checkouts", str(place)))


def test_a_checkout_of_another_user(run: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a folder of the machine is mounted into a container: no safe.directory is needed, since git runs nothing
    of the checkout."""
    # Git's own means to test this.
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert run() == (0, "")
    assert taken(tmp_path) == wanted()


class Trap:
    """Programs in a checkout's configuration; each leaves a file with its setting's name."""

    SETTINGS = (
        "core.fsmonitor",
        "core.sshCommand",
        "core.gitProxy",
        "core.pager",
        "core.editor",
        "diff.external",
        "diff.x.textconv",
        "filter.x.clean",
        "filter.x.smudge",
        "tar.tar.command",
        "uploadpack.packObjectsHook",
    )

    def __init__(self, folder: pathlib.Path) -> None:
        self.sprung = folder / "sprung"
        self.sprung.mkdir()
        self.programs = {name: self._program(folder / "programs" / name) for name in self.SETTINGS}

    def _program(self, path: pathlib.Path) -> pathlib.Path:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n: > '{self.sprung}/{path.name}'\n[ $# -gt 0 ] || cat\n")
        path.chmod(0o755)
        return path

    def set(self, repository: pathlib.Path, *more: str, file: str = "") -> None:
        place = ["--file", file] if file else []
        for name, program in self.programs.items():
            git(repository, "config", *place, name, f"'{program}'")
        for setting in more:
            git(repository, "config", *place, *setting.split("=", 1))

    def found(self) -> list[str]:
        return sorted(path.name for path in self.sprung.iterdir())


@pytest.fixture
def trap(repository: Repository, tmp_path: pathlib.Path) -> Trap:
    """A trap whose filters apply to a file of the locked commit."""
    (repository.folder / ".gitattributes").write_text("*.cc filter=x diff=x\n")
    git(repository.folder, "add", ".")
    git(repository.folder, "commit", "--quiet", "--amend", "--message=one")
    return Trap(tmp_path)


def locked_now(repository: Repository) -> dict[str, Any]:
    return {"commit": repository.commit, "sha256": repository.entry()["sha256"]}


@pytest.mark.parametrize("included", [False, True], ids=["in the configuration", "in a file that it includes"])
def test_no_program_of_a_checkouts_configuration_runs(
    run: Run, repository: Repository, tmp_path: pathlib.Path, trap: Trap, included: bool
) -> None:
    locked = locked_now(repository)
    if included:
        trap.set(repository.folder, file=str(tmp_path / "included"))
        git(repository.folder, "config", "include.path", str(tmp_path / "included"))
    else:
        trap.set(repository.folder)
    hook = trap._program(repository.folder / ".git/hooks/post-index-change")
    assert hook.exists()
    # Git must look at the file again, and so at its filter.
    os.utime(repository.folder / "cpp/engine.cc", (1, 1))
    assert run(**locked) == (0, "")
    assert taken(tmp_path) == wanted()
    assert trap.found() == []


def test_no_missing_object_is_fetched_by_a_program_of_the_checkout(
    run: Run, repository: Repository, trap: Trap
) -> None:
    locked = locked_now(repository)
    blob = git(repository.folder, "rev-parse", "HEAD:cpp/engine.cc")
    partial = ("extensions.partialClone=origin", "remote.origin.url=ssh://example.org/x", "remote.origin.promisor=true")
    trap.set(repository.folder, "core.repositoryFormatVersion=1", *partial)
    (repository.folder / ".git/objects" / blob[:2] / blob[2:]).unlink()
    refused(run, "that git cannot read them", **locked)
    assert trap.found() == []


def test_attributes_of_the_checkout_alone_change_nothing(run: Run, repository: Repository) -> None:
    (repository.folder / ".git/info/attributes").write_text("*.cc export-ignore\n")
    assert run() == (0, "")


def worktree(repository: Repository, to: pathlib.Path) -> None:
    git(repository.folder, "worktree", "add", "--quiet", "--detach", str(to))


def with_separate_folder(repository: Repository, to: pathlib.Path) -> None:
    """As a submodule has it."""
    git(to.parent, "clone", "--quiet", f"--separate-git-dir={to.parent}/modules", str(repository.folder), str(to))


def with_alternates(repository: Repository, to: pathlib.Path) -> None:
    git(to.parent, "clone", "--quiet", "--shared", str(repository.folder), str(to))


def packed(repository: Repository, to: pathlib.Path) -> None:
    git(to.parent, "clone", "--quiet", str(repository.folder), str(to))
    git(to, "gc", "--quiet")
    assert not (to / ".git/refs/heads/main").exists()


def with_split_index(repository: Repository, to: pathlib.Path) -> None:
    git(to.parent, "clone", "--quiet", str(repository.folder), str(to))
    git(to, "update-index", "--split-index")
    assert list((to / ".git").glob("sharedindex.*"))


def sparse(repository: Repository, to: pathlib.Path) -> None:
    git(to.parent, "clone", "--quiet", str(repository.folder), str(to))
    git(to, "sparse-checkout", "set", "other")
    assert not (to / "cpp").exists()


def shallow(repository: Repository, to: pathlib.Path) -> None:
    git(repository.folder, "commit", "--quiet", "--allow-empty", "--message=two")
    git(to.parent, "clone", "--quiet", "--depth=1", f"file://{repository.folder}", str(to))


@pytest.mark.parametrize("kind", ["FIFO", "device"])
@pytest.mark.parametrize(
    "name",
    [
        ".git/config",
        ".git/objects/info/alternates",
        ".git/objects/info/commit-graph",
        ".git/objects/pack/pack-0000000000000000000000000000000000000000.idx",
        ".git/sharedindex.0",
        ".gitattributes",
        "cpp/.gitattributes",
        "cpp/.gitignore",
        "cpp/deep/.gitignore",
        "object",
    ],
)
def test_no_file_of_a_checkout_is_waited_for(run: Run, repository: Repository, name: str, kind: str) -> None:
    commit = repository.commit
    path = repository.folder / (name if name != "object" else f".git/objects/{commit[:2]}/{commit[2:]}")
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    if name.endswith(".idx"):
        path.with_suffix(".pack").touch()
    if kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    said = refused(run, f"found one that git cannot read ({path} is a FIFO or a device)", commit=commit)
    assert said.endswith(f": {anew(repository.folder, repository, commit)}\n")


def test_a_git_that_does_not_end_is_ended_with_all_that_it_starts(
    run: Run, repository: Repository, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/git"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *" status "*) ;; *) exec /usr/bin/git "$@" ;; esac\n'
        f"sleep 1000 &\necho $! > {tmp_path}/child\nwait\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{PATH}")
    monkeypatch.setattr(checkout, "_SECONDS", 2)
    refused(
        run, f"in {repository.folder}, found one that git cannot read (git status does not end within 2 s): move it"
    )
    wait_for_the_end_of(int((tmp_path / "child").read_text()))


def wait_for_the_end_of(child: int) -> None:
    """Returns once a process of another parent, the first of the machine, has ended; its parent may not know yet."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for _ in range(600):
            if pathlib.Path(f"/proc/{child}/stat").read_text().split(") ")[1][0] == "Z":
                return
            time.sleep(0.1)
        pytest.fail(f"process {child} runs on")


@pytest.mark.parametrize("kind", ["blob", "tree", "commit"])
def test_a_small_object_that_unpacks_to_a_large_one_fills_no_memory(
    run: Run, repository: Repository, tmp_path: pathlib.Path, kind: str
) -> None:
    locked = locked_now(repository)
    size = 1200 << 20
    name = git(repository.folder, "rev-parse", {"blob": "HEAD:LICENSE", "tree": "HEAD^{tree}", "commit": "HEAD"}[kind])
    path = repository.folder / ".git/objects" / name[:2] / name[2:]
    path.chmod(0o644)
    packer = zlib.compressobj(1)
    with path.open("wb") as file:
        file.write(packer.compress(b"%s %d\0" % (kind.encode(), size)))
        for _ in range(size >> 20):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())
    # Not this process's, which had more in its life.
    code = (
        "import resource, sys; from fetch.git import checkout; code = checkout.main(sys.argv[1:])\n"
        "both = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN\n"
        "print(max(resource.getrusage(each).ru_maxrss for each in both) >> 10)"
    )
    options = ["--repository", "u", "--commit", locked["commit"], "--sha256", locked["sha256"]]
    place = ["--checkouts", str(repository.folder.parent), "--to", str(tmp_path / "to")]
    done = subprocess.run(
        [sys.executable, "-c", code, "engine", *options, *place, *PATHS],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "engine: expected " in done.stderr, done.stderr
    assert int(done.stdout) < 1100, "MiB at the peak"


@pytest.mark.parametrize(
    "make", [worktree, with_separate_folder, with_alternates, packed, with_split_index, sparse, shallow]
)
def test_every_kind_of_checkout(
    run: Run, repository: Repository, tmp_path: pathlib.Path, make: Callable[[Repository, pathlib.Path], None]
) -> None:
    folder = tmp_path / 'quoted " folder' / "engine"
    folder.parent.mkdir()
    make(repository, folder)
    place, locked = ("--checkouts", str(folder.parent)), locked_now(repository)
    assert run(*place, **locked) == (0, "")
    assert taken(tmp_path) == wanted()
    (folder / "cpp").mkdir(exist_ok=True)
    (folder / "cpp/new.cc").write_text("new")
    refused(run, "found changes to cpp/new.cc:", place=place, **locked)


def test_a_checkouts_plain_settings_are_kept(run: Run, repository: Repository) -> None:
    """As on a file system that has no executable bits."""
    (repository.folder / "cpp/engine.cc").chmod(0o644)
    refused(run, "found changes to cpp/engine.cc")
    git(repository.folder, "config", "core.fileMode", "false")
    assert run() == (0, "")


def test_another_commit(run: Run, repository: Repository) -> None:
    locked = repository.commit
    moved = repository.move_on()
    said = refused(run, f"at {locked}", f"found {moved}")
    assert said.endswith(f": {anew(repository.folder, repository, locked)}\n")
    git(repository.folder, "checkout", "--quiet", locked)
    assert run() == (0, "")


def test_a_commit_that_the_checkout_does_not_have(run: Run, repository: Repository) -> None:
    missing = "2" * 40
    said = refused(run, f"found {repository.commit}", commit=missing)
    assert said.endswith(f": {anew(repository.folder, repository, missing)}\n")


def test_a_repository_without_commits(run: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "fresh/engine").mkdir(parents=True)
    git(tmp_path / "fresh/engine", "init", "--quiet")
    refused(run, "found no commit", place=("--checkouts", str(tmp_path / "fresh")))


def edit(folder: pathlib.Path) -> None:
    (folder / "cpp/engine.cc").write_text("int other;\n")


def stage(folder: pathlib.Path) -> None:
    edit(folder)
    git(folder, "add", ".")


def remove(folder: pathlib.Path) -> None:
    (folder / "cpp/engine.cc").unlink()


def add(folder: pathlib.Path) -> None:
    (folder / "cpp/deep/new.cc").write_text("new")


@pytest.mark.parametrize(
    ("change", "name"),
    [(edit, "cpp/engine.cc"), (stage, "cpp/engine.cc"), (remove, "cpp/engine.cc"), (add, "cpp/deep/new.cc")],
)
def test_a_change_in_the_named_paths(
    run: Run, repository: Repository, tmp_path: pathlib.Path, change: Callable[..., object], name: str
) -> None:
    change(repository.folder)
    said = refused(run, f"found changes to {name}:")
    # The suggested command fixes it and loses nothing.
    away, upstream = tmp_path / "away", tmp_path / "upstream"
    git(tmp_path, "clone", "--quiet", "--bare", str(repository.folder), str(upstream))
    shutil.move(repository.folder, away)
    remedy, command = said.rpartition(": move it away, then ")[2].strip(), f"file://{repository.folder}"
    assert command in remedy
    remedy = remedy.replace(command, f"file://{upstream}")
    subprocess.run(remedy, shell=True, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert run() == (0, "")
    assert taken(tmp_path) == wanted()


@pytest.mark.parametrize("change", [edit, None], ids=["changed", "another commit"])
def test_no_command_of_a_message_runs_a_program_of_the_checkout(
    run: Run, repository: Repository, trap: Trap, change: Callable[[pathlib.Path], object] | None
) -> None:
    locked = locked_now(repository)
    if change:
        change(repository.folder)
    else:
        repository.move_on()
    trap.set(repository.folder)
    said = refused(run, "move it away, then", **locked)
    # Even by someone who does not move it away.
    subprocess.run(said.rpartition(", then ")[2], shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert trap.found() == []


def test_names_of_changed_files_are_shown_escaped(run: Run, repository: Repository) -> None:
    (repository.folder / "cpp" / "\x1b[2K\rAll good.\n").touch()
    refused(run, r"found changes to cpp/\x1b[2K\rAll good.\n: move it away")


def test_many_changes_are_counted(run: Run, repository: Repository) -> None:
    for number in range(5):
        (repository.folder / f"cpp/{number}").touch()
    refused(run, "found changes to cpp/0, cpp/1, cpp/2 and 2 more:")


def test_another_hash(run: Run, tmp_path: pathlib.Path) -> None:
    refused(run, f"with sha256 {'0' * 64}, found ", "tools/bazel run //locks:update_sources", sha256="0" * 64)
    assert not (tmp_path / "to").exists()


def test_a_path_that_the_commit_does_not_have(run: Run) -> None:
    refused(run, "LICENSE, nowhere in commit", "locks/sources.packages.json", paths=["LICENSE", "nowhere"])


def test_paths_are_no_patterns(run: Run) -> None:
    refused(run, "*.cc in commit", paths=["*.cc"])


def test_no_git(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    refused(run, "expected git on PATH, found none: apt-get install git")


def test_a_link_is_refused(repository: Repository, tmp_path: pathlib.Path) -> None:
    (repository.folder / "cpp/link").symlink_to("../../outside")
    git(repository.folder, "add", ".")
    git(repository.folder, "commit", "--quiet", "--message=link")
    source = checkout.from_entry("engine", repository.entry())
    with pytest.raises(
        checkout.SourceError, match="engine: expected files and folders .*, found refused 'cpp/link': a link"
    ):
        checkout.export(source, checkout.from_checkout(source, repository.folder.parent), tmp_path / "to")


@pytest.mark.parametrize("name", ["../outside", "cpp/../../outside", "/outside"])
def test_a_name_that_leads_out_is_refused(repository: Repository, tmp_path: pathlib.Path, name: str) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    source = checkout.from_entry("engine", repository.entry())
    with pytest.raises(checkout.SourceError, match="leads out"):
        checkout.export(source, stream.getvalue(), tmp_path / "to")
    assert not (tmp_path / "outside").exists()


def test_upstream(run: Run, repository: Repository, tmp_path: pathlib.Path) -> None:
    assert run("--upstream") == (0, "")
    assert taken(tmp_path) == wanted()


def test_upstream_by_way_of_a_mirror(
    run: Run, repository: Repository, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{repository.folder.parent}/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://git.example.org/some/")
    assert run("--upstream", repository="https://git.example.org/some/engine") == (0, "")


def test_upstream_without_the_commit(run: Run) -> None:
    parts = (f"expected commit {'2' * 40} in file://", "found a repository without it", "locks/sources.packages.json")
    refused(run, *parts, place=("--upstream",), commit="2" * 40)


def test_upstream_that_does_not_answer(run: Run, tmp_path: pathlib.Path) -> None:
    refused(
        run,
        "found that it does not answer (",
        "set MLC_SOURCES",
        place=("--upstream",),
        repository=f"file://{tmp_path}/none",
    )


def packet(payload: bytes) -> bytes:
    """gitprotocol-common(5): pkt-line."""
    return b"%04x%s" % (len(payload) + 4, payload)


def pack_of(kind: int, size: int) -> bytes:
    """The beginning of a pack with one object of this size: gitformat-pack(5)."""
    head = bytearray([kind << 4 | size & 15])
    size >>= 4
    while size:
        head[-1] |= 0x80
        head.append(size & 0x7F)
        size >>= 7
    # Then a zlib stream, of which more follows: RFC 1950, RFC 1951.
    return b"PACK" + struct.pack(">II", 2, 1) + head + b"\x78\x01"


COMMIT, BLOB = 1, 3
STORED = b"\x00" + struct.pack("<HH", 0x8000, 0x7FFF) + bytes(0x8000)


@contextlib.contextmanager
def hostile_host(answer: Callable[[], Iterator[bytes]]) -> Iterator[tuple[str, str, list[int]]]:
    """A git host that answers each fetch with a pack of its own.

    Yields:
        Its address, the commit that it pretends to have, and a list to which it adds how many bytes it could send.
    """
    commit, sent = "1" * 40, [0]

    class Handler(socketserver.StreamRequestHandler):
        def lines(self) -> Iterator[bytes]:
            """What the client says, up to the next flush."""
            while (length := int(self.rfile.read(4) or b"0", 16)) > 4:
                yield self.rfile.read(length - 4)

        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.rfile.read(int(self.rfile.read(4), 16) - 4)
                abilities = "shallow allow-tip-sha1-in-want allow-reachable-sha1-in-want ofs-delta agent=git/2"
                self.wfile.write(packet(f"{commit} HEAD\0{abilities}\n".encode()) + b"0000")
                list(self.lines())
                self.wfile.write(packet(f"shallow {commit}".encode()) + b"0000")
                self.rfile.read(len(packet(b"done\n")))
                self.wfile.write(packet(b"NAK\n"))
                for chunk in answer():
                    self.wfile.write(chunk)
                    sent[0] += len(chunk)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"git://127.0.0.1:{server.server_address[1]}/engine", commit, sent
        server.shutdown()


def endless(begin: bytes) -> Iterator[bytes]:
    yield begin
    while True:
        yield STORED


def test_a_host_that_sends_without_end_does_not_fill_the_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "_MOST_FILE", 8 << 20)
    monkeypatch.setattr(checkout, "_SECONDS_OF_NETWORK", 60)
    with hostile_host(lambda: endless(pack_of(BLOB, 1 << 50))) as (address, commit, sent):
        parts = ("found one that takes more than 8 MiB of disk", "File too large", "look at what the repository has")
        refused(run, *parts, place=("--upstream",), repository=address, commit=commit)
    # Sockets and pipes hold some.
    assert sent[0] < 32 << 20


def test_a_host_whose_object_is_huge_does_not_fill_the_memory(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "_SECONDS_OF_NETWORK", 60)
    with hostile_host(lambda: endless(pack_of(COMMIT, 3 << 30))) as (address, commit, sent):
        parts = ("and 1024 MiB of memory (", "look at what the repository has there")
        refused(run, *parts, place=("--upstream",), repository=address, commit=commit)
    assert sent[0] < 1 << 30


def test_a_host_with_many_small_files_does_not_fill_the_disk(
    run: Run, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git would unpack so few objects into one file each, and none of these is too large."""
    for number in range(40):
        (repository.folder / str(number)).write_bytes(random.Random(number).randbytes(1 << 18))
    git(repository.folder, "add", ".")
    git(repository.folder, "commit", "--quiet", "--message=many")
    monkeypatch.setattr(checkout, "_MOST_FILE", 1 << 20)
    refused(run, "more than 1 MiB of disk", place=("--upstream",), commit=repository.commit)


def test_a_host_that_goes_silent_is_left_with_all_helpers_of_git(
    run: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "ssh"
    helper.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/child\nexec sleep 1000\n")
    helper.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(helper))
    monkeypatch.setattr(checkout, "_SECONDS_OF_NETWORK", 2)
    parts = ("found git fetch does not end within 2 s: look at",)
    refused(run, *parts, place=("--upstream",), repository="ssh://git.example.org/engine")
    wait_for_the_end_of(int((tmp_path / "child").read_text()))


def test_a_repository_rule_waits_longer_than_git_may_take() -> None:
    rule = pathlib.Path(os.environ["SOURCE_BZL"]).read_text()
    given = re.search(r"^_SECONDS = (\d+)$", rule, re.MULTILINE)
    assert given and "timeout = _SECONDS" in rule
    # git init twice, fetch and archive.
    assert int(given[1]) > checkout._SECONDS_OF_NETWORK + 3 * checkout._SECONDS


def test_upstream_with_other_content(run: Run) -> None:
    refused(run, f"with sha256 {'0' * 64}", place=("--upstream",), sha256="0" * 64)


def test_the_setting_is_the_one_that_bazel_takes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkout.folder_of_checkouts(tmp_path) == ""
    monkeypatch.setenv("MLC_SOURCES", "/environment")
    assert checkout.folder_of_checkouts(tmp_path) == "/environment"
    (tmp_path / "user.bazelrc").write_text(
        "build --jobs=2\ncommon --repo_env=MLC_SOURCES=/first\n"
        "build --color=no --repo_env=MLC_SOURCES=/second\n# build --repo_env=MLC_SOURCES=/no\n"
    )
    assert checkout.folder_of_checkouts(tmp_path) == "/second"


# The lock --------------------------------------------------------------------------------------------------------


class Locks:
    """A workspace whose locks have the repository alone."""

    def __init__(self, folder: pathlib.Path, entry: dict) -> None:
        self.folder = folder / "locks"
        self.folder.mkdir(parents=True)
        self.asked = {"about": "why", **{name: value for name, value in entry.items() if name != "sha256"}}
        self.write("sources.packages.json", self.asked)
        self.write("sources.lock.json", entry)

    def write(self, name: str, entry: dict) -> None:
        (self.folder / name).write_text(json.dumps({"sources": {"engine": entry}}))

    def entry(self) -> dict:
        return json.loads((self.folder / "sources.lock.json").read_text())["sources"]["engine"]


@pytest.fixture
def locks(repository: Repository, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Locks:
    monkeypatch.setenv("BUILD_WORKSPACE_DIRECTORY", str(tmp_path / "workspace"))
    return Locks(tmp_path / "workspace", repository.entry())


def update(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["update_sources", *arguments])
    return update_sources.main()


@pytest.mark.parametrize("place", ["checkouts", "upstream"])
def test_an_update_finds_the_hash(
    monkeypatch: pytest.MonkeyPatch, locks: Locks, repository: Repository, place: str
) -> None:
    right = locks.entry()
    locks.write("sources.lock.json", {**right, "sha256": "0" * 64})
    if place == "checkouts":
        monkeypatch.setenv("MLC_SOURCES", str(repository.folder.parent))
        locks.write("sources.packages.json", {**locks.asked, "repository": "file:///nonexistent"})
        right["repository"] = "file:///nonexistent"
    assert update(monkeypatch, "--check") == 1
    assert locks.entry()["sha256"] == "0" * 64
    assert update(monkeypatch) == 0
    assert locks.entry() == right
    assert update(monkeypatch, "--check") == 0


def test_an_update_to_another_commit(monkeypatch: pytest.MonkeyPatch, locks: Locks, repository: Repository) -> None:
    moved = repository.move_on()
    locks.write("sources.packages.json", {**locks.asked, "commit": moved})
    assert update(monkeypatch) == 0
    assert locks.entry() == repository.entry()


def test_a_source_that_cannot_be_had_stays_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, locks: Locks, repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    locked = locks.entry()
    shutil.rmtree(repository.folder)
    assert update(monkeypatch) == 0
    assert locks.entry() == locked
    assert "not verified, kept as locked: engine: expected commit" in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"commit": "2" * 40}, {"paths": ["LICENSE"]}], ids=["commit", "paths"])
def test_a_changed_source_that_cannot_be_had_stops_the_update(
    monkeypatch: pytest.MonkeyPatch, locks: Locks, repository: Repository, change: dict[str, Any]
) -> None:
    locked = locks.entry()
    shutil.move(repository.folder, repository.folder.parent / "away")
    locks.write("sources.packages.json", {**locks.asked, **change})
    with pytest.raises(SystemExit, match="engine: expected commit .*: set MLC_SOURCES") as stopped:
        update(monkeypatch)
    assert len(str(stopped.value).splitlines()) == 1
    assert locks.entry() == locked


def test_where_both_fail_the_checkout_is_what_is_spoken_of(
    monkeypatch: pytest.MonkeyPatch, locks: Locks, repository: Repository
) -> None:
    monkeypatch.setenv("MLC_SOURCES", str(repository.folder.parent))
    changed = {**locks.asked, "commit": "2" * 40}
    locks.write("sources.packages.json", changed)
    with pytest.raises(SystemExit, match=re.escape(f"found {repository.commit}: move it away")):
        update(monkeypatch)


def test_a_tar_of_another_machine_gives_the_same(run: Run, repository: Repository, tmp_path: pathlib.Path) -> None:
    tar = tmp_path / "engine.tar"
    tar.write_bytes(checkout.archive(checkout.from_entry("engine", repository.entry()), repository.folder))
    shutil.rmtree(repository.folder)
    assert run("--tar", str(tar)) == (0, "")
    assert taken(tmp_path) == wanted()


def test_a_tar_with_other_content_or_that_is_not_there_is_refused(
    run: Run, repository: Repository, tmp_path: pathlib.Path
) -> None:
    tar, locked = tmp_path / "engine.tar", repository.entry()["sha256"]
    code, error = run("--tar", str(tar))
    assert code == 1 and re.search(f"expected a tar of commit .* with sha256 {locked} in .*, found no such file", error)
    tar.write_bytes(b"other")
    code, error = run("--tar", str(tar))
    assert code == 1 and re.search(f"sha256 {locked} in .*, found {hashlib.sha256(b'other').hexdigest()}", error)
