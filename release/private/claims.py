"""Compares what the files of a release say of it with the checkout that publishes them. Standard library only.

The job that built may have written anything. Wheels, provenance, bills of materials, inputs and the day of the audit
must be those of this checkout's version, commit and locks, and name the very wheels and images that are published. Not
compared: package URLs and licences in documents, the vulnerabilities found, the gate's tests, and pages.
"""

from __future__ import annotations

import dataclasses
import email.parser
import email.policy
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fetch import archives, strict_json
from fetch.locks import Input
from release import builder
from release.private import provenance, publish
from release.private.expected import DOCUMENTS, OTHER_FILES, WHOLE, Expected, attached
from wheels.finished import processor_of

# PyPA, Binary distribution format.
_WHEEL = re.compile(r"([a-z0-9_]+)-([a-z0-9_.+!]+)-([a-z0-9_.]+-[a-z0-9_.]+-[a-z0-9_.]+)\.whl")
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)\s*(.*)", re.DOTALL)
# METADATA with upstream's description has some tens of kB.
_MOST_METADATA = 1 << 20

# Name, version, and the sha256 of its files.
_Component = tuple[str, str, frozenset[str]]


class Refused(Exception):
    """A file of the release says something else than this checkout."""


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A wheel of the release; `tags` are those of its Python, ABI and platform."""

    file: str
    distribution: str
    tags: str
    version: str
    sha256: str


def check(
    dist: publish.Distribution,
    images: Mapping[str, Mapping[str, str]],
    expected: Expected,
    identity: Callable[[], str],
) -> None:
    """Compares every file that names what it is about.

    Args:
        dist: the release; its files are those of its sums.
        images: name of a layout → its digests, as `oci.layout.named_digests` has them.
        expected: what this checkout releases.
        identity: the workflow that this job can show to be running, asked for only if a provenance names one.

    Raises:
        Refused, errors.UserError, builder.BuilderError: the first that differs.
    """
    wheels = _wheels(dist, expected)
    found = {*images, *(wheel.distribution for wheel in wheels)}
    cuda = bool(found & expected.cuda)
    if found != (parts := expected.parts(cuda=cuda)):
        raise Refused(
            f"expected the images and wheels of release/published.bzl, {', '.join(sorted(parts))}, found"
            f" {', '.join(sorted(found)) or 'none'}"
        )
    for name, digests in images.items():
        if (single := frozenset(digests.keys() - {name}) or {name}) != expected.images[name]:
            raise Refused(f"{name}: expected {_listed(expected.images[name])}, found {_listed(single)}")
    named = {f"{WHOLE}.{suffix}" for suffix in DOCUMENTS.values()}
    named |= {file for name in images for _, _, file in attached(name, expected.images[name])}
    files = {*named, *OTHER_FILES, *(wheel.file for wheel in wheels), publish.SUMS}
    if dist.sums.keys() != files:
        differing = sorted(dist.sums.keys() ^ files)
        raise Refused(
            f"expected the files of //release:dist, found {differing[0]!r} only"
            f" {'in the archive' if differing[0] in dist.sums else 'there'}"
        )
    _same(
        {"version": expected.version, "tag": f"v{expected.version}", "revision": expected.revision},
        _json(dist, publish.FACTS),
        publish.FACTS,
    )
    _check_inputs(dist, expected)
    single_images = {
        image: digests[image] for name, digests in images.items() for image in sorted(expected.images[name])
    }
    _check_audit(dist, single_images, expected)
    options = ["--config=cuda"] if cuda else []
    by_file = {wheel.file: wheel.sha256 for wheel in wheels}
    locked = {
        (each.package, each.version, frozenset(each.sha256)) for each in (*expected.locked, *expected.bazel_packages)
    }
    of_wheels = {wheel: (wheel.distribution, wheel.version, frozenset([wheel.sha256])) for wheel in wheels}
    of_images = {
        name: (name, expected.version, frozenset([digest.removeprefix("sha256:")]))
        for name, digest in single_images.items()
    }
    release = (WHOLE, expected.version, frozenset[str]())
    digests_of_all = {each: digest for digests in images.values() for each, digest in digests.items()}
    _check_provenance(dist, WHOLE, {**by_file, **digests_of_all}, options, expected, identity)
    _check_bills(dist, WHOLE, release, {*of_wheels.values(), *of_images.values()}, locked)
    for name, digests in images.items():
        _check_provenance(dist, name, digests, options, expected, identity)
        for image in sorted(expected.images[name]):
            # An image alone is a model's and has no wheels.
            fitting = {each for wheel, each in of_wheels.items() if image == f"{name}_{processor_of(wheel.tags)}"}
            _check_bills(dist, image, of_images[image], set(), locked | fitting)


def _json(dist: publish.Distribution, name: str) -> Any:
    return strict_json.read(dist.folder / name)


def _same(expected: Any, found: Any, where: str) -> None:
    """Refuses the first value that differs; `where` says where it is."""
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        for key, value in expected.items():
            _same(value, found[key], f"{where}: {key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found)):
            _same(one, other, f"{where}[{number}]")
    elif type(expected) is not type(found) or expected != found:
        raise Refused(f"{where}: expected {_shown(expected)}, found {_shown(found)}")


def _shown(value: Any) -> str:
    return f"{value!r:.200}"


# Wheels ----------------------------------------------------------------------------------------------------------


def _wheels(dist: publish.Distribution, expected: Expected) -> list[Wheel]:
    """The wheels of the release, each compared with its name, and its pins with the other wheels."""
    wheels: dict[tuple[str, str], Wheel] = {}
    versions: dict[tuple[str, str], str] = {}
    required = []
    for file, sha256 in sorted(dist.sums.items()):
        if not file.endswith(".whl"):
            continue
        match = _WHEEL.fullmatch(file)
        distribution = match[1].replace("_", "-") if match else ""
        if not match or distribution not in expected.wheels:
            raise Refused(f"{file}: expected a wheel of {', '.join(sorted(expected.wheels))}, found another name")
        if not expected.is_version(distribution, match[2]):
            raise Refused(
                f"{file}: expected version {expected.wheels[distribution]}.b… of this checkout, found {match[2]}"
            )
        tags = match[3]
        if tags not in expected.tags[distribution]:
            raise Refused(
                f"{file}: expected a wheel of {distribution} for {_listed(expected.tags[distribution])}, found one"
                f" for {tags}"
            )
        if other := wheels.get((distribution, tags)):
            raise Refused(f"{file}: expected one wheel of {distribution} for {tags}, found {other.file}, too")
        # Processors have builds of their own.
        processor = processor_of(tags)
        if (version := versions.setdefault((distribution, processor), match[2])) != match[2]:
            raise Refused(
                f"{file}: expected version {version}, as another wheel of {distribution} has, found {match[2]}"
            )
        wheels[distribution, tags] = Wheel(file, distribution, tags, match[2], sha256)
        headers, wheel = _metadata(dist.folder / file, f"{match[1]}-{match[2]}.dist-info")
        # pip reads the name, and installers may read this.
        if (said := [str(each) for each in wheel.get_all("Tag", [])]) != [tags]:
            raise Refused(f"{file}: WHEEL: expected Tag: {tags}, found {_shown(said)}")
        for field, value in (("Name", distribution), ("Version", match[2])):
            said = [str(each) for each in headers.get_all(field, [])]
            if said != [value]:
                raise Refused(f"{file}: METADATA: expected {field}: {value}, found {_shown(said)}")
        required += [(file, processor, str(each)) for each in headers.get_all("Requires-Dist", [])]
    for file, processor, requirement in required:
        words = _REQUIREMENT.fullmatch(requirement)
        pinned = re.sub(r"[-_.]+", "-", words[1]).lower() if words else ""
        if (
            words
            and pinned in expected.wheels
            and words[2] != (pin := f"=={versions.get((pinned, processor), 'a wheel of this release')}")
        ):
            raise Refused(f"{file}: METADATA: expected it to require {pinned}{pin}, found {_shown(requirement)}")
    for distribution in {wheel.distribution for wheel in wheels.values()}:
        if missing := expected.tags[distribution] - {tags for of, tags in wheels if of == distribution}:
            raise Refused(f"expected a wheel of {distribution} for {_listed(missing)}, found none")
    return list(wheels.values())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _metadata(path: pathlib.Path, folder: str) -> list[email.message.Message]:
    """METADATA and WHEEL of a wheel that has one folder .dist-info, and no file twice."""
    names: set[str] = set()
    found: dict[str, bytes] = {}
    wanted = [f"{folder}/METADATA", f"{folder}/WHEEL"]
    for info, file in archives.zip_entries(path):
        if info.filename in names:
            raise Refused(f"{path.name}: expected each file once, found {info.filename!r:.200} twice")
        names.add(info.filename)
        first = info.filename.partition("/")[0]
        if first.endswith(".dist-info") and first != folder:
            raise Refused(f"{path.name}: expected the folder {folder}, found {first!r:.200}")
        if info.filename in wanted:
            found[info.filename] = file.read(_MOST_METADATA + 1)
    for name in wanted:
        if len(found.get(name, b"-" * (_MOST_METADATA + 1))) > _MOST_METADATA:
            raise Refused(
                f"{path.name}: expected {name} of at most {_MOST_METADATA} bytes, found"
                f" {'more' if name in found else 'none'}"
            )
    parser = email.parser.BytesParser(policy=email.policy.compat32)
    return [parser.parsebytes(found[name], headersonly=True) for name in wanted]


# Provenance ------------------------------------------------------------------------------------------------------


def _check_provenance(
    dist: publish.Distribution,
    name: str,
    subjects: Mapping[str, str],
    options: list[str],
    expected: Expected,
    identity: Callable[[], str],
) -> None:
    """Compares a statement with the one that this checkout makes of the same subjects.

    Only the job that built could see which Bazel ran. Who built is believed only if this job can show the same.
    """
    file = f"{name}.provenance.json"
    found = _json(dist, file)
    try:
        definition = found["predicate"]["buildDefinition"]
        said = definition["internalParameters"]
        bazel, is_locked = said["bazel"], said["bazel_locked"]
        by = found["predicate"]["runDetails"]["builder"]["id"]
        # Making package URLs takes a library.
        uris = [each.pop("uri") for each in definition["resolvedDependencies"] if "gitCommit" not in each["digest"]]
        if not all(isinstance(uri, str) and uri.startswith("pkg:") for uri in uris):
            raise ValueError("a dependency without package URL")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Refused(f"{file}: expected SLSA provenance, found {error!r:.200}") from None
    version = re.escape(expected.bazel) if is_locked is True else r"[!-~]{1,100}"
    if not isinstance(is_locked, bool) or not isinstance(bazel, str) or not _is_bazel(bazel, version, is_locked):
        raise Refused(f"{file}: expected Bazel {expected.bazel}, or one that no lock pins, found {_shown(bazel)}")
    if by != builder.UNVERIFIED and by != (shown := identity()):
        raise Refused(f"{file}: expected the builder {builder.UNVERIFIED} or, as this job, {shown}, found {_shown(by)}")
    statement = provenance.statement(
        subjects,
        expected.locked,
        targets=provenance.TARGETS,
        options=options,
        version=expected.version,
        bazel=bazel,
        bazel_packages=expected.bazel_packages if is_locked else None,
        revision=expected.revision,
        builder=by,
        uri=lambda each: "",
    )
    for each in statement["predicate"]["buildDefinition"]["resolvedDependencies"]:
        each.pop("uri", None)
    _same(statement, found, file)


def _is_bazel(text: str, version: str, is_locked: bool) -> bool:
    return bool(re.fullmatch(rf"{version}([-+]\S{{0,100}})? sha256:[0-9a-f]{{64}}", text)) or (
        not is_locked and text == builder.UNVERIFIED
    )


# Bills of materials ----------------------------------------------------------------------------------------------


def _check_bills(
    dist: publish.Distribution, name: str, root: _Component, products: set[_Component], known: set[_Component]
) -> None:
    """Checks that both bills are about `root`, contain all products, and nothing that is neither in the locks nor a
    product.

    Args:
        name: "mlc_bazel", or that of an image.
        root: what they are about.
        products: what must be in them.
        known: what else may be in them.
    """
    for suffix, read in (("spdx.json", _spdx), ("cdx.json", _cyclonedx)):
        file = f"{name}.{suffix}"
        content = _json(dist, file)
        try:
            about, components = read(content, f"{name}-{root[1]}")
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise Refused(f"{file}: expected a bill of materials as sbom.py writes it, found {error!r:.200}") from None
        if about != root:
            raise Refused(f"{file}: expected {_named(root)}, found {_named(about)}")
        for each in components:
            if each != root and each not in known and each not in products:
                raise Refused(
                    f"{file}: expected what the locks pin and this release's wheels that fit, found {_named(each)}"
                )
        for each in products:
            if each not in components:
                raise Refused(f"{file}: expected {_named(each)} among its components, found no such")


def _named(component: _Component) -> str:
    name, version, sha256 = component
    return f"{name!r:.100} {version!r:.100} of sha256 {', '.join(sorted(sha256)) or 'none'}"[:500]


def _component(name: Any, version: Any, sha256: Iterable[Any]) -> _Component:
    digests = frozenset(sha256)
    if not all(isinstance(text, str) for text in (name, version, *digests)):
        raise TypeError(f"the component {name!r:.100}")
    return name, version, digests


def _spdx(content: Any, name: str) -> tuple[_Component, set[_Component]]:
    """What an SPDX document is about, and its packages."""
    if content["name"] != name:
        raise ValueError(f"the name {content['name']!r:.100}")
    packages = {
        each["SPDXID"]: _component(
            each["name"],
            each["versionInfo"],
            (_digest(sum["algorithm"], "SHA256", sum["checksumValue"]) for sum in each.get("checksums", [])),
        )
        for each in content["packages"]
    }
    if len(packages) != len(content["packages"]):
        raise ValueError("a package twice")
    (root,) = [
        each["relatedSpdxElement"] for each in content["relationships"] if each["relationshipType"] == "DESCRIBES"
    ]
    return packages[root], set(packages.values())


def _cyclonedx(content: Any, name: str) -> tuple[_Component, set[_Component]]:
    """What a CycloneDX document is about, and its components with their ancestors."""
    found: set[_Component] = set()

    def add(each: Any) -> _Component:
        hashes = (_digest(hash["alg"], "SHA-256", hash["content"]) for hash in each.get("hashes", []))
        component = _component(each["name"], each["version"], hashes)
        found.add(component)
        for other in (*each.get("components", []), *each.get("pedigree", {}).get("ancestors", [])):
            add(other)
        return component

    root = add(content["metadata"]["component"])
    for each in content.get("components", []):
        add(each)
    return root, found


def _digest(algorithm: str, expected: str, value: Any) -> Any:
    if algorithm != expected:
        raise ValueError(f"the algorithm {algorithm!r:.100}")
    return value


# Inputs and audit ------------------------------------------------------------------------------------------------


def _check_inputs(dist: publish.Distribution, expected: Expected) -> None:
    file = "inputs.json"
    content = _json(dist, file)
    try:
        found = [Input.from_json(each) for each in content["inputs"]]
        release = content["release"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Refused(f"{file}: expected inputs as inputs.py writes them, found {error!r:.200}") from None
    _same(f"v{expected.version}", release, f"{file}: release")
    if found != expected.locked:
        differing = [one for one, other in zip(found, expected.locked) if one != other]
        raise Refused(
            f"{file}: expected the {len(expected.locked)} inputs that the locks pin, found {len(found)}"
            + (f", among them {_shown(differing[0].name)}, which differs" if differing else "")
        )


def _check_audit(dist: publish.Distribution, images: Mapping[str, str], expected: Expected) -> None:
    content = _json(dist, publish.VULNERABILITIES)
    try:
        about = {"date": content["date"], "sources": content["sources"], "images": sorted(content["images"])}
    except (AttributeError, KeyError, TypeError) as error:
        raise Refused(
            f"{publish.VULNERABILITIES}: expected what vulnerabilities.py writes, found {error!r:.200}"
        ) from None
    _same({**expected.audit, "images": sorted(images)}, about, publish.VULNERABILITIES)
