"""An image of oci_image follows the OCI specification and its BUILD file, and other tools can read it."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from given import runfile

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


class Image:
    """An image of a layout, with every blob checked against its descriptor."""

    def __init__(self, layout: Path, descriptor: dict | None = None) -> None:
        self.layout = layout
        marker = json.loads((layout / "oci-layout").read_bytes())
        assert marker == {"imageLayoutVersion": "1.0.0"}, marker
        index = json.loads((layout / "index.json").read_bytes())
        assert index["schemaVersion"] == 2, index
        self.descriptor = descriptor or index["manifests"][0]
        self.manifest = json.loads(self.blob(self.descriptor))

    def blob(self, descriptor: dict) -> bytes:
        """A blob, checked against the digest and size in its descriptor."""
        content = (self.layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()
        assert descriptor["size"] == len(content), descriptor
        assert descriptor["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}", descriptor
        return content

    @property
    def config(self) -> dict:
        """The image configuration."""
        return json.loads(self.blob(self.manifest["config"]))


def run_tool(folder: Path, variable: str, *arguments: str | Path) -> str:
    """Runs a container tool that keeps its files in a folder; returns its output."""
    environment = {"HOME": str(folder), "PATH": "", "TMPDIR": str(folder)}
    done = subprocess.run(
        [runfile(variable), *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def check_specification(image: Image, layers: int) -> None:
    """manifest.md and config.md: fields, media types and digests."""
    assert image.descriptor["mediaType"] == MANIFEST
    assert (image.manifest["schemaVersion"], image.manifest["mediaType"]) == (2, MANIFEST)
    assert image.manifest["config"]["mediaType"] == CONFIG
    config = image.config
    assert (config["os"], config["architecture"]) == ("linux", "amd64")
    assert config["created"] == "1970-01-01T00:00:00Z"
    assert config["rootfs"]["type"] == "layers"
    assert len(image.manifest["layers"]) == layers
    assert len([entry for entry in config["history"] if not entry.get("empty_layer")]) == layers
    unpacked = []
    for layer in image.manifest["layers"]:
        content = image.blob(layer)
        assert layer["mediaType"] == LAYER + ("+gzip" if content[:2] == b"\x1f\x8b" else "")
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        unpacked.append(f"sha256:{hashlib.sha256(content).hexdigest()}")
    assert config["rootfs"]["diff_ids"] == unpacked


@pytest.mark.parametrize(("image", "layers"), [("BASE", 1), ("APPLICATION", 2), ("DERIVED", 2)])
def test_follows_the_specification(image: str, layers: int) -> None:
    check_specification(Image(runfile(image)), layers)


def test_tars_keep_their_compression() -> None:
    types = [layer["mediaType"] for layer in Image(runfile("APPLICATION")).manifest["layers"]]
    assert types == [LAYER, LAYER + "+gzip"]


def test_attributes_become_configuration() -> None:
    base = Image(runfile("BASE")).config["config"]
    assert base["Cmd"] == ["--from-base"]
    assert base["WorkingDir"] == "/base"
    image = Image(runfile("APPLICATION"))
    config = image.config["config"]
    assert config["Entrypoint"] == ["/bin/application", "two words"]
    assert "Cmd" not in config, "an entrypoint drops the base's cmd"
    assert sorted(config["Env"]) == ["GREETING=hello world", "PATH=/opt/bin:/usr/bin:/bin"]
    assert config["User"] == "1000:1000"
    assert config["WorkingDir"] == "/base"
    assert config["ExposedPorts"] == {"8080/tcp": {}}
    assert config["Volumes"] == {"/models": {}}
    assert config["Labels"] == {
        "org.opencontainers.image.source": "https://example.invalid/base?a=b",
        "org.opencontainers.image.version": "1.0",
    }
    assert image.manifest["annotations"] == {"org.opencontainers.image.title": "application"}
    derived = Image(runfile("DERIVED")).config["config"]
    assert derived["Entrypoint"] == ["/bin/application", "two words"]
    assert derived["Cmd"] == ["--option"]
    assert "FROM_FILE=hello world!" in derived["Env"]


def test_the_digest_file_has_the_digest_of_the_manifest() -> None:
    for layout, digest in ("APPLICATION", "APPLICATION_DIGEST"), ("INDEX", "INDEX_DIGEST"):
        assert runfile(digest).read_text().strip() == Image(runfile(layout)).descriptor["digest"]


def test_index_holds_both_images_with_their_platform() -> None:
    index = Image(runfile("INDEX"))
    assert (index.descriptor["mediaType"], index.manifest["mediaType"]) == (INDEX, INDEX)
    images = [Image(runfile(name)).descriptor for name in ("APPLICATION", "DERIVED")]
    platform = {"os": "linux", "architecture": "amd64"}
    assert index.manifest["manifests"] == [{**image, "platform": platform} for image in images]
    for descriptor in index.manifest["manifests"]:
        check_specification(Image(runfile("INDEX"), descriptor), layers=2)


def test_skopeo_reads_image_index_and_archive(tmp_path: Path) -> None:
    expected = Image(runfile("APPLICATION")).descriptor["digest"]
    seen = json.loads(run_tool(tmp_path, "SKOPEO", "inspect", f"oci:{runfile('APPLICATION')}"))
    assert seen["Digest"] == expected
    assert seen["Labels"]["org.opencontainers.image.version"] == "1.0"
    raw = json.loads(run_tool(tmp_path, "SKOPEO", "inspect", "--raw", f"oci:{runfile('INDEX')}"))
    assert raw["manifests"][0]["digest"] == expected
    loaded = json.loads(
        run_tool(
            tmp_path,
            "SKOPEO",
            "inspect",
            "--config",
            f"docker-archive:{runfile('ARCHIVE')}:example.invalid/application:1.0",
        )
    )
    assert loaded == Image(runfile("APPLICATION")).config


def test_umoci_unpacks_the_layers_in_order(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    shutil.copytree(runfile("APPLICATION"), layout, copy_function=shutil.copyfile)
    for folder in [layout, *(path for path in layout.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)
    # umoci finds images by tag only, and neither rules_oci nor its stand-in names one.
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "test"}
    (layout / "index.json").write_text(json.dumps(index))
    # Raw, because plain unpack also writes a runtime's configuration from the machine's /etc.
    root = tmp_path / "root"
    run_tool(tmp_path, "UMOCI", "raw", "unpack", "--rootless", "--image", f"{layout}:test", root)
    found = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
    assert found == {"bin/application": "application", "bin/base": "base", "etc/both": "application"}
