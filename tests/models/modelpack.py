"""The rules of the ModelPack specification (github.com/modelpack/model-spec: docs/spec.md, docs/config.md,
docs/annotations.md and schema/config-schema.json), as checks of a layout.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fetch import archives
from oci.layout import Image

MODEL = "application/vnd.cncf.model."
_DIGEST = r"sha256:[0-9a-f]{64}"
_PRECISIONS = r"b?float16|float(32|64|8_e4m3|8_e5m2)|complex(32|64|128)|u?int(8|16|32|64)|bool"


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _time(value: Any) -> bool:
    return _text(value) and datetime.datetime.fromisoformat(value).tzinfo is not None


def _modalities(value: Any) -> bool:
    return _texts(value) and set(value) <= {"text", "image", "audio", "video", "embedding", "other"}


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


# Property → whether a value meets the schema; no object has further properties.
_DESCRIPTOR: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("family", "docURL", "sourceURL", "version", "revision", "vendor", "title", "description"), _text),
    **dict.fromkeys(("authors", "datasetsURL", "licenses"), _texts),
    "createdAt": _time,
    "name": lambda value: _text(value) and len(value) > 0,
}
_CAPABILITIES: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("inputTypes", "outputTypes"), _modalities),
    **dict.fromkeys(("reasoning", "toolUsage", "reward"), _flag),
    "knowledgeCutoff": _time,
    "languages": lambda value: _texts(value) and all(re.fullmatch("[a-z]{2}", each) for each in value),
}
_CONFIG: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("architecture", "format", "quantization"), _text),
    "paramSize": lambda value: _text(value) and bool(re.fullmatch(r"\d+(\.\d)?[qtbmkQTBMK]", value)),
    "precision": lambda value: _text(value) and all(re.fullmatch(_PRECISIONS, each) for each in value.split(",")),
    "capabilities": lambda value: not violations(value, _CAPABILITIES),
}


def violations(content: Any, properties: dict[str, Callable[[Any], bool]]) -> list[str]:
    """The properties of an object that the schema does not allow."""
    if not isinstance(content, dict):
        return [f"no object: {content!r}"]
    return [
        f"{key}: {value!r}" for key, value in content.items() if key not in properties or not properties[key](value)
    ]


def problems(layout: Path) -> list[str]:
    """How a layout violates the specification; empty if it is a ModelPack artifact."""
    image = Image(layout)
    manifest, config = image.manifest, image.config
    found = []
    if manifest.get("schemaVersion") != 2 or manifest.get("mediaType") != "application/vnd.oci.image.manifest.v1+json":
        found.append("manifest: expected an OCI image manifest")
    if manifest.get("artifactType") != MODEL + "manifest.v1+json":
        found.append(f"artifactType: {manifest.get('artifactType')!r}")
    if manifest["config"].get("mediaType") != MODEL + "config.v1+json":
        found.append(f"config.mediaType: {manifest['config'].get('mediaType')!r}")
    if set(config) != {"descriptor", "config", "modelfs"}:
        found.append(f"config: {sorted(config)}")
    found += [f"descriptor.{each}" for each in violations(config.get("descriptor"), _DESCRIPTOR)]
    found += [f"config.{each}" for each in violations(config.get("config"), _CONFIG)]
    found += _modelfs_problems(config.get("modelfs"), image)
    for layer in manifest["layers"]:
        found += _layer_problems(layer, image.blob(layer["digest"]))
    return found


def _modelfs_problems(modelfs: Any, image: Image) -> list[str]:
    if not isinstance(modelfs, dict) or set(modelfs) != {"type", "diffIds"} or modelfs["type"] != "layers":
        return [f"modelfs: {modelfs!r}"]
    digests = modelfs["diffIds"]
    if not digests or not all(_text(each) and re.fullmatch(_DIGEST, each) for each in digests):
        return [f"modelfs.diffIds: {digests!r}"]
    layers = image.manifest["layers"]
    if len(digests) != len(layers):
        return [f"modelfs.diffIds: {len(digests)} for {len(layers)} layers"]
    # Of an uncompressed layer, the digest is that of the blob.
    return [
        f"modelfs.diffIds: {digest} for {layer['digest']}"
        for digest, layer in zip(digests, layers)
        if layer["mediaType"].endswith((".tar", ".raw")) and digest != layer["digest"]
    ]


def _layer_problems(layer: dict[str, Any], blob: Path) -> list[str]:
    kind = re.fullmatch(
        re.escape(MODEL) + r"(weight|weight\.config|doc|code|dataset)\.v1\.(raw|tar(\+gzip|\+zstd)?)",
        layer["mediaType"],
    )
    if not kind:
        return [f"layer: {layer['mediaType']!r}"]
    found = []
    annotations = layer.get("annotations", {})
    path = annotations.get("org.cncf.model.filepath", "")
    if not path or path.startswith("/") or not all(map(_text, annotations.values())):
        found.append(f"layer: annotations {annotations!r}")
    if blob.stat().st_size != layer["size"]:
        found.append(f"layer: {layer['size']} bytes for {blob.stat().st_size}")
    if kind[2] == "tar":
        with archives.open_tar_file(blob) as tar:
            entries = list(tar)
        names = [entry.name for entry in entries]
        files = [entry.name for entry in entries if entry.isreg()]
        # "If the model has multiple weight files, they SHOULD be packaged into separate layers."
        if kind[1] == "weight" and files != [path]:
            found.append(f"layer: weight files {files} in one layer, annotated {path!r}")
        if any(name != path and not name.startswith(f"{path}/") for name in files):
            found.append(f"layer: {files} outside of {path!r}")
        if names != sorted(names) or len({(entry.mtime, entry.uid, entry.gid) for entry in entries}) != 1:
            found.append("layer: not in a reproducible form")
    return found
