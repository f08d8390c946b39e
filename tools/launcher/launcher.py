"""What tools/bazel does on every run; imports little, since each run pays for it."""

from __future__ import annotations

import json
import os
import sys

from fetch import errors, trust

from . import installed, machine, options

# Every command starts here: nothing is imported that only types need.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
PROFILES = ("upstream", "registries")
# What a probe of the network or of a program found is believed for so long.
KEPT_SECONDS = 3600
_PROBE_SECONDS = 2.0

# Commands that resolve modules or read the build's options; the others (version, help, shutdown, …) need no profile.
_PROFILED = frozenset("aquery build config coverage cquery fetch info mod print_action query run sync test vendor".split())

# Commands that build, and what a release is built without: `build:release` of .bazelrc, repeated where no user.bazelrc comes after it.
_BUILDING = frozenset("build coverage run test".split())
RELEASE_FLAGS = ("--disk_cache=", "--remote_cache=", "--remote_executor=")

# Startup options whose value may be the next argument.
WITH_VALUE = frozenset(
    """
    --airgap --bazelrc --command_port --connect_timeout_secs --digest_function --failure_detail_out --host_jvm_args --install_base
    --invocation_policy --io_nice_level --local_startup_timeout_secs --macos_qos_class --max_idle_secs --output_base
    --output_user_root --server_javabase --server_jvm_out --unix_digest_hash_attribute_name
    """.split()
)


def say(line: str) -> None:
    """One line to the user, on standard error, where it does not mix with Bazel's output."""
    print("tools/bazel: " + line, file=sys.stderr, flush=True)


def cache_folder() -> str:
    """Where the launcher keeps what it installs: $MLC_BAZEL_CACHE, else below the user's cache folder."""
    chosen = os.environ.get("MLC_BAZEL_CACHE")
    if chosen:
        return os.path.abspath(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "mlc-bazel")


def wanted_version() -> str:
    """The version in .bazelversion."""
    path = os.path.join(ROOT, ".bazelversion")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().split()[0]
    except (OSError, IndexError) as error:
        raise errors.UserError(f"{path}: expected a version of Bazel, found none ({error}). Restore it: git checkout .bazelversion") from error


def command_index(arguments: Sequence[str]) -> int | None:
    """The position of Bazel's command (the first argument that belongs to no startup option), or None."""
    position = 0
    while position < len(arguments):
        if not arguments[position].startswith("-"):
            return position
        position += 2 if arguments[position] in WITH_VALUE else 1
    return None


def remembered(name: str, key: str) -> Any:
    """What `remember` was given for this name and key within the last hour, else None."""
    return _memory(name).get(key, {}).get("value")


