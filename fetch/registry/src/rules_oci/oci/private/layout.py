"""Writes OCI image layouts: an image from layers, or an index from images.

OCI image specification: image-layout.md, manifest.md, config.md, image-index.md. Standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class ImageError(Exception):
    """An error in a target, for its author."""


def canonical(document: dict) -> bytes:
    """JSON whose bytes depend only on the content."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Layout:
    """An image layout on disk.

    Args:
        root: its folder, created if missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs/sha256"

    def blob(self, digest: str) -> Path:
        """The file of a blob."""
        return self.blobs / digest.removeprefix("sha256:")

    def read(self, digest: str) -> dict:
        """A blob that is JSON."""
        return json.loads(self.blob(digest).read_bytes())

    def single(self) -> dict:
        """The descriptor of the only manifest or index in the layout."""
        manifests = json.loads((self.root / "index.json").read_bytes())["manifests"]
        if len(manifests) != 1:
            raise ImageError(f"{self.root}: expected one manifest in index.json, found {len(manifests)}")
        return manifests[0]

    def add(self, document: dict, media_type: str) -> dict:
        """Writes a JSON blob; returns its descriptor."""
        content = canonical(document)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.blob(digest).write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def copy(self, digest: str, source: Path) -> None:
        """Copies a blob from a file; the kernel does the copying."""
        self.blobs.mkdir(parents=True, exist_ok=True)
        if not self.blob(digest).exists():
            shutil.copyfile(source, self.blob(digest))

    def finish(self, descriptor: dict) -> None:
        """Writes index.json and the layout's marker."""
        (self.root / "oci-layout").write_bytes(canonical({"imageLayoutVersion": "1.0.0"}))
        (self.root / "index.json").write_bytes(
            canonical({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]})
        )


def lines(text: str) -> list[str]:
    """The entries of a file with one entry per line."""
    return [line for line in text.split("\n") if line]


def mapping(text: str, what: str) -> dict[str, str]:
    """The entries of a file of KEY=VALUE lines, in its order."""
    entries = {}
    for line in lines(text):
        key, equals, value = line.partition("=")
        if not key or not equals:
            raise ImageError(f"{what}: expected KEY=VALUE, found {line!r}")
        entries[key] = value
    return entries


def words(text: str) -> list[str]:
    """The entries of cmd or entrypoint; %5Cn stands for a newline inside one."""
    return [line.replace("%5Cn", "\n") for line in lines(text)]


def merged_environment(base: list[str], text: str) -> list[str]:
    """The base's environment with new entries, in which $NAME and ${NAME} expand to the values set so far."""
    merged = dict(entry.partition("=")[::2] for entry in base)
    for key, value in mapping(text, "env").items():

        def expand(match: re.Match[str], key: str = key, value: str = value) -> str:
            name = match[1] or match[2]
            if name not in merged:
                raise ImageError(f"env: {key}={value} needs {name}, which neither the base nor an earlier entry sets")
            return merged[name]

        merged[key] = VARIABLE.sub(expand, value)
    return [f"{key}={value}" for key, value in merged.items()]


def configure(config: dict, values: dict[str, str]) -> None:
    """Puts the values of oci_image's attributes into an image configuration, in place.

    Args:
        config: the image configuration (config.md).
        values: attribute to text: env, labels as KEY=VALUE lines, cmd and entrypoint as lines, exposed_ports and
            volumes separated by commas, user, workdir and created as they are.
    """
    settings = config.setdefault("config", {})
    if "env" in values:
        settings["Env"] = merged_environment(settings.get("Env", []), values["env"])
    if "entrypoint" in values:
        # The base's command belongs to the base's entrypoint; Docker and upstream drop it too.
        settings.pop("Cmd", None)
        settings["Entrypoint"] = words(values["entrypoint"])
    if "cmd" in values:
        settings["Cmd"] = words(values["cmd"])
    for name, key in ("exposed_ports", "ExposedPorts"), ("volumes", "Volumes"):
        if values.get(name):
            settings[key] = {**settings.get(key, {}), **{entry: {} for entry in values[name].split(",")}}
    if "labels" in values:
        settings["Labels"] = {**settings.get("Labels", {}), **mapping(values["labels"], "labels")}
    if "user" in values:
        settings["User"] = values["user"]
    if "workdir" in values:
        settings["WorkingDir"] = values["workdir"]
    if "created" in values:
        created = values["created"]
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", created):
            raise ImageError(f"created: expected a time like 1970-01-01T00:00:00Z and no newline, found {created!r}")
        config["created"] = created


