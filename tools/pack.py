"""Writes everything that a build needs from outside into one file, for machines without a network: tools/bazel
--airgap=FILE.

    tools/bazel run //tools:pack -- FILE
    tools/bazel run --config=cuda //tools:pack -- FILE
    tools/bazel run //tools:pack -- FILE --since OLD

What is needed is found out by asking for it: Bazel fetches all that images, wheels, tests and publishing want, into a
folder that is removed
afterwards, and writes down each download. What the repository cache has already is not downloaded again. Git sources
are part of it where
this build has them. The same locks and the same Bazel give the same bytes. With --since only what the pack OLD lacks is
written: the other
machine needs both.
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
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from fetch import arguments, errors, locks
from fetch.debian import archive as debian
from fetch.git import checkout
from fetch.pypi import index as pypi
from tools.launcher import bootstrap, installed, machine, pack

# What the other machine is to build, test, run and push; //tests holds everything else that these need.
TARGETS = ("//images/...", "//wheels/...", "//models/...", "//release/...", "//tests/...")

# Bazel's log of what repository rules do is a stream of protocol buffers (workspace_log.proto). A download has its
# output in field 2 (tag 0x12,
# length, bytes) and its hash, hexadecimal, in field 3 (tag 0x1a, length 64).
_DOWNLOAD = re.compile(rb"\x12(.)([!-~]+?)\x1a@([0-9a-f]{64})", re.DOTALL)

_CHUNK = 1 << 20
_PROGRESS_BYTES = 200 * 10**6


@dataclasses.dataclass(frozen=True)
class Content:
    """What goes into a pack: the blobs, the file of each by hash, and what the pack says of itself (see pack.Pack)."""

    blobs: list[pack.Blob]
    files: dict[str, pathlib.Path]
    about: dict[str, Any]


def say(line: str) -> None:
    print(f"pack: {line}", file=sys.stderr, flush=True)


class Workspace:
    """The workspace that is packed, and another Bazel on it.

    Args:
        root: its folder.
        options: of Bazel's commands: profile, CUDA, sources.
        scratch: folder for all that is fetched.
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
        # Else this process would count as one that Bazel started, and a Bazelisk would look for itself.
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
        """Has everything fetched; returns hash → file name of each download.

        Raises:
            PackError: something is not to be had; Bazel has said what.
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
            raise pack.PackError(
                f"not all that a build needs is to be had, see above (Bazel's exit code {done.returncode}). Nothing was"
                " written"
            )
        return downloads(log.read_bytes())


def downloads(log: bytes) -> dict[str, str]:
    """Hash → file name of the downloads in Bazel's log of repository rules."""
    found = {}
    for match in _DOWNLOAD.finditer(log):
        if match[1][0] == len(match[2]):
            found[match[3].decode()] = match[2].decode().rpartition("/")[2]
    return found


def git_sources(root: pathlib.Path, checkouts: str, cache: pathlib.Path) -> None:
    """Puts the tars of git sources into the repository cache, as far as they are to be had: the fetch after this says
    which it wants.
    """
    lock = json.loads((root / "locks/sources.lock.json").read_text(encoding="utf-8"))["sources"]
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


def bazel_files(cache: pathlib.Path, version: str) -> tuple[dict[str, Any], dict[str, pathlib.Path], list[pack.Blob]]:
    """What Bazel is made of: the list of it as an installation has it, its files by hash, its blobs.

    The packages of this machine's own installation, if there is one; else those that one would take now.

    Raises:
        errors.UserError: something is not to be had any more.
    """
    folder = cache / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    manifest = pathlib.Path(installed.prefix(str(cache), version), "manifest.json")
    bazel = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else None
    if bazel and not all((folder / f"{entry['sha256']}.deb").exists() for entry in bazel["packages"].values()):
        # Of a launcher that kept nothing: the archive may have the same packages still.
        now = {package.name: package for package in bootstrap.choose(version)}
        if any(name not in now or now[name].sha256 != entry["sha256"] for name, entry in bazel["packages"].items()):
            raise pack.PackError(
                f"Debian no longer has the packages that Bazel in {manifest.parent} is made of. Have it made of the"
                f" present ones: rm -r {manifest.parent} && tools/bazel version, then pack again"
            )
    if not bazel or not all((folder / f"{entry['sha256']}.deb").exists() for entry in bazel["packages"].values()):
        packages = bootstrap.choose(version)
        say(
            f"downloading what Bazel {version} is made of: {len(packages)} Debian packages,"
            f" {sum(package.size for package in packages) / 1e6:.0f} MB"
        )
        for package in packages:
            bootstrap.fetch_package(package, folder)
        bazel = bazel or {
            "bazel": version,
            "packages": {
                package.name: {key: getattr(package, key) for key in ("version", "sha256", "suite")}
                for package in packages
            },
            "wheels": {filename: {"sha256": sha256} for _, filename, sha256, _ in bootstrap.WHEELS},
        }
    files, blobs = {}, []
    for name, entry in bazel["packages"].items():
        files[entry["sha256"]] = path = folder / f"{entry['sha256']}.deb"
        blobs.append(pack.Blob(entry["sha256"], path.stat().st_size, "bazel", name, entry["version"], path.name))
    for project, filename, sha256, _ in bootstrap.WHEELS:
        files[sha256] = path = pypi.fetch(project, filename, sha256, folder / filename)
        blobs.append(pack.Blob(sha256, path.stat().st_size, "bazel", project, filename.split("-")[1], filename))
    return bazel, files, blobs


