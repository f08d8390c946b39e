"""Everything that ships brings the text of its licence: each component of each image and wheel, read from the very
files that are published.
"""

from __future__ import annotations

import os
import pathlib
import zipfile
from typing import Any

import pytest

from fetch import locks as inputs
from oci.layer import Layer
from oci.layout import Image, named_images
from release.private import licenses, sbom, stamp
from tests.oci.layouts import write_layout

LOCKED = inputs.load(inputs.by_name([pathlib.Path(path) for path in os.environ["LOCKS"].split()]))
IMAGES = {
    each: image
    # An index is in a folder with the image's name.
    for path in map(pathlib.Path, os.environ["IMAGES"].split())
    for each, image in named_images(path.name if path.name != "index" else path.parent.name, path).items()
}
MADE = {
    (made.distribution, made.abi, made.architecture): made
    for made in (inputs.Made.read(pathlib.Path(path)) for path in os.environ["MADE_OF"].split())
}
WHEELS = [stamp.artifact_file(pathlib.Path(path)) for path in os.environ["WHEELS"].split()]

SITE_PACKAGES = "usr/local/lib/python3.11/dist-packages"
BLOCK = "-" * 100


def version(ecosystem: str, name: str, set: str = "") -> str:
    return next(
        each.version
        for each in LOCKED
        if (each.ecosystem, each.name) == (ecosystem, name) and (not set or set in each.uses)
    )


# What is published.


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_every_component_of_an_image_has_its_text_in_the_image(name: str) -> None:
    image, wheels = IMAGES[name], [sbom.Wheel.read(path, MADE) for path in WHEELS]
    rows = licenses.rows_of_image(name, image, LOCKED, wheels)
    assert licenses.missing(rows) == []
    # Not one of its bill of materials is left out.
    bill = sbom.one_image(name, "0.1.0", LOCKED, wheels, image)
    listed = {(row.name, row.version) for row in rows}
    assert {(each.name, each.version) for each in bill.components.values() if each.id != bill.root} - listed == set()


@pytest.mark.parametrize("path", WHEELS, ids=lambda path: path.name.partition("-")[0])
def test_every_part_of_a_wheel_has_its_text_in_the_wheel(path: Any) -> None:
    rows = licenses.rows_of_wheel(path, LOCKED, MADE)
    assert licenses.missing(rows) == []
    assert {"dlpack", "parts of GCC's C++ library"} <= {row.name for row in rows}


def test_what_is_excused_needs_it() -> None:
    """A name in the lists of exceptions whose package brings a text by now is to be taken out of them."""
    rows = [row for path in WHEELS for row in licenses.rows_of_wheel(path, LOCKED, MADE)]
    crates = {each.name for each in LOCKED if each.ecosystem == inputs.CRATE}
    assert set(licenses.NOT_COMPILED) <= crates
    assert not [row.name for row in rows if row.name in licenses.NOT_COMPILED and row.texts]
    # The image with most of them has them all.
    found = max(
        (licenses.Texts.of_image(image) for image in IMAGES.values()), key=lambda texts: len(texts.distributions)
    )
    assert not [each for each in licenses.WITHOUT_TEXT if found.of_distribution(each)]


def test_notices_are_there() -> None:
    for path in WHEELS:
        with zipfile.ZipFile(path) as archive:
            assert [
                name
                for name in archive.namelist()
                if name.endswith(".dist-info/licenses/NOTICE")
                and b"Apache" in archive.read(name)
                or b"MLC" in archive.read(name)
            ]


def test_llvm_is_named_with_its_exceptions() -> None:
    paths = [path for path in WHEELS if path.name.startswith("apache_tvm-")]
    assert len(paths) == 2
    for path in paths:
        rows = {row.name: row for row in licenses.rows_of_wheel(path, LOCKED, MADE)}
        assert "LLVM Exceptions to the Apache 2.0 License" in rows["LLVM"].texts[0].content
        assert "Mark Adler" in rows["zlib"].texts[0].content


# Something is missing.


def files_of(name: str, **texts: str) -> dict[str, bytes]:
    """A distribution's files: METADATA and those of its .dist-info that are given ("/" is written "__")."""
    folder = f"{SITE_PACKAGES}/{name.replace('-', '_')}-{version(inputs.PYPI, name)}.dist-info"
    files = {
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version(inputs.PYPI, name)}\n".encode()
    }
    return files | {f"{folder}/{path.replace('__', '/')}": text.encode() for path, text in texts.items()}


def package(name: str, copyright: str = "") -> dict[str, bytes]:
    files = {
        f"var/lib/dpkg/status.d/{name}": (
            f"Package: {name}\nVersion: {version(inputs.DEBIAN, name, 'image_base')}\n".encode()
        )
    }
    return files | ({f"usr/share/doc/{name}/copyright": copyright.encode()} if copyright else {})


def rows(
    tmp_path: pathlib.Path, *contents: dict[str, bytes], links: dict[str, str] | None = None
) -> list[licenses.Row]:
    layer = Layer()
    for path, data in {path: data for content in contents for path, data in content.items()}.items():
        layer.add_file(path, data, "test")
    for path, target in (links or {}).items():
        layer.add_symlink(path, target, "test")
    return licenses.rows_of_image("small", Image(write_layout(tmp_path / "image", [layer])), LOCKED, [])


