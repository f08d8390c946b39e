"""The crates' lock matches the Cargo.lock files, and crates come from the registry that cargo is configured with."""

from __future__ import annotations

import copy
import http.server
import json
import os
import pathlib
import pwd
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fetch import credentials
from fetch.crates import registry, update_crates
from tests.private import module_files

ASKED = json.loads(pathlib.Path(os.environ["ASKED"]).read_text())
LOCK = json.loads(pathlib.Path(os.environ["LOCK"]).read_text())
MODULE_FILES = [pathlib.Path(path) for path in os.environ["MODULE_FILES"].split()]
CARGO = os.path.abspath(os.environ["CARGO"])

PACKAGE = """
[[package]]
name = "{name}"
version = "{version}"
source = "{source}"
checksum = "{checksum}"
"""


def cargo_lock(*versions: str, name: str = "rand", source: str = update_crates.DEFAULT_REGISTRY) -> str:
    own = '\n[[package]]\nname = "own"\nversion = "0.1.0"\n'
    return (
        "version = 4\n"
        + own
        + "".join(PACKAGE.format(name=name, version=one, source=source, checksum=one) for one in versions)
    )


def test_the_lock_is_what_cargo_wrote_down() -> None:
    assert update_crates.locked(ASKED, pathlib.Path()) == LOCK
    assert all(re.fullmatch("[0-9a-f]{64}", entry["sha256"]) for entry in LOCK["crates"].values())
    assert {"0.21/tokenizers", "6/onig"} <= set(LOCK["sets"]["tokenizers_cpp"])


def test_every_set_is_a_repository() -> None:
    assert sorted(tag["name"] for tag in module_files.tags(MODULE_FILES, "crates.set")) == sorted(LOCK["sets"])


@pytest.mark.parametrize(
    ("version", "series"),
    [
        ("1.4.2", "1"),
        ("0.3.1", "0.3"),
        ("0.0.7", "0.0.7"),
        ("0.0.0", "0.0.0"),
        ("1.0.0-rc.1", "1"),
        ("1.0.1+wasi-0.2.4", "1"),
        ("10.0.0", "10"),
    ],
)
def test_series(version: str, series: str) -> None:
    assert update_crates.series(version) == series


def test_two_series_are_two_crates() -> None:
    assert update_crates.crates(cargo_lock("0.3.1", "0.4.0"), "Cargo.lock") == {
        "0.3/rand": {"name": "rand", "version": "0.3.1", "sha256": "0.3.1"},
        "0.4/rand": {"name": "rand", "version": "0.4.0", "sha256": "0.4.0"},
    }


def test_a_crate_from_elsewhere_is_refused() -> None:
    with pytest.raises(
        SystemExit,
        match=r"Cargo.lock: rand 1.0.0: expected a crate of the default registry.*git\+https://example.org/rand",
    ):
        update_crates.crates(cargo_lock("1.0.0", source="git+https://example.org/rand#0"), "Cargo.lock")


