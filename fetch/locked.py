"""What the locks pin, by hash: for packs, which are compared with them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Any

LOCKS = ("crates.lock.json", "debian.lock.json", "requirements.lock.txt", "sources.lock.json")


def digests(root: str | os.PathLike[str]) -> dict[str, str]:
    """Name of each lock → its sha256, lower-case hexadecimal."""
    found = {}
    for name in LOCKS:
        with open(os.path.join(root, "locks", name), "rb") as file:
            found[name] = hashlib.sha256(file.read()).hexdigest()
    return found


def entries(root: str | os.PathLike[str]) -> dict[str, tuple[str, str, str]]:
    """sha256 → (kind, name, version) of all that the locks pin; kinds are deb, wheel, sdist, crate and git."""
    debian, crates, sources = (
        _json(root, name) for name in ("debian.lock.json", "crates.lock.json", "sources.lock.json")
    )
    found = {entry["sha256"]: ("deb", key, entry["version"]) for key, entry in debian["packages"].items()}
    found.update((entry["sha256"], ("crate", entry["name"], entry["version"])) for entry in crates["crates"].values())
    for name, entry in sources["sources"].items():
        of_git = entry["registry"] == "git"
        found[entry["sha256"]] = ("git", name, entry["commit"]) if of_git else ("sdist", name, entry["version"])
    with open(os.path.join(root, "locks", "requirements.lock.txt"), encoding="utf-8") as file:
        text = file.read()
    for name, version, hashes in re.findall(
        r"^([\w.\[\],-]+)==(\S+)((?:\s*\\\n\s+--hash=sha256:\w+)+)", text, re.MULTILINE
    ):
        found.update((sha256, ("wheel", name, version)) for sha256 in re.findall(r"sha256:(\w+)", hashes))
    return found


def _json(root: str | os.PathLike[str], name: str) -> Any:
    with open(os.path.join(root, "locks", name), encoding="utf-8") as file:
        return json.load(file)
