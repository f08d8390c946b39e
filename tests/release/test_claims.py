"""Compares what the files of a release say of it with the checkout that publishes it, no matter who wrote them."""

from __future__ import annotations

import copy
import json
import os
import pathlib
import random
import re
import shutil
import types
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from fetch import errors
from oci.layout import named_digests
from release import builder
from release.private import claims, publish
from release.private import expected as this_checkout
from release.private.expected import OTHER_FILES, WHOLE, Expected
from tests.oci.layouts import write_index
from tests.private.starlark import evaluate
from tests.release import dist_under_test, tiny_image
from tests.release.dist_under_test import OF_ARM64, REVISION, WHEELS, metadata, wheel_name, write_wheel

THING, MORE, NATIVE = map(wheel_name, WHEELS)
OTHER_DIGEST = "f" * 64
# What published.bzl loads.
PYTHONS = {
    name: evaluate(
        pathlib.Path("toolchains/python/defs.bzl"), Label=lambda text: types.SimpleNamespace(workspace_name=text)
    )[name]
    for name in ("PYTHON", "PYTHONS")
}
WORKFLOW = "https://github.com/owner/repository/.github/workflows/main.yml@refs/tags/v1.2.3"


class Files:
    """The files of a release in a folder of this test, and images."""

    def __init__(self, folder: pathlib.Path, **said: Any) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        single = {
            name: tiny_image.make(folder / name, pypi=[("library", "1.0")], architecture=name.rpartition("_")[2])
            for name in ("one", "two_amd64", "two_arm64")
        }
        # An image alone, and an index of two.
        self.layouts = {
            "one": single["one"],
            "two": write_index(folder / "two", [single["two_amd64"], single["two_arm64"]]),
        }
        self.images = {name: named_digests(name, layout) for name, layout in self.layouts.items()}
        self.expected = dist_under_test.expected(self.layouts, said.pop("cuda", ()))
        self.files = dist_under_test.write(folder / "files", self.layouts, self.expected, **said)

    def json(self, name: str) -> Any:
        return json.loads(self.files[name].read_text())

    def add(self, name: str, content: str | None = None) -> pathlib.Path:
        self.files[name] = self.folder / "files" / name
        if content is not None:
            self.files[name].write_text(content)
        return self.files[name]

    def check(self, identity: Callable[[], str] = lambda: builder.UNVERIFIED, images: Any = None) -> None:
        """Makes the folder of the release, whose sums are those of the files, and compares it."""
        folder = self.folder / "dist"
        shutil.rmtree(folder, ignore_errors=True)
        dist_under_test.gather(folder, self.files, self.expected)
        dist = publish.Distribution.read(folder)
        claims.check(dist, self.images if images is None else images, self.expected, identity)

    def refused(self, said: str, **options: Any) -> None:
        with pytest.raises(claims.Refused) as refusal:
            self.check(**options)
        assert said in str(refusal.value)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("release") / "release")


@pytest.fixture
def files(written: Files, tmp_path: pathlib.Path) -> Files:
    """A release whose files the test may change."""
    own = copy.copy(written)
    own.folder = tmp_path
    shutil.copytree(written.folder / "files", tmp_path / "files")
    own.files = {name: tmp_path / "files" / name for name in written.files}
    return own


def test_a_release_of_this_checkout_is_taken(files: Files) -> None:
    files.check()


def test_a_release_with_cuda_is_taken(tmp_path: pathlib.Path) -> None:
    Files(tmp_path, cuda=["two", "thing-more"], options=["--config=cuda"]).check()


def test_a_release_with_cuda_whose_provenance_does_not_name_it_is_refused(tmp_path: pathlib.Path) -> None:
    Files(tmp_path, cuda=["two"]).refused("externalParameters: options: expected ['--config=cuda'], found []")


def test_a_release_by_a_bazel_that_no_lock_pins_is_taken(tmp_path: pathlib.Path) -> None:
    Files(tmp_path, bazel_locked=False).check()


# Wheels


