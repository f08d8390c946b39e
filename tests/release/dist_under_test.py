"""The files of a release, as the programs of //release write them, for images and locks made for a test."""

from __future__ import annotations

import json
import pathlib
import zipfile
from collections.abc import Iterable, Mapping

from fetch import locks
from fetch.locks import Input, Made, Parts
from oci.layout import named_digests, named_images
from release import builder
from release.private import dist, provenance, sbom, stamp
from release.private.expected import WHOLE, Expected

REVISION = "0123456789abcdef0123456789abcdef01234567"
BAZEL = f"7.7.1 sha256:{'0' * 64}"
# The wheels of the release; the second requires the first, and the third is for two Pythons and two processors.
WHEELS = {
    "thing": "1.0+mlc1.2.3.b00000001",
    "thing-more": "1.0+mlc1.2.3.cu130.b00000002",
    "thing-native": "1.0+mlc1.2.3.b00000003",
}
TAGS = {
    "thing": ("py3-none-linux_x86_64", "py3-none-linux_aarch64"),
    "thing-more": ("py3-none-linux_x86_64",),
    "thing-native": (
        *("cp311-cp311-linux_x86_64", "cp311-cp311-linux_aarch64"),
        *("cp314-cp314t-linux_x86_64", "cp314-cp314t-linux_aarch64"),
    ),
}
OF_ARM64 = "1.0+mlc1.2.3.b00000004"
AUDIT = {"date": "2026-01-01", "sources": {"Debian:12": ["an archive"]}}


def expected(layouts: Mapping[str, pathlib.Path], cuda: Iterable[str] = ()) -> Expected:
    """What a checkout with these layouts releases, as version 1.2.3."""
    return Expected(
        version="1.2.3",
        revision=REVISION,
        images={name: frozenset(named_images(name, layout)) for name, layout in layouts.items()},
        wheels={name: version.rpartition(".b")[0] for name, version in WHEELS.items()},
        tags={name: frozenset(tags) for name, tags in TAGS.items()},
        cuda=frozenset(cuda),
        locked=[
            Input(locks.PYPI, "library", "1.0", ("a" * 64, "b" * 64), license="MIT"),
            Input(locks.PYPI, "thing", "1.0", ("c" * 64,), license="Apache-2.0"),
        ],
        bazel="7.7.1",
        bazel_packages=[Input(locks.PYPI, "part-of-bazel", "2.0", ("d" * 64,))],
        audit=AUDIT,
    )


def wheel_version(distribution: str, tags: str) -> str:
    return OF_ARM64 if tags.endswith("_aarch64") else WHEELS[distribution]


def wheel_name(distribution: str, version: str = "", tags: str = "") -> str:
    tags = tags or TAGS.get(distribution, TAGS["thing"])[0]
    return f"{distribution.replace('-', '_')}-{version or wheel_version(distribution, tags)}-{tags}.whl"


def metadata(distribution: str, version: str = "") -> str:
    pinned = OF_ARM64 if version == OF_ARM64 else WHEELS["thing"]
    requires = "Requires-Dist: numpy\n" + f"Requires-Dist: thing=={pinned}\n" * (distribution != "thing")
    return (
        f"Metadata-Version: 2.1\nName: {distribution}\n{requires}Version: {version or WHEELS[distribution]}\n\nVersion:"
        " in the text\n"
    )


def write_wheel(path: pathlib.Path, text: str, *more: tuple[str, str]) -> pathlib.Path:
    """Writes a wheel with this METADATA, and more files."""
    folder = "-".join(path.name.split("-")[:2]) + ".dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        tags = f"Wheel-Version: 1.0\nTag: {path.stem.split('-', 2)[2]}\n"
        for name, content in (
            ("thing/__init__.py", ""),
            (f"{folder}/METADATA", text),
            (f"{folder}/WHEEL", tags),
            *more,
        ):
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def write(
    folder: pathlib.Path,
    layouts: Mapping[str, pathlib.Path],
    release: Expected,
    *,
    bazel_locked: bool = True,
    by: str = builder.UNVERIFIED,
    options: Iterable[str] = (),
) -> dict[str, pathlib.Path]:
    """Writes wheels, documents and all other files of a release, but for SHA256SUMS and release.json.

    Returns:
        Name → file.
    """
    folder.mkdir()
    wheels = [
        write_wheel(folder / wheel_name(name, tags=tags), metadata(name, wheel_version(name, tags)))
        for name in WHEELS
        for tags in TAGS[name]
    ]
    made = {
        (name, abi, architecture): Made(
            name, abi, architecture, (locks.PYPI, "thing"), frozenset(), Parts(frozenset({("pypi", "thing")}))
        )
        for name in WHEELS
        for abi in (tags.split("-")[1].replace("none", "") for tags in TAGS[name])
        for architecture in ("amd64", "arm64")
    }
    of_wheels = [sbom.Wheel.read(path, made) for path in wheels]
    images = {each: image for name, layout in layouts.items() for each, image in named_images(name, layout).items()}
    subjects = {name: named_digests(name, layout) for name, layout in layouts.items()}
    digests = {each: digest for named in subjects.values() for each, digest in named.items()}
    subjects |= {WHOLE: digests | {path.name: stamp.sha256(path) for path in wheels}}
    bills = {WHOLE: sbom.whole_build(release.version, release.locked, release.bazel_packages, of_wheels, images)}
    for name, image in images.items():
        bills[name] = sbom.one_image(name, release.version, release.locked, of_wheels, image)
    for name, bill in bills.items():
        (folder / f"{name}.spdx.json").write_text(sbom.spdx_json(bill))
        (folder / f"{name}.cdx.json").write_text(sbom.cyclonedx_json(bill))
    for name, about in subjects.items():
        statement = provenance.statement(
            about,
            release.locked,
            targets=provenance.TARGETS,
            options=options,
            version=release.version,
            bazel=BAZEL,
            bazel_packages=release.bazel_packages if bazel_locked else None,
            revision=release.revision,
            builder=by,
        )
        (folder / f"{name}.provenance.json").write_text(json.dumps(statement))
    listed = [each.as_json() for each in release.locked]
    (folder / "inputs.json").write_text(json.dumps({"release": f"v{release.version}", "inputs": listed}))
    (folder / "vulnerabilities.json").write_text(json.dumps({**AUDIT, "images": dict.fromkeys(images, {})}))
    artifacts = {path.name: stamp.describe(path) for path in (*wheels, *layouts.values())}
    (folder / "gate.json").write_text(json.dumps({"artifacts": artifacts, "tests": []}))
    for name in ("index.html", "licenses.html", "notes.md"):
        (folder / name).write_text("What is new\n")
    return {path.name: path for path in folder.iterdir()}


def gather(folder: pathlib.Path, files: Mapping[str, pathlib.Path], release: Expected) -> pathlib.Path:
    """Makes the folder of the release from its files, as //release:dist does."""
    dist.gather(files.values(), folder, release.version, release.revision)
    return folder
