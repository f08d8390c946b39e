"""Starts a remote execution service on this machine: BuildGrid, its database, a storage, and BuildBox workers.

    tools/bazel run //tools/remote:up
    tools/bazel build --config=remote //wheels/tvm              # in another terminal

The locks pin all programs. The service runs until Ctrl-C, which also stops everything that it started. Build results
stay in the state folder for the next start. It accepts connections from this machine only, but from every user on it:
use it to try remote execution, not for a team (see README.md in this folder).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2

from fetch import arguments
from tools.remote import processes, settings, storage

STARTING = 60  # time limit for the start of each process in seconds


class RemoteError(Exception):
    """The service cannot run. The message says why and what to do."""


def say(line: str) -> None:
    """Prints one line of progress on standard error."""
    print("remote: " + line, file=sys.stderr, flush=True)


def _parser() -> arguments.Parser:
    parser = arguments.Parser("//tools/remote:up", __doc__)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    number = settings.PORT
    parser.add_argument(
        "--port",
        type=int,
        help=f"port on {settings.HOST} (default: {number}, or a free one if that is in use); 0: a free one",
    )
    parser.add_argument(
        "--state",
        type=arguments.user_path,
        default=cache / "mlc-bazel-remote",
        help="folder for storage, database, logs (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=2,
        metavar="N",
        help="workers, each running one action at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--storage",
        type=_size,
        default=_size("20G"),
        metavar="SIZE",
        help="limit of the storage, which deletes old blobs first (default: 20G)",
    )
    parser.add_argument(
        "--worker-storage",
        type=_size,
        default=_size("5G"),
        metavar="SIZE",
        help="limit of each worker's cache of it (default: 5G)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="first verify every stored blob and delete damaged ones (automatic after an unclean exit)",
    )
    return parser


def _size(text: str) -> int:
    try:
        return settings.size(text)
    except ValueError as error:
        raise arguments.argparse.ArgumentTypeError(str(error)) from None


def _programs() -> settings.Programs:
    """Returns the paths that Bazel passes, relative to the folder that `bazel run` starts in."""
    names = [name for name in settings.Programs.__dataclass_fields__ if name != "python"]
    missing = [name for name in names if "REMOTE_" + name.upper() not in os.environ]
    if missing:
        raise RemoteError("expected to be started by Bazel: tools/bazel run //tools/remote:up")
    return settings.Programs(
        python=Path(sys.executable), **{name: Path(os.environ["REMOTE_" + name.upper()]).absolute() for name in names}
    )


def choose_port(wanted: int | None) -> int:
    """Chooses the port to listen on.

    Args:
      wanted: a port, 0 for any, or None for the default port or, if that is in use, any.

    Raises:
      RemoteError: the wanted port is in use.
    """
    for port in [settings.PORT, 0] if wanted is None else [wanted]:
        with socket.socket() as probe:
            # Like the scheduler's socket, so that a recently closed one does not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.HOST, port))
                return probe.getsockname()[1]
            except OSError as error:
                reason = error.strerror
    raise RemoteError(
        f"--port: expected port {wanted} of {settings.HOST} to be free, found: {reason}. Choose another, or omit --port"
        " to use a free one."
    )


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """Locks the state folder for this process.

    Raises:
      RemoteError: another process uses it.
    """
    with open(state / "lock", "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RemoteError(
                f"{state}: another //tools/remote:up uses this folder; stop it, or choose another folder with --state"
            ) from None
        yield


def require_space(state: Path, wanted: int) -> None:
    """Warns if the disk is too small for the limit of the storage.

    Raises:
      RemoteError: the disk is full.
    """
    free = shutil.disk_usage(state).free
    if free < 2 * settings.RESERVED:
        raise RemoteError(
            f"{state}: the disk is full: expected at least {2 * settings.RESERVED / 1e9:.0f} GB free, found"
            f" {free / 1e9:.1f} GB. Free some space, or choose another folder with --state."
        )
    if free < wanted:
        say(
            f"the disk of {state} has {free / 1e9:.1f} GB left: the storage will delete old blobs before"
            f" it reaches {wanted / 1e9:.1f} GB"
        )


class Service:
    """All processes, in the order of their dependencies."""

    def __init__(self, service: settings.Settings) -> None:
        self.settings = service
        self.logs = service.state / "logs"
        self.logs.mkdir(exist_ok=True)
        programs = service.programs
        # buildbox-run looks for bwrap on PATH.
        self.environment = {
            "PATH": f"{programs.bwrap.parent}:/usr/bin:/bin",
            "HOME": str(service.state),
            "TMPDIR": str(service.state / "temporary"),
        }
        (service.state / "temporary").mkdir(exist_ok=True)
        self.processes: list[processes.Process] = []

    def start(self) -> None:
        """Starts everything.

        Raises:
          ProcessError: a process does not start.
          OSError: the state folder cannot be written.
        """
        service = self.settings
        service.shell_folder.mkdir(exist_ok=True)
        shutil.copy(service.programs.busybox, service.shell_folder / "sh")
        (service.state / "scheduler.yml").write_text(service.scheduler_configuration(), encoding="utf-8")
        python = self.environment | {"PYTHONPATH": str(service.programs.buildgrid)}

        self._run(
            "storage", service.storage_command(), self.environment, lambda: self._answers(service.storage_address())
        )
        if not (service.state / "database/PG_VERSION").exists():
            say("creating the database")
            shutil.rmtree(service.state / "database", ignore_errors=True)  # Left by a killed start.
            self._once("database", service.initdb_command(), self.environment)
        # SIGINT is PostgreSQL's fast shutdown, which does not wait for clients.
        self._run("database", service.postgres_command(), self.environment, self._database_answers, signal.SIGINT)
        self._once("scheduler", service.migrate_command(), python)
        self._run("scheduler", service.scheduler_command(), python, self._scheduler_answers)
        for number in range(1, service.workers + 1):
            command, address = service.worker_storage_command(number), service.worker_address(number)
            self._run(f"worker{number}_storage", command, self.environment, functools.partial(self._answers, address))
            self._run(
                f"worker{number}",
                service.worker_command(number),
                self.environment,
                functools.partial(self._registered, number),
            )

    def watch(self) -> None:
        """Restarts processes that fail, until it is interrupted.

        Raises:
          ProcessError: a process fails again and again.
        """
        while True:
            time.sleep(0.2)
            for process in self.processes:
                status = process.fallen()
                if status is not None:
                    say(f"{process.name} ended with status {status}; restarting it (log: {process.log})")
                    process.start_again()

    def stop(self) -> None:
        """Stops everything, workers first."""
        for process in reversed(self.processes):
            process.stop()

    def _run(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        ready: Callable[[], bool],
        stop_signal: int = signal.SIGTERM,
    ) -> None:
        say(f"starting {name}")
        process = processes.Process(name, command, self.logs / f"{name}.log", environment, ready, stop_signal)
        self.processes.append(process)
        process.start()
        process.wait_until_ready(STARTING)

    def _once(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        log = self.logs / f"{name}.log"
        with open(log, "ab") as file:
            status = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            ).returncode
        if status:
            raise processes.ProcessError(
                f"setting up {name} failed with status {status}. The end of {log}:\n{processes.last_lines(log)}"
            )

    @staticmethod
    def _answers(address: str) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return not client.connect_ex(address.removeprefix("unix:"))

    def _scheduler_answers(self) -> bool:
        with socket.socket() as client:
            return not client.connect_ex((settings.HOST, self.settings.port))

    def _query(self, database: str, statement: str, *values: object) -> list[tuple]:
        connection = psycopg2.connect(host=str(self.settings.sockets), user="buildgrid", dbname=database)
        try:
            connection.autocommit = True  # CREATE DATABASE cannot run in a transaction.
            with connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def _database_answers(self) -> bool:
        try:
            if not self._query("postgres", "SELECT 1 FROM pg_database WHERE datname = 'buildgrid'"):
                self._query("postgres", "CREATE DATABASE buildgrid")
            return True
        except psycopg2.OperationalError:
            return False

    def _registered(self, number: int) -> bool:
        return bool(self._query("buildgrid", "SELECT 1 FROM bots WHERE bot_id = %s", f"worker{number}"))


def serve(options: arguments.argparse.Namespace) -> None:
    """Runs the service until SIGINT or SIGTERM."""
    if options.workers < 1:
        raise RemoteError(f"--workers: expected 1 or more, found {options.workers}")
    programs = _programs()
    state = options.state.absolute()
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(state), tempfile.TemporaryDirectory(prefix="mlc-remote-") as sockets:
        require_space(state, options.storage)
        running = state / "running"
        service = settings.Settings(
            programs=programs,
            state=state,
            sockets=Path(sockets),
            port=choose_port(options.port),
            workers=options.workers,
            storage=options.storage,
            worker_storage=options.worker_storage,
            as_root=os.geteuid() == 0,
        )
        folders = [service.storage_folder, *(service.worker_folder(number) for number in range(1, options.workers + 1))]
        if options.check or running.exists():
            say("verifying the stored blobs" + ("" if options.check else ", because the last run was killed"))
            say(f"{sum(storage.remove_damaged(folder) for folder in folders)} damaged blobs deleted")
        running.touch()
        all_of_it = Service(service)
        try:
            all_of_it.start()
            say(f"ready: {options.workers} workers; logs in {all_of_it.logs}")
            say(
                "in another terminal: tools/bazel build "
                + " ".join(service.bazel_flags())
                + " …; Ctrl-C here stops the service"
            )
            all_of_it.watch()
        finally:
            say("stopping")
            # A second Ctrl-C must not leave some processes running.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            all_of_it.stop()
            running.unlink(missing_ok=True)


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    processes.die_with_parent(signal.SIGTERM)
    try:
        serve(options)
    except KeyboardInterrupt:
        return 0
    except (RemoteError, processes.ProcessError) as error:
        say(str(error))
    except OSError as error:
        full = (
            " (the disk is full: free some space, or choose another folder with --state)"
            if error.errno == errno.ENOSPC
            else ""
        )
        say(f"{error.filename or options.state}: {error.strerror}{full}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
