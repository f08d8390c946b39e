"""The folder that Bazel is installed into: where it is and which flags Bazel needs to run from there."""

from __future__ import annotations

# Raise it when what is installed changes, so that every machine makes a new folder.
LAYOUT = 1

# Bazel modules that Debian ships beside Bazel, by their folder.
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
    """The folder of this version below the launcher's cache folder; there only when it is whole."""
    return f"{cache}/bazel-{version}-{LAYOUT}"


def startup_flags(folder: str) -> list[str]:
    """What Bazel from this folder needs before the command."""
    return [
        "--nosystem_rc",
        f"--install_base={folder}/usr/share/bazel",
        "--trust_install_base",
        f"--server_javabase={folder}/jdk",
        "--host_jvm_args=--enable-native-access=ALL-UNNAMED",
    ]


def module_flags(folder: str) -> list[str]:
    """Gives Bazel the modules of this folder, for the profile that has no module registry on the network."""
    return [f"--override_module={name}={folder}/{place}" for name, place in MODULES.items()]
