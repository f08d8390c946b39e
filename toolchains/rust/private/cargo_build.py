"""Builds the static library of a Rust package with cargo, offline, from downloaded crates.

    cargo_build --cargo usr/bin/cargo --rustc usr/bin/rustc --cc gcc --cxx g++ --ar ar --strip strip \\
        --manifest Cargo.toml --lock Cargo.lock --source src/lib.rs --crate itoa-1.0.15.crate --output libname.a

With --target it is for another processor than the one that builds: --cc and the like are for that one, and
--target-library has Rust's standard library for it. Build scripts and procedural macros are linked by --host-cc, and
may compile C but no C++.

The build searches for nothing: it uses only the named compilers, PATH and HOME lead nowhere, the given crates are
cargo's only registry, and cargo finds no configuration or workspace above the package: the folder of the build may be
below the user's home. The output depends only on the inputs, not on the folder or the time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

# 2000-01-01T00:00:00Z, like everywhere in this build.
SOURCE_DATE_EPOCH = "946684800"

# Cargo reads .cargo/config.toml in its current folder and in all above it (The Cargo Book, "Hierarchical structure"):
# start it where there is only this one.
_ROOT = Path("/")

# Replaces the registry that Cargo.lock names by a folder (The Cargo Book, "Source Replacement").
CONFIGURATION = """\
[source.crates-io]
replace-with = "vendored"

