"""What a release of this checkout is: read from the checkout alone, without Bazel. Standard library only.

Names and versions are those of version.bzl, release/published.bzl and wheels/*/BUILD.bazel, inputs those of the locks.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fetch import locks
from fetch.locks import Input
from release import checkout
from wheels.finished import DIGITS

# The whole build, in names of documents.
WHOLE = "mlc_bazel"
_PROVENANCE = "application/vnd.in-toto+json"
# Media type → suffix of a document that is attached to an image; the whole build has the same.
DOCUMENTS = {
    "application/spdx+json": "spdx.json",
    "application/vnd.cyclonedx+json": "cdx.json",
    _PROVENANCE: "provenance.json",
}
# What a release has besides wheels, documents and SHA256SUMS. //tests/release:claims compares it with //release:dist.
OTHER_FILES = frozenset(
    "gate.json index.html inputs.json licenses.html notes.md release.json vulnerabilities.json".split()
)
_CONSTANT = re.compile(r'^([A-Z_]+) = "([^"]+)"$', re.MULTILINE)


class Unreadable(Exception):
    """The folder is no checkout, or one of its files is not written as this reads it."""


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a release of a checkout is.

    Attributes:
        version: without "v".
        revision: the commit.
        images: the names of all layouts → those of the images in each: for one processor each, or its own.
        wheels: distribution → its version without the build id, for all wheels.
        tags: distribution → the tags of its wheels (PyPA, Platform compatibility tags).
        cuda: the images and distributions among them that only --config=cuda builds.
        locked: what the locks pin, with licences.
        bazel: the version of Bazel that locks/bazel.lock.json pins.
        bazel_packages: what that Bazel is assembled from.
        audit: the day and the sources of the last audit.
    """

    version: str
    revision: str
    images: Mapping[str, frozenset[str]]
    wheels: Mapping[str, str]
    tags: Mapping[str, frozenset[str]]
    cuda: frozenset[str]
    locked: list[Input]
    bazel: str
    bazel_packages: list[Input]
    audit: Mapping[str, Any]

    def is_version(self, distribution: str, version: str) -> bool:
        """Whether a wheel of this release may have a version: the distribution's, and any build id."""
        of = re.escape(self.wheels[distribution])
        return bool(re.fullmatch(rf"{of}\.b[0-9a-f]{{{DIGITS}}}", version))

    def parts(self, *, cuda: bool) -> set[str]:
        """All images and distributions of a release with or without CUDA."""
        return {*self.images, *self.wheels} - (set() if cuda else self.cuda)


def read(workspace: pathlib.Path) -> Expected:
    """Reads a checkout.

    Raises:
        Unreadable, errors.UserError, OSError: it cannot be read.
    """
    versions = dict(_CONSTANT.findall(_text(workspace / "version.bzl")))
    if "VERSION" not in versions:
        raise Unreadable("version.bzl: expected a line VERSION = …, found none")
    version = versions["VERSION"]
    published = workspace / "release/published.bzl"
    images = published_images(published)
    wheels, tags, cuda = {}, {}, {name for name, needs_cuda in images.items() if needs_cuda}
    every_python = _pythons(workspace / "toolchains/python/defs.bzl")
    for package, needs_cuda in _parts(published, "_WHEELS").items():
        distribution, of, per_python, platforms = _wheel(workspace, package, versions)
        wheels[distribution] = of
        tags[distribution] = frozenset(
            f"{python}-{platform}"
            for python in (every_python if per_python else ["py3-none"])
            for platform in platforms
        )
        cuda |= {distribution} if needs_cuda else set()
    in_folder = locks.in_folder(workspace / "locks")
    bazel, bazel_packages = locks.bazel(workspace / "locks" / locks.BAZEL_LOCK)
    audit = json.loads(_text(workspace / "locks/vulnerabilities.lock.json"))
    return Expected(
        version,
        commit(workspace),
        {name: _single_images(published, name) for name in images},
        wheels,
        tags,
        frozenset(cuda),
        locks.load(in_folder),
        bazel,
        bazel_packages,
        {key: audit[key] for key in ("date", "sources")},
    )


def attached(layout: str, images: Iterable[str]) -> list[tuple[str, str, str]]:
    """What is attached to a published layout: the name of the layout or of an image in it, media type, and file.

    Bills of materials are about one image each. One provenance is about all, and attached to all.

    Args:
        layout: its name.
        images: those of the images in it.
    """
    return [
        (name, kind, f"{layout if kind == _PROVENANCE else name}.{suffix}")
        for name in sorted({layout, *images})
        for kind, suffix in DOCUMENTS.items()
        if kind == _PROVENANCE or name in images
    ]