def replaced(files: Files, old: str, new: str, text: str, *more: tuple[str, str]) -> None:
    files.files.pop(old).unlink()
    write_wheel(files.add(new), text, *more)


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("thing", "2.0+mlc1.2.3.b00000001", "expected version 1.0+mlc1.2.3.b… of this checkout, found 2.0"),
        ("thing", "1.0+mlc1.2.4.b00000001", "expected version 1.0+mlc1.2.3.b… of this checkout, found 1.0+mlc1.2.4"),
        ("thing", "1.0+mlc1.2.3.cu130.b00000001", "expected version 1.0+mlc1.2.3.b… of this checkout"),
        ("thing", "1.0+mlc1.2.3", "expected version 1.0+mlc1.2.3.b… of this checkout"),
        ("thing", "1.0", "expected version 1.0+mlc1.2.3.b… of this checkout"),
        ("thing", "1.0+mlc1.2.3.b0000000", "expected version 1.0+mlc1.2.3.b… of this checkout"),
        ("thing", "1.0+mlc1.2.3.b0000000g", "expected version 1.0+mlc1.2.3.b… of this checkout"),
        ("thing", "1.0+mlc1.2.3.b00000001.post1", "expected version 1.0+mlc1.2.3.b… of this checkout"),
        ("numpy", "1.0+mlc1.2.3.b00000001", "expected a wheel of thing, thing-more, thing-native, found another name"),
        ("THING", "1.0+mlc1.2.3.b00000001", "expected a wheel of thing, thing-more, thing-native, found another name"),
    ],
)
def test_a_wheel_of_another_name_or_version_is_refused(files: Files, name: str, version: str, said: str) -> None:
    file = wheel_name(name, version)
    replaced(files, THING, file, metadata("thing", version).replace("Name: thing", f"Name: {name}"))
    files.refused(f"{file}: {said}")


def test_a_file_that_only_ends_like_a_wheel_is_refused(files: Files) -> None:
    files.add("thing.whl", "wheel")
    files.refused("thing.whl: expected a wheel of thing, thing-more, thing-native, found another name")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (metadata("thing", "1.0+mlc1.2.3.b00000009"), "METADATA: expected Version: 1.0+mlc1.2.3.b00000001, found"),
        (metadata("thing", "9.0"), "METADATA: expected Version: 1.0+mlc1.2.3.b00000001, found ['9.0']"),
        (metadata("numpy", WHEELS["thing"]), "METADATA: expected Name: thing, found ['numpy']"),
        ("Name: numpy\n" + metadata("thing"), "METADATA: expected Name: thing, found ['numpy', 'thing']"),
        ("version: 9.0\n" + metadata("thing"), "METADATA: expected Version: 1.0+mlc1.2.3.b00000001, found ['9.0', "),
        ("", "METADATA: expected Name: thing, found []"),
        ("\0" * 100, "METADATA: expected Name: thing, found []"),
        (metadata("thing") + "x" * (1 << 20), "METADATA of at most 1048576 bytes, found more"),
    ],
    ids=range(8),
)
def test_a_wheel_whose_metadata_say_something_else_is_refused(files: Files, text: str, said: str) -> None:
    replaced(files, THING, THING, text)
    files.refused(said)


