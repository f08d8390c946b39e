"""Promise: the registry answers for every module that MODULE.bazel asks for, and each entry is well formed."""

from __future__ import annotations

import json
import os
import re
import unittest
from pathlib import Path

REGISTRY = Path(os.environ["TEST_SRCDIR"], os.environ["REGISTRY"]).parent
MODULE = Path(os.environ["TEST_SRCDIR"], os.environ["MODULE"])
DEPENDENCY = re.compile(r'^bazel_dep\(name = "([^"]+)", version = "([^"]+)"', re.MULTILINE)


class RegistryTest(unittest.TestCase):
    def entries(self) -> list[Path]:
        """The folders modules/<name>/<version>."""
        found = sorted(path.parent for path in REGISTRY.glob("modules/*/*/MODULE.bazel"))
        self.assertTrue(found)
        return found

    def test_every_entry_declares_its_own_name_and_version(self) -> None:
        for entry in self.entries():
            name, version = entry.parts[-2:]
            self.assertIn(f'module(name = "{name}", version = "{version}")', (entry / "MODULE.bazel").read_text())

    def test_every_entry_says_why_it_exists(self) -> None:
        for entry in self.entries():
            self.assertRegex((entry / "MODULE.bazel").read_text().splitlines()[0], r'^""".{20,}"""$', entry)

    def test_every_entry_has_its_sources_in_tree(self) -> None:
        self.assertEqual(json.loads((REGISTRY / "bazel_registry.json").read_text()), {"module_base_path": "src"})
        for entry in self.entries():
            source = json.loads((entry / "source.json").read_text())
            self.assertEqual(source, {"type": "local_path", "path": entry.parts[-2]})

    def test_registry_has_what_modules_ask_for(self) -> None:
        for path in [MODULE, *(entry / "MODULE.bazel" for entry in self.entries())]:
            for name, version in DEPENDENCY.findall(path.read_text()):
                self.assertTrue((REGISTRY / "modules" / name / version).is_dir(), f"{path} asks for {name} {version}")
        self.assertGreaterEqual(len(DEPENDENCY.findall(MODULE.read_text())), 4)


if __name__ == "__main__":
    unittest.main()
