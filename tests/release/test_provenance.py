"""A statement of provenance names every wheel and image by digest, every input, the commit and the builder."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

import pytest
import tiny_image

from fetch import locks as inputs
from oci.layout import Image

LOCKS = inputs.by_name([pathlib.Path(path).absolute() for path in os.environ["LOCKS"].split()])
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BAZEL = f"7.7.1 sha256:{'0' * 64}"
BUILDER = "https://github.com/owner/repository/.github/workflows/release.yml@refs/tags/v0.1.0"


@pytest.fixture
def products(tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    wheel = tmp_path / "apache_tvm-0.26.0+mlc1-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    return wheel, tiny_image.make(tmp_path / "layout")


def run(tmp_path: pathlib.Path, *arguments: Any, **environment: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "release.private.provenance",
        "--locks",
        *map(str, LOCKS.values()),
        "--version",
        "0.1.0",
    ]
    command += [
        "--target",
        "//release:dist",
        "--target",
        "//images:tvm_runtime",
        *map(str, arguments),
    ]
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    return subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
    )


def written(tmp_path: pathlib.Path, *arguments: Any, **environment: str) -> bytes:
    output = tmp_path / "provenance.json"
    done = run(tmp_path, *arguments, "--output", output, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return output.read_bytes()


def status(tmp_path: pathlib.Path, text: str) -> pathlib.Path:
    path = tmp_path / "stable-status.txt"
    path.write_text(text)
    return path


def stamped(locked: str) -> str:
    return (
        f"STABLE_BAZEL {BAZEL}\nSTABLE_BAZEL_LOCKED {locked}\nSTABLE_BUILDER_ID {BUILDER}\nSTABLE_REVISION {COMMIT}\n"
    )


def test_the_packages_of_the_bazel_that_ran_are_dependencies_if_the_lock_pins_it(
    tmp_path: pathlib.Path, products: tuple[pathlib.Path, pathlib.Path]
) -> None:
    content = json.loads(written(tmp_path, "--status", status(tmp_path, stamped("yes")), "--wheel", products[0]))
    definition = content["predicate"]["buildDefinition"]
    assert definition["internalParameters"]["bazel_locked"] is True
    lock = json.loads(LOCKS["bazel.lock.json"].read_text())
    hashes = {entry["sha256"] for kind in ("packages", "wheels") for entry in lock[kind].values()}
    found = [each for each in definition["resolvedDependencies"] if each["name"].startswith("bazel: ")]
    assert {each["digest"]["sha256"] for each in found} == hashes and len(found) == len(hashes) > 80


def test_a_stamped_statement(tmp_path: pathlib.Path, products: tuple[pathlib.Path, pathlib.Path]) -> None:
    wheel, layout = products
    text = f"BUILD_EMBED_LABEL \n{stamped('no')}"
    content = json.loads(
        written(
            tmp_path,
            "--status",
            status(tmp_path, text),
            "--wheel",
            wheel,
            "--image",
            f"tvm_runtime={layout}",
            "--option=--config=cuda",
        )
    )
    assert (content["_type"], content["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    assert content["subject"] == [
        {"name": wheel.name, "digest": {"sha256": hashlib.sha256(b"wheel").hexdigest()}},
        {"name": "tvm_runtime", "digest": {"sha256": Image(layout).digest.removeprefix("sha256:")}},
    ]
    definition = content["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {
        "options": ["--config=cuda"],
        "targets": ["//images:tvm_runtime", "//release:dist"],
        "version": "0.1.0",
    }
    assert definition["internalParameters"] == {"bazel": BAZEL, "bazel_locked": False, "revision": COMMIT}
    assert not [each for each in definition["resolvedDependencies"] if each["name"].startswith("bazel: ")]
    assert definition["resolvedDependencies"][0] == {"name": "this repository", "digest": {"gitCommit": COMMIT}}
    assert content["predicate"]["runDetails"] == {"builder": {"id": BUILDER}}
    # SLSA 1.0: TypeURI, which has a scheme.
    assert urlsplit(definition["buildType"]).scheme == "https"


def test_every_input_is_a_dependency(tmp_path: pathlib.Path, products: tuple[pathlib.Path, pathlib.Path]) -> None:
    content = json.loads(written(tmp_path, "--wheel", products[0]))
    dependencies = content["predicate"]["buildDefinition"]["resolvedDependencies"]
    found = [(each["uri"], each["digest"]) for each in dependencies]
    locked = inputs.load(LOCKS)
    assert found == [(each.purl, {"sha256": sha256}) for each in locked for sha256 in each.sha256]
    hashes = {each["digest"]["sha256"] for each in dependencies}
    debian = json.loads(LOCKS["debian.lock.json"].read_text())["packages"]
    assert {entry["sha256"] for entry in debian.values()} < hashes
    others = [
        entry for name in ("crates", "sources") for entry in json.loads(LOCKS[f"{name}.lock.json"].read_text())[name]
    ]
    models = {sha256 for each in locked if each.ecosystem == inputs.MODEL for sha256 in each.sha256}
    assert models < hashes
    wheels = {
        sha256
        for name in ("requirements.lock.txt", "requirements_arm64.lock.txt")
        for pin in inputs.requirements(LOCKS[name].read_text()).values()
        for sha256 in pin.sha256
    }
    assert wheels < hashes and len(hashes) == len(debian) + len(wheels) + len(others) + len(models)


def test_an_unstamped_statement_says_so(tmp_path: pathlib.Path, products: tuple[pathlib.Path, pathlib.Path]) -> None:
    content = json.loads(written(tmp_path, "--wheel", products[0]))
    definition = content["predicate"]["buildDefinition"]
    assert definition["internalParameters"] == {"bazel": "unstamped", "bazel_locked": False, "revision": "unstamped"}
    assert definition["externalParameters"]["options"] == []
    assert content["predicate"]["runDetails"]["builder"]["id"] == "unstamped"
    assert "gitCommit" not in json.dumps(content)


def test_one_image(tmp_path: pathlib.Path, products: tuple[pathlib.Path, pathlib.Path]) -> None:
    content = json.loads(written(tmp_path, "--image", f"tvm_runtime={products[1]}"))
    assert [subject["name"] for subject in content["subject"]] == ["tvm_runtime"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("STABLE_REVISION 0123\n", "STABLE_BUILDER_ID"),
        (f"STABLE_BUILDER_ID {BUILDER}\n", "STABLE_REVISION"),
        (f"STABLE_BUILDER_ID {BUILDER}\nSTABLE_REVISION \n", "STABLE_REVISION"),
        (f"STABLE_BUILDER_ID {BUILDER}\nSTABLE_REVISION {COMMIT}\n", "STABLE_BAZEL_LOCKED"),
        (stamped("no").replace("STABLE_BAZEL ", "OTHER "), "STABLE_BAZEL"),
    ],
)
def test_a_status_without_commit_or_builder_is_refused(
    tmp_path: pathlib.Path, products: tuple[pathlib.Path, pathlib.Path], text: str, key: str
) -> None:
    done = run(tmp_path, "--status", status(tmp_path, text), "--wheel", products[0], "--output", tmp_path / "none.json")
    assert done.returncode == 1
    assert (
        done.stderr
        == f"provenance: the workspace status has no {key}: build with --config=release, which sets it, not --stamp"
        " alone\n"
    )
    assert not (tmp_path / "none.json").exists()


def test_a_statement_about_nothing_is_refused(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, "--output", tmp_path / "none.json")
    assert done.returncode == 1
    assert "expected at least one wheel or image, found none" in done.stderr


def test_a_damaged_image_is_refused(tmp_path: pathlib.Path, products: tuple[pathlib.Path, pathlib.Path]) -> None:
    next((products[1] / "blobs/sha256").iterdir()).write_bytes(b"other")
    done = run(tmp_path, "--image", f"tvm_runtime={products[1]}", "--output", tmp_path / "none.json")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "expected the blob sha256:" in done.stderr


def test_the_same_bytes_everywhere(tmp_path: pathlib.Path, products: tuple[pathlib.Path, pathlib.Path]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    arguments = ("--wheel", products[0], "--image", f"tvm_runtime={products[1]}")
    one = written(tmp_path, *arguments, TZ="UTC", PYTHONHASHSEED="1")
    assert one == written(other, *arguments, TZ="Asia/Tokyo", PYTHONHASHSEED="2")
