"""The registry has every module that MODULE.bazel needs, and each entry is well formed."""

from __future__ import annotations

import json
import re
from pathlib import Path

from given import runfile

from tests.private.module_files import tags

REGISTRY = runfile("REGISTRY").parent
MODULE = runfile("MODULE")


def entries() -> list[Path]:
    """The folders modules/<name>/<version>."""
    found = sorted(path.parent for path in REGISTRY.glob("modules/*/*/MODULE.bazel"))
    assert found
    return found


def test_every_entry_declares_its_own_name_and_version() -> None:
    for entry in entries():
        (module,) = tags([entry / "MODULE.bazel"], "module")
        assert (module["name"], module["version"]) == entry.parts[-2:]


def test_every_entry_says_why_it_exists() -> None:
    for entry in entries():
        assert re.search(r'^""".{20,}"""$', (entry / "MODULE.bazel").read_text().splitlines()[0]), entry


def test_every_entry_has_its_sources_in_tree() -> None:
    assert json.loads((REGISTRY / "bazel_registry.json").read_text()) == {"module_base_path": "src"}
    for entry in entries():
        source = json.loads((entry / "source.json").read_text())
        assert source == {"type": "local_path", "path": entry.parts[-2]}


def test_the_registry_has_every_required_module() -> None:
    for path in [MODULE, *(entry / "MODULE.bazel" for entry in entries())]:
        for module in tags([path], "bazel_dep"):
            name, version = module["name"], module["version"]
            assert (REGISTRY / "modules" / name / version).is_dir(), f"{path} requires {name} {version}"
    assert len(tags([MODULE], "bazel_dep")) >= 4
