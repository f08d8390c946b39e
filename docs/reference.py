"""Writes the reference of public rules, macros and module extensions out of their docstrings.

Stardoc would do the same, but it needs Java, and no package registry serves it. Starlark's syntax is a subset of
Python's, so Python's parser reads it; nothing is run.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

_KINDS = {
    "module_extension": "module extension",
    "provider": "provider",
    "repository_rule": "repository rule",
    "rule": "rule",
}
_SECTION = re.compile(r"^(Args|Returns):\n", re.MULTILINE)


class DocstringError(Exception):
    """A public name that cannot be described."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A public name of a Starlark file: what it is, its text, and name → description of its arguments."""

    name: str
    kind: str
    doc: str
    arguments: dict[str, str]
    signature: str = ""
    returns: str = ""

    @property
    def summary(self) -> str:
        """The first sentence or paragraph, in one line."""
        first = " ".join(self.doc.split("\n\n")[0].split())
        return re.split(r"(?<=\.) (?=[A-Z])", first)[0].removesuffix(":")


class Starlark:
    """A Starlark file, parsed; it reads the files that it loads when a name leads there."""

    def __init__(self, path: str, read: Callable[[str], str]) -> None:
        """Parses a file.

        Args:
          path: relative to the workspace's root.
          read: returns the text of a file in the workspace, raises FileNotFoundError for others.
        """
        self.path = path
        self._read = read
        self._text = read(path)
        self._tree = ast.parse(self._text, path)
        self._loaded: dict[str, tuple[str, str]] = {}
        self._assigned: dict[str, ast.expr] = {}
        self._functions: dict[str, ast.FunctionDef] = {}
        self._order: list[tuple[str, int]] = []
        for node in self._tree.body:
            if isinstance(node, ast.FunctionDef):
                self._functions[node.name] = node
                self._order.append((node.name, node.lineno))
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self._assigned[node.targets[0].id] = node.value
                self._order.append((node.targets[0].id, node.lineno))
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                self._load(node.value)

    @property
    def doc(self) -> str:
        """The file's docstring."""
        return inspect.cleandoc(ast.get_docstring(self._tree) or "")

    def entries(self) -> list[Entry]:
        """What the file offers: public names with a docstring or, for constants, the comment above them.

        Raises:
          DocstringError: a public function or rule has no docstring.
        """
        return [self._entry(name, line) for name, line in self._order if not name.startswith("_")]

    def _load(self, call: ast.Call) -> None:
        if not (isinstance(call.func, ast.Name) and call.func.id == "load"):
            return
        label, *names = [_constant(each) for each in call.args]
        for name in names:
            self._loaded[name] = (label, name)
        for keyword in call.keywords:
            if keyword.arg:
                self._loaded[keyword.arg] = (label, _constant(keyword.value))

    def _origin(self, name: str) -> tuple[Starlark, str] | None:
        """The file of the workspace that defines a loaded name, and its name there."""
        label, original = self._loaded[name]
        if label.startswith("@"):
            return None
        package, _, file = label.rpartition(":")
        folder = package[2:] if package else str(PurePosixPath(self.path).parent)
        return Starlark(str(PurePosixPath(folder, file)), self._read), original

    def _entry(self, name: str, line: int) -> Entry:
        if name in self._functions:
            return self._function(name)
        value = self._assigned[name]
        if isinstance(value, ast.Name) and value.id in self._loaded:
            origin = self._origin(value.id)
            if origin:
                file, original = origin
                entry = file._entry(original, file._line(original))
                return dataclasses.replace(entry, name=name, doc=entry.doc or self._comment(line))
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in _KINDS:
            return self._rule(name, value.func.id, value)
        return Entry(name, "constant", self._comment(line), {})

    def _line(self, name: str) -> int:
        return dict(self._order)[name]

    def _comment(self, line: int) -> str:
        """The comment lines right above a line."""
        lines = self._text.splitlines()[: line - 1]
        found: list[str] = []
        while lines and lines[-1].startswith("# "):
            found.insert(0, lines.pop()[2:])
        return "\n".join(found)

    def _function(self, name: str) -> Entry:
        node = self._functions[name]
        docstring = ast.get_docstring(node)
        if not docstring:
            raise DocstringError(f"{self.path}:{node.lineno}: expected a docstring of the public function {name}")
        body, *rest = _SECTION.split(docstring)
        sections = dict(zip(rest[::2], rest[1::2], strict=True))
        kind = "macro" if node.args.args and node.args.args[0].arg == "name" else "function"
        return Entry(
            name,
            kind,
            body.strip(),
            _arguments(sections.get("Args", "")),
            signature=f"{name}({ast.unparse(node.args)})",
            returns=inspect.cleandoc(sections.get("Returns", "")),
        )

    def _rule(self, name: str, kind: str, call: ast.Call) -> Entry:
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        attributes: dict[str, str] = {}
        if "tag_classes" in keywords:
            for tag, tag_class in self._items(keywords["tag_classes"]):
                owner, node = self._expression(tag_class)
                assert isinstance(node, ast.Call), ast.unparse(node)
                of_tag = {keyword.arg: keyword.value for keyword in node.keywords}
                attributes[tag] = owner._string(of_tag.get("doc"))
                for attribute, text in owner._attributes(of_tag.get("attrs")):
                    attributes[f"{tag}.{attribute}"] = text
        else:
            attributes.update(self._attributes(keywords.get("attrs")))
        if kind == "provider":
            for field, description in self._items(keywords.get("fields")):
                attributes[field] = self._string(description)
        doc = keywords.get("doc") or (call.args[0] if kind == "provider" and call.args else None)
        text = inspect.cleandoc(self._string(doc)) or (self.doc if kind == "module_extension" else "")
        if not text:
            raise DocstringError(f"{self.path}:{call.lineno}: expected `doc` of the public {_KINDS[kind]} {name}")
        return Entry(name, _KINDS[kind], text, attributes)

    def _attributes(self, node: ast.expr | None) -> Iterator[tuple[str, str]]:
        """Name → description of each public attribute of a dict like `attrs`."""
        for name, call in self._items(node):
            if name.startswith("_"):
                continue
            owner, value = self._expression(call)
            keywords = {keyword.arg: keyword.value for keyword in getattr(value, "keywords", [])}
            text = owner._string(keywords.get("doc"))
            mandatory = keywords.get("mandatory")
            required = isinstance(mandatory, ast.Constant) and mandatory.value is True
            yield name, (f"{text} Required." if required else text).strip()

    def _items(self, node: ast.expr | None) -> Iterator[tuple[str, ast.expr]]:
        """Key and value of the entries of a dict, also if it is a union or has a name."""
        if node is None:
            return
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            yield from self._items(node.left)
            yield from self._items(node.right)
            return
        owner, value = self._expression(node)
        if owner is not self:
            # Their expressions are the other file's, which knows its own names.
            yield from ((key, _Elsewhere(owner, each)) for key, each in owner._items(value))
        elif isinstance(value, ast.Dict):
            for key, each in zip(value.keys, value.values, strict=True):
                assert key, f"{self.path}: a dict in a dict: {ast.unparse(value)}"
                yield _constant(key), each
        elif value is not node:
            yield from self._items(value)

    def _expression(self, node: ast.expr) -> tuple[Starlark, ast.expr]:
        """What a name stands for, and the file that says so; any other expression stands for itself."""
        if isinstance(node, _Elsewhere):
            return node.owner._expression(node.expression)
        if isinstance(node, ast.Name):
            if node.id in self._assigned:
                return self._expression(self._assigned[node.id])
            if node.id in self._loaded and (origin := self._origin(node.id)):
                file, original = origin
                return file._expression(ast.Name(original))
        return self, node

    def _string(self, node: ast.expr | None) -> str:
        """A string of constants, also if it is a sum or has a name; "" if it is not one."""
        if node is None:
            return ""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._string(node.left) + self._string(node.right)
        owner, value = self._expression(node)
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
        return owner._string(value) if value is not node else ""


