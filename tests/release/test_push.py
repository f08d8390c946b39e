"""//images:push sends what the tests passed on, tags last, or says why not: against a real registry, with the real
oras, cosign and skopeo.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fetch import programs
from oci import layout as oci_layout
from oci.registry_server import PASSWORD, USER, Fault, Proxy, registry
from release.private import push, stamp
from tests.release.push_under_test import (
    DOCUMENTS,
    LARGE,
    OTHER_DOCUMENTS,
    REGISTRY,
    TOOLS,
    Release,
    one_line,
    write_image,
)


@pytest.fixture
def release(tmp_path: pathlib.Path) -> Release:
    return Release(tmp_path)


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[Proxy]:
    (tmp_path / "registry").mkdir()
    with registry(REGISTRY, tmp_path / "registry") as port, Proxy(port) as proxy:
        yield proxy


def test_what_arrives_is_what_was_tested(release: Release, server: Proxy, tmp_path: pathlib.Path) -> None:
    repository = f"{server.host}/team/small"
    done = release.push("--repository", repository, "--tag", "one", "--tag", "two")
    digest = release.digests["small"]
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{repository}@{digest}", f"{repository}:one", f"{repository}:two"]
    assert "1/4" in done.stderr and "4.0 MB sent" in done.stderr
    for tag in ("one", "two"):
        pulled = tmp_path / tag
        copied = release.tool(
            "skopeo",
            *("--insecure-policy", "--tmpdir", str(tmp_path), "copy", "--preserve-digests", "--src-tls-verify=false"),
            *(f"docker://{repository}:{tag}", f"oci:{pulled}"),
        )
        assert copied.returncode == 0, copied.stderr
        assert stamp.image_digest(pulled) == digest
        blobs = {blob.name: blob.read_bytes() for blob in (pulled / "blobs/sha256").iterdir()}
        assert blobs == {blob.name: blob.read_bytes() for blob in (release.layouts["small"] / "blobs/sha256").iterdir()}


def test_documents_are_attached_and_everything_is_signed_with_the_key_given(release: Release, server: Proxy) -> None:
    repository = f"{server.host}/team/small"
    assert release.push("--repository", repository, "--tag", "one").returncode == 0
    attached = release.referrers(f"{repository}:one")
    assert set(attached) == set(DOCUMENTS)
    for kind, digest in attached.items():
        manifest = json.loads(
            release.tool("oras", "manifest", "fetch", "--plain-http", f"{repository}@{digest}").stdout
        )
        assert manifest["subject"]["digest"] == release.digests["small"]
        (layer,) = manifest["layers"]
        content = release.tool(
            "oras", "blob", "fetch", "--plain-http", "--output", "-", f"{repository}@{layer['digest']}"
        ).stdout
        assert content == (release.folder / DOCUMENTS[kind]).read_text()
        assert layer["annotations"]["org.opencontainers.image.title"] == DOCUMENTS[kind]
    verified = release.verify(f"{repository}:one")
    assert verified.returncode == 0, verified.stderr
    (claim,) = json.loads(verified.stdout)
    assert claim["critical"]["image"]["docker-manifest-digest"] == release.digests["small"]
    assert claim["optional"] == {"repository": repository, "tag": "one", "version": "unreleased"}
    for digest in attached.values():
        (claim,) = json.loads(release.verify(f"{repository}@{digest}").stdout)
        assert claim["optional"] == {"repository": repository, "image": release.digests["small"]}
    _, stranger = release._key("stranger")
    assert release.verify(f"{repository}:one", stranger).returncode != 0


def test_of_an_index_each_image_arrives_signed_with_its_documents(
    release: Release, server: Proxy, tmp_path: pathlib.Path
) -> None:
    repository = f"{server.host}/team/other"
    done = release.push("--repository", repository, "--tag", "one", "--image", "other")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{repository}@{release.digests['other']}", f"{repository}:one"]
    for name in ("other", "other_amd64", "other_arm64"):
        digest = release.digests[name]
        expected = {kind for of, kind in OTHER_DOCUMENTS if of == name}
        attached = release.referrers(f"{repository}@{digest}")
        assert attached.keys() == expected
        [claim] = json.loads(release.verify(f"{repository}@{digest}").stdout)
        assert claim["optional"] == {"repository": repository, "tag": "one", "version": "unreleased"}
        for document in attached.values():
            [claim] = json.loads(release.verify(f"{repository}@{document}").stdout)
            assert claim["optional"] == {"repository": repository, "image": digest}
    # What engines do on each processor.
    for architecture in ("amd64", "arm64"):
        pulled = tmp_path / f"pulled_{architecture}"
        copied = release.tool(
            "skopeo",
            *("--insecure-policy", "--tmpdir", str(tmp_path), f"--override-arch={architecture}", "copy"),
            *("--preserve-digests", "--src-tls-verify=false", f"docker://{repository}:one", f"oci:{pulled}"),
        )
        assert copied.returncode == 0, copied.stderr
        assert stamp.image_digest(pulled) == release.digests[f"other_{architecture}"]


def test_tags_come_last(release: Release, server: Proxy) -> None:
    assert release.push("--repository", f"{server.host}/team/small", "--tag", "one").returncode == 0
    writes = [request.path.rpartition("/")[2] for request in server.sent("PUT", "/manifests/")]
    digest = release.digests["small"]
    assert writes[0] == digest
    assert writes[-1] == "one" and writes.count("one") == 1
    # Between them: three documents, each with its list of referrers, and four signatures.
    assert sum(name.endswith(".sig") for name in writes) == 4
    assert writes.index(digest.replace(":", "-") + ".sig") > max(
        n for n, name in enumerate(writes) if name == digest.replace(":", "-")
    )


def test_a_second_push_sends_nothing_again(release: Release, server: Proxy) -> None:
    arguments = ("--repository", f"{server.host}/team/small", "--tag", "one")
    assert release.push(*arguments).returncode == 0
    before = release.referrers(f"{server.host}/team/small:one")
    server.requests.clear()
    again = release.push(*arguments)
    assert again.returncode == 0
    assert server.sent("POST|PATCH") == []
    # What names things, a manifest and a tag, is said again; that is a few hundred bytes.
    assert {request.path.rpartition("/")[2] for request in server.sent("PUT")} == {release.digests["small"], "one"}
    assert release.referrers(f"{server.host}/team/small:one") == before


def test_the_key_may_come_from_the_environment(release: Release, server: Proxy) -> None:
    repository = f"{server.host}/team/small"
    done = release.push(
        "--repository", repository, "--tag", "one", signed=False, COSIGN_PRIVATE_KEY=release.key.read_text()
    )
    assert done.returncode == 0, done.stderr
    assert release.verify(f"{repository}:one").returncode == 0


def keeps_environment(tool: str, folder: pathlib.Path) -> pathlib.Path:
    """A program that keeps the names of its variables in `<tool>.variables`, and then is the tool."""
    wrapper = folder / f"{tool}-wrapper"
    wrapper.write_text(f'#!/bin/sh\nenv | cut -d= -f1 >> {folder}/{tool}.variables\nexec {TOOLS[tool]} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


@pytest.mark.parametrize("helper", [False, True])
def test_a_tool_gets_only_the_variables_it_needs(release: Release, server: Proxy, helper: bool) -> None:
    secrets = {"GH_TOKEN": "t", "ACTIONS_RUNTIME_TOKEN": "t", "SOME_SECRET": "t", "AWS_SECRET_ACCESS_KEY": "t"}
    (release.home / ".docker").mkdir()
    helpers = {server.host if helper else "elsewhere.example": "nothing"}
    (release.home / ".docker/config.json").write_text(json.dumps({"credHelpers": helpers}))
    program = release.folder / "docker-credential-nothing"
    program.write_text("#!/bin/sh\necho 'credentials not found in native keychain'\nexit 1\n")
    program.chmod(0o755)
    done = release.push(
        *("--repository", f"{server.host}/team/small", "--tag", "one"),
        *(f"--{tool}={keeps_environment(tool, release.folder)}" for tool in ("oras", "cosign")),
        signed=False,
        COSIGN_PRIVATE_KEY=release.key.read_text(),
        PATH=f"{release.folder}:/usr/bin:/bin",
        **secrets,
    )
    assert done.returncode == 0, done.stderr
    seen = {tool: set((release.folder / f"{tool}.variables").read_text().split()) for tool in ("oras", "cosign")}
    assert "DOCKER_CONFIG" in seen["oras"] and {"COSIGN_PRIVATE_KEY", "COSIGN_PASSWORD"} <= seen["cosign"]
    assert not [name for name in seen["oras"] if name.startswith("COSIGN_")]
    for names in seen.values():
        # A credential helper looks for its own credentials in the environment.
        assert names & secrets.keys() == ({"AWS_SECRET_ACCESS_KEY"} if helper else set())


@pytest.mark.parametrize("keyless", [False, True])
def test_keyless_asks_cosign_for_the_same_signatures_without_a_key(
    release: Release, server: Proxy, keyless: bool
) -> None:
    """Not more than that: there is no Fulcio and no Rekor here."""
    wrapper = release.folder / "cosign"
    log = release.folder / "calls"
    wrapper.write_text(f"""#!/bin/sh
