"""Command lines of the processes of //tools/remote, the scheduler's configuration, and flags for Bazel."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
# The port of --config=remote in .bazelrc.
PORT = 8980

# A storage leaves this much of the disk free, and deletes old blobs before it reaches its limit if necessary.
RESERVED = 10**9

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}

# Seconds after which the scheduler considers a silent worker dead and gives its action to another.
WORKER_SILENT = 40


def size(text: str) -> int:
    """Parses a size in bytes: a number with an optional K, M, G or T (powers of 1000).

    >>> size("1.5G")
    1500000000

    Raises:
      ValueError: the text is not such a number, or it is 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text)
    if not found or not float(found[1]):
        raise ValueError(f"expected a size like 500M or 20G, found {text!r}")
    return int(float(found[1]) * _UNITS[found[2]])


@dataclass(frozen=True)
class Programs:
    """Paths of the locked programs."""

    buildgrid: Path  # folder of installed Python packages
    buildbox_casd: Path
    buildbox_run: Path
    buildbox_worker: Path
    busybox: Path
    bwrap: Path
    initdb: Path
    postgres: Path
    python: Path


@dataclass(frozen=True)
class Settings:
    """A scheduler, a storage, and workers.

    Args:
      state: folder for everything that outlives the processes.
      sockets: folder for sockets, whose path must be short (about 60 bytes).
      port: port of the scheduler on HOST.
      workers: number of workers.
      storage: limit of the storage in bytes.
      worker_storage: limit of each worker's cache of it in bytes.
      as_root: whether this is the superuser, for whom PostgreSQL refuses to run.
    """

    programs: Programs
    state: Path
    sockets: Path
    port: int
    workers: int
    storage: int
    worker_storage: int
    as_root: bool

    @property
    def database(self) -> str:
        """Address of the database for SQLAlchemy, with the client that BuildGrid requires."""
        return f"postgresql+psycopg2://buildgrid@/buildgrid?host={self.sockets}"

    @property
    def storage_folder(self) -> Path:
        return self.state / "storage"

    @property
    def shell_folder(self) -> Path:
        """The folder that actions see as /bin."""
        return self.state / "bin"

    def worker_folder(self, number: int) -> Path:
        return self.state / f"worker{number}"

    def storage_address(self) -> str:
        return f"unix:{self.sockets}/storage"

    def worker_address(self, number: int) -> str:
        return f"unix:{self.sockets}/worker{number}"

    # Command lines -------------------------------------------------------------------------------------------------

    def postgres_user(self) -> list[str]:
        """Returns a prefix that runs PostgreSQL as root in a user namespace, as an ordinary user who owns the files.

        PostgreSQL refuses to run as root.
        """
        if not self.as_root:
            return []
        return [
            str(self.programs.bwrap),
            "--dev-bind",
            "/",
            "/",
            "--unshare-user",
            "--uid",
            "1000",
            "--gid",
            "1000",
            "--die-with-parent",
            "--",
        ]

    def initdb_command(self) -> list[str]:
        initdb = [
            str(self.programs.initdb),
            f"--pgdata={self.state / 'database'}",
            "--username=buildgrid",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
        ]
        return self.postgres_user() + initdb

    def postgres_command(self) -> list[str]:
        options = {
            # Accept connections only by the socket, from anyone who can enter its folder.
            "listen_addresses": "",
            "unix_socket_directories": str(self.sockets),
            "jit": "off",
            "timezone": "GMT",
            "log_timezone": "GMT",
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return self.postgres_user() + [str(self.programs.postgres), "-D", str(self.state / "database"), *settings]

    def migrate_command(self) -> list[str]:
        return self._bgd("migrate", "apply", self.database)

    def scheduler_command(self) -> list[str]:
        return self._bgd("server", "start", str(self.state / "scheduler.yml"))

    def storage_command(self) -> list[str]:
        return self._casd(self.storage, self.storage_address(), self.storage_folder)

    def worker_storage_command(self, number: int) -> list[str]:
        remote = f"--cas-remote={self.storage_address()}"
        return self._casd(self.worker_storage, self.worker_address(number), self.worker_folder(number), remote)

    def worker_command(self, number: int) -> list[str]:
        return [
            str(self.programs.buildbox_worker),
            f"--bots-remote=http://{HOST}:{self.port}",
            f"--cas-remote={self.worker_address(number)}",
            f"--buildbox-run={self.programs.buildbox_run}",
            # Everything that an action sees in addition to its inputs, whose programs need a shell to start.
            f"--runner-arg=--ro-bind-mount={self.shell_folder}:/bin",
            "--runner-arg=--staging-mode=copy-or-link",
            "--graceful-shutdown-timeout=1",
            "--log-level=warning",
            f"worker{number}",
        ]

    def _bgd(self, *arguments: str) -> list[str]:
        # The code of the command bgd, which a python_environment does not have.
        return [
            str(self.programs.python),
            "-c",
            "import sys; from buildgrid.server.app import cli; sys.exit(cli())",
            *arguments,
        ]

    def _casd(self, limit: int, address: str, folder: Path, *arguments: str) -> list[str]:
        return [
            str(self.programs.buildbox_casd),
            *arguments,
            f"--bind={address}",
            f"--quota-high={limit}",
            "--quota-low=80%",
            f"--reserved={RESERVED}",
            "--log-level=warning",
            str(folder),
        ]

    # Configuration -------------------------------------------------------------------------------------------------

    def scheduler_configuration(self) -> str:
        """Returns BuildGrid's configuration (see its reference.yml).

        Blobs and results are in the storage; jobs are in the database.
        """
        return f"""\
# tools/bazel run //tools/remote:up writes this file at every start.
server:
  - !channel
    address: "{HOST}:{self.port}"
    insecure-mode: true
grpc-server-options:
  # Otherwise two schedulers could share a port, and half of the requests would reach the wrong one.
  grpc.so_reuseport: 0
connections:
  - !sql-connection &database
    connection-string: {self.database}
    pool-size: 10
    pool-timeout: 30
    max-overflow: 20
storages:
  - !remote-storage &storage
    url: {self.storage_address()}
    instance-name: ""
caches:
  - !remote-action-cache &results
    url: {self.storage_address()}
    instance-name: ""
schedulers:
  - !sql-scheduler &scheduler
    sql: *database
    storage: *storage
    action-cache: *results
    bot-session-keepalive-timeout: {WORKER_SILENT}
    max-execution-timeout: 3600
    pruner-job-max-age: {{ days: 1 }}
    pruner-period: {{ minutes: 10 }}
    assigners:
      - !priority-age-assigner
        count: 1
        interval: 0.05
instances:
  - name: ""
    services:
      - !action-cache
        cache: *results
      - !execution
        scheduler: *scheduler
        operation-stream-keepalive-timeout: 30
      - !cas
        storage: *storage
      - !bytestream
        storage: *storage
thread-pool-size: 200
"""

    def bazel_flags(self) -> list[str]:
        """Returns the flags that make Bazel use this scheduler."""
        if self.port == PORT:
            return ["--config=remote"]
        return ["--config=remote", f"--remote_executor=grpc://{HOST}:{self.port}"]
