"""Bills of materials list every input of the locks and every product once, and of an image what its layers hold; others
are refused.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import Any

import pytest
import tiny_image
from cyclonedx.model.bom import Bom
from packaging.utils import canonicalize_name
from spdx_tools.spdx.parser.json.json_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from fetch import locks as inputs
from oci.layout import Image
from release.private import sbom, stamp
from tests.oci.layouts import write_layout

LOCKS = inputs.by_name([pathlib.Path(path).absolute() for path in os.environ["LOCKS"].split()])
TVM_RUNTIME = pathlib.Path(os.environ["TVM_RUNTIME"])
WHEELS = [stamp.artifact_file(pathlib.Path(os.environ[name])) for name in ("TVM_WHEEL", "TVM_FFI_WHEEL")]

VERSION = "0.1.0"
LOCKED = inputs.load(LOCKS)
DEBIAN = json.loads(LOCKS["debian.lock.json"].read_text())
REQUIREMENTS = [
    (name, version, *sha256)
    for name, (version, sha256) in inputs.requirements(LOCKS["requirements.lock.txt"].read_text()).items()
]
OF_ARM64 = [
    (name, version, *sha256)
    for name, (version, sha256) in inputs.requirements(LOCKS["requirements_arm64.lock.txt"].read_text()).items()
    # Most wheels without machine code are for every processor.
    if (name, version, *sha256) not in REQUIREMENTS
]
SOURCES = json.loads(LOCKS["sources.lock.json"].read_text())["sources"]
CRATES_LOCK = json.loads(LOCKS["crates.lock.json"].read_text())
CRATES, CRATE_SETS = CRATES_LOCK["crates"], CRATES_LOCK["sets"]
LICENSES = json.loads(LOCKS["licenses.lock.json"].read_text())
BAZEL = inputs.bazel(LOCKS[inputs.BAZEL_LOCK])[1]

TVM = ("apache-tvm", "0.26.0+mlc0.1.0.b0")
TVM_FFI = ("apache-tvm-ffi", "0.1.13.post3+mlc0.1.0.b0")
MLC_LLM = ("mlc-llm", "0.20.0.dev0+mlc0.1.0.b0")
TVM_CUDA = ("apache-tvm-cuda", "0.26.0+mlc0.1.0.b0")
PRODUCED = (TVM, TVM_FFI, MLC_LLM, TVM_CUDA)

# What is linked into which; tests/release/test_inputs.py compares it with the build graph's answer.
CONTENT: dict[str, tuple[list[tuple[str, str]], list[tuple[str, str]]]] = {
    "apache-tvm": ([("pypi", "apache-tvm"), ("source", "tilelang")], []),
    "apache-tvm-cuda": ([("pypi", "apache-tvm"), ("source", "tilelang"), ("source", "tvm")], []),
    "apache-tvm-ffi": ([("pypi", "apache-tvm-ffi")], []),
    "mlc-llm": (
        [("source", "mlc-llm"), ("source", "sentencepiece"), ("source", "tokenizers-cpp"), ("source", "xgrammar")],
        [("crate", "tokenizers_cpp"), ("debian", "cxx_headers")],
    ),
}


# Distribution → the CPythons that it has a wheel for each; "": one wheel is for all.
ABIS = {name: ("cp311", "cp312") if name == "apache-tvm-ffi" else ("",) for name in CONTENT}
HEADERS = {"": [], "cp311": [("source", "cpython-3.11")], "cp312": [("source", "cpython-3.12")]}


def made_of(name: str, abi: str) -> dict:
    """What a target `made_of` writes."""
    entries, sets = CONTENT[name]
    entries = entries + HEADERS[abi]
    return {
        "abi": abi,
        "architecture": "amd64",
        "distribution": name,
        "licensed_as": entries[0],
        "of_the_project": [],
        "content": {"entries": entries, "sets": sets},
        "tools": {"entries": [], "sets": []},
    }


@functools.cache
def made() -> dict[tuple[str, str, str], inputs.Made]:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "made_of.json")
        found = {}
        for name, abi in ((name, abi) for name, abis in ABIS.items() for abi in abis):
            path.write_text(json.dumps(made_of(name, abi)))
            found[name, abi, "amd64"] = inputs.Made.read(path)
        return found


def image_packages(*sets: str) -> list[tuple[str, str]]:
    keys = sorted({key for name in sets for key in DEBIAN["sets"][name]})
    return [(key.split("/")[1], DEBIAN["packages"][key]["version"]) for key in keys]


def version_of(name: str) -> str:
    return next(version for each, version, _ in REQUIREMENTS if each == name)


# Wheels, and name → image.
Build = tuple[list[pathlib.Path], dict[str, pathlib.Path]]

# SPDX and CycloneDX.
Bills = tuple[dict[str, Any], dict[str, Any]]

_ALL = inputs.Parts()


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Wheels and images of a few bytes, complete: every image set of the locks is in one."""
    folder = tmp_path_factory.mktemp("build")
    wheels = [
        folder / f"{name.replace('-', '_')}-{version}-{abi or 'py3'}-{abi or 'none'}-any.whl"
        for name, version in PRODUCED
        for abi in ABIS[name]
    ]
    for wheel in wheels:
        wheel.write_bytes(wheel.name.encode())
    distributions = [
        TVM,
        TVM_FFI,
        ("numpy", version_of("numpy")),
        ("typing_extensions", version_of("typing-extensions")),
    ]
    gpu = [*distributions[:2], TVM_CUDA, ("nvidia_cublas", version_of("nvidia-cublas"))]
    images = {
        "small": tiny_image.make(folder / "small", image_packages("image_base", "image_python"), distributions),
        "large": tiny_image.make(
            folder / "large", image_packages(*filter(re.compile("image_").match, DEBIAN["sets"])), [TVM_FFI]
        ),
        "gpu": tiny_image.make(folder / "gpu", image_packages("image_base"), gpu),
    }
    return wheels, images


