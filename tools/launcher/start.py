"""Starts Bazel: finds or installs it, adds what the network profile needs, and becomes it.

Imports little, because every run pays for it.
"""

from __future__ import annotations

import os
import sys

from fetch import errors, trust

from . import find, installed, machine, options, profile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


# Commands that resolve modules or read build options. All others (version, help, shutdown, …) need no profile.
_PROFILED = frozenset(
    "aquery build config coverage cquery fetch info mod print_action query run sync test vendor".split()
)

# Commands that build, and the flags that cut a release off from every cache. They repeat `build:release` of .bazelrc at
# the end of the command line, where user.bazelrc cannot override them.
_BUILDING = frozenset("build coverage run test".split())
RELEASE_FLAGS = ("--disk_cache=", "--remote_cache=", "--remote_executor=")


def ensure_installed(version: str, offer: Callable[[], Any] = lambda: None) -> str:
    """Returns the folder of the Bazel installed from packages, and installs it first if necessary.

    Args:
      offer: provides the packages on a machine without a network and returns the list of them. It is called only if
        Bazel has to be installed.
    """
    folder = installed.prefix(machine.cache_folder(), version)
    if not os.path.exists(folder):
        from pathlib import Path

        from . import install

        install.install(Path(machine.cache_folder()), version, machine.say, offer())
    return folder


def check_installed(folder: str, release: bool) -> None:
    """Compares the Bazel in `folder` with the lock: says what differs, and refuses it for a release.

    Raises:
      errors.UserError: a release would run a Bazel that the lock does not pin.
    """
    if installed.is_locked(folder, machine.ROOT):
        return
    from pathlib import Path

    from fetch.bazel import packages

    different = packages.differences(Path(machine.ROOT), Path(folder, "manifest.json"))
    listed = "; ".join(different[:3]) + (f"; and {len(different) - 3} more" if len(different) > 3 else "")
    found = f"the Bazel in {folder} is not the one that locks/bazel.lock.json pins ({listed})"
    again = f"to install that one: rm -r {folder}, then the same command again"
    if release:
        raise errors.UserError(
            f"{found}, so a release does not use it; {again}; where Debian no longer has it: {packages.UPDATE}, and"
            " commit the lock"
        )
    machine.say(f"{found}; {again}")


def is_release(arguments: list[str], position: int) -> bool:
    """Returns whether a command line builds a release.

    Args:
      arguments: Bazel's command line.
      position: the index of the command.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return "--config=release" in arguments[position:end]


def for_release(arguments: list[str], position: int) -> list[str]:
    """Returns the arguments that a release (a command with --config=release) runs with; leaves all others unchanged.

    A release has a separate output base, so it never reuses outputs that other builds took from a cache. If you set
    --output_base yourself, you are responsible for its contents. Commands that build get RELEASE_FLAGS last, where they
    override everything else.

    Args:
      arguments: Bazel's command line.
      position: the index of the command.
    """
    if not is_release(arguments, position):
        return arguments
    end = arguments.index("--") if "--" in arguments else len(arguments)
    flags = RELEASE_FLAGS if arguments[position] in _BUILDING else ()
    arguments = [*arguments[:end], *flags, *arguments[end:]]
    if any(argument.startswith(("--output_base", "--output_user_root")) for argument in arguments[:position]):
        return arguments
    import hashlib

    base = os.path.join(machine.cache_folder(), "release", hashlib.sha256(os.fsencode(machine.ROOT)).hexdigest()[:16])
    machine.say("a release has a separate output base, where nothing comes from a cache: " + base)
    return ["--output_base=" + base, *arguments]


def command_line(arguments: list[str]) -> tuple[str, list[str]]:
    """Returns the program to execute and its argument list."""
    choice = None
    if "MLC_AIRGAP" in os.environ or any(argument.startswith("--airgap") for argument in arguments):
        from . import airgap

        choice, arguments = airgap.take_option(arguments, os.environ)
    version = machine.wanted_version()
    position = options.command_index(arguments)
    profiled = position is not None and arguments[position] in _PROFILED
    chosen_profile: str | None = None
    added: list[str] = []
    offer: Callable[[], Any] = lambda: None  # noqa: E731
    if choice and choice.paths:
        pack = choice.paths[-1]
        os.environ["MLC_NO_NETWORK"] = airgap.no_network(pack)
        store = airgap.Store(machine.cache_folder(), machine.say)
        chosen = store.use(choice, machine.ROOT)
        airgap.check_command(chosen, pack, arguments)
        offer = lambda: store.give_bazel(chosen, choice)  # noqa: E731
        if profiled:
            chosen_profile = "registries"
            machine.say(f"profile {chosen_profile}: the pack {pack}, without a network")
            added = ["--config=" + chosen_profile, *store.flags(chosen, pack)]
    elif profiled:
        chosen_profile, why = profile.choose(arguments)
        if why != "--config":
            machine.say(f"profile {chosen_profile}: {why} (set --config= or MLC_PROFILE to override)")
            added.append("--config=" + chosen_profile)
    # A bazel or bazelisk on PATH may download another Bazel.
    found = find.find_bazel(version, search=not (choice and choice.paths))
    startup: list[str] = []
    if not found or chosen_profile == "registries":
        folder = ensure_installed(version, offer)
        check_installed(folder, position is not None and is_release(arguments, position))
        if not found:
            found = folder + "/usr/bin/bazel", "packages"
            startup = installed.startup_flags(folder)
        if chosen_profile == "registries":
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
    """Becomes Bazel, so that signals reach it and its exit code is ours. Never returns."""
    try:
        position = options.command_index(arguments)
        if position is not None and arguments[position] == "doctor":
            from . import doctor

            code = doctor.main(arguments[position + 1 :], arguments[:position])
        else:
            program, line = command_line(arguments)
            # A program that `run` starts, and that starts Bazel again, gets the same profile.
            for each in profile.PROFILES:
                if "--config=" + each in line:
                    os.environ["MLC_PROFILE"] = each
            # Only the launcher's; repository rules have it from --repo_env, and a program that `run` starts may push.
            os.environ.pop("MLC_NO_NETWORK", None)
            # Keeps Bazelisk from running tools/bazel again.
            os.environ["BAZELISK_SKIP_WRAPPER"] = "true"
            os.execv(program, line)
    except KeyboardInterrupt:
        code = 130
    except errors.UserError as error:
        machine.say(str(error))
        code = 1
    sys.stdout.flush()
    # Exit at once: threads of an installation or a probe may still wait for the network.
    os._exit(code)
