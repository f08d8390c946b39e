"""Builds out of a pack (pack.py), on a machine without a network: imports it once, and tells Bazel to take everything
from there.

Below the launcher's cache folder:

    airgap/blobs/<sha256>          every blob of every pack that was imported, verified
    airgap/packs/<name>/           one pack: its documents, a repository cache for Bazel and a Python package index,
    links to the blobs
    airgap/imported.json           which files were imported, so that they are not read again
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import html
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Callable

from fetch import locks

from . import options, pack

OPTION = "--airgap"
VARIABLE = "MLC_AIRGAP"
_CHUNK = 1 << 20


def take_option(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The packs to build from, and the arguments without them: those of --airgap=FILE before Bazel's command, else
    those of MLC_AIRGAP.

    Several are imported in this order, and the last one is built from: a full pack, then an incremental one. In the
    variable ":" separates them.
    """
    packs, rest, position = [], [], 0
    while position < len(arguments) and arguments[position].startswith("-"):
        argument = arguments[position]
        if argument == OPTION:
            if position + 1 == len(arguments):
                raise pack.PackError(f"{OPTION}: expected the path of a pack, found nothing")
            packs.append(arguments[position + 1])
            position += 2
            continue
        if argument.startswith(OPTION + "="):
            packs.append(argument[len(OPTION) + 1 :])
        else:
            rest.append(argument)
            if argument in options.WITH_VALUE and position + 1 < len(arguments):
                position += 1
                rest.append(arguments[position])
        position += 1
    rest += arguments[position:]
    if not packs:
        packs = [path for path in environment.get(VARIABLE, "").split(os.pathsep) if path]
    return packs, rest


