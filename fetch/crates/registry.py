"""Where this machine's cargo downloads crates from.

    python3 fetch/crates/registry.py --cargo usr/bin/cargo --crate itoa@1.0.15@SHA256…
                                      # JSON: file name → url, and auth (as Bazel's download expects it) if there is one

Cargo answers, with this user's configuration in CARGO_HOME and no other: the registry that replaces the default one
(The Cargo Book, "Source Replacement"), else its default. MLC_CRATES_URL, a download address as in a registry index's
config.json ("dl"), overrides both. Standard library only: a repository rule runs this on the machine's own Python.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the workspace root: this runs from a repository rule

from fetch import credentials, errors, folders, trust

# Depends on one crate of the default registry, so that cargo reads that registry's configuration. A workspace, because
# cargo looks for one in the folders above otherwise.
MANIFEST = """\
[package]
name = "asks"
version = "0.0.0"

[lib]
path = "lib.rs"

[dependencies]
{name} = "={version}"

[workspace]
"""


class RegistryError(errors.UserError):
    """No registry answers; the message is one line that says what to set."""


def download_url(template: str, name: str, version: str, sha256: str) -> str:
    """The address of a crate (The Cargo Book, "Registry Index", "Index Configuration").

    >>> download_url("https://registry.example.org/crates", "itoa", "1.0.15", "00")
    'https://registry.example.org/crates/itoa/1.0.15/download'
    >>> download_url("https://registry.example.org/{prefix}/{crate}-{version}.crate", "Itoa", "1.0.15", "00")
    'https://registry.example.org/It/oa/Itoa-1.0.15.crate'
    """
    prefix = {1: "1", 2: "2", 3: f"3/{name[0]}"}.get(len(name), f"{name[:2]}/{name[2:4]}")
    markers = {
        "{crate}": name,
        "{version}": version,
        "{prefix}": prefix,
        "{lowerprefix}": prefix.lower(),
        "{sha256-checksum}": sha256,
    }
    if not any(marker in template for marker in markers):
        template = template.rstrip("/") + "/{crate}/{version}/download"
    for marker, value in markers.items():
        template = template.replace(marker, value)
    return template


# Stands for cargo's index, of which only the answer is known, not whether it came encrypted; the default one does.
_INDEX = "https://"


def generate_lockfile(
    cargo: str, folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Has cargo resolve the package in `folder`, which must be a workspace, with the configuration in CARGO_HOME only.

    Cargo also reads .cargo/config.toml in its current folder and all above it (The Cargo Book, "Hierarchical
    structure"), and runs programs that such a file names. Below /tmp that may be anyone's, so cargo starts in the root.

    Args:
      cargo: the program, by path or name.
      folder: of Cargo.toml; receives Cargo.lock.
      environment: cargo's; by default this program's.
    """
    return subprocess.run(
        [
            os.path.abspath(cargo) if os.sep in cargo else cargo,
            "generate-lockfile",
            "--quiet",
            "--manifest-path",
            str(folder / "Cargo.toml"),
        ],
        cwd="/",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def template(cargo: str, name: str, version: str) -> tuple[str, str]:
    """The address that crates are downloaded from, and what led to it, for `credentials.find`.

    The address is that in MLC_CRATES_URL, or else what the index of cargo's registry says. It has no user and password:
    `credentials` keeps those of the variable, and an index must not choose them.

    Args:
      cargo: the program, by path or name.
      name: of a crate that the registry has.
      version: the crate's.

    Raises:
      RegistryError: cargo reaches no registry, or one that is no sparse index.
      errors.UserError: the address cannot be read.
    """
    chosen = os.environ.get("MLC_CRATES_URL")
    if chosen:
        return credentials.learn(chosen), ""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch, "home")
        home.mkdir()
        # Nothing is written into the user's own folder.
        theirs = Path(os.environ.get("CARGO_HOME") or Path(folders.home() or "/nonexistent", ".cargo")).absolute()
        for file in ("config", "config.toml", "credentials", "credentials.toml"):
            if (theirs / file).exists():
                (home / file).symlink_to(theirs / file)
        Path(scratch, "Cargo.toml").write_text(MANIFEST.format(name=name, version=version), encoding="utf-8")
        Path(scratch, "lib.rs").touch()
        environment = {**os.environ, "CARGO_HOME": str(home)}
        bundle = trust.bundle()
        if bundle:
            environment.setdefault("CARGO_HTTP_CAINFO", bundle)
        done = generate_lockfile(cargo, Path(scratch), environment)
        # Where cargo keeps an index; a git index has no such file.
        for path in sorted(home.glob("registry/index/*/config.json")):
            address = json.loads(path.read_text(encoding="utf-8")).get("dl")
            if isinstance(address, str):
                return credentials.foreign(address), _INDEX
    said = " ".join(done.stdout.split()) or "its index is not a sparse one"
    raise RegistryError(
        f"the registry that cargo is configured with does not answer for '{name}': {said}. If it has moved, set"
        " MLC_CRATES_URL."
    )


def urls(cargo: str, crates: Sequence[str]) -> dict[str, dict]:
    """File name → url and, if the user has a login there, auth of crates, each given as <name>@<version>@<sha256>.

    Raises:
      RegistryError, errors.UserError: see `template`.
    """
    parts = [crate.split("@") for crate in crates]
    found, after = template(cargo, parts[0][0], parts[0][1])
    answer: dict[str, dict] = {}
    for name, version, sha256 in parts:
        url = download_url(found, name, version, sha256)
        login = credentials.find(url, after)
        answer[f"{name}-{version}.crate"] = {"url": url, **({"auth": login.for_bazel()} if login else {})}
    return answer


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cargo", required=True, help="the cargo to ask; it reads this user's configuration")
    parser.add_argument(
        "--crate", nargs="+", required=True, metavar="NAME@VERSION@SHA256", help="crates of the default registry"
    )
    options = parser.parse_args(arguments)
    try:
        json.dump(urls(options.cargo, options.crate), sys.stdout)
    except errors.UserError as error:
        print(error, file=sys.stderr)
        return 1
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
