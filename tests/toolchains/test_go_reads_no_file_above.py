"""A Go program is compiled from its modules only, whatever is in the folders above: the output base may be anywhere."""

from __future__ import annotations

from pathlib import Path

from toolchains.go import compile as go_compile

# Stands in for go: a work file above changes the program, as it does with Go's.
GO = """#!/bin/sh
while [ $# -gt 0 ]; do case $1 in -o) output=$2 ;; esac; shift; done
folder=$PWD
program=locked
while [ -n "$folder" ]; do
  [ "$GOWORK" != off ] && [ -e "$folder/go.work" ] && program=planted
  [ -e "$HOME/.config/go/env" ] && [ "$GOENV" != off ] && program=planted
  folder=${folder%/*}
done
echo $program > "$output"
"""


def test_a_work_file_above_changes_nothing(tmp_path: Path) -> None:
    go = tmp_path / "debian/usr/lib/go-1.24/bin/go"
    go.parent.mkdir(parents=True)
    go.write_text(GO)
    go.chmod(0o755)
    for folder in ("src", "pkg/include"):
        (tmp_path / "debian/usr/share/go-1.24" / folder).mkdir(parents=True)
    (tmp_path / "go.work").write_text("go 1.24\nreplace example.org/one => /tmp/one\n")
    sources = tmp_path / "output base/sources"
    sources.mkdir(parents=True)
    (sources / "go.mod").write_text("module one\n")
    program = tmp_path / "output base/program"
    assert go_compile.build(go, sources, "example.org/one", program) == 0
    assert program.read_text() == "locked\n"
