"""Writes a bill of materials, of the whole build or of one image, as SPDX 2.3 and CycloneDX 1.6, both JSON.

    python3 -m release.private.sbom --locks FILE... --version VERSION --wheel FILE... --made-of FILE... \\
        --image NAME=LAYOUT... --spdx OUT --cyclonedx OUT
    python3 -m release.private.sbom … --only-image NAME

The whole build: the release contains its wheels and images; each image contains the packages found in its layers; every
other entry of the locks is a source of a wheel or a build tool. With --only-image: the content of that image's layers,
and the sources of its wheels.

An image's content is what its layers hold, not what they were meant to hold: Debian packages from
/var/lib/dpkg/status.d, Python distributions from *.dist-info/METADATA. A package that is in neither the locks nor the
wheels is an error.

Licences are those that the packages declare (fetch/licenses/update_licenses.py), not our conclusions. Equal content
gives equal bytes: the time is fixed, and serial number and namespace are UUIDs of the content.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import io
import json
import re
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component as CycloneDxComponent
from cyclonedx.model.component import ComponentScope, ComponentType, Pedigree
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.license import LicenseAcknowledgement, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from debian.deb822 import Deb822
from license_expression import get_spdx_licensing
from packageurl import PackageURL
from packaging.metadata import parse_email
from packaging.utils import canonicalize_name, parse_wheel_filename
from spdx_tools.spdx.model import (
    Actor,
    ActorType,
    Checksum,
    ChecksumAlgorithm,
    CreationInfo,
    ExternalPackageRef,
    ExternalPackageRefCategory,
    ExtractedLicensingInfo,
    Package,
    PackagePurpose,
    Relationship,
    RelationshipType,
    SpdxNoAssertion,
)
from spdx_tools.spdx.model import Document as SpdxDocument
from spdx_tools.spdx.writer.json.json_writer import write_document_to_stream

from fetch import locks as inputs
from fetch.arguments import named_path
from fetch.locks import Input, Made
from oci.layer import SOURCE_DATE_EPOCH
from oci.layout import Image, named_images
from release.private import stamp
from wheels.finished import processor_of

PROJECT = "mlc_bazel"
RELEASE = "release"

# Sets of locks/debian.packages.json that are image content; the others are tools.
_IMAGE_SETS = "image_"

_OF_BAZEL = "build tool (Bazel)"

_DEBIAN_RECORD = re.compile(r"var/lib/dpkg/status\.d/(?P<name>[^/]+)(?<!\.md5sums)")
_METADATA = re.compile(r"(?:.*/)?[^/]+\.dist-info/METADATA")
_PYTHON = re.compile(r"(?:^|/)python(\d)\.(\d+)/")
_RECORDS = re.compile(f"{_DEBIAN_RECORD.pattern}|{_METADATA.pattern}")

_CONTAINS, _GENERATED_FROM, _BUILD_TOOL_OF = (
    RelationshipType.CONTAINS,
    RelationshipType.GENERATED_FROM,
    RelationshipType.BUILD_TOOL_OF,
)


class SbomError(Exception):
    """The products do not match the locks; the message is one line that names the package and the fix."""


@dataclasses.dataclass(frozen=True)
class Component:
    """One line of a bill of materials.

    Args:
        id: unique in the document; letters, digits, "." and "-" (SPDX 2.3, 7.2).
        license: SPDX licence expression, or "" if none is declared.
        sha256: of its file or files, or of an image's manifest; lower-case hexadecimal.
        kind: CycloneDX's component type.
        shipped: whether it is a product or part of one.
        roles: its purposes, in words.
    """

    id: str
    name: str
    version: str
    purl: str = ""
    license: str = ""
    sha256: tuple[str, ...] = ()
    kind: ComponentType = ComponentType.LIBRARY
    shipped: bool = True
    roles: tuple[str, ...] = ()


@dataclasses.dataclass
class Bill:
    """A bill of materials, independent of a format.

    Args:
        name: the document's name.
        root: id of the component that it describes.
        components: by id.
        relations: (id, relation, id), as SPDX names relations (SPDX 2.3, 11.1).
    """

    name: str
    root: str
    components: dict[str, Component] = dataclasses.field(default_factory=dict)
    relations: set[tuple[str, RelationshipType, str]] = dataclasses.field(default_factory=set)

    def add(self, component: Component) -> str:
        assert component.id not in self.components, component.id
        self.components[component.id] = component
        return component.id

    def relate(self, one: str, relation: RelationshipType, other: str) -> None:
        self.relations.add((one, relation, other))

    @property
    def sorted_components(self) -> list[Component]:
        return [self.components[id] for id in sorted(self.components)]

    @property
    def sorted_relations(self) -> list[tuple[str, RelationshipType, str]]:
        return sorted(self.relations, key=lambda relation: (relation[0], relation[1].name, relation[2]))

    @property
    def uuid(self) -> uuid.UUID:
        """A UUID of the content."""
        relations = [(one, relation.name, other) for one, relation, other in self.sorted_relations]
        content = json.dumps(
            [self.name, self.root, [dataclasses.astuple(each) for each in self.sorted_components], relations]
        )
        return uuid.uuid5(uuid.NAMESPACE_URL, content)


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A wheel of this build; the local part of its version (+mlc…) distinguishes it from every wheel on an index."""

    file: str
    name: str
    version: str
    sha256: str
    made: Made

    @classmethod
    def read(cls, path: Path, made: Mapping[tuple[str, str, str], Made]) -> Wheel:
        """Reads a wheel.

        Args:
            path: the file, or a folder with nothing else in it.
            made: distribution, ABI and architecture → inputs of that wheel, as `locks.made_of` returns them.

        Raises:
            SbomError: `made` lacks it.
        """
        path = stamp.artifact_file(path)
        name, version, _, tags = parse_wheel_filename(path.name)
        [(abi, platform)] = {(tag.abi, tag.platform) for tag in tags}
        found = made.get((name, "" if abi == "none" else abi, processor_of(platform)))
        if not found:
            known = ", ".join(" ".join(filter(None, each)) for each in sorted(made))
            raise SbomError(
                f"{path.name}: expected what it is made of, found that of {known or 'nothing'}: pass its made_of with"
                " --made-of"
            )
        return cls(path.name, name, str(version), stamp.sha256(path).removeprefix("sha256:"), found)

    @property
    def id(self) -> str:
        """Its identifier in bills."""
        return _id("wheel", self.name, self.made.abi, *self.variant)

    @property
    def variant(self) -> tuple[str, ...]:
        """What tells it from the same wheel for amd64."""
        return () if self.made.architecture == "amd64" else (self.made.architecture,)


