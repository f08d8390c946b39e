"""fetch/debian/archive.py: versions, dependencies, signed indexes, .deb files, mirrors."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from fake_machine import TESTDATA, Server, deb

from fetch import errors
from fetch.debian import archive as debian


def stanza(name: str, version: str = "1", **fields: str) -> str:
    lines = {
        "Package": name,
        "Version": version,
        "Architecture": "amd64",
        "Filename": f"pool/{name}.deb",
        "Size": "1",
        "SHA256": "0" * 64,
    }
    return "\n".join(f"{key.replace('_', '-')}: {value}" for key, value in {**lines, **fields}.items()) + "\n"


def index(*stanzas: str, suite: str = "forky") -> debian.Index:
    return debian.Index("\n".join(stanzas), suite)


def names(packages: Iterable[debian.Package]) -> list[str]:
    return [package.name for package in packages]


def test_orders_as_policy_says() -> None:
    ordered = ["1.0~~", "1.0~~a", "1.0~", "1.0", "1.0-1", "1.0-1+b1", "1.0a", "1.0+", "1.2", "1.10", "2:0.1", "10:0"]
    for low, high in itertools.combinations(ordered, 2):
        assert debian.version_key(low) < debian.version_key(high), f"{low} < {high}"
    assert debian.version_key("1.0-0") == debian.version_key("0:1.0")


def test_follows_depends_and_pre_depends_once() -> None:
    packages = index(
        stanza("a", Depends="b, c (>= 1)"), stanza("b", Pre_Depends="c"), stanza("c", Depends="a"), stanza("d")
    )
    assert names(debian.resolve(packages, ["a"])) == ["a", "b", "c"]


def test_takes_the_first_alternative_that_exists_unless_another_is_chosen() -> None:
    packages = index(stanza("a", Depends="none | b | c"), stanza("b"), stanza("c"))
    assert names(debian.resolve(packages, ["a"])) == ["a", "b"]
    assert names(debian.resolve(packages, ["c", "a"])) == ["a", "c"]


def test_meets_a_virtual_package_by_a_provider() -> None:
    packages = index(
        stanza("a", Depends="mail"), stanza("exim", Provides="mail"), stanza("postfix", Provides="other, mail (= 2)")
    )
    assert names(debian.resolve(packages, ["a"])) == ["a", "exim"]
    assert names(debian.resolve(packages, ["postfix", "a"])) == ["a", "postfix"]


def test_leaves_out_what_is_excluded() -> None:
    packages = index(stanza("a", Depends="big, b"), stanza("big", Depends="bigger"), stanza("bigger"), stanza("b"))
    assert names(debian.resolve(packages, ["a"], exclude=["big"])) == ["a", "b"]


def test_heeds_version_constraints() -> None:
    packages = index(stanza("a", Depends="b (>= 2) | c"), stanza("b", "1.9"), stanza("c"))
    assert names(debian.resolve(packages, ["a"])) == ["a", "c"]


def test_an_unmet_dependency_is_an_error_that_names_both() -> None:
    packages = index(stanza("a", "3-1", Depends="b (>= 2)"), stanza("b", "1"))
    with pytest.raises(debian.DebianError, match=r"a 3-1 depends on 'b \(>= 2\)'.*forky"):
        debian.resolve(packages, ["a"])
    with pytest.raises(debian.DebianError, match="no package 'zzz' in forky"):
        debian.resolve(packages, ["zzz"])


def test_merged_indexes_give_the_newer_version() -> None:
    merged = index(stanza("a", "1-1"), suite="bookworm").merge(
        index(stanza("a", "1-1+deb12u1"), suite="bookworm-security")
    )
    assert (merged["a"].version, merged["a"].suite) == ("1-1+deb12u1", "bookworm-security")


@dataclasses.dataclass
class Mirror:
    """A mirror with a signed index, which the real gpgv verifies."""

    server: Server
    environment: pytest.MonkeyPatch
    signed: bytes = (TESTDATA / "InRelease").read_bytes()
    base: str = "/debian/dists/forky"

    def use(self, **variables: str) -> None:
        for name, value in variables.items():
            self.environment.setenv(name, value)


@pytest.fixture
def mirror(server: Server, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    mirror = Mirror(server, monkeypatch)
    server.files[f"{mirror.base}/InRelease"] = mirror.signed
    server.files[f"{mirror.base}/main/binary-amd64/Packages.xz"] = (TESTDATA / "Packages.xz").read_bytes()
    keyring = str(TESTDATA / "keyring.gpg")
    # The machine's gpgv. Every Debian has it, because apt needs it.
    mirror.use(PATH="/usr/bin:/bin", MLC_DEBIAN_MIRROR=f"{server.url}/debian", MLC_DEBIAN_KEYRING=keyring)
    return mirror


def test_a_good_signature_is_taken(mirror: Mirror) -> None:
    package = debian.fetch_index("forky")["hello"]
    assert (package.version, package.suite, package.archive) == ("1.0-1", "forky", "debian")
    assert package.urls() == [f"{mirror.server.url}/debian/pool/main/h/hello/hello_1.0-1_amd64.deb"]


def test_a_changed_index_is_refused(mirror: Mirror) -> None:
    mirror.server.files[f"{mirror.base}/InRelease"] = mirror.signed.replace(b"71e8", b"0000")
    with pytest.raises(debian.SignatureError, match="InRelease: bad signature.*keyring.gpg"):
        debian.fetch_index("forky")


def test_another_signer_is_refused(mirror: Mirror) -> None:
    mirror.use(MLC_DEBIAN_KEYRING=str(TESTDATA / "other_keyring.gpg"))
    with pytest.raises(debian.SignatureError, match="bad signature.*other_keyring.gpg"):
        debian.fetch_index("forky")


def test_an_unsigned_index_is_refused(mirror: Mirror) -> None:
    mirror.server.files[f"{mirror.base}/InRelease"] = b"Suite: testing\n"
    with pytest.raises(debian.SignatureError):
        debian.fetch_index("forky")


def test_text_outside_of_the_signature_is_not_read(mirror: Mirror) -> None:
    assert "Codename: forky" in debian.verified_text(mirror.signed, "InRelease")
    try:
        text = debian.verified_text(b"Evil: yes\n\n" + mirror.signed + b"\nEvil: yes\n", "InRelease")
    except debian.SignatureError:
        return
    assert "Evil" not in text


def test_a_package_list_that_was_not_signed_is_refused(mirror: Mirror) -> None:
    mirror.server.files[f"{mirror.base}/main/binary-amd64/Packages.xz"] = b"other"
    with pytest.raises(debian.DebianError, match="expected sha256 71e8ba1b.*found"):
        debian.fetch_index("forky")


def test_a_missing_suite_names_the_mirror_and_the_variable(mirror: Mirror) -> None:
    with pytest.raises(debian.DebianError, match="(?s)suite 'sid'.*HTTP 404.*MLC_DEBIAN_MIRROR"):
        debian.fetch_index("sid")


def test_no_keyring_says_which_package_has_it(mirror: Mirror) -> None:
    mirror.use(MLC_DEBIAN_KEYRING="")
    with (
        mock.patch("os.path.isfile", return_value=False),
        pytest.raises(debian.DebianError, match="debian-archive-keyring"),
    ):
        debian.verified_text(mirror.signed, "InRelease")


def test_the_second_mirror_answers_for_the_first(mirror: Mirror) -> None:
    mirror.use(MLC_DEBIAN_MIRROR=f"{mirror.server.url}/nothing {mirror.server.url}/debian/")
    assert "hello" in debian.fetch_index("forky")


def write(folder: Path, data: bytes) -> Path:
    path = folder / "x.deb"
    path.write_bytes(data)
    return path


def test_reads_control_and_files(tmp_path: Path) -> None:
    package = debian.Deb(write(tmp_path, deb({"usr/bin/a": ("hello", 0o755)}, "Package: a\nDescription: one\n two\n")))
    assert package.control == {"Package": "a", "Description": "one\ntwo"}
    with package.data() as tar:
        assert [(member.name, member.mode) for member in tar] == [("./usr/bin/a", 0o755)]


def test_another_compression_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write(tmp_path, deb({}, data_member="data.tar.zst"))
    with pytest.raises(debian.DebianError, match=r"x\.deb: data\.tar\.zst"):
        debian.Deb(path).data()


def test_damage_is_an_error(tmp_path: Path) -> None:
    whole = deb({"a": ("b", 0o644)})
    for data in (b"<html>", whole[:70] + b"rubbish" * 20):
        with pytest.raises(debian.DebianError, match=r"x\.deb"):
            debian.Deb(write(tmp_path, data)).data()


LISTING = (
    "http://a.test/debian/ bookworm Packages\nhttp://a.test/debian/ bookworm-updates Packages\nhttp://a.test/debian/"
    " bookworm DEP-11\nhttp://a.test/debian-security/ bookworm-security Packages\nhttp://vendor.test/apt/ nodistro"
    " Packages"
)


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts an apt-get on the PATH that prints the given text."""

    def lists(text: str) -> None:
        # As real apt does before the first update, this one lists nothing unless asked to do without release files.
        script = tmp_path / "apt-get"
        script.write_text(f"#!/bin/sh\ncase \"$*\" in *--no-release-info*) cat <<'EOF'\n{text}\nEOF\nesac\n")
        script.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("MLC_DEBIAN_MIRROR", "")
    monkeypatch.setenv("MLC_DEBIAN_SECURITY_MIRROR", "")
    debian._apt_mirrors.cache_clear()
    yield lists
    debian._apt_mirrors.cache_clear()


def test_mirrors_come_from_apt(apt: Callable[[str], None]) -> None:
    apt(LISTING)
    assert debian.mirrors() == {
        "debian": ["http://a.test/debian"],
        "debian-security": ["http://a.test/debian-security"],
    }


def test_the_environment_decides_on_mirrors(apt: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    apt(LISTING)
    monkeypatch.setenv("MLC_DEBIAN_MIRROR", "http://b.test/d/ http://c.test/d")
    assert debian.mirrors()["debian"] == ["http://b.test/d", "http://c.test/d"]
    assert debian.mirrors()["debian-security"] == ["http://a.test/debian-security"]


def test_no_mirror_is_an_error_that_says_what_to_set(apt: Callable[[str], None]) -> None:
    apt("")
    with pytest.raises(errors.UserError, match="Set MLC_DEBIAN_SECURITY_MIRROR"):
        debian.mirror_urls("debian-security")
