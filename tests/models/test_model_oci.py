"""A model packs as an image that holds nothing else, and as a ModelPack artifact with the same layers."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from models.private import make_model_oci
from oci import image_facts, layout
from oci.layer import SOURCE_DATE_EPOCH
from oci.layout import Image
from oci.report import report
from tests.models import fake_model, modelpack

TITLE = "org.opencontainers.image.title"
LABELS = {
    TITLE: "fake_oci",
    "org.opencontainers.image.description": "A model",
    "org.opencontainers.image.licenses": "Apache-2.0",
    "org.opencontainers.image.revision": "c" * 40,
    "org.opencontainers.image.source": "https://example.org/models",
    "org.opencontainers.image.version": "1.2.3",
}
X86_64, AARCH64 = 62, 183


class Model:
    """A model, and the layouts that it was packed as."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = fake_model.write(folder / "weights")
        self.library = folder / "library.so"
        self.write_library(X86_64)
        self.count = 0

    def write_library(self, machine: int) -> None:
        self.library.write_bytes(b"\x7fELF\x02\x01".ljust(18, b"\0") + machine.to_bytes(2, "little") + bytes(44))

    def words(self, *arguments: str, name: str = "fake") -> list[str]:
        """A command line that packs it into new layouts."""
        self.count += 1
        self.image = self.folder / f"image{self.count}"
        self.modelpack = self.folder / f"modelpack{self.count}"
        (self.folder / "labels").write_text("".join(f"{key}={value}\n" for key, value in LABELS.items()))
        words = [f"--name={name}", "--origin=@@//models:fake_oci", f"--labels={self.folder / 'labels'}"]
        words += [f"--{flag}={getattr(self, flag)}" for flag in ("weights", "library", "image", "modelpack")]
        return [*words, *arguments]

    def pack(self, *arguments: str, **options: str) -> tuple[int, str]:
        """Packs it; returns exit status and standard error."""
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            return make_model_oci.main(self.words(*arguments, **options)), said.getvalue()

    def packed(self, *arguments: str, **options: str) -> tuple[Image, Image]:
        """Packs it and returns both, after checking every blob against its digest."""
        assert self.pack(*arguments, **options) == (0, "")
        return self.images()

    def images(self) -> tuple[Image, Image]:
        for folder in (self.image, self.modelpack):
            layout.verified_digest(folder)
        return Image(self.image), Image(self.modelpack)

    def refused(self, **options: str) -> str:
        """The one line that says why it cannot be packed."""
        status, said = self.pack(**options)
        assert (status, said.count("\n")) == (1, 1), said
        assert said.startswith("make_model_oci: ")
        return said


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path)


@pytest.fixture
def built() -> tuple[Image, Image]:
    """What the rule made."""
    return Image(Path(os.environ["IMAGE"])), Image(Path(os.environ["MODELPACK"]))


def contents(image: Image) -> dict[str, bytes]:
    """The regular files of an image."""
    return {path: file.data for path, file in image.files.items() if file.entry.isreg()}


def test_the_image_holds_the_model_and_nothing_else(model: Model) -> None:
    image, _ = model.packed()
    expected = {f"models/fake/{path.name}": path.read_bytes() for path in model.weights.iterdir()}
    assert contents(image) == expected | {"models/fake.so": model.library.read_bytes()}
    assert {path for path in image.files if path not in contents(image)} == {"models", "models/fake"}
    modes = {path: file.entry.mode for path, file in image.files.items()}
    assert modes == dict.fromkeys(expected, 0o644) | dict.fromkeys(("models", "models/fake", "models/fake.so"), 0o755)
    facts = {(file.entry.uid, file.entry.gid, file.entry.uname, file.entry.mtime) for file in image.files.values()}
    assert facts == {(0, 0, "", SOURCE_DATE_EPOCH)}