def _id(*parts: str) -> str:
    return "-".join(re.sub(r"[^A-Za-z0-9.-]", "-", part.replace("+", "-plus")) for part in parts if part)


def _input_id(locked: Input) -> str:
    return _id(locked.ecosystem, locked.suite, locked.name)


# What is there ---------------------------------------------------------------------------------------------------


def installed(image: Image) -> Iterator[tuple[str, str, str, str]]:
    """The packages that an image's layers hold.

    Yields:
        Ecosystem, name, version, and the path in the image that says so.
    """
    for number in range(len(image.layer_digests)):
        for path, entry, content in image.matching(number, _RECORDS):
            if not entry.isreg():
                continue
            if _DEBIAN_RECORD.fullmatch(path):
                fields = Deb822(content)
                # As the lock has it.
                architecture = fields.get("Architecture", "all")
                suffix = "" if architecture in ("all", "amd64") else f":{architecture}"
                yield inputs.DEBIAN, fields["Package"] + suffix, fields["Version"], path
            else:
                metadata, _ = parse_email(content)
                yield inputs.PYPI, canonicalize_name(metadata["name"]), metadata["version"], path


def contents(name: str, image: Image, locked: Iterable[Input], wheels: Iterable[Wheel]) -> list[Input | Wheel]:
    """An image's packages: the locked input of each, or the wheel of this build.

    Args:
        name: the image's name, for messages.

    Raises:
        SbomError: the image holds a package that is in neither the locks nor the wheels.
    """
    architecture = image.config.get("architecture", "amd64")
    known: dict[tuple[str, str, str], Input | Wheel] = {
        (each.ecosystem, each.name, each.version): each
        for each in locked
        if each.ecosystem == inputs.PYPI or any(use.startswith(_IMAGE_SETS) for use in each.uses)
    }
    built = {
        (each.name, each.version, each.made.abi): each for each in wheels if each.made.architecture == architecture
    }
    found: dict[str, Input | Wheel] = {}
    for ecosystem, package, version, path in installed(image):
        python = _PYTHON.search(path)
        for abi in ["", f"cp{python[1]}{python[2]}"] if python else [""]:
            if wheel := built.get((package, version, abi)):
                known[ecosystem, package, version] = wheel
        if ecosystem == inputs.PYPI and (ecosystem, other := f"{package}:{architecture}", version) in known:
            package = other
        if (ecosystem, package, version) not in known:
            lock = (
                f"an image set of locks/{inputs.DEBIAN_LOCK}"
                if ecosystem == inputs.DEBIAN
                else f"locks/{inputs.REQUIREMENTS_LOCK}"
            )
            raise SbomError(
                f"image {name}: /{path} is {package} {version}: expected that in {lock} or among the wheels of this"
                " build, found it in neither: lock it, or remove it from the image"
            )
        found[path] = known[ecosystem, package, version]
    return list(dict.fromkeys(found[path] for path in sorted(found)))