@functools.cache
def bills(wheels: tuple, images: tuple, only: str = "", unavailable: inputs.Parts = _ALL) -> tuple[dict, dict]:
    locked = inputs.available(LOCKED, unavailable)
    read = [sbom.Wheel.read(wheel, made()) for wheel in wheels]
    layouts = {name: Image(layout) for name, layout in images}
    bill = (
        sbom.one_image(only, VERSION, locked, read, layouts[only])
        if only
        else sbom.whole_build(VERSION, locked, BAZEL, read, layouts)
    )
    return json.loads(sbom.spdx_json(bill)), json.loads(sbom.cyclonedx_json(bill))


@pytest.fixture(scope="module")
def whole(build: Build) -> Bills:
    wheels, images = build
    return bills(tuple(wheels), tuple(images.items()))


@pytest.fixture(scope="module")
def small(build: Build) -> Bills:
    wheels, images = build
    return bills(tuple(wheels), tuple(images.items()), "small")


@pytest.fixture(scope="module")
def gpu(build: Build) -> Bills:
    wheels, images = build
    return bills(tuple(wheels), tuple(images.items()), "gpu")


def spdx_lines(document: dict) -> list[tuple]:
    """(name, version, licence, hashes, purl) of every package."""
    return sorted(
        (
            each["name"],
            each["versionInfo"],
            each["licenseDeclared"],
            tuple(sorted(sum["checksumValue"] for sum in each.get("checksums", []) if sum["algorithm"] == "SHA256")),
            each["externalRefs"][0]["referenceLocator"],
        )
        for each in document["packages"]
        if each.get("externalRefs")
    )


def cyclonedx_lines(document: dict) -> list[tuple]:
    components = [
        *document["components"],
        *([document["metadata"]["component"]] if "purl" in document["metadata"]["component"] else []),
    ]
    return sorted(
        (
            each["name"],
            each["version"],
            each["licenses"][0]["expression"] if "licenses" in each else "NOASSERTION",
            tuple(sorted(hash["content"] for hash in each["hashes"] if hash["alg"] == "SHA-256")),
            each["purl"],
        )
        for each in components
    )