def test_sets_that_disagree_are_refused(tmp_path: pathlib.Path) -> None:
    asked = {"sets": {name: {"lock": f"{name}/Cargo.lock"} for name in ("one", "two")}}
    for name, version in (("one", "1.0.1"), ("two", "1.0.2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Cargo.lock").write_text(cargo_lock(version))
    message = (
        r"two/Cargo.lock: expected rand 1.0.1 as in another set, found 1.0.2: cargo update rand@1.0.2 --precise 1.0.1$"
    )
    with pytest.raises(SystemExit, match=message):
        update_crates.locked(asked, tmp_path)
    missing = copy.deepcopy(asked)
    missing["sets"]["two"]["lock"] = "three/Cargo.lock"
    with pytest.raises(SystemExit, match="set 'two': expected three/Cargo.lock, found no such file"):
        update_crates.locked(missing, tmp_path)


@pytest.mark.parametrize(
    ("template", "url"),
    [
        ("https://r.example.org/crates", "https://r.example.org/crates/Serde/1.0.2/download"),
        ("https://r.example.org/crates/", "https://r.example.org/crates/Serde/1.0.2/download"),
        ("https://r.example.org/{crate}-{version}.crate", "https://r.example.org/Serde-1.0.2.crate"),
        ("https://r.example.org/{prefix}/{crate}", "https://r.example.org/Se/rd/Serde"),
        ("https://r.example.org/{lowerprefix}/{sha256-checksum}", "https://r.example.org/se/rd/00"),
    ],
)
def test_addresses(template: str, url: str) -> None:
    assert registry.download_url(template, "Serde", "1.0.2", "00") == url


@pytest.mark.parametrize(("name", "prefix"), [("a", "1"), ("cc", "2"), ("log", "3/l"), ("itoa", "it/oa")])
def test_prefixes(name: str, prefix: str) -> None:
    assert registry.download_url("{prefix}", name, "1.0.0", "00") == prefix


@pytest.fixture
def index(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A sparse index on loopback that stands in for the default registry in this user's cargo configuration; the real
    cargo reads both.
    """
    folder = tmp_path / "index"
    (folder / "it/oa").mkdir(parents=True)
    entry = {"name": "itoa", "vers": "1.0.0", "deps": [], "cksum": "0" * 64, "features": {}, "yanked": False}
    (folder / "it/oa/itoa").write_text(json.dumps(entry) + "\n")
    (folder / "config.json").write_text(json.dumps({"dl": "https://registry.example.org/dl"}))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, directory=str(folder), **options)

        def log_message(self, *_: object) -> None:
            pass

    home = tmp_path / "cargo home"
    home.mkdir()
    monkeypatch.setenv("CARGO_HOME", str(home))
    monkeypatch.setenv("CARGO_NET_RETRY", "0")
    monkeypatch.setenv("RUSTC", "/nonexistent")
    monkeypatch.delenv("MLC_CRATES_URL", raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"sparse+http://127.0.0.1:{server.server_port}/"
        (home / "config.toml").write_text(
            f'[source.crates-io]\nreplace-with = "mirror"\n\n[source.mirror]\nregistry = "{url}"\n'
        )
        yield folder
        server.shutdown()
        thread.join()
    assert sorted(path.name for path in home.iterdir()) == ["config.toml"], (
        "something was written into the user's folder"
    )


def test_the_configured_registry_is_asked(index: pathlib.Path) -> None:
    found = registry.urls(CARGO, ["itoa@1.0.0@00", "cc@2.0.0@11"])
    assert found == {
        "itoa-1.0.0.crate": {"url": "https://registry.example.org/dl/itoa/1.0.0/download"},
        "cc-2.0.0.crate": {"url": "https://registry.example.org/dl/cc/2.0.0/download"},
    }


@pytest.mark.parametrize("name", [".cargo/config.toml", "Cargo.toml"])
def test_no_folder_above_the_current_one_is_asked(
    index: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A repository rule runs in Bazel's output base, which may be below /tmp, where anyone may write."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n: > {tmp_path}/ran\nexit 1\n")
    program.chmod(0o755)
    top = tmp_path / "top"
    (top / name).parent.mkdir(parents=True)
    (top / name).write_text(
        f'[build]\nrustc = "{program}"\nrustc-wrapper = "{program}"\n[source.crates-io]\nreplace-with = "evil"\n'
        '[source.evil]\nregistry = "sparse+http://127.0.0.1:1/"\n[registries.evil]\nindex = "sparse+http://127.0.0.1:1/"\n'
        f'credential-provider = ["{program}"]\n'
        if name.startswith(".cargo")
        else '[workspace]\nmembers = ["**"]\n[patch.crates-io]\nitoa = { path = "/nonexistent" }\n'
    )
    (top / "current").mkdir()
    monkeypatch.chdir(top / "current")
    # The package that cargo is asked about is there too.
    monkeypatch.setattr(registry.tempfile, "tempdir", str(top / "current"))
    found = registry.urls(CARGO, ["itoa@1.0.0@00"])
    assert found == {"itoa-1.0.0.crate": {"url": "https://registry.example.org/dl/itoa/1.0.0/download"}}
    assert not (tmp_path / "ran").exists(), "a program of somebody's configuration ran"


def test_the_variable_goes_before_the_configuration(index: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLC_CRATES_URL", "https://other.example.org/{crate}")
    found = registry.urls("/nonexistent", ["itoa@1.0.0@00"])
    assert found == {"itoa-1.0.0.crate": {"url": "https://other.example.org/itoa"}}


@pytest.fixture
def no_logins(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """The netrc of a user, which is empty."""
    (tmp_path / "netrc").write_text("")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for remembered in (credentials._learned.clear, credentials._entries.cache_clear):
        remembered()
    yield tmp_path / "netrc"
    credentials._learned.clear()
    credentials._entries.cache_clear()


def test_a_login_in_the_variable_is_apart_from_the_address(
    no_logins: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLC_CRATES_URL", "https://bob:s%2Fcret@other.example.org/{crate}")
    assert registry.urls("/nonexistent", ["itoa@1.0.0@00"]) == {
        "itoa-1.0.0.crate": {
            "url": "https://other.example.org/itoa",
            "auth": {"type": "basic", "login": "bob", "password": "s/cret"},
        }
    }


def index_that_says(folder: pathlib.Path, dl: str) -> str:
    """Returns a program that leaves what cargo does after reading an index with this download address."""
    program = folder / "fake-cargo"
    program.write_text(
        '#!/bin/sh\n/bin/mkdir -p "$CARGO_HOME/registry/index/x"\n'
        f"echo '{json.dumps({'dl': dl})}' >\"$CARGO_HOME/registry/index/x/config.json\"\n"
    )
    program.chmod(0o755)
    return str(program)


def test_an_index_chooses_no_login_and_gets_none_sent_in_the_open(
    no_logins: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLC_CRATES_URL", raising=False)
    no_logins.write_text("machine r.example.org login a password b\n")
    theirs = {"url": "https://r.example.org/dl/itoa/1.0.0/download"}
    login = {"type": "basic", "login": "a", "password": "b"}
    found = registry.urls(index_that_says(tmp_path, "https://mallory:x@r.example.org/dl"), ["itoa@1.0.0@00"])
    assert found == {"itoa-1.0.0.crate": {**theirs, "auth": login}}
    found = registry.urls(index_that_says(tmp_path, "http://r.example.org/dl"), ["itoa@1.0.0@00"])
    assert found == {"itoa-1.0.0.crate": {"url": theirs["url"].replace("https:", "http:")}}


def test_an_index_without_an_address_is_one_message(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLC_CRATES_URL", raising=False)
    with pytest.raises(registry.RegistryError, match="MLC_CRATES_URL"):
        registry.urls(index_that_says(tmp_path, 5), ["itoa@1.0.0@00"])  # type: ignore[arg-type]


def test_a_user_without_a_home_needs_no_configuration_of_cargo(
    no_logins: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("CARGO_HOME", "HOME", "MLC_CRATES_URL"):
        monkeypatch.delenv(variable, raising=False)
    nobody: dict = {}
    monkeypatch.setattr(pwd, "getpwuid", nobody.__getitem__)
    found = registry.urls(index_that_says(tmp_path, "https://r.example.org/dl"), ["itoa@1.0.0@00"])
    assert list(found) == ["itoa-1.0.0.crate"]


def test_a_registry_that_does_not_answer_names_the_variable_to_set(
    index: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (index / "config.json", index / "it/oa/itoa"):
        path.unlink()
    assert registry.main(["--cargo", CARGO, "--crate", "itoa@1.0.0@00"]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "does not answer for 'itoa'" in error and "MLC_CRATES_URL" in error
