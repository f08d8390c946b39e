"""A registry whose disk is full: apart from test_push.py, since a small disk needs the right to mount one."""

from __future__ import annotations

import pathlib

from oci.registry_server import registry
from tests.release.push_under_test import REGISTRY, Release, one_line


def test_a_full_disk_leaves_no_tag_and_is_said(tmp_path: pathlib.Path) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "registry").mkdir()
    release = Release(tmp_path / "release")
    # Room for the small layer, not for the large one.
    with registry(REGISTRY, tmp_path / "registry", disk_bytes=2_000_000) as port:
        repository = f"127.0.0.1:{port}/team/small"
        said = one_line(release.push("--repository", repository, "--tag", "one"))
        assert "sending small: the registry" in said and said.endswith("Tags set: none.")
        assert release.tags(repository) == set()
    assert "no space left on device" in (tmp_path / "registry/log").read_text()