def lock_lines() -> list[tuple]:
    """The locks' content, read independently: (name, version, licence, hashes)."""
    lines: list[tuple] = [
        (
            key.split("/")[1].removesuffix(":arm64"),
            entry["version"],
            LICENSES["debian"][key]["license"],
            (entry["sha256"],),
        )
        for key, entry in DEBIAN["packages"].items()
    ]
    lines += [
        (name, version, LICENSES["pypi"][name]["license"], (sha256,))
        for name, version, sha256 in (*REQUIREMENTS, *OF_ARM64)
    ]
    lines += [
        (name, entry.get("version") or entry["commit"], LICENSES["sources"][name]["license"], (entry["sha256"],))
        for name, entry in SOURCES.items()
    ]
    lines += [
        (entry["name"], entry["version"], LICENSES["crates"][key]["license"], (entry["sha256"],))
        for key, entry in CRATES.items()
    ]
    lines += [
        (each.name, each.version, LICENSES["models"][each.name]["license"], each.sha256)
        for each in LOCKED
        if each.ecosystem == inputs.MODEL
    ]
    # Bazel's own lock, which may pin the same file.
    lock = json.loads(LOCKS["bazel.lock.json"].read_text())
    lines += [
        (key.split("/")[1], entry["version"], "NOASSERTION", (entry["sha256"],))
        for key, entry in lock["packages"].items()
        if DEBIAN["packages"].get(key, {}).get("sha256") != entry["sha256"]
    ]
    lines += [
        (entry["project"], entry["version"], "NOASSERTION", (entry["sha256"],)) for entry in lock["wheels"].values()
    ]
    return sorted(lines)


def product_lines(build: Build) -> list[tuple]:
    wheels, images = build
    lines = [
        (*facts, "Apache-2.0", (hashlib.sha256(wheel.read_bytes()).hexdigest(),))
        for facts, wheel in zip((each for each in PRODUCED for _ in ABIS[each[0]]), wheels, strict=True)
    ]
    for name, layout in images.items():
        lines.append((name, VERSION, "NOASSERTION", (Image(layout).digest.removeprefix("sha256:"),)))
    return lines


def test_the_whole_build_is_the_locks_and_the_products_and_nothing_else(build: Build, whole: Bills) -> None:
    expected = sorted(lock_lines() + product_lines(build))
    assert len(expected) > 200
    for lines in (spdx_lines(whole[0]), cyclonedx_lines(whole[1])):
        assert [line[:4] for line in lines] == expected


def test_package_urls_are_the_inputs(whole: Bills) -> None:
    for lines in (spdx_lines(whole[0]), cyclonedx_lines(whole[1])):
        found = collections.Counter(line[4] for line in lines)
        # PyPI's names say nothing of the processor.
        two = {url for url, number in found.items() if number == 2}
        assert {f"pkg:pypi/{name}@{version}" for name, version, _ in OF_ARM64} == two and max(found.values()) == 2
        assert {each.purl for each in [*LOCKED, *BAZEL]} < set(found)


def test_without_mlc_llm_its_sources_are_not_in_the_build(build: Build) -> None:
    wheels, images = build
    unavailable = inputs.Parts(*map(frozenset, CONTENT["mlc-llm"]))
    document, _ = bills(
        tuple(wheel for wheel in wheels if "mlc_llm" not in wheel.name), tuple(images.items()), unavailable=unavailable
    )
    found = {each["SPDXID"].removeprefix("SPDXRef-") for each in document["packages"]}
    # The crates of the toolchain's own test.
    tools = {crate_id(key) for key in CRATE_SETS["tests"]}
    assert {"source-tilelang", *tools} <= found
    assert not found & ({other for one, other in GENERATED_FROM if one == "wheel-mlc-llm"} - tools)
    assert not any("mlc-llm" in each for each in found)


def test_without_cuda_nothing_of_it_is_in_the_build(build: Build) -> None:
    wheels, images = build
    nvidia = [("pypi", name) for name, _, _ in REQUIREMENTS if name.startswith("nvidia-")]
    unavailable = inputs.Parts(frozenset([*nvidia, ("source", "tvm")]), frozenset({("debian", "cuda")}))
    without = tuple(wheel for wheel in wheels if "cuda" not in wheel.name)
    document, _ = bills(
        without, tuple((name, layout) for name, layout in images.items() if name != "gpu"), unavailable=unavailable
    )
    found = {each["SPDXID"]: each for each in document["packages"]}
    assert not any("nvidia" in id or "cuda" in id or id == "SPDXRef-source-tvm" for id in found)
    assert not any("(cuda)" in each.get("comment", "") for each in found.values())
    # Other sets have them too.
    assert {"SPDXRef-debian-" + key.replace("/", "-") for key in DEBIAN["sets"]["cuda"]} <= set(found)


@pytest.fixture(params=["whole", "small", "gpu"])
def both(request: pytest.FixtureRequest) -> Bills:
    bills: Bills = request.getfixturevalue(request.param)
    return bills


