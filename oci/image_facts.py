"""Reads the layers, files and packages of an image in one pass over each layer, and compares two images."""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import email.parser
import hashlib
import pathlib
import posixpath
import re
import shlex
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from debian.deb822 import Deb822

from oci.layout import Image, LayoutError, named_images
from oci.layout import content as content_of
from oci.layout import stream as stream_of

# Where packages are recorded: dpkg's database, its variant for images without dpkg, and Python's (PEP 376).
_DPKG_STATUS = "var/lib/dpkg/status"
_DPKG_STATUS_FOLDER = "var/lib/dpkg/status.d"
_DPKG_INFO_FOLDER = "var/lib/dpkg/info"
_RECORDS = re.compile(
    rf"{_DPKG_STATUS}|{_DPKG_STATUS_FOLDER}/[^/]+|{_DPKG_INFO_FOLDER}/[^/]+\.md5sums|"
    r"(.*/)?(dist|site)-packages/[^/]+\.dist-info/(METADATA|RECORD)"
)

# How a layer removes files of lower layers: OCI image-spec, layer.md, "Whiteouts".
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


class ImageError(ValueError):
    """A folder is not a readable image; the message is one line that names it."""


@dataclasses.dataclass(frozen=True)
class File:
    """One path of an image.

    Args:
        layer: number of the layer that contains it, counted from the lowest.
        kind: "file", "folder", "link", "hard link" or "special".
        size: bytes of a regular file, else 0.
        content: sha256 of a regular file, target of a link.
    """

    layer: int
    kind: str
    size: int
    content: str
    mode: int
    uid: int
    gid: int


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of an image.

    Args:
        maker: what made it, according to the image's history.
        compressed: bytes in a registry.
        unpacked: bytes of its regular files.
        files: number of paths that are not folders.
    """

    number: int
    digest: str
    maker: str
    compressed: int
    unpacked: int
    files: int

    @property
    def origin(self) -> str:
        """The Bazel target or the command that made it."""
        return self.maker.removeprefix("bazel build ").lstrip("@") or "unknown"

    @property
    def name(self) -> str:
        """The name of the Bazel target that made it, or its position."""
        return self.origin.rpartition(":")[2] if self.maker.startswith("bazel build ") else f"layer {self.number + 1}"


@dataclasses.dataclass(frozen=True)
class Package:
    """One installed package.

    Args:
        ecosystem: "Debian" or "Python".
        size: bytes of its files that are in the image.
    """

    ecosystem: str
    name: str
    version: str
    size: int


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """The facts of one image.

    Args:
        config: the image's configuration (OCI image-spec, config.md).
        labels: see `oci.layout.Image.labels`.
        files: by path without leading slash: what a container sees.
        packages: by size, largest first.
        hidden: files of lower layers that an upper one replaces or removes; they are pulled and stored, but invisible.
    """

    name: str
    digest: str
    config: dict[str, Any]
    labels: dict[str, str]
    layers: list[Layer]
    files: dict[str, File]
    packages: list[Package]
    hidden: list[tuple[str, File]]

    @property
    def compressed(self) -> int:
        return sum(layer.compressed for layer in self.layers)

    @property
    def unpacked(self) -> int:
        return sum(layer.unpacked for layer in self.layers)

    @property
    def platform(self) -> str:
        return "/".join(self.config[key] for key in ("os", "architecture", "variant") if self.config.get(key))

    def label(self, key: str) -> str:
        """An OCI label (image-spec, annotations.md) by the last part of its name, or nothing."""
        return self.labels.get(f"org.opencontainers.image.{key}", "")

    def settings(self) -> dict[str, str]:
        """The configuration as text, one line per setting: command, user, working directory, environment, labels."""
        config = self.config.get("config") or {}
        settings = {"platform": self.platform, "created": self.config.get("created", "")}
        settings |= {key.lower(): shlex.join(config.get(key) or []) for key in ("Entrypoint", "Cmd")}
        plain = {"user": "User", "working directory": "WorkingDir", "stop signal": "StopSignal"}
        settings |= {key: config.get(name) or "" for key, name in plain.items()}
        settings |= {
            key: ", ".join(sorted(config.get(name) or {}))
            for key, name in {"ports": "ExposedPorts", "volumes": "Volumes"}.items()
        }
        for key, value in sorted(entry.partition("=")[::2] for entry in config.get("Env") or []):
            settings[f"environment: {key}"] = value
        settings |= {f"label: {key}": value for key, value in sorted(self.labels.items())}
        return {key: value for key, value in settings.items() if value}

    def largest_files(self, count: int) -> list[tuple[str, File]]:
        return sorted(self.files.items(), key=lambda item: (-item[1].size, item[0]))[:count]

    def duplicates(self) -> list[Duplicate]:
        """Files with the same content, the most wasteful first."""
        groups = collections.defaultdict(list)
        for path, file in sorted(self.files.items()):
            if file.size:
                groups[file.content].append((path, file))
        found = [Duplicate(group[0][1].size, group) for group in groups.values() if len(group) > 1]
        return sorted(found, key=lambda duplicate: (-duplicate.wasted, duplicate.files[0][0]))


@dataclasses.dataclass(frozen=True)
class Duplicate:
    """Files with the same content and therefore the same size."""

    size: int
    files: list[tuple[str, File]]

    @property
    def wasted(self) -> int:
        return self.size * (len(self.files) - 1)


@dataclasses.dataclass(frozen=True)
class Change:
    """One thing that differs between two images; `before` or `after` is None if that image lacks it."""

    key: str
    before: Any
    after: Any

    @property
    def kind(self) -> str:
        return "added" if self.before is None else "removed" if self.after is None else "changed"

    @property
    def growth(self) -> int:
        """How many bytes a package or file has grown."""
        return (self.after.size if self.after else 0) - (self.before.size if self.before else 0)


@dataclasses.dataclass(frozen=True)
class Difference:
    """The changes from one image to another.

    Args:
        shared, added, removed: layers by their digest.
        packages: changes of Package, the largest change in size first.
        files: changes of File, in the same order; folders are listed only if they themselves change.
        settings: changes of `ImageFacts.settings`.
    """

    shared: list[Layer]
    added: list[Layer]
    removed: list[Layer]
    packages: list[Change]
    files: list[Change]
    settings: list[Change]

    @property
    def pull(self) -> int:
        """Bytes that a machine with the one image pulls to get the other."""
        return sum({layer.digest: layer.compressed for layer in self.added}.values())


@dataclasses.dataclass(frozen=True)
class LayerContent:
    """The content of one layer, without its position in an image, so that images can share it.

    Args:
        files: by path, whiteouts included; `File.layer` is 0.
        records: the files in which packages are recorded, by path.
    """

    files: dict[str, File]
    records: dict[str, str]


def named(name: str, folder: pathlib.Path) -> dict[str, Image]:
    """The images of an OCI layout: see `oci.layout.named_images`.

    Args:
        name: the layout's.
        folder: has it.

    Raises:
        ImageError: there is no readable one.
    """
    if not (folder / "index.json").is_file():
        raise ImageError(f"{name}: expected an OCI image layout in {folder}, found no index.json")
    with _unreadable(name, folder):
        return named_images(name, folder)


@contextlib.contextmanager
def _unreadable(name: str, folder: pathlib.Path) -> Iterator[None]:
    """Turns what reading a layout raises into an ImageError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, OSError, EOFError, tarfile.TarError) as error:
        reason = " ".join(str(error).split())
        found = reason if isinstance(error, LayoutError) else f"{type(error).__name__}: {reason}"
        raise ImageError(f"{name}: expected an OCI image layout with layers in {folder}, found {found}") from error


