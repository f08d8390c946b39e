"""//tools/remote starts its processes with safe and consistent settings."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import socket
import subprocess
import sys

import pytest

from tools.remote import settings, storage, up

NAMES = [field.name for field in dataclasses.fields(settings.Programs)]


@pytest.fixture
def service(tmp_path: pathlib.Path) -> settings.Settings:
    programs = settings.Programs(**{name: pathlib.Path("/programs", name) for name in NAMES})
    return settings.Settings(programs, tmp_path, pathlib.Path("/sockets"), 4321, 2, 10**9, 10**8, as_root=True)


def test_sizes_are_read_in_powers_of_1000() -> None:
    assert [settings.size(text) for text in ("1", "20K", "1.5G", "2T")] == [1, 20_000, 1_500_000_000, 2 * 10**12]


@pytest.mark.parametrize("text", ["", "0", "-1G", "1GB", "many"])
def test_malformed_sizes_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size like 500M"):
        settings.size(text)


def test_buildgrid_takes_the_configuration(service: settings.Settings) -> None:
    """Checks with BuildGrid's own schema."""
    path = service.state / "scheduler.yml"
    path.write_text(service.scheduler_configuration())
    program = "import sys; from buildgrid.server.app import cli; sys.exit(cli())"
    command = [sys.executable, "-c", program, "server", "lint", str(path)]
    done = subprocess.run(
        command,
        env={"PYTHONPATH": os.path.abspath(os.environ["BUILDGRID"]), "HOME": str(service.state)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_this_machine_can_connect(service: settings.Settings) -> None:
    addresses = re.findall(r'address: "(\S+)"', service.scheduler_configuration())
    assert addresses == ["127.0.0.1:4321"]
    assert [word for word in service.postgres_command() if word.startswith("listen_addresses")] == ["listen_addresses="]
    for command in (service.storage_command(), service.worker_storage_command(1)):
        (bound,) = (word for word in command if word.startswith("--bind="))
        assert bound.startswith("--bind=unix:/sockets/")


def test_no_two_schedulers_share_a_port(service: settings.Settings) -> None:
    assert "grpc.so_reuseport: 0" in service.scheduler_configuration()


def test_storages_are_limited(service: settings.Settings) -> None:
    assert "--quota-high=1000000000" in service.storage_command()
    assert "--quota-high=100000000" in service.worker_storage_command(2)


def test_actions_see_only_bin_besides_their_inputs(service: settings.Settings) -> None:
    mounts = [word for word in service.worker_command(1) if "mount" in word]
    assert mounts == [f"--runner-arg=--ro-bind-mount={service.state}/bin:/bin"]


def test_the_database_also_runs_as_root(service: settings.Settings) -> None:
    assert service.postgres_command()[0] == "/programs/bwrap"
    assert dataclasses.replace(service, as_root=False).postgres_command()[0] == "/programs/postgres"


def test_the_default_port_is_the_one_in_bazelrc(service: settings.Settings) -> None:
    bazelrc = pathlib.Path(os.environ["BAZELRC"]).read_text()
    for flag in ("remote --remote_executor", "remote-cache --remote_cache"):
        assert f"build:{flag}=grpc://{settings.HOST}:{settings.PORT}\n" in bazelrc
    assert dataclasses.replace(service, port=settings.PORT).bazel_flags() == ["--config=remote"]
    assert service.bazel_flags() == ["--config=remote", "--remote_executor=grpc://127.0.0.1:4321"]


def test_a_requested_port_that_is_taken_is_refused() -> None:
    with socket.socket() as other:
        other.bind((settings.HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(up.RemoteError, match=f"expected port {taken} .* to be free"):
            up.choose_port(taken)
    assert up.choose_port(0) > 0


def test_a_full_disk_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(up.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**9}))
    with pytest.raises(up.RemoteError, match="the disk is full: expected at least 2 GB free, found 1.0 GB"):
        up.require_space(tmp_path, 10**10)
    monkeypatch.setattr(up.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5 * 10**9}))
    up.require_space(tmp_path, 10**10)
    assert "has 5.0 GB left" in capsys.readouterr().err


def test_a_state_folder_belongs_to_one_service(tmp_path: pathlib.Path) -> None:
    with up.locked(tmp_path), pytest.raises(up.RemoteError, match="another //tools/remote:up"), up.locked(tmp_path):
        pass


def test_only_damaged_blobs_are_deleted(tmp_path: pathlib.Path) -> None:
    # sha256 of "hello"
    good = tmp_path / "cas/objects/2c/f24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    good.parent.mkdir(parents=True)
    good.write_bytes(b"hello")
    bad = good.with_name("0" * 62)
    bad.write_bytes(b"hello")
    assert storage.remove_damaged(tmp_path) == 1
    assert good.exists() and not bad.exists()
    assert storage.remove_damaged(tmp_path) == 0