@pytest.mark.parametrize(
    "requirement",
    [
        "thing==1.0+mlc1.2.3.b99999999",
        "thing>=1.0",
        "Thing (==1.0+mlc1.2.3.b99999999)",
        "thing",
        f"thing=={WHEELS['thing']} ; python_version < '3'",
    ],
)
def test_a_wheel_that_pins_the_wheel_of_another_build_is_refused(files: Files, requirement: str) -> None:
    text = metadata("thing-more").replace(f"thing=={WHEELS['thing']}", requirement)
    replaced(files, MORE, MORE, text)
    files.refused(f"{MORE}: METADATA: expected it to require thing=={WHEELS['thing']}, found ")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (f"thing-{WHEELS['thing']}.dist-info/METADATA", "expected each file once, found"),
        ("numpy-1.0.dist-info/METADATA", f"expected the folder thing-{WHEELS['thing']}.dist-info, found"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_wheel_with_other_metadata_too_is_refused(files: Files, more: str, said: str) -> None:
    replaced(files, THING, THING, metadata("thing"), (more, metadata("thing")))
    files.refused(said)


def test_a_wheel_that_is_no_archive_is_refused(files: Files) -> None:
    files.files[THING].write_bytes(b"wheel")
    with pytest.raises(errors.UserError, match="expected an intact archive"):
        files.check()


def test_a_wheel_that_is_only_named_for_another_processor_is_refused(files: Files) -> None:
    """Its WHEEL says what it is for."""
    for_arm64 = THING.replace("linux_x86_64", "linux_aarch64").replace(WHEELS["thing"], OF_ARM64)
    folder = f"thing-{OF_ARM64}.dist-info"
    with zipfile.ZipFile(files.files[for_arm64], "w") as archive:
        archive.writestr(f"{folder}/METADATA", metadata("thing", OF_ARM64))
        archive.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-linux_x86_64\n")
    files.refused(f"{for_arm64}: WHEEL: expected Tag: py3-none-linux_aarch64, found ['py3-none-linux_x86_64']")


def test_two_wheels_for_one_python_are_refused(files: Files) -> None:
    other = "1.0+mlc1.2.3.b00000009"
    write_wheel(files.add(wheel_name("thing", other)), metadata("thing", other))
    files.refused(f"expected one wheel of thing for py3-none-linux_x86_64, found {THING}, too")


def test_a_wheel_for_another_python_is_refused(files: Files) -> None:
    write_wheel(files.add(wheel_name("thing-native", tags="cp310-cp310-linux_x86_64")), metadata("thing-native"))
    files.refused("cp314-cp314t-linux_aarch64, cp314-cp314t-linux_x86_64, found one for cp310-cp310-linux_x86_64")


def test_a_release_that_lacks_the_wheel_for_one_python_is_refused(files: Files) -> None:
    del files.files[NATIVE]
    files.refused("expected a wheel of thing-native for cp311-cp311-linux_x86_64, found none")


@pytest.mark.parametrize(("processor", "version"), [("x86_64", WHEELS["thing-native"]), ("aarch64", OF_ARM64)])
def test_wheels_for_one_processor_in_two_versions_are_refused(files: Files, processor: str, version: str) -> None:
    other = "1.0+mlc1.2.3.b00000009"
    tags = f"cp314-cp314t-linux_{processor}"
    name = wheel_name("thing-native", other, tags)
    replaced(files, wheel_name("thing-native", tags=tags), name, metadata("thing-native", other))
    files.refused(f"{name}: expected version {version}, as another wheel of thing-native has, found")


# What a release has


def test_a_release_that_lacks_a_wheel_is_refused(files: Files) -> None:
    del files.files[MORE]
    files.refused(
        "expected the images and wheels of release/published.bzl, one, thing, thing-more, thing-native, two, found one"
    )


def test_a_release_that_lacks_an_image_is_refused(files: Files) -> None:
    files.refused("expected the images and wheels of release/published.bzl", images={"one": files.images["one"]})


def test_a_file_that_a_release_does_not_have_is_refused(files: Files) -> None:
    files.add("install.sh", "true")
    files.refused("expected the files of //release:dist, found 'install.sh' only in the archive")


def test_an_index_that_lacks_an_architecture_is_refused(files: Files) -> None:
    digests = {name: digest for name, digest in files.images["two"].items() if name != "two_arm64"}
    files.refused("two: expected two_amd64, two_arm64, found two_amd64", images=files.images | {"two": digests})


@pytest.mark.parametrize("name", ["licenses.html", "one.cdx.json", "two_arm64.cdx.json", f"{WHOLE}.provenance.json"])
def test_a_release_that_lacks_a_file_is_refused(files: Files, name: str) -> None:
    del files.files[name]
    files.refused(f"expected the files of //release:dist, found {name!r} only there")


# Provenance


def changed(content: Any, path: str, value: Any) -> Any:
    """The content with another value at a path of keys and numbers."""
    *way, last = (int(step) if step.isdigit() else step for step in path.split("/"))
    inside = content
    for step in way:
        inside = inside[step]
    if last == "-":
        inside.append(value)
    else:
        inside[last] = value
    return content


DEFINITION = "predicate/buildDefinition"


@pytest.mark.parametrize("name", [WHOLE, "one", "two"])
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("_type", "another"),
        ("predicateType", "another"),
        ("subject/0/digest/sha256", OTHER_DIGEST),
        ("subject/0/name", "another"),
        ("subject/-", {"name": "another", "digest": {"sha256": OTHER_DIGEST}}),
        ("subject", []),
        (f"{DEFINITION}/buildType", "another"),
        (f"{DEFINITION}/externalParameters/version", "1.2.4"),
        (f"{DEFINITION}/externalParameters/options/-", "--config=cuda"),
        (f"{DEFINITION}/externalParameters/targets/-", "//more/..."),
        (f"{DEFINITION}/externalParameters/source", "https://example.org/another"),
        (f"{DEFINITION}/internalParameters/revision", "4567def"),
        (f"{DEFINITION}/internalParameters/bazel_locked", False),
        (f"{DEFINITION}/resolvedDependencies/0/digest/gitCommit", "4567def"),
        (f"{DEFINITION}/resolvedDependencies/1/digest/sha256", OTHER_DIGEST),
        (f"{DEFINITION}/resolvedDependencies/1/name", "another"),
        (f"{DEFINITION}/resolvedDependencies/-", {"name": "x", "uri": "pkg:x/y", "digest": {"sha256": OTHER_DIGEST}}),
        (f"{DEFINITION}/resolvedDependencies/-", {"name": "this repository", "digest": {"gitCommit": "4567def"}}),
        ("predicate/runDetails/metadata", {"invocationId": "another"}),
    ],
    ids=str,
)
def test_provenance_of_something_else_is_refused(files: Files, name: str, path: str, value: Any) -> None:
    file = f"{name}.provenance.json"
    files.add(file, json.dumps(changed(files.json(file), path, value)))
    files.refused(f"{file}: ")


