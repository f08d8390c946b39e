"""The licences' lock says what packages state, in SPDX's terms, for exactly what is locked; its update reads only what
changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import re
import sys
import tarfile
import zipfile
from typing import Any, Literal

import pytest
from license_expression import get_spdx_licensing
from packaging.metadata import parse_email

from fetch import locks as inputs
from fetch.debian.archive import DebianError
from fetch.debian.copyright import copyright_file
from fetch.licenses import update_licenses
from release.private import stamp
from tests.private.deb import deb as debian_package

LOCKS = inputs.by_name([pathlib.Path(path) for path in os.environ["LOCKS"].split()])
DEBS = [pathlib.Path(path) for path in os.environ["DEBS"].split()]
WHEELS = [stamp.artifact_file(pathlib.Path(path)) for path in os.environ["WHEELS"].split()]

LICENSES = json.loads(LOCKS["licenses.lock.json"].read_text())
PINNED = inputs.pinned(LOCKS)

GPL_NOTICE = """\
 This program is free software; you can redistribute it and/or modify it
 under the terms of the GNU General Public License as published by the Free
 Software Foundation; either version 2 of the License, or (at your option)
 any later version.
"""
MIT = (
    "Permission is hereby granted, free of charge, to any person obtaining a copy\nof this software and associated"
    " documentation files"
)


@pytest.mark.parametrize(
    ("synopsis", "expected"),
    [
        ("Expat", "MIT"),
        ("expat", "MIT"),
        ("GPL-2", "GPL-2.0-only"),
        ("GPL-2+", "GPL-2.0-or-later"),
        ("GPL-2.0+", "GPL-2.0-or-later"),
        ("GPL3+", "GPL-3.0-or-later"),
        ("GPLv3", "GPL-3.0-only"),
        ("GPL-2.0-or-later", "GPL-2.0-or-later"),
        ("GPL", "GPL-1.0-or-later"),
        ("LGPL", "LGPL-2.0-or-later"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("LGPL-2+", "LGPL-2.0-or-later"),
        ("GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later"),
        ("GFDL-1.3+-no-invariant", "GFDL-1.3-no-invariants-or-later"),
        ("GFDL-1.2", "GFDL-1.2-only"),
        ("BSD-3-clause", "BSD-3-Clause"),
        ("Apache-2.0", "Apache-2.0"),
        ("Artistic", "Artistic-1.0-Perl"),
        ("public-domain", "LicenseRef-public-domain"),
        ("PD", "LicenseRef-public-domain"),
        ("Zlib", "Zlib"),
        ("GPL-2 or BSD-3-clause", "BSD-3-Clause OR GPL-2.0-only"),
        ("GPL-2+-or-X11", "GPL-2.0-or-later OR X11"),
        ("BSD-3-clause and/or GPL-3+", "BSD-3-Clause OR GPL-3.0-or-later"),
        ("Apache-2.0 OR BSD-2", "Apache-2.0 OR BSD-2-Clause"),
        # DEP-5: "and" binds more tightly; a comma turns that around.
        ("GPL-2+ or Expat and ISC", "GPL-2.0-or-later OR (ISC AND MIT)"),
        ("GPL-2+ or Expat, and ISC", "ISC AND (GPL-2.0-or-later OR MIT)"),
        ("GPL-3+ with Bison exception", "GPL-3.0-or-later WITH Bison-exception-2.2"),
        ("GPL-2+ with the Libtool exception", "GPL-2.0-or-later WITH Libtool-exception"),
        ("GPL-2+-libtool-exception", "GPL-2.0-or-later WITH Libtool-exception"),
        ("GPL-2 with Linux-syscall-note exception", "GPL-2.0-only WITH Linux-syscall-note"),
        ("GPL-2+ with Autoconf-data exception", "GPL-2.0-or-later WITH Autoconf-exception-generic"),
        ("GPL-3+ with Autoconf-data exception", "GPL-3.0-or-later WITH Autoconf-exception-generic-3.0"),
        ("GPL-2+ with distribution exception", "LicenseRef-debian-GPL-2-or-later-with-distribution-exception"),
        ("ISC+IBM", "LicenseRef-debian-ISC-IBM"),
        ("__AUTO_PERMISSIVE__", "LicenseRef-debian-AUTO-PERMISSIVE"),
        ("GPL-9", "LicenseRef-debian-GPL-9"),
    ],
)
def test_names_of_debian(synopsis: str, expected: str) -> None:
    assert update_licenses.join([update_licenses.debian_expression(synopsis)]) == expected


def reviewed(*entries: tuple[str, str, str]) -> dict[str, Any]:
    """The content of a reviewed.json: of, text, licence."""
    return {
        "reviewed": [
            {"of": [of], "sha256": hashlib.sha256(text.encode()).hexdigest(), "license": license}
            for of, text, license in entries
        ]
    }


REVIEWED = update_licenses.Reviewed(
    reviewed(
        ("debian libthing-plus1", GPL_NOTICE + MIT, "MIT AND GPL-2.0-or-later"),
        ("pypi some-thing", MIT, "MIT"),
        ("pypi some-thing", "\n" + MIT, "MIT"),
        ("source some-thing", "Apache\n" + MIT, "Apache-2.0 AND MIT"),
    )
)
REAL = update_licenses.Reviewed.read(update_licenses.REVIEWED)


DEP5 = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: thing

Files: *
Copyright: someone
License: GPL-2+ or Expat

Files: debian/*
Copyright: someone
License: GPL-2+
 Text.

Files: odd
Copyright: someone
License: home-made
 Text.

License: Expat
 Text.
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # GPL-2.0-or-later implies "GPL-2.0-or-later OR MIT".
        (DEP5, "GPL-2.0-or-later AND LicenseRef-debian-home-made"),
        (GPL_NOTICE + MIT, "GPL-2.0-or-later AND MIT"),
    ],
)
def test_copyright_files(text: str, expected: str) -> None:
    assert update_licenses.debian_licenses(text, "libthing-plus1", REVIEWED) == expected


@pytest.mark.parametrize(
    "text",
    [
        "do what you like",
        # The second field has a text, but no name; the third is a header without any.
        DEP5.replace("License: home-made\n Text.", "License:\n Text."),
        DEP5.partition("\n\n")[0] + "\n",
        # A reviewed text with one more word.
        GPL_NOTICE + MIT + " not",
    ],
)
def test_a_text_that_nobody_has_read_is_asked_for(text: str) -> None:
    before = "whose text was MIT AND GPL-2.0-or-later before it changed"
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(update_licenses.UnreviewedError, match=f"^debian libthing-plus1, {before}: sha256 {sha256}$"):
        update_licenses.debian_licenses(text, "libthing-plus1", REVIEWED)


def test_what_has_been_read_is_locked_and_in_spdx_terms() -> None:
    content = json.loads(update_licenses.REVIEWED.read_text())["reviewed"]
    assert len(content) > 30
    names = {f"{each.ecosystem} {each.name}" for each in PINNED}
    for entry in content:
        assert set(entry) == {"of", "sha256", "license"}
        assert entry["of"] and set(entry["of"]) <= names, "these are no longer locked: delete them"
        assert re.fullmatch("[0-9a-f]{64}", entry["sha256"]), entry
        assert update_licenses.join([entry["license"]]) == entry["license"]
        licenses = {
            LICENSES[inputs.LICENSES_SECTION[each.ecosystem]][each.key]["license"]
            for each in PINNED
            if f"{each.ecosystem} {each.name}" in entry["of"]
        }
        assert entry["license"] in licenses, entry
    assert len({entry["sha256"] for entry in content}) == len(content)


@pytest.mark.parametrize(
    ("fields", "text", "expected"),
    [
        ("License-Expression: MIT OR Apache-2.0\nLicense: other", "", "Apache-2.0 OR MIT"),
        ("License: Apache 2.0\nClassifier: License :: OSI Approved :: MIT License", "", "Apache-2.0"),
        ("License: BSD\nClassifier: License :: OSI Approved :: MIT License", "not read", "MIT"),
        ("License: BSD\nClassifier: License :: OSI Approved :: BSD License", MIT, "MIT"),
        (
            "Classifier: License :: OSI Approved :: MIT License\nClassifier: License :: OSI Approved :: BSD License",
            MIT,
            "MIT",
        ),
        (
            "Classifier: License :: OSI Approved :: Apache Software License\n"
            "Classifier: License :: OSI Approved :: BSD License",
            MIT,
            "MIT",
        ),
        (
            "Classifier: License :: OSI Approved\nClassifier: License :: OSI Approved :: MIT License\n"
            "Classifier: License :: OSI Approved :: Apache Software License",
            "not read",
            "Apache-2.0 AND MIT",
        ),
        ("License: Public domain", "", "LicenseRef-public-domain"),
        ("Classifier: License :: Public Domain", "", "LicenseRef-public-domain"),
        ("License: BSD", "", "LicenseRef-some-thing"),
        ("Summary: nothing said", "", "LicenseRef-some-thing"),
        # These texts are those of its contents.
        ("Classifier: License :: Other/Proprietary License", MIT, "LicenseRef-some-thing"),
        ("License: Vendor Software\nClassifier: License :: Other/Proprietary License", MIT, "LicenseRef-some-thing"),
        ("License-Expression: LicenseRef-Vendor-Proprietary", MIT, "LicenseRef-Vendor-Proprietary"),
        ("License: LicenseRef-Vendor-Proprietary", MIT, "LicenseRef-Vendor-Proprietary"),
        ("License-Expression: LicenseRef-a b", MIT, "MIT"),
    ],
)
def test_metadata_of_distributions(fields: str, text: str, expected: str) -> None:
    metadata, _ = parse_email(f"Metadata-Version: 2.4\nName: Some_Thing\nVersion: 1\n{fields}\n")
    assert update_licenses.pypi_licenses(metadata, [text] if text else [], REVIEWED) == expected


def test_the_lock_is_of_the_other_locks_and_in_spdx_terms() -> None:
    assert [each.key for each in inputs.load(LOCKS)] == [each.key for each in PINNED]
    assert set(LICENSES) == set(inputs.LICENSES_SECTION.values())
    licensing = get_spdx_licensing()
    for entries in LICENSES.values():
        assert list(entries) == sorted(entries)
        for key, entry in entries.items():
            assert set(entry) == {"version", "license"}
            unknown = licensing.unknown_license_keys(entry["license"])
            assert all(re.fullmatch(r"LicenseRef-[A-Za-z0-9][A-Za-z0-9.-]*", each) for each in unknown), key
            assert (
                licensing.parse(entry["license"]).render()
                == update_licenses.join([entry["license"]])
                == entry["license"]
            ), key


def test_the_lock_names_no_host() -> None:
    text = LOCKS["licenses.lock.json"].read_text()
    assert "://" not in text
    assert not re.findall(r"[\w-]+\.(?:com|dev|io|net|org)\b", text)


def by_hash(path: pathlib.Path) -> list[inputs.Input]:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    found = [each for each in PINNED if sha256 in each.sha256]
    assert found, f"{path} is not locked"
    return found


@pytest.mark.parametrize("path", DEBS, ids=lambda path: path.name)
def test_a_debian_package_states_what_the_lock_says(path: pathlib.Path) -> None:
    for locked in by_hash(path):
        owner, text = copyright_file(path, locked.package)
        entry = LICENSES["debian"][locked.key]
        if text:
            assert update_licenses.debian_licenses(text, locked.name, REAL) == entry["license"]
        else:
            assert owner != locked.name
            assert LICENSES["debian"][f"{locked.suite}/{owner}"]["license"] == entry["license"]


@pytest.mark.parametrize("path", WHEELS, ids=lambda path: path.name)
def test_a_wheel_states_what_the_lock_says(path: pathlib.Path) -> None:
    for locked in by_hash(path):
        assert update_licenses.wheel_license(path, REAL) == LICENSES["pypi"][locked.name]["license"]


@pytest.mark.parametrize(
    ("manifest", "files", "expected"),
    [
        ('license = "MIT OR Apache-2.0"', {}, "Apache-2.0 OR MIT"),
        ('license = "MIT/Apache-2.0"', {}, "Apache-2.0 OR MIT"),
        ('license = "Unlicense / MIT"', {"LICENSE-APACHE": "not read"}, "MIT OR Unlicense"),
        ('license-file = "COPYING"', {"COPYING": MIT}, "MIT"),
        ('license-file = "COPYING"', {"COPYING": "", "LICENSE": MIT}, "MIT"),
        ("", {"src/LICENSE": MIT}, "LicenseRef-some-thing"),
    ],
)
def test_manifests_of_crates(tmp_path: pathlib.Path, manifest: str, files: dict[str, str], expected: str) -> None:
    crate = tmp_path / "some_thing-1.0.0.crate"
    files = {"Cargo.toml": f'[package]\nname = "some_thing"\n{manifest}\n', **files}
    crate.write_bytes(tar_bytes({f"some_thing-1.0.0/{name}": content for name, content in files.items()}, "w:gz"))
    assert update_licenses.crate_license(crate, REVIEWED) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"LICENSE": MIT, "cpp/LICENSE": "not read"}, "MIT"),
        ({"LICENSE.third_party": MIT, "LICENSE": "Apache"}, "Apache-2.0 AND MIT"),
        ({"NOTICE": MIT}, "LicenseRef-some-thing"),
    ],
)
def test_licence_files_of_git_repositories(files: dict[str, str], expected: str) -> None:
    assert update_licenses.git_license(tar_bytes(files, "w"), "some-thing", REVIEWED) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"x/lib/python3.12/LICENSE.txt": MIT}, "MIT"),
        ({"x/lib/python3.9/LICENSE.txt": MIT, "x/lib/python3.10/LICENSE.txt": "Apache"}, "Apache-2.0 AND MIT"),
        # These are of something else.
        ({"x/lib/python3.12/LICENSE.txt": MIT, "META-INF/LICENSE.txt": "x", "x/lib/python3.12/LICENSE": "x"}, "MIT"),
        ({"x/lib/python3.12/more/LICENSE.txt": MIT, "x/lib/LICENSE.txt": MIT}, "LicenseRef-some-thing"),
    ],
)
def test_the_licence_file_of_the_python_in_a_jar(tmp_path: pathlib.Path, files: dict[str, str], expected: str) -> None:
    jar = tmp_path / "some-thing.jar"
    jar.write_bytes(zip_bytes(files))
    assert update_licenses.jar_license(jar, "some-thing", REVIEWED) == expected


def test_the_licence_file_of_a_jar_that_nobody_has_read_is_asked_for(tmp_path: pathlib.Path) -> None:
    jar = tmp_path / "some-thing.jar"
    jar.write_bytes(zip_bytes({"x/lib/python3.12/LICENSE.txt": "do what you like"}))
    with pytest.raises(update_licenses.UnreviewedError, match="^source some-thing, whose text was Apache-2.0 AND MIT"):
        update_licenses.jar_license(jar, "some-thing", REVIEWED)


# The update ------------------------------------------------------------------------------------------------------


def tar_bytes(files: dict[str, str], mode: Literal["w", "w:gz", "w:xz"]) -> bytes:
    """A tar archive; content that starts with "->" is a symbolic link."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if content.startswith("->"):
                entry.type, entry.linkname = tarfile.SYMTYPE, content[2:]
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content.encode()))
    return stream.getvalue()


