"""make_package inserts one import before all others of a package, as early as Python allows, and changes nothing
else.
"""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

from third_party.mlc_llm import make_package

FIRST = "from . import _first as _"

SOURCES = {
    "docstring": '"""Package."""\n\nimport os\n',
    "long docstring": '"""Package.\n\nimport nothing\n"""\n\nimport os\n',
    "no docstring": "import os\n",
    "comment before": '# A licence.\n"""Package."""\n\nimport os\n',
    "future": '"""Package."""\n\nfrom __future__ import annotations\n\nimport os\n',
    "future without docstring": "from __future__ import (\n    annotations,\n    division,\n)\nimport os\n",
    "only a docstring": '"""Package."""\n',
    "a string later": 'import os\n"not a docstring"\n',
    "code before imports": '"""Package."""\nVALUE = 1\nimport os\n',
    "no newline at the end": '"""Package."""\nimport os',
    "empty": "",
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_the_import_runs_before_everything_else(source: str, tmp_path: Path) -> None:
    """Imports a real package; the inserted module prints whether os was imported before it."""
    package = tmp_path / "package"
    package.mkdir()
    seen = "print('os' in sys.modules['package'].__dict__, 'VALUE' in sys.modules['package'].__dict__)"
    (package / "_first.py").write_text(f"import sys\n{seen}\n")
    (package / "__init__.py").write_text(make_package.with_first_import(source, "_first"))
    done = subprocess.run(
        [sys.executable, "-B", "-c", "import package"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "False False\n", "")


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_nothing_else_changes(source: str) -> None:
    made = make_package.with_first_import(source, "_first").splitlines()
    assert made.count(FIRST) == 1
    assert [line for line in made if line and line != FIRST] == [line for line in source.splitlines() if line]


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_the_docstring_stays_the_docstring(source: str) -> None:
    before: dict[str, object] = {}
    after: dict[str, object] = {}
    exec(compile(source.replace("import os", ""), "before", "exec"), before)
    made = make_package.with_first_import(source, "_first")
    exec(compile(made.replace(FIRST, "").replace("import os", ""), "after", "exec"), after)
    assert after.get("__doc__") == before.get("__doc__")


def test_only_the_first_string_is_a_docstring() -> None:
    made = make_package.with_first_import('"""Package."""\n"a string"\nimport os\n', "_first")
    assert made == f'"""Package."""\n\n{FIRST}\n"a string"\nimport os\n'


def test_a_file_that_is_not_python_is_refused() -> None:
    with pytest.raises(SyntaxError):
        make_package.with_first_import("import\n", "_first")


def test_command_writes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream, output = tmp_path / "upstream.py", tmp_path / "__init__.py"
    upstream.write_text('"""Paket – 包."""\nimport os\n', encoding="utf-8")
    monkeypatch.setattr(
        sys, "argv", ["make_package", f"--upstream={upstream}", "--import=_first", f"--output={output}"]
    )
    assert make_package.main() == 0
    assert output.read_text(encoding="utf-8") == f'"""Paket – 包."""\n\n{FIRST}\nimport os\n'


def test_its_example_holds() -> None:
    assert doctest.testmod(make_package) == (0, 1)
