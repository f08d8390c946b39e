"""Makes one image layer from a description: Debian packages, folders, files, links, and what installation scripts would
make.

    python3 -m oci.private.make_layer --spec layer.json --output layer.tar.gz --label //:layer --written written.json

written.json is what an image says of the layer: its descriptor, the digest of its content, and its history.

The description is JSON; every key is optional. Paths in the image have no leading slash.

    packages         [.deb, ...]
    bytecode         true                     add __pycache__/*.pyc for this layer's Python modules
    exclude          [glob, ...]              paths of the packages to leave out; `*` also matches `/`
    trees            [[folder, path], ...]    a folder's files, with mode 0644, below a path
    console_scripts  path                     where to write the commands that *.dist-info/entry_points.txt define
    files            [[file, path, mode], ...]
    directories      {path: "mode uid gid"}
    symlinks         {path: target}
    copies           {path: path}             a copy of another file of this layer
    concatenations   {path: glob}             the matching files of this layer, joined in the order of their names
"""

from __future__ import annotations

import argparse
import configparser
import dataclasses
import fnmatch
import importlib.util
import json
import marshal
import os
import pathlib
import sys
import tarfile
import warnings
from typing import Any

from fetch import errors
from oci.layer import SOURCE_DATE_EPOCH, Layer, LayerError
from oci.private.debian_packages import add_package

_KEYS = {
    "bytecode",
    "concatenations",
    "console_scripts",
    "copies",
    "directories",
    "exclude",
    "files",
    "packages",
    "symlinks",
    "trees",
}

_CONSOLE_SCRIPT = """#!/usr/bin/python3
# Runs {module}:{attribute} of {distribution}, as its entry_points.txt says.
import sys

from {module} import {first}

sys.exit({attribute}())
"""


class _EntryPoints(configparser.ConfigParser):
    """Reads entry_points.txt, in which names are case-sensitive."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def make_layer(spec: dict[str, Any]) -> Layer:
    """Makes the layer that a description (see the module's docstring) asks for.

    Raises:
        LayerError: parts contradict each other, or one is missing; the message names path and origin.
    """
    if unknown := set(spec) - _KEYS:
        raise LayerError(f"the layer's description has keys that nobody reads: {', '.join(sorted(unknown))}")
    layer = Layer()
    exclude = tuple(spec.get("exclude", ()))
    for package in spec.get("packages", ()):
        add_package(layer, pathlib.Path(package), exclude)
    for folder, path in spec.get("trees", ()):
        _add_tree(layer, pathlib.Path(folder), path)
    for source, path, mode in spec.get("files", ()):
        layer.add_file(path, pathlib.Path(source), source, int(mode, 8))
    if spec.get("console_scripts"):
        _add_console_scripts(layer, spec["console_scripts"])
    for path, facts in spec.get("directories", {}).items():
        mode, uid, gid = facts.split()
        layer.add_directory(path, "attribute `directories`", int(mode, 8), int(uid), int(gid))
    for path, target in spec.get("symlinks", {}).items():
        layer.add_symlink(path, target, "attribute `symlinks`")
    for path, source in spec.get("copies", {}).items():
        layer.add_file(path, layer.data(source), "attribute `copies`")
    for path, glob in spec.get("concatenations", {}).items():
        names = [name for name, _ in layer.items() if fnmatch.fnmatchcase(name, glob)]
        if not names:
            raise LayerError(f"/{path}: expected files that match {glob!r} in this layer, found none")
        layer.add_file(path, b"".join(layer.data(name) for name in names), "attribute `concatenations`")
    if spec.get("bytecode"):
        _add_bytecode(layer)
    return layer


def _add_bytecode(layer: Layer) -> None:
    """Compiles what an import would, for the CPython that runs this, which is the images'.

    A file says the time and size of its source (PEP 3147), so that a changed source counts. marshal's format 2 has no
    references: later ones depend on what else is in memory.
    """
    for path, entry in list(layer.items()):
        if not path.endswith(".py") or entry.kind == tarfile.DIRTYPE:
            continue
        try:
            source = layer.data(path)  # Also that of a link, whose time and size an import compares.
        except LayerError:  # A link to another layer.
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                code = compile(source, f"/{path}", "exec", dont_inherit=True)
            except (SyntaxError, ValueError):  # No module: a template, or a test of errors.
                continue
        numbers = (0, SOURCE_DATE_EPOCH, len(source) & 0xFFFFFFFF)
        header = importlib.util.MAGIC_NUMBER + b"".join(number.to_bytes(4, "little") for number in numbers)
        folder, _, name = path.rpartition("/")
        cached = f"{folder}/__pycache__/{name[:-3]}.{sys.implementation.cache_tag}.pyc"
        layer.add_file(cached, header + marshal.dumps(code, 2), f"bytecode of /{path}")


def _add_tree(layer: Layer, folder: pathlib.Path, path: str) -> None:
    # Follow links, because in a sandbox every input is one. Set modes, because Bazel marks each output executable.
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            source = pathlib.Path(parent, name)
            layer.add_file(f"{path}/{source.relative_to(folder).as_posix()}", source, f"folder {folder}")


def _add_console_scripts(layer: Layer, folder: str) -> None:
    for path, entry in list(layer.items()):
        if not path.endswith(".dist-info/entry_points.txt"):
            continue
        points = _EntryPoints(delimiters=("=",), interpolation=None)
        points.read_string(entry.data().decode())
        for name, point in points.items("console_scripts") if points.has_section("console_scripts") else []:
            module, _, attribute = point.split("[")[0].strip().partition(":")
            text = _CONSOLE_SCRIPT.format(
                module=module,
                attribute=attribute,
                first=attribute.split(".")[0],
                distribution=path.split("/")[-2].removesuffix(".dist-info"),
            )
            layer.add_file(f"{folder}/{name}", text.encode(), path, 0o755)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the layer's description, JSON")
    parser.add_argument(
        "--output", type=pathlib.Path, required=True, help="the layer to write, .tar.gz, .tar.zst or .tar"
    )
    parser.add_argument("--label", required=True, help="the layer's target, for the image's history")
    parser.add_argument(
        "--written", type=pathlib.Path, required=True, help="what an image says of it, to write as JSON"
    )
    arguments = parser.parse_args()
    try:
        written = make_layer(json.loads(arguments.spec.read_text())).write(arguments.output)
        history = {"created": "1970-01-01T00:00:00Z", "created_by": f"bazel build {arguments.label}"}
        arguments.written.write_text(json.dumps(dataclasses.asdict(written) | {"history": history}))
    except (LayerError, errors.UserError) as error:
        print(f"make_layer: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
