"""What tools/bazel does on every run; imports little, since each run pays for it."""

from __future__ import annotations

import os
import sys

from fetch import errors, trust

from . import installed, machine, options

# Every command starts here: nothing is imported that only types need.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


# Commands that resolve modules or read the build's options; the others (version, help, shutdown, …) need no profile.
_PROFILED = frozenset(
    "aquery build config coverage cquery fetch info mod print_action query run sync test vendor".split()
)

# Commands that build, and what a release is built without: `build:release` of .bazelrc, repeated where no user.bazelrc
# comes after it.
_BUILDING = frozenset("build coverage run test".split())
RELEASE_FLAGS = ("--disk_cache=", "--remote_cache=", "--remote_executor=")


def ensure_installed(version: str, offer: Callable[[], Any] = lambda: None) -> str:
    """The folder of the Bazel that is made of packages; installed now if it is not there.

    Args:
      offer: brings the packages and returns the list of them, for a machine without a network; asked only if Bazel is
        installed.
    """
    folder = installed.prefix(machine.cache_folder(), version)
    if not os.path.exists(folder):
        from pathlib import Path

        from . import bootstrap

        bootstrap.install(Path(machine.cache_folder()), version, machine.say, offer())
    return folder


def for_release(arguments: list[str], position: int) -> list[str]:
    """What a release, a command with --config=release, is started with instead; the arguments themselves if it is none.

    Its output base is its own: what others have taken from a cache stays in theirs. Who names an output base answers
    for it. A building command gets
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
    found = machine.find_bazel(version)
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
            for profile in machine.PROFILES:
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
