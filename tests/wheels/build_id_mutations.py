"""Edits a copy of the workspace and rebuilds it: inputs change the build id, a test or a README does not.

    tools/bazel test //tests/wheels:build_id_mutations

Most edits are tried on the smallest wheel, apache-tvm-ffi. If the build has mlc-llm's sources, an edited crate is tried
on mlc-llm's wheel, which takes much longer. --test_arg=--disk_cache=FOLDER lets the builds share results, and
--test_arg=--only=NAME tries one edit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import re
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from release.private.reproduce.second_workspace import SecondWorkspace
from tests.proofs import proof

TVM_FFI = "tvm_ffi"
MLC_LLM = "mlc_llm"


@dataclasses.dataclass(frozen=True)
class Edit:
    """A change of the workspace.

    Args:
        name: shown in the log, and the value of --only.
        apply: edits the workspace.
        changes: whether the build id must change.
        wheel: the package below //wheels whose build id is compared.
    """

    name: str
    apply: Callable[[SecondWorkspace], None]
    changes: bool = True
    wheel: str = TVM_FFI


@dataclasses.dataclass(frozen=True)
class Replacement:
    """Replaces a text in the one file that contains it.

    Args:
        old: the text.
        new: what it becomes.
        globs: patterns of the files that are looked through.
    """

    old: str
    new: str
    globs: tuple[str, ...]

    def file(self, root: Path) -> Path:
        """The file in a workspace; fails if no file or several have the text."""
        found = [
            path
            for glob in self.globs
            for path in sorted(root.glob(glob))
            if self.old in path.read_text(encoding="utf-8")
        ]
        if len(found) != 1:
            places, names = ", ".join(self.globs), [str(path) for path in found]
            raise AssertionError(f"expected one file of {places} with {self.old!r}, found {names}: adapt this test")
        return found[0]

    def __call__(self, workspace: SecondWorkspace) -> None:
        path = self.file(workspace.root)
        path.write_text(path.read_text(encoding="utf-8").replace(self.old, self.new, 1), encoding="utf-8")


def replaced(old: str, new: str, *globs: str) -> Replacement:
    return Replacement(old, new, globs)


def edited_crate(workspace: SecondWorkspace) -> None:
    """Locks a crate with an edited source, and puts it into Bazel's repository cache like a download."""
    cache = Path(workspace.bazel("info", "repository_cache").stdout.strip(), "content_addressable/sha256")
    cargo_lock = next(workspace.root.glob("*/tokenizers_cpp/Cargo.lock"))
    found = re.search(
        r'name = "tokenizers"\nversion = "[^"]+"\nsource = .*\nchecksum = "([0-9a-f]{64})"',
        cargo_lock.read_text(encoding="utf-8"),
    )
    assert found, f"{cargo_lock}: expected the crate tokenizers: adapt this test"
    old = found[1]
    crate = io.BytesIO()
    edits = 0
    with tarfile.open(cache / old / "file") as original, tarfile.open(fileobj=crate, mode="w:gz") as edited:
        for member in original:
            content = original.extractfile(member)
            data = content.read() if content else b""
            if member.name.endswith("/src/models/bpe/mod.rs"):
                edits += data.count(b"Merges text file invalid")
                data = data.replace(b"Merges text file invalid", b"Merges text file is invalid")
            member.size = len(data)
            edited.addfile(member, io.BytesIO(data) if content else None)
    assert edits, "expected a text in the crate tokenizers to edit, found none: adapt this test"
    new = hashlib.sha256(crate.getvalue()).hexdigest()
    (cache / new).mkdir(exist_ok=True)
    (cache / new / "file").write_bytes(crate.getvalue())
    for path in (cargo_lock, workspace.root / "locks/crates.lock.json"):
        text = path.read_text(encoding="utf-8")
        assert old in text, path
        path.write_text(text.replace(old, new), encoding="utf-8")