def write_image(spec: dict, output: Path) -> None:
    """Writes an image.

    Args:
        spec: what oci_image in image.bzl writes: "base" (a layout's folder or None), "platform" (os, architecture,
            variant; without base), "layers" (pairs of the layer's file and its description), "values" (attribute to
            text) and "files" (attribute to a file with the text).
        output: folder of the new layout.
    """
    layout = Layout(output)
    if spec["base"]:
        base = Layout(Path(spec["base"]))
        manifest = base.read(base.single()["digest"])
        if "layers" not in manifest:
            raise ImageError(f"base: expected an image, found {manifest.get('mediaType', 'something else')}")
        config = base.read(manifest["config"]["digest"])
        for layer in manifest["layers"]:
            layout.copy(layer["digest"], base.blob(layer["digest"]))
    else:
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}
        config = {
            "created": "1970-01-01T00:00:00Z",
            "config": {},
            "history": [],
            "rootfs": {"type": "layers", "diff_ids": []},
            **spec["platform"],
        }
    for path, description_path in spec["layers"]:
        description = json.loads(Path(description_path).read_bytes())
        layout.copy(description["descriptor"]["digest"], Path(path))
        manifest["layers"].append(description["descriptor"])
        config["rootfs"]["diff_ids"].append(description["diff_id"])
        config.setdefault("history", []).append(description["history"])
    values = {
        **spec["values"],
        **{name: Path(path).read_text(encoding="utf-8") for name, path in spec["files"].items()},
    }
    configure(config, values)
    if "annotations" in values:
        manifest["annotations"] = {**manifest.get("annotations", {}), **mapping(values["annotations"], "annotations")}
    manifest["config"] = layout.add(config, CONFIG)
    layout.finish(layout.add(manifest, MANIFEST))


def write_index(spec: dict, output: Path) -> None:
    """Writes an index of images, with the platform of each.

    Args:
        spec: what oci_image_index in image.bzl writes: "images", the layouts' folders.
        output: folder of the new layout.
    """
    layout = Layout(output)
    manifests = []
    for image in map(Layout, map(Path, spec["images"])):
        descriptor = image.single()
        manifest = image.read(descriptor["digest"])
        config = image.read(manifest["config"]["digest"])
        keys = ("architecture", "os", "os.features", "os.version", "variant")
        manifests.append({**descriptor, "platform": {key: config[key] for key in keys if key in config}})
        for blob in sorted(image.blobs.iterdir()):
            layout.copy(blob.name, blob)
    layout.finish(layout.add({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}, INDEX))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["image", "index"])
    parser.add_argument("--spec", type=Path, required=True, help="JSON file, see write_image and write_index")
    parser.add_argument("--output", type=Path, required=True, help="folder of the layout")
    parser.add_argument("--digest", type=Path, help="file to write the digest to")
    arguments = parser.parse_args()
    spec = json.loads(arguments.spec.read_text(encoding="utf-8"))
    try:
        {"image": write_image, "index": write_index}[arguments.kind](spec, arguments.output)
    except ImageError as error:
        sys.exit(f"{spec['label']}: {error}")
    if arguments.digest:
        arguments.digest.write_text(Layout(arguments.output).single()["digest"] + "\n")


if __name__ == "__main__":
    main()