def test_each_shard_is_a_layer_before_configuration_and_library(model: Model) -> None:
    image, _ = model.packed()
    found = [[path for path, file in layer.items() if file.entry.isreg()] for layer in image.layers]
    shards = [[f"models/fake/params_shard_{number}.bin"] for number in range(3)]
    names = ("mlc-chat-config.json", "tensor-cache.json", "tokenizer.json")
    assert found == [*shards, [f"models/fake/{name}" for name in names], ["models/fake.so"]]


@pytest.mark.parametrize(("machine", "architecture"), [(X86_64, "amd64"), (AARCH64, "arm64")])
def test_the_configuration_says_what_the_library_runs_on(model: Model, machine: int, architecture: str) -> None:
    model.write_library(machine)
    image, _ = model.packed()
    assert image.manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert {key: image.config[key] for key in ("os", "architecture", "created", "config")} == {
        "os": "linux",
        "architecture": architecture,
        "created": "2000-01-01T00:00:00Z",
        "config": {"Labels": LABELS},
    }
    assert image.config["rootfs"] == {"type": "layers", "diff_ids": image.layer_digests}
    assert {entry["mediaType"] for entry in image.manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
    steps = image.config["history"]
    assert [step["comment"] for step in steps][2:] == [
        "/models/fake/params_shard_2.bin",
        "/models/fake",
        "/models/fake.so",
    ]
    assert {step["created_by"] for step in steps} == {"bazel build @@//models:fake_oci"}


def test_the_artifact_meets_the_modelpack_specification(model: Model) -> None:
    image, artifact = model.packed()
    assert modelpack.problems(model.modelpack) == []
    kinds = [layer["mediaType"].removeprefix(modelpack.MODEL) for layer in artifact.manifest["layers"]]
    assert kinds == ["weight.v1.tar"] * 3 + ["weight.config.v1.tar", "code.v1.tar"]
    assert [layer["annotations"]["org.cncf.model.filepath"] for layer in artifact.manifest["layers"]] == [
        *(f"models/fake/params_shard_{number}.bin" for number in range(3)),
        "models/fake",
        "models/fake.so",
    ]
    assert artifact.config["descriptor"] == {
        "family": "llama",
        "name": "fake",
        "title": "fake_oci.modelpack",
        "description": "A model",
        "licenses": ["Apache-2.0"],
        "revision": "c" * 40,
        "sourceURL": "https://example.org/models",
        "version": "1.2.3",
    }
    assert artifact.config["config"] == {"format": "mlc", "precision": "float16", "quantization": "q4f16_1"}
    assert modelpack.problems(model.image), "the checks take any image for a ModelPack artifact"
    # Two names in a registry, two titles; otherwise the same labels.
    assert image.labels == LABELS
    assert artifact.labels == LABELS | {TITLE: "fake_oci.modelpack"}


@pytest.mark.parametrize(
    ("quantization", "precision"),
    [("q0f32", "float32"), ("q4f16_1", "float16"), ("q0bf16", "bfloat16"), ("e4m3_e4m3_f16", "float16"), ("new", None)],
)
def test_the_precision_is_that_of_the_quantization(model: Model, quantization: str, precision: str | None) -> None:
    fake_model.write(model.weights, quantization=quantization)
    _, artifact = model.packed()
    assert artifact.config["config"].get("precision") == precision
    assert modelpack.problems(model.modelpack) == []


def test_both_formats_share_their_layers_in_registries_and_on_the_disk(model: Model) -> None:
    image, artifact = model.packed()
    assert image.layer_digests == artifact.layer_digests
    for digest in image.layer_digests:
        assert image.blob(digest).samefile(artifact.blob(digest))


def test_only_a_shard_that_changed_is_another_layer(model: Model) -> None:
    before, _ = model.packed()
    fake_model.write(model.weights, seed=1)
    after, _ = model.packed()
    same = [one == other for one, other in zip(before.layer_digests, after.layer_digests)]
    # The list of shards has their hashes.
    assert same == [False, True, True, False, True]


def test_every_build_gives_the_same_bytes(model: Model, tmp_path: Path) -> None:
    first = model.packed()
    # Another folder, other modes and times, another order, and links as in a sandbox.
    other = tmp_path / "elsewhere"
    other.mkdir()
    for path in sorted(model.weights.iterdir(), reverse=True):
        shutil.copyfile(path, tmp_path / f"copy of {path.name}")
        (tmp_path / f"copy of {path.name}").chmod(0o700)
        (other / path.name).symlink_to(tmp_path / f"copy of {path.name}")
    model.weights = other
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    command = [sys.executable, make_model_oci.__file__, *model.words()]
    subprocess.run(command, env=environment, umask=0o077, check=True)
    assert [image.digest for image in first] == [image.digest for image in model.images()]


def test_shards_of_a_large_model_share_layers(model: Model) -> None:
    fake_model.write(model.weights, shards=250)
    image, _ = model.packed()
    shards = [re.findall(r"params_shard_(\d+)", " ".join(layer)) for layer in image.layers]
    assert [int(number) for layer in shards for number in sorted(layer, key=int)] == list(range(250))
    assert len(image.layers) <= 125
    assert max(map(len, shards)) == 3


def test_zstd_layers_have_the_same_content(model: Model, tmp_path: Path) -> None:
    plain, _ = model.packed()
    image, artifact = model.packed("--zstd", os.environ["ZSTD"])
    assert {entry["mediaType"] for entry in image.manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar+zstd"}
    assert {layer["mediaType"].rpartition(".")[2] for layer in artifact.manifest["layers"]} == {"tar+zstd"}
    assert modelpack.problems(model.modelpack) == []
    assert image.config["rootfs"] == plain.config["rootfs"]
    assert artifact.config["modelfs"]["diffIds"] == plain.layer_digests
    for digest, expected in zip(image.layer_digests, plain.layer_digests):
        unpacked = subprocess.run(
            [os.environ["ZSTD"], "--decompress", "--stdout", image.blob(digest)], capture_output=True, check=True
        )
        assert f"sha256:{hashlib.sha256(unpacked.stdout).hexdigest()}" == expected
    again, _ = model.packed("--zstd", os.environ["ZSTD"])
    assert again.digest == image.digest


def test_a_compressor_that_fails_stops_the_build(model: Model, tmp_path: Path) -> None:
    program = tmp_path / "zstd"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    status, said = model.pack("--zstd", str(program))
    assert status == 1 and "expected a compressed layer, found exit code 3" in said


@pytest.mark.parametrize("name", ["Llama 3.2-1B+x", "-rf", "модель", "a" * 200, "c:d,e=f", ".hidden"])
def test_a_strange_name_is_a_folder_like_any_other(model: Model, name: str) -> None:
    image, artifact = model.packed(name=name)
    assert f"models/{name}/params_shard_0.bin" in image.files and f"models/{name}.so" in image.files
    assert artifact.config["descriptor"]["name"] == name
    assert modelpack.problems(model.modelpack) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../../etc", "/etc", ".wh.model", "a\nb", "\x1b[2K", "a" * 300])
def test_a_name_that_leads_elsewhere_is_refused(model: Model, name: str) -> None:
    assert "--name" in model.refused(name=name)


@pytest.mark.parametrize("name", [".wh.params_shard_0.bin", ".wh..wh..opq", "a\nb", "\x1b[2K", "\udcff"])
def test_a_file_that_no_image_can_have_is_refused(model: Model, name: str) -> None:
    (model.weights / name).write_text("x")
    assert re.search("refused|rename it", model.refused())


def test_the_licence_is_in_the_models_folder(model: Model) -> None:
    terms = model.folder / "apache.txt"
    terms.write_text("Apache License")
    for image in model.packed(f"--license-file={terms}"):
        assert contents(image)["models/fake/LICENSE"] == b"Apache License"
    (model.weights / "LICENSE").write_text("Other terms")
    status, said = model.pack(f"--license-file={terms}")
    assert (status, said.count("\n")) == (1, 1)
    assert f"{model.weights}/LICENSE: expected no LICENSE next to --license-file, found both" in said
    assert contents(model.packed()[0])["models/fake/LICENSE"] == b"Other terms"


def lose(model: Model) -> None:
    (model.weights / "params_shard_1.bin").unlink()


def cut(model: Model) -> None:
    os.truncate(model.weights / "params_shard_1.bin", 100)


def lead_out(model: Model) -> None:
    cache = model.weights / "tensor-cache.json"
    cache.write_text(cache.read_text().replace("params_shard_1.bin", "../library.so"))


def forget_weights(model: Model) -> None:
    (model.weights / "tensor-cache.json").unlink()


def forget_config(model: Model) -> None:
    (model.weights / "mlc-chat-config.json").unlink()


def break_list(model: Model) -> None:
    (model.weights / "tensor-cache.json").write_text('{"records": [{"nbytes": 3}]}')


def break_config(model: Model) -> None:
    (model.weights / "mlc-chat-config.json").write_text("[1]")


def no_library(model: Model) -> None:
    model.library.write_text("MZ")


def unknown_machine(model: Model) -> None:
    model.write_library(243)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose, "expected the weight shard 'params_shard_1.bin' that tensor-cache.json lists, found none"),
        (cut, "params_shard_1.bin: expected 40000 bytes, as tensor-cache.json says, found 100"),
        (lead_out, "expected the weight shard '../library.so' that tensor-cache.json lists, found none"),
        (forget_weights, "expected tensor-cache.json and the weights that it lists, found none"),
        (forget_config, "expected a model's folder with mlc-chat-config.json, found none"),
        (break_list, "tensor-cache.json: expected a file as mlc_model writes it, found KeyError"),
        (break_config, "mlc-chat-config.json: expected a file as mlc_model writes it, found AttributeError"),
        (no_library, "library.so: expected an ELF library for amd64 or arm64, found '4d5a'"),
        (unknown_machine, "library.so: expected an ELF library for amd64 or arm64"),
    ],
)
def test_a_broken_model_is_one_line(model: Model, damage: Callable[[Model], None], message: str) -> None:
    damage(model)
    assert message in model.refused()


