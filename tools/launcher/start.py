"""Starts Bazel: finds or installs it, adds what the network profile needs, and becomes it.

Imports little, because every run pays for it.
"""

from __future__ import annotations

import os
import signal
import sys

from fetch import errors, folders, trust
from fetch.bazel import hosts

from . import find, installed, machine, options, profile, rc_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


# Commands that resolve modules or read build options. All others (version, help, shutdown, …) need no profile.
_PROFILED = frozenset(
    "aquery build config coverage cquery fetch info mod print_action query run sync test vendor".split()
)

# Commands that build: only they get a release's options a second time.
_BUILDING = frozenset("build coverage mobile-install run test".split())


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
    """Compares the Bazel in `folder` with this machine's lock: says what differs, and refuses it for a release.

    Raises:
      errors.UserError: a release would run a Bazel that the lock does not pin.
    """
    if installed.is_locked(folder, machine.ROOT):
        return
    from pathlib import Path

    from fetch.bazel import packages

    here = installed.host()
    assert here  # A Bazel was installed.
    different = packages.differences(Path(machine.ROOT), here, Path(folder, "manifest.json"))
    listed = "; ".join(different[:3]) + (f"; and {len(different) - 3} more" if len(different) > 3 else "")
    found = f"the Bazel in {folder} is not the one that locks/{here.lock} pins ({listed})"
    again = f"to install that one: rm -r {folder}, then the same command again"
    if release:
        raise errors.UserError(
            f"{found}, so a release does not use it; {again}; where Debian no longer has it: {packages.UPDATE}, and"
            " commit the lock"
        )
    machine.say(f"{found}; {again}")