class _Elsewhere(ast.expr):
    """An expression of another file."""

    def __init__(self, owner: Starlark, expression: ast.expr) -> None:
        super().__init__()
        self.owner = owner
        self.expression = expression


def _constant(node: ast.expr) -> str:
    """The value of a string literal."""
    if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        raise DocstringError(f"expected a string, found {ast.unparse(node)}")
    return node.value


def _arguments(section: str) -> dict[str, str]:
    """Name → description, from the section "Args:" of a docstring."""
    found: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(section).splitlines():
        argument = re.match(r"(\*{0,2}\w+): *(.*)", line)
        if argument:
            name = argument[1]
            found[name] = argument[2]
        elif name and line.strip():
            found[name] += " " + line.strip()
    return found


def _escaped(text: str) -> str:
    """Prose for Markdown: `<name>` outside of code is no HTML element."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)


def _prose(text: str) -> str:
    """A docstring's text as Markdown: paragraphs, and code that is indented by four columns."""
    paragraphs = [
        paragraph if paragraph.startswith("    ") else _escaped(paragraph) for paragraph in text.strip().split("\n\n")
    ]
    return "\n\n".join(paragraphs)


def page_name(path: str) -> str:
    """The name of a Starlark file's page: its folders, and its own name unless it is defs.bzl."""
    file = PurePosixPath(path)
    return "-".join([*file.parent.parts, *([] if file.stem == "defs" else [file.stem])]) + ".md"