def test_the_rule_packs_what_mlc_model_makes(built: tuple[Image, Image]) -> None:
    image, artifact = built
    for each in built:
        layout.verified_digest(each.folder)
        assert json.loads((each.folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    library = Path(os.environ["LIBRARY"])
    expected = {f"models/fake/{path.name}": path.read_bytes() for path in Path(os.environ["WEIGHTS"]).iterdir()}
    assert contents(image) == expected | {"models/fake.so": library.read_bytes()}
    assert modelpack.problems(artifact.folder) == []
    assert image.layer_digests == artifact.layer_digests
    assert image.config["architecture"] == "amd64"
    assert image.labels["org.opencontainers.image.description"] == "The model fake for MLC LLM"
    assert re.fullmatch(r"\d+\.\d+\.\d+", artifact.labels["org.opencontainers.image.version"])
    assert image.config["history"][0]["created_by"].endswith("//tests/models:fake_oci")


def test_the_rule_compresses_with_the_builds_zstd(built: tuple[Image, Image]) -> None:
    compressed = Image(Path(os.environ["ZSTD_IMAGE"]))
    layout.verified_digest(compressed.folder)
    assert compressed.config["rootfs"] == built[0].config["rootfs"]
    assert compressed.layer_digests != built[0].layer_digests


def test_the_images_report_reads_both(built: tuple[Image, Image]) -> None:
    for each, platform in zip(built, ("linux/amd64", "")):
        facts = image_facts.read("fake", each, {})
        assert facts.platform == platform
        assert facts.label("title") == each.folder.name
        assert facts.largest_files(1)[0][1].size >= fake_model.SHARD
        assert (facts.packages, facts.hidden) == ([], [])
        page = report.page(facts)
        assert "params_shard_2.bin" in page and (platform or "not stated") in page