def commit(workspace: pathlib.Path) -> str:
    """The commit that is checked out.

    Raises:
        Unreadable: there is none.
    """
    try:
        # git would answer for a checkout that this folder is in.
        if (top := checkout.root(str(workspace))) != str(workspace.resolve()):
            raise Unreadable(f"{workspace}: expected a git checkout, found a folder in that of {top}")
        return checkout.head(str(workspace))
    except checkout.NoCheckout as error:
        raise Unreadable(f"{workspace}: expected a git checkout, found {error}") from None


def _text(path: pathlib.Path) -> str:
    return path.read_text(encoding="utf-8")


def _statements(path: pathlib.Path) -> Iterator[ast.stmt]:
    # The Starlark of these files is also Python.
    yield from ast.parse(_text(path)).body


def published_images(path: pathlib.Path) -> dict[str, bool]:
    """The OCI layouts that published.bzl publishes: name → whether it needs CUDA.

    Raises:
        Unreadable: it is not written as this reads it.
    """
    layouts = _parts(path, "_MODEL_LAYOUTS")
    models = {model + layout: needs_cuda for model, needs_cuda in _parts(path, "_MODELS").items() for layout in layouts}
    return _parts(path, "_IMAGES") | models


def _single_images(path: pathlib.Path, name: str) -> frozenset[str]:
    """The names of the images in a layout that published.bzl publishes."""
    if name not in _parts(path, "_IMAGES"):
        return frozenset([name])
    return frozenset(f"{name}_{each}" for each in ast.literal_eval(_assigned(path, "_ARCHITECTURES")))


def _parts(path: pathlib.Path, name: str) -> dict[str, bool]:
    """A dictionary of published.bzl: part → whether it needs CUDA."""
    return {part: _needs_cuda(value) for part, value in _dictionary(path, name).items()}


def _dictionary(path: pathlib.Path, name: str) -> dict[str, ast.expr]:
    match _assigned(path, name):
        case ast.Dict(keys=keys, values=values):
            return {ast.literal_eval(key): value for key, value in zip(keys, values) if key}
    raise Unreadable(f"{path.name}: expected {name} = {{…}}, found another value")


def _assigned(path: pathlib.Path, name: str) -> ast.expr:
    for statement in _statements(path):
        match statement:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return value
    raise Unreadable(f"{path.name}: expected {name} = …, found none")


def _needs_cuda(needs: ast.expr) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "NEEDS_CUDA" for node in ast.walk(needs))


def _pythons(path: pathlib.Path) -> frozenset[str]:
    """The tags of Python and ABI of wheels that have one for each CPython: the keys of PYTHONS are the ABIs."""
    return frozenset(f"{abi.removesuffix('t')}-{abi}" for abi in _dictionary(path, "PYTHONS"))


def _wheel(workspace: pathlib.Path, package: str, versions: Mapping[str, str]) -> tuple[str, str, bool, list[str]]:
    """What a package's `wheel` (wheels/private/wheel.bzl) has: the distribution, the version without the build id,
    whether there is one for each CPython, and the tags of the platforms that it is for.
    """
    path = workspace / package.removeprefix("//") / "BUILD.bazel"
    for statement in _statements(path):
        match statement:
            case ast.Expr(value=ast.Call(func=ast.Name(id="wheel"), keywords=keywords)):
                words = {each.arg: each.value for each in keywords}
                platform = words.get("platform", ast.Name(""))
                if isinstance(platform, ast.Name) and platform.id == "PLATFORM":
                    platform = _assigned(workspace / "wheels/defs.bzl", "PLATFORM")
                # by_cpu(…, …)
                platforms = [ast.literal_eval(each) for each in platform.args] if isinstance(platform, ast.Call) else []
                match words.get("distribution"), words.get("version"), words.get("variant", ast.Constant("")):
                    case ast.Constant(str(distribution)), ast.Name(id=of), ast.Constant(str(variant)) if of in versions:
                        variant = f".{variant}" if variant else ""
                        version = f"{versions[of]}+mlc{versions['VERSION']}{variant}"
                        return distribution, version, "pythons" in words, platforms
    raise Unreadable(f"{path}: expected wheel(distribution = …, version = a name of version.bzl), found none")