[source.vendored]
directory = {directory}
"""


class BuildError(Exception):
    """The package cannot be built. The message follows the output of cargo."""


def unpack_crates(crates: list[Path], folder: Path) -> None:
    """Unpacks crates like `cargo vendor`: a folder each, with the hash of the .crate file in .cargo-checksum.json.

    Args:
        crates: files from a registry, <name>-<version>.crate.

    Raises:
        BuildError: a crate contains something other than files in <name>-<version>.
    """
    for crate in crates:
        with tarfile.open(crate, "r:gz") as tar:
            for member in tar:
                parts = Path(member.name).parts
                if parts[0] != crate.stem or ".." in parts or not (member.isreg() or member.isdir()):
                    raise BuildError(
                        f"{crate.name}: expected files below {crate.stem}/, found {member.name}: this is not a"
                        " crate that cargo packed"
                    )
            # Every member was checked above. Debian 12's Python has no filters.
            tar.extractall(folder)  # noqa: S202
        # No hashes of single files, because the whole crate was verified when it was downloaded.
        checksum = {"files": {}, "package": hashlib.sha256(crate.read_bytes()).hexdigest()}
        (folder / crate.stem / ".cargo-checksum.json").write_text(json.dumps(checksum), encoding="utf-8")


def copy_package(manifest: Path, lock: Path, sources: list[Path], folder: Path) -> None:
    """Copies manifest, lock and sources into `folder`. Sources keep their paths relative to the manifest."""
    folder.mkdir()
    shutil.copyfile(manifest, folder / "Cargo.toml")
    shutil.copyfile(lock, folder / "Cargo.lock")
    for source in sources:
        target = folder / source.relative_to(manifest.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def environment(options: argparse.Namespace, work: Path) -> dict[str, str]:
    """Returns the environment of cargo, rustc, build scripts and the crate `cc`."""
    prefix_map = shlex.quote(f"-ffile-prefix-map={work}=.")
    flags = [f"--remap-path-prefix={work}=."]
    host = {"CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER": str(options.cc.absolute())}
    if options.target:
        flags.append(f"-L{options.target_library.absolute()}")
        linker = f"CARGO_TARGET_{options.target.upper().replace('-', '_')}_LINKER"
        host = {
            linker: str(options.cc.absolute()),
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER": str(options.host_cc.absolute()),
            "HOST_CC": str(options.host_cc.absolute()),
        }
    return {
        **host,
        "AR": str(options.ar.absolute()),
        # This variable separates flags by 0x1f, so that folder names may contain spaces.
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags),
        # Cargo looks for a workspace in all folders above the package, but not above its own home.
        "CARGO_HOME": str(work),
        # With a single unit, the code does not depend on the number of threads.
        "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "1",
        "CC": str(options.cc.absolute()),
        # Otherwise the crate `cc` splits flags at spaces.
        "CC_SHELL_ESCAPED_FLAGS": "1",
        "CFLAGS": prefix_map,
        "CXX": str(options.cxx.absolute()),
        "CXXFLAGS": prefix_map,
        "HOME": str(work / "home"),
        "PATH": "/nonexistent",
        "RUSTC": str(options.rustc.absolute()),
        "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH,
    }


def build(options: argparse.Namespace, work: Path) -> None:
    """Builds in the folder `work`, which must not exist, and writes options.output.

    Raises:
        BuildError: cargo failed, or built no static library or several.
    """
    for name in ("config", "config.toml"):
        if os.path.lexists(_ROOT / ".cargo" / name):
            raise BuildError(
                f"expected no configuration of cargo in the root folder, found {_ROOT / '.cargo' / name}, which would"
                " change the library: move it into the home folder of its user"
            )
    (work / "home").mkdir(parents=True)
    (work / "config.toml").write_text(
        CONFIGURATION.format(directory=json.dumps(str(work / "vendor"))), encoding="utf-8"
    )
    (work / "vendor").mkdir()
    unpack_crates(options.crate, work / "vendor")
    copy_package(options.manifest, options.lock, options.source, work / "package")
    command = [str(options.cargo.absolute()), "build", "--release", "--offline", "--locked", "--lib"]
    command += [f"--jobs={options.jobs}", f"--target-dir={work / 'target'}"]
    command += [f"--manifest-path={work / 'package/Cargo.toml'}"]
    command += [f"--target={options.target}"] if options.target else []
    done = subprocess.run(
        command,
        cwd=_ROOT,
        env=environment(options, work),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise BuildError(f"{done.stdout}{options.manifest}: cargo failed with exit status {done.returncode}, see above")
    libraries = sorted((work / "target" / options.target / "release").glob("lib*.a"))
    if len(libraries) != 1:
        found = ", ".join(path.name for path in libraries) or "none"
        raise BuildError(
            f'{options.manifest}: expected one static library, found {found}: set crate-type = ["staticlib"] in [lib]'
        )
    # Half of the library is debug info about Rust's standard library. -D omits times and owners from the archive.
    subprocess.run([options.strip, "--strip-debug", "-D", "-o", options.output, libraries[0]], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for tool in ("cargo", "rustc", "cc", "cxx", "ar", "strip"):
        parser.add_argument(f"--{tool}", type=Path, required=True, help="the program")
    parser.add_argument("--manifest", type=Path, required=True, help="the package's Cargo.toml")
    parser.add_argument("--lock", type=Path, required=True, help="its Cargo.lock")
    parser.add_argument(
        "--source",
        type=Path,
        action="append",
        default=[],
        help="a file of the package, in the manifest's folder or below; repeatable",
    )
    parser.add_argument(
        "--crate", type=Path, action="append", default=[], help="a crate that the lock names; repeatable"
    )
    parser.add_argument("--target", default="", help="Rust's name of another platform than that of the build")
    parser.add_argument("--target-library", type=Path, help="folder with the standard library for --target")
    parser.add_argument("--host-cc", type=Path, help="C compiler for what runs during the build, with --target")
    parser.add_argument("--jobs", type=int, default=1, help="number of crates to compile at the same time")
    parser.add_argument("--output", type=Path, required=True, help="the static library to write")
    options = parser.parse_args()
    # The action may write here. Without a sandbox, nobody else would delete it.
    work = Path(os.path.abspath(f"{options.output}.build"))
    shutil.rmtree(work, ignore_errors=True)
    try:
        build(options, work)
    except BuildError as error:
        print(f"cargo_build: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