class Store:
    """The packs that were imported on this machine.

    Args:
      cache: the launcher's cache folder.
      say: prints one line to the user.
    """

    def __init__(self, cache: str, say: Callable[[str], None]) -> None:
        self.cache, self.say = cache, say
        self.folder = os.path.join(cache, "airgap")

    def blob(self, sha256: str) -> str:
        return os.path.join(self.folder, "blobs", sha256)

    def view(self, name: str) -> str:
        """The folder of a pack; there only when all of it is."""
        return os.path.join(self.folder, "packs", name)

    def use(self, paths: Sequence[str], root: str) -> pack.Pack:
        """Imports packs that were not, and returns the last one, which suits the locks of the workspace `root`.

        Raises:
          pack.PackError: one is damaged, incomplete, without its base, no pack at all, or the last one is of other
            locks.
        """
        found = None
        for path in paths:
            found = self._known(path) or self._import(path)
        assert found
        check_locks(found, paths[-1], root)
        return found

    def _known(self, path: str) -> pack.Pack | None:
        """The pack, if this very file was imported."""
        try:
            with open(os.path.join(self.folder, "imported.json"), encoding="utf-8") as file:
                entry = json.load(file)[os.path.abspath(path)]
            if entry["file"] != _identity(path):
                return None
            view = self.view(entry["pack"])
            documents = []
            for name in ("manifest.json", "config.json"):
                with open(os.path.join(view, name), "rb") as file:
                    documents.append(file.read())
            return pack.decode(*documents)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _import(self, path: str) -> pack.Pack:
        try:
            os.makedirs(os.path.join(self.folder, "blobs"), exist_ok=True)
            os.makedirs(os.path.join(self.folder, "packs"), exist_ok=True)
            with open(os.path.join(self.folder, "lock"), "w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    self.say(f"waiting for another run that imports a pack (lock {lock.name})")
                    fcntl.flock(lock, fcntl.LOCK_EX)
                with pack.Reader(path) as reader:
                    self.say(f"importing the pack {pack.describe(reader.pack, path)} (once)")
                    identity = _identity(path)
                    self._take(reader)
                    self._make_view(reader)
                self._remember(path, identity, reader.pack.name)
                return reader.pack
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
                raise pack.PackError(
                    f"{error.filename or self.folder}: {os.strerror(error.errno)}. A pack is unpacked once below"
                    f" {self.folder}: free some space, or set MLC_BAZEL_CACHE to a folder with room, and run the same"
                    " command again: it goes on from here."
                ) from error
            raise

    def _take(self, reader: pack.Reader) -> None:
        """Copies what the store lacks, each blob verified before it gets its name; all that is wrong is found before
        the first complaint.
        """
        blobs = {blob.sha256: blob for blob in reader.pack.blobs}
        have = {sha256 for sha256, blob in blobs.items() if _size(self.blob(sha256)) == blob.size}
        carried, damaged, done, shown = set(), [], 0, 0
        for sha256, size, content in reader:
            blob = blobs.get(sha256)
            if blob is None or size != blob.size:
                raise pack.PackError(
                    f"{reader.path}: expected blobs of its own list only, found {sha256}: a damaged pack; copy it"
                    f" again, or {pack.REPACK}"
                )
            carried.add(sha256)
            done += size
            if sha256 not in have and not self._copy(content, blob):
                damaged.append(blob)
            if done - shown >= 200 * 10**6:
                shown = done
                self.say(f"  {done / 1e6:.0f} of {reader.pack.size() / 1e6:.0f} MB")
        there = {sha256 for sha256, blob in blobs.items() if _size(self.blob(sha256)) == blob.size}
        broken = {blob.sha256 for blob in damaged}
        of_base = set(reader.pack.about["from_base"])
        missing = [blob for sha256, blob in blobs.items() if sha256 not in there | broken]
        lost = [blob for blob in missing if blob.sha256 not in of_base]
        if lost or damaged:
            raise pack.PackError(
                f"{reader.path}: a damaged or incomplete pack. Expected {len(blobs)} files in it"
                + (f", found these changed:\n{pack.listed(damaged)}\n" if damaged else ", ")
                + (f"found these missing:\n{pack.listed(lost)}\n" if lost else "")
                + f"Copy it again, or {pack.REPACK}"
            )
        if missing:
            raise pack.PackError(
                f"{reader.path}: an incremental pack, whose base (pack {reader.pack.about['base'][:12]}) this machine"
                f" does not have. Name the base before it, once: tools/bazel {OPTION}=BASE {OPTION}={reader.path} …\nIt"
                f" lacks {len(missing)} files that are there:\n{pack.listed(missing)}"
            )

    def _copy(self, content: IO[bytes], blob: pack.Blob) -> bool:
        """Puts a blob into the store; False if it is not what its name says."""
        digest = hashlib.sha256()
        temporary = self.blob(blob.sha256) + ".part"
        try:
            with open(temporary, "wb") as out:
                for chunk in iter(lambda: content.read(_CHUNK), b""):
                    digest.update(chunk)
                    out.write(chunk)
        except (pack.tarfile.TarError, EOFError):
            pass  # Cut short.
        if digest.hexdigest() != blob.sha256:
            os.unlink(temporary)
            return False
        os.replace(temporary, self.blob(blob.sha256))
        return True

    def _make_view(self, reader: pack.Reader) -> None:
        """The folder of a pack, made aside and then given its name."""
        final = self.view(reader.pack.name)
        if os.path.exists(final):
            return
        for left in os.listdir(os.path.dirname(final)):
            if left.startswith("new-"):  # Of a run that was killed: the lock is ours.
                shutil.rmtree(os.path.join(os.path.dirname(final), left))
        new = tempfile.mkdtemp(prefix="new-", dir=os.path.dirname(final))
        for name, data in zip(("manifest.json", "config.json"), reader.documents):
            with open(os.path.join(new, name), "wb") as file:
                file.write(data)
        index: dict[str, list[pack.Blob]] = {}
        for blob in reader.pack.blobs:
            if blob.kind == "bazel":
                continue
            folder = os.path.join(new, "repositories", "content_addressable", "sha256", blob.sha256)
            os.makedirs(folder)
            os.link(self.blob(blob.sha256), os.path.join(folder, "file"))
            if blob.kind in ("wheel", "sdist"):
                index.setdefault(re.sub(r"[-_.]+", "-", blob.name.partition("[")[0]).lower(), []).append(blob)
        for project, blobs in index.items():
            # A simple index (PEP 503) in a folder, as pip reads one too.
            os.makedirs(os.path.join(new, "simple", project))
            with open(os.path.join(new, "simple", project, "index.html"), "w", encoding="utf-8") as file:
                for blob in blobs:
                    name = html.escape(blob.file)
                    file.write(
                        f'<a href="../../repositories/content_addressable/sha256/{blob.sha256}/file#sha256={blob.sha256}">{name}</a>\n'
                    )
        os.chmod(new, 0o755)
        os.rename(new, final)

    def _remember(self, path: str, identity: list[int], name: str) -> None:
        known = os.path.join(self.folder, "imported.json")
        try:
            with open(known, encoding="utf-8") as file:
                entries = json.load(file)
        except (OSError, ValueError):
            entries = {}
        entries[os.path.abspath(path)] = {"file": identity, "pack": name}
        with open(known + ".part", "w", encoding="utf-8") as file:
            json.dump(entries, file, indent=2)
        os.replace(known + ".part", known)

    def flags(self, chosen: pack.Pack, path: str) -> list[str]:
        """What Bazel gets after its command: where everything is, and that nothing is anywhere else."""
        view = self.view(chosen.name)
        return [
            f"--repository_cache={view}/repositories",
            "--repository_disable_download",
            f"--repo_env=PIP_INDEX_URL=file://{view}/simple",
            (
                f"--repo_env=MLC_NO_NETWORK=the pack {path} lacks it, and nothing is downloaded with {OPTION}:"
                f" {pack.REPACK}"
            ),
            *(["--repo_env=MLC_PACKED_SOURCES=1"] if chosen.about["sources"] else []),
        ]

    def give_bazel(self, chosen: pack.Pack) -> dict:
        """Puts what Bazel is made of where bootstrap.py looks first; returns the list of it."""
        bazel = chosen.about["bazel"]
        downloads = os.path.join(self.cache, "downloads")
        os.makedirs(downloads, exist_ok=True)
        files = {entry["sha256"] + ".deb": entry["sha256"] for entry in bazel["packages"].values()}
        files.update((name, entry["sha256"]) for name, entry in bazel["wheels"].items())
        for name, sha256 in files.items():
            if not os.path.exists(os.path.join(downloads, name)):
                os.link(self.blob(sha256), os.path.join(downloads, name))
        return bazel


def check_locks(chosen: pack.Pack, path: str, root: str) -> None:
    """Compares a pack with the locks of a workspace.

    Raises:
      pack.PackError: the locks pin something that the pack does not have, or another version of Bazel is wanted.
    """
    with open(os.path.join(root, ".bazelversion"), encoding="utf-8") as file:
        version = file.read().split()[0]
    if version != chosen.about["bazel"]["bazel"]:
        raise pack.PackError(
            f"{path}: outdated: expected Bazel {version} (.bazelversion) in it, found {chosen.about['bazel']['bazel']};"
            f" {_UPDATE}"
        )
    if locks.digests(Path(root)) == chosen.about["locks"]:
        return
    known = {blob.sha256 for blob in chosen.blobs} | set(chosen.about["left_out"])
    new = [
        f"{kind} {name} {version} (sha256 {sha256})"
        for sha256, (kind, name, version) in locks.entries(Path(root)).items()
        if sha256 not in known
    ]
    if new:
        raise pack.PackError(
            f"{path}: outdated: the locks have changed since, and it lacks what they pin"
            f" now:\n{pack.listed(sorted(new))}\n{_UPDATE}"
        )


_UPDATE = (
    "make one where there is a network: tools/bazel run //tools:pack -- FILE, with --since and this pack only what is"
    " new; or check out the commit that it is of"
)


def check_command(chosen: pack.Pack, path: str, arguments: Sequence[str]) -> None:
    """Refuses a command that the pack is not made for, before Bazel tries it.

    Raises:
      pack.PackError: another profile, or CUDA from a pack without.
    """
    if "--config=upstream" in arguments:
        raise pack.PackError(f"{path}: a pack is of the profile registries, found --config=upstream: leave it out")
    if "--config=cuda" in arguments and not chosen.about["cuda"]:
        raise pack.PackError(
            f"{path}: a pack without CUDA, found --config=cuda: leave it out, or make one with: tools/bazel run"
            " --config=cuda //tools:pack -- FILE"
        )


def _identity(path: str) -> list[int]:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return -1