def _memory(name: str) -> dict[str, dict[str, Any]]:
    try:
        with open(os.path.join(cache_folder(), name + ".json"), encoding="utf-8") as file:
            known = json.load(file)
        return {key: entry for key, entry in known.items() if 0 <= time.time() - entry["time"] < KEPT_SECONDS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def remember(name: str, key: str, value: object) -> None:
    """Keeps a finding for the next runs; a cache that cannot be written is no error."""
    path = os.path.join(cache_folder(), name + ".json")
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump({**_memory(name), key: {"value": value, "time": time.time()}}, file)
        os.replace(temporary, path)
    except OSError:
        pass


def choose_profile(arguments: Sequence[str] = (), anew: bool = False) -> tuple[str, str]:
    """The network profile and why: from --config=, else MLC_PROFILE, else a probe that is kept for an hour.

    Args:
      arguments: Bazel's command line.
      anew: probe even if an earlier answer is still good.
    """
    for profile in PROFILES:
        if "--config=" + profile in arguments:
            return profile, "--config"
    chosen = os.environ.get("MLC_PROFILE")
    if chosen:
        if chosen not in PROFILES:
            raise errors.UserError(f"MLC_PROFILE: expected {' or '.join(PROFILES)}, found '{chosen}'")
        return chosen, "MLC_PROFILE"
    known = None if anew else remembered("profile", "probe")
    if not known:
        from . import probe

        known = probe.profile(_PROBE_SECONDS)
        remember("profile", "probe", known)
    name, why = known
    return name, why


def find_bazel(version: str) -> tuple[str, str] | None:
    """A Bazel of this machine that suits: (path, where it was found), or None.

    Args:
      version: what .bazelversion says; $BAZEL_REAL (Bazelisk sets it) is taken whatever it is.
    """
    real = os.environ.get("BAZEL_REAL")
    if real:
        if not os.access(real, os.X_OK):
            raise errors.UserError(f"BAZEL_REAL: expected the path of a Bazel program, found '{real}', which cannot be run. Unset it.")
        return real, "BAZEL_REAL"
    ourselves = os.path.join(ROOT, "tools", "bazel")
    for name in ("bazelisk", "bazel"):
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
            path = os.path.join(folder or ".", name)
            if os.access(path, os.X_OK) and os.path.isfile(path) and not os.path.samefile(path, ourselves):
                if _version_of(path) == version:
                    return path, "PATH"
    return None


def _version_of(path: str) -> str:
    """What `<path> --version` says, remembered for an hour."""
    status = os.stat(path)
    key = f"{os.path.realpath(path)} {status.st_mtime_ns} {status.st_size} {wanted_version()}"
    known = remembered("version", key)
    if known is None:
        from . import probe

        known = probe.bazel_version(path, ROOT)
        remember("version", key, known)
    return known


def ensure_installed(version: str, offer: Callable[[], Any] = lambda: None) -> str:
    """The folder of the Bazel that is made of packages; installed now if it is not there.

    Args:
      offer: brings the packages and returns the list of them, for a machine without a network; asked only if Bazel is installed.
    """
    folder = installed.prefix(machine.cache_folder(), version)
    if not os.path.exists(folder):
        from pathlib import Path

        from . import bootstrap

        bootstrap.install(Path(machine.cache_folder()), version, machine.say, offer())
    return folder


def for_release(arguments: list[str], position: int) -> list[str]:
    """What a release, a command with --config=release, is started with instead; the arguments themselves if it is none.

    Its output base is its own: what others have taken from a cache stays in theirs. Who names an output base answers for it. A building command gets
    RELEASE_FLAGS behind all other options, where they count.

    Args:
      arguments: Bazel's command line.
      position: of the command.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if "--config=release" not in arguments[position:end]:
        return arguments
    flags = RELEASE_FLAGS if arguments[position] in _BUILDING else ()
    arguments = [*arguments[:end], *flags, *arguments[end:]]
    if any(argument.startswith(("--output_base", "--output_user_root")) for argument in arguments[:position]):
        return arguments
    import hashlib

    base = os.path.join(machine.cache_folder(), "release", hashlib.sha256(os.fsencode(machine.ROOT)).hexdigest()[:16])
    machine.say("a release has an output base of its own, where nothing came from a cache: " + base)
    return ["--output_base=" + base, *arguments]


def command_line(arguments: list[str]) -> tuple[str, list[str]]:
    """The program to become and its whole argument list."""
    packs: list[str] = []
    if "MLC_AIRGAP" in os.environ or any(argument.startswith("--airgap") for argument in arguments):
        from . import airgap

        packs, arguments = airgap.take_option(arguments, os.environ)
    version = machine.wanted_version()
    position = options.command_index(arguments)
    profiled = position is not None and arguments[position] in _PROFILED
    profile: str | None = None
    added: list[str] = []
    offer: Callable[[], Any] = lambda: None  # noqa: E731
    if packs:
        store = airgap.Store(machine.cache_folder(), machine.say)
        chosen = store.use(packs, machine.ROOT)
        airgap.check_command(chosen, packs[-1], arguments)
        offer = lambda: store.give_bazel(chosen)  # noqa: E731
        if profiled:
            profile = "registries"
            machine.say(f"profile {profile}: the pack {packs[-1]}, without a network")
            added = ["--config=" + profile, *store.flags(chosen, packs[-1])]
    elif profiled:
        profile, why = machine.choose_profile(arguments)
        if why != "--config":
            machine.say(f"profile {profile}: {why} (--config= or MLC_PROFILE decides otherwise)")
            added.append("--config=" + profile)
    found = find_bazel(version)
    startup: list[str] = []
    if not found or profile == "registries":
        folder = ensure_installed(version, offer)
        if not found:
            found = folder + "/usr/bin/bazel", "packages"
            startup = installed.startup_flags(folder)
        if profile == "registries":
            added += installed.module_flags(folder)
    certificates = trust.store(machine.cache_folder())
    if certificates:
        startup.append("--host_jvm_args=-Djavax.net.ssl.trustStore=" + certificates)
    if added and position is not None:
        arguments = [*arguments[: position + 1], *added, *arguments[position + 1 :]]
    if position is not None:
        arguments = for_release(arguments, position)
    return found[0], [found[0], *startup, *arguments]


def main(arguments: list[str]) -> NoReturn:
    """Becomes Bazel, so that signals and the exit code are Bazel's; returns never."""
    try:
        position = options.command_index(arguments)
        if position is not None and arguments[position] == "doctor":
            from . import doctor

            code = doctor.main(arguments[position + 1 :], arguments[:position])
        else:
            program, line = command_line(arguments)
            # What is started by `run`, and starts Bazel again, gets the same.
            for profile in PROFILES:
                if "--config=" + profile in line:
                    os.environ["MLC_PROFILE"] = profile
            # Else Bazelisk would run tools/bazel again.
            os.environ["BAZELISK_SKIP_WRAPPER"] = "true"
            os.execv(program, line)
    except KeyboardInterrupt:
        code = 130
    except errors.UserError as error:
        machine.say(str(error))
        code = 1
    sys.stdout.flush()
    # At once: threads of an installation or a probe may still wait for the network.
    os._exit(code)
