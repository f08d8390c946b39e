"""What a job builds is handed to one that publishes: the same bytes, checked twice, and no program among them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fetch import errors
from oci.layout import MANIFEST, named_images
from oci.registry_server import registry
from release.private import claims, hand_over, stamp, take_over
from release.private import expected as this_checkout
from release.private.expected import DOCUMENTS
from tests.private.deb import deb
from tests.release import dist_under_test
from tests.release.dist_under_test import REVISION
from tests.release.push_under_test import REGISTRY, TOOLS, Release

WHEEL = dist_under_test.wheel_name("thing")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release with two images and a folder of files, as //release:dist makes it."""
    release = Release(tmp_path_factory.mktemp("release"), revision=REVISION)
    expected = dist_under_test.expected(release.layouts)
    files = dist_under_test.write(release.folder / "files", release.layouts, expected)
    release.gate.write_bytes(files["gate.json"].read_bytes())
    dist_under_test.gather(release.folder / "dist", files, expected)
    return release


def write_sums(dist: pathlib.Path) -> None:
    sums = {
        path.name: stamp.sha256(path).removeprefix("sha256:") for path in dist.iterdir() if path.name != "SHA256SUMS"
    }
    (dist / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))


def documents(release: Release) -> list[tuple[str, str, str]]:
    """See `expected.attached`, of all layouts."""
    return [
        each
        for name, layout in release.layouts.items()
        for each in this_checkout.attached(name, named_images(name, layout))
    ]


def write(release: Release, archive: pathlib.Path) -> subprocess.CompletedProcess:
    command = [sys.executable, hand_over.__file__, f"--gate={release.gate}", f"--dist={release.folder / 'dist'}"]
    command += [f"--layout={name}={layout}" for name, layout in release.layouts.items()]
    command += [
        f"--document={name}={kind}={release.folder / 'files' / file}" for name, kind, file in documents(release)
    ]
    command += ["--version=1.2.3", f"--output={archive}", f"--outputs={archive.parent / 'outputs'}"]
    return subprocess.run(command, env=release.environment, capture_output=True, text=True)


@pytest.fixture
def archive(release: Release, tmp_path: pathlib.Path) -> pathlib.Path:
    done = write(release, tmp_path / "publication.tar")
    assert done.returncode == 0, done.stderr
    return tmp_path / "publication.tar"


def sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def take(release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Callable[..., int]:
    """Runs take_over.py; the tools are those of this test, and so are version and commit of the checkout."""
    monkeypatch.setattr(take_over, "unpack_tools", lambda place: pathlib.Path(TOOLS["oras"]).parent)

    def run(archive: pathlib.Path, digest: str = "", **checkout: object) -> int:
        expected = dataclasses.replace(dist_under_test.expected(release.layouts), **checkout)  # type: ignore[arg-type]
        monkeypatch.setattr(this_checkout, "read", lambda workspace: expected)
        words = ["--archive", str(archive), "--sha256", digest or sha256(archive), "--place", str(tmp_path / "place")]
        monkeypatch.setattr(sys, "argv", ["take_over", *words])
        return take_over.main()

    return run


def changed(
    archive: pathlib.Path, change: Callable[[str, bytes], bytes | None], *more: tarfile.TarInfo
) -> pathlib.Path:
    """The archive with other content; None leaves a file out."""
    other = archive.with_name("changed.tar")
    with tarfile.open(archive) as source, tarfile.open(other, "w") as target:
        for entry in source:
            file = source.extractfile(entry)
            assert file
            content = change(entry.name, file.read())
            if content is not None:
                entry.size = len(content)
                target.addfile(entry, io.BytesIO(content))
        for entry in more:
            target.addfile(entry, io.BytesIO(b"x" * entry.size))
    return other


def test_the_digest_is_said_to_the_workflow_and_the_archive_is_the_same_each_time(
    release: Release, archive: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert (tmp_path / "outputs").read_text() == f"sha256={sha256(archive)}\n"
    (tmp_path / "again").mkdir()
    assert write(release, tmp_path / "again/publication.tar").returncode == 0
    assert sha256(tmp_path / "again/publication.tar") == sha256(archive)


def test_what_the_tests_did_not_pass_on_is_not_handed_over(release: Release, tmp_path: pathlib.Path) -> None:
    gate = release.gate.read_bytes()
    try:
        release.gate.write_text('{"artifacts": {}, "tests": []}')
        done = write(release, tmp_path / "publication.tar")
    finally:
        release.gate.write_bytes(gate)
    assert done.returncode == 1 and "small: the tests passed on nothing of that name" in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_what_is_pushed_is_what_was_handed_over(
    release: Release, archive: pathlib.Path, take: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    assert take(archive) == 0
    (tmp_path / "registry").mkdir()
    with registry(REGISTRY, tmp_path / "registry") as port:
        repository = f"127.0.0.1:{port}/team/small"
        done = subprocess.run(
            [tmp_path / "place/push", "--repository", repository, "--tag", "1.2.3"],
            env={**release.environment, "PYTHONPATH": "", "COSIGN_PRIVATE_KEY": release.key.read_text()},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == f"{repository}@{release.digests['small']}"
        assert set(release.referrers(f"{repository}:1.2.3")) == set(DOCUMENTS)
        assert release.verify(f"{repository}:1.2.3").returncode == 0


def test_no_program_is_taken_from_the_archive(
    archive: pathlib.Path, take: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    assert take(archive) == 0
    executable = {
        str(path.relative_to(tmp_path / "place"))
        for path in (tmp_path / "place").rglob("*")
        if path.is_file() and os.access(path, os.X_OK)
    }
    assert executable == {"push", "publish"}
    for name in executable:
        text = (tmp_path / "place" / name).read_text()
        assert f"PYTHONPATH={take_over._WORKSPACE}\n" in text and f" -m release.private.{name} " in text


def test_another_archive_is_refused(
    archive: pathlib.Path, take: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    digest = sha256(archive)
    with open(archive, "ab") as file:
        file.write(b"\0")
    assert take(archive, digest) == 1
    assert f"take_over: publication.tar: expected sha256 {digest}, found {sha256(archive)}" in capsys.readouterr().err


def test_a_job_that_said_no_digest_is_refused(
    archive: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--archive", str(archive), "--sha256", "", "--place", str(tmp_path / "place")]
    monkeypatch.setattr(sys, "argv", ["take_over", *words])
    assert take_over.main() == 1
    assert "expected sha256 none, found" in capsys.readouterr().err


def flipped(name: str, content: bytes, *, part: str) -> bytes | None:
    return content[:-1] + bytes([content[-1] ^ 1]) if part in name and content else content


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("layouts/small/blobs/", "small: expected the blob sha256:"),
        (WHEEL, f"{WHEEL}: expected "),
        ("dist/notes.md", "notes.md: expected "),
        ("dist/gate.json", "gate.json: expected "),
    ],
)
def test_changed_files_are_refused(
    archive: pathlib.Path, take: Callable[..., int], capsys: pytest.CaptureFixture[str], part: str, said: str
) -> None:
    assert take(changed(archive, functools.partial(flipped, part=part))) == 1
    assert said in capsys.readouterr().err


def test_a_wheel_that_was_not_tested_is_refused_even_with_fitting_sums(
    archive: pathlib.Path, take: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(archive) as tar:
        wheel = tar.extractfile(f"dist/{WHEEL}")
        assert wheel
        old, new = (hashlib.sha256(content).hexdigest().encode() for content in (wheel.read(), b"other"))

    def change(name: str, content: bytes) -> bytes:
        return b"other" if name.endswith(WHEEL) else content.replace(old, new) if "SUMS" in name else content

    assert take(changed(archive, change)) == 1
    assert f"{WHEEL}: the tests passed on sha256:{old.decode()}" in capsys.readouterr().err


def consistent(archive: pathlib.Path, change: Callable[[str, bytes], bytes]) -> pathlib.Path:
    """The archive with other content, sums and record that fit it."""
    contents: dict[str, bytes] = {}

    def keep(name: str, content: bytes) -> bytes:
        contents[name] = change(name, content)
        return contents[name]

    def fit(name: str, content: bytes) -> bytes:
        sums = {path: hashlib.sha256(data).hexdigest() for path, data in contents.items()}
        if name.endswith("gate.json"):
            gate = json.loads(content)
            gate["artifacts"] |= {
                path.removeprefix("dist/"): {"kind": "wheel", "digest": f"sha256:{digest}"}
                for path, digest in sums.items()
                if path.endswith(".whl")
            }
            contents["dist/gate.json"] = json.dumps(gate).encode()
            return contents["dist/gate.json"]
        if name == "dist/SHA256SUMS":
            listed = {path.removeprefix("dist/"): digest for path, digest in sums.items() if path.startswith("dist/")}
            return "".join(f"{digest}  {path}\n" for path, digest in listed.items() if path != "SHA256SUMS").encode()
        return contents.get(name, content)

    changed(archive, keep)
    changed(archive, fit)
    return changed(archive, fit)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (WHEEL, b"Version: 1.0", b"Version: 9.9", "METADATA: expected Version: 1.0+mlc1.2.3.b00000001, found"),
        ("small.provenance.json", REVISION.encode(), b"4" * 40, "small.provenance.json: predicate: buildDefinition"),
        ("small.spdx.json", b"1.2.3", b"1.2.4", "small.spdx.json: expected a bill of materials"),
        ("vulnerabilities.json", b"2026-01-01", b"2026-06-01", "vulnerabilities.json: date: expected '2026-01-01'"),
    ],
)
def test_an_archive_that_is_consistent_and_of_another_release_is_refused(
    archive: pathlib.Path,
    take: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    file: str,
    old: bytes,
    new: bytes,
    said: str,
) -> None:
    def change(name: str, content: bytes) -> bytes:
        return rewritten(content, old, new) if name == f"dist/{file}" else content

    assert take(consistent(archive, change)) == 1
    assert f"take_over: {file}: " in (err := capsys.readouterr().err) and said in err


def rewritten(content: bytes, old: bytes, new: bytes) -> bytes:
    """A file with other text; if it is a wheel, in its METADATA."""
    if not content.startswith(b"PK"):
        return content.replace(old, new)
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w") as archive:
        for info in source.infolist():
            archive.writestr(info, source.read(info).replace(old, new))
    return target.getvalue()


def entry(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    "hostile",
    [
        entry("../outside", size=1),
        entry("dist/../../outside", size=1),
        entry("../content/dist/outside", size=1),
        entry("/tmp/outside", size=1),
        entry("dist/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        entry("dist/hard", type=tarfile.LNKTYPE, linkname="gate.json"),
        entry("dist/fifo", type=tarfile.FIFOTYPE),
        entry("gate.json", size=1),
        entry("./gate.json", size=1),
        entry("gate.json/x", size=1),
        entry("dist", size=1),
        entry("push", size=1),
        entry("packages/x.deb", size=1),
        entry("tools/lib/x86_64-linux-gnu/libc.so.6", size=1),
        entry("content/gate.json", size=1),
        entry("documents/small/x.json", size=1),
    ],
    ids=lambda info: f"{info.name} {info.type.decode()}",
)
def test_an_archive_that_leads_elsewhere_is_refused(
    archive: pathlib.Path,
    take: Callable[..., int],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    hostile: tarfile.TarInfo,
) -> None:
    assert take(changed(archive, lambda name, content: content, hostile)) == 1
    said = capsys.readouterr().err
    assert said.startswith("take_over: changed.tar: ") and repr(hostile.name) in said and said.count("\n") == 1
    assert not (tmp_path / "outside").exists()
    assert {path.name for path in (tmp_path / "place").iterdir()} == {"content"}


def test_a_file_of_the_archive_is_never_a_program(
    archive: pathlib.Path, take: Callable[..., int], tmp_path: pathlib.Path
) -> None:
    changed_modes = archive.with_name("modes.tar")
    with tarfile.open(archive) as source, tarfile.open(changed_modes, "w") as target:
        for each in source:
            each.mode = 0o4755
            target.addfile(each, source.extractfile(each))
    assert take(changed_modes) == 0
    assert not [path for path in (tmp_path / "place/content").rglob("*") if path.is_file() and os.access(path, os.X_OK)]


def stated(**facts: object) -> Callable[[str, bytes], bytes]:
    """Changes what publication.json says."""

    def change(name: str, content: bytes) -> bytes:
        return json.dumps(json.loads(content) | facts).encode() if name == "publication.json" else content

    return change


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"documents": [["small", "application/spdx+json", "/etc/passwd"]]}, "expected the documents of this checkout"),
        ({"documents": [["small", "application/spdx+json", "other.spdx.json"]]}, "expected the documents of this"),
        ({"documents": [["small", "text/plain=/etc/passwd", "notes.md"]]}, "expected the documents of this checkout"),
        ({"documents": [["small", "notes.md"]]}, "expected the documents of this checkout"),
        ({"documents": [{}, None, 7, ["x"]]}, "expected the documents of this checkout"),
        ({"documents": {}}, "expected the documents of this checkout"),
        ({"images": {"another": "sha256:1"}}, "expected images of release/published.bzl, found 'another'"),
        ({"images": {"../small": "sha256:1"}}, "expected images of release/published.bzl, found '../small'"),
        ({"images": {"small": 7}}, "expected what hand_over.py writes"),
        ({"images": ["small"]}, "expected what hand_over.py writes"),
        ({"version": "1.2.4"}, "expected the version of this checkout, '1.2.3', found '1.2.4'"),
        ({"version": ["1.2.3"]}, "expected the version of this checkout, '1.2.3', found ['1.2.3']"),
    ],
    ids=str,
)
def test_what_the_archive_says_of_itself_names_no_other_file(
    archive: pathlib.Path,
    take: Callable[..., int],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    facts: dict,
    said: str,
) -> None:
    (tmp_path / "secret").write_text("password")
    assert take(changed(archive, stated(**facts))) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "place/push").exists()


