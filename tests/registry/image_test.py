"""Promise: an image made by oci_image follows the OCI specification and says what its BUILD file says; other tools read it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def runfile(variable: str) -> Path:
    """The file that the BUILD file names in an environment variable."""
    return Path(os.environ["TEST_SRCDIR"], os.environ[variable])


class Image:
    """An image of a layout, with every blob checked against its descriptor."""

    def __init__(self, layout: Path, descriptor: dict | None = None):
        self.layout = layout
        marker = json.loads((layout / "oci-layout").read_bytes())
        assert marker == {"imageLayoutVersion": "1.0.0"}, marker
        index = json.loads((layout / "index.json").read_bytes())
        assert index["schemaVersion"] == 2, index
        self.descriptor = descriptor or index["manifests"][0]
        self.manifest = json.loads(self.blob(self.descriptor))

    def blob(self, descriptor: dict) -> bytes:
        """A blob, whose digest and size are what its descriptor says."""
        content = (self.layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()
        assert descriptor["size"] == len(content), descriptor
        assert descriptor["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}", descriptor
        return content

    @property
    def config(self) -> dict:
        """The image configuration."""
        return json.loads(self.blob(self.manifest["config"]))


class ImageTest(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(dir=os.environ["TEST_TMPDIR"])
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def run_tool(self, variable: str, *arguments: str | Path) -> str:
        """Runs a container tool; returns what it prints."""
        environment = {"HOME": str(self.folder), "PATH": "", "TMPDIR": str(self.folder)}
        done = subprocess.run([runfile(variable), *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def check_specification(self, image: Image, layers: int) -> None:
        """manifest.md and config.md: fields, media types and digests."""
        self.assertEqual(image.descriptor["mediaType"], MANIFEST)
        self.assertEqual((image.manifest["schemaVersion"], image.manifest["mediaType"]), (2, MANIFEST))
        self.assertEqual(image.manifest["config"]["mediaType"], CONFIG)
        config = image.config
        self.assertEqual((config["os"], config["architecture"]), ("linux", "amd64"))
        self.assertEqual(config["created"], "1970-01-01T00:00:00Z")
        self.assertEqual(config["rootfs"]["type"], "layers")
        self.assertEqual(len(image.manifest["layers"]), layers)
        self.assertEqual(len([entry for entry in config["history"] if not entry.get("empty_layer")]), layers)
        unpacked = []
        for layer in image.manifest["layers"]:
            content = image.blob(layer)
            self.assertEqual(layer["mediaType"], LAYER + ("+gzip" if content[:2] == b"\x1f\x8b" else ""))
            content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
            unpacked.append(f"sha256:{hashlib.sha256(content).hexdigest()}")
        self.assertEqual(config["rootfs"]["diff_ids"], unpacked)

    def test_follows_the_specification(self) -> None:
        self.check_specification(Image(runfile("BASE")), layers=1)
        self.check_specification(Image(runfile("APPLICATION")), layers=2)
        self.check_specification(Image(runfile("DERIVED")), layers=2)

    def test_tars_keep_their_compression(self) -> None:
        types = [layer["mediaType"] for layer in Image(runfile("APPLICATION")).manifest["layers"]]
        self.assertEqual(types, [LAYER, LAYER + "+gzip"])

    def test_attributes_become_configuration(self) -> None:
        base = Image(runfile("BASE")).config["config"]
        self.assertEqual(base["Cmd"], ["--from-base"])
        self.assertEqual(base["WorkingDir"], "/base")
        image = Image(runfile("APPLICATION"))
        config = image.config["config"]
        self.assertEqual(config["Entrypoint"], ["/bin/application", "two words"])
        self.assertNotIn("Cmd", config, "an entrypoint drops the base's cmd")
        self.assertEqual(sorted(config["Env"]), ["GREETING=hello world", "PATH=/opt/bin:/usr/bin:/bin"])
        self.assertEqual(config["User"], "1000:1000")
        self.assertEqual(config["WorkingDir"], "/base")
        self.assertEqual(config["ExposedPorts"], {"8080/tcp": {}})
        self.assertEqual(config["Volumes"], {"/models": {}})
        self.assertEqual(
            config["Labels"],
            {"org.opencontainers.image.source": "https://example.invalid/base?a=b", "org.opencontainers.image.version": "1.0"},
        )
        self.assertEqual(image.manifest["annotations"], {"org.opencontainers.image.title": "application"})
        derived = Image(runfile("DERIVED")).config["config"]
        self.assertEqual(derived["Entrypoint"], ["/bin/application", "two words"])
        self.assertEqual(derived["Cmd"], ["--option"])
        self.assertIn("FROM_FILE=hello world!", derived["Env"])

    def test_digest_is_that_of_the_manifest(self) -> None:
        for layout, digest in ("APPLICATION", "APPLICATION_DIGEST"), ("INDEX", "INDEX_DIGEST"):
            self.assertEqual(runfile(digest).read_text().strip(), Image(runfile(layout)).descriptor["digest"])

    def test_index_holds_both_images_with_their_platform(self) -> None:
        index = Image(runfile("INDEX"))
        self.assertEqual((index.descriptor["mediaType"], index.manifest["mediaType"]), (INDEX, INDEX))
        images = [Image(runfile(name)).descriptor for name in ("APPLICATION", "DERIVED")]
        platform = {"os": "linux", "architecture": "amd64"}
        self.assertEqual(index.manifest["manifests"], [{**image, "platform": platform} for image in images])
        for descriptor in index.manifest["manifests"]:
            self.check_specification(Image(runfile("INDEX"), descriptor), layers=2)

    def test_skopeo_reads_image_index_and_archive(self) -> None:
        expected = Image(runfile("APPLICATION")).descriptor["digest"]
        seen = json.loads(self.run_tool("SKOPEO", "inspect", f"oci:{runfile('APPLICATION')}"))
        self.assertEqual(seen["Digest"], expected)
        self.assertEqual(seen["Labels"]["org.opencontainers.image.version"], "1.0")
        raw = json.loads(self.run_tool("SKOPEO", "inspect", "--raw", f"oci:{runfile('INDEX')}"))
        self.assertEqual(raw["manifests"][0]["digest"], expected)
        loaded = json.loads(self.run_tool("SKOPEO", "inspect", "--config", f"docker-archive:{runfile('ARCHIVE')}:example.invalid/application:1.0"))
        self.assertEqual(loaded, Image(runfile("APPLICATION")).config)

    def test_umoci_unpacks_the_layers_in_order(self) -> None:
        layout = self.folder / "layout"
        shutil.copytree(runfile("APPLICATION"), layout, copy_function=shutil.copyfile)
        for folder in [layout, *(path for path in layout.rglob("*") if path.is_dir())]:
            folder.chmod(0o755)
        # umoci finds images by tag only, and neither rules_oci nor its stand-in names one.
        index = json.loads((layout / "index.json").read_bytes())
        index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "test"}
        (layout / "index.json").write_text(json.dumps(index))
        # Raw: a runtime's configuration, which plain unpack makes too, is made of the machine's /etc.
        root = self.folder / "root"
        self.run_tool("UMOCI", "raw", "unpack", "--rootless", "--image", f"{layout}:test", root)
        found = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
        self.assertEqual(found, {"bin/application": "application", "bin/base": "base", "etc/both": "application"})


if __name__ == "__main__":
    unittest.main()
