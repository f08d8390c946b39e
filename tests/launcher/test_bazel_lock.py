"""The locks of Bazel's own packages are complete, are of this checkout's Bazel, and are what their update command
writes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from fetch import locks
from fetch.bazel import hosts, packages, update_bazel
from fetch.debian import archive as debian
from fetch.pypi import index as pypi

WORKSPACE = Path(os.environ["BAZEL_LOCK"]).parents[1]
LOCKS = WORKSPACE / "locks"
ASKED = packages.asked(LOCKS)

every_host = pytest.mark.parametrize("host", hosts.HOSTS.values(), ids=str)


@every_host
def test_it_pins_the_bazel_of_this_checkout(host: hosts.Host) -> None:
    lock = packages.read(WORKSPACE, host)
    assert lock.bazel == Path(os.environ["BAZEL_VERSION"]).read_text().strip()
    roots = [package for package in lock.packages if package.name in ASKED["packages"]]
    assert [package.name for package in roots] == ASKED["packages"]
    assert roots[0].version.startswith(lock.bazel)
    assert {package.name for package in lock.packages}.isdisjoint(ASKED["exclude"])
    assert {wheel.project for wheel in lock.wheels} == set(ASKED["wheels"])


@every_host
def test_every_entry_has_what_a_download_needs_and_a_package_url(host: hosts.Host) -> None:
    version, inputs = locks.bazel(LOCKS / host.lock)
    lock = packages.read(WORKSPACE, host)
    assert len(inputs) == len(lock.packages) + len(lock.wheels) > 80
    for package in lock.packages:
        assert re.fullmatch(rf"pool/main/\S+/\S+/\S+_(all|{host.architecture})\.deb", package.path)
        assert package.size > 0 and package.archive in debian.ARCHIVES and package.suite in ASKED["suites"]
    sources = {package.name: package.source for package in lock.packages}
    assert sources["zlib1g"][0] == "zlib"
    assert sources["bazel-bootstrap"] == ("bazel-bootstrap", sources["bazel-bootstrap-data"][1])
    assert all(f"_{host}." in wheel.filename for wheel in lock.wheels)
    for each in inputs:
        assert each.purl.startswith(("pkg:deb/debian/", "pkg:pypi/"))


@every_host
def test_the_update_command_writes_what_the_launcher_reads(host: hosts.Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages and wheels that are served as the lock has them give the lock."""
    content = json.loads((LOCKS / host.lock).read_text())
    served = packages.read(WORKSPACE, host)

    def from_index(version: str, wanted: dict[str, Any], of: hosts.Host, say: object) -> list[debian.Package]:
        assert (version, wanted, of) == (served.bazel, ASKED, host)
        return list(served.packages)

    def fetch(project: str, filename: str, sha256: str, destination: Path) -> Path:
        with destination.open("wb") as file:
            file.truncate(content["wheels"][filename]["size"])
        return destination

    listed = {
        wheel.project: [{"filename": wheel.filename, "hashes": {"sha256": wheel.sha256}}] for wheel in served.wheels
    }
    monkeypatch.setattr(packages, "from_index", from_index)
    monkeypatch.setattr(pypi, "files", listed.__getitem__)
    monkeypatch.setattr(pypi, "fetch", fetch)
    assert update_bazel.resolve(served.bazel, ASKED, host) == content


def test_the_newest_wheel_for_linux_is_taken() -> None:
    names = [
        "x-9-py3-none-manylinux_2_17_x86_64.whl",
        "x-10-py3-none-manylinux_2_17_x86_64.whl",
        "x-11-py3-none-manylinux_2_17_aarch64.whl",
        "x-11-py3-none-musllinux_1_1_x86_64.whl",
        "x-11-cp311-cp311-manylinux_2_17_x86_64.whl",
        "x-12rc1-py3-none-manylinux_2_17_x86_64.whl",
        "x-12.tar.gz",
        "x-not a wheel.whl",
    ]
    listed = [{"filename": name, "hashes": {"sha256": name}} for name in names]
    yanked = {"filename": "x-13-py3-none-manylinux_2_17_x86_64.whl", "hashes": {"sha256": "y"}, "yanked": "broken"}
    assert update_bazel.newest([*listed, yanked], "x86_64") == ("10", names[1], names[1])
    assert update_bazel.newest([*listed, yanked], "aarch64") == ("11", names[2], names[2])
    with pytest.raises(ValueError, match="empty"):
        update_bazel.newest(listed[2:], "x86_64")


def test_what_differs_from_an_installation_is_named(tmp_path: Path) -> None:
    lock = packages.read(WORKSPACE, hosts.X86_64)
    record = {
        "packages": {each.name: {"version": each.version, "sha256": each.sha256} for each in lock.packages},
        "wheels": {each.filename: {"sha256": each.sha256} for each in lock.wheels},
    }
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(record))
    assert packages.differences(WORKSPACE, hosts.X86_64, manifest) == []
    record["packages"]["zlib1g"] = {"version": "0", "sha256": "ab" * 32}
    del record["packages"]["libc6"]
    record["wheels"]["other.whl"] = {"sha256": "cd" * 32}
    manifest.write_text(json.dumps(record))
    found = packages.differences(WORKSPACE, hosts.X86_64, manifest)
    assert [line.partition(":")[0] for line in found] == ["libc6", "other.whl", "zlib1g"]
    assert found[0].endswith("in the lock, none installed")
    assert found[2].endswith(f"in the lock, 0 (sha256 {'ab' * 6}…) installed")
    manifest.write_text("[]")
    assert "no record" in packages.differences(WORKSPACE, hosts.X86_64, manifest)[0]


def test_a_key_twice_is_refused(tmp_path: Path) -> None:
    """A reader that takes the last one silently could differ from another, or from what a person sees."""
    (tmp_path / "bazel.lock.json").write_text((LOCKS / "bazel.lock.json").read_text().replace("{", '{"bazel": "0",', 1))
    with pytest.raises(locks.InputsError, match=r"expected each key once, found 'bazel' twice"):
        locks.bazel(tmp_path / "bazel.lock.json")
