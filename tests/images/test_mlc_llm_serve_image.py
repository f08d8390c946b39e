"""What the images that only serve hold, besides what test_every_image.py says."""

from __future__ import annotations

import io
import posixpath
import re

import pytest
from elftools.elf.elffile import ELFFile

from tests.images.image_promises import SITE_PACKAGES, image

SERVE, DEBUG = "mlc_llm_serve", "mlc_llm_serve_debug"

# Compressed, in bytes.
SIZE_LIMIT = 60_000_000

SHELLS = r"^usr/s?bin/(ba|da|z|k)?sh$|busybox"


def test_it_is_no_larger_than_it_may_be() -> None:
    assert sum(layer["size"] for layer in image(SERVE).manifest["layers"]) <= SIZE_LIMIT


def test_no_compilers_tests_shells_or_installers() -> None:
    patterns = {
        "compilers": r"libtvm_compiler|/libLLVM|/tvm/relax/|^usr/bin/([^/]*-)?(cc|gcc|g\+\+|ld|as)$",
        "headers and sources": r"\.(h|hpp|c|cc|cu|pxd|a)$",
        "tests": r"/tests?/|(^|/)pytest(/|$)|^tests/(?!mlc_llm(/tiny(\.so|/.*)?)?$)",
        "shells": SHELLS,
        "installers": r"/(pip|setuptools|ensurepip)/|^usr/bin/(apt|dpkg)",
        "character sets of iconv": r"/gconv/",
        "the engine a second time": r"/libmlc_llm_module\.so$",
    }
    for what, pattern in patterns.items():
        assert [path for path in image(SERVE).files if re.search(pattern, path)] == [], what


def test_the_only_programs_are_python_and_ours() -> None:
    assert {
        posixpath.basename(path)
        for path, file in image(SERVE).files.items()
        if posixpath.dirname(path) in ("usr/bin", "usr/sbin", "usr/local/bin") and not file.entry.isdir()
    } == {
        "entrypoint",
        "mlc_llm",
        "python",
        "python3",
        "python3.11",
        "serve",
        "smoke",
        "tini",
    }


def test_every_library_that_is_needed_is_there() -> None:
    files = image(SERVE).files
    names = {posixpath.basename(path) for path in files}
    missing = {}
    for path, file in files.items():
        if not file.entry.isreg() or not file.data.startswith(b"\x7fELF"):
            continue
        dynamic = ELFFile(io.BytesIO(file.data)).get_section_by_name(".dynamic")
        needed = [tag.needed for tag in dynamic.iter_tags() if tag.entry.d_tag == "DT_NEEDED"] if dynamic else []
        if lacking := [name for name in needed if name not in names]:
            missing[path] = lacking
    assert missing == {}


def test_the_debug_image_only_adds_a_layer_with_a_shell() -> None:
    served, debug = image(SERVE).layer_digests, image(DEBUG).layer_digests
    assert debug[:-1] == served
    assert image(DEBUG).resolve("bin/sh") == "usr/bin/dash"


@pytest.mark.parametrize("name", [SERVE, DEBUG])
def test_every_command_has_its_interpreter(name: str) -> None:
    scripts = {
        path: re.match(rb"#! *(/\S+)", file.data)
        for path, file in image(name).files.items()
        if file.entry.isreg() and posixpath.dirname(path) in ("usr/bin", "usr/sbin", "usr/local/bin")
    }
    interpreters = {path: found[1].decode().lstrip("/") for path, found in scripts.items() if found}
    assert len(interpreters) >= 4
    assert [path for path, each in interpreters.items() if image(name).resolve(each) is None] == []


def test_it_has_mlc_llm_and_the_licences_of_what_it_carries() -> None:
    for distribution in ("apache_tvm-", "apache_tvm_ffi-", "mlc_llm-", "numpy-"):
        found = [path for path in image(SERVE).files if path.startswith(f"{SITE_PACKAGES}/{distribution}")]
        assert any("/licenses/" in path or "LICENSE" in path for path in found), distribution