def test_a_key_that_stands_twice_is_refused(
    archive: pathlib.Path, take: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    def change(name: str, content: bytes) -> bytes:
        return content.replace(b"{", b'{"version": "1.2.3",', 1) if name == "publication.json" else content

    assert take(changed(archive, change)) == 1
    assert "expected each key once, found 'version' twice" in capsys.readouterr().err


def test_a_changed_document_is_refused(
    archive: pathlib.Path, take: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert take(changed(archive, functools.partial(flipped, part="small.spdx.json"))) == 1
    assert "small.spdx.json: expected " in capsys.readouterr().err


def test_a_document_that_is_no_file_of_the_release_is_not_handed_over(release: Release, tmp_path: pathlib.Path) -> None:
    document = release.folder / "files/small.spdx.json"
    before = document.read_bytes()
    try:
        document.write_text("forged")
        done = write(release, tmp_path / "publication.tar")
    finally:
        document.write_bytes(before)
    assert done.returncode == 1 and "hand_over: small.spdx.json: expected the same file in " in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("version", "revision", "said"),
    [
        ("1.2.4", REVISION, "publication.json: expected the version of this checkout, '1.2.4', found '1.2.3'"),
        (
            "1.2.3",
            "4567def",
            f"small: expected the revision of this checkout, 4567def, among its labels, found '{REVISION}'",
        ),
    ],
)
def test_what_another_checkout_built_is_refused(
    archive: pathlib.Path,
    take: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    version: str,
    revision: str,
    said: str,
) -> None:
    assert take(archive, version=version, revision=revision) == 1
    assert said in capsys.readouterr().err


def put(layout: pathlib.Path, content: dict[str, Any]) -> dict[str, Any]:
    """Adds a document to a layout; returns what in its descriptor depends on it."""
    data = json.dumps(content).encode()
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def listed(layout: pathlib.Path, entry: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((layout / "blobs" / entry["digest"].replace(":", "/")).read_text())
    return document


# What is changed in the index and in the image for arm64, and what is said of it.
CHANGES: list[tuple[Callable[[dict[str, Any], dict[str, Any]], object], str]] = [
    (lambda index, image: index.update(annotations={"a": "b"}), "other: expected manifests, .* found 'annotations'"),
    (lambda index, image: index.update(subject=index["manifests"][0]), "other: expected .* found 'subject'"),
    (
        lambda index, image: index["manifests"][0].update(urls=["https://example.org"]),
        "other: expected .* found 'urls'",
    ),
    (
        lambda index, image: index["manifests"][0].update(annotations={"a": "b"}),
        "expected digest, .* found 'annotations'",
    ),
    (lambda index, image: index["manifests"].pop(), "other: expected other_amd64, other_arm64, found other_amd64"),
    (lambda index, image: image.update(subject=index["manifests"][0]), "other_arm64: expected .* found 'subject'"),
    (
        lambda index, image: image.update(artifactType="application/spdx+json"),
        "other_arm64: .* found 'application/spdx",
    ),
    (
        lambda index, image: image["layers"][0].update(mediaType=MANIFEST),
        "other_arm64: expected a configuration and layers",
    ),
    (lambda index, image: image["layers"][0].update(urls=["https://example.org"]), "other_arm64: .* found 'urls'"),
    (
        lambda index, image: image.update(annotations={"org.opencontainers.image.version": "9.9.9"}),
        "other_arm64: expected the version of this checkout, .* found '9.9.9'",
    ),
]


@pytest.mark.parametrize(("change", "said"), CHANGES, ids=[said for _, said in CHANGES])
def test_an_index_that_says_more_is_refused(
    release: Release,
    tmp_path: pathlib.Path,
    change: Callable[[dict[str, Any], dict[str, Any]], object],
    said: str,
) -> None:
    shutil.copytree(release.folder / "dist", tmp_path / hand_over.DIST)
    for name, layout in release.layouts.items():
        shutil.copytree(layout, tmp_path / hand_over.LAYOUTS / name)
    layout = tmp_path / hand_over.LAYOUTS / "other"
    top = json.loads((layout / "index.json").read_text())
    index = listed(layout, top["manifests"][0])
    image = listed(layout, index["manifests"][1])
    change(index, image)
    if index["manifests"][1:]:
        index["manifests"][1] |= put(layout, image)
    top["manifests"][0] |= put(layout, index)
    (layout / "index.json").write_text(json.dumps(top))
    artifacts = json.loads(release.gate.read_text())["artifacts"] | {"other": stamp.describe(layout)}
    (tmp_path / hand_over.GATE).write_text(json.dumps({"artifacts": artifacts, "tests": []}))
    shutil.copy(tmp_path / hand_over.GATE, tmp_path / hand_over.DIST / "gate.json")
    write_sums(tmp_path / hand_over.DIST)
    facts = {"version": "1.2.3", "images": {name: artifacts[name]["digest"] for name in release.layouts}}
    (tmp_path / hand_over.FACTS).write_text(json.dumps({**facts, "documents": documents(release)}))
    with pytest.raises((take_over.Refused, claims.Refused), match=said):
        take_over.check(tmp_path, dist_under_test.expected(release.layouts))


@pytest.mark.parametrize("key", ["version", "revision"])
def test_an_image_whose_manifest_says_something_else_is_refused(
    release: Release, tmp_path: pathlib.Path, key: str
) -> None:
    """Registries show the manifest's annotations, and the labels are in the configuration."""
    layouts = tmp_path / hand_over.LAYOUTS
    for name, layout in release.layouts.items():
        shutil.copytree(layout, layouts / name)
        index = json.loads((layout / "index.json").read_text())
        digest = index["manifests"][0]["digest"].removeprefix("sha256:")
        manifest = json.loads((layout / "blobs/sha256" / digest).read_text())
        manifest["annotations"] = {f"org.opencontainers.image.{key}": "another"}
        content = json.dumps(manifest).encode()
        index["manifests"][0] |= {"digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}
        (layouts / name / "blobs/sha256" / hashlib.sha256(content).hexdigest()).write_bytes(content)
        (layouts / name / "index.json").write_text(json.dumps(index))
    artifacts = {name: stamp.describe(layouts / name) for name in release.layouts}
    (tmp_path / hand_over.GATE).write_text(json.dumps({"artifacts": artifacts}))
    facts = {"version": "1.2.3", "images": {name: entry["digest"] for name, entry in artifacts.items()}}
    (tmp_path / hand_over.FACTS).write_text(json.dumps({**facts, "documents": documents(release)}))
    with pytest.raises(take_over.Refused, match=f"small: expected the {key} of this checkout, .*, found 'another'"):
        take_over.check(tmp_path, dist_under_test.expected(release.layouts))


@pytest.mark.parametrize(
    "facts",
    [
        {"version": "1.2.3", "tag": "v1.2.4", "revision": REVISION},
        {"version": "1.2.3", "tag": "v1.2.3", "revision": "4567def"},
        {"version": "1.2.4", "tag": "v1.2.3", "revision": REVISION},
    ],
)
def test_files_of_another_checkout_are_refused(
    release: Release,
    take: Callable[..., int],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    facts: dict[str, str],
) -> None:
    before = (release.folder / "dist/release.json").read_bytes()
    try:
        (release.folder / "dist/release.json").write_text(json.dumps(facts))
        write_sums(release.folder / "dist")
        assert write(release, tmp_path / "publication.tar").returncode == 0
    finally:
        (release.folder / "dist/release.json").write_bytes(before)
        write_sums(release.folder / "dist")
    assert take(tmp_path / "publication.tar") == 1
    assert re.search(r"release.json: (version|tag|revision): expected ", capsys.readouterr().err)


@pytest.mark.parametrize(
    "content",
    [b"[]", b"{}", b'{"artifacts": []}', b'{"artifacts": {"small": 7}}', b'{"artifacts": {"small": {}}}', b"["],
)
def test_a_record_that_is_none_is_refused(
    archive: pathlib.Path, take: Callable[..., int], capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    assert take(changed(archive, lambda name, before: content if name.endswith("gate.json") else before)) == 1
    said = capsys.readouterr().err
    assert said.startswith("take_over: gate.json: expected ") and said.count("\n") == 1


def test_the_commit_is_the_one_that_is_checked_out(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(this_checkout.Unreadable, match="expected a git checkout"):
        this_checkout.commit(tmp_path)
    git = ("git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=one"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert this_checkout.commit(tmp_path) == head
    (tmp_path / "copy").mkdir()
    with pytest.raises(this_checkout.Unreadable, match="found a folder in that of"):
        this_checkout.commit(tmp_path / "copy")


def test_a_checkout_without_a_version_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "version.bzl").write_text("VERSION = next()\n")
    with pytest.raises(this_checkout.Unreadable, match="expected a line VERSION"):
        this_checkout.read(tmp_path)


def write_deb(path: pathlib.Path, files: dict[str, bytes]) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in files.items():
            tar.addfile(entry(name, size=len(data), mode=0o755), io.BytesIO(data))
    path.write_bytes(deb({"control.tar": b"", "data.tar": content.getvalue()}))


@pytest.fixture
def mirror(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A mirror of Debian with one package that has the three tools, and a checkout whose lock names it."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLC_DEBIAN_MIRROR", f"http://127.0.0.1:{server.server_port}")
    files = {f"./usr/bin/{name}": b"a program" for name in ("cosign", "gh", "oras")}
    write_deb(folder / "tools.deb", files | {"./usr/lib64/ld-linux-x86-64.so.2": b"--argv0"})
    package: dict[str, object] = {"sha256": sha256(folder / "tools.deb"), "size": (folder / "tools.deb").stat().st_size}
    package |= {"version": "1", "path": "tools.deb", "archive": "debian"}
    lock = {"sets": {"publish_tools": ["trixie/tools"]}, "packages": {"trixie/tools": package}}
    (tmp_path / "checkout/locks").mkdir(parents=True)
    (tmp_path / "checkout/locks/debian.lock.json").write_text(json.dumps(lock))
    monkeypatch.setattr(take_over, "_WORKSPACE", tmp_path / "checkout")
    yield folder
    server.shutdown()
    server.server_close()


def test_the_tools_are_those_of_the_lock(mirror: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "place").mkdir()
    programs = take_over.unpack_tools(tmp_path / "place")
    assert sorted(path.name for path in programs.iterdir() if path.suffix == "") == ["cosign", "gh", "oras"]
    assert (programs / "cosign.unwrapped").read_bytes() == b"a program"


def test_tools_are_unpacked_into_a_new_folder(mirror: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "place/tools/usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    (tmp_path / "place/tools/usr/lib/x86_64-linux-gnu/libevil.so").write_text("planted")
    with pytest.raises(FileExistsError):
        take_over.unpack_tools(tmp_path / "place")


def test_other_tools_than_those_of_the_lock_are_refused(mirror: pathlib.Path, tmp_path: pathlib.Path) -> None:
    write_deb(mirror / "tools.deb", {"./usr/bin/cosign": b"another"})
    (tmp_path / "place").mkdir()
    with pytest.raises(errors.UserError, match="expected sha256"):
        take_over.unpack_tools(tmp_path / "place")
    assert not (tmp_path / "place/tools").exists()