@pytest.mark.parametrize(
    "bazel",
    [f"7.7.2 sha256:{'0' * 64}", f"7.7.10 sha256:{'0' * 64}", "7.7.1", builder.UNVERIFIED, 7, None, "7.7.1 sha256:0"],
)
def test_provenance_by_another_bazel_that_the_lock_is_said_to_pin_is_refused(files: Files, bazel: Any) -> None:
    file = f"{WHOLE}.provenance.json"
    files.add(file, json.dumps(changed(files.json(file), f"{DEFINITION}/internalParameters/bazel", bazel)))
    files.refused(f"{file}: expected Bazel 7.7.1, or one that no lock pins, found {bazel!r}")


@pytest.mark.parametrize("by", [WORKFLOW, "", None, ["x"], "unstamped"])
def test_a_builder_that_this_job_cannot_show_is_refused(files: Files, by: Any) -> None:
    file = "two.provenance.json"
    files.add(file, json.dumps(changed(files.json(file), "predicate/runDetails/builder/id", by)))
    files.refused(f"{file}: expected the builder {builder.UNVERIFIED} or, as this job, {builder.UNVERIFIED}, found")
    files.refused(f"{file}: expected the builder", identity=lambda: WORKFLOW.replace("owner", "another"))


def test_a_builder_that_this_job_can_show_is_taken(tmp_path: pathlib.Path) -> None:
    Files(tmp_path, by=WORKFLOW).check(identity=lambda: WORKFLOW)


def test_nobody_is_asked_who_builds_if_the_archive_does_not_say(files: Files) -> None:
    asked: list[str] = []
    files.check(identity=lambda: asked.append("") or "")  # type: ignore[func-returns-value]
    assert not asked


# Bills of materials


