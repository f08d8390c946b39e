"""The programs that //tools/remote:up starts, and the variables that tell it their paths."""

_BUILDGRID = Label(":buildgrid")

_PROGRAMS = {
    "BUILDBOX_CASD": Label("@debian_remote_workers//:usr/bin/buildbox-casd"),
    "BUILDBOX_RUN": Label("@debian_remote_workers//:usr/bin/buildbox-run-bubblewrap"),
    "BUILDBOX_WORKER": Label("@debian_remote_workers//:usr/bin/buildbox-worker"),
    "BUSYBOX": Label("@debian_shell//:bin/busybox"),
    "BWRAP": Label("@debian_remote_workers//:usr/bin/bwrap"),
    "INITDB": Label("@debian_remote_scheduler//:usr/lib/postgresql/15/bin/initdb"),
    "POSTGRES": Label("@debian_remote_scheduler//:usr/lib/postgresql/15/bin/postgres"),
}

# All programs except BuildGrid.
REMOTE_PROGRAMS = _PROGRAMS.values() + [
    Label("@debian_remote_scheduler//:postgresql"),
    Label("@debian_remote_workers//:workers"),
]

# `data` and `env` for targets that run up.py.
REMOTE_DATA = REMOTE_PROGRAMS + [_BUILDGRID]

REMOTE_ENV = {"REMOTE_" + name: "$(rootpath {})".format(label) for name, label in ({"BUILDGRID": _BUILDGRID} | _PROGRAMS).items()}