def collect(workspace: Workspace, cuda: bool, sources: bool, checkouts: str) -> Content:
    """Everything that a build of the workspace needs.

    Raises:
        errors.UserError: something is not to be had.
    """
    version = machine.wanted_version()
    bazel, files, blobs = bazel_files(pathlib.Path(machine.cache_folder()), version)
    cache = workspace.repository_cache()
    if sources:
        git_sources(workspace.root, checkouts, cache)
    say("asking Bazel for all that a build needs (a minute or two)")
    wanted = workspace.fetch()
    entries = locks.entries(workspace.root)
    for sha256, name in wanted.items():
        path = cache / sha256 / "file"
        if sha256 not in entries or not path.exists():
            where = "in the locks" if sha256 not in entries else f"in the repository cache {cache}"
            raise pack.PackError(
                f"{name} (sha256 {sha256}): expected {where}, found none there; run the same command again, without"
                " --repository_cache in user.bazelrc"
            )
        kind, project, of = entries[sha256]
        if sha256 in files:
            blobs = [blob for blob in blobs if blob.sha256 != sha256]
        files[sha256] = path
        blobs.append(
            pack.Blob(sha256, path.stat().st_size, kind, project, of, f"{project}-{of}.tar" if kind == "git" else name)
        )
    about = {
        "format": pack.FORMAT,
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
    """The content without what another pack lists."""
    with pack.Reader(str(old)) as reader:
        have = {blob.sha256 for blob in reader.pack.blobs}
        about = {**content.about, "base": reader.pack.name, "from_base": sorted(have & set(content.files))}
    return dataclasses.replace(content, about=about)


def as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def documents(content: Content) -> list[tuple[str, bytes]]:
    """The pack's members before its blobs: name and content of each."""
    configuration = as_json(content.about)

    def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": "sha256:" + pack.sha256(data), "size": len(data)}

    manifest = as_json(
        {
            "schemaVersion": 2,
            "mediaType": pack.MANIFEST_TYPE,
            "artifactType": pack.TYPE,
            "config": descriptor(pack.TYPE.replace(".v1", ".config.v1"), configuration),
            "layers": [blob.layer() for blob in content.blobs],
        }
    )
    index = {
        "schemaVersion": 2,
        "mediaType": pack.INDEX_TYPE,
        "manifests": [{**descriptor(pack.MANIFEST_TYPE, manifest), "artifactType": pack.TYPE}],
    }
    return [
        ("oci-layout", pack.LAYOUT),
        ("index.json", as_json(index)),
        (pack.BLOBS + pack.sha256(manifest), manifest),
        (pack.BLOBS + pack.sha256(configuration), configuration),
    ]


def write(content: Content, out: pathlib.Path) -> int:
    """Writes a pack; `out` appears only whole. Returns its size in bytes.

    Raises:
        PackError: a file is not what its hash says, or the disk is full.
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
                    tar.addfile(_member(pack.BLOBS + blob.sha256, blob.size), hashed)
                if hashed.digest.hexdigest() != blob.sha256:
                    raise pack.PackError(
                        f"{content.files[blob.sha256]}: expected {blob}, found sha256 {hashed.digest.hexdigest()}:"
                        " remove it, then pack again"
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
            raise pack.PackError(
                f"{out}: cannot be written: {os.strerror(error.errno)} ({error.filename or temporary}). The pack takes"
                f" {total / 1e6:.0f} MB: name a file in a folder that is there, is yours and has the room"
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
    """A file that is hashed while it is read."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


@contextlib.contextmanager
def scratch_folder() -> Iterator[pathlib.Path]:
    """A folder below the launcher's cache, gone afterwards with all that Bazel made read-only in it."""
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
    parser.add_argument("--since", metavar="OLD", type=arguments.user_path, help="an older pack: leave out what it has")
    parser.add_argument("--settings", type=json.loads, default={}, help=argparse.SUPPRESS)
    options = parser.parse_args()
    began = time.monotonic()
    settings = options.settings
    root = pathlib.Path(os.environ.get("BUILD_WORKSPACE_DIRECTORY", machine.ROOT))
    # The launcher's functions look for the workspace by their own place, which is Bazel's folder of runfiles here.
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
            pack.Reader(str(options.since)).__exit__()  # Before minutes are spent.
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
    held = f", of which {left} are in {options.since} and not in it" if options.since else ""
    described = pack.Pack("", tuple(content.blobs), content.about)
    say(f"{pack.describe(described, str(options.out))}{held}: {size / 1e6:.0f} MB in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
