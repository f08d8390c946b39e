"""Writes mlc_llm/__init__.py: upstream's file with one of our imports before all others.

make_package.py --upstream python/mlc_llm/__init__.py --import _mlc_bazel --output mlc_llm/__init__.py
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path


def with_first_import(source: str, module: str) -> str:
    """Adds an import to the source of a package's __init__.py, before everything else that it does.

    >>> with_first_import('\"\"\"Package.\"\"\"\\n\\nimport os\\n', "_first")
    '\"\"\"Package.\"\"\"\\n\\nfrom . import _first as _\\n\\nimport os\\n'

    Args:
        source: upstream's source. A docstring and imports from __future__ stay first, because Python requires that.
        module: the name of a module in the package.
    """
    after = 0
    for statement in ast.parse(source).body:
        docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and after == 0
        if not docstring and not (isinstance(statement, ast.ImportFrom) and statement.module == "__future__"):
            break
        after = statement.end_lineno or after
    lines = source.splitlines(keepends=True)
    first = f"from . import {module} as _\n"
    return "".join([*lines[:after], "\n" if after else "", first, *([] if after else ["\n"]), *lines[after:]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", type=Path, required=True, help="upstream's __init__.py")
    parser.add_argument("--import", dest="module", required=True, help="module in the package to import first")
    parser.add_argument("--output", type=Path, required=True, help="the file to write")
    options = parser.parse_args()
    options.output.write_text(
        with_first_import(options.upstream.read_text(encoding="utf-8"), options.module), encoding="utf-8"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