@pytest.mark.parametrize("name", [WHOLE, "one"])
@pytest.mark.parametrize(
    ("suffix", "path", "value"),
    [
        ("cdx.json", "metadata/component/version", "1.2.4"),
        ("cdx.json", "metadata/component/name", "another"),
        ("cdx.json", "metadata/component/hashes", [{"alg": "SHA-256", "content": OTHER_DIGEST}]),
        ("cdx.json", "metadata/component/hashes", [{"alg": "MD5", "content": "0"}]),
        ("cdx.json", "components/0/version", "9.9"),
        ("cdx.json", "components/0/name", "another"),
        ("cdx.json", "components/0/hashes/0/content", OTHER_DIGEST),
        ("cdx.json", "components/-", {"name": "another", "version": "1"}),
        ("cdx.json", "components/0/pedigree", {"ancestors": [{"name": "another", "version": "1"}]}),
        ("cdx.json", "components/0/components", [{"name": "another", "version": "1"}]),
        ("spdx.json", "name", "one-1.2.4"),
        ("spdx.json", "packages/0/versionInfo", "9.9"),
        ("spdx.json", "packages/0/name", "another"),
        ("spdx.json", "packages/0/checksums", [{"algorithm": "SHA256", "checksumValue": OTHER_DIGEST}]),
        ("spdx.json", "packages/-", {"SPDXID": "SPDXRef-x", "name": "another", "versionInfo": "1"}),
        ("spdx.json", "packages/-", {"SPDXID": "SPDXRef-release", "name": "another", "versionInfo": "1"}),
        ("spdx.json", "relationships", []),
    ],
    ids=str,
)
def test_bills_of_something_else_are_refused(files: Files, name: str, suffix: str, path: str, value: Any) -> None:
    file = f"{name}.{suffix}"
    files.add(file, json.dumps(changed(files.json(file), path, value)))
    files.refused(f"{file}: expected ")


@pytest.mark.parametrize(("suffix", "key"), [("cdx.json", "components"), ("spdx.json", "packages")])
@pytest.mark.parametrize("product", ["thing", "thing-more", "one", "two_arm64"])
def test_a_bill_of_the_whole_build_without_a_product_is_refused(
    files: Files, suffix: str, key: str, product: str
) -> None:
    file = f"{WHOLE}.{suffix}"
    content = files.json(file)
    content[key] = [each for each in content[key] if "product" not in json.dumps(each) or each["name"] != product]
    files.add(file, json.dumps(content))
    files.refused(f"{file}: expected '{product}' ")


def test_a_package_that_hides_behind_another_of_its_id_is_refused(files: Files) -> None:
    content = files.json("one.spdx.json")
    content["packages"].insert(0, {**content["packages"][0], "name": "another"})
    files.add("one.spdx.json", json.dumps(content))
    files.refused(
        "one.spdx.json: expected a bill of materials as sbom.py writes it, found ValueError('a package twice')"
    )


@pytest.mark.parametrize(("suffix", "key"), [("cdx.json", "components"), ("spdx.json", "packages")])
def test_a_wheel_for_another_processor_in_a_bill_is_refused(files: Files, suffix: str, key: str) -> None:
    of = {
        each["version" if key == "components" else "versionInfo"]: each
        for each in files.json(f"{WHOLE}.{suffix}")[key]
        if each["name"] == "thing"
    }
    fitting = {"two_amd64": WHEELS["thing"], "two_arm64": OF_ARM64}
    for name, version in fitting.items():
        file = f"{name}.{suffix}"
        files.add(file, json.dumps(changed(files.json(file), f"{key}/-", of[version])))
    files.check()
    for name, version in {"two_amd64": OF_ARM64, "two_arm64": WHEELS["thing"], "one": WHEELS["thing"]}.items():
        file = f"{name}.{suffix}"
        before = files.files[file].read_text()
        files.add(file, json.dumps(changed(files.json(file), f"{key}/-", of[version])))
        files.refused(f"{file}: expected what the locks pin and this release's wheels that fit, found 'thing'")
        files.add(file, before)


def test_bills_of_another_image_are_refused(files: Files) -> None:
    shutil.copy(files.files["two_amd64.cdx.json"], files.files["one.cdx.json"])
    files.refused("one.cdx.json: expected 'one' '1.2.3'")


# Other files


