"""Links and anchors are read as GitHub renders them, and lead to the right pages of the site."""

from __future__ import annotations

import pytest

from docs import build_site, pages

PLACES = {
    "README.md": "index.md",
    "docs/users/README.md": "users/README.md",
    "docs/floors.svg": "floors.svg",
    "wheels/README.md": "rooms/wheels.md",
    "wheels/defs.bzl": "reference/wheels.md",
}


def targets(text: str) -> list[str]:
    return [link.target for link in pages.links(text)]


def test_links_and_images_are_found_with_their_lines() -> None:
    found = list(pages.links("# Title\n\n[one](a.md) and ![two](b.svg)\n[`code`](c.md#d)\n"))
    assert [(link.target, link.line) for link in found] == [("a.md", 3), ("b.svg", 3), ("c.md#d", 4)]
    assert (found[2].path, found[2].anchor) == ("c.md", "d")


@pytest.mark.parametrize(
    "text",
    [
        "`[a](b)`",
        "    [a](b)",
        "```\n[a](b)\n```\n",
        "~~~ python\n[a](b)\n```\n[a](b)\n~~~\n",
        "``[a](b) ` ``",
    ],
)
def test_code_has_no_links(text: str) -> None:
    assert targets(text) == []


def test_what_follows_code_has_links() -> None:
    assert targets("```\n[a](b)\n```\n[c](d)\n") == ["d"]
    assert targets("`x` [c](d) `y`") == ["d"]


@pytest.mark.parametrize(
    ("target", "external"),
    [("https://example.org", True), ("mailto:a@example.org", True), ("a.md", False), ("#b", False)],
)
def test_external_links_have_a_scheme(target: str, external: bool) -> None:
    (link,) = pages.links(f"[a]({target})")
    assert link.is_external is external


@pytest.mark.parametrize(
    ("heading", "slug"),
    [
        ("Build id", "build-id"),
        ("Symptom → cause", "symptom--cause"),
        ("Why pip cannot mix them: `a_b`", "why-pip-cannot-mix-them-a_b"),
        ("[Keep](https://example.org) 1.1", "keep-11"),
    ],
)
def test_anchors_are_those_of_github(heading: str, slug: str) -> None:
    assert pages.anchors(f"# {heading}\n") == {slug}


def test_repeated_headings_are_numbered_and_comments_in_code_are_none() -> None:
    assert pages.anchors("## A\n\n## A\n\n    # B\n\n```\n# C\n```\n") == {"a", "a-1"}


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("README.md", "index.md"),
        ("CONTRIBUTING.md", "rooms/contributing.md"),
        ("docs/users/README.md", "users/README.md"),
        ("toolchains/cuda/README.md", "rooms/toolchains-cuda.md"),
        ("tests/gpu/RESULTS.md", "rooms/tests-gpu-results.md"),
    ],
)
def test_each_page_has_a_place_in_the_site(path: str, place: str) -> None:
    assert build_site.place(path) == place


@pytest.mark.parametrize(
    ("page", "before", "after"),
    [
        ("README.md", "[w](wheels/README.md#tag)", "[w](rooms/wheels.md#tag)"),
        ("README.md", "[w](wheels)", "[w](rooms/wheels.md)"),
        ("docs/users/README.md", "[w](../../wheels/README.md)", "[w](../rooms/wheels.md)"),
        ("docs/users/README.md", "![f](../floors.svg)", "![f](../floors.svg)"),
        (
            "wheels/README.md",
            "[`defs`](defs.bzl), [top](../README.md)",
            "[`defs`](../reference/wheels.md), [top](../index.md)",
        ),
        ("wheels/README.md", "see [`a.py`](a.py) and [b](https://b.org)", "see `a.py` and [b](https://b.org)"),
        ("wheels/README.md", "[here](#tag)", "[here](#tag)"),
        # mkdocs names what leads to no page or picture, and fails.
        ("wheels/README.md", "![gone](gone.svg)", "![gone](gone.svg)"),
        ("wheels/README.md", "[gone](gone.md)", "[gone](gone.md)"),
    ],
)
def test_links_lead_to_the_places_of_pages(page: str, before: str, after: str) -> None:
    assert build_site.rewritten(page, before, PLACES) == after