def page(file: Starlark, entries: list[Entry]) -> str:
    """The reference page of one Starlark file."""
    lines = [f"# //{PurePosixPath(file.path).parent}:{PurePosixPath(file.path).name}", "", _prose(file.doc), ""]
    for entry in entries:
        lines += [f"## {entry.name}", "", f"*{entry.kind.capitalize()}*", ""]
        if entry.signature:
            lines += ["```python", entry.signature, "```", ""]
        if entry.doc and entry.doc != file.doc:
            lines += [_prose(entry.doc), ""]
        if entry.arguments:
            lines += ["| name | description |", "|---|---|"]
            lines += [
                f"| `{name}` | {_escaped(' '.join(text.split())).replace('|', chr(92) + '|')} |"
                for name, text in entry.arguments.items()
            ]
            lines.append("")
        if entry.returns:
            lines += [f"**Returns:** {_escaped(' '.join(entry.returns.split()))}", ""]
    return "\n".join(lines).rstrip() + "\n"


def index(pages: dict[str, list[Entry]]) -> str:
    """The page that lists all names; Starlark file → its entries."""
    lines = [
        "# Reference",
        "",
        "The public rules, macros, module extensions and constants of this repository, from their docstrings.",
        "",
        "| load from | name | what it is |",
        "|---|---|---|",
    ]
    for path, entries in pages.items():
        file = PurePosixPath(path)
        for entry in entries:
            summary = _escaped(entry.summary).replace("|", "\\|")
            link = f"[`{entry.name}`]({page_name(path)}#{entry.name.lower()})"
            lines.append(f"| `//{file.parent}:{file.name}` | {link} | {summary} |")
    return "\n".join(lines) + "\n"


def write(paths: list[str], read: Callable[[str], str]) -> dict[str, str]:
    """The reference of some Starlark files: name → text of each page.

    Args:
      paths: public files, relative to the workspace's root.
      read: returns the text of these and of what they load.
    """
    files = [Starlark(path, read) for path in paths]
    entries = {file.path: file.entries() for file in files}
    pages = {page_name(file.path): page(file, entries[file.path]) for file in files}
    return {"index.md": index(entries), **pages}
