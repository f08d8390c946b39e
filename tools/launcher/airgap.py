"""Builds from a pack (pack_format.py) on a machine without a network: imports it once and points Bazel at it.

The launcher's cache folder then has:

    airgap/blobs/<sha256>          every blob of every imported pack, verified
    airgap/packs/<name>/           one pack: its documents, and a repository cache for Bazel and a Python package index
                                   that link to the blobs
    airgap/imported.json           the imported files, so that they are not read again

A pack decides what this machine runs, Bazel first of all, so one is used only if the user gives its digest, or says
that the file is trusted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import html
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Callable, NamedTuple

from fetch import errors, locks, names
from fetch.bazel import hosts
from fetch.bazel import packages as bazel_packages
from fetch.hashes import file_sha256

from . import installed, options, pack_format

OPTION = "--airgap"
VARIABLE = "MLC_AIRGAP"
DIGEST_OPTION = "--airgap-digest"
DIGEST_VARIABLE = "MLC_AIRGAP_DIGEST"
# The value of DIGEST_OPTION that says: I trust this file, whatever it holds.
TRUST = "trust-this-file"
_CHUNK = 1 << 20
# What a file system without hard links, or a link to another one, answers.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


class Choice(NamedTuple):
    """What the user wants to build from.

    Args:
      paths: the packs, imported in this order (a full pack, then an incremental one); the build uses the last one.
      digests: names of the packs that may be used, 64 hexadecimal digits each.
      trusted: whether every pack may be used.
    """

    paths: tuple[str, ...] = ()
    digests: frozenset[str] = frozenset()
    trusted: bool = False

    def check(self, pack: pack_format.Pack, path: str) -> None:
        """Raises pack_format.PackError unless the user said that this pack may be used."""
        if self.trusted or pack.name in self.digests:
            return
        if self.digests:
            expected = " or ".join("sha256:" + each for each in sorted(self.digests))
            raise pack_format.PackError(
                f"{path}: expected a pack with the digest {expected}"
                f" ({DIGEST_OPTION}), found sha256:{pack.name}: this is another pack, or somebody has changed it. Copy"
                " it again, or give the digest that //tools:pack printed when it wrote this one"
            )
        raise pack_format.PackError(
            f"{path}: expected its digest, found none. A pack decides what this machine runs, so say which one you"
            f" mean: {DIGEST_OPTION}=sha256:…, or {DIGEST_VARIABLE}, with what //tools:pack printed when it wrote the"
            f" pack. This file has sha256:{pack.name}. If you trust the file whatever it holds: {DIGEST_OPTION}={TRUST}"
        )


def take_option(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[Choice, list[str]]:
    """Returns what to build from, and the arguments without it.

    Packs are named by --airgap=FILE before Bazel's command, else by MLC_AIRGAP, separated by ":". Their digests are
    given by --airgap-digest=, else by MLC_AIRGAP_DIGEST, separated by blanks.

    Raises:
      pack_format.PackError: an option lacks its value, or a digest is none.
    """
    taken: dict[str, list[str]] = {OPTION: [], DIGEST_OPTION: []}
    rest: list[str] = []
    position = 0
    while position < len(arguments) and arguments[position].startswith("-"):
        argument = arguments[position]
        name, equals, value = argument.partition("=")
        if name in taken:
            if not equals:
                position += 1
                if position == len(arguments):
                    raise pack_format.PackError(f"{name}: expected a value, found nothing")
                value = arguments[position]
            taken[name].append(value)
        else:
            rest.append(argument)
            if argument in options.WITH_VALUE and position + 1 < len(arguments):
                position += 1
                rest.append(arguments[position])
        position += 1
    rest += arguments[position:]
    paths = taken[OPTION] or [path for path in environment.get(VARIABLE, "").split(os.pathsep) if path]
    given = taken[DIGEST_OPTION] or environment.get(DIGEST_VARIABLE, "").split()
    if taken[DIGEST_OPTION] and not paths:
        raise pack_format.PackError(f"{DIGEST_OPTION}: expected a pack to compare with, found none: add {OPTION}=FILE")
    digests = frozenset(
        names.sha256(each, f"{DIGEST_OPTION} (or {TRUST})", "sha256:") for each in given if each != TRUST
    )
    return Choice(tuple(paths), digests, TRUST in given), rest


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

    def use(self, choice: Choice, root: str) -> pack_format.Pack:
        """Imports packs unless that is done already, and returns the last one, which fits the locks of `root`.

        Raises:
          pack_format.PackError: a file is damaged, incomplete, lacks its base, is not a pack or not the one that the
            user means, or the last pack was made for other locks.
        """
        found = self._import_all(choice)
        check_locks(found, choice.paths[-1], root)
        return found

    def _import_all(self, choice: Choice) -> pack_format.Pack:
        found = None
        for path in choice.paths:
            found = self._known(path)
            if found:
                choice.check(found, path)
            else:
                found = self._import(path, choice)
        assert found
        return found

    def _known(self, path: str) -> pack_format.Pack | None:
        """Returns the pack if exactly this file was imported and everything that it brought is there, else None."""
        try:
            with open(os.path.join(self.folder, "imported.json"), encoding="utf-8") as file:
                entry = json.load(file)[os.path.abspath(path)]
            if entry["file"] != pack_format.identity(os.stat(path)):
                return None
            view = self.view(names.sha256(entry["pack"], path))
            documents = []
            for name in ("manifest.json", "config.json"):
                with open(os.path.join(view, name), "rb") as file:
                    documents.append(file.read())
            pack = pack_format.decode(*documents)
        except (OSError, ValueError, KeyError, TypeError, errors.UserError):
            return None
        places = ((self._place(view, blob), blob) for blob in pack.blobs)
        whole = pack.name == entry["pack"] and all(_size(place) == blob.size for place, blob in places)
        return pack if whole else None

    def _place(self, view: str, blob: pack_format.Blob) -> str:
        """Returns the path of a blob that a build with this view reads."""
        return self.blob(blob.sha256) if blob.kind == "bazel" else _in_repository_cache(view, blob.sha256)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with open(os.path.join(self.folder, "lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self.say(f"waiting for another run that is importing a pack (lock {lock.name})")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _import(self, path: str, choice: Choice) -> pack_format.Pack:
        try:
            os.makedirs(os.path.join(self.folder, "blobs"), exist_ok=True)
            os.makedirs(os.path.join(self.folder, "packs"), exist_ok=True)
            with self._locked(), pack_format.Reader(path) as reader:
                choice.check(reader.pack, path)
                self.say(f"importing the pack {pack_format.describe(reader.pack, path)} (once)")
                self._take(reader)
                self._make_view(reader)
                self._remember(path, reader.identity, reader.pack.name)
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
        there = {blob.sha256 for blob in reader.pack.blobs if self._intact(blob)}
        damaged, done, shown = [], 0, 0
        for sha256, size, content in reader:
            blob = blobs.get(sha256)
            if blob is None or size != blob.size:
                raise pack_format.PackError(
                    f"{reader.path}: expected only blobs that the pack lists, found {sha256}: the pack is damaged; copy"
                    f" it again, or {pack_format.REPACK}"
                )
            done += size
            if sha256 not in there:
                if self._copy(content, blob):
                    there.add(sha256)
                else:
                    damaged.append(blob)
            if done - shown >= 200 * 10**6:
                shown = done
                self.say(f"  {done / 1e6:.0f} of {reader.pack.size() / 1e6:.0f} MB")
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

    def _intact(self, blob: pack_format.Blob) -> bool:
        """Returns whether the store has a blob. Hashes it, and removes it with all links to it if it is damaged."""
        path = self.blob(blob.sha256)
        if _matches(path, blob):
            return True
        if os.path.lexists(path):
            self.say(f"{path}: expected {blob}, found other bytes: removing it")
            os.unlink(path)
        for view in os.listdir(os.path.join(self.folder, "packs")):
            place = _in_repository_cache(os.path.join(self.folder, "packs", view), blob.sha256)
            if os.path.lexists(place):
                os.unlink(place)
        return False

    def _copy(self, content: pack_format.Content, blob: pack_format.Blob) -> bool:
        """Copies a blob into the store. Returns False if its content does not match its name."""
        digest = hashlib.sha256()
        temporary = self.blob(blob.sha256) + ".part"
        with open(temporary, "wb") as out:
            for chunk in iter(lambda: content.read(_CHUNK), b""):
                digest.update(chunk)
                out.write(chunk)
        if digest.hexdigest() != blob.sha256:
            os.unlink(temporary)
            return False
        os.replace(temporary, self.blob(blob.sha256))
        return True

    def _make_view(self, reader: pack_format.Reader) -> None:
        """Makes the folder of a pack under a temporary name, then renames it. Completes one that is there already."""
        final = self.view(reader.pack.name)
        if os.path.exists(final):
            self._link_blobs(reader.pack, final)
            return
        for left in os.listdir(os.path.dirname(final)):
            if left.startswith("new-"):  # A killed run left it. We hold the lock.
                shutil.rmtree(os.path.join(os.path.dirname(final), left))
        new = tempfile.mkdtemp(prefix="new-", dir=os.path.dirname(final))
        for name, data in zip(("manifest.json", "config.json"), reader.documents):
            with open(os.path.join(new, name), "wb") as file:
                file.write(data)
        self._link_blobs(reader.pack, new)
        index: dict[str, list[pack_format.Blob]] = {}
        for blob in reader.pack.blobs:
            if blob.kind in ("wheel", "sdist"):
                index.setdefault(re.sub(r"[-_.]+", "-", blob.name).lower(), []).append(blob)
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

    def _link_blobs(self, pack: pack_format.Pack, view: str) -> None:
        """Puts every blob that Bazel takes into the repository cache of a view."""
        for blob in pack.blobs:
            place = _in_repository_cache(view, blob.sha256)
            if blob.kind != "bazel" and _size(place) != blob.size:
                os.makedirs(os.path.dirname(place), exist_ok=True)
                link_or_copy(self.blob(blob.sha256), place)

    def verify(
        self, chosen: pack_format.Pack, choice: Choice, blobs: Iterable[pack_format.Blob] | None = None
    ) -> list[pack_format.Blob]:
        """Hashes blobs of a pack again, takes the damaged ones out of the packs once more, and returns those.

        Args:
          chosen: the last pack of `choice`.
          choice: the files to repair from.
          blobs: those to hash; by default all.

        Raises:
          pack_format.PackError: no file has a blob that is damaged.
        """
        view = self.view(chosen.name)
        damaged = []
        with self._locked():
            for blob in chosen.blobs if blobs is None else blobs:
                place = self._place(view, blob)
                if not self._intact(blob):
                    damaged.append(blob)
                elif not _same(place, self.blob(blob.sha256)) and not _matches(place, blob):
                    # A copy, where there are no hard links.
                    self.say(f"{place}: expected {blob}, found other bytes: removing it")
                    if os.path.lexists(place):
                        os.unlink(place)
                    damaged.append(blob)
        if damaged:
            self._import_all(choice)
        return damaged

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
            f"--repo_env=MLC_NO_NETWORK={no_network(path)}",
            *(["--repo_env=MLC_PACKED_SOURCES=1"] if chosen.about["sources"] else []),
        ]

    def give_bazel(self, chosen: pack_format.Pack, choice: Choice) -> dict:
        """Puts the files that Bazel is installed from where install.py looks first. Returns their list.

        Hashes each of them, since it is about to run.
        """
        bazel = chosen.about["bazel"]
        downloads = os.path.join(self.cache, "downloads")
        os.makedirs(downloads, exist_ok=True)
        files = {entry["sha256"] + ".deb": entry["sha256"] for entry in bazel["packages"].values()}
        files.update((name, entry["sha256"]) for name, entry in bazel["wheels"].items())
        blobs = {blob.sha256: blob for blob in chosen.blobs}
        self.verify(chosen, choice, [blobs[sha256] for sha256 in files.values()])
        for name, sha256 in files.items():
            place = os.path.join(downloads, name)
            if not _matches(place, blobs[sha256]):
                link_or_copy(self.blob(sha256), place)
        return bazel


def no_network(path: str) -> str:
    """Returns why a build from a pack downloads nothing: the value of MLC_NO_NETWORK (fetch/download.py)."""
    return f"the pack {path} lacks it, and {OPTION} downloads nothing: {pack_format.REPACK}"


def check_locks(chosen: pack_format.Pack, path: str, root: str) -> None:
    """Checks that a pack fits the locks of a workspace, by what the locks here pin and not by what the pack says.

    Raises:
      pack_format.PackError: the locks pin something that the pack lacks, .bazelversion names another Bazel, or the
        pack's Bazel is for another processor.
    """
    with open(os.path.join(root, ".bazelversion"), encoding="utf-8") as file:
        version = file.read().split()[0]
    if version != chosen.about["bazel"]["bazel"]:
        raise pack_format.PackError(
            f"{path}: outdated: expected Bazel {version} (.bazelversion) in it, found {chosen.about['bazel']['bazel']};"
            f" {_UPDATE}"
        )
    left_out = set(chosen.about["left_out"])
    carried, here = chosen.about["bazel"]["wheels"], installed.host()
    of = [host for host in hosts.HOSTS.values() if any(f"_{host}." in name for name in carried)]
    if here and of and here not in of:
        raise pack_format.PackError(
            f"{path}: expected a pack that was made on a machine like this one, {here}, because it has the Bazel that"
            f" runs, found one of {of[0]}: run tools/bazel run //tools:pack -- FILE on {here}"
        )
    # Bazel's Debian packages may be others, which start.py says; PyPI keeps every file.
    wheels = [
        f"wheel {wheel.project} {wheel.version} (sha256 {wheel.sha256})"
        for wheel in (bazel_packages.read(Path(root), here).wheels if here else ())
        if wheel.filename not in carried or carried[wheel.filename]["sha256"] != wheel.sha256
    ]
    new = wheels + [
        f"{kind} {name} {version} (sha256 {sha256})"
        for sha256, (kind, name, version) in lacking(chosen, root).items()
        if sha256 not in left_out
    ]
    if new:
        raise pack_format.PackError(
            f"{path}: outdated: the locks have changed since, and the pack lacks what"
            f" they pin now:\n{pack_format.listed(sorted(new))}\n{_UPDATE}"
        )


def lacking(chosen: pack_format.Pack, root: str) -> dict[str, tuple[str, str, str]]:
    """Returns what the locks of a workspace pin and a pack lacks: sha256 → (kind, name, version).

    That is more than nothing in most packs, because no build needs everything: `left_out` is what the packer's Bazel
    did not download.
    """
    known = {blob.sha256 for blob in chosen.blobs}
    return {sha256: what for sha256, what in locks.entries(Path(root)).items() if sha256 not in known}


def link_or_copy(source: str, place: str) -> None:
    """Makes `place` a hard link of a file, or a copy if the file system has no hard links; replaces what is there."""
    temporary = f"{place}.{os.getpid()}"
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, temporary)
    os.replace(temporary, place)
    if os.path.lexists(temporary):  # rename(2) does nothing if both are links of one file.
        os.unlink(temporary)


_UPDATE = (
    "make a new one where there is a network: tools/bazel run //tools:pack -- FILE (--since with this pack writes only"
    " what is new); or check out the commit that the pack was made from"
)


def check_command(chosen: pack_format.Pack, path: str, configs: Collection[str]) -> None:
    """Rejects a command that the pack does not support, before Bazel tries it.

    Args:
      configs: the configs that the command runs with (`rc_files.configs`).

    Raises:
      pack_format.PackError: the command asks for another profile, or for CUDA from a pack without CUDA.
    """
    if "upstream" in configs:
        raise pack_format.PackError(f"{path}: packs use the profile registries, found --config=upstream: omit it")
    if "cuda" in configs and not chosen.about["cuda"]:
        raise pack_format.PackError(
            f"{path}: a pack without CUDA, found --config=cuda: omit it, or make a pack with CUDA: tools/bazel run"
            " --config=cuda //tools:pack -- FILE"
        )


def _in_repository_cache(view: str, sha256: str) -> str:
    return os.path.join(view, "repositories", "content_addressable", "sha256", sha256, "file")


def _matches(path: str, blob: pack_format.Blob) -> bool:
    return _size(path) == blob.size and file_sha256(Path(path)) == blob.sha256


def _same(one: str, other: str) -> bool:
    return os.path.exists(one) and os.path.samefile(one, other)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return -1