@pytest.mark.parametrize(
    ("file", "path", "value", "said"),
    [
        ("inputs.json", "release", "v1.2.4", "inputs.json: release: expected 'v1.2.3', found 'v1.2.4'"),
        ("inputs.json", "inputs", [], "expected the 2 inputs that the locks pin, found 0"),
        ("inputs.json", "inputs/0/version", "2", "that the locks pin, found 2, among them 'library', which differs"),
        ("inputs.json", "inputs/0/license", "GPL-2.0", "among them 'library', which differs"),
        ("vulnerabilities.json", "date", "2026-01-02", "date: expected '2026-01-01', found '2026-01-02'"),
        ("vulnerabilities.json", "sources", {}, "vulnerabilities.json: sources: expected"),
        (
            "vulnerabilities.json",
            "images",
            {"one": {}},
            "vulnerabilities.json: images: expected ['one', 'two_amd64', 'two_arm64']",
        ),
    ],
)
def test_inputs_and_audits_of_other_locks_are_refused(
    files: Files, file: str, path: str, value: Any, said: str
) -> None:
    files.add(file, json.dumps(changed(files.json(file), path, value)))
    files.refused(said)


@pytest.mark.parametrize("key", ["version", "tag", "revision"])
def test_a_release_of_another_version_or_commit_is_refused(files: Files, key: str) -> None:
    files.check()
    content = {"version": "1.2.3", "tag": "v1.2.3", "revision": REVISION, key: "another"}
    (files.folder / "dist/release.json").write_text(json.dumps(content))
    names = {path.name for path in (files.folder / "dist").iterdir()}
    dist = publish.Distribution(files.folder / "dist", "", "", dict.fromkeys(names, ""))
    with pytest.raises(claims.Refused, match=f"release.json: {key}: expected"):
        claims.check(dist, files.images, files.expected, lambda: "")


def test_files_that_are_too_large_or_too_deep_are_refused(files: Files) -> None:
    for content in ("[" * 100_000, "[" + " " * (33 << 20) + "]"):
        files.add("one.cdx.json", content)
        with pytest.raises(errors.UserError, match=r"one\.cdx\.json: expected "):
            files.check()