case "$*" in sign*--key*|public-key*) exec {TOOLS["cosign"]} "$@" ;; esac
echo "$@ $(env | grep -c '^ACTIONS_ID_TOKEN_REQUEST_')" >> {log}
""")
    wrapper.chmod(0o755)
    repository = f"{server.host}/team/small"
    done = release.push(
        *("--repository", repository, "--tag", "one", f"--cosign={wrapper}", *(["--keyless"] if keyless else [])),
        ACTIONS_ID_TOKEN_REQUEST_URL="https://example.org/",
        ACTIONS_ID_TOKEN_REQUEST_TOKEN="t",
    )
    assert done.returncode == 0, done.stderr
    assert release.verify(f"{repository}:one").returncode == 0
    if not keyless:
        assert not log.exists()
        return
    first, *others = log.read_text().splitlines()
    assert (
        f"-a repository={repository} -a tag=one -a version=unreleased {repository}@{release.digests['small']} 2"
        in first
    )
    # One each: a retry must not sign, and log, what has been signed.
    assert len(others) == len(DOCUMENTS) and all(f"-a image={release.digests['small']}" in line for line in others)
    assert all(line.count(f" {repository}@sha256:") == 1 for line in (first, *others))
    assert not [line for line in (first, *others) if "--key" in line or "tlog" in line]


def test_unsigned_is_said_and_is_unsigned(release: Release, server: Proxy) -> None:
    repository = f"{server.host}/team/small"
    done = release.push("--repository", repository, "--tag", "one", "--unsigned", signed=False)
    assert done.returncode == 0 and "not signed" in done.stderr
    assert "no signatures found" in release.verify(f"{repository}:one").stderr


def test_image_in_the_repository_pushes_all_and_tags_none_before_the_last_arrived(
    release: Release, server: Proxy
) -> None:
    server.faults.append(Fault("PUT", f"team/other/manifests/{release.digests['other']}", 403))
    arguments = ("--repository", f"{server.host}/team/{{image}}", "--tag", "one")
    assert "team/other" in one_line(release.push(*arguments))
    assert release.tags(f"{server.host}/team/small") == set()
    server.faults.clear()
    assert release.push(*arguments).returncode == 0
    for name in release.layouts:
        resolved = release.tool("oras", "resolve", "--plain-http", f"{server.host}/team/{name}:one").stdout.strip()
        assert resolved == release.digests[name]


def test_defaults_come_from_the_settings_file_and_from_a_release_builds_version(
    server: Proxy, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "release").mkdir()
    release = Release(tmp_path / "release", revision="0123abc")
    release.settings.write_text(json.dumps({"image_repository": f"{server.host}/team/{{image}}"}))
    done = release.push()
    assert done.returncode == 0, done.stderr
    assert release.tags(f"{server.host}/team/small") == release.tags(f"{server.host}/team/other") == {"1.2.3"}


def test_a_dry_run_sends_nothing(release: Release, server: Proxy) -> None:
    done = release.push("--repository", f"{server.host}/team/small", "--tag", "one", "--dry-run")
    assert done.returncode == 0
    assert done.stdout == f"would push small {release.digests['small']} to {server.host}/team/small as one\n"
    assert server.requests == []


# The gate -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["layer", "manifest", "index"])
def test_other_bytes_than_the_tested_are_not_sent(release: Release, server: Proxy, part: str) -> None:
    layout = release.layouts["small"]
    manifest = layout / "blobs" / release.digests["small"].replace(":", "/")
    if part == "index":  # Another image, whole in itself.
        layout.rename(release.folder / "tested")
        write_image(layout, 7)
    else:
        layer = layout / "blobs" / json.loads(manifest.read_text())["layers"][1]["digest"].replace(":", "/")
        broken = bytearray((manifest if part == "manifest" else layer).read_bytes())
        broken[-2] ^= 1
        (manifest if part == "manifest" else layer).write_bytes(broken)
    said = one_line(release.push("--repository", f"{server.host}/team/small", "--tag", "one"))
    assert "small: " in said and said.count("sha256:") >= 1
    assert ("the tests passed on" in said) == (part == "index")
    assert server.requests == []


def test_documents_of_what_is_not_pushed_are_refused(release: Release, server: Proxy) -> None:
    release.documents["other_riscv64", "application/spdx+json"] = "other_arm64.spdx.json"
    said = one_line(release.push("--repository", f"{server.host}/team/small", "--tag", "one"))
    assert "other_riscv64: has documents, and is none of the images other, other_amd64, other_arm64, small" in said
    assert server.requests == []


def test_an_image_that_the_gate_does_not_list_is_not_sent(release: Release, server: Proxy) -> None:
    release.gate.write_text('{"artifacts": {}, "tests": []}')
    said = one_line(release.push("--repository", f"{server.host}/team/small", "--tag", "one"))
    assert "small: the tests passed on nothing of that name" in said
    assert server.requests == []


# Version tags -------------------------------------------------------------------------------------------------------


@pytest.fixture
def stamped(tmp_path: pathlib.Path) -> Release:
    return Release(tmp_path / "stamped", revision="0123abc")


def resolved(release: Release, reference: str) -> str:
    return release.tool("oras", "resolve", "--plain-http", reference).stdout.strip()


def test_a_releases_tag_does_not_move(stamped: Release, server: Proxy) -> None:
    repository = f"{server.host}/team/x"
    assert stamped.push("--repository", repository, "--tag", "1.2.3", "--tag", "main").returncode == 0
    assert stamped.push("--repository", repository, "--tag", "1.2.3").returncode == 0
    server.requests.clear()
    said = one_line(stamped.push("--repository", repository, "--tag", "1.2.3", "--image", "other"))
    assert f"{repository}:1.2.3: a release's tag does not move" in said
    assert stamped.digests["small"] in said and stamped.digests["other"] in said
    assert server.sent("PUT|POST|PATCH") == []
    assert stamped.push("--repository", repository, "--tag", "main", "--image", "other").returncode == 0


@pytest.mark.parametrize("tag", ["1.2.3", "v1.2.3", "1.2", "1", "v1", "1.2.3-rc1", "1.2.3rc1", "1.2.3_4", "2024.10"])
def test_an_unstamped_image_gets_no_tag_that_looks_like_a_version(release: Release, server: Proxy, tag: str) -> None:
    said = one_line(release.push("--repository", f"{server.host}/team/small", "--tag", tag))
    assert f"--tag {tag}: looks like a version" in said and said.endswith("Tags set: none.")
    assert server.requests == []


@pytest.mark.parametrize("tag", ["9.9.9", "v9.9.9", "1.2.4", "1.3", "2", "1.2.3-rc1", "1.2.3.4", "V1.2.3"])
def test_a_build_gets_no_tag_of_another_version(stamped: Release, server: Proxy, tag: str) -> None:
    said = one_line(stamped.push("--repository", f"{server.host}/team/small", "--tag", tag))
    assert f"--tag {tag}: looks like a version, and this build is version 1.2.3: expected 1, 1.2, 1.2.3, v1" in said
    assert server.requests == []


def test_an_image_that_is_labelled_with_another_version_gets_no_version_tag(
    server: Proxy, tmp_path: pathlib.Path
) -> None:
    release = Release(tmp_path / "other", revision="0123abc", version="1.2.2")
    release.version = "1.2.3"
    said = one_line(release.push("--repository", f"{server.host}/team/small", "--tag", "1.2.3"))
    assert "expected small to be labelled with version 1.2.3, found 1.2.2" in said
    assert server.requests == []


def test_a_pre_release_gets_its_own_tag_only(server: Proxy, tmp_path: pathlib.Path) -> None:
    release = Release(tmp_path / "candidate", revision="0123abc", version="1.3.0-rc1")
    to = ("--repository", f"{server.host}/team/small")
    assert "--tag 1.3: looks like a version" in one_line(release.push(*to, "--tag", "1.3"))
    assert release.push(*to, "--tag", "v1.3.0-rc1").returncode == 0
    said = one_line(release.push(*to, "--tag", "v1.3.0-rc1", "--image", "other"))
    assert "a release's tag does not move" in said


def test_the_tag_of_a_series_moves_to_newer_versions_only(
    stamped: Release, server: Proxy, tmp_path: pathlib.Path
) -> None:
    newer = Release(tmp_path / "newer", revision="4567def", version="1.10.0")
    to = ("--repository", f"{server.host}/team/small", "--tag", "1")
    assert stamped.push(*to).returncode == 0
    done = newer.push(*to)
    assert done.returncode == 0, done.stderr
    said = one_line(stamped.push(*to))
    assert f":1: moves to newer versions only: the registry has 1.10.0 there ({newer.digests['small']})" in said
    assert resolved(newer, f"{server.host}/team/small:1") == newer.digests["small"]
    # Another image of the same version is not newer.
    assert "moves to newer versions only" in one_line(newer.push(*to, "--image", "other"))


def test_an_index_without_images_in_the_registry_is_one_line(
    stamped: Release, server: Proxy, tmp_path: pathlib.Path
) -> None:
    """The version of an index is that of its first image."""
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"schemaVersion": 2, "mediaType": oci_layout.INDEX, "manifests": []}))
    reference = f"{server.host}/team/other:1"
    pushed = stamped.tool("oras", "manifest", "push", "--plain-http", reference, str(index))
    assert pushed.returncode == 0, pushed.stderr
    there = resolved(stamped, reference)
    said = one_line(stamped.push("--repository", f"{server.host}/team/other", "--tag", "1", "--image", "other"))
    assert f"reading {there}: expected JSON as oras writes it, found IndexError" in said
    assert resolved(stamped, reference) == there


DOCUMENTED = [
    line.strip()
    for path in os.environ["DOCUMENTS"].split()
    for line in pathlib.Path(path).read_text().splitlines()
    if line.startswith("    cosign verify ")
]


def documented(release: Release, repository: str, tag: str, line: str) -> subprocess.CompletedProcess:
    """Runs a line of the documents for another repository, tag (and version) and key."""
    line = line.replace("registry.example.org/team/tvm_runtime", repository).replace(
        "cosign.pub", str(release.public_key)
    )
    words = shlex.split(line.replace("1.2.3", tag).replace("nightly", tag))
    assert words[0] == "cosign" and "registry.example.org" not in line
    return release.tool("cosign", *words[1:])


def test_the_documents_say_how_to_verify_a_release_and_another_tag() -> None:
    assert len(DOCUMENTED) == 3 and len({line for line in DOCUMENTED if "1.2.3" in line}) == 1
    assert all(" -a repository=" in line and " -a tag=" in line and " -a version=" in line for line in DOCUMENTED)


def test_the_documented_line_refuses_an_old_image_under_another_tag(server: Proxy, tmp_path: pathlib.Path) -> None:
    repository = f"{server.host}/team/small"
    old = Release(tmp_path / "old", revision="0123abc", version="1.2.3")
    new = Release(tmp_path / "new", revision="4567def", version="1.2.4")
    new.key, new.public_key = old.key, old.public_key
    assert old.push("--repository", repository, "--tag", "1.2.3", "--tag", "nightly").returncode == 0
    assert new.push("--repository", repository, "--tag", "1.2.4").returncode == 0
    release_line, nightly_line = sorted(set(DOCUMENTED), key=lambda line: "nightly" in line)
    for tag, line in (("1.2.3", release_line), ("nightly", nightly_line), ("1.2.4", release_line)):
        done = documented(old, repository, tag, line)
        assert done.returncode == 0, done.stderr
    # Someone who controls the registry serves the old image, and one that was signed as no release, as the new release.
    moved = old.tool("oras", "tag", "--plain-http", f"{repository}@{old.digests['small']}", "1.2.4", "nightly2")
    assert moved.returncode == 0, moved.stderr
    for tag, line in (("1.2.4", release_line), ("nightly2", nightly_line), ("nightly", release_line)):
        done = documented(old, repository, tag, line)
        assert done.returncode != 0 and "missing or incorrect annotation" in done.stderr, done.stderr
    assert old.verify(f"{repository}:1.2.4").returncode == 0, "without -a the old image passes"


def test_an_image_of_another_repository_is_refused(stamped: Release, server: Proxy) -> None:
    assert stamped.push("--repository", f"{server.host}/team/{{image}}", "--tag", "1.2.3").returncode == 0
    copied = stamped.tool(
        *("oras", "cp", "-r", "--from-plain-http", "--to-plain-http", f"{server.host}/team/other:1.2.3"),
        f"{server.host}/team/small:1.2.3",
    )
    assert copied.returncode == 0, copied.stderr
    signatures = f"{stamped.digests['other'].replace(':', '-')}.sig"
    copied = stamped.tool(
        *("oras", "cp", "--from-plain-http", "--to-plain-http", f"{server.host}/team/other:{signatures}"),
        f"{server.host}/team/small:{signatures}",
    )
    assert copied.returncode == 0, copied.stderr
    done = documented(stamped, f"{server.host}/team/small", "1.2.3", DOCUMENTED[0])
    assert done.returncode != 0 and "missing or incorrect annotation" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (401, "the registry requires other credentials"),
        (403, "these credentials may not push here"),
        (404, "NOT_FOUND, found 404 with no error code: look at what"),
        (500, "the registry has failed"),
    ],
)
def test_only_the_registrys_own_404_is_a_free_tag(stamped: Release, server: Proxy, status: int, meaning: str) -> None:
    """oras says "basic credential not found" for 401, and "not found" for any 404."""
    repository = f"{server.host}/team/x"
    assert stamped.push("--repository", repository, "--tag", "1.2.3").returncode == 0
    server.faults.append(Fault("GET|HEAD", "/manifests/1.2.3$", status))
    said = one_line(stamped.push("--repository", repository, "--tag", "1.2.3", "--image", "other"))
    assert f"{repository}: looking up the tag 1.2.3: " in said and meaning in said
    server.faults.clear()
    assert resolved(stamped, f"{repository}:1.2.3") == stamped.digests["small"]


OLD = b'{"schemaVersion": 2, "layers": []}'


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_registry_that_serves_something_else_than_it_accepted_is_an_error(release: Release, server: Proxy) -> None:
    """It answers 201 to each push, and goes on to serve an old image under the tag."""
    repository = f"{server.host}/team/x"
    server.faults.append(Fault("GET|HEAD", "/manifests/nightly$", 200, content=OLD))
    said = one_line(release.push("--repository", repository, "--tag", "nightly"))
    served = f"expected {release.digests['small']}, which the registry accepted, found sha256:{sha256(OLD)}"
    assert f"{repository}:nightly: {served}: look at what answers for {server.host}" in said
    assert server.sent("PUT", "/manifests/nightly$") and said.endswith(f"Tags set: {repository}:nightly.")


def test_a_manifest_that_cannot_be_read_back_gets_no_tag(release: Release, server: Proxy) -> None:
    """What oras says of the copy is not believed: here it sends nothing."""
    wrapper = release.folder / "oras"
    wrapper.write_text("#!/bin/sh\nexit 0\n")
    wrapper.chmod(0o755)
    said = one_line(release.push("--repository", f"{server.host}/team/x", "--tag", "nightly", f"--oras={wrapper}"))
    digest = release.digests["small"]
    assert f"/team/x@{digest}: expected {digest}, which the registry accepted, found nothing: look at" in said
    assert server.sent("PUT") == []


def test_what_a_tool_says_is_no_command(release: Release, server: Proxy) -> None:
    wrapper = release.folder / "oras"
    wrapper.write_text("#!/bin/sh\nprintf 'Error: denied \\033[2J ##[error]revoked\\n::error::x\\n' >&2\nexit 1\n")
    wrapper.chmod(0o755)
    said = one_line(release.push("--repository", f"{server.host}/team/x", "--tag", "nightly", f"--oras={wrapper}"))
    assert "these credentials may not push here" in said and r"(denied \x1b[2J ##\[error]revoked)" in said


def test_a_tag_that_another_push_sets_meanwhile_is_not_overwritten(stamped: Release, server: Proxy) -> None:
    repository = f"{server.host}/team/x"
    assert stamped.push("--repository", repository, "--tag", "main", "--image", "other").returncode == 0
    wrapper = stamped.folder / "oras"
    wrapper.write_text(f"""#!/bin/sh