def read(name: str, image: Image, known: dict[str, LayerContent]) -> ImageFacts:
    """The facts of an image.

    Args:
        name: what to call it.
        image: of a layout.
        known: layers already read, by digest; this image's layers are added.

    Raises:
        ImageError: it cannot be read.
    """
    with _unreadable(name, image.folder):
        for number, digest in enumerate(image.layer_digests):
            if digest not in known:
                known[digest] = _read_layer(image, number)
        contents = [known[digest] for digest in image.layer_digests]
        labels = image.labels
        # A history entry without a layer changes only the configuration.
        makers = [
            step.get("created_by", "") for step in image.config.get("history") or [] if not step.get("empty_layer")
        ]
        layers = [
            Layer(
                number=number,
                digest=layer["digest"],
                maker=makers[number] if number < len(makers) else "",
                compressed=layer["size"],
                unpacked=sum(file.size for file in content.files.values()),
                files=sum(file.kind != "folder" for file in content.files.values()),
            )
            for number, (layer, content) in enumerate(zip(image.manifest["layers"], contents))
        ]
    files, hidden = _stack(contents)
    records = {
        path: contents[files[path].layer].records[path]
        for path in sorted(files)
        if path in contents[files[path].layer].records
    }
    packages = sorted(_packages(records, files), key=lambda package: (-package.size, package.ecosystem, package.name))
    return ImageFacts(name, image.digest, image.config, labels, layers, files, packages, hidden)


def compare(before: ImageFacts, after: ImageFacts) -> Difference:
    """The changes from `before` to `after`."""
    old, new = {layer.digest for layer in before.layers}, {layer.digest for layer in after.layers}

    def weight(change: Change) -> tuple:
        return -abs(change.growth), change.key

    return Difference(
        shared=[layer for layer in after.layers if layer.digest in old],
        added=[layer for layer in after.layers if layer.digest not in old],
        removed=[layer for layer in before.layers if layer.digest not in new],
        packages=sorted(
            _changes(_by_name(before.packages), _by_name(after.packages), lambda package: package.version), key=weight
        ),
        # A container does not see which layer a file comes from.
        files=sorted(_changes(before.files, after.files, lambda file: dataclasses.replace(file, layer=0)), key=weight),
        settings=list(_changes(before.settings(), after.settings(), lambda value: value)),
    )


