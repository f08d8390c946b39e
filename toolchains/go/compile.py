"""Compiles a program from vendored Go modules, offline and reproducibly.

compile --go .../bin/go --sources FOLDER --package github.com/rhysd/actionlint/cmd/actionlint --output actionlint
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def build(go: Path, sources: Path, package: str, output: Path) -> int:
    """Compiles `package` and returns the exit status of go.

    Args:
        go: the program, in Debian's layout: usr/lib/go-VERSION/bin/go; the standard library is in usr/share.
        sources: the folder of go.mod, go.sum and vendor/.
        package: its import path.
        output: the program to write.
    """
    root = go.parent.parent
    shared = root.parent.parent / "share" / root.name
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        # go refuses to embed links, and in a sandbox every input is a link.
        module = shutil.copytree(sources, Path(scratch, "module"))
        goroot = shutil.copytree(
            root, Path(scratch, "go"), ignore=shutil.ignore_patterns("api", "include", "lib", "misc", "src", "test")
        )
        shutil.copytree(shared / "src", goroot / "src")
        shutil.copytree(shared / "pkg/include", goroot / "pkg/include")
        environment = {
            "CGO_ENABLED": "0",
            "GOAMD64": "v1",
            "GOCACHE": f"{scratch}/cache",
            "GOENV": "off",
            "GOFLAGS": "-mod=vendor -trimpath -buildvcs=false -p=2",
            "GOPATH": f"{scratch}/path",
            "GOPROXY": "off",
            "GOROOT": str(goroot),
            "GOTELEMETRY": "off",
            "GOTOOLCHAIN": "local",
            # Otherwise go looks for go.work in all folders above.
            "GOWORK": "off",
            "HOME": scratch,
            "PATH": os.devnull,
        }
        command = [str(goroot / "bin/go"), "build", "-ldflags=-buildid= -s -w", "-o", str(output), package]
        return subprocess.run(command, cwd=module, env=environment).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--go", type=Path, required=True, help="the go program in Debian's layout")
    parser.add_argument("--sources", type=Path, required=True, help="go.mod, next to go.sum and vendor/")
    parser.add_argument("--package", required=True, help="import path of the program's package")
    parser.add_argument("--output", type=Path, required=True, help="the program to write")
    options = parser.parse_args()
    return build(options.go.absolute(), options.sources.absolute().parent, options.package, options.output.absolute())


if __name__ == "__main__":
    sys.exit(main())