def nodes(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from nodes(value, (*path, key))


VALUES: list[Any] = [None, True, 7, 1e400, "x", [], ["x"], {}, {"x": {}}, [[]], [{}], [None]]
DOCUMENTS = [f"one.{suffix}" for suffix in this_checkout.DOCUMENTS.values()] + ["inputs.json", "vulnerabilities.json"]


@pytest.mark.parametrize("file", DOCUMENTS)
def test_nothing_that_a_document_can_hold_is_a_traceback(files: Files, file: str) -> None:
    files.check()
    dist = publish.Distribution.read(files.folder / "dist")
    original = files.json(file)
    paths = list(nodes(original))
    refused = 0
    for path in random.Random(1).sample(paths, min(len(paths), 60)):
        for value in VALUES:
            content: Any = [copy.deepcopy(original)]
            inside = content
            for step in (0, *path[:-1]):
                inside = inside[step]
            inside = inside if path else content
            inside[path[-1] if path else 0] = value
            (dist.folder / file).write_text(json.dumps(content[0]))
            try:
                claims.check(dist, files.images, files.expected, lambda: "")
            except (claims.Refused, errors.UserError) as error:
                assert str(error).startswith(f"{file}: ")
                refused += 1
    assert refused > 50


# The checkout


def test_names_and_versions_are_those_of_this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = pathlib.Path(os.environ["VERSION_BZL"]).absolute().parent
    monkeypatch.setattr(this_checkout.checkout, "head", lambda folder: REVISION)
    monkeypatch.setattr(this_checkout.checkout, "root", os.path.realpath)
    found: Expected = this_checkout.read(workspace)
    versions = evaluate(workspace / "version.bzl")
    of = f"+mlc{versions['VERSION']}"
    assert (found.version, found.revision) == (versions["VERSION"], REVISION)
    assert found.wheels == {
        "apache-tvm": f"{versions['TVM_VERSION']}{of}",
        "apache-tvm-cuda": f"{versions['TVM_VERSION']}{of}.cu130",
        "apache-tvm-ffi": f"{versions['TVM_FFI_VERSION']}{of}",
        "mlc-llm": f"{versions['MLC_LLM_VERSION']}{of}",
    }
    for cuda in (False, True):
        needs: Mapping[str, Any] = {"NEEDS_SOURCES": [], "NEEDS_CUDA": [] if cuda else ["//no:cuda"]} | PYTHONS
        build = evaluate(pathlib.Path(os.environ["PUBLISHED_BZL"]), **needs)
        assert found.parts(cuda=cuda) & found.images.keys() == set(build["IMAGES"])
        assert {name: sorted(found.images[name]) for name in build["IMAGES"]} == {
            name: list(images) for name, images in build["SINGLE_IMAGES"].items()
        }
        names = found.parts(cuda=cuda) - found.images.keys()
        assert sum(len(found.tags[name]) for name in names) == len(build["WHEELS"])
    assert found.tags["mlc-llm"] == {"py3-none-manylinux_2_31_x86_64", "py3-none-manylinux_2_31_aarch64"}
    assert found.tags["apache-tvm-cuda"] == {"py3-none-manylinux_2_28_x86_64", "py3-none-manylinux_2_28_aarch64"}
    assert found.tags["apache-tvm-ffi"] >= {
        f"{python}-manylinux_2_28_{cpu}"
        for python in ("cp310-cp310", "cp311-cp311", "cp314-cp314t")
        for cpu in ("x86_64", "aarch64")
    }
    assert len(found.locked) > 100 and len(found.bazel_packages) > 10 and set(found.audit) == {"date", "sources"}


def test_a_model_is_published_by_one_line(tmp_path: pathlib.Path) -> None:
    text = pathlib.Path(os.environ["PUBLISHED_BZL"]).read_text()
    published = tmp_path / "published.bzl"
    line = '"small": NEEDS_SOURCES, "large": NEEDS_CUDA'
    published.write_text(re.sub(r"^_MODELS = \{[^}]*\}", f"_MODELS = {{{line}}}", text, flags=re.MULTILINE))
    layouts = {"{}_oci": "//models/{0}:{0}_oci", "{}_oci.modelpack": "//models/{0}:{0}_oci.modelpack"}

    def made(*models: str) -> dict[str, str]:
        return {name.format(model): label.format(model) for model in models for name, label in layouts.items()}

    build = evaluate(published, NEEDS_SOURCES=[], NEEDS_CUDA=["//no:cuda"], **PYTHONS)
    models = {name: label for name, label in build["IMAGES"].items() if not label.startswith("//images/")}
    assert models == made("small")
    assert list(build["IMAGES"])[0] == "mlc_llm", "the default of every command cannot be run"
    assert "models/small" in build["REQUIRED"] and "models/large" not in build["REQUIRED"]
    known = this_checkout.published_images(published)
    assert {name: cuda for name, cuda in known.items() if "_oci" in name} == {
        **dict.fromkeys(made("small"), False),
        **dict.fromkeys(made("large"), True),
    }


def test_the_files_of_a_release_are_those_that_the_build_makes() -> None:
    """Of //release:dist: a new file there must be known here, or no release can be published."""
    rules = (
        "package py_binary py_library exports_files test_gate image_commands describe_release document filegroup glob"
    )
    loaded: dict[str, Any] = {name: lambda *words, **options: [] for name in rules.split()}
    loaded |= dict.fromkeys(["REQUIRED", "REPRODUCE_ARGS", "REPRODUCE_DATA", "LIKE_THIS_BUILD", "STAMPED"], [])
    build = evaluate(
        pathlib.Path(os.environ["RELEASE_BUILD"]),
        VERSION="1.2.3",
        IMAGES={"one": "//images/one:index", "two": "//models/two"},
        SINGLE_IMAGES={"one": dict.fromkeys(["one_amd64", "one_arm64"], ""), "two": {"two": ""}},
        WHEELS=["//wheels/x"],
        **loaded,
    )
    named = {file.removeprefix(":") for file in build["FILES"] if file.startswith(":")}
    documents = {f"{WHOLE}.{suffix}" for suffix in this_checkout.DOCUMENTS.values()}
    documents |= {file for _, _, file in this_checkout.attached("one", ["one_amd64", "one_arm64"])}
    documents |= {file for _, _, file in this_checkout.attached("two", ["two"])}
    assert {"gate.json" if file == "gate" else file for file in named} == (OTHER_FILES | documents) - {publish.FACTS}