if [ "$1" = attach ]; then
    {TOOLS["oras"]} tag --plain-http {repository}@{stamped.digests["other"]} 1.2.3 >&2
fi
exec {TOOLS["oras"]} "$@"
""")
    wrapper.chmod(0o755)
    said = one_line(stamped.push("--repository", repository, "--tag", "1.2.3", f"--oras={wrapper}"))
    assert f"{repository}:1.2.3: a release's tag does not move" in said and said.endswith("Tags set: none.")
    assert resolved(stamped, f"{repository}:1.2.3") == stamped.digests["other"]


# Faults -------------------------------------------------------------------------------------------------------------


def test_a_connection_cut_in_a_blob_leaves_no_tag_and_the_next_push_goes_on(release: Release, server: Proxy) -> None:
    manifest = json.loads((release.layouts["small"] / "blobs" / release.digests["small"].replace(":", "/")).read_text())
    little, large = (layer["digest"] for layer in manifest["layers"])
    cut = Fault("PUT", f"uploads/.*{large.replace(':', '%3A')}", "cut")
    server.faults.append(cut)
    repository = f"{server.host}/team/small"
    arguments = ("--repository", repository, "--tag", "one")
    said = one_line(release.push(*arguments))
    assert "sending small" in said and "run again" in said and said.endswith("Tags set: none.")
    assert 0 < max(request.size for request in server.sent("PUT", "uploads/")) < LARGE
    assert release.tags(repository) == set()
    server.faults.clear()
    server.requests.clear()
    assert release.push(*arguments).returncode == 0
    uploads = [request.path for request in server.sent("PUT", "uploads/")]
    assert any(large.replace(":", "%3A") in path for path in uploads)
    assert not any(little.replace(":", "%3A") in path for path in uploads), (
        "a blob that the registry has was sent again"
    )
    assert release.tags(repository) == {"one"}


@pytest.mark.parametrize(
    ("status", "where", "meaning"),
    [
        (401, "uploads/", "the registry requires other credentials: found no file with any; log in with `podman login"),
        (403, "/manifests/sha256:", "these credentials may not push here"),
        # A proxy's answer: nginx takes one megabyte until it is told otherwise.
        (413, "uploads/.*digest=", "the registry, or a proxy before it, refuses uploads of this size: raise its limit"),
        # oras tries these again for seven seconds.
        (429, "uploads/", "the registry limits requests: wait"),
        (500, "/manifests/sha256:", "the registry has failed: run again"),
    ],
)
def test_a_registry_that_refuses_gets_no_tag_and_the_reason_is_said(
    release: Release, server: Proxy, status: int, where: str, meaning: str
) -> None:
    server.faults.append(Fault("PUT|POST", where, status))
    repository = f"{server.host}/team/small"
    said = one_line(release.push("--repository", repository, "--tag", "one"))
    assert said.startswith(f"push: {repository}: sending small: {meaning}"), said
    assert said.endswith("Tags set: none.")
    assert release.tags(repository) == set()


@pytest.mark.parametrize("status", [429, 500])
def test_a_passing_fault_is_retried(release: Release, server: Proxy, status: int) -> None:
    server.faults.append(Fault("POST", "uploads/", status, times=2))
    assert release.push("--repository", f"{server.host}/team/small", "--tag", "one").returncode == 0
    assert len([request for request in server.sent("POST", "uploads/") if request.status == status]) == 2


@pytest.mark.parametrize(("where", "step"), [("sha256-.*sig$", "signing"), ("/manifests/two$", "setting the tag two")])
def test_a_fault_after_the_image_says_which_tags_are_set(
    release: Release, server: Proxy, where: str, step: str
) -> None:
    server.faults.append(Fault("PUT", where, 403))
    repository = f"{server.host}/team/small"
    said = one_line(release.push("--repository", repository, "--tag", "one", "--tag", "two"))
    assert f"{step}: these credentials may not push here" in said
    expected = {"one"} if "tag" in step else set()
    assert release.tags(repository) == expected
    assert said.endswith(f"Tags set: {f'{repository}:one' if expected else 'none'}.")


def instead_of_oras(folder: pathlib.Path, command: str, does: str) -> str:
    """A program that does something else for one command, and is oras for the others."""
    program = folder / "oras"
    program.write_text(f'#!/bin/sh\nif [ "$1" = {command} ]; then {does}; else exec {TOOLS["oras"]} "$@"; fi\n')
    program.chmod(0o755)
    return f"--oras={program}"


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        *(("attach", answer) for answer in ("", "[", "[]", "7", "{}", '{"digest": "sha256:1"}', '{"digest": ["x"]}')),
        *(("discover", answer) for answer in ("", "[", "[]", "null", '{"manifests": 7}', '{"manifests": [{}]}')),
        ("discover", '{"manifests": [{"digest": []}]}'),
        ("discover", "[" * 50_000),
    ],
    ids=lambda text: text[:40],
)
def test_an_answer_of_another_form_is_one_line(
    release: Release, server: Proxy, tmp_path: pathlib.Path, command: str, answer: str
) -> None:
    (tmp_path / "answer").write_text(answer)
    oras = instead_of_oras(tmp_path, command, f"cat {tmp_path / 'answer'}")
    said = one_line(release.push("--repository", f"{server.host}/team/small", "--tag", "one", oras))
    assert "ing " in said and ": expected JSON as oras writes it, found " in said
    assert release.tags(f"{server.host}/team/small") == set()


def test_an_answer_without_end_is_one_line(release: Release, server: Proxy, tmp_path: pathlib.Path) -> None:
    oras = instead_of_oras(tmp_path, "discover", "exec yes")
    said = one_line(release.push("--repository", f"{server.host}/team/small", "--tag", "one", oras))
    assert f"listing what is attached: oras: wrote more than {programs.MOST_BYTES} bytes" in said


def test_a_tool_that_does_not_end_is_stopped_and_not_tried_again(release: Release, tmp_path: pathlib.Path) -> None:
    instead_of_oras(tmp_path, "tag", f"echo again >> {tmp_path / 'tries'}; exec sleep 600")
    environment = {"DOCKER_CONFIG": str(tmp_path), "PATH": "/usr/bin:/bin"}
    (tmp_path / "config.json").write_text("{}")
    registry = push.Registry("127.0.0.1:1/x", {"oras": str(tmp_path / "oras")}, False, environment, False)
    with pytest.raises(push.Unanswered, match=r"setting it: oras: did not end within 1 s"):
        registry._again(lambda: registry.run("setting it", "oras", "tag", seconds=1), "")
    assert (tmp_path / "tries").read_text() == "again\n"


@pytest.mark.parametrize("sent", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_push_leaves_no_tag(release: Release, server: Proxy, sent: signal.Signals) -> None:
    server.faults.append(Fault("PUT", "uploads/", "stall"))
    repository = f"{server.host}/team/small"
    command = release.command("--repository", repository, "--tag", "one", "--key", str(release.key))
    process = subprocess.Popen(
        command, env=release.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.stalled.wait(60)
    process.send_signal(sent)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130 and "Traceback" not in said
    assert said.splitlines()[-1].startswith("push: interrupted") and said.splitlines()[-1].endswith("Tags set: none.")
    assert release.tags(repository) == set()


def test_two_pushes_at_once_both_succeed_and_lose_nothing(release: Release, server: Proxy) -> None:
    repository = f"{server.host}/team/small"
    command = release.command("--repository", repository, "--tag", "one", "--key", str(release.key))
    both = [
        subprocess.Popen(command, env=release.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said
    assert release.tags(repository) == {"one"}
    assert set(release.referrers(f"{repository}:one")) == set(DOCUMENTS)
    assert release.verify(f"{repository}:one").returncode == 0


# The second is the digest of {}, which every attachment has for its configuration (OCI image specification, "Guidance
# for an Empty Descriptor").
@pytest.mark.parametrize(
    "blob",
    ["uploads/", "uploads/.*44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"],
    ids=["image", "attachment"],
)
def test_what_another_push_keeps_from_being_written_is_sent_again(release: Release, server: Proxy, blob: str) -> None:
    """What a race does to a blob that both send, done on purpose."""
    server.faults.append(Fault("PUT", blob, 400, times=2))
    repository = f"{server.host}/team/small"
    assert release.push("--repository", repository, "--tag", "one").returncode == 0
    assert len([request for request in server.sent("PUT", "uploads/") if request.status == 400]) == 2
    assert set(release.referrers(f"{repository}:one")) == set(DOCUMENTS)


def test_what_the_registry_never_takes_is_an_error(release: Release, server: Proxy) -> None:
    server.faults.append(Fault("PUT", "uploads/", 400))
    said = one_line(release.push("--repository", f"{server.host}/team/small", "--tag", "one"))
    assert "another push interfered: run again" in said and said.endswith("Tags set: none.")


def _oras_that_panics(folder: pathlib.Path, times: int) -> str:
    """A program that does what oras 1.2.0 does when two uploads fail at once, so many times; then it is oras."""
    wrapper = folder / "oras"
    wrapper.write_text(f"""#!/bin/sh
