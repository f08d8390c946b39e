"""Fixtures of the launcher's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_machine import FakeMachine, Server


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[FakeMachine]:
    """A machine that can install Bazel."""
    with FakeMachine(tmp_path) as machine:
        yield machine


@pytest.fixture
def server() -> Iterator[Server]:
    """An empty server on loopback."""
    server = Server()
    yield server
    server.close()