def test_spdx_is_valid(both: Bills) -> None:
    document = JsonLikeDictParser().parse(both[0])
    assert [message.validation_message for message in validate_full_spdx_document(document)] == []
    assert document.creation_info.spdx_version == "SPDX-2.3"
    assert document.creation_info.created.isoformat() == "2000-01-01T00:00:00"


def test_every_license_ref_is_explained_and_used(both: Bills) -> None:
    used = {name for each in both[0]["packages"] for name in re.findall(r"LicenseRef-[\w.-]+", each["licenseDeclared"])}
    assert used == {each["licenseId"] for each in both[0].get("hasExtractedLicensingInfos", [])}
    assert used


def test_cyclonedx_is_well_formed(both: Bills) -> None:
    document = both[1]
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(
        r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", document["serialNumber"]
    )
    assert document["metadata"]["timestamp"] == "2000-01-01T00:00:00+00:00"
    references = collections.Counter(re.findall(r'"bom-ref": "([^"]+)"', json.dumps(document)))
    assert max(references.values()) == 1
    for dependency in document["dependencies"]:
        assert {dependency["ref"], *dependency.get("dependsOn", [])} <= set(references)
    # A decorator of the serialization library adds from_json.
    assert len(Bom.from_json(document).components) == len(document["components"])  # type: ignore[attr-defined]


def related(document: dict, relation: str) -> set[tuple[str, str]]:
    return {
        (each["spdxElementId"].removeprefix("SPDXRef-"), each["relatedSpdxElement"].removeprefix("SPDXRef-"))
        for each in document["relationships"]
        if each["relationshipType"] == relation
    }


def crate_id(key: str) -> str:
    return "crate-" + key.replace("/", "-").replace("_", "-")


TVM_GENERATED_FROM = {
    ("wheel-apache-tvm", "pypi-apache-tvm"),
    ("wheel-apache-tvm", "source-tilelang"),
    # An image has the wheel for its own Python.
    ("wheel-apache-tvm-ffi-cp311", "pypi-apache-tvm-ffi"),
    ("wheel-apache-tvm-ffi-cp311", "source-cpython-3.11"),
}
TVM_CUDA_GENERATED_FROM = {
    ("wheel-apache-tvm-cuda", each) for each in ("pypi-apache-tvm", "source-tilelang", "source-tvm")
}
GENERATED_FROM = {
    *TVM_GENERATED_FROM,
    *TVM_CUDA_GENERATED_FROM,
    *(("wheel-mlc-llm", f"source-{name}") for name in ("mlc-llm", "sentencepiece", "tokenizers-cpp", "xgrammar")),
    *(("wheel-mlc-llm", f"debian-bookworm-{name}") for name in ("libmsgpack-cxx-dev", "libstb-dev")),
    *(("wheel-mlc-llm", crate_id(key)) for key in CRATE_SETS["tokenizers_cpp"]),
    ("wheel-apache-tvm-ffi-cp312", "pypi-apache-tvm-ffi"),
    ("wheel-apache-tvm-ffi-cp312", "source-cpython-3.12"),
}
PRODUCTS = {
    "image-small",
    "image-large",
    "image-gpu",
    "wheel-apache-tvm",
    "wheel-apache-tvm-cuda",
    "wheel-apache-tvm-ffi-cp311",
    "wheel-apache-tvm-ffi-cp312",
    "wheel-mlc-llm",
}


def test_relationships_of_the_whole_build(whole: Bills) -> None:
    document = whole[0]
    assert related(document, "DESCRIBES") == {("DOCUMENT", "release")}
    assert related(document, "GENERATED_FROM") == GENERATED_FROM
    contained = related(document, "CONTAINS")
    assert {other for one, other in contained if one == "release"} == PRODUCTS
    assert ("image-small", "debian-bookworm-libc6") in contained and ("image-small", "pypi-numpy") in contained
    assert ("image-large", "wheel-apache-tvm-ffi-cp311") in contained and ("image-large", "pypi-numpy") not in contained
    tools = {one for one, other in related(document, "BUILD_TOOL_OF") if other == "release"}
    for use in ("cc", "container_tools", "cuda", "pip", "publish_tools", "python", "rust"):
        for key in DEBIAN["sets"][use]:
            assert "debian-" + key.replace("/", "-").replace("+", "-plus") in tools, key
    assert {"pypi-cyclonedx-python-lib", "pypi-nvidia-cuda-nvcc", "pypi-nvidia-cudnn-cu13"} <= tools
    assert "bazel-debian-forky-bazel-bootstrap" in tools
    assert not tools & {
        "pypi-apache-tvm",
        "source-tilelang",
        "pypi-numpy",
        "debian-bookworm-git",
        "debian-bookworm-libstb-dev",
        "crate-0.21-tokenizers",
        "pypi-nvidia-cublas",
    }


