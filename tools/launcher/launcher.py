"""What tools/bazel does on every run; imports little, since each run pays for it."""

import json
import os
import sys
import time

from . import installed, trust

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
PROFILES = ("upstream", "registries")
# Commands that resolve modules or read the build's options; the others (version, help, shutdown, …) need no profile.
_PROFILED = frozenset("aquery build config coverage cquery fetch info mod print_action query run sync test vendor".split())
_PROBE_SECONDS = 2.0
_PROBE_KEPT_SECONDS = 3600


def say(line):
    """One line to the user, on the side where it does not mix with Bazel's output."""
    print("tools/bazel: " + line, file=sys.stderr, flush=True)


def cache_folder():
    """Where the launcher keeps what it installs: $MLC_BAZEL_CACHE, else below the user's cache folder."""
    chosen = os.environ.get("MLC_BAZEL_CACHE")
    if chosen:
        return os.path.abspath(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "mlc-bazel")


def wanted_version():
    """The version in .bazelversion."""
    with open(os.path.join(ROOT, ".bazelversion"), encoding="utf-8") as file:
        return file.read().split()[0]


def command_index(arguments):
    """The position of Bazel's command: the first argument that is no flag. None where there is none."""
    takes_value = {"--" + name for name in _STARTUP_VALUES}
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        if not argument.startswith("-"):
            return position
        position += 2 if argument in takes_value else 1
    return None


# Startup options that may have their value in the next argument.
_STARTUP_VALUES = frozenset(
    """
    bazelrc batch_cpu_scheduling connect_timeout_secs digest_function failure_detail_out host_jvm_args install_base invocation_policy
    io_nice_level local_startup_timeout_secs macos_qos_class max_idle_secs output_base output_user_root server_javabase
    server_jvm_out unix_digest_hash_attribute_name command_port
    """.split()
)


def choose_profile(arguments):
    """The network profile and why; (None, reason) where the command line has it already.

    Order: --config= on the command line, MLC_PROFILE, a probe whose answer is kept for an hour.
    """
    for profile in PROFILES:
        if "--config=" + profile in arguments:
            return None, "named on the command line"
    chosen = os.environ.get("MLC_PROFILE")
    if chosen:
        if chosen not in PROFILES:
            raise SystemExit(f"tools/bazel: MLC_PROFILE is '{chosen}': expected one of {', '.join(PROFILES)}")
        return chosen, "MLC_PROFILE says so"
    memory = os.path.join(cache_folder(), "profile.json")
    try:
        with open(memory, encoding="utf-8") as file:
            known = json.load(file)
        if 0 <= time.time() - known["time"] < _PROBE_KEPT_SECONDS and known["profile"] in PROFILES:
            return known["profile"], known["why"]
    except (OSError, ValueError, KeyError):
        pass
    from . import probe

    profile, why = probe.profile(_PROBE_SECONDS)
    probe.write_atomically(memory, json.dumps({"profile": profile, "why": why, "time": time.time()}))
    return profile, why


def main(arguments):
    """Becomes Bazel; returns only for an error or for the launcher's own command."""
    position = command_index(arguments)
    command = arguments[position] if position is not None else None
    if command == "doctor":
        from . import doctor

        return doctor.main(arguments[position + 1 :])
    profile = None
    if command in _PROFILED:
        profile, why = choose_profile(arguments)
        if profile:
            say(f"profile {profile} ({why}; --config= or MLC_PROFILE decides otherwise)")
            arguments = arguments[: position + 1] + ["--config=" + profile] + arguments[position + 1 :]
    registries = command in _PROFILED and (profile == "registries" or "--config=registries" in arguments)
    version = wanted_version()
    bazel = os.environ.get("BAZEL_REAL")
    startup = []
    if not bazel:
        folder = _installed(version)
        bazel = folder + "/usr/bin/bazel"
        startup = installed.startup_flags(folder)
        if registries:
            arguments = arguments[: position + 1] + installed.module_flags(folder) + arguments[position + 1 :]
    store = trust.store(cache_folder())
    if store:
        startup.append("--host_jvm_args=-Djavax.net.ssl.trustStore=" + store)
    os.execv(bazel, [bazel, *startup, *arguments])


def _installed(version):
    """The folder of the bootstrapped Bazel, installed now if it is not there."""
    folder = installed.prefix(cache_folder(), version)
    if not os.path.exists(folder):
        from pathlib import Path

        from . import bootstrap, debian, download, pypi

        try:
            bootstrap.install(Path(cache_folder()), version, say)
        except (bootstrap.BootstrapError, debian.DebianError, download.DownloadError, pypi.PyPIError) as error:
            raise SystemExit(f"tools/bazel: {error}")
        except KeyboardInterrupt:
            raise SystemExit(130)
    return folder
