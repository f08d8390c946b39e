"""Fetches the modules of go.mod into vendor/, with the machine's own settings of Go (GOPROXY, `go env -w`).

    python3 fetch/go/vendor.py --go usr/lib/go-1.24/bin/go --folder FOLDER

FOLDER holds go.mod and go.sum; go refuses a module whose content go.sum does not pin.
Runs in a repository rule, so on the machine's Python: standard library only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the workspace root: this runs from a repository rule

from fetch import trust


def vendor(go: Path, folder: Path) -> int:
    """Runs `go mod vendor` in `folder`; returns its exit status."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = {
            **os.environ,
            "GOCACHE": f"{scratch}/cache",
            "GOFLAGS": "-modcacherw",
            "GOMODCACHE": f"{scratch}/modules",
            "GOROOT": str(go.parent.parent),
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
        }
        bundle = trust.bundle()
        if bundle:
            environment.setdefault("SSL_CERT_FILE", bundle)
        status = subprocess.run([str(go), "mod", "vendor"], cwd=folder, env=environment).returncode
    # BUILD files of the modules would make packages of their folders, which a glob does not enter.
    for path in [*folder.glob("vendor/**/BUILD"), *folder.glob("vendor/**/BUILD.bazel")]:
        path.unlink()
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--go", type=Path, required=True, help="the go program")
    parser.add_argument("--folder", type=Path, required=True, help="where go.mod is and vendor/ is written")
    options = parser.parse_args()
    return vendor(options.go.absolute(), options.folder)


if __name__ == "__main__":
    sys.exit(main())