def test_a_debian_package_without_copyright_file_is_missing(tmp_path: pathlib.Path) -> None:
    found = rows(tmp_path, package("bash", "GPL"), package("coreutils"))
    assert [row.name for row in licenses.missing(found)] == ["coreutils"]
    with pytest.raises(
        licenses.LicensesError,
        match=(
            f"found none for coreutils {version(inputs.DEBIAN, 'coreutils', 'image_base')} in image small: keep its"
            " copyright"
        ),
    ):
        licenses.check(found)


def test_a_model_without_a_licence_is_missing(tmp_path: pathlib.Path) -> None:
    found = rows(tmp_path, {"models/a/mlc-chat-config.json": b"{}", "models/b/LICENSE": b"Terms", "models/b/x": b""})
    assert [(row.name, [text.content for text in row.texts]) for row in found] == [("a", []), ("b", ["Terms"])]
    assert [row.name for row in licenses.missing(found)] == ["a"]


@pytest.mark.parametrize(("target", "missing"), [("libc6", []), ("gone", ["libc-bin"])])
def test_a_link_to_the_documentation_of_another_package_is_followed(
    tmp_path: pathlib.Path, target: Any, missing: Any
) -> None:
    found = rows(tmp_path, package("libc6", "LGPL"), package("libc-bin"), links={"usr/share/doc/libc-bin": target})
    assert [row.name for row in licenses.missing(found)] == missing


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({"licenses__LICENSE": "MIT"}, False),
        ({"LICENCE.txt": "MIT"}, False),
        ({"licenses__LICENSE": " \n"}, True),
        ({"RECORD": "x"}, True),
    ],
)
def test_a_distribution_without_text_is_missing(tmp_path: pathlib.Path, files: Any, missing: Any) -> None:
    assert bool(licenses.missing(rows(tmp_path, files_of("requests", **files)))) == missing


def test_a_text_in_common_licenses_is_only_for_those_that_are_named(tmp_path: pathlib.Path) -> None:
    common = {"usr/share/common-licenses/Apache-2.0": b"Apache License"}
    found = rows(tmp_path, common, files_of("requests"), files_of("tokenizers"))
    assert [row.name for row in licenses.missing(found)] == ["requests"]


# Also where the build has no sources of mlc-llm.
MLC_LLM = inputs.Made(
    "mlc-llm",
    "",
    "amd64",
    (inputs.SOURCE, "mlc-llm"),
    frozenset({(inputs.SOURCE, "mlc-llm")}),
    inputs.Parts(
        frozenset((inputs.SOURCE, name) for name in ("mlc-llm", "sentencepiece", "tokenizers-cpp", "xgrammar")),
        frozenset({(inputs.CRATE, "tokenizers_cpp"), (inputs.DEBIAN, "cxx_headers")}),
    ),
)


def wheel(folder: pathlib.Path, linked: str) -> pathlib.Path:
    path = folder / "mlc_llm-0.20.0.dev0+mlc0.1.0.b0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {
            "METADATA": "Metadata-Version: 2.1\nName: mlc-llm\nVersion: 0.20.0.dev0+mlc0.1.0.b0\n",
            "licenses/LICENSE": "Apache",
            f"licenses/{licenses.LINKED}": linked,
        }.items():
            archive.writestr(f"mlc_llm-0.20.0.dev0+mlc0.1.0.b0.dist-info/{name}", text)
    return path


def test_a_crate_or_source_that_the_wheels_text_does_not_name_is_missing(tmp_path: pathlib.Path) -> None:
    itoa = f"itoa-{version(inputs.CRATE, 'itoa')}"
    named = (
        f"{BLOCK}\n{itoa}, xgrammar\n{BLOCK}\n\nMIT\n\n{BLOCK}\nstb (libstb-dev)\n{BLOCK}\n\npublic"
        f" domain\n\n{BLOCK}\nanother part\n{BLOCK}\n\nBSD\n"
    )
    found = licenses.rows_of_wheel(wheel(tmp_path, named), LOCKED, {("mlc-llm", "", "amd64"): MLC_LLM})
    lacking = {row.name for row in licenses.missing(found)}
    assert not lacking & {"mlc-llm", "itoa", "xgrammar", "libstb-dev", "another part", *licenses.NOT_COMPILED}
    assert {"tokenizers-cpp", "sentencepiece", "libmsgpack-cxx-dev", "serde"} <= lacking


# The page.


def test_the_page_has_each_component_once_with_all_places_and_each_text_once() -> None:
    text = licenses.Text("words of <MIT>")
    same = licenses.Text("words  of\n<MIT>")
    page = licenses.page(
        "0.1.0",
        [
            licenses.Row("one", "1", "MIT", "image a", (text,)),
            licenses.Row("one", "1", "MIT", "wheel b", (same,)),
            licenses.Row("two", "2", "MIT", "image a", (text,)),
        ],
    )
    assert page.count("words of &lt;MIT&gt;") == 1
    assert "image a, wheel b" in page and page.count(f'href="#{text.key}"') == 2 and page.count(f'id="{text.key}"') == 1