def test_every_package_has_a_part(both: Bills) -> None:
    """What a document lists is connected with what it describes."""
    document = both[0]
    relations = ("CONTAINS", "BUILD_TOOL_OF", "GENERATED_FROM", "DESCRIBES")
    connected = {id for relation in relations for pair in related(document, relation) for id in pair}
    assert {each["SPDXID"].removeprefix("SPDXRef-") for each in document["packages"]} == connected - {"DOCUMENT"}


def test_cyclonedx_tells_what_is_shipped(whole: Bills) -> None:
    components = {each["bom-ref"]: each for each in whole[1]["components"]}
    assert components["debian-bookworm-libc6"]["scope"] == "required"
    assert components["debian-bullseye-libc6"]["scope"] == "excluded"
    roles = {each["value"] for each in components["debian-bookworm-libc6"]["properties"]}
    assert {"in image small", "in image large", "build tool (python)"} <= roles
    ancestors = components["wheel-apache-tvm"]["pedigree"]["ancestors"]
    assert [each["name"] for each in ancestors] == ["apache-tvm", "tilelang"]
    assert ancestors[1]["hashes"][0]["content"] == SOURCES["tilelang"]["sha256"]
    (release,) = [each for each in whole[1]["dependencies"] if each["ref"] == "release"]
    assert set(release["dependsOn"]) == PRODUCTS


def test_one_image_is_what_its_layers_hold(build: Build, small: Bills) -> None:
    expected = {("numpy", version_of("numpy")), ("typing-extensions", version_of("typing-extensions")), TVM, TVM_FFI}
    expected |= set(image_packages("image_base", "image_python"))
    document = small[0]
    packages = {
        each["SPDXID"].removeprefix("SPDXRef-"): (each["name"], each["versionInfo"]) for each in document["packages"]
    }
    assert related(document, "DESCRIBES") == {("DOCUMENT", "image-small")}
    contained = [packages[other] for _, other in related(document, "CONTAINS")]
    assert len(contained) == len(expected) and set(contained) == expected
    assert related(document, "GENERATED_FROM") == TVM_GENERATED_FROM
    assert not related(document, "BUILD_TOOL_OF")
    hashes = {line[0]: line[3] for line in spdx_lines(document) if line[1] == TVM[1]}
    assert hashes["apache-tvm"] == (hashlib.sha256(build[0][0].read_bytes()).hexdigest(),)
    assert set(spdx_lines(document)) == set(cyclonedx_lines(small[1]))


def test_libraries_of_nvidia_are_components_under_their_own_licence(gpu: Bills) -> None:
    document = gpu[0]
    packages = {each["SPDXID"].removeprefix("SPDXRef-"): each for each in document["packages"]}
    contained = {other for _, other in related(document, "CONTAINS")}
    assert {"pypi-nvidia-cublas", "wheel-apache-tvm-cuda"} <= contained
    assert packages["pypi-nvidia-cublas"]["licenseDeclared"] == "LicenseRef-NVIDIA-Proprietary"
    assert packages["wheel-apache-tvm-cuda"]["licenseDeclared"] == "Apache-2.0"
    (text,) = [
        each for each in document["hasExtractedLicensingInfos"] if each["licenseId"] == "LicenseRef-NVIDIA-Proprietary"
    ]
    assert "nvidia-cublas" in text["comment"]
    # What is only compiled with or called stays out.
    assert [id for id in packages if "nvidia" in id] == ["pypi-nvidia-cublas"]
    assert related(document, "GENERATED_FROM") == TVM_GENERATED_FROM | TVM_CUDA_GENERATED_FROM


def test_without_git_sources_the_wheel_for_gpus_is_not_made_of_them(tmp_path: pathlib.Path, build: Build) -> None:
    unavailable = tmp_path / "unavailable.json"
    unavailable.write_text(json.dumps({"entries": [("source", "tvm")], "sets": []}))
    done = run(tmp_path / "folder", build, "--only-image", "gpu", f"--unavailable={unavailable}")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads((tmp_path / "folder/sbom.spdx.json").read_text())
    assert related(document, "GENERATED_FROM") == TVM_GENERATED_FROM | TVM_CUDA_GENERATED_FROM - {
        ("wheel-apache-tvm-cuda", "source-tvm")
    }


