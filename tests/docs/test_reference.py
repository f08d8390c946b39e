"""The reference has every public name of a Starlark file, with the text of its docstring and arguments."""

from __future__ import annotations

import pytest

from docs import reference

FILES = {
    "part/defs.bzl": '''
"""Rules of a part."""

load("@rules//:defs.bzl", "other")
load("//part/private:rule.bzl", "ATTRS", _made = "made")
load(":extension.bzl", "extension")

# Where it goes.
# Two lines.
PLACE = "usr"

_HIDDEN = "no"

made = _made

thing = rule(
    implementation = _HIDDEN,
    doc = """A thing named <name>.

    Example:

        thing(name = "a<b>")
    """,
    attrs = {
        "srcs": attr.label_list(mandatory = True, doc = "Files | sources."),
        "_tool": attr.label(doc = "Private."),
    } | ATTRS,
)

def wrapper(name, mode = "fast", **kwargs):
    """Wraps a thing. Says so.

    Args:
        name: the target.
        mode: how; one of
            two.
        **kwargs: the rest.

    Returns:
        Nothing.
    """

def compute(value):
    """Computes."""

def _private(value):
    pass
''',
    "part/private/rule.bzl": '''
"""Private rule."""

_TEXT = "Shared " + "text."

ATTRS = {"more": attr.string(doc = _TEXT)}

made = repository_rule(implementation = None, doc = "Makes a repository.", attrs = ATTRS)
''',
    "part/extension.bzl": '''
"""Module extension `extension`.

Use it.
"""

load("//part/private:rule.bzl", "ATTRS")

_tag = tag_class(doc = "A tag.", attrs = {"name": attr.string(mandatory = True)} | ATTRS)

extension = module_extension(implementation = None, tag_classes = {"tag": _tag})

Info = provider("What is known.", fields = {"path": "Where."})
''',
}


def entries(path: str) -> dict[str, reference.Entry]:
    return {entry.name: entry for entry in reference.Starlark(path, FILES.__getitem__).entries()}


def test_public_names_are_in_the_order_of_the_file_and_private_ones_are_not_there() -> None:
    assert [(entry.name, entry.kind) for entry in entries("part/defs.bzl").values()] == [
        ("PLACE", "constant"),
        ("made", "repository rule"),
        ("thing", "rule"),
        ("wrapper", "macro"),
        ("compute", "function"),
    ]


def test_a_constant_has_the_comment_above_it() -> None:
    assert entries("part/defs.bzl")["PLACE"].doc == "Where it goes.\nTwo lines."


def test_a_rule_has_its_attributes_also_those_of_another_file() -> None:
    assert entries("part/defs.bzl")["thing"].arguments == {"srcs": "Files | sources. Required.", "more": "Shared text."}


def test_a_loaded_rule_is_described_where_it_is_defined() -> None:
    made = entries("part/defs.bzl")["made"]
    assert (made.doc, made.arguments) == ("Makes a repository.", {"more": "Shared text."})


def test_a_macro_has_its_signature_and_arguments() -> None:
    wrapper = entries("part/defs.bzl")["wrapper"]
    assert wrapper.signature == "wrapper(name, mode='fast', **kwargs)"
    assert wrapper.arguments == {"name": "the target.", "mode": "how; one of two.", "**kwargs": "the rest."}
    assert (wrapper.doc, wrapper.returns, wrapper.summary) == ("Wraps a thing. Says so.", "Nothing.", "Wraps a thing.")


def test_an_extension_has_its_tags_and_a_provider_its_fields() -> None:
    found = entries("part/extension.bzl")
    assert found["extension"].arguments == {"tag": "A tag.", "tag.name": "Required.", "tag.more": "Shared text."}
    assert (found["Info"].doc, found["Info"].arguments) == ("What is known.", {"path": "Where."})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def public(name):\n    pass\n", "a.bzl:1: expected a docstring of the public function public"),
        ("public = rule(implementation = None)\n", "a.bzl:1: expected `doc` of the public rule public"),
    ],
)
def test_a_public_name_without_a_docstring_is_an_error(source: str, message: str) -> None:
    with pytest.raises(reference.DocstringError, match=message):
        reference.write(["a.bzl"], lambda path: source)


def test_pages_are_markdown_without_html_and_broken_tables() -> None:
    written = reference.write(["part/defs.bzl", "part/extension.bzl"], FILES.__getitem__)
    assert list(written) == ["index.md", "part.md", "part-extension.md"]
    assert "A thing named &lt;name>." in written["part.md"]
    assert '\n    thing(name = "a<b>")\n' in written["part.md"]
    assert "| `srcs` | Files \\| sources. Required. |" in written["part.md"]
    assert "| `//part:defs.bzl` | [`wrapper`](part.md#wrapper) | Wraps a thing. |" in written["index.md"]