EDITS = (
    Edit(
        "a compiler flag",
        replaced('GCC_FLAGS = " ', 'GCC_FLAGS = " -falign-functions=64 ', "MODULE.bazel", "**/*.MODULE.bazel"),
    ),
    Edit("the compilation mode", replaced("build --compilation_mode=opt", "build --compilation_mode=dbg", ".bazelrc")),
    Edit(
        "the unpacker of PyPI",
        replaced(
            "            extractor.file(name, content, executable)",
            '            if name == "tvm_ffi/__init__.py":\n'
            "                import io\n\n"
            '                content = io.BytesIO(content.read() + b"#\\n")\n'
            "            extractor.file(name, content, executable)",
            "*/pypi/extract.py",
        ),
    ),
    Edit(
        "the unpacker of Debian packages",
        # Edits the script that starts the compiler.
        replaced(
            "{drop}{variables}exec",
            'case "$0" in */g++) set -- "$@" -falign-functions=128;; esac\n{drop}{variables}exec',
            "*/debian/unpack.py",
        ),
    ),
    Edit(
        "a requirement of the wheel",
        replaced("typing-extensions>=4.5", "typing-extensions>=4.6", "wheels/tvm_ffi/BUILD.bazel"),
    ),
    Edit(
        "an entry point of the wheel",
        replaced("tvm_ffi.stub.cli:__main__", "tvm_ffi.stub.cli:other", "wheels/tvm_ffi/BUILD.bazel"),
    ),
    Edit(
        "a define of the overlay",
        replaced(
            '"TVM_FFI_BACKTRACE_ON_SEGFAULT=1"', '"TVM_FFI_BACKTRACE_ON_SEGFAULT=0"', "*/tvm_ffi/tvm_ffi.BUILD.bazel"
        ),
    ),
    Edit(
        "a source of ours",
        replaced("#define HAVE_DL_ITERATE_PHDR 1", "/* edited */", "*/tvm_ffi/libbacktrace/config.h"),
    ),
    Edit("the release", replaced('VERSION = "0.1.0"', 'VERSION = "0.1.1"', "version.bzl")),
    Edit(
        "a test",
        replaced(
            "from __future__ import annotations",
            "from __future__ import annotations\n\n# edited",
            "tests/wheels/test_finish_wheel.py",
        ),
        changes=False,
    ),
    Edit("a README", replaced("# Wheels", "# Wheels, edited", "wheels/README.md"), changes=False),
    Edit(
        "a comment in the finishing program",
        replaced(
            '"""Gives a wheel its build id.', '"""Gives wheels their build ids.', "wheels/private/finish_wheel.py"
        ),
        changes=False,
    ),
    Edit("a crate", edited_crate, wheel=MLC_LLM),
)


def build_id(workspace: SecondWorkspace, wheel: str, options: list[str]) -> str:
    """The build id of a wheel, without compressing the wheel."""
    target = f"//wheels/{wheel}"
    workspace.bazel("build", *options, "--output_groups=version", target)
    (path,) = workspace.bazel("cquery", *options, "--output=files", "--output_groups=version", target).stdout.split()
    version = (workspace.root / path).read_text(encoding="utf-8").strip()
    found = re.fullmatch(r".*\+mlc.*\.b([0-9a-f]{8})", version)
    assert found, version
    return found[1]


def tried(workspace: SecondWorkspace, edit: Edit, options: list[str], before: str) -> str | None:
    """Tries one edit and reverts it; returns what is wrong, if anything."""
    kept = {
        path: path.read_bytes()
        for path in workspace.root.rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20
    }
    began = time.monotonic()
    try:
        edit.apply(workspace)
        edited = [path for path, content in kept.items() if path.read_bytes() != content]
        assert edited, f"{edit.name}: expected an edit, found none"
        after = build_id(workspace, edit.wheel, options)
    finally:
        for path, content in kept.items():
            if path.read_bytes() != content:
                path.write_bytes(content)
    names = ", ".join(str(path.relative_to(workspace.root)) for path in edited)
    print(f"{edit.name} ({names}): {edit.wheel} {before} -> {after}, {time.monotonic() - began:.0f} s", flush=True)
    if (after != before) != edit.changes:
        expected = "another build id" if edit.changes else "the build id to stay"
        return f"{edit.name}: expected {expected}, found {before} -> {after}"
    return None


def main() -> int:
    parser = proof.parser(__doc__)
    parser.add_argument("--disk_cache", help="Bazel's option, for the second build")
    parser.add_argument(
        "--only", action="append", choices=[edit.name for edit in EDITS], help="try this edit alone; repeated"
    )
    arguments = parser.parse_args()
    with_mlc_llm = any(name in os.environ for name in ("MLC_SOURCES", "MLC_FETCH_SOURCES"))
    edits = [
        edit
        for edit in EDITS
        if edit.name in (arguments.only or [each.name for each in EDITS]) and (with_mlc_llm or edit.wheel != MLC_LLM)
    ]
    options = proof.QUIET + ([f"--disk_cache={arguments.disk_cache}"] if arguments.disk_cache else [])
    problems = []
    with tempfile.TemporaryDirectory(dir=proof.place()) as place:
        with SecondWorkspace(arguments.workspace, Path(place)) as workspace:
            before = {wheel: build_id(workspace, wheel, options) for wheel in sorted({edit.wheel for edit in edits})}
            print(f"unedited: {before}", flush=True)
            problems = [problem for edit in edits if (problem := tried(workspace, edit, options, before[edit.wheel]))]
            # After all edits are reverted the ids are the first ones again.
            again = {wheel: build_id(workspace, wheel, options) for wheel in before}
            problems += [f"after reverting: expected {before}, found {again}"] * (again != before)
    print("\n".join(problems) or f"{len(edits)} edits tried")
    return 1 if problems or not edits else 0


if __name__ == "__main__":
    sys.exit(main())