def with_own_rc_file(line: options.CommandLine) -> options.CommandLine:
    """Returns the command line of a release that reads no rc file but the repository's own.

    Bazel cannot read .bazelrc without what that imports, so it gets a copy without these lines.
    """
    ignored = rc_files.foreign(line.startup)
    if ignored:
        machine.say(
            f"a release ignores {' and '.join(ignored)}: put options on the command line, and MLC_SOURCES into a"
            " variable"
        )
    path = _release_base() + ".bazelrc"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(f"{path}.{os.getpid()}", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(rc_files.own_text())
        os.replace(file.name, path)
    except OSError as error:
        raise errors.UserError(f"a release needs a copy of .bazelrc in the cache: {_why(error)}") from None
    line = line.with_startup("--nosystem_rc", "--nohome_rc", "--noworkspace_rc", "--bazelrc=" + path)
    return line if "release" in line.configs else line.with_first("--config=release")


def _release_base(folder: str = "") -> str:
    import hashlib

    name = hashlib.sha256(os.fsencode(machine.ROOT)).hexdigest()[:16]
    return os.path.join(folder or machine.cache_folder(), "release", name)


def check_release_machine() -> None:
    """Refuses to build a release on a processor other than x86-64.

    Raises:
      errors.UserError: this machine has another one.
    """
    processor = os.uname().machine
    if processor != hosts.X86_64.processor:
        raise errors.UserError(
            f"a release is built on {hosts.X86_64} only, and this machine is {processor}: what is published with it"
            f" names the compilers and the Bazel of that processor. Build without --config=release here, or release on"
            f" {hosts.X86_64}, which makes everything for arm64 too"
        )


def check_supplied(found: tuple[str, str]) -> None:
    """Refuses a Bazel that this machine already has for a release, unless the user says otherwise.

    Raises:
      errors.UserError: it was not said otherwise.
    """
    if os.environ.get("MLC_UNLOCKED_BAZEL") != "1":
        raise errors.UserError(
            f"a release is built by the Bazel that locks/bazel.lock.json pins, and {found[0]} (from {found[1]}) is not"
            " compared with it. Take it out of BAZEL_REAL or PATH; or set MLC_UNLOCKED_BAZEL=1, and the provenance says"
            " that no lock pins it"
        )


def for_release(line: options.CommandLine) -> options.CommandLine:
    """Returns the command line that a release (a command with --config=release) runs with.

    A release has a separate output base, so it never reuses outputs that other builds took from a cache: in the folder
    of --output_user_root, else in the launcher's cache folder. If you set --output_base yourself, you are responsible
    for its contents. Commands that build get the options of `build:release`
    in the repository's own .bazelrc once more behind all others, where the command line cannot override them.
    """
    if line.command in _BUILDING:
        repeated = rc_files.own_options("build:release")
        if not repeated:
            raise errors.UserError(
                f"{machine.ROOT}/.bazelrc: expected lines 'build:release …', which make a build a release, found none."
                " Restore it: git checkout .bazelrc"
            )
        line = line.with_last(*repeated)
    if options.startup_values(line.startup, "--output_base"):
        return line
    # The root that the user gives is for outputs, but those of other builds are there too.
    roots = options.startup_values(line.startup, "--output_user_root")
    base = _release_base(os.path.abspath(roots[-1]) if roots else "")
    machine.say("a release has a separate output base, where nothing comes from a cache: " + base)
    return line.with_startup("--output_base=" + base)


def with_output_root(line: options.CommandLine) -> options.CommandLine:
    """Returns the command line for a user whose home Bazel cannot write its outputs to, as in some containers.

    They go into the launcher's cache folder, else where Bazel puts them if there is no home at all.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("HOME")
    if not home or os.environ.get("TEST_TMPDIR") or machine.is_writable(os.path.join(home, ".cache")):
        return line
    startup = [*line.startup, *rc_files.startup_options(line)]
    if options.startup_values(startup, "--output_user_root"):  # --output_base is not enough for Bazel.
        return line
    try:
        folder = os.path.join(machine.cache_folder(), "output")
    except folders.NoCacheError:
        folder = ""
    if not machine.is_writable(folder):
        # Where Bazel itself goes without a home.
        folder = f"/tmp/_bazel_{os.environ.get('USER') or os.getuid()}"  # noqa: S108
    machine.say(f"{home} cannot be written, so Bazel keeps its outputs in {folder}")
    return line.with_startup("--output_user_root=" + folder)


def command_line(arguments: list[str]) -> tuple[str, list[str], str | None]:
    """Returns the program to execute, its argument list, and the network profile if the command needs one."""
    choice = None
    if "MLC_AIRGAP" in os.environ or any(argument.startswith("--airgap") for argument in arguments):
        from . import airgap

        choice, arguments = airgap.take_option(arguments, os.environ)
    version = machine.wanted_version()
    line = options.CommandLine(arguments)
    configs = rc_files.configs(line)
    if "release" in configs:
        if line.command in _BUILDING:
            from . import release_options

            check_release_machine()
            release_options.check(line)
        line = with_own_rc_file(line)
        configs = rc_files.configs(line)
    profiled = line.command in _PROFILED
    chosen_profile: str | None = None
    added: list[str] = []
    offer: Callable[[], Any] = lambda: None  # noqa: E731
    if choice and choice.paths:
        pack = choice.paths[-1]
        os.environ["MLC_NO_NETWORK"] = airgap.no_network(pack)
        store = airgap.Store(machine.cache_folder(), machine.say)
        chosen = store.use(choice, machine.ROOT)
        airgap.check_command(chosen, pack, configs)
        offer = lambda: store.give_bazel(chosen, choice)  # noqa: E731
        if profiled:
            chosen_profile = "registries"
            machine.say(f"profile {chosen_profile}: the pack {pack}, without a network")
            added = ["--config=" + chosen_profile, *store.flags(chosen, pack)]
    elif profiled:
        chosen_profile, why = profile.choose(configs)
        if chosen_profile not in configs:
            machine.say(f"profile {chosen_profile}: {why} (set --config= or MLC_PROFILE to override)")
            added.append("--config=" + chosen_profile)
    if profiled and installed.host() is hosts.ARM64:
        if "cuda" in configs:
            raise errors.UserError(
                f"--config=cuda ({configs['cuda']}): NVIDIA's compiler is locked for {hosts.X86_64} only, and this"
                f" machine is {hosts.ARM64}. Leave it out, or build on {hosts.X86_64}, also for arm64"
            )
        added.append("--config=on-arm64")
    # A bazel or bazelisk on PATH may download another Bazel.
    found = find.find_bazel(version, search=not (choice and choice.paths))
    if found and "release" in configs:
        check_supplied(found)
    startup: list[str] = []
    if not found or chosen_profile == "registries":
        folder = ensure_installed(version, offer)
        check_installed(folder, "release" in configs)
        if not found:
            found = folder + "/usr/bin/bazel", "packages"
            startup = installed.startup_flags(folder)
        if chosen_profile == "registries":
            added += installed.module_flags(folder)
    try:
        certificates = trust.store(machine.cache_folder())
        if certificates:
            startup.append("--host_jvm_args=-Djavax.net.ssl.trustStore=" + certificates)
    except (OSError, folders.NoCacheError) as error:
        machine.say(f"no cache, so Bazel does not trust this machine's certificate authorities: {_why(error)}")
    if added:
        line = line.with_first(*added)
    if "release" in configs:
        line = for_release(line)
    if line.command:
        line = with_output_root(line)
    return found[0], [found[0], *startup, *line.arguments], chosen_profile


def _why(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    return f"{error.filename}: {error.strerror}. Set MLC_BAZEL_CACHE to a folder that you can write."


def _refuse_a_loop(program: str) -> None:
    """Refuses a program that leads back here. It keeps the process, as does a program of `bazel run`, which may."""
    here = f"{os.getpid()} {os.environ.get('BUILD_WORKSPACE_DIRECTORY', '')}"
    if os.environ.get("MLC_LAUNCHER_PROCESS") == here:
        raise errors.UserError(f"'{program}' starts tools/bazel again: expected Bazel. Set BAZEL_REAL to its path.")
    os.environ["MLC_LAUNCHER_PROCESS"] = here


def _open_standard_streams() -> None:
    """Opens those that are closed on nothing, or the next files would become them, and Bazel write into these."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # The lowest that is free, so this one.
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", closefd=False))  # noqa: SIM115


def main(arguments: list[str]) -> NoReturn:
    """Becomes Bazel, so that signals reach it and its exit code is ours. Never returns."""
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # Names of files are any bytes.
    try:
        line = options.CommandLine(arguments)
        if line.command == "doctor":
            from . import doctor

            code = doctor.main(arguments[len(line.startup) + 1 :], line.startup)
        else:
            program, command, chosen_profile = command_line(arguments)
            if chosen_profile:
                # A program that `run` starts, and that starts Bazel again, gets the same profile.
                os.environ["MLC_PROFILE"] = chosen_profile
            # Only the launcher's; repository rules have it from --repo_env, and a program that `run` starts may push.
            os.environ.pop("MLC_NO_NETWORK", None)
            if "USER" not in os.environ and not folders.user_name():
                os.environ["USER"] = str(os.getuid())  # Bazel wants a name, which some containers' users lack.
            # Keeps Bazelisk from running tools/bazel again.
            os.environ["BAZELISK_SKIP_WRAPPER"] = "true"
            _refuse_a_loop(program)
            # Python ignores these, and Bazel and all that it starts would inherit it.
            for name in ("SIGPIPE", "SIGXFSZ"):
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            if line.command == "run":
                from . import checks

                # With the options that Bazel gets, not those that were given.
                command[1:], code = checks.before(program, options.CommandLine(command[1:]))
                if code:
                    os._exit(code)
            os.execv(program, command)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # As `doctor | head` has it.
        code = 1
    except errors.UserError as error:
        machine.say(str(error))
        code = 1
    try:
        sys.stdout.flush()
    except OSError:
        code = code or 1
    # Exit at once: threads of an installation or a probe may still wait for the network.
    os._exit(code)