# Bills -----------------------------------------------------------------------------------------------------------


def whole_build(
    version: str, locked: list[Input], bazel: list[Input], wheels: list[Wheel], images: Mapping[str, Image]
) -> Bill:
    """The bill of all inputs and outputs of the build.

    Args:
        version: the release's version, without "v".
        locked: all inputs.
        bazel: what tools/bazel assembles Bazel from.
        wheels: the wheels of the build.
        images: name → image, for all images of the build.

    Raises:
        SbomError: an image holds an unknown package, or the locks have a package for images that no image holds.
    """
    bill = Bill(f"{PROJECT}-{version}", RELEASE)
    bill.add(Component(RELEASE, PROJECT, version, kind=ComponentType.APPLICATION))
    roles: dict[tuple[str, str, str], list[str]] = {each.identity: [] for each in locked}
    shipped = set()
    for name, image in sorted(images.items()):
        bill.relate(RELEASE, _CONTAINS, bill.add(_image_component(name, version, image)))
        for each in contents(name, image, locked, wheels):
            bill.relate(_id("image", name), _CONTAINS, each.id if isinstance(each, Wheel) else _input_id(each))
            if isinstance(each, Input):
                shipped.add(each.identity)
                roles[each.identity].append(f"in image {name}")
    for wheel in sorted(wheels, key=lambda each: each.id):
        bill.relate(RELEASE, _CONTAINS, _add_wheel(bill, wheel, locked))
        for source in wheel.made.sources(locked):
            roles[source.identity].append(f"source of wheel {wheel.name}")
    of_bazel = {each.purl: each for each in bazel}
    compiled = frozenset[tuple[str, str]]().union(*(wheel.made.content.sets for wheel in wheels))
    for each in locked:
        tool = [
            f"build tool ({use})"
            for use in each.uses
            if not use.startswith(_IMAGE_SETS) and (each.ecosystem, use) not in compiled
        ]
        if not tool and not each.uses and not roles[each.identity]:
            tool = ["build tool"]
        if of_bazel.pop(each.purl, None):
            tool.append(_OF_BAZEL)
        if tool:
            bill.relate(_input_id(each), _BUILD_TOOL_OF, RELEASE)
        all_roles = sorted(roles[each.identity]) + tool
        if not all_roles:
            raise SbomError(
                f"{each.name} {each.version}: locks/{inputs.DEBIAN_LOCK} has it for {', '.join(each.uses)}, and it is"
                f" in none of the images {', '.join(sorted(images)) or '(none)'}: pass every image with --image, or"
                " remove it from debian.packages.json"
            )
        bill.add(_input_component(each, all_roles, shipped=each.identity in shipped))
    for each in of_bazel.values():
        # Of another lock, so the same package may be in both, in two versions.
        part = _input_component(each, [_OF_BAZEL], shipped=False)
        bill.relate(bill.add(dataclasses.replace(part, id=f"bazel-{part.id}")), _BUILD_TOOL_OF, RELEASE)
    return bill


def one_image(name: str, version: str, locked: list[Input], wheels: list[Wheel], image: Image) -> Bill:
    """The bill of one image: the content of its layers, and the sources of its wheels.

    Raises:
        SbomError: the image holds a package that is in neither the locks nor the wheels.
    """
    bill = Bill(f"{name}-{version}", _id("image", name))
    bill.add(_image_component(name, version, image))
    found = contents(name, image, locked, wheels)
    for each in found:
        if isinstance(each, Wheel):
            bill.relate(bill.root, _CONTAINS, _add_wheel(bill, each, locked))
        else:
            bill.relate(bill.root, _CONTAINS, bill.add(_input_component(each, [f"in image {name}"], shipped=True)))
    sources: dict[Input, list[str]] = {}
    for wheel in (each for each in found if isinstance(each, Wheel)):
        for source in wheel.made.sources(locked):
            sources.setdefault(source, []).append(f"source of wheel {wheel.name}")
    for source, roles in sources.items():
        if source not in found:
            bill.add(_input_component(source, sorted(roles), shipped=False))
    return bill


