"""What every image holds: configuration, layers, users, packages and files."""

from __future__ import annotations

import os
import posixpath
import re

import pytest

from oci.layer import SOURCE_DATE_EPOCH
from tests.images.image_promises import ARCHITECTURE, UNDER_TEST, Promise, packages

PASSWD = """\
root:*:0:0:root:/root:/bin/bash
mlc:*:1000:1000:default user of this image:/home/mlc:/bin/bash
nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""

GROUPS = {
    "root": 0,
    "tty": 5,
    "mail": 8,
    "shadow": 42,
    "utmp": 43,
    "video": 44,
    "staff": 50,
    "mlc": 1000,
    "nogroup": 65534,
}


@pytest.fixture(params=UNDER_TEST, ids=[promise.name for promise in UNDER_TEST])
def promise(request: pytest.FixtureRequest) -> Promise:
    """Each image that the test is about."""
    return request.param


def test_configuration(promise: Promise) -> None:
    config = promise.image.config
    assert (config["os"], config["architecture"], config["created"]) == ("linux", ARCHITECTURE, "2000-01-01T00:00:00Z")
    labels = config["config"].pop("Labels")
    assert config["config"] == {
        "Entrypoint": ["/usr/bin/tini", "-s", "--", "/usr/local/bin/entrypoint"],
        "Env": [
            "LANG=C.UTF-8",
            "PATH=/usr/local/bin:/usr/bin:/usr/sbin",
            *([] if promise.bytecode else ["PYTHONPYCACHEPREFIX=/home/mlc/.cache/python"]),
            *promise.environment,
        ],
        "User": "1000:1000",
        "WorkingDir": "/workspace",
    }
    prefix = "org.opencontainers.image."
    assert set(labels) == {
        prefix + key for key in ("description", "licenses", "revision", "source", "title", "version")
    }
    assert labels[prefix + "title"] == promise.name
    assert labels[prefix + "licenses"] == promise.licenses
    # A commit without new content must not change the digest: only a release build names it.
    assert re.search(f"^{os.environ['REVISION']}$", labels[prefix + "revision"])
    assert re.search(r"^\d+\.\d+\.\d+$", labels[prefix + "version"])
    assert re.search("^https://", labels[prefix + "source"])


def test_layers_are_in_the_order_of_how_often_they_change(promise: Promise) -> None:
    assert [[n for n, layer in enumerate(promise.image.layers) if path in layer] for path in promise.layers] == [
        [n] for n in range(len(promise.layers))
    ]
    assert len(promise.image.layers) == len(promise.layers)


def test_no_layer_overwrites_another(promise: Promise) -> None:
    # Folders are in every layer that has something in them, and must be the same folder in each.
    seen: dict[str, tuple] = {}
    for number, layer in enumerate(promise.image.layers):
        for path, file in layer.items():
            facts = (file.entry.type, file.entry.mode, file.entry.uid, file.entry.gid)
            before = seen.setdefault(path, (number, facts, file.entry.isdir()))
            if before[0] != number:
                assert file.entry.isdir() and before[1] == facts, (
                    f"/{path} of layer {number} differs from layer {before[0]}'s"
                )


def test_users_and_groups(promise: Promise) -> None:
    assert promise.image.text("etc/passwd") == PASSWD
    assert promise.image.text("etc/group") == "".join(f"{name}:*:{gid}:\n" for name, gid in GROUPS.items())


def test_every_owner_has_a_name(promise: Promise) -> None:
    owners = {(file.entry.uid, file.entry.gid) for file in promise.image.files.values()}
    assert {uid for uid, _ in owners} <= {0, 1000}
    assert {gid for _, gid in owners} <= set(GROUPS.values())


def test_the_user_owns_only_its_places(promise: Promise) -> None:
    mine = {path for path, file in promise.image.files.items() if file.entry.uid == 1000}
    assert mine == set(promise.folders)
    # OpenShift runs images as an arbitrary user of group 0.
    modes = {(file.entry.gid, file.entry.mode & 0o777) for path, file in promise.image.files.items() if path in mine}
    assert modes == {(0, 0o775)}


def test_nobody_gains_rights(promise: Promise) -> None:
    files = promise.image.files.items()
    assert [path for path, file in files if file.entry.mode & 0o6000] == [], "set-user-id or set-group-id"
    writable = {path for path, file in files if file.entry.mode & 0o002 and not file.entry.issym()}
    assert {(path, oct(promise.image.files[path].entry.mode)) for path in writable} == {
        (path, "0o1777") for path in ("tmp", "var/lock", "var/tmp")
    }
    special = [
        path
        for path, file in files
        if not (file.entry.isreg() or file.entry.isdir() or file.entry.issym() or file.entry.islnk())
    ]
    assert special == []


def test_every_entry_has_the_fixed_time_and_no_builders_name(promise: Promise) -> None:
    facts = {(file.entry.mtime, file.entry.uname, file.entry.gname) for file in promise.image.files.values()}
    assert facts == {(SOURCE_DATE_EPOCH, "", "")}


def test_packages_are_those_of_the_lock(promise: Promise) -> None:
    status = {
        path
        for path in promise.image.files
        if posixpath.dirname(path) == "var/lib/dpkg/status.d" and not path.endswith(".md5sums")
    }
    found = {}
    for path in status:
        fields = dict(re.findall(r"^(\S+): (.*)$", promise.image.text(path), re.MULTILINE))
        assert fields["Status"] == "install ok installed"
        found[fields["Package"]] = fields["Version"]
    assert found == packages(promise)


def test_every_package_brings_its_copyright(promise: Promise) -> None:
    paths = {package: promise.image.resolve(f"usr/share/doc/{package}/copyright") for package in packages(promise)}
    assert [package for package, path in paths.items() if not path] == []
    assert all(promise.image.files[path].data for path in paths.values() if path)


def test_no_link_leads_to_nothing(promise: Promise) -> None:
    links = [path for path, file in promise.image.files.items() if file.entry.issym()]
    assert len(links) > 20
    assert [path for path in links if promise.image.resolve(path) is None] == []


def test_nothing_of_the_build_is_left(promise: Promise) -> None:
    patterns = {
        **({} if promise.bytecode else {"bytecode": r"\.pyc$|/__pycache__(/|$)"}),
        "caches": r"^(root|home/mlc)/\.cache/.|^var/cache/.*[^/]\.deb$|(^|/)\.pytest_cache(/|$)",
        "where a wheel was": r"\.dist-info/direct_url\.json$",
        "manual pages and translations": r"^usr/share/(man|info|locale)/.",
    }
    for what, pattern in patterns.items():
        assert [path for path in promise.image.files if re.search(pattern, path)] == [], what
    for needle in (b"/execroot/", b"bazel-out/", b"/sandbox/linux-sandbox"):
        assert [path for path, file in promise.image.files.items() if needle in file.data] == [], needle


def test_installed_commands_start_the_images_python(promise: Promise) -> None:
    scripts = {
        path: file.data.split(b"\n", 1)[0]
        for path, file in promise.image.files.items()
        if path.startswith("usr/local/bin/")
    }
    scripts = {path: line for path, line in scripts.items() if line}
    assert {"usr/local/bin/" + name for name in promise.commands} <= set(scripts)
    for path, line in scripts.items():
        assert re.search(rb"^#!/usr/bin/python3( -IS)?$", line), path
        assert promise.image.files[path].entry.mode == 0o755, path


def test_certificates_are_bundled_where_openssl_looks(promise: Promise) -> None:
    bundle = promise.image.resolve("usr/lib/ssl/cert.pem")
    assert bundle == "etc/ssl/certs/ca-certificates.crt"
    sources = [
        path
        for path in promise.image.files
        if path.startswith("usr/share/ca-certificates/mozilla/") and path.endswith(".crt")
    ]
    assert len(sources) > 100
    assert promise.image.text(bundle).count("BEGIN CERTIFICATE") == len(sources)
