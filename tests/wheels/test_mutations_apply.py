"""The edits of the weekly //tests/wheels:build_id_mutations still find the texts that they replace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.wheels import build_id_mutations

ROOT = Path(os.environ["WORKSPACE_FILE"]).resolve().parent
EDITS = {
    edit.name: edit.apply for edit in build_id_mutations.EDITS if isinstance(edit.apply, build_id_mutations.Replacement)
}


@pytest.mark.parametrize("name", sorted(EDITS))
def test_an_edit_finds_its_text(name: str) -> None:
    assert EDITS[name].file(ROOT).is_file()


def test_all_kinds_of_edits_are_checked() -> None:
    assert len(EDITS) >= len(build_id_mutations.EDITS) - 1