def _by_name(packages: Iterable[Package]) -> dict[str, Package]:
    return {f"{package.ecosystem} {package.name}": package for package in packages}


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], identity: Callable[[Any], Any]) -> Iterator[Change]:
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old is None or new is None or identity(old) != identity(new):
            yield Change(key, old, new)


def _read_layer(image: Image, number: int) -> LayerContent:
    files: dict[str, File] = {}
    records: dict[str, str] = {}
    for name, entry, tar in image.walk(number):
        path = posixpath.normpath(name).lstrip("/")
        if path == ".":
            continue
        content = entry.linkname
        if entry.isreg():
            if _RECORDS.fullmatch(path):
                data = content_of(tar, entry)
                records[path] = data.decode(errors="replace")
                content = hashlib.sha256(data).hexdigest()
            else:
                # Layers hold files of hundreds of megabytes: hash them as a stream.
                content = hashlib.file_digest(stream_of(tar, entry), "sha256").hexdigest()
        kinds = {
            "file": entry.isreg(),
            "folder": entry.isdir(),
            "link": entry.issym(),
            "hard link": entry.islnk(),
            "special": True,
        }
        files[path] = File(
            layer=0,
            kind=next(kind for kind, holds in kinds.items() if holds),
            size=entry.size if entry.isreg() else 0,
            content=content,
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
        )
    return LayerContent(files, records)


def _stack(contents: list[LayerContent]) -> tuple[dict[str, File], list[tuple[str, File]]]:
    """The file system that stacked layers form, and the regular files that it hides."""
    files: dict[str, File] = {}
    hidden: list[tuple[str, File]] = []
    for number, content in enumerate(contents):
        gone: set[str] = set()  # paths removed with everything below them
        emptied: set[str] = set()  # folders that stay, without their content
        for path, file in content.files.items():
            folder, name = posixpath.split(path)
            if name == _OPAQUE:
                emptied.add(folder)
            elif name.startswith(_WHITEOUT):
                gone.add(posixpath.join(folder, name.removeprefix(_WHITEOUT)))
            elif path in files and file.kind != "folder":
                gone.add(path)
        if gone or emptied:
            for path in sorted(files):
                if path in gone or any(parent in gone or parent in emptied for parent in _parents(path)):
                    file = files.pop(path)
                    if file.kind == "file":
                        hidden.append((path, file))
        for path, file in content.files.items():
            if not posixpath.basename(path).startswith(_WHITEOUT):
                files[path] = dataclasses.replace(file, layer=number)
    return files, hidden


def _parents(path: str) -> Iterator[str]:
    """The folders above a path, up to the root, which is the empty string."""
    while path:
        path = posixpath.dirname(path)
        yield path


def _packages(records: Mapping[str, str], files: Mapping[str, File]) -> Iterator[Package]:
    owned = set()  # Paths of Debian packages: their Python metadata would list the same package again.
    for path, text in records.items():
        if path != _DPKG_STATUS and (posixpath.dirname(path) != _DPKG_STATUS_FOLDER or path.endswith(".md5sums")):
            continue
        for fields in Deb822.iter_paragraphs(text, use_apt_pkg=False):
            name = fields["Package"]
            if fields.get("Status", "installed").split()[-1] != "installed":
                continue
            prefixes = [path, f"{_DPKG_INFO_FOLDER}/{name}", f"{_DPKG_INFO_FOLDER}/{name}:{fields.get('Architecture')}"]
            sums = next((records[f"{prefix}.md5sums"] for prefix in prefixes if f"{prefix}.md5sums" in records), "")
            # Even with a merged /usr, the lists name /bin/sh.
            listed = [line.split("  ", 1)[1] for line in sums.splitlines() if "  " in line]
            paths = {listed_path if listed_path in files else f"usr/{listed_path}" for listed_path in listed}
            owned |= paths
            yield Package("Debian", name, fields["Version"], _size(paths, files))
    for path, text in records.items():
        folder, name = posixpath.split(path)
        if name != "METADATA" or path in owned:
            continue
        metadata = email.parser.HeaderParser().parsestr(text)
        rows = csv.reader(records.get(f"{folder}/RECORD", "").splitlines())
        paths = {
            posixpath.normpath(posixpath.join(posixpath.dirname(folder), row[0])).lstrip("/") for row in rows if row
        }
        yield Package("Python", metadata["Name"], metadata["Version"], _size(paths, files))


def _size(paths: Iterable[str], files: Mapping[str, File]) -> int:
    return sum(files[path].size for path in paths if path in files)
