"""fetch/debian/archive.py: versions, dependencies, signed indexes, .deb files, mirrors."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol
from unittest import mock

import pytest
from fake_machine import TESTDATA, Server, deb

from fetch import download, errors
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

    def release(self, **fields: str) -> None:
        """Serves a release with other fields, as if it were signed."""
        text = debian.verified_text(self.signed, "InRelease")
        for name, value in fields.items():
            text = re.sub(rf"(?m)^{name}: .*\n", "", text)
            text = (f"{name}: {value}\n" if value else "") + text
        self.server.files[f"{self.base}/InRelease"] = text.encode()
        self.environment.setattr(debian, "verified_text", lambda signed, what: signed.decode())


@pytest.fixture
def mirror(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Mirror:
    mirror = Mirror(server, monkeypatch)
    mirror.use(MLC_BAZEL_CACHE=str(tmp_path / "cache"))
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


@pytest.mark.parametrize("kind", ["expired_signature", "expired_key"])
def test_an_expired_signature_or_key_is_refused(mirror: Mirror, kind: str) -> None:
    mirror.server.files[f"{mirror.base}/InRelease"] = (TESTDATA / f"InRelease.{kind}").read_bytes()
    with pytest.raises(debian.SignatureError, match="InRelease: bad signature"):
        debian.fetch_index("forky")
    assert [path for path, _ in mirror.server.requests] == [f"{mirror.base}/InRelease"]


def test_one_good_signature_next_to_an_expired_key_is_enough(mirror: Mirror) -> None:
    mirror.server.files[f"{mirror.base}/InRelease"] = (TESTDATA / "InRelease.two_signers").read_bytes()
    assert "hello" in debian.fetch_index("forky")


def test_another_signed_suite_is_refused(mirror: Mirror) -> None:
    mirror.server.files["/debian/dists/sid/InRelease"] = mirror.signed
    with pytest.raises(debian.SignatureError, match="sid/InRelease: expected the suite 'sid', found testing, forky"):
        debian.fetch_index("sid")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("Codename", "trixie", "expected the suite 'forky', found testing, trixie"),
        ("Components", "contrib main/x", "expected the component 'main', found contrib, x"),
        ("Components", "", "expected the component 'main', found none"),
        ("Architectures", "all arm64", "expected the architecture 'amd64', found all, arm64"),
    ],
)
def test_a_release_of_something_else_is_refused(mirror: Mirror, field: str, value: str, message: str) -> None:
    mirror.release(**{field: value})
    with pytest.raises(debian.SignatureError, match=message):
        debian.fetch_index("forky")


def test_a_suite_may_be_named_by_either_name(mirror: Mirror) -> None:
    mirror.server.files["/debian/dists/testing/InRelease"] = mirror.signed
    mirror.server.files["/debian/dists/testing/main/binary-amd64/Packages.xz"] = (TESTDATA / "Packages.xz").read_bytes()
    assert "hello" in debian.fetch_index("testing")
    mirror.release(Components="updates/main updates/contrib")  # As the security archive says it.
    assert "hello" in debian.fetch_index("forky")


LONG_AGO, ALWAYS = "Wed, 08 Jan 2020 08:08:01 UTC", "Wed, 08 Jan 2120 08:08:01 UTC"


def test_an_expired_release_is_refused(mirror: Mirror) -> None:
    mirror.release(**{"Valid-Until": LONG_AGO, "Suite": "stable-security"})
    with pytest.raises(debian.DebianError, match=f"valid until {LONG_AGO}.*clock.*MLC_DEBIAN_MIRROR"):
        debian.fetch_index("forky")
    mirror.release(**{"Valid-Until": "soon", "Suite": "stable-security"})
    with pytest.raises(debian.DebianError, match="valid until soon"):
        debian.fetch_index("forky")


def test_a_valid_release_is_taken_without_a_word(mirror: Mirror) -> None:
    said: list[str] = []
    mirror.release(**{"Valid-Until": ALWAYS, "Suite": "stable-security"})
    assert "hello" in debian.fetch_index("forky", warn=said.append)
    assert said == []


@pytest.mark.parametrize("suite", ["testing", "unstable", "testing-updates", "testing-security"])
def test_a_late_mirror_of_testing_is_a_warning_with_the_dates(mirror: Mirror, suite: str) -> None:
    said: list[str] = []
    mirror.release(**{"Valid-Until": LONG_AGO, "Suite": suite})
    assert "hello" in debian.fetch_index("forky", warn=said.append)
    (line,) = said
    assert "forky/InRelease: the mirror is late" in line
    assert "Wed, 01 Jan 2020 08:08:01 UTC" in line and LONG_AGO in line


def test_a_release_older_than_one_seen_before_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    mirror.release(Date="Thu, 02 Jan 2020 00:00:00 UTC")
    debian.fetch_index("forky")
    debian.fetch_index("forky")
    mirror.release(Date="Wed, 01 Jan 2020 23:59:59 UTC")
    with pytest.raises(debian.DebianError) as refused:
        debian.fetch_index("forky")
    for part in ("release of Thu, 02 Jan 2020", "found the one of Wed, 01 Jan 2020", str(tmp_path / "cache")):
        assert part in str(refused.value)
    # Only of this suite.
    mirror.server.files["/debian/dists/sid/InRelease"] = mirror.server.files[f"{mirror.base}/InRelease"].replace(
        b"Codename: forky", b"Codename: sid"
    )
    mirror.server.files["/debian/dists/sid/main/binary-amd64/Packages.xz"] = (TESTDATA / "Packages.xz").read_bytes()
    assert "hello" in debian.fetch_index("sid")


def test_a_mirror_that_lags_is_replaced_by_the_next_one(mirror: Mirror) -> None:
    mirror.release(Date="Thu, 02 Jan 2020 00:00:00 UTC")
    debian.fetch_index("forky")
    new = mirror.server.files[f"{mirror.base}/InRelease"]
    packages = mirror.server.files[f"{mirror.base}/main/binary-amd64/Packages.xz"]
    mirror.server.files["/other/dists/forky/InRelease"] = new
    mirror.server.files["/other/dists/forky/main/binary-amd64/Packages.xz"] = packages
    mirror.server.files[f"{mirror.base}/InRelease"] = new.replace(b"02 Jan", b"01 Jan")
    mirror.use(MLC_DEBIAN_MIRROR=f"{mirror.server.url}/debian {mirror.server.url}/other")
    assert "hello" in debian.fetch_index("forky")


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_a_release_without_a_date_is_refused(mirror: Mirror, date: str) -> None:
    mirror.release(Date=date)
    with pytest.raises(debian.DebianError, match="expected a date"):
        debian.fetch_index("forky")


@pytest.mark.parametrize("record", ["[]", '{"debian forky": 1}', '{"debian forky": "soon"}', "\0", "[" * 100_000])
def test_a_damaged_record_is_no_record(mirror: Mirror, tmp_path: Path, record: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/debian-dates.json").write_text(record)
    assert "hello" in debian.fetch_index("forky")
    assert "2020" in (tmp_path / "cache/debian-dates.json").read_text()


def test_without_a_cache_there_is_no_record(mirror: Mirror) -> None:
    mirror.use(MLC_BAZEL_CACHE="/dev/null/cache")
    assert "hello" in debian.fetch_index("forky")


class Endless:
    """A body that a server sends for ever: what was read of it is counted."""

    def __init__(self, server: Server, path: str, said_length: int | None) -> None:
        self.sent = 0
        server.endless[path] = self
        self.said_length = said_length


@pytest.mark.parametrize("said_length", [None, 300 << 20])
def test_an_endless_release_is_not_read_whole(mirror: Mirror, said_length: int | None) -> None:
    endless = Endless(mirror.server, f"{mirror.base}/InRelease", said_length)
    with pytest.raises(debian.DebianError, match=r"InRelease: expected at most 4194304 bytes, found more"):
        debian.fetch_index("forky")
    assert endless.sent < 32 << 20


@pytest.mark.parametrize("said_length", [None, 300 << 20])
def test_an_endless_list_of_packages_is_not_read_whole(mirror: Mirror, said_length: int | None) -> None:
    endless = Endless(mirror.server, f"{mirror.base}/main/binary-amd64/Packages.xz", said_length)
    with pytest.raises(debian.DebianError, match=r"Packages.xz: expected 224 bytes, found more"):
        debian.fetch_index("forky")
    assert endless.sent < 32 << 20


def test_a_signed_list_that_is_too_large_is_not_read(mirror: Mirror) -> None:
    mirror.release()
    signed = mirror.server.files[f"{mirror.base}/InRelease"]
    mirror.server.files[f"{mirror.base}/InRelease"] = signed.replace(b" 224 ", b" 99999999999 ")
    with pytest.raises(debian.DebianError, match="expected at most"):
        debian.fetch_index("forky")
    mirror.server.files[f"{mirror.base}/InRelease"] = signed.replace(b" 182 ", b" 181 ")
    with pytest.raises(debian.DebianError, match="expected an index of 181 bytes"):
        debian.fetch_index("forky")


@pytest.mark.parametrize("said_length", [None, 300 << 20])
def test_no_download_takes_more_than_its_size(server: Server, tmp_path: Path, said_length: int | None) -> None:
    endless = Endless(server, "/x", said_length)
    server.files["/right"] = b"right"
    destination = tmp_path / "x"
    sha256 = hashlib.sha256(b"right").hexdigest()
    received: list[int] = []
    with pytest.raises(download.DownloadError, match="/x: expected 5 bytes, found more"):
        download.fetch([server.url + "/x"], destination, sha256, 5, received.append)
    assert endless.sent < 32 << 20 and sum(received) == 0
    assert list(tmp_path.iterdir()) == []
    urls = [server.url + "/x", server.url + "/right"]
    assert download.fetch(urls, destination, sha256, 5, received.append).read_bytes() == b"right"
    assert sum(received) == 5


def test_files_are_downloaded_from_a_folder_too(tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(b"right")
    url = (tmp_path / "from").as_uri()
    assert download.read(url) == b"right"
    sha256 = hashlib.sha256(b"right").hexdigest()
    assert download.fetch([url], tmp_path / "to", sha256, 5).read_bytes() == b"right"


def test_a_document_that_is_cut_is_asked_for_again(server: Server) -> None:
    server.files["/x"] = b"right"
    server.cut_after["/x"] = 2
    assert download.read(server.url + "/x") == b"right"
    assert len(server.requests) == 2


def test_a_wrong_leftover_with_an_endless_server_ends(server: Server, tmp_path: Path) -> None:
    Endless(server, "/x", None)
    (tmp_path / "x.part").write_bytes(b"rig")
    with pytest.raises(download.DownloadError, match="expected 5 bytes, found more"):
        download.fetch([server.url + "/x"], tmp_path / "x", "0" * 64, 5)


def test_a_package_list_that_was_not_signed_is_refused(mirror: Mirror) -> None:
    mirror.server.files[f"{mirror.base}/main/binary-amd64/Packages.xz"] = b"other"
    mirror.server.files[f"{mirror.base}/main/binary-amd64/Packages.xz"] = b"other" * 44 + b"same"  # 224 bytes
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


def listing(*sources: str, origin: str = "$(ORIGIN)") -> str:
    """What apt-get lists for sources as in sources.list: address, suite, component."""
    fields = [(kind, *source.split(), origin) for source in sources for kind in ("Packages", "DEP-11")]
    return "".join("\t".join(each) + "\n" for each in fields)


LISTING = listing(
    "http://a.test/debian/ bookworm main",
    "http://a.test/debian/ bookworm-updates main",
    "http://a.test/debian-security/ bookworm-security main",
    "http://vendor.test/apt/ nodistro main",
    "http://vendor.test/bookworm/ bookworm main",
)
MIRRORS = {"debian": ["http://a.test/debian"], "debian-security": ["http://a.test/debian-security"]}


class FakeApt(Protocol):
    def __call__(self, text: str, updated: str = "") -> None: ...


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApt]:
    """Puts an apt-get on the PATH that prints the given text, and another after `apt-get update`."""

    def lists(text: str, updated: str = "") -> None:
        # As real apt does before the first update, this one lists nothing unless asked to do without release files.
        script = tmp_path / "apt-get"
        script.write_text(
            f"#!/bin/sh\ncase \"$*\" in *--no-release-info*) cat <<'EOF'\n{text}EOF\n;;\n*) cat <<'EOF'\n{updated}EOF\n"
            "esac\n"
        )
        script.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("MLC_DEBIAN_MIRROR", "")
    monkeypatch.setenv("MLC_DEBIAN_SECURITY_MIRROR", "")
    debian._apt_mirrors.cache_clear()
    yield lists
    debian._apt_mirrors.cache_clear()


def test_mirrors_come_from_apt(apt: FakeApt) -> None:
    apt(LISTING)
    assert debian.mirrors() == MIRRORS


def test_mirrors_are_those_of_debian_once_apt_knows_whose_they_are(apt: FakeApt) -> None:
    """Docker's archive ends in /debian, and an Artifactory has Debian's under any name."""
    sources = "https://art.test/artifactory/deb-remote/ bookworm main", "https://art.test/sec/ bookworm-security main"
    docker = listing("https://docker.test/linux/debian/ bookworm stable", origin="Docker")
    apt("", updated=docker + listing(*sources, origin="Debian"))
    assert debian.mirrors() == {
        "debian": ["https://art.test/artifactory/deb-remote"],
        "debian-security": ["https://art.test/sec"],
    }


def test_what_apt_has_not_read_yet_is_added(apt: FakeApt) -> None:
    docker = "https://docker.test/linux/debian/ bookworm stable"
    apt(listing(docker) + LISTING, updated=listing(docker, origin="Docker"))
    assert debian.mirrors() == MIRRORS


def test_without_an_address_that_ends_in_debian_the_suites_decide(apt: FakeApt) -> None:
    apt(
        listing(
            "https://art.test/artifactory/deb-remote/ bookworm main",
            "https://art.test/artifactory/deb-remote/ bookworm-updates main",
            "https://art.test/artifactory/deb-remote/ bookworm-security main",
            "https://art.test/artifactory/docker/ bookworm stable",
            "https://art.test/artifactory/pgdg/ bookworm-pgdg main",
        )
    )
    remote = ["https://art.test/artifactory/deb-remote"]
    assert debian.mirrors() == {"debian": remote, "debian-security": remote}


@pytest.mark.parametrize("updated", [False, True])
def test_lists_of_mirrors_are_read(apt: FakeApt, tmp_path: Path, updated: bool) -> None:
    """Debian's cloud images have them."""
    main, security = tmp_path / "debian.list", tmp_path / "debian-security.list"
    main.write_text(
        "# Written by cloud-init\nhttps://b.test/debian\tpriority:2\nhttps://c.test/debian\n\nhttp://a.test/debian\t"
        "priority:1 type:deb\n"
    )
    security.write_text("https://b.test/debian-security\n")
    sources = (
        f"mirror+file:{main}/ bookworm main",
        f"mirror+file:{main}/ bookworm-updates main",
        f"mirror+file://{security}/ bookworm-security main",
        "mirror+file:/no/such/list/ bookworm main",
    )
    apt("" if updated else listing(*sources), updated=listing(*sources, origin="Debian") if updated else "")
    assert debian.mirrors() == {
        "debian": ["http://a.test/debian", "https://b.test/debian", "https://c.test/debian"],
        "debian-security": ["https://b.test/debian-security"],
    }


def test_the_environment_decides_on_mirrors(apt: FakeApt, monkeypatch: pytest.MonkeyPatch) -> None:
    apt(LISTING)
    monkeypatch.setenv("MLC_DEBIAN_MIRROR", "http://b.test/d/ http://c.test/d")
    assert debian.mirrors()["debian"] == ["http://b.test/d", "http://c.test/d"]
    assert debian.mirrors()["debian-security"] == ["http://a.test/debian-security"]


def test_no_mirror_is_an_error_that_says_what_to_set(apt: FakeApt) -> None:
    apt("")
    with pytest.raises(errors.UserError, match="Set MLC_DEBIAN_SECURITY_MIRROR"):
        debian.mirror_urls("debian-security")