echo "$1" >> {folder}/calls
if [ $(wc -l < {folder}/calls) -le {times} ]; then
    echo 'panic: sync/atomic: compare and swap of inconsistently typed value into Value' >&2
    printf '\\ngoroutine 83 [running]:\\nEOF\\n' >&2
    exit 2
fi
exec {TOOLS["oras"]} "$@"
""")
    wrapper.chmod(0o755)
    return f"--oras={wrapper}"


def test_a_panic_of_oras_is_no_reason_to_stop(release: Release, server: Proxy) -> None:
    repository = f"{server.host}/team/small"
    done = release.push("--repository", repository, "--tag", "one", _oras_that_panics(release.folder, times=3))
    assert done.returncode == 0, done.stderr
    assert set(release.referrers(f"{repository}:one")) == set(DOCUMENTS)


def test_panics_without_end_are_an_error(release: Release, server: Proxy) -> None:
    said = one_line(
        release.push(
            "--repository", f"{server.host}/team/small", "--tag", "one", _oras_that_panics(release.folder, times=1000)
        )
    )
    assert "the client crashed 5 times" in said and "run again" in said and said.endswith("Tags set: none.")
    assert len((release.folder / "calls").read_text().splitlines()) == 5


def test_an_attachment_that_another_push_has_overwritten_in_the_list_is_attached_again(
    release: Release, server: Proxy
) -> None:
    """Does on purpose what a race does: the registry has the manifests, but the list of referrers lacks them."""
    repository = f"{server.host}/team/small"
    arguments = ("--repository", repository, "--tag", "one")
    assert release.push(*arguments).returncode == 0
    listed = release.tool(
        "oras", "manifest", "fetch", "--plain-http", f"{repository}:{release.digests['small'].replace(':', '-')}"
    ).stdout
    empty = release.folder / "empty.json"
    empty.write_text(json.dumps({**json.loads(listed), "manifests": []}))
    emptied = release.tool(
        "oras",
        "manifest",
        "push",
        "--plain-http",
        f"{repository}:{release.digests['small'].replace(':', '-')}",
        str(empty),
    )
    assert emptied.returncode == 0, emptied.stderr
    assert release.referrers(f"{repository}:one") == {}
    assert release.push(*arguments).returncode == 0
    assert set(release.referrers(f"{repository}:one")) == set(DOCUMENTS)


# Credentials --------------------------------------------------------------------------------------------------------


def logged_in(host: str, password: str = PASSWORD) -> str:
    return json.dumps({"auths": {host: {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}}})


@contextlib.contextmanager
def guarded(folder: pathlib.Path) -> Iterator[str]:
    (folder / "guarded").mkdir()
    with registry(REGISTRY, folder / "guarded", authenticated=True) as port:
        yield f"127.0.0.1:{port}"


@pytest.mark.parametrize("place", ["REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "DOCKER_CONFIG", "HOME"])
def test_credentials_are_those_of_podman_and_docker(release: Release, tmp_path: pathlib.Path, place: str) -> None:
    names = {
        "REGISTRY_AUTH_FILE": "",
        "XDG_RUNTIME_DIR": "containers/auth.json",
        "DOCKER_CONFIG": "config.json",
        "HOME": ".docker/config.json",
    }
    with guarded(tmp_path) as host:
        where = tmp_path / "login"
        file = where / names[place] if names[place] else where
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(logged_in(host))
        # A file without this registry, looked at before it or after, does not hide it.
        other = tmp_path / "elsewhere"
        other.mkdir()
        for name in ("auth.json", "config.json"):
            (other / name).write_text(logged_in("registry.example.org"))
        others = {"DOCKER_CONFIG": str(other), "REGISTRY_AUTH_FILE": str(other / "auth.json")}
        done = release.push(
            "--repository", f"{host}/team/small", "--tag", "one", signed=True, **{**others, place: str(where)}
        )
        assert done.returncode == 0, done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        resolved = release.tool("oras", "resolve", "--plain-http", "-u", USER, "-p", PASSWORD, f"{host}/team/small:one")
        assert resolved.stdout.strip() == release.digests["small"]


def test_of_two_teams_at_one_registry_each_has_its_login(release: Release, tmp_path: pathlib.Path) -> None:
    """And what Docker Desktop has left over hides neither."""
    (release.home / ".docker").mkdir()
    (release.home / ".docker/config.json").write_text('{"credsStore": "desktop"}')
    with guarded(tmp_path) as host:
        logins = {
            key: json.loads(logged_in(host, password))["auths"][host]
            for key, password in [(host, "another's"), (f"{host}/other", "another's"), (f"{host}/team", PASSWORD)]
        }
        (tmp_path / "auth.json").write_text(json.dumps({"auths": logins}))
        done = release.push(
            *("--repository", f"{host}/team/small", "--tag", "one"), REGISTRY_AUTH_FILE=str(tmp_path / "auth.json")
        )
        assert done.returncode == 0, done.stderr
        said = one_line(
            release.push(
                *("--repository", f"{host}/other/small", "--tag", "one"), REGISTRY_AUTH_FILE=str(tmp_path / "auth.json")
            )
        )
        assert "requires other credentials: those in" in said


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            None,
            (
                "requires other credentials: found no file with any; log in with `podman login {host}` or `docker login"
                " {host}`"
            ),
        ),
        ("wrong password", "requires other credentials: those in {file} were rejected; log in"),
        (
            '{"auths": {"elsewhere.example": {"auth": "YTpi"}}}',
            "requires other credentials: found none for {host}/team/small in {file}; log in with `podman login {host}`",
        ),
        ("not json", "{file}: expected credentials as `podman login` writes them"),
        ('{"auths": []}', "{file}: expected credentials as `podman login` writes them"),
    ],
)
def test_missing_and_wrong_credentials_are_said_in_one_line(
    release: Release, tmp_path: pathlib.Path, content: str | None, expected: str
) -> None:
    with guarded(tmp_path) as host:
        file = tmp_path / "auth.json"
        if content:
            file.write_text(logged_in(host, "mistyped") if content == "wrong password" else content)
        said = one_line(
            release.push("--repository", f"{host}/team/small", "--tag", "one", REGISTRY_AUTH_FILE=str(file))
        )
        assert expected.format(host=host, file=file) in said
        assert "mistyped" not in said
        before = one_line(
            release.check("--repository", f"{host}/team/small", "--tag", "one", REGISTRY_AUTH_FILE=str(file))
        )
        assert expected.format(host=host, file=file) in before


# Bad input ----------------------------------------------------------------------------------------------------------

TO = ("--repository", "127.0.0.1:9/team/small")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), 'no repository: pass --repository HOST/NAME, or set "image_repository" in release/settings.json'),
        (("--repository", "team"), "--repository: expected HOST/NAME"),
        (("--repository", "team/small"), "--repository: expected HOST/NAME"),
        (("--repository", "127.0.0.1:9/Team"), "--repository: expected HOST/NAME"),
        (("--repository", "127.0.0.1:9/team:tag"), "--repository: expected HOST/NAME"),
        (("--repository", "https://127.0.0.1:9/team"), "--repository: expected HOST/NAME"),
        (("--repository", "127.0.0.1:9/team@sha256:0"), "--repository: expected HOST/NAME"),
        ((*TO,), "no tag: pass --tag TAG; the version, 1.2.3, is the default only in a release build"),
        ((*TO, "--tag", "a/b"), "--tag: expected up to 128 letters"),
        ((*TO, "--tag", "-a"), "expected one argument"),
        ((*TO, "--tag", ".a"), "--tag: expected up to 128 letters"),
        ((*TO, "--tag", "a" * 129), "--tag: expected up to 128 letters"),
        ((*TO, "--tag", "one", "--image", "none"), "--image: expected small or other, found 'none'"),
        ((*TO, "--tag", "one", "--force"), "unrecognized arguments: --force"),
        (
            (*TO, "--tag", "one", "--key", "no-such-file"),
            "--key: expected a file with a cosign private key, found none at no-such-file",
        ),
        ((*TO, "--tag", "one"), "the registry does not answer: check --repository and the network"),
    ],
)
@pytest.mark.parametrize("tested", [False, True])
def test_bad_input_gets_one_line_and_a_non_zero_exit(
    release: Release, arguments: tuple[str, ...], expected: str, tested: bool
) -> None:
    """Before the tests, too."""
    done = (release.push if tested else release.check)(*arguments, signed="--key" not in arguments)
    said = one_line(done)
    assert expected in said
    assert len([line for line in done.stderr.splitlines() if not line.startswith("push: small sha256:")]) == 1, (
        done.stderr
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "no signing key: pass --key FILE or set COSIGN_PRIVATE_KEY"),
        ({"COSIGN_PRIVATE_KEY": "no key"}, "signing key: expected a cosign private key"),
        (
            {"COSIGN_PASSWORD": "another", "KEY": "its own"},
            "signing key: expected a cosign private key, and its password in COSIGN_PASSWORD; cosign says: decrypt",
        ),
    ],
)
@pytest.mark.parametrize("tested", [False, True])
def test_without_a_good_key_nothing_is_sent(
    release: Release, server: Proxy, environment: dict[str, str], expected: str, tested: bool
) -> None:
    done = (release.push if tested else release.check)(
        "--repository", f"{server.host}/team/small", "--tag", "one", signed="KEY" in environment, **environment
    )
    assert expected in one_line(done)
    assert server.requests == []


def test_a_check_asks_for_an_upload_and_cancels_it(release: Release, server: Proxy) -> None:
    done = release.check("--repository", f"{server.host}/team/small", "--tag", "one")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "good; the tests are next" in done.stderr
    assert [(request.method, request.size, request.status) for request in server.requests] == [
        ("POST", 0, 202),
        ("DELETE", 0, 204),
    ]
    assert release.tags(f"{server.host}/team/small") == set()


def test_a_dry_check_contacts_no_registry(release: Release, server: Proxy) -> None:
    done = release.check("--repository", f"{server.host}/team/small", "--tag", "one", "--dry-run")
    assert (done.returncode, server.requests) == (0, []), done.stderr


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (401, "the registry requires other credentials: found no file with any"),
        (403, "these credentials may not push here"),
        (404, "the registry does not know this repository: create it first"),
        (503, "the registry has failed: run again"),
    ],
)
def test_what_the_registry_refuses_is_said_before_the_tests(
    release: Release, server: Proxy, status: int, meaning: str
) -> None:
    server.faults.append(Fault("POST", "uploads/", status))
    said = one_line(release.check("--repository", f"{server.host}/team/small", "--tag", "one"))
    assert f"beginning an upload: {meaning}" in said, said


@pytest.mark.parametrize(
    ("stamped", "tags", "expected"),
    [
        (False, [], "no tag: pass --tag TAG"),
        (False, ["1.2.3"], "looks like a version, and small is unstamped"),
        (True, ["1.2.4"], "looks like a version, and this build is version 1.2.3"),
        (True, [], None),
        (True, ["v1.2"], None),
        (False, ["nightly"], None),
    ],
)
def test_tags_are_checked_before_the_tests(
    release: Release, server: Proxy, stamped: bool, tags: list[str], expected: str | None
) -> None:
    done = release.check(
        *("--repository", f"{server.host}/team/small"),
        *(word for tag in tags for word in ("--tag", tag)),
        *(["--stamped"] if stamped else []),
    )
    assert (expected or "good; the tests are next") in done.stderr and done.returncode == (1 if expected else 0)


def test_help_names_every_option() -> None:
    done = subprocess.run(
        [sys.executable, push.__file__, "--help"],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    for option in (
        "--repository",
        "--tag",
        "--image",
        "--key",
        "--unsigned",
        "--insecure",
        "--dry-run",
        "COSIGN_PRIVATE_KEY",
        "podman login",
    ):
        assert option in done.stdout
    assert "--gate" not in done.stdout