def _image_component(name: str, version: str, image: Image) -> Component:
    # An artifact's configuration states no architecture.
    qualifiers = {"arch": image.config["architecture"]} if "architecture" in image.config else {}
    purl = PackageURL("oci", None, name, image.digest, qualifiers)
    sha256 = (image.digest.removeprefix("sha256:"),)
    return Component(
        _id("image", name), name, version, purl.to_string(), "", sha256, ComponentType.CONTAINER, roles=("product",)
    )


def _input_component(locked: Input, roles: list[str], *, shipped: bool) -> Component:
    return Component(
        _input_id(locked),
        locked.package,
        locked.version,
        locked.purl,
        locked.license,
        locked.sha256,
        ComponentType.MACHINE_LEARNING_MODEL if locked.ecosystem == inputs.MODEL else ComponentType.LIBRARY,
        shipped=shipped,
        roles=tuple(roles),
    )


def _add_wheel(bill: Bill, wheel: Wheel, locked: list[Input]) -> str:
    sources = wheel.made.sources(locked)
    license = next((each.license for each in sources if (each.ecosystem, each.name) == wheel.made.licensed_as), "")
    # Only a version without a local part can be on the index that the purl type stands for (PEP 440).
    purl = PackageURL("pypi", None, wheel.name, wheel.version, {"file_name": wheel.file}).to_string()
    id = bill.add(Component(wheel.id, wheel.name, wheel.version, purl, license, (wheel.sha256,), roles=("product",)))
    for source in sources:
        bill.relate(id, _GENERATED_FROM, _input_id(source))
    return id


# Formats ---------------------------------------------------------------------------------------------------------

_CREATED = datetime.datetime.fromtimestamp(SOURCE_DATE_EPOCH, datetime.UTC)

_PURPOSES = {
    ComponentType.APPLICATION: PackagePurpose.APPLICATION,
    ComponentType.CONTAINER: PackagePurpose.CONTAINER,
    ComponentType.LIBRARY: PackagePurpose.LIBRARY,
    # SPDX 2.3 has no purpose for models.
    ComponentType.MACHINE_LEARNING_MODEL: PackagePurpose.OTHER,
}


