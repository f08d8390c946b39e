"""Writes everything that a build downloads into one file, the pack, for machines without a network.

    tools/bazel run //tools:pack -- FILE                  # prints what to run on the other machine
    tools/bazel run --config=cuda //tools:pack -- FILE
    tools/bazel run //tools:pack -- FILE --since OLD

Bazel itself determines what a build downloads: it fetches everything that images, wheels, tests and publishing need
into a temporary folder, and logs each download. It does not download again what the repository cache has. The pack has
git sources if this build has them. The same locks and the same Bazel give the same bytes. With --since, the pack
carries only what the pack OLD lacks, and the other machine needs both.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from fetch import arguments, download, errors, locks
from fetch.bazel import hosts, packages
from fetch.debian import archive as debian
from fetch.git import checkout
from fetch.pypi import index as pypi
from tools import workspace_log
from tools.launcher import install, installed, machine, pack_format

# What the other machine can build, test, run and push. //tests depends on everything else that these need.
TARGETS = ("//images/...", "//wheels/...", "//models/...", "//release/...", "//tests/...")

_CHUNK = 1 << 20
_PROGRESS_BYTES = 200 * 10**6


@dataclasses.dataclass(frozen=True)
class Content:
    """The content of a pack: its blobs, the file of each by hash, and its configuration (see pack_format.Pack)."""

    blobs: list[pack_format.Blob]
    files: dict[str, pathlib.Path]
    about: dict[str, Any]


def say(line: str) -> None:
    print(f"pack: {line}", file=sys.stderr, flush=True)


class Workspace:
    """The workspace to pack, and a second Bazel that runs in it.

    Args:
        root: its folder.
        options: options of Bazel's commands: profile, CUDA, sources.
        scratch: the folder that everything is fetched into.
    """

    def __init__(self, root: pathlib.Path, options: list[str], scratch: pathlib.Path) -> None:
        self.root, self.options, self.scratch = root, options, scratch

    def bazel(self, command: str, *rest: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        line = [
            str(self.root / "tools/bazel"),
            f"--output_base={self.scratch / 'base'}",
            "--max_idle_secs=60",
            command,
            *rest,
        ]
        # Otherwise Bazel would see that it runs under another Bazel, and Bazelisk would find itself.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BUILD_", "RUNFILES", "PYTHON", "MLC_AIRGAP"))
        }
        return subprocess.run(line, cwd=self.root, env=environment, text=True, check=check, **options)

    def repository_cache(self) -> pathlib.Path:
        found = self.bazel("info", *self.options, "repository_cache", stdout=subprocess.PIPE).stdout.strip()
        return pathlib.Path(found) / "content_addressable" / "sha256"

    def fetch(self) -> dict[str, str]:
        """Fetches everything and returns the hash and file name of each download.

        Raises:
            PackError: something is unavailable; Bazel has printed what.
        """
        log = self.scratch / "log"
        options = [
            "--nobuild",
            f"--experimental_workspace_rules_log_file={log}",
            "--experimental_convenience_symlinks=ignore",
            "--curses=no",
        ]
        done = self.bazel(
            "build", *self.options, *options, "--show_progress_rate_limit=20", "--", *TARGETS, check=False
        )
        if done.returncode:
            raise pack_format.PackError(
                f"cannot fetch everything that a build needs, see above (Bazel's exit code {done.returncode}); wrote"
                " nothing"
            )
        try:
            return workspace_log.downloads(log.read_bytes())
        except ValueError as error:
            raise pack_format.PackError(f"Bazel's log of repository rules is unreadable: {error}") from error


def git_sources(root: pathlib.Path, checkouts: str, cache: pathlib.Path) -> None:
    """Puts the tars of all available git sources into the repository cache; the next fetch shows which a build uses."""
    lock = locks.parse_json((root / "locks/sources.lock.json").read_text(encoding="utf-8"), "locks/sources.lock.json")[
        "sources"
    ]
    for name, entry in lock.items():
        if entry["registry"] == "git" and not (cache / entry["sha256"] / "file").exists():
            source = checkout.from_entry(name, entry)
            try:
                content = checkout.from_anywhere(source, checkouts)
            except checkout.SourceError as error:
                say(f"without a git source: {error}")
                continue
            (cache / source.sha256).mkdir(parents=True, exist_ok=True)
            temporary = cache / source.sha256 / f"pack-{os.getpid()}"
            temporary.write_bytes(content)
            temporary.rename(cache / source.sha256 / "file")


def bazel_files(
    root: pathlib.Path, cache: pathlib.Path, version: str
) -> tuple[dict[str, Any], dict[str, pathlib.Path], list[pack_format.Blob]]:
    """Returns what Bazel is installed from: the manifest of the installation, the files by hash, and the blobs.

    These are the packages in this machine's lock (fetch/bazel/hosts.py). If Debian has replaced one of them, they are
    those of its signed index, and a line says so: releases refuse them.

    Raises:
        errors.UserError: something is unavailable.
    """
    host = installed.host()
    if not host:
        raise pack_format.PackError(
            f"packs have Bazel for the machine that makes them, and there is none for {os.uname().machine}: make them"
            f" on Linux on {' or '.join(hosts.HOSTS)}"
        )
    folder = cache / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    lock = packages.read(root, host)
    chosen = list(lock.packages)
    try:
        install.check_version(lock, version)
        paths = _fetch_packages(chosen, folder)
    except (download.GoneError, install.OtherVersionError) as error:
        say(install.unlocked(host, error))
        chosen = packages.from_index(version, packages.asked(root / "locks"), host, say)
        paths = _fetch_packages(chosen, folder)
    files, blobs = {}, []
    for package, path in zip(chosen, paths):
        files[package.sha256] = path
        size = path.stat().st_size
        blobs.append(pack_format.Blob(package.sha256, size, "bazel", package.name, package.version, path.name))
    for wheel in lock.wheels:
        path = pypi.fetch(wheel.project, wheel.filename, wheel.sha256, folder / wheel.filename, size=wheel.size)
        files[wheel.sha256], size = path, path.stat().st_size
        blobs.append(pack_format.Blob(wheel.sha256, size, "bazel", wheel.project, wheel.version, wheel.filename))
    return install.manifest(version, chosen, lock.wheels), files, blobs


def _fetch_packages(chosen: list[debian.Package], folder: pathlib.Path) -> list[pathlib.Path]:
    missing = sum(package.size for package in chosen if not (folder / f"{package.sha256}.deb").exists())
    if missing:
        say(f"downloading {len(chosen)} packages that Bazel is installed from, {missing / 1e6:.0f} MB")
    return [install.fetch_package(package, folder) for package in chosen]


def collect(workspace: Workspace, cuda: bool, sources: bool, checkouts: str) -> Content:
    """Returns everything that a build of the workspace downloads.

    Raises:
        errors.UserError: something is unavailable.
    """
    version = machine.wanted_version()
    bazel, files, blobs = bazel_files(workspace.root, pathlib.Path(machine.cache_folder()), version)
    cache = workspace.repository_cache()
    if sources:
        git_sources(workspace.root, checkouts, cache)
    say("fetching everything that a build needs (a minute or two)")
    wanted = workspace.fetch()
    entries = locks.entries(workspace.root)
    for sha256, name in wanted.items():
        path = cache / sha256 / "file"
        if sha256 not in entries or not path.exists():
            where = "in the locks" if sha256 not in entries else f"in the repository cache {cache}"
            raise pack_format.PackError(
                f"{name} (sha256 {sha256}): expected it {where}, but it is not there; remove --repository_cache from"
                " user.bazelrc and run the same command again"
            )
        kind, project, of = entries[sha256]
        if sha256 in files:
            blobs = [blob for blob in blobs if blob.sha256 != sha256]
        files[sha256] = path
        blobs.append(
            pack_format.Blob(
                sha256, path.stat().st_size, kind, project, of, f"{project}-{of}.tar" if kind == "git" else name
            )
        )
    about = {
        "format": pack_format.FORMAT,
        "profile": "registries",
        "cuda": cuda,
        "sources": sources,
        "locks": locks.digests(workspace.root),
        "left_out": sorted(set(entries) - set(wanted)),
        "bazel": bazel,
        "base": None,
        "from_base": [],
    }
    return Content(sorted(blobs, key=lambda blob: blob.sha256), files, about)


def since(content: Content, old: pathlib.Path) -> Content:
    """Returns the content without the blobs that another pack lists."""
    with pack_format.Reader(str(old)) as reader:
        have = {blob.sha256 for blob in reader.pack.blobs}
        about = {**content.about, "base": reader.pack.name, "from_base": sorted(have & set(content.files))}
    return dataclasses.replace(content, about=about)


def as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def documents(content: Content) -> list[tuple[str, bytes]]:
    """Returns the name and content of the members before the blobs."""
    configuration = as_json(content.about)

    def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": "sha256:" + pack_format.sha256(data), "size": len(data)}

    manifest = as_json(
        {
            "schemaVersion": 2,
            "mediaType": pack_format.MANIFEST_TYPE,
            "artifactType": pack_format.TYPE,
            "config": descriptor(pack_format.TYPE.replace(".v1", ".config.v1"), configuration),
            "layers": [blob.layer() for blob in content.blobs],
        }
    )
    index = {
        "schemaVersion": 2,
        "mediaType": pack_format.INDEX_TYPE,
        "manifests": [{**descriptor(pack_format.MANIFEST_TYPE, manifest), "artifactType": pack_format.TYPE}],
    }
    return [
        ("oci-layout", pack_format.LAYOUT),
        ("index.json", as_json(index)),
        (pack_format.BLOBS + pack_format.sha256(manifest), manifest),
        (pack_format.BLOBS + pack_format.sha256(configuration), configuration),
    ]


def digest(content: Content) -> str:
    """Returns the digest of a pack, by which the other machine knows that it is this one."""
    return "sha256:" + documents(content)[2][0].removeprefix(pack_format.BLOBS)


def command_line(content: Content, out: pathlib.Path, old: pathlib.Path | None) -> str:
    """Returns what to run on the other machine.

    Args:
        content: the pack in `out`.
        old: the pack that it adds to, if any.
    """
    words = ["tools/bazel"]
    if old:
        words += [f"--airgap={old}", f"--airgap-digest=sha256:{content.about['base']}"]
    cuda = ["--config=cuda"] if content.about["cuda"] else []
    words += [f"--airgap={out}", f"--airgap-digest={digest(content)}", "build", *cuda, "//images:mlc_llm"]
    return shlex.join(words)


def write(content: Content, out: pathlib.Path) -> int:
    """Writes a pack and returns its size in bytes. `out` appears only once it is complete.

    Raises:
        PackError: a file does not match its hash, or `out` cannot be written.
    """
    from_base = set(content.about["from_base"])
    carried = [blob for blob in content.blobs if blob.sha256 not in from_base]
    total = sum(blob.size for blob in carried)
    temporary = out.with_name(f"{out.name}.part-{os.getpid()}")
    try:
        free = shutil.disk_usage(out.parent).free
        if free < total:
            raise OSError(errno.ENOSPC, "full", str(out.parent))
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in documents(content):
                tar.addfile(_member(name, len(data)), io.BytesIO(data))
            done = shown = 0
            for blob in carried:
                with content.files[blob.sha256].open("rb") as file:
                    hashed = _Hashed(file)
                    tar.addfile(_member(pack_format.BLOBS + blob.sha256, blob.size), hashed)
                if hashed.digest.hexdigest() != blob.sha256:
                    raise pack_format.PackError(
                        f"{content.files[blob.sha256]}: expected {blob}, found sha256 {hashed.digest.hexdigest()}:"
                        " delete it, then pack again"
                    )
                done += blob.size
                if done - shown >= _PROGRESS_BYTES:
                    shown = done
                    say(f"{done / 1e6:.0f} of {total / 1e6:.0f} MB")
        temporary.replace(out)
    except OSError as error:
        if error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EFBIG,
            errno.EACCES,
            errno.EROFS,
            errno.ENOENT,
            errno.ENOTDIR,
            errno.EISDIR,
        ):
            raise pack_format.PackError(
                f"{out}: cannot write it: {os.strerror(error.errno)} ({error.filename or temporary}). The pack takes"
                f" {total / 1e6:.0f} MB: choose a file in an existing, writable folder with enough room"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return out.stat().st_size


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


class _Hashed:
    """A file that hashes what is read from it."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


