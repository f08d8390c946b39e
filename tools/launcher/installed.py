"""The Bazel that install.py makes: its folder, and the flags it needs to run from there.

Separate from install.py because every run needs this and few need the rest.
"""

from __future__ import annotations

import json
import os

from fetch.bazel import hosts

# Increase it when the contents of the folder change, so that every machine installs again.
LAYOUT = 1

_BASE = "/usr/share/bazel"

# Bazel modules that Debian ships with Bazel, and their folders.
MODULES = {
    "bazel_features": "usr/share/bazel/tools/features",
    "bazel_skylib": "usr/share/bazel/tools/skylib",
    "platforms": "usr/share/bazel/tools/platforms",
    "rules_cc": "usr/share/bazel/rules/cc",
    "rules_java": "usr/share/bazel/rules/java",
    "rules_license": "usr/share/bazel/rules/license",
    "rules_proto": "usr/share/bazel/rules/proto",
}


def prefix(cache: str, version: str) -> str:
    """Returns the folder of this version in the launcher's cache folder. It exists only once it is complete.

    Machines of different processors may share the cache folder.
    """
    processor = os.uname().machine
    return f"{cache}/bazel-{version}-{LAYOUT}" + ("" if processor == hosts.X86_64.processor else f"-{processor}")


def host() -> hosts.Host | None:
    """Returns this machine, or None if Bazel cannot be assembled on it."""
    here = os.uname()
    return hosts.HOSTS.get(here.machine) if here.sysname == "Linux" else None


def problem(folder: str) -> str | None:
    """Returns why Bazel cannot be installed in a folder of this name, or None.

    Its programs find their libraries by DT_RPATH, in which ":" separates folders and "$" begins a name that the loader
    replaces, so they would load another folder's. Its class path is a file with a line per jar.
    """
    wrong = next((each for each in folder if each in ":$\x7f" or each < " "), None)
    if wrong is None:
        return None
    return (
        f"{ascii(folder)[1:-1]}: expected a folder without {ascii(wrong)} in its name, because Bazel's programs cannot"
        " find their libraries there. Set MLC_BAZEL_CACHE to another one."
    )


def is_locked(folder: str, root: str) -> bool:
    """Returns whether the Bazel in `folder` was installed from exactly what this machine's lock pins.

    Compares hashes only, because every run asks; fetch/bazel/packages.py reads the lock and says what differs.
    """
    here = host()
    if not here:
        return False
    found = []
    for path in (os.path.join(folder, "manifest.json"), os.path.join(root, "locks", here.lock)):
        try:
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
            found.append({entry["sha256"] for kind in ("packages", "wheels") for entry in content[kind].values()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False
    return found[0] == found[1]


def folder_of(install_base: str) -> str | None:
    """Returns the folder with this install base, or None if it is that of another Bazel."""
    return install_base[: -len(_BASE)] if install_base.endswith(_BASE) else None


def startup_flags(folder: str) -> list[str]:
    """Returns the startup options that Bazel needs to run from this folder."""
    return [
        "--nosystem_rc",
        f"--install_base={folder}{_BASE}",
        "--trust_install_base",
        f"--server_javabase={folder}/jdk",
        "--host_jvm_args=--enable-native-access=ALL-UNNAMED",
    ]


def module_flags(folder: str) -> list[str]:
    """Returns flags that take modules from this folder, for the profile that has no module registry on the network."""
    return [f"--override_module={name}={folder}/{place}" for name, place in MODULES.items()]
