"""The files of a release, as the programs of //release write them, for images and locks made for a test."""

from __future__ import annotations

import json
import pathlib
import zipfile
from collections.abc import Iterable, Mapping

from fetch import locks
from fetch.locks import Input, Made, Parts
from oci.layout import Image
from release import builder
from release.private import dist, provenance, sbom, stamp
from release.private.expected import DOCUMENTS, WHOLE, Expected

REVISION = "0123456789abcdef0123456789abcdef01234567"
BAZEL = f"7.7.1 sha256:{'0' * 64}"
# The wheels of the release; the second requires the first, and the third is for two Pythons.
WHEELS = {
    "thing": "1.0+mlc1.2.3.b00000001",
    "thing-more": "1.0+mlc1.2.3.cu130.b00000002",
    "thing-native": "1.0+mlc1.2.3.b00000003",
}
PYTHONS = {"thing": ("py3-none",), "thing-more": ("py3-none",), "thing-native": ("cp311-cp311", "cp314-cp314t")}
AUDIT = {"date": "2026-01-01", "sources": {"Debian:12": ["an archive"]}}


def expected(images: Iterable[str], cuda: Iterable[str] = ()) -> Expected:
    """What a checkout with these images releases, as version 1.2.3."""
    return Expected(
        version="1.2.3",
        revision=REVISION,
        images=frozenset(images),
        wheels={name: version.rpartition(".b")[0] for name, version in WHEELS.items()},
        pythons={name: frozenset(tags) for name, tags in PYTHONS.items()},
        cuda=frozenset(cuda),
        locked=[
            Input(locks.PYPI, "library", "1.0", ("a" * 64, "b" * 64), license="MIT"),
            Input(locks.PYPI, "thing", "1.0", ("c" * 64,), license="Apache-2.0"),
        ],
        bazel="7.7.1",
        bazel_packages=[Input(locks.PYPI, "part-of-bazel", "2.0", ("d" * 64,))],
        audit=AUDIT,
    )


def wheel_name(distribution: str, version: str = "", python: str = "") -> str:
    python = python or PYTHONS.get(distribution, PYTHONS["thing"])[0]
    return f"{distribution.replace('-', '_')}-{version or WHEELS[distribution]}-{python}-any.whl"


def metadata(distribution: str, version: str = "") -> str:
    requires = "Requires-Dist: numpy\n" + f"Requires-Dist: thing=={WHEELS['thing']}\n" * (distribution != "thing")
    return (
        f"Metadata-Version: 2.1\nName: {distribution}\n{requires}Version: {version or WHEELS[distribution]}\n\nVersion:"
        " in the text\n"
    )


def write_wheel(path: pathlib.Path, text: str, *more: tuple[str, str]) -> pathlib.Path:
    """Writes a wheel with this METADATA, and more files."""
    folder = "-".join(path.name.split("-")[:2]) + ".dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (("thing/__init__.py", ""), (f"{folder}/METADATA", text), *more):
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
        write_wheel(folder / wheel_name(name, python=python), metadata(name))
        for name in WHEELS
        for python in PYTHONS[name]
    ]
    made = {
        (name, abi): Made(name, abi, (locks.PYPI, "thing"), frozenset(), Parts(frozenset({("pypi", "thing")})))
        for name in WHEELS
        for abi in (python.partition("-")[2].replace("none", "") for python in PYTHONS[name])
    }
    of_wheels = [sbom.Wheel.read(path, made) for path in wheels]
    images = {name: Image(layout) for name, layout in layouts.items()}
    digests = {name: image.digest for name, image in images.items()}
    subjects = {WHOLE: digests | {path.name: stamp.sha256(path) for path in wheels}}
    bills = {WHOLE: sbom.whole_build(release.version, release.locked, release.bazel_packages, of_wheels, images)}
    for name, image in images.items():
        subjects[name] = {name: digests[name]}
        bills[name] = sbom.one_image(name, release.version, release.locked, of_wheels, image)
    for name, bill in bills.items():
        statement = provenance.statement(
            subjects[name],
            release.locked,
            targets=provenance.TARGETS,
            options=options,
            version=release.version,
            bazel=BAZEL,
            bazel_packages=release.bazel_packages if bazel_locked else None,
            revision=release.revision,
            builder=by,
        )
        texts = (sbom.spdx_json(bill), sbom.cyclonedx_json(bill), json.dumps(statement))
        for suffix, text in zip(DOCUMENTS.values(), texts, strict=True):
            (folder / f"{name}.{suffix}").write_text(text)
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
