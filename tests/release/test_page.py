"""The release page and the notes say what is in a release, how to verify it, what it passed and what changed; untested
files get none.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pathlib
import subprocess
import sys
from typing import Any
from urllib.parse import quote

import pytest

from oci.report import pages
from release.private import page, stamp
from tests.oci.html_pages import Page, assert_nothing_is_loaded
from tests.oci.layouts import write_layout

HOSTILE = "<script>x | *y*"


def entry(ecosystem: str, name: str, version: str, sha256: str = "1", license: str = "MIT", suite: str = "") -> dict:
    return {
        "ecosystem": ecosystem, "name": name, "version": version, "sha256": [sha256 * 64], "license": license,
        "purl": f"pkg:{ecosystem}/{name}@{version}", "uses": [], "suite": suite,
    }  # fmt: skip


BEFORE = [
    entry("debian", "bash", "5.1", suite="bullseye"),
    entry("debian", "bash", "5.2", suite="bookworm"),
    entry("debian", "gone", "1.0", suite="bookworm"),
    entry("pypi", "numpy", "2.0", license="BSD-3-Clause"),
    entry("pypi", "pytest", "9.0"),
    entry("source", "tilelang", "0.1"),
]

NOW = [
    entry("crate", "syn", "3.0.1", suite="3"),
    entry("model", "checkpoint", "3" * 40),
    entry("debian", "bash", "5.1.1", suite="bullseye"),
    entry("debian", "bash", "5.3", "2", suite="bookworm"),
    entry("debian", "new", HOSTILE, suite="bookworm"),
    entry("pypi", "numpy", "2.0", "3", license="BSD-3-Clause"),
    entry("pypi", "pytest", "9.0", license="Apache-2.0"),
    entry("source", "tilelang", "0.1"),
]

TESTS = [{"label": "//tests/runtime:tensors", "tests": 23}, {"label": "//tests/images:image", "tests": 1200}]

KNOWN = {
    "date": "2026-11-24",
    "sources": {"Debian:12": ["Debian's security archive", "OSV"], "PyPI": ["OSV"]},
    "images": {
        name: {
            "components": 81,
            "unchecked": {"crates": 30, "GIT": 4},
            "severities": {"critical": 0, "high": 1, "medium": 22, "low": 3, "none": 0, "unknown": 5},
            "vulnerabilities": [],
        }
        for name in ("small", "large")
    },
}


class Release:
    """The files that a page is made of."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.wheels = [
            folder / f"{name}.whl"
            for name in (
                "thing-1.0+mlc-py3-none-any",
                "other-2.0-py3-none-any",
                "other-2.0-py3-none-linux_aarch64",
                "native-1.0-cp310-cp310-any",
                "native-1.0-cp314-cp314t-any",
            )
        ]
        for wheel in self.wheels:
            # As often as it takes for the order of the sums not to be that of the names.
            wheel.write_bytes(wheel.name.encode() * 1001)
        base = {"a": b"a" * 5000}
        labels = {"description": HOSTILE}
        self.images = [
            write_layout(folder / "small", [base], labels=labels),
            write_layout(folder / "large", [base, {"b": b"b" * 9000}]),
        ]
        self.write(
            "gate.json",
            {"artifacts": {path.name: stamp.describe(path) for path in [*self.wheels, *self.images]}, "tests": TESTS},
        )
        self.write("inputs.json", {"release": "v0.2.0", "inputs": NOW})
        self.write("previous.json", {"release": "v0.1.0", "inputs": BEFORE})
        self.write("vulnerabilities.json", KNOWN)

    def write(self, name: str, content: dict) -> None:
        (self.folder / name).write_text(json.dumps(content))

    def run(self, *options: str, **variables: str) -> subprocess.CompletedProcess:
        command = [sys.executable, page.__file__, "--version=0.2.0", *options]
        command += [f"--wheel={wheel}" for wheel in self.wheels] + [
            f"--image={image.name}={image}" for image in self.images
        ]
        command += [
            f"--{option}={self.folder / option}.json" for option in ("inputs", "previous", "gate", "vulnerabilities")
        ]
        command += [f"--html={self.folder / 'index.html'}", f"--notes={self.folder / 'notes.md'}"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    def pages(self, *options: str) -> tuple[str, str]:
        """The page and the notes, made."""
        done = self.run(*options)
        assert (done.returncode, done.stderr) == (0, "")
        return (self.folder / "index.html").read_text(), (self.folder / "notes.md").read_text()


@pytest.fixture
def release(tmp_path: pathlib.Path) -> Release:
    return Release(tmp_path)


def test_what_is_in_it(release: Release) -> None:
    html, notes = release.pages()
    shown = Page(html)
    assert "Release v0.2.0" in shown.text and "unstamped" in shown.text and "`unstamped`" in notes
    for wheel in release.wheels:
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        size = f"{wheel.stat().st_size / 1000:.1f} kB"
        assert [wheel.name, size, digest] in shown.rows
        assert f"| `{wheel.name}` | {size} | `{digest}` |" in notes
    for image, unpacked, layers in zip(release.images, ("5.0 kB", "14.0 kB"), (1, 2)):
        digest = stamp.image_digest(image)
        manifest = json.loads((image / "blobs" / digest.replace(":", "/")).read_text())
        compressed = sum(layer["size"] for layer in manifest["layers"])
        assert f"{image.name} {compressed} B {unpacked} unpacked" in shown.text
        assert f"| `{image.name}` | {compressed} B | {unpacked} | {layers} | `{digest}` |" in notes
    assert f"A machine that has small pulls {manifest['layers'][1]['size']} B more." in shown.text


def test_how_to_install_and_verify_it(release: Release) -> None:
    html, notes = release.pages()
    shown = Page(html)
    small = f"REGISTRY/small@{stamp.image_digest(release.images[0])}"
    for command in (
        f"podman pull {small}",
        "cosign verify --key cosign.pub --insecure-ignore-tlog=true -a repository=REGISTRY/small -a tag=0.2.0 -a"
        f" version=0.2.0 {small}",
        "cosign verify-blob --key cosign.pub --insecure-ignore-tlog=true --signature SHA256SUMS.sig SHA256SUMS",
        "sha256sum -c SHA256SUMS",
    ):
        assert command in shown.text
        assert f"\n    {command}\n" in notes
    assert (
        "On x86-64: pip install --find-links . \\ ./other-2.0-py3-none-any.whl \\ ./thing-1.0+mlc-py3-none-any.whl On"
        " arm64: pip install --find-links . \\ ./other-2.0-py3-none-linux_aarch64.whl The"
    ) in shown.text
    assert (
        "\nOn x86-64:\n\n    pip install --find-links . ./other-2.0-py3-none-any.whl ./thing-1.0+mlc-py3-none-any.whl\n"
        in notes
    )
    assert "\nOn arm64:\n\n    pip install --find-links . ./other-2.0-py3-none-linux_aarch64.whl\n" in notes
    for text in (shown.text, notes):
        assert "The wheels need CPython 3.10 to 3.14 on Linux; the images bring theirs." in text
    links = [attributes["href"] for tag, attributes in shown.elements if tag == "a"]
    assert links == [quote(wheel.name) for wheel in sorted(release.wheels)] + ["vulnerabilities.json"]


def test_which_tests_it_passed(release: Release) -> None:
    html, notes = release.pages()
    shown = Page(html)
    assert "1,223 test cases in 2 targets" in shown.text
    assert ["//tests/runtime:tensors", "23"] in shown.rows and ["//tests/images:image", "1200"] in shown.rows
    assert "1,223 test cases in 2 targets" in notes and "`//tests/runtime:tensors` (23)" in notes


def test_its_known_vulnerabilities(release: Release) -> None:
    html, notes = release.pages()
    shown = Page(html)
    for name in ("small", "large"):
        assert [name, "81", "34", "0", "1", "22", "3", "0", "5"] in shown.rows
        assert f"\n| `{name}` | 81 | 34 | 0 | 1 | 22 | 3 | 0 | 5 |\n" in notes
    assert "audit of 2026-11-24: Debian:12 from Debian's security archive and OSV, PyPI from OSV." in shown.text
    assert "audit of `2026-11-24`" in notes
    release.write("vulnerabilities.json", KNOWN | {"sources": {}})
    assert "without any data." in Page(release.pages()[0]).text


def test_what_changed(release: Release) -> None:
    html, notes = release.pages()
    shown = Page(html)
    assert "compared with v0.1.0" in shown.text and "Compared with `v0.1.0`" in notes
    changed = [row for row in shown.rows if row[0] in ("added", "removed", "updated")]
    assert changed == [
        ["updated", "bookworm/bash", "5.2 → 5.3"],
        ["updated", "bullseye/bash", "5.1 → 5.1.1"],
        ["removed", "bookworm/gone", "1.0"],
        ["added", "bookworm/new", HOSTILE],
        ["updated", "numpy", "2.0, other files"],
        ["updated", "pytest", "licence MIT → Apache-2.0"],
        ["added", "3/syn", "3.0.1"],
        ["added", "checkpoint", "3" * 40],
    ]
    assert "8 changed since v0.1.0" in shown.text
    assert "Sources No change." in shown.text
    assert [
        line
        for line in notes.splitlines()
        if line.startswith(("### ", "| updated", "| removed", "| added", "No change"))
    ] == [
        "### Debian packages",
        "| updated | `bookworm/bash` | `5.2 → 5.3` |",
        "| updated | `bullseye/bash` | `5.1 → 5.1.1` |",
        "| removed | `bookworm/gone` | `1.0` |",
        "| added | `bookworm/new` | `<script>x \\| *y*` |",
        "### Python distributions",
        "| updated | `numpy` | `2.0, other files` |",
        "| updated | `pytest` | `licence MIT → Apache-2.0` |",
        "### Sources",
        "No change.",
        "### Rust crates",
        "| added | `3/syn` | `3.0.1` |",
        "### Models",
        f"| added | `checkpoint` | `{'3' * 40}` |",
    ]


def test_the_first_release(release: Release) -> None:
    release.write("previous.json", {"release": None, "inputs": []})
    html, notes = release.pages()
    for text in Page(html).text, notes:
        assert "This is the first release: there is nothing to compare with." in text
    assert not [row for row in Page(html).rows if row[0] in ("added", "removed", "updated")]
    assert "bookworm/new" not in notes


def test_many_changes_are_cut_in_the_notes_and_complete_on_the_page(release: Release) -> None:
    many = [entry("pypi", f"package{number:03}", "1") for number in range(150)]
    release.write("inputs.json", {"release": "v0.2.0", "inputs": BEFORE + many})
    html, notes = release.pages()
    assert sum(row[0] == "added" for row in Page(html).rows) == 150
    assert notes.count("| added |") == 100 and "and 50 more changes: see `index.html`." in notes


def test_licences(release: Release) -> None:
    html, notes = release.pages()
    assert [row for row in Page(html).rows if row[0] in ("MIT", "BSD-3-Clause", "Apache-2.0")] == [
        ["MIT", "6"],
        ["Apache-2.0", "1"],
        ["BSD-3-Clause", "1"],
    ]
    assert notes.endswith("* `MIT`: 6\n* `Apache-2.0`: 1\n* `BSD-3-Clause`: 1\n")
    assert "8 inputs: 3 Debian packages, 2 Python distributions, 1 Sources, 1 Rust crates, 1 Models" in Page(html).text


def test_one_page_that_loads_nothing_whatever_versions_are_called(release: Release) -> None:
    html, _ = release.pages()
    assert_nothing_is_loaded(html)
    assert HOSTILE in Page(html).text


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("@team www.evil.example ~~gone~~ &lt;b&gt; [x](y)", "`@team www.evil.example ~~gone~~ &lt;b&gt; [x](y)`"),
        ("a`b``c", "```a`b``c```"),
        ("`a", "`` `a ``"),
        ("a|b", "`a\\|b`"),
        ("a\n\n## b\x1b", "`a ## b\\x1b`"),
        ("", ""),
    ],
)
def test_values_in_the_notes_are_code(text: str, span: str) -> None:
    assert pages.cell(text) == span


