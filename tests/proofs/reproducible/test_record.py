"""A release's digests are recorded only at its tag and never change; verification detects any other artifact."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fetch import errors
from oci.layout import MANIFEST
from oci.registry_server import registry
from release.private import stamp
from release.private.reproduce import command, compare, record
from tests.oci.layouts import write_index, write_layout

DIFFOSCOPE = pathlib.Path(os.environ["DIFFOSCOPE"]).absolute()
DIGESTS = pathlib.Path(os.environ["DIGESTS"])
REGISTRY, SKOPEO = (pathlib.Path(os.environ[name]).absolute() for name in ("REGISTRY", "SKOPEO"))
INDEX = "application/vnd.oci.image.index.v1+json"
TAG, BUILD = "v0.1.0", "registries"


class Release:
    """A tagged checkout and its build: a release folder and an image."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.work, self.dist, self.image = folder / "work", folder / "dist", folder / "image"
        self.record = self.work / "release/digests.json"
        self.record.parent.mkdir(parents=True)
        self.record.write_text('{"releases": {}}\n')
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message=one")
        self.git("tag", TAG)
        self.head = self.git("rev-parse", "HEAD")
        self.dist.mkdir()
        for name in "a-1-py3-none-any.whl", "all.spdx.json", "all.cdx.json", "index.html", "SHA256SUMS":
            (self.dist / name).write_text(name)
        write_layout(self.image, [{"etc/x": b"as built\n"}], labels={"title": "tiny", "version": "0.1.0"})

    def git(self, *words: str) -> str:
        identity = (
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.org",
            "-c",
            "commit.gpgsign=false",
            "-c",
            "tag.gpgsign=false",
        )
        done = subprocess.run(
            ["git", "-C", str(self.work), *identity, *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    @property
    def digests(self) -> record.Digests:
        return record.of_build(self.dist, {"tiny": self.image})

    def write(self, tag: str = TAG, build: str = BUILD, revision: str | None = None) -> None:
        record.write(self.record, tag, build, self.digests, self.work, revision or self.head)

    def set_aside(self) -> None:
        """Moves the record out of the checkout, which is clean again."""
        outside = self.work.with_name("digests.json")
        outside.write_bytes(self.record.read_bytes())
        self.git("checkout", "--quiet", "--", "release/digests.json")
        self.record = outside

    def refused(self, **options: str) -> str:
        before = self.record.read_bytes()
        with pytest.raises(record.RecordError) as error:
            self.write(**options)
        assert self.record.read_bytes() == before
        return str(error.value)


@pytest.fixture
def release(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    return Release(tmp_path)


def test_the_committed_record_is_well_formed() -> None:
    record.read(DIGESTS)


def test_what_is_recorded(release: Release) -> None:
    release.write()
    written = record.read(release.record)["releases"][TAG]
    assert written["revision"] == release.head
    assert written["builds"] == {
        BUILD: {
            "images": {"tiny": stamp.image_digest(release.image)},
            "sboms": {name: stamp.sha256(release.dist / name) for name in ("all.cdx.json", "all.spdx.json")},
            "wheels": {"a-1-py3-none-any.whl": stamp.sha256(release.dist / "a-1-py3-none-any.whl")},
        }
    }


def test_the_same_again_and_another_build_beside_it(release: Release) -> None:
    release.write()
    release.git("commit", "--quiet", "--all", "--message=record")
    release.git("checkout", "--quiet", TAG)
    release.write(build="upstream,cuda")
    before = release.record.read_bytes()
    release.set_aside()
    release.write(build="upstream,cuda")
    assert release.record.read_bytes() == before


def test_no_tag(release: Release) -> None:
    assert "tag v0.2.0: expected on" in release.refused(tag="v0.2.0") and "git tag v0.2.0" in release.refused(
        tag="v0.2.0"
    )


def test_a_tag_elsewhere(release: Release) -> None:
    release.git("commit", "--quiet", "--allow-empty", "--message=two")
    assert f"found on {release.head}" in release.refused(revision=release.git("rev-parse", "HEAD"))


def test_a_dirty_tree(release: Release) -> None:
    (release.work / "new").write_text("1")
    assert "expected no file that differs from its commit, found new" in release.refused()


@pytest.mark.parametrize("revision", ["unstamped", "0" * 40])
def test_a_build_of_another_commit(release: Release, revision: str) -> None:
    assert f"found {revision}" in release.refused(revision=revision)


def test_what_is_recorded_does_not_change(release: Release) -> None:
    release.write()
    release.set_aside()
    (release.dist / "a-1-py3-none-any.whl").write_text("other")
    assert "a-1-py3-none-any.whl: expected sha256:" in release.refused() and "raise VERSION" in release.refused()


@pytest.mark.parametrize(
    "break_it, said",
    [
        (lambda releases: releases.update({"0.1.0": releases.pop(TAG)}), "expected tags vX.Y.Z, found '0.1.0'"),
        (lambda releases: releases[TAG].update(revision="main"), "expected a commit's id, found 'main'"),
        (lambda releases: releases[TAG].update(builds={}), "expected at least one"),
        (lambda releases: releases[TAG].pop("builds"), "expected builds and revision"),
        (
            lambda releases: releases[TAG]["builds"].update(mine={}),
            "expected PROFILE[,cuda][,without-mlc-llm], found 'mine'",
        ),
        (lambda releases: releases[TAG]["builds"][BUILD].pop("wheels"), "expected images and sboms and wheels"),
        (
            lambda releases: releases[TAG]["builds"][BUILD]["images"].update(tiny="abc"),
            "expected sha256: and 64 hex digits, found 'abc'",
        ),
    ],
)
def test_a_malformed_record(release: Release, break_it: Callable[[dict[str, Any]], object], said: str) -> None:
    release.write()
    content = json.loads(release.record.read_text())
    break_it(content["releases"])
    release.record.write_text(json.dumps(content))
    with pytest.raises(record.RecordError) as error:
        record.read(release.record)
    assert said in str(error.value) and "git checkout" in str(error.value)


def test_a_record_that_is_no_json(release: Release) -> None:
    release.record.write_text("{")
    with pytest.raises(record.RecordError, match="expected JSON"):
        record.read(release.record)


# Verifying --------------------------------------------------------------------------------------------------------


def verify(
    release: Release, rebuilt: Release, things: Sequence[pathlib.Path | str], build: str = BUILD, tag: str | None = None
) -> bool:
    """Runs the command's verification with `rebuilt` in place of this build."""
    options = Namespace(tag=tag, version=TAG[1:], verify=list(map(str, things)), diffoscope=DIFFOSCOPE, skopeo=SKOPEO)

    class Rebuilt(command.Command):
        def _here(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], pathlib.Path]:
            return {(kind, name): rebuilt.image if kind == "images" else rebuilt.dist / name for kind, name in wanted}

        def images(self) -> dict[str, pathlib.Path]:
            return {"tiny": rebuilt.image}

    this = Rebuilt.__new__(Rebuilt)
    this.options, this.digests, this.revision, this.build, this.html = (
        options,
        release.record,
        release.head,
        build,
        release.work / "page.html",
    )
    with tempfile.TemporaryDirectory(dir=release.work) as place:
        return this.verify(pathlib.Path(place))


@pytest.fixture
def published(release: Release, tmp_path: pathlib.Path) -> pathlib.Path:
    """An exact download of `release`, which was built and recorded."""
    release.write()
    shutil.copytree(release.dist, tmp_path / "downloaded/dist")
    shutil.copytree(release.image, tmp_path / "downloaded/image")
    return tmp_path / "downloaded"


def test_the_published_bytes(release: Release, published: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    things = [published / "dist/a-1-py3-none-any.whl", published / "image"]
    assert verify(release, release, things)
    said = capsys.readouterr().out
    assert said.count("as recorded for v0.1.0, registries") == said.count("the same bytes in this build") == 2
    assert said.endswith("2 artifacts verified\n")


def test_a_folder_of_a_release(release: Release, published: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(release, release, [published / "dist"])
    assert capsys.readouterr().out.endswith("3 artifacts verified\n")


def test_a_tampered_wheel(release: Release, published: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (published / "dist/a-1-py3-none-any.whl").write_text("tampered\n")
    assert not verify(release, release, [published / "dist"])
    said = capsys.readouterr().out
    assert "NOT AS RECORDED: sha256:" in said and "OTHER BYTES in this build" in said
    assert "+a-1-py3-none-any.whl" in said and "-tampered" in said and "page.html" in said


def test_a_tampered_image(release: Release, published: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(published / "image")
    write_layout(published / "image", [{"etc/x": b"tampered\n"}], labels={"title": "tiny", "version": "0.1.0"})
    assert not verify(release, release, [published / "image"])
    said = capsys.readouterr().out
    assert (
        "NOT AS RECORDED" in said and "tiny/layer-00.tar.gz" in said and "      etc/x\n" in said and "-tampered" in said
    )


def test_a_damaged_image(release: Release, published: pathlib.Path) -> None:
    blob = compare.parts(published / "image")["layer-00.tar.gz"]
    blob.write_bytes(blob.read_bytes() + b"1")
    with pytest.raises(stamp.Untested, match="expected the blob"):
        verify(release, release, [published / "image"])


def test_a_record_that_no_build_gives(
    release: Release, published: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As recorded, but the sources give something else: the record alone is not believed."""
    (tmp_path / "again").mkdir()
    rebuilt = Release(tmp_path / "again")
    (rebuilt.dist / "a-1-py3-none-any.whl").write_text("what the sources give")
    assert not verify(release, rebuilt, [published / "dist/a-1-py3-none-any.whl"])
    said = capsys.readouterr().out
    assert "as recorded for v0.1.0" in said and "OTHER BYTES in this build" in said


def test_bytes_that_a_build_here_gives_and_the_record_does_not_have(
    release: Release, published: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in release.dist, published / "dist":
        (folder / "a-1-py3-none-any.whl").write_text("of another compiler, say")
    assert not verify(release, release, [published / "dist/a-1-py3-none-any.whl"])
    said = capsys.readouterr().out
    assert (
        "NOT AS RECORDED" in said
        and "the same bytes in this build" in said
        and said.endswith("not verified: see above\n")
    )


def test_what_is_not_recorded(release: Release, published: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (published / "dist/b-1-py3-none-any.whl").write_text("1")
    assert not verify(release, release, [published / "dist/b-1-py3-none-any.whl"])
    said = capsys.readouterr().out
    assert "NOT AS RECORDED: release/digests.json has none of that name" in said and "it has no such artifact" in said


def test_another_profile_is_named(
    release: Release, published: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(release, release, [published / "dist/a-1-py3-none-any.whl"], build="upstream")
    assert "as recorded for v0.1.0, registries" in capsys.readouterr().out


def test_a_release_that_is_not_recorded(release: Release, published: pathlib.Path) -> None:
    with pytest.raises(record.RecordError, match="expected v0.3.0, found v0.1.0"):
        verify(release, release, [published / "dist"], tag="v0.3.0")


def test_two_of_the_same_name_are_both_verified(
    release: Release, published: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = published / "dist/a-1-py3-none-any.whl", tmp_path / "other/a-1-py3-none-any.whl"
    bad.parent.mkdir()
    bad.write_text("tampered\n")
    for things in ([bad, good], [good, bad]):
        assert not verify(release, release, things)
        said = capsys.readouterr().out
        assert said.count("a-1-py3-none-any.whl: sha256:") == 2 and said.count("NOT AS RECORDED") == 1


def test_two_images_of_the_same_title_are_both_verified(
    release: Release, published: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "both"
    write_layout(folder / "a", [{"etc/x": b"tampered\n"}], labels={"title": "tiny"})
    shutil.copytree(published / "image", folder / "b")
    for things in ([folder], [folder / "a", folder / "b"]):
        assert not verify(release, release, things)
        assert capsys.readouterr().out.count("tiny: sha256:") == 2


@pytest.mark.parametrize("title", ["x\n::error::revoked", "../tiny", "\x1b[2J", ""])
def test_a_title_that_is_no_name_is_refused(
    release: Release, published: pathlib.Path, tmp_path: pathlib.Path, title: str
) -> None:
    write_layout(tmp_path / "hostile", [{"etc/x": b"1"}], labels={"title": title})
    with pytest.raises(errors.UserError, match="the title of the image: expected a plain file name, found"):
        verify(release, release, [tmp_path / "hostile"])


def pushed(layout: pathlib.Path, name: str, *options: str) -> None:
    """Pushes a layout with skopeo."""
    copy = (str(SKOPEO), "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", *options)
    subprocess.run([*copy, f"oci:{layout}", f"docker://{name}"], check=True)


def test_a_registry_does_not_choose_which_image_is_verified(
    release: Release, published: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It answers for mlc_llm with an image that was published too."""
    (tmp_path / "registry").mkdir()
    with registry(str(REGISTRY), tmp_path / "registry") as port:
        pushed(release.image, f"localhost:{port}/team/mlc_llm:1")
        with pytest.raises(record.RecordError, match="expected the image mlc_llm, found one with the title tiny"):
            verify(release, release, [f"localhost:{port}/team/mlc_llm:1"])
        assert verify(release, release, [f"tiny=localhost:{port}/team/mlc_llm:1"])


def test_an_index_that_is_not_of_its_images_is_refused(
    release: Release, published: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """One of its images, the one that skopeo would choose, is as recorded."""
    (tmp_path / "registry").mkdir()
    with registry(str(REGISTRY), tmp_path / "registry") as port:
        name = f"localhost:{port}/team/tiny"
        pushed(release.image, f"{name}:one")
        manifest = (release.image / "blobs" / stamp.image_digest(release.image).replace(":", "/")).read_bytes()
        entry = {"mediaType": MANIFEST, "digest": stamp.image_digest(release.image), "size": len(manifest)}
        machine = {"amd64": {"architecture": "amd64", "os": "linux"}, "arm64": {"architecture": "arm64", "os": "linux"}}
        index = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [{**entry, "platform": platform} for platform in machine.values()],
        }
        connection = http.client.HTTPConnection("localhost", port)
        body = json.dumps(index).encode()
        connection.request("PUT", "/v2/team/tiny/manifests/all", body, {"Content-Type": INDEX})
        assert connection.getresponse().status == 201
        connection.close()
        for reference in (f"{name}:all", f"{name}@sha256:{hashlib.sha256(body).hexdigest()}"):
            with pytest.raises(
                record.RecordError, match="expected an image with a title among its labels, found .*an index of images"
            ):
                verify(release, release, [reference])


@pytest.fixture
def indexed(tmp_path: pathlib.Path, release: Release) -> Release:
    """A release, recorded, whose image is an index of two."""
    labels = {"title": "tiny", "version": "0.1.0"}
    both = [
        write_layout(tmp_path / each, [{"etc/x": each.encode()}], labels=labels, architecture=each)
        for each in ("amd64", "arm64")
    ]
    write_index(release.image, both)
    release.write()
    return release


def test_an_index_is_verified_with_its_images(
    indexed: Release, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "registry").mkdir()
    with registry(str(REGISTRY), tmp_path / "registry") as port:
        name = f"localhost:{port}/team/tiny"
        pushed(indexed.image, f"{name}:all", "--all")
        assert verify(indexed, indexed, [f"{name}:all", indexed.image])
        assert "2 artifacts verified" in capsys.readouterr().out
    with pytest.raises(record.RecordError, match="expected the index of the images for all processors, .*tiny:0.1.0"):
        verify(indexed, indexed, [tmp_path / "arm64"])


def test_an_image_of_an_index_is_tampered(
    indexed: Release, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tampered = write_layout(
        tmp_path / "other", [{"etc/x": b"tampered\n"}], labels={"title": "tiny"}, architecture="arm64"
    )
    write_index(tmp_path / "published", [tmp_path / "amd64", tampered])
    assert not verify(indexed, indexed, [tmp_path / "published"])
    said = capsys.readouterr().out
    assert "NOT AS RECORDED" in said and "tiny/arm64/layer-00.tar.gz" in said and "tiny/amd64" not in said


def test_an_image_in_a_registry(
    release: Release, published: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "registry").mkdir()
    with registry(str(REGISTRY), tmp_path / "registry") as port:
        name = f"localhost:{port}/team/tiny"
        for tag, layout in ("right", release.image), ("wrong", tmp_path / "tampered"):
            if tag == "wrong":
                write_layout(layout, [{"etc/x": b"tampered\n"}], labels={"title": "tiny"})
            command_line = [
                str(SKOPEO),
                "--insecure-policy",
                "copy",
                "--quiet",
                "--dest-tls-verify=false",
                f"oci:{layout}",
                f"docker://{name}:{tag}",
            ]
            subprocess.run(command_line, check=True)
        assert verify(release, release, [f"{name}:right"])
        assert verify(release, release, [f"{name}@{stamp.image_digest(release.image)}"])
        assert "tiny: sha256:" in capsys.readouterr().out
        assert not verify(release, release, [f"{name}:wrong"])
        assert "NOT AS RECORDED" in capsys.readouterr().out
        with pytest.raises(record.RecordError, match="skopeo could not pull it"):
            verify(release, release, [f"{name}:missing"])


def test_what_cannot_be_verified(release: Release, published: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").mkdir()
    for thing in tmp_path / "empty", published / "dist/index.html", tmp_path / "nothing":
        with pytest.raises(record.RecordError, match="expected a wheel, a bill of materials"):
            verify(release, release, [thing])