def test_the_real_image_is_what_its_layers_hold() -> None:
    image = Image(TVM_RUNTIME)
    expected = set()
    for number in range(len(image.layer_digests)):
        for path, _, _ in image.walk(number):
            if match := re.fullmatch(r"var/lib/dpkg/status\.d/(.+)", path):
                expected |= {match[1]} - {f"{match[1].removesuffix('.md5sums')}.md5sums"}
            elif match := re.fullmatch(r".*/([^/-]+)-([^/-]+)\.dist-info", path):
                expected.add(f"{canonicalize_name(match[1])} {match[2]}")
    assert len(expected) > 50
    document, _ = bills(tuple(WHEELS), (("tvm_runtime", TVM_RUNTIME),), "tvm_runtime")
    packages = {each["SPDXID"].removeprefix("SPDXRef-"): each for each in document["packages"]}
    contained = [packages[other] for _, other in related(document, "CONTAINS")]
    named = [
        each["name"] + f" {each['versionInfo']}" * (not each["SPDXID"].startswith("SPDXRef-debian-"))
        for each in contained
    ]
    assert sorted(named) == sorted(expected)
    wheels = {hashlib.sha256(path.read_bytes()).hexdigest() for path in WHEELS}
    assert {each["checksums"][0]["checksumValue"] for each in contained if "+mlc" in each["versionInfo"]} == wheels


def test_an_image_for_arm64_has_the_packages_and_wheels_for_arm64(tmp_path: pathlib.Path) -> None:
    name, version, sha256 = next(each for each in OF_ARM64 if each[0] == "numpy")
    [package] = [each for each in LOCKED if each.name == "bash:arm64" and "image_base_arm64" in each.uses]
    record = f"Package: bash\nArchitecture: arm64\nVersion: {package.version}\n".encode()
    metadata = [f"Metadata-Version: 2.1\nName: {each}\nVersion: {at}\n" for each, at in (TVM, (name, version))]
    image = Image(
        write_layout(
            tmp_path / "layout",
            [
                {
                    "var/lib/dpkg/status.d/bash": record,
                    "site-packages/apache_tvm-0.26.0.dist-info/METADATA": metadata[0].encode(),
                    "site-packages/numpy.dist-info/METADATA": metadata[1].encode(),
                }
            ],
            architecture="arm64",
        )
    )
    made = inputs.Made(
        TVM[0],
        "",
        "arm64",
        ("pypi", "apache-tvm"),
        frozenset(),
        inputs.Parts(frozenset({("pypi", "apache-tvm:arm64")})),
    )
    amd64 = tmp_path / f"apache_tvm-{TVM[1]}-py3-none-linux_x86_64.whl"
    arm64 = tmp_path / f"apache_tvm-{TVM[1]}-py3-none-linux_aarch64.whl"
    for wheel in (amd64, arm64):
        wheel.write_bytes(wheel.name.encode())
    of_amd64 = dataclasses.replace(
        made, architecture="amd64", content=inputs.Parts(frozenset({("pypi", "apache-tvm")}))
    )
    known = {(TVM[0], "", each.architecture): each for each in (made, of_amd64)}
    wheels = [sbom.Wheel.read(wheel, known) for wheel in (amd64, arm64)]
    bill = sbom.one_image("thing_arm64", VERSION, LOCKED, wheels, image)
    found = {each.name: each for each in bill.components.values() if each.id != "pypi-apache-tvm-arm64"}
    assert found["bash"].sha256 == package.sha256 and "arch=arm64" in found["bash"].purl
    assert found["numpy"].sha256 == (sha256,)
    assert found[TVM[0]].sha256 == (hashlib.sha256(arm64.read_bytes()).hexdigest(),)
    assert ("wheel-apache-tvm-arm64", "pypi-apache-tvm-arm64") in {
        (one, other) for one, relation, other in bill.relations if relation.name == "GENERATED_FROM"
    }


