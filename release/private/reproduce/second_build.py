"""The second of two builds: from scratch, by another user on what looks like another machine, years later.

Bazel's server runs in a mount namespace in which scripts replace the programs that start actions (linux-sandbox,
process-wrapper). The scripts first change umask, clock, time zone and locale for each action. So every action sees
them, even those that --action_env does not reach, but the server does not and still detects changed files by their real
times.
"""

from __future__ import annotations

import dataclasses
import getpass
import gzip
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping

from release.private.reproduce import namespace, surroundings
from release.private.reproduce.second_workspace import SecondWorkspace

# More than four years, beyond the lifetime of today's certificates, keys and licences.
DAYS_AHEAD = 1500

_UID, _GID, _USER, _HOSTNAME = 4242, 4343, "somebody", "elsewhere"
# In a form that needs no time zone database (POSIX.1, 8.3): 13 h 45 min east of Greenwich, and one to the west.
_ZONES = {"+1345": "ELSE-13:45", "-0930": "ELSE+9:30"}
_LOCALES = ("C.UTF-8", "POSIX")
_UMASKS = ("077", "027")

# Bazel's programs that start actions → how a shell recognizes the argument after or at which the action's command
# begins.
_STARTERS = {
    "linux-sandbox": ('[ "$1" = -- ]', ""),
    "process-wrapper": ('[ "${1#-}" = "$1" ]', '"$1"'),
}

_STARTER = """\
#!/bin/sh
# Starts {name} with {action} in front of the action's command.
command=later
count=$#
while [ $count -gt 0 ]; do
    if [ $command = later ] && {found}; then
        command=here
        set -- "$@" {before}
    else
        set -- "$@" "$1"
    fi
    shift
    count=$((count - 1))
done
exec {program} "$@"
"""

# Only in the action: linux-sandbox sets its own umask and must not see libfaketime.
_ACTION = """\
#!/bin/sh
# Runs an action's command with another umask, clock, time zone and locale; the last two unless it sets its own.
{lines}
exec {preload} "$@"
"""


def _differ(first: str, second: str) -> bool:
    return first != second


def _years_later(first: str, second: str) -> bool:
    return int(second[:4]) >= int(first[:4]) + 3


def _nothing(_: str, second: str) -> bool:
    return second == "none"


@dataclasses.dataclass(frozen=True)
class Variation:
    """Something in which the two builds differ.

    Attributes:
        name: as in `--without` and in the output of surroundings.py.
        about: its description, in a few words.
        namespaces: whether it needs Linux namespaces.
        took_effect: (what the first build saw, what the second saw) → whether they differ as intended.
    """

    name: str
    about: str
    namespaces: bool = False
    took_effect: Callable[[str, str], bool] = _differ


VARIATIONS = (
    Variation("workspace", "workspace"),
    Variation("output_base", "output base"),
    Variation("user", "user and group", namespaces=True),
    Variation("hostname", "host name", namespaces=True),
    Variation("umask", "umask", namespaces=True),
    Variation("locale", "locale", namespaces=True),
    Variation("time_zone", "time zone", namespaces=True),
    Variation("clock", "clock", namespaces=True, took_effect=_years_later),
    Variation("jobs", "jobs at a time"),
    Variation("toolchain", "host toolchain", namespaces=True, took_effect=_nothing),
)
NAMES = tuple(variation.name for variation in VARIATIONS)


class NotVaried(Exception):
    """A variation is not possible here; the message names it and says what to do."""


def shown(value: object) -> str:
    """A value of surroundings.py on one line; of a list only the first items."""
    if isinstance(value, list):
        names = [os.path.basename(path) if path not in surroundings.FOLDERS else path for path in value]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "none"
    return str(value)


