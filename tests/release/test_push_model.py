"""//images:push publishes a model's two layouts like an image: against a real registry, with the real oras, cosign and
skopeo.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator

import pytest

from models.private import make_model_oci
from oci.layout import Image
from oci.registry_server import Proxy, registry
from release.private import stamp
from tests.models import fake_model, modelpack
from tests.release.push_under_test import DOCUMENTS, REGISTRY, Release, one_line

LIBRARY = pathlib.Path(os.environ["LIBRARY"])
PREFIX = "org.opencontainers.image."


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[Proxy]:
    (tmp_path / "registry").mkdir()
    with registry(REGISTRY, tmp_path / "registry") as port, Proxy(port) as proxy:
        yield proxy


def release_of_model(
    folder: pathlib.Path, version: str = "1.2.3", revision: str = "unstamped", seed: int = 0
) -> Release:
    """A release whose images are a model's: "small" is the image, "other" the ModelPack artifact."""
    release = Release(folder, version=version, revision=revision)
    weights = fake_model.write(folder / "weights", seed=seed)
    labels = {"title": "small", "version": version, "revision": revision}
    (folder / "labels").write_text("".join(f"{PREFIX}{key}={value}\n" for key, value in labels.items()))
    release.layouts = {name: folder / "layouts" / name for name in ("small", "other")}
    words = [f"--weights={weights}", f"--library={LIBRARY}", f"--labels={folder / 'labels'}", "--name=fake"]
    words += [f"--image={release.layouts['small']}", f"--modelpack={release.layouts['other']}", "--origin=//:small"]
    assert make_model_oci.main(words) == 0
    release.digests = {name: stamp.image_digest(layout) for name, layout in release.layouts.items()}
    release.documents = {("small", kind): name for kind, name in DOCUMENTS.items()}
    artifacts = {name: stamp.describe(layout) for name, layout in release.layouts.items()}
    release.gate.write_text(json.dumps({"artifacts": artifacts, "tests": []}))
    return release


@pytest.fixture
def release(tmp_path: pathlib.Path) -> Release:
    return release_of_model(tmp_path / "release")


def pull(release: Release, reference: str, folder: pathlib.Path) -> Image:
    """What skopeo pulls, after checking every blob."""
    copied = release.tool(
        "skopeo",
        *("--insecure-policy", "--tmpdir", str(release.folder), "copy", "--preserve-digests", "--src-tls-verify=false"),
        *(f"docker://{reference}", f"oci:{folder}:pulled"),
    )
    assert copied.returncode == 0, copied.stderr
    stamp.image_digest(folder)
    return Image(folder)


def test_the_image_is_pushed_with_its_documents_signed_and_pulled(
    release: Release, server: Proxy, tmp_path: pathlib.Path
) -> None:
    repository = f"{server.host}/models/fake"
    done = release.push("--repository", repository, "--tag", "one")
    assert done.returncode == 0, done.stderr
    assert set(release.referrers(f"{repository}:one")) == set(DOCUMENTS)
    assert release.verify(f"{repository}:one").returncode == 0
    pulled = pull(release, f"{repository}:one", tmp_path / "pulled")
    assert pulled.digest == release.digests["small"]
    weights = {f"models/fake/{path.name}": path.read_bytes() for path in (release.folder / "weights").iterdir()}
    found = {path: file.data for path, file in pulled.files.items() if file.entry.isreg()}
    assert found == weights | {"models/fake.so": LIBRARY.read_bytes()}


def test_the_modelpack_artifact_sends_no_layer_again(release: Release, server: Proxy, tmp_path: pathlib.Path) -> None:
    repository = f"{server.host}/models/fake"
    assert release.push("--repository", repository, "--tag", "one").returncode == 0
    before = len(server.requests)
    done = release.push("--repository", repository, "--image", "other", "--tag", "modelpack")
    assert done.returncode == 0, done.stderr
    sent = sum(request.size for request in server.requests[before:] if request.method in ("PATCH", "PUT", "POST"))
    # Configuration, manifests and signatures.
    assert sent < fake_model.SHARD
    assert done.stderr.count("already there") == len(Image(release.layouts["other"]).layer_digests)
    assert release.verify(f"{repository}:modelpack").returncode == 0
    pulled = tmp_path / "pulled"
    copied = release.tool(
        "oras", "cp", "--from-plain-http", "--to-oci-layout", f"{repository}:modelpack", f"{pulled}:modelpack"
    )
    assert copied.returncode == 0, copied.stderr
    assert Image(pulled).digest == release.digests["other"]
    assert modelpack.problems(pulled) == []
    assert pull(release, f"{repository}:modelpack", tmp_path / "by skopeo").digest == release.digests["other"]


def test_a_new_version_sends_only_the_shard_that_changed(
    release: Release, server: Proxy, tmp_path: pathlib.Path
) -> None:
    repository = f"{server.host}/models/fake"
    assert release.push("--repository", repository, "--tag", "one", "--unsigned", signed=False).returncode == 0
    changed = release_of_model(tmp_path / "changed", seed=1)
    done = changed.push("--repository", repository, "--tag", "two", "--unsigned", signed=False)
    assert done.returncode == 0, done.stderr
    # The other shards and the library are there; the list of shards changes with a shard.
    assert done.stderr.count("already there") == 3
    pulled = pull(release, f"{repository}:two", tmp_path / "pulled")
    assert (
        pulled.files["models/fake/params_shard_0.bin"].data
        != (release.folder / "weights/params_shard_0.bin").read_bytes()
    )


def test_an_artifacts_annotations_say_its_version(server: Proxy, tmp_path: pathlib.Path) -> None:
    """The tag of a series moves to newer versions only, so the registry's version is read."""
    repository = f"{server.host}/models/fake"
    old = release_of_model(tmp_path / "old", "1.2.3", "0123abc")
    new = release_of_model(tmp_path / "new", "1.2.4", "4567def", seed=1)
    push = ("--repository", repository, "--image", "other", "--tag", "1.2", "--unsigned")
    assert old.push(*push, signed=False).returncode == 0
    assert new.push(*push, signed=False).returncode == 0
    refused = one_line(old.push(*push, signed=False))
    assert "moves to newer versions only: the registry has 1.2.4" in refused
