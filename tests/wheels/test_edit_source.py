"""Edits of upstream's sources."""

from __future__ import annotations

import pytest

from third_party.tvm import edit_source


def test_replaces_every_text_everywhere_and_none_in_a_replacement() -> None:
    edits = {"one": "two", "two": "one", "one more": "other"}
    assert edit_source.edited("one two one more one\n", edits) == "two one other two\n"


def test_a_text_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected the text that an edit replaces, found none in the source:\nthree"):
        edit_source.edited("one two\n", {"one": "", "three": ""})