def spdx(bill: Bill) -> SpdxDocument:
    """The bill as an SPDX 2.3 document. Files are not analysed; only the package's hash is known."""
    licensing = get_spdx_licensing()

    def package(each: Component) -> Package:
        return Package(
            spdx_id=f"SPDXRef-{each.id}",
            name=each.name,
            version=each.version,
            # The locks name no download location, because each builder has different mirrors.
            download_location=SpdxNoAssertion(),
            files_analyzed=False,
            checksums=[Checksum(ChecksumAlgorithm.SHA256, sha256) for sha256 in each.sha256],
            license_concluded=SpdxNoAssertion(),
            license_declared=licensing.parse(each.license) if each.license else SpdxNoAssertion(),
            copyright_text=SpdxNoAssertion(),
            external_references=(
                [ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", each.purl)] if each.purl else []
            ),
            primary_package_purpose=_PURPOSES[each.kind],
            comment="; ".join(each.roles) or None,
        )

    return SpdxDocument(
        CreationInfo(
            spdx_version="SPDX-2.3",
            spdx_id="SPDXRef-DOCUMENT",
            name=bill.name,
            document_namespace=f"https://spdx.org/spdxdocs/{bill.name}-{bill.uuid}",
            creators=[Actor(ActorType.TOOL, PROJECT)],
            # The library writes a time without a zone as UTC.
            created=_CREATED.replace(tzinfo=None),
        ),
        packages=[package(each) for each in bill.sorted_components],
        relationships=[
            Relationship("SPDXRef-DOCUMENT", RelationshipType.DESCRIBES, f"SPDXRef-{bill.root}"),
            *(
                Relationship(f"SPDXRef-{one}", relation, f"SPDXRef-{other}")
                for one, relation, other in bill.sorted_relations
            ),
        ],
        extracted_licensing_info=list(_extracted(bill)),
    )


def _extracted(bill: Bill) -> Iterator[ExtractedLicensingInfo]:
    """SPDX 2.3, 10: every LicenseRef-… in use, and where its text is."""
    users: dict[str, set[str]] = {}
    for each in bill.components.values():
        for reference in re.findall(r"LicenseRef-[A-Za-z0-9.-]+", each.license):
            users.setdefault(reference, set()).add(each.name)
    for reference, names in sorted(users.items()):
        name = reference.removeprefix("LicenseRef-").removeprefix("debian-")
        yield ExtractedLicensingInfo(
            license_id=reference,
            license_name=name,
            extracted_text=(
                f"'{name}', as the package has it: in /usr/share/doc/<package>/copyright, or in its *.dist-info"
                " (Python)."
            ),
            comment=f"Used by {', '.join(sorted(names))}.",
        )


def spdx_json(bill: Bill) -> str:
    """The bill as SPDX 2.3 JSON."""
    stream = io.StringIO()
    write_document_to_stream(spdx(bill), stream)
    return stream.getvalue() + "\n"


def cyclonedx(bill: Bill) -> Bom:
    """The bill as a CycloneDX BOM: contained components are dependencies, a wheel's sources are ancestors (pedigree),
    tools are "excluded".
    """

    def component(each: Component, bom_ref: str, ancestors: Iterable[CycloneDxComponent] = ()) -> CycloneDxComponent:
        return CycloneDxComponent(
            type=each.kind,
            bom_ref=bom_ref,
            name=each.name,
            version=each.version,
            scope=(
                None if each.id == bill.root else ComponentScope.REQUIRED if each.shipped else ComponentScope.EXCLUDED
            ),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256) for sha256 in each.sha256],
            licenses=(
                [LicenseExpression(each.license, acknowledgement=LicenseAcknowledgement.DECLARED)]
                if each.license
                else []
            ),
            purl=PackageURL.from_string(each.purl) if each.purl else None,
            properties=[Property(name=f"{PROJECT}:role", value=role) for role in each.roles],
            pedigree=Pedigree(ancestors=ancestors) if ancestors else None,
        )

    ancestors: dict[str, list[CycloneDxComponent]] = {}
    children: dict[str, list[str]] = {id: [] for id in bill.components}
    for one, relation, other in bill.sorted_relations:
        if relation == _GENERATED_FROM:
            ancestors.setdefault(one, []).append(component(bill.components[other], f"{one}/from/{other}"))
        elif relation == _CONTAINS:
            children[one].append(other)
    rendered = {each.id: component(each, each.id, ancestors.get(each.id, ())) for each in bill.sorted_components}
    bom = Bom(serial_number=bill.uuid, components=[each for id, each in rendered.items() if id != bill.root])
    bom.metadata.component = rendered[bill.root]
    bom.metadata.timestamp = _CREATED
    bom.dependencies = [
        Dependency(rendered[id].bom_ref, (Dependency(rendered[child].bom_ref) for child in ids))
        for id, ids in children.items()
    ]
    return bom


def cyclonedx_json(bill: Bill) -> str:
    """The bill as CycloneDX 1.6 JSON."""
    return JsonV1Dot6(cyclonedx(bill)).output_as_string(indent=2) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    inputs.add_locks_argument(parser)
    inputs.add_made_of_arguments(parser)
    parser.add_argument("--version", required=True, help="the release's version, without v")
    parser.add_argument("--wheel", type=Path, action="append", default=[], help="a wheel of the build; repeated")
    parser.add_argument(
        "--image", type=named_path, action="append", default=[], metavar="NAME=LAYOUT", help="an OCI layout; repeated"
    )
    parser.add_argument(
        "--only-image", metavar="NAME", help="describe only this image (of an index NAME_amd64), not the whole build"
    )
    parser.add_argument("--spdx", type=Path, required=True, help="the SPDX document to write")
    parser.add_argument("--cyclonedx", type=Path, required=True, help="the CycloneDX document to write")
    arguments = parser.parse_args()
    try:
        locked, made = inputs.load_available(arguments), inputs.made_of(arguments)
        bazel = inputs.bazel(inputs.path(inputs.by_name(arguments.locks), inputs.BAZEL_LOCK))[1]
        wheels = [Wheel.read(path, made) for path in arguments.wheel]
        images = {name: image for of, layout in arguments.image for name, image in named_images(of, layout).items()}
        if arguments.only_image and arguments.only_image not in images:
            given = ", ".join(images) or "(none)"
            raise SbomError(
                f"--only-image {arguments.only_image}: expected one of the images {given}: pass it with --image"
            )
        if arguments.only_image:
            bill = one_image(arguments.only_image, arguments.version, locked, wheels, images[arguments.only_image])
        else:
            bill = whole_build(arguments.version, locked, bazel, wheels, images)
    except (inputs.InputsError, SbomError, OSError, ValueError) as error:
        print(f"sbom: {error}", file=sys.stderr)
        return 1
    arguments.spdx.write_text(spdx_json(bill), encoding="utf-8")
    arguments.cyclonedx.write_text(cyclonedx_json(bill), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
