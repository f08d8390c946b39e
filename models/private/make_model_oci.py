"""Makes a model's two OCI layouts: an image that holds nothing but the model, and a ModelPack artifact.

    make_model_oci --name tiny --weights tiny --library tiny.so --labels labels.txt --origin //models/tiny:tiny_oci \\
        --image tiny_oci --modelpack tiny_oci.modelpack

The image has the model's folder at /models/NAME and its library at /models/NAME.so. Each weight shard is a layer, so a
registry and a machine that have a shard do not transfer it again; the tokenizer and configurations share the layer
after them, and the library is the last. The ModelPack manifest (github.com/modelpack/model-spec, docs/spec.md) refers
to the same layers under its own media types.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fetch import archives, errors, strict_json
from oci.layer import SOURCE_DATE_EPOCH, ByteSink, HashingStream, Layer, LayerError
from oci.layout_writer import Descriptor, LayoutWriter

CONFIG = "mlc-chat-config.json"
# The list of weight shards that TVM writes and loads.
WEIGHTS = "tensor-cache.json"

FOLDER = "models"

# Text of the model's licence in its folder; licenses.py of //release reads it.
LICENSE = "LICENSE"

# Docker refuses images of more than 125 layers. Shards of larger models share layers: mlc-llm's have 32 MB each.
MOST_WEIGHT_LAYERS = 100

CREATED = "2000-01-01T00:00:00Z"
assert SOURCE_DATE_EPOCH == 946684800, "CREATED is the same time"

# e_machine in an ELF header (System V ABI, chapter 4) → architecture in an image's configuration.
_ARCHITECTURES = {62: "amd64", 183: "arm64"}

# ModelPack, docs/spec.md: media types of layers; those of an image differ only in what stands before ".tar".
_IMAGE_LAYER = "application/vnd.oci.image.layer.v1"
_IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
_MODEL = "application/vnd.cncf.model"
_FILE_PATH = "org.cncf.model.filepath"

_TITLE = "org.opencontainers.image.title"
# ModelPack, docs/config.md: property of the descriptor → label of the image.
_DESCRIPTOR = {
    "description": "org.opencontainers.image.description",
    "revision": "org.opencontainers.image.revision",
    "sourceURL": "org.opencontainers.image.source",
    "title": _TITLE,
    "version": "org.opencontainers.image.version",
}
_LICENSES = "org.opencontainers.image.licenses"


class ModelError(errors.UserError):
    """A model cannot be packed; one line names the file, and what was expected and found."""


@dataclasses.dataclass(frozen=True)
class Part:
    """What becomes one layer.

    Args:
        kind: between "application/vnd.cncf.model." and ".v1": "weight", "weight.config" or "code".
        files: path in the image → the file.
        mode: permissions of the files.
    """

    kind: str
    files: dict[str, Path]
    mode: int = 0o644

    @property
    def path(self) -> str:
        """The one file, or the folder that has all of them."""
        return next(iter(self.files)) if len(self.files) == 1 else os.path.commonpath(list(self.files))


def model_files(folder: Path) -> dict[str, Path]:
    """All files of a model's folder by their path in it.

    Raises:
        ModelError: a name that a file in an image cannot have.
    """
    files = {}
    # Follow links, because in a sandbox every input is one.
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(parent, name)
            files[_checked(path.relative_to(folder).as_posix(), str(folder))] = path
    return files


def _checked(path: str, what: str) -> str:
    """Returns a path below the model's folder.

    Raises:
        ModelError: it leads elsewhere, is no text, or would delete a file: an image's layer says so by a name that
          starts with ".wh." (image-spec, layer.md).
    """
    try:
        plain = archives.relative_name(path, what)
    except archives.ArchiveError as error:
        raise ModelError(str(error)) from None
    if plain != path or not path or any(part.startswith(".wh.") for part in path.split("/")):
        raise ModelError(f"{what}: expected a file name that an image can have, found {path!r:.200}: rename it")
    return path


def weight_shards(folder: Path, files: dict[str, Path]) -> list[str]:
    """The names of the weight shards, in the order of the list that TVM loads.

    Raises:
        ModelError: the folder has no list, or lacks a shard of it.
    """
    if WEIGHTS not in files:
        raise ModelError(
            f"{folder}: expected {WEIGHTS} and the weights that it lists, found none: mlc_model makes them,"
            " mlc_model_library does not"
        )
    with _reading(files[WEIGHTS]):
        sizes = {record["dataPath"]: record["nbytes"] for record in strict_json.read(files[WEIGHTS])["records"]}
    for name, expected in sizes.items():
        if name not in files:
            raise ModelError(f"{folder}: expected the weight shard {name!r:.200} that {WEIGHTS} lists, found none")
        if (size := files[name].stat().st_size) != expected:
            raise ModelError(f"{files[name]}: expected {expected!r:.50} bytes, as {WEIGHTS} says, found {size}")
    return list(sizes)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what reading a malformed document raises into a ModelError that names the file."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: expected a file as mlc_model writes it, found {error!r:.200}") from None


def parts(name: str, folder: Path, library: Path, license_file: Path | None = None) -> list[Part]:
    """The layers of a model, from the one that changes least.

    Args:
        name: the model's name, a folder below /models.
        folder, library: see `mlc_model`.
        license_file: text of the model's licence, if the folder has none.

    Raises:
        ModelError: the folder is not a model's, or the name is no file's.
    """
    if "/" in name:
        raise ModelError(f"--name: expected one folder's name, found {name!r:.200}")
    _checked(name, "--name")
    files = model_files(folder)
    if license_file:
        if LICENSE in files:
            raise ModelError(f"{files[LICENSE]}: expected no {LICENSE} next to --license-file, found both; give up one")
        files[LICENSE] = license_file
    if CONFIG not in files:
        raise ModelError(f"{folder}: expected a model's folder with {CONFIG}, found none")
    shards = weight_shards(folder, files)
    rest = [path for path in files if path not in shards]

    def place(paths: list[str]) -> dict[str, Path]:
        return {f"{FOLDER}/{name}/{path}": files[path] for path in paths}

    together = -(-len(shards) // MOST_WEIGHT_LAYERS)
    return [
        *(Part("weight", place(shards[first : first + together])) for first in range(0, len(shards), together or 1)),
        Part("weight.config", place(rest)),
        Part("code", {f"{FOLDER}/{name}.so": library}, 0o755),
    ]


def architecture(library: Path) -> str:
    """The architecture that a compiled model is for, as an image's configuration names it.

    Raises:
        ModelError: it is no ELF file for a known one.
    """
    with open(library, "rb") as file:
        header = file.read(20)
    machine = int.from_bytes(header[18:20], "little")
    if not header.startswith(b"\x7fELF") or machine not in _ARCHITECTURES:
        raise ModelError(
            f"{library}: expected an ELF library for {' or '.join(_ARCHITECTURES.values())}, found {header.hex()!r}"
        )
    return _ARCHITECTURES[machine]


def model_config(name: str, chat_config: dict[str, Any], labels: dict[str, str], diff_ids: list[str]) -> dict[str, Any]:
    """The configuration of a ModelPack artifact (docs/config.md); unknown properties are left out.

    Args:
        name: the model's.
        chat_config: content of mlc-chat-config.json.
        labels: the artifact's annotations.
        diff_ids: digests of the uncompressed layers.
    """
    quantization = chat_config.get("quantization")
    # q4f16_1 computes in float16, q0bf16 in bfloat16.
    computes = re.search(r"(b?)f(16|32)", quantization) if isinstance(quantization, str) else None
    technical = {
        "format": "mlc",
        "precision": computes and f"{'bfloat' if computes[1] else 'float'}{computes[2]}",
        "quantization": quantization,
    }
    descriptor = {
        "family": chat_config.get("model_type"),
        "name": name,
        **{key: labels.get(label) for key, label in _DESCRIPTOR.items()},
        "licenses": [labels[_LICENSES]] if labels.get(_LICENSES) else None,
    }
    return {
        "descriptor": {key: value for key, value in descriptor.items() if value},
        "config": {key: value for key, value in technical.items() if value},
        "modelfs": {"type": "layers", "diffIds": diff_ids},
    }


class Writer:
    """Writes the layers of both layouts.

    Args:
        image, modelpack: the layouts to write.
        zstd: the program that compresses layers, if they are to be compressed.
    """

    def __init__(self, image: Path, modelpack: Path, zstd: Path | None) -> None:
        self.image, self.modelpack = LayoutWriter(image), LayoutWriter(modelpack)
        self.zstd = zstd
        self.diff_ids: list[str] = []
        self.image_layers: list[Descriptor] = []
        self.model_layers: list[Descriptor] = []

    def add(self, part: Part) -> None:
        layer = Layer()
        for path, source in part.files.items():
            layer.add_file(path, source, str(source), part.mode)
        compression = "+zstd" if self.zstd else ""
        diff_ids: list[str] = []
        descriptor = self.image.add(self._compressed(layer, diff_ids), f"{_IMAGE_LAYER}.tar{compression}")
        self.diff_ids += diff_ids
        self.image_layers.append(descriptor)
        shared = self.modelpack.share(self.image, descriptor, f"{_MODEL}.{part.kind}.v1.tar{compression}")
        self.model_layers.append({**shared, "annotations": {_FILE_PATH: part.path}})

    def _compressed(self, layer: Layer, diff_ids: list[str]) -> Callable[[ByteSink], object]:
        """What writes a layer as a blob; appends the digest of the uncompressed layer."""

        def write(output: ByteSink) -> None:
            if not self.zstd:
                stream = HashingStream(output)
                layer.write_tar(stream)
                diff_ids.append(stream.digest)
                return
            with tempfile.TemporaryFile() as file:
                stream = HashingStream(file)
                layer.write_tar(stream)
                diff_ids.append(stream.digest)
                file.seek(0)
                # One thread: the number of threads decides where zstd cuts its blocks.
                command = [str(self.zstd), "--quiet", "--single-thread", "--stdout"]
                with subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE) as process:
                    assert process.stdout
                    shutil.copyfileobj(process.stdout, output)
            if process.returncode:
                raise ModelError(f"{self.zstd}: expected a compressed layer, found exit code {process.returncode}")

        return write


def make(
    name: str,
    folder: Path,
    library: Path,
    labels: dict[str, str],
    origin: str,
    writer: Writer,
    license_file: Path | None = None,
) -> None:
    """Writes both layouts.

    Args:
        name, folder, library, license_file: see `parts`.
        labels: of the image, with its title; the ModelPack manifest has them as annotations.
        origin: label of the Bazel target, for the image's history.
        writer: the layouts.

    Raises:
        ModelError, LayerError: the model cannot be packed.
    """
    layers = parts(name, folder, library, license_file)
    built_for = architecture(library)
    with _reading(folder / CONFIG):
        chat_config = dict(strict_json.read(folder / CONFIG).items())
    for part in layers:
        writer.add(part)
    image = {
        "created": CREATED,
        "architecture": built_for,
        "os": "linux",
        "config": {"Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": writer.diff_ids},
        "history": [
            {"created": CREATED, "created_by": f"bazel build {origin}", "comment": f"/{part.path}"} for part in layers
        ],
    }
    # Registries show a manifest's annotations, and the ModelPack configuration has no room for labels.
    writer.image.finish(writer.image.add_json(image, _IMAGE_CONFIG), writer.image_layers, annotations=labels)
    # What is published under two names has two titles.
    annotations = {**labels, _TITLE: f"{labels[_TITLE]}.modelpack"}
    model = model_config(name, chat_config, annotations, writer.diff_ids)
    writer.modelpack.finish(
        writer.modelpack.add_json(model, f"{_MODEL}.config.v1+json"),
        writer.model_layers,
        artifactType=f"{_MODEL}.manifest.v1+json",
        annotations=annotations,
    )


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="the model's name, its folder below /models")
    parser.add_argument("--weights", type=Path, required=True, help="the model's folder")
    parser.add_argument("--library", type=Path, required=True, help="the compiled model")
    parser.add_argument("--labels", type=Path, required=True, help="the image's labels, a key=value on each line")
    parser.add_argument("--license-file", type=Path, help="text of the model's licence")
    parser.add_argument("--origin", required=True, help="label of the target that is being built")
    parser.add_argument("--zstd", type=Path, help="the program zstd; without it, layers are not compressed")
    parser.add_argument("--image", type=Path, required=True, help="the image's layout to write")
    parser.add_argument("--modelpack", type=Path, required=True, help="the ModelPack artifact's layout to write")
    options = parser.parse_args(words)
    labels = dict(line.split("=", 1) for line in options.labels.read_text().splitlines())
    try:
        writer = Writer(options.image, options.modelpack, options.zstd)
        make(options.name, options.weights, options.library, labels, options.origin, writer, options.license_file)
    except (LayerError, errors.UserError) as error:
        print(f"make_model_oci: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