def test_nothing_from_the_locks_is_a_link_or_a_mention(release: Release) -> None:
    hostile = "@team www.evil.example ~~gone~~"
    release.write("inputs.json", {"release": "v0.2.0", "inputs": [entry("pypi", hostile, hostile, license=hostile)]})
    _, notes = release.pages()
    assert notes.count(f"`{hostile}`") == notes.count(hostile) == 3


def test_notes_are_markdown_tables(release: Release) -> None:
    _, notes = release.pages()
    lines = notes.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("|") and not lines[number - 1].startswith("|"):
            assert lines[number - 1] == "" and lines[number + 1].startswith("|---"), line
    assert "{{" not in notes and "\n\n\n\n" not in notes


def test_the_same_release_gives_the_same_files(release: Release) -> None:
    first = release.pages()
    release.wheels.reverse()
    assert release.run(PYTHONHASHSEED="7").returncode == 0
    assert ((release.folder / "index.html").read_text(), (release.folder / "notes.md").read_text()) == first


def test_a_stamped_release_names_its_commit(release: Release) -> None:
    (release.folder / "status.txt").write_text("STABLE_REVISION 0123abc\n")
    html, notes = release.pages(f"--status={release.folder / 'status.txt'}")
    assert "revision 0123abc" in Page(html).text and "Revision: `0123abc`" in notes