def table(
    first: Mapping[str, object], second: Mapping[str, object], without: Collection[str]
) -> tuple[list[str], list[str]]:
    """What each build saw, one line per variation, and the variations that should have had an effect but had none."""
    rows, failed = [("", "first build", "second build", "")], []
    for variation in VARIATIONS:
        one, other = (shown(seen.get(variation.name, "unknown")) for seen in (first, second))
        if variation.name in without:
            verdict = "not varied (--without)"
        elif variation.took_effect(one, other):
            verdict = "varied"
        else:
            verdict = "NO EFFECT"
            failed.append(variation.name)
        rows.append((variation.about, one, other, verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join([cell.ljust(width) for cell, width in zip(row, widths)] + [row[3]]).rstrip() for row in rows
    ], failed


def _namespace_command(*options: str) -> list[str]:
    return [os.path.abspath(sys.executable), "-I", os.path.abspath(namespace.__file__), *options, "--"]


def check(without: Collection[str]) -> None:
    """Checks that this machine allows the variations.

    Raises:
        NotVaried: it does not.
    """
    if not {variation.name for variation in VARIATIONS if variation.namespaces} - set(without):
        return
    command = [
        *_namespace_command(
            f"--uid={_UID}", f"--gid={_GID}", f"--hostname={_HOSTNAME}", "--replace=/dev/zero=/dev/null"
        ),
        "true",
    ]
    tried = subprocess.run(command, capture_output=True, text=True)
    if tried.returncode:
        names = [variation.name for variation in VARIATIONS if variation.namespaces and variation.name not in without]
        raise NotVaried(
            f"this machine allows no namespaces ({tried.stderr.strip().removeprefix('namespace: ')}), so these cannot"
            f" be varied: {', '.join(names)}. Allow them (sysctl user.max_user_namespaces,"
            f" kernel.unprivileged_userns_clone, AppArmor), or skip them: --without {','.join(names)}"
        )


class SecondBuild(SecondWorkspace):
    """A workspace elsewhere, whose builds share only the sources and the downloads with the first.

    Args:
        workspace: the root of the first.
        place: folder for all of it; new or empty.
        first: what the first build's actions saw (surroundings.py).
        libfaketime: the library that fakes the clock.
        without: names of variations to skip.
        revision: a commit to check out; None for the files as they are.
    """

    def __init__(
        self,
        workspace: pathlib.Path,
        place: pathlib.Path,
        first: Mapping[str, object],
        libfaketime: pathlib.Path,
        without: Collection[str] = (),
        revision: str | None = None,
    ) -> None:
        super().__init__(workspace, place, revision)
        self._without = without
        self._first = first
        self.jobs = 3 if (os.cpu_count() or 1) != 3 else 4
        self._umask = self._other("umask", _UMASKS)
        self._in_actions: dict[str, str] = {}
        if "time_zone" not in without:
            self._in_actions["TZ"] = _ZONES[self._other("time_zone", tuple(_ZONES))]
        if "locale" not in without:
            self._in_actions["LC_ALL"] = self._other("locale", _LOCALES)
        # The provenance of a release names the builder.
        kept = ("GITHUB_SERVER_URL", "GITHUB_WORKFLOW_REF") if revision else ()
        self.environment |= self._in_actions | {name: os.environ[name] for name in kept if name in os.environ}
        if "user" not in without:
            # Bazel keeps downloads below a folder with the user's name; use the first build's.
            folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
            self.startup.append(
                f"--output_user_root={folder}/bazel/_bazel_{os.environ.get('USER') or getpass.getuser()}"
            )
            self.environment["USER"] = _USER
        self._profile = place / "profile.json.gz"
        self._libfaketime = self._copied(libfaketime, "libfaketime.so.1")
        if "clock" not in without:
            self._in_actions |= {
                # Time-outs depend on the monotonic clock.
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME": f"+{DAYS_AHEAD}d",
                # Keep file times, so as not to confuse tools that compare them.
                "NO_FAKE_STAT": "1",
            }

    def __enter__(self) -> SecondBuild:
        check(self._without)
        if {variation.name for variation in VARIATIONS if variation.namespaces} - set(self._without):
            # Only Bazel knows where its programs are. The server that answers runs outside the namespace, so stop it.
            base = pathlib.Path(self.bazel("info", "--color=no", "install_base", stderr=subprocess.PIPE).stdout.strip())
            self.bazel("shutdown", stderr=subprocess.PIPE)
            self.prefix = self._namespaces(base)
        return self

    def _other(self, name: str, choice: tuple[str, ...]) -> str:
        return next(value for value in choice if value != self._first.get(name))

    def _copied(self, file: pathlib.Path, name: str) -> pathlib.Path:
        folder = self.place / "tools"
        folder.mkdir(exist_ok=True)
        # The second build's sandboxes read everything in here.
        return pathlib.Path(shutil.copy(file, folder / name))

    def _script(self, name: str, text: str) -> pathlib.Path:
        path = self.place / "tools" / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def _namespaces(self, install_base: pathlib.Path) -> list[str]:
        """The command prefix that enters the second build's namespaces."""
        options = []
        if "user" not in self._without:
            options += [f"--uid={_UID}", f"--gid={_GID}"]
            # Users are in these files, or in a directory service, which a namespace does not change.
            entries = {"passwd": f"{_USER}:x:{_UID}:{_GID}::/nonexistent:/bin/sh", "group": f"{_USER}:x:{_GID}:"}
            for name, entry in entries.items():
                path = self.place / "tools" / name
                path.write_text(entry + "\n" + pathlib.Path("/etc", name).read_text(encoding="utf-8"), encoding="utf-8")
                path.chmod(0o644)
                options.append(f"--replace=/etc/{name}={path}")
        if "hostname" not in self._without:
            options.append(f"--hostname={_HOSTNAME}")
        lines = [f': "${{{name}={shlex.quote(value)}}}"; export {name}' for name, value in self._in_actions.items()]
        lines += [] if "umask" in self._without else [f"umask {self._umask}"]
        preload = "" if "clock" in self._without else f"/usr/bin/env LD_PRELOAD={shlex.quote(str(self._libfaketime))}"
        action = self._script("action.sh", _ACTION.format(lines="\n".join(lines), preload=preload))
        for name, (found, last) in _STARTERS.items():
            words = f"{shlex.quote(str(action))} {last}" if last else f'"$1" {shlex.quote(str(action))}'
            program = shlex.quote(str(self._copied(install_base / name, name)))
            script = self._script(
                f"{name}.sh", _STARTER.format(name=name, action=action, found=found, before=words, program=program)
            )
            # Bazel checks its own files for changes, by their times.
            status = (install_base / name).stat()
            os.utime(script, ns=(status.st_atime_ns, status.st_mtime_ns))
            options.append(f"--replace={install_base / name}={script}")
        if "toolchain" not in self._without:
            nothing = self.place / "tools" / "nothing"
            nothing.touch(mode=0o444)
            empty = self.place / "tools" / "empty"
            empty.mkdir()
            options.append(f"--empty={empty}")
            for tool in surroundings.toolchain():
                options.append(f"--hide={tool}" if tool in surroundings.FOLDERS else f"--replace={tool}={nothing}")
        return _namespace_command(*options)

    def build(self, options: list[str], targets: list[str]) -> pathlib.Path:
        """Builds targets without any output cache; returns bazel-bin.

        Raises:
            subprocess.CalledProcessError: the build fails.
        """
        shared = ["--color=no", "--curses=no"]
        uncached = ["--disk_cache=", "--remote_cache=", "--remote_executor="]
        jobs = [] if "jobs" in self._without else [f"--jobs={self.jobs}"]
        # libfaketime keeps state in shared memory by process id, and ids start over in each sandbox.
        sandbox = [] if "clock" in self._without else ["--sandbox_tmpfs_path=/dev/shm"]
        self.bazel(
            "build",
            *shared,
            "--show_progress_rate_limit=30",
            f"--profile={self._profile}",
            *uncached,
            *sandbox,
            *jobs,
            *options,
            *targets,
        )
        return pathlib.Path(self.bazel("info", *shared, *options, "bazel-bin", stderr=subprocess.PIPE).stdout.strip())

    def concurrency(self) -> int:
        """The most actions that ran at once in the last build, from Bazel's profile (Trace Event Format, complete
        events).
        """
        return most_at_once(json.loads(gzip.decompress(self._profile.read_bytes()))["traceEvents"])


def most_at_once(events: list[dict]) -> int:
    """The most events of the category "action processing" that overlap at any time."""
    spans = [
        (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("cat") == "action processing" and "dur" in event
    ]
    # At equal times, ends come first.
    steps = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    running = most = 0
    for _, step in steps:
        running += step
        most = max(most, running)
    return most