@pytest.mark.parametrize(
    ("debian", "pypi", "message"),
    [
        (
            [("emacs", "1:28")],
            [],
            "status.d/emacs is emacs 1:28: expected that in an image set of locks/debian.lock.json",
        ),
        ([("bash", "1.0")], [], "status.d/bash is bash 1.0: expected"),
        ([("cosign", "VERSION")], [], "is cosign"),
        (
            [],
            [("requests", "2.0")],
            r"requests-2.0.dist-info/METADATA is requests 2.0: expected that in locks/requirements.lock.txt",
        ),
        ([], [("numpy", "1.0")], "is numpy 1.0: expected"),
        ([], [("apache-tvm", "0.26.0+mlc0.1.0.bother")], "is apache-tvm 0.26.0"),
    ],
)
def test_a_package_that_nothing_knows_of_is_refused(
    tmp_path: pathlib.Path, build: Build, debian: Any, pypi: Any, message: str
) -> None:
    # cosign is locked, but as a tool and not for an image.
    version = DEBIAN["packages"]["trixie/cosign"]["version"]
    image = Image(
        tiny_image.make(tmp_path / "layout", [(name, each.replace("VERSION", version)) for name, each in debian], pypi)
    )
    wheels = [sbom.Wheel.read(wheel, made()) for wheel in build[0]]
    with pytest.raises(sbom.SbomError, match=message) as refused:
        sbom.one_image("odd", VERSION, LOCKED, wheels, image)
    assert str(refused.value).startswith("image odd: /")
    with pytest.raises(sbom.SbomError, match=message):
        sbom.whole_build(VERSION, LOCKED, BAZEL, wheels, {"odd": image})


def test_a_lock_entry_that_no_image_has_is_refused(build: Build) -> None:
    wheels, images = build
    message = "locks/debian.lock.json has it for image_.*, and it is in none of the images small: pass every image"
    with pytest.raises(sbom.SbomError, match=message):
        sbom.whole_build(
            VERSION,
            LOCKED,
            BAZEL,
            [sbom.Wheel.read(wheel, made()) for wheel in wheels],
            {"small": Image(images["small"])},
        )


def test_a_wheel_of_unknown_sources_is_refused(tmp_path: pathlib.Path) -> None:
    wheel = tmp_path / "other-1.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    with pytest.raises(
        sbom.SbomError,
        match=(
            "other-1.0-py3-none-any.whl: expected what it is made of, found that of apache-tvm amd64, .*apache-tvm-ffi"
            " cp311.*: pass its made_of with --made-of"
        ),
    ):
        sbom.whole_build(VERSION, LOCKED, BAZEL, [sbom.Wheel.read(wheel, made())], {})


def run(folder: pathlib.Path, build: Build, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    wheels, images = build
    command = [sys.executable, "-m", "release.private.sbom", "--locks", *map(str, LOCKS.values()), "--version", VERSION]
    command += [f"--wheel={wheel}" for wheel in wheels] + [
        f"--image={name}={layout}" for name, layout in images.items()
    ]
    command += ["--spdx", "sbom.spdx.json", "--cyclonedx", "sbom.cdx.json", *arguments]
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    folder.mkdir()
    for name, abi in ((name, abi) for name, abis in ABIS.items() for abi in abis):
        (folder / f"{name}{abi}.json").write_text(json.dumps(made_of(name, abi)))
        command.append(f"--made-of={name}{abi}.json")
    return subprocess.run(
        command,
        cwd=folder,
        env={"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("arguments", [(), ("--only-image", "small")])
def test_the_same_bytes_everywhere(tmp_path: pathlib.Path, build: Build, arguments: Any) -> None:
    for name, environment in (
        ("one", {"TZ": "UTC", "PYTHONHASHSEED": "1"}),
        ("two", {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2"}),
    ):
        done = run(tmp_path / name, build, *arguments, **environment)
        assert (done.returncode, done.stderr) == (0, "")
    for name in ("sbom.spdx.json", "sbom.cdx.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_other_content_has_another_identity(whole: Bills, small: Bills) -> None:
    assert whole[0]["documentNamespace"] != small[0]["documentNamespace"]
    assert whole[1]["serialNumber"] != small[1]["serialNumber"]


def test_an_image_that_is_not_given_is_an_error(tmp_path: pathlib.Path, build: Build) -> None:
    done = run(tmp_path / "folder", build, "--only-image", "other")
    assert (done.returncode, done.stderr) == (
        1,
        "sbom: --only-image other: expected one of the images small, large, gpu: pass it with --image\n",
    )