def deb_bytes(files: dict[str, str]) -> bytes:
    return debian_package({"control.tar.gz": tar_bytes({}, "w:gz"), "data.tar.xz": tar_bytes(files, "w:xz")})


def zip_bytes(files: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def wheel_bytes(metadata: str) -> bytes:
    return zip_bytes({"one-1.dist-info/METADATA": metadata})


class Workspace:
    """Locks, and a folder of downloads with everything that they name; nothing else can be read without a network."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.locks = folder / "workspace/locks"
        self.locks.mkdir(parents=True)
        self.cache = folder / "cache"
        self.files: dict[str, pathlib.Path] = {}
        self.debian: dict[str, dict] = {}

    def keep(self, name: str, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        self.files[name] = self.cache / "content_addressable/sha256" / sha256 / "file"
        self.files[name].parent.mkdir(parents=True)
        self.files[name].write_bytes(content)
        return sha256

    def deb(self, name: str, version: str, files: dict[str, str]) -> None:
        sha256 = self.keep(name, deb_bytes(files))
        path = f"pool/{name}_{version}_amd64.deb"
        self.debian[f"stable/{name}"] = {
            "version": version,
            "sha256": sha256,
            "size": self.files[name].stat().st_size,
            "path": path,
            "archive": "debian",
        }
        (self.locks / "debian.lock.json").write_text(
            json.dumps({"sets": {"all": sorted(self.debian)}, "packages": self.debian})
        )

    def others(self) -> None:
        wheel = self.keep("one", wheel_bytes("Metadata-Version: 2.4\nName: one\nVersion: 1\nLicense-Expression: MIT\n"))
        (self.locks / "requirements.lock.txt").write_text(f"one==1 \\\n    --hash=sha256:{wheel}\n")
        (self.locks / "requirements_arm64.lock.txt").write_text("")
        information = "Metadata-Version: 2.1\nName: tree\nVersion: 2\nLicense: Apache-2.0\n"
        sdist = self.keep("tree", tar_bytes({"tree-2/PKG-INFO": information}, "w:gz"))
        source = {"registry": "pypi", "version": "2", "file": "tree-2.tar.gz", "sha256": sdist}
        jar = self.keep("python", zip_bytes({"org/python/lib/python3.12/LICENSE.txt": MIT}))
        python = {"registry": "maven", "version": "3.12", "sha256": jar, "size": 1}
        (self.locks / "sources.lock.json").write_text(json.dumps({"sources": {"python": python, "tree": source}}))
        files = {"config.json": {"sha256": "a" * 64, "size": 1}}
        ours = self.keep("model", wheel_bytes("Metadata-Version: 2.4\nName: data\nVersion: 3\nLicense: MIT\n"))
        models = {
            "checkpoint": {"registry": "hub", "commit": "c" * 40, "license": "llama3.2", "files": files},
            "wheel": {"registry": "pypi", "project": "data", "version": "3", "sha256": ours},
        }
        (self.locks / "models.lock.json").write_text(json.dumps({"models": models}))
        crate = self.keep(
            "rand",
            tar_bytes({"rand-0.3.1/Cargo.toml": '[package]\nname = "rand"\nlicense = "MIT/Apache-2.0"\n'}, "w:gz"),
        )
        crates = {"0.3/rand": {"name": "rand", "version": "0.3.1", "sha256": crate}}
        (self.locks / "crates.lock.json").write_text(json.dumps({"sets": {"all": list(crates)}, "crates": crates}))

    def lock(self) -> dict:
        return json.loads((self.locks / "licenses.lock.json").read_text())


@pytest.fixture
def workspace(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    for variable in ("MLC_DEBIAN_MIRROR", "MLC_DEBIAN_SECURITY_MIRROR"):
        # A port that nothing answers on: what is not in the folder of downloads is an error.
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("BUILD_WORKSPACE_DIRECTORY", str(tmp_path / "workspace"))
    monkeypatch.setattr(update_licenses, "REVIEWED", tmp_path / "reviewed.json")
    (tmp_path / "reviewed.json").write_text(
        json.dumps(reviewed(("debian base", GPL_NOTICE, "GPL-2.0-or-later"), ("debian other", MIT, "MIT")))
    )
    made = Workspace(tmp_path)
    made.deb("base", "1", {"./usr/share/doc/base/copyright": GPL_NOTICE})
    made.deb("lib", "1", {"./usr/share/doc/lib": "->base"})
    made.deb("a-plug", "1", {"./usr/share/doc/a-plug/copyright": "->../lib/copyright"})
    made.others()
    return made


def update(monkeypatch: pytest.MonkeyPatch, workspace: Workspace, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["update_licenses", "--cache", str(workspace.cache), *arguments])
    return update_licenses.main()


def test_an_update_follows_links_and_keeps_what_it_read(
    monkeypatch: pytest.MonkeyPatch, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert update(monkeypatch, workspace) == 0
    gpl = {"version": "1", "license": "GPL-2.0-or-later"}
    assert workspace.lock() == {
        "crates": {"0.3/rand": {"version": "0.3.1", "license": "Apache-2.0 OR MIT"}},
        "debian": {"stable/a-plug": gpl, "stable/base": gpl, "stable/lib": gpl},
        "models": {
            "checkpoint": {"version": "c" * 40, "license": "LicenseRef-model-llama3.2"},
            "wheel": {"version": "3", "license": "MIT"},
        },
        "pypi": {"one": {"version": "1", "license": "MIT"}},
        "sources": {
            "python": {"version": "3.12", "license": "MIT"},
            "tree": {"version": "2", "license": "Apache-2.0"},
        },
    }
    assert "wrote locks/licenses.lock.json" in capsys.readouterr().err
    # Nothing is read again, and the link of what is read leads to what is not.
    for name in ("base", "model", "one", "python", "rand", "tree"):
        workspace.files[name].unlink()
    workspace.deb("lib", "2", {"./usr/share/doc/lib": "->base", "./new": ""})
    assert update(monkeypatch, workspace, "--check") == 1
    assert "locks/licenses.lock.json would change" in capsys.readouterr().err
    assert workspace.lock()["debian"]["stable/lib"]["version"] == "1"
    assert update(monkeypatch, workspace) == 0
    read = [line for line in capsys.readouterr().err.splitlines() if line.startswith("reading ")]
    assert read == ["reading debian stable/lib 2 …"]
    assert workspace.lock()["debian"]["stable/lib"] == {"version": "2", "license": "GPL-2.0-or-later"}
    assert update(monkeypatch, workspace, "--check") == 0


def test_the_licence_of_a_git_source_is_read_only_when_its_commit_changes(
    monkeypatch: pytest.MonkeyPatch, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workspace.locks / "sources.lock.json"
    source = {
        "registry": "git",
        "repository": "file:///nonexistent",
        "commit": "1" * 40,
        "paths": ["LICENSE"],
        "sha256": "0" * 64,
    }
    path.write_text(json.dumps({"sources": {"engine": source}}))
    monkeypatch.setattr(update_licenses.checkout, "from_anywhere", lambda source, _: tar_bytes({"LICENSE": MIT}, "w"))
    assert update(monkeypatch, workspace) == 0
    assert workspace.lock()["sources"] == {"engine": {"version": "1" * 40, "license": "MIT"}}
    monkeypatch.undo()
    monkeypatch.setenv("BUILD_WORKSPACE_DIRECTORY", str(workspace.locks.parent))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("MLC_SOURCES", raising=False)
    assert update(monkeypatch, workspace, "--check") == 0
    path.write_text(json.dumps({"sources": {"engine": {**source, "commit": "2" * 40}}}))
    capsys.readouterr()
    assert update(monkeypatch, workspace) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("update_licenses: engine: expected commit " + "2" * 40) and "MLC_SOURCES" in error


def test_all_texts_that_need_a_review_are_named_and_written_down(
    monkeypatch: pytest.MonkeyPatch, workspace: Workspace, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.deb("base", "2", {"./usr/share/doc/base/copyright": GPL_NOTICE + "changed"})
    workspace.deb("new", "1", {"./usr/share/doc/new/copyright": "do what you like"})
    monkeypatch.setenv("BUILD_WORKING_DIRECTORY", str(tmp_path))
    assert update(monkeypatch, workspace, "--texts", "texts") == 1
    error = capsys.readouterr().err
    assert "\n  debian base, whose text was GPL-2.0-or-later before it changed: sha256 " in error
    assert f"\n  debian new: sha256 {hashlib.sha256(b'do what you like').hexdigest()}\n" in error
    assert {path.name for path in (tmp_path / "texts").iterdir()} == {"debian-base.txt", "debian-new.txt"}
    assert (tmp_path / "texts" / "debian-new.txt").read_text() == "do what you like"
    assert not (workspace.locks / "licenses.lock.json").exists()


def test_what_is_no_longer_locked_leaves_the_lock(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> None:
    assert update(monkeypatch, workspace) == 0
    del workspace.debian["stable/a-plug"]
    workspace.deb("other", "1", {"./usr/share/doc/other/copyright": MIT})
    assert update(monkeypatch, workspace) == 0
    assert sorted(workspace.lock()["debian"]) == ["stable/base", "stable/lib", "stable/other"]


def test_a_damaged_download_is_not_read(
    monkeypatch: pytest.MonkeyPatch, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.files["base"].write_bytes(deb_bytes({"./usr/share/doc/base/copyright": MIT}))
    assert update(monkeypatch, workspace) == 1
    assert "update_licenses: cannot download" in capsys.readouterr().err
    assert not (workspace.locks / "licenses.lock.json").exists()


def test_a_link_out_of_the_lock_is_refused(
    monkeypatch: pytest.MonkeyPatch, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.deb("lost", "1", {"./usr/share/doc/lost": "->elsewhere"})
    assert update(monkeypatch, workspace) == 1
    message = (
        "stable/lost: its copyright file is a link into stable/elsewhere, which locks/debian.lock.json does not have"
    )
    assert message in capsys.readouterr().err


def test_a_package_without_copyright_file_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "bare.deb"
    path.write_bytes(deb_bytes({"./usr/bin/bare": ""}))
    with pytest.raises(
        DebianError, match="bare: expected /usr/share/doc/bare/copyright or a link there, found neither"
    ):
        copyright_file(path, "bare")
