"""The picture of an image: right numbers, one page that loads nothing, the same bytes each time, and one line if there
is none.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from oci import image_facts
from oci.layout import Image
from oci.registry_server import registry
from oci.report import pages, report
from tests.oci.html_pages import Page, assert_nothing_is_loaded
from tests.oci.layouts import write_layout

HOSTILE = "<script>alert('x')<b>&\"'.so"

# Runs the command with these arguments.
Run = Callable[..., subprocess.CompletedProcess[str]]

# Name → folder.
Layouts = dict[str, pathlib.Path]


@pytest.fixture
def layouts(tmp_path: pathlib.Path) -> Layouts:
    """An image `one`, and `two` with a layer more and other settings."""
    base = {
        "usr/lib/big.so": b"b" * 123_456,
        "usr/lib/copy.so": b"b" * 123_456,
        "etc/old": b"o" * 2_000,
        "var/lib/dpkg/status.d/dash": b"Package: dash\nVersion: 0.5\n",
        "var/lib/dpkg/status.d/dash.md5sums": b"0  usr/lib/big.so\n",
    }
    upper = {
        f"usr/lib/{HOSTILE}": b"h" * 7_000,
        "etc/.wh.old": b"",
        "var/lib/dpkg/status.d/dash": b"Package: dash\nVersion: 0.6\n",
    }
    labels = {"version": "1.0", "description": f"it's {HOSTILE}"}
    return {
        "one": write_layout(tmp_path / "layouts/one", [base], config={"User": "mlc"}, labels=labels),
        "two": write_layout(tmp_path / "layouts/two", [base, upper], config={"User": "root"}, labels=labels),
    }


@pytest.fixture
def run(layouts: Layouts, tmp_path: pathlib.Path) -> Run:
    """Runs the command as `bazel run` would, in tmp_path/user."""
    (tmp_path / "user").mkdir()

    def start(
        *arguments: str, skopeo: str = "/nonexistent/skopeo", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        fixed = [f"--layout={name}={folder}" for name, folder in layouts.items()] + [f"--skopeo={skopeo}"]
        environment = {
            **os.environ,
            "BUILD_WORKING_DIRECTORY": str(tmp_path / "user"),
            "PYTHONPATH": os.pathsep.join(sys.path),
            **variables,
        }
        command = [sys.executable, report.__file__, *fixed, *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return start


def facts(layouts: Layouts, name: str) -> image_facts.ImageFacts:
    return image_facts.read(name, Image(layouts[name]), {})


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (16_626_483, "16.6 MB"),
        (3 * 10**12, "3.0 TB"),
    ],
)
def test_sizes_have_the_unit_that_leaves_three_digits(count: int, text: str) -> None:
    assert pages.size(count) == text


def test_numbers(layouts: Layouts) -> None:
    image = facts(layouts, "two")
    page = Page(report.page(image))
    assert image.digest in page.text and "linux/amd64" in page.text
    assert [
        "1",
        "//image:layer0",
        f"{image.layers[0].compressed} B",
        "249 kB",
        "5",
        image.layers[0].digest[7:19],
    ] in page.rows
    assert [
        "2",
        "//image:layer1",
        f"{image.layers[1].compressed} B",
        "7.0 kB",
        "3",
        image.layers[1].digest[7:19],
    ] in page.rows
    assert ["dash", "0.6", "123 kB", ""] in page.rows
    assert ["1", "/usr/lib/big.so", "123 kB", ""] in page.rows
    assert ["123 kB", "1 /usr/lib/big.so 1 /usr/lib/copy.so"] in page.rows
    assert "2 files (2.0 kB) in lower layers that upper layers replace or remove" in page.text
    assert "Difference" not in page.text


def test_difference(layouts: Layouts) -> None:
    one, two = facts(layouts, "one"), facts(layouts, "two")
    page = Page(report.page(two, one))
    assert "Difference from one" in page.text and one.digest in page.text
    assert f"to pull on top of it {two.layers[1].compressed} B" in page.text
    state = {row[1]: row[0] for row in page.rows if row[0] in ("added", "removed", "shared", "changed")}
    assert state["//image:layer0"] == "shared" and state["//image:layer1"] == "added"
    assert ["user", "mlc", "root"] in page.rows
    assert ["changed", "Debian dash", "0.5 → 0.6", "±0"] in page.rows
    assert ["removed", "/etc/old", "−2.0 kB"] in page.rows
    assert ["changed", "/var/lib/dpkg/status.d/dash — content", "±0"] in page.rows
    assert state[f"/usr/lib/{HOSTILE}"] == "added"


def test_the_same_image_does_not_differ(layouts: Layouts) -> None:
    assert "The images are identical" in Page(report.page(facts(layouts, "one"), facts(layouts, "one"))).text


@pytest.mark.parametrize("other", [None, "one"])
def test_one_page_that_loads_nothing_whatever_files_are_called(layouts: Layouts, other: Any) -> None:
    html = report.page(facts(layouts, "two"), other and facts(layouts, other))
    assert_nothing_is_loaded(html)
    page = Page(html)
    assert f"/usr/lib/{HOSTILE}" in page.text
    assert f"it's {HOSTILE}" in page.text


def test_it_can_be_read_aloud(layouts: Layouts) -> None:
    elements = Page(report.page(facts(layouts, "two"), facts(layouts, "one"))).elements
    assert dict(elements)["html"] == {"lang": "en"}
    assert all("aria-label" in attributes for _, attributes in elements if attributes.get("role") == "img")
    assert sum(attributes.get("role") == "img" for _, attributes in elements) == 4
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in elements if tag == "th")
    names = {attributes["id"] for _, attributes in elements if "id" in attributes}
    assert all(attributes["aria-labelledby"] in names for tag, attributes in elements if tag == "section")


def test_the_same_image_gives_the_same_page(run: Run, tmp_path: pathlib.Path) -> None:
    pages = set()
    for seed in "12":
        done = run("--image=two", "--against=one", "--html", PYTHONHASHSEED=seed)
        assert (done.returncode, done.stderr) == (0, "")
        pages.add((tmp_path / "user/two.html").read_bytes())
    assert len(pages) == 1


def test_the_first_image_is_shown_where_the_user_is(run: Run, tmp_path: pathlib.Path) -> None:
    done = run("--html")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/user/one.html\n", "")
    assert "<h1>one " in (tmp_path / "user/one.html").read_text()


def test_against_a_folder(run: Run, layouts: Layouts, tmp_path: pathlib.Path) -> None:
    os.symlink(layouts["one"], tmp_path / "user/previous")
    assert run("--image=two", "--against=previous", "--html=page.html").returncode == 0
    assert "Difference from previous" in Page((tmp_path / "user/page.html").read_text()).text


def cells(line: str) -> list[str]:
    return re.split("  +", line.strip())


def test_tables_have_the_numbers_of_the_page(run: Run, layouts: Layouts, tmp_path: pathlib.Path) -> None:
    image = facts(layouts, "two")
    done = run("--image=two")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"two {image.digest}"
    rows = [cells(line) for line in lines]
    assert ["//image:layer0", f"{image.layers[0].compressed} B", "249 kB", "5"] in rows
    assert ["dash", "0.6", "Debian", "123 kB"] in rows
    assert ["/usr/lib/big.so", "layer0", "123 kB"] in rows
    assert ["/usr/lib/" + HOSTILE, "layer1", "7.0 kB"] in rows
    assert list((tmp_path / "user").iterdir()) == []


def test_tables_of_a_difference(run: Run) -> None:
    rows = [cells(line) for line in run("--image=two", "--against=one").stdout.splitlines()]
    assert [row[-1] for row in rows if row[0].startswith("//image:layer")] == ["shared", "added"]
    assert ["changed", "Debian dash", "0.5 → 0.6", "±0"] in rows
    assert ["removed", "/etc/old", "−2.0 kB"] in rows
    assert ["user", "mlc", "root"] in rows
    assert "The images are identical." in run("--image=two", "--against=two").stdout


def test_tables_contain_nothing_that_a_terminal_acts_on(run: Run, layouts: Layouts, tmp_path: pathlib.Path) -> None:
    hostile = "usr/\x1b[2Jname [red]x[/red] :smile:"
    layouts["hostile"] = write_layout(tmp_path / "layouts/hostile", [{hostile: b"h" * 999}])
    said = run("--image=hostile").stdout
    assert "\x1b" not in said and "/usr/\\x1b[2Jname [red]x[/red] :smile:" in said


@pytest.mark.parametrize("path", ["a" * 185 + "::error::pwned", ("::error::pwned " * 60).strip()])
def test_no_words_of_an_image_begin_a_line(run: Run, layouts: Layouts, tmp_path: pathlib.Path, path: str) -> None:
    """The runner of a workflow would take them for commands; lines that are broken were how."""
    parts = [path[begin : begin + 200] for begin in range(0, len(path), 200)]
    labels = {"description": path}
    layouts["hostile"] = write_layout(tmp_path / "layouts/hostile", [{"/".join(parts): b"h" * 999}], labels=labels)
    for arguments in (["--image=hostile"], ["--image=hostile", "--against=one"]):
        done = run(*arguments)
        assert (done.returncode, done.stderr) == (0, "") and "::error::pwned" in done.stdout
        assert not [line for line in done.stdout.splitlines() if re.match(r"\s*::", line)]


def test_an_output_that_takes_only_ascii(run: Run) -> None:
    done = run("--image=two", "--against=one", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "") and "0.5 \\u2192 0.6" in done.stdout


@pytest.fixture
def published(layouts: Layouts, tmp_path: pathlib.Path) -> Iterator[str]:
    """A registry that has image `one` as test/one:1.0; gives HOST:PORT."""
    (tmp_path / "registry").mkdir()
    with registry(os.environ["REGISTRY"], tmp_path / "registry") as port:
        target = f"docker://127.0.0.1:{port}/test/one:1.0"
        command = [
            os.path.abspath(os.environ["SKOPEO"]),
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            f"oci:{layouts['one']}",
            target,
        ]
        subprocess.run(command, check=True)
        yield f"127.0.0.1:{port}"


def test_against_a_tag_and_a_digest_in_a_registry(
    run: Run,
    layouts: Layouts,
    published: str,
    tmp_path: pathlib.Path,
) -> None:
    for reference in f"{published}/test/one:1.0", f"{published}/test/one@{facts(layouts, 'one').digest}":
        done = run("--image=two", f"--against={reference}", "--html=page.html", skopeo=os.environ["SKOPEO"])
        assert (done.returncode, done.stderr) == (0, "")
        page = Page((tmp_path / "user/page.html").read_text())
        assert f"Difference from {reference}" in page.text and facts(layouts, "one").digest in page.text
        assert "1 layer; 1 shared" in page.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image=three"], "--image three: expected an image of this build (one, two), found none of that name"),
        (["--against=/nonexistent"], "expected the name of an image of this build"),
        (
            ["--against=three"],
            (
                "--against three: expected the name of an image of this build, a folder with an OCI layout, or"
                " REGISTRY/NAME:TAG"
            ),
        ),
        (["--against=three:1.0"], "expected the name of an image of this build"),
        (["--against=library/three:1.0"], "expected the name of an image of this build"),
        (["--against=registry.example.org/three"], "expected the name of an image of this build"),
        (["--against=registry.example.org/Three:1.0"], "expected the name of an image of this build"),
        (["--against=registry.example.org/three@sha256:123"], "expected the name of an image of this build"),
        (["--against=registry.example.org/three:1.0"], "cannot start /nonexistent/skopeo: No such file or directory"),
        (["--against=."], ".: expected an OCI image layout in "),
        (
            ["--html=missing/page.html"],
            "missing/page.html: No such file or directory; name another file with --html",
        ),
        (["--html=."], "user: Is a directory; name another file with --html"),
    ],
)
def test_one_line_says_what_is_wrong(run: Run, arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("report: ") and done.stderr.count("\n") == 1
    assert message in done.stderr


def test_one_line_says_that_a_registry_does_not_give_it(run: Run, published: str) -> None:
    for reference, message in [
        (f"{published}/test/one:2.0", "manifest unknown"),
        (f"{published}/test/other:1.0", "manifest unknown"),
        ("127.0.0.1:1/test/one:1.0", "connection refused"),
    ]:
        done = run(f"--against={reference}", skopeo=os.environ["SKOPEO"])
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert (
            done.stderr.startswith(f"report: --against {reference}: skopeo could not pull it: ")
            and message in done.stderr
        )


def test_usage(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0 and "--against" in done.stdout and "--skopeo" not in done.stdout
    assert run("--unknown").returncode == 2
