"""Builds the documentation site: the pages of docs/, every README of the repository, and the reference of public rules.

A folder's README stands next to its code and is also a page of the site, so that a fact stands in one place. Links
between pages are rewritten to the pages' places in the site. Links to other files become plain text, because the site
does not know where the sources are hosted; //tests/docs:links checks that these files exist.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path, PurePosixPath

from docs import pages, reference

# The time that mkdocs writes into the site map: 2000-01-01, as in all outputs of this build.
_TIME = "946684800"


def place(path: str) -> str:
    """Where a page of the repository stands in the site's sources."""
    if path == "README.md":
        return "index.md"
    parts = PurePosixPath(path).parts
    if parts[0] == "docs":
        return "/".join(parts[1:])
    names = [part.removesuffix(".md").lower() for part in parts]
    return f"rooms/{'-'.join(name for name in names if name != 'readme')}.md"


def rewritten(path: str, text: str, places: dict[str, str]) -> str:
    """A page's text with links that lead to the site's pages.

    Args:
      path: the page, relative to the repository's root.
      text: its content.
      places: page, picture or Starlark file → its place in the site's sources.
    """
    parts = []
    end = 0
    for link in pages.links(text):
        if link.is_external or not link.path:
            continue
        target = pages.resolve(path, link)
        for candidate in (target, f"{target}/README.md"):
            if candidate in places:
                found = os.path.relpath(places[candidate], os.path.dirname(places[path]))
                replaced = f"({found}{'#' + link.anchor if link.anchor else ''})"
                break
        else:
            if target.endswith(".md") or text[link.start] == "!":
                # A page or picture that does not exist: mkdocs names it and fails.
                continue
            replaced = ""
        whole = text[link.start : link.end]
        label = whole[: -len(f"({link.target})")]
        parts += [text[end : link.start], label + replaced if replaced else label[1:-1]]
        end = link.end
    return "".join([*parts, text[end:]])


def stage(folder: Path, sources: list[str], public: list[str]) -> list[str]:
    """Writes the site's sources into a folder; returns the pages of the reference."""
    places = {path: place(path) for path in sources if not path.endswith((".bzl", ".yml"))}
    places |= {path: f"reference/{reference.page_name(path)}" for path in public}
    for path, where in places.items():
        file = folder / where
        file.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".md"):
            file.write_text(rewritten(path, Path(path).read_text(encoding="utf-8"), places), encoding="utf-8")
        elif path not in public:
            shutil.copyfile(path, file)
    generated = reference.write(public, lambda path: Path(path).read_text(encoding="utf-8"))
    for name, text in generated.items():
        file = folder / "reference" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return [f"reference/{name}" for name in generated]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="mkdocs.yml")
    parser.add_argument("--output", type=Path, required=True, help="folder that gets the site")
    parser.add_argument("--public", action="append", default=[], help="Starlark file with public names")
    parser.add_argument("sources", nargs="+", help="pages, pictures and Starlark files, relative to the workspace")
    options = parser.parse_args(arguments)

    logging.basicConfig(format="docs: %(message)s", level=logging.WARNING)
    os.environ["SOURCE_DATE_EPOCH"] = _TIME
    # Material for MkDocs advertises other software on standard error.
    os.environ["NO_MKDOCS_2_WARNING"] = "true"
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    with tempfile.TemporaryDirectory() as scratch:
        staged = Path(scratch, "pages")
        try:
            generated = stage(staged, options.sources, options.public)
        except reference.DocstringError as error:
            sys.exit(f"docs: {error}")
        config = load_config(
            str(options.config), docs_dir=str(staged), site_dir=str(options.output.resolve()), strict=True
        )
        # The pages of the reference follow from the rules that there are, so mkdocs.yml cannot list them.
        config.nav = [*(config.nav or []), {"Reference": generated}]
        try:
            config.plugins.on_startup(command="build", dirty=False)
            build(config)
        except Abort as error:
            sys.exit(f"docs: {error}: see the warnings above; each names its page")
        finally:
            config.plugins.on_shutdown()


if __name__ == "__main__":
    main(sys.argv[1:])
