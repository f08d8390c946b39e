"""Fixtures of the tests that start containers."""

from __future__ import annotations

import pathlib
import tempfile

import pytest

from tests.images.containers import Container


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Container:
    """The image, unpacked once."""
    return Container(tmp_path_factory.mktemp("container").resolve())


@pytest.fixture
def folder(container: Container) -> pathlib.Path:
    """A folder that every user of a container may write to."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=container.folder))
    folder.chmod(0o777)
    return folder