@contextlib.contextmanager
def scratch_folder() -> Iterator[pathlib.Path]:
    """A temporary folder in the launcher's cache. Removing it includes files that Bazel made read-only."""
    cache = pathlib.Path(machine.cache_folder())
    cache.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="packing-", dir=cache))
    try:
        yield folder
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = arguments.Parser("//tools:pack", __doc__)
    parser.add_argument("out", metavar="FILE", type=arguments.user_path, help="the pack to write")
    parser.add_argument("--since", metavar="OLD", type=arguments.user_path, help="an older pack; omit what it has")
    parser.add_argument("--settings", type=json.loads, default={}, help=argparse.SUPPRESS)
    options = parser.parse_args()
    began = time.monotonic()
    settings = options.settings
    root = pathlib.Path(os.environ.get("BUILD_WORKSPACE_DIRECTORY", machine.ROOT))
    # The launcher finds the workspace by its own path, which is in Bazel's runfiles here.
    machine.ROOT = str(root)
    checkouts = settings.get("MLC_SOURCES", "")
    sources = bool(checkouts) or settings.get("MLC_FETCH_SOURCES") == "1"
    cuda = settings.get("MLC_CUDA") == "1"
    flags = (
        ["--config=registries"]
        + (["--config=cuda"] if cuda else [])
        + (["--repo_env=MLC_PACKED_SOURCES=1"] if sources else [])
    )
    try:
        if options.since:
            pack_format.Reader(str(options.since)).__exit__()  # Fail now rather than after minutes.
        with scratch_folder() as scratch:
            workspace = Workspace(root, flags, scratch)
            try:
                content = collect(workspace, cuda, sources, checkouts)
                if options.since:
                    content = since(content, options.since)
            finally:
                workspace.bazel("shutdown", check=False, stderr=subprocess.DEVNULL)
            size = write(content, options.out)
    except (errors.UserError, debian.DebianError, checkout.SourceError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    left = len(content.about["from_base"])
    held = f", of which {left} are only in {options.since}" if options.since else ""
    described = pack_format.Pack("", tuple(content.blobs), content.about)
    seconds = time.monotonic() - began
    say(f"{pack_format.describe(described, str(options.out))}{held}: {size / 1e6:.0f} MB in {seconds:.0f} s")
    say(f"its digest, to take there by another way than the pack: {digest(content)}")
    say(f"on the other machine: {command_line(content, options.out, options.since)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