def test_what_was_not_tested_gets_no_page(release: Release) -> None:
    release.wheels[0].write_bytes(b"other bytes")
    done = release.run()
    assert (
        done.returncode == 1
        and done.stderr.startswith(f"page: {release.wheels[0].name}: the tests passed on sha256:")
        and done.stderr.count("\n") == 1
    )
    assert not (release.folder / "index.html").exists()


def test_an_image_that_was_not_tested_gets_no_page(release: Release) -> None:
    gate = json.loads((release.folder / "gate.json").read_text())
    del gate["artifacts"]["large"]
    release.write("gate.json", gate)
    done = release.run()
    assert done.returncode == 1 and "large: the tests passed on nothing of that name" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "inputs.json",
            {"release": "v0.2.0"},
            "inputs.json: expected inputs as fetch/locks.py writes them, found KeyError('inputs')",
        ),
        (
            "previous.json",
            {"release": "v0.1.0", "inputs": [{"name": "numpy"}]},
            "previous.json: expected inputs as fetch/locks.py writes them",
        ),
        ("previous.json", {"release": "v0.1.0", "inputs": [{**copy.deepcopy(BEFORE[0]), "colour": "red"}]}, "colour"),
        (
            "previous.json",
            {"release": "v0.1.0\n\n## Notice", "inputs": BEFORE},
            "the release 'v0.1.0\\\\n\\\\n## Notice'",
        ),
        ("previous.json", {"release": "v0.1.0\n", "inputs": BEFORE}, "the release 'v0.1.0"),
        ("previous.json", {"release": 1, "inputs": BEFORE}, "previous.json: expected inputs"),
    ],
)
def test_one_line_says_what_is_wrong(release: Release, name: str, content: Any, message: str) -> None:
    release.write(name, content)
    done = release.run()
    assert (
        done.returncode == 1
        and message in done.stderr
        and done.stderr.startswith("page: ")
        and done.stderr.count("\n") == 1
    )


def test_a_file_that_is_not_there_is_named(release: Release) -> None:
    (release.folder / "gate.json").unlink()
    done = release.run()
    assert done.returncode == 1 and "gate.json" in done.stderr and done.stderr.count("\n") == 1
