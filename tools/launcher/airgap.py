"""Builds from a pack (pack_format.py) on a machine without a network: imports it once and points Bazel at it.

The launcher's cache folder then has:

    airgap/blobs/<sha256>          every blob of every imported pack, verified
    airgap/packs/<name>/           one pack: its documents, and a repository cache for Bazel and a Python package index
                                   that link to the blobs
    airgap/imported.json           the imported files, so that they are not read again
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

from . import options, pack_format

OPTION = "--airgap"
VARIABLE = "MLC_AIRGAP"
_CHUNK = 1 << 20


def take_option(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Returns the packs to build from, and the arguments without them.

    Packs are named by --airgap=FILE before Bazel's command, else by MLC_AIRGAP, separated by ":". They are imported in
    this order (a full pack, then an incremental one), and the build uses the last one.
    """
    packs, rest, position = [], [], 0
    while position < len(arguments) and arguments[position].startswith("-"):
        argument = arguments[position]
        if argument == OPTION:
            if position + 1 == len(arguments):
                raise pack_format.PackError(f"{OPTION}: expected the path of a pack, found nothing")
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
    """The packs imported on this machine.

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
        """Returns the folder of a pack. It exists only once it is complete."""
        return os.path.join(self.folder, "packs", name)

    def use(self, paths: Sequence[str], root: str) -> pack_format.Pack:
        """Imports packs unless that is done already, and returns the last one, which fits the locks of `root`.

        Raises:
          pack_format.PackError: a file is damaged, incomplete, lacks its base or is not a pack, or the last pack was
            made for other locks.
        """
        found = None
        for path in paths:
            found = self._known(path) or self._import(path)
        assert found
        check_locks(found, paths[-1], root)
        return found

    def _known(self, path: str) -> pack_format.Pack | None:
        """Returns the pack if exactly this file was imported, else None."""
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
            return pack_format.decode(*documents)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _import(self, path: str) -> pack_format.Pack:
        try:
            os.makedirs(os.path.join(self.folder, "blobs"), exist_ok=True)
            os.makedirs(os.path.join(self.folder, "packs"), exist_ok=True)
            with open(os.path.join(self.folder, "lock"), "w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    self.say(f"waiting for another run that is importing a pack (lock {lock.name})")
                    fcntl.flock(lock, fcntl.LOCK_EX)
                with pack_format.Reader(path) as reader:
                    self.say(f"importing the pack {pack_format.describe(reader.pack, path)} (once)")
                    identity = _identity(path)
                    self._take(reader)
                    self._make_view(reader)
                self._remember(path, identity, reader.pack.name)
                return reader.pack
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
                raise pack_format.PackError(
                    f"{error.filename or self.folder}: {os.strerror(error.errno)}. A pack is unpacked once into"
                    f" {self.folder}: free some space, or set MLC_BAZEL_CACHE to a folder with room, then run the same"
                    " command again: it resumes."
                ) from error
            raise

    def _take(self, reader: pack_format.Reader) -> None:
        """Copies blobs that the store lacks, and verifies each before giving it its name.

        Raises:
          pack_format.PackError: lists everything that is damaged or missing.
        """
        blobs = {blob.sha256: blob for blob in reader.pack.blobs}
        have = {sha256 for sha256, blob in blobs.items() if _size(self.blob(sha256)) == blob.size}
        carried, damaged, done, shown = set(), [], 0, 0
        for sha256, size, content in reader:
            blob = blobs.get(sha256)
            if blob is None or size != blob.size:
                raise pack_format.PackError(
                    f"{reader.path}: expected only blobs that the pack lists, found {sha256}: the pack is damaged; copy"
                    f" it again, or {pack_format.REPACK}"
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
            raise pack_format.PackError(
                f"{reader.path}: a damaged or incomplete pack. Expected {len(blobs)} files,"
                + (f" found these changed:\n{pack_format.listed(damaged)}\n" if damaged else " ")
                + (f"found these missing:\n{pack_format.listed(lost)}\n" if lost else "")
                + f"Copy it again, or {pack_format.REPACK}"
            )
        if missing:
            raise pack_format.PackError(
                f"{reader.path}: an incremental pack, but this machine lacks its base, pack"
                f" {reader.pack.about['base'][:12]}. Name the base before it, once: tools/bazel {OPTION}=BASE"
                f" {OPTION}={reader.path} …\nThe base has {len(missing)} of its files:\n{pack_format.listed(missing)}"
            )

    def _copy(self, content: IO[bytes], blob: pack_format.Blob) -> bool:
        """Copies a blob into the store. Returns False if its content does not match its name."""
        digest = hashlib.sha256()
        temporary = self.blob(blob.sha256) + ".part"
        try:
            with open(temporary, "wb") as out:
                for chunk in iter(lambda: content.read(_CHUNK), b""):
                    digest.update(chunk)
                    out.write(chunk)
        except (pack_format.tarfile.TarError, EOFError):
            pass  # Truncated: the hash will differ.
        if digest.hexdigest() != blob.sha256:
            os.unlink(temporary)
            return False
        os.replace(temporary, self.blob(blob.sha256))
        return True

    def _make_view(self, reader: pack_format.Reader) -> None:
        """Makes the folder of a pack under a temporary name, then renames it."""
        final = self.view(reader.pack.name)
        if os.path.exists(final):
            return
        for left in os.listdir(os.path.dirname(final)):
            if left.startswith("new-"):  # A killed run left it. We hold the lock.
                shutil.rmtree(os.path.join(os.path.dirname(final), left))
        new = tempfile.mkdtemp(prefix="new-", dir=os.path.dirname(final))
        for name, data in zip(("manifest.json", "config.json"), reader.documents):
            with open(os.path.join(new, name), "wb") as file:
                file.write(data)
        index: dict[str, list[pack_format.Blob]] = {}
        for blob in reader.pack.blobs:
            if blob.kind == "bazel":
                continue
            folder = os.path.join(new, "repositories", "content_addressable", "sha256", blob.sha256)
            os.makedirs(folder)
            os.link(self.blob(blob.sha256), os.path.join(folder, "file"))
            if blob.kind in ("wheel", "sdist"):
                index.setdefault(re.sub(r"[-_.]+", "-", blob.name.partition("[")[0]).lower(), []).append(blob)
        for project, blobs in index.items():
            # A simple index (PEP 503) in a folder, which pip can read too.
            os.makedirs(os.path.join(new, "simple", project))
            with open(os.path.join(new, "simple", project, "index.html"), "w", encoding="utf-8") as file:
                for blob in blobs:
                    name = html.escape(blob.file)
                    url = f"../../repositories/content_addressable/sha256/{blob.sha256}/file#sha256={blob.sha256}"
                    file.write(f'<a href="{url}">{name}</a>\n')
        os.chmod(new, 0o755)  # noqa: S103 (other users of the machine build from it too)
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

    def flags(self, chosen: pack_format.Pack, path: str) -> list[str]:
        """Returns the flags that make Bazel take everything from the pack and download nothing."""
        view = self.view(chosen.name)
        return [
            f"--repository_cache={view}/repositories",
            "--repository_disable_download",
            f"--repo_env=PIP_INDEX_URL=file://{view}/simple",
            (
                f"--repo_env=MLC_NO_NETWORK=the pack {path} lacks it, and {OPTION} downloads nothing:"
                f" {pack_format.REPACK}"
            ),
            *(["--repo_env=MLC_PACKED_SOURCES=1"] if chosen.about["sources"] else []),
        ]

    def give_bazel(self, chosen: pack_format.Pack) -> dict:
        """Puts the files that Bazel is installed from where install.py looks first. Returns their list."""
        bazel = chosen.about["bazel"]
        downloads = os.path.join(self.cache, "downloads")
        os.makedirs(downloads, exist_ok=True)
        files = {entry["sha256"] + ".deb": entry["sha256"] for entry in bazel["packages"].values()}
        files.update((name, entry["sha256"]) for name, entry in bazel["wheels"].items())
        for name, sha256 in files.items():
            if not os.path.exists(os.path.join(downloads, name)):
                os.link(self.blob(sha256), os.path.join(downloads, name))
        return bazel


def check_locks(chosen: pack_format.Pack, path: str, root: str) -> None:
    """Checks that a pack fits the locks of a workspace.

    Raises:
      pack_format.PackError: the locks pin something that the pack lacks, or .bazelversion names another Bazel.
    """
    with open(os.path.join(root, ".bazelversion"), encoding="utf-8") as file:
        version = file.read().split()[0]
    if version != chosen.about["bazel"]["bazel"]:
        raise pack_format.PackError(
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
        raise pack_format.PackError(
            f"{path}: outdated: the locks have changed since, and the pack lacks what"
            f" they pin now:\n{pack_format.listed(sorted(new))}\n{_UPDATE}"
        )


_UPDATE = (
    "make a new one where there is a network: tools/bazel run //tools:pack -- FILE (--since with this pack writes only"
    " what is new); or check out the commit that the pack was made from"
)


def check_command(chosen: pack_format.Pack, path: str, arguments: Sequence[str]) -> None:
    """Rejects a command that the pack does not support, before Bazel tries it.

    Raises:
      pack_format.PackError: the command asks for another profile, or for CUDA from a pack without CUDA.
    """
    if "--config=upstream" in arguments:
        raise pack_format.PackError(f"{path}: packs use the profile registries, found --config=upstream: omit it")
    if "--config=cuda" in arguments and not chosen.about["cuda"]:
        raise pack_format.PackError(
            f"{path}: a pack without CUDA, found --config=cuda: omit it, or make a pack with CUDA: tools/bazel run"
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
