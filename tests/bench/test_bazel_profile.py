"""Where a build's time went is read from Bazel's own profile."""

from __future__ import annotations

import gzip
import json
import pathlib

import bazel_profile
import image
import pytest


def event(name: str, category: str, begin: float, seconds: float) -> dict:
    return {"ph": "X", "name": name, "cat": category, "ts": begin * 1e6, "dur": seconds * 1e6, "tid": 1}


def written(folder: pathlib.Path, events: list[dict]) -> pathlib.Path:
    path = folder / "profile.json.gz"
    with gzip.open(path, "wt") as file:
        json.dump({"otherData": {}, "traceEvents": [{"ph": "M", "name": "thread_name"}, *events]}, file)
    return path


EVENTS = [
    event("action 'Linking b'", "critical path component", 5, 0.5),
    event("action 'Compiling a'", "critical path component", 1, 3.5),
    event("Compiling a", "action processing", 1, 3.5),
    event("Linking b", "action processing", 5, 0.5),
    event("Compiling c", "action processing", 1, 2),
    event("runAnalysisPhase", "general information", 0, 9),
]


def test_the_critical_path_is_in_the_order_of_the_build(tmp_path: pathlib.Path) -> None:
    profile = bazel_profile.read(written(tmp_path, EVENTS))
    assert [(step.name, step.seconds) for step in profile.critical_path] == [("Compiling a", 3.5), ("Linking b", 0.5)]
    assert profile.critical_seconds == 4
    assert sorted(step.name for step in profile.actions) == ["Compiling a", "Compiling c", "Linking b"]


def test_a_build_that_made_nothing_has_no_critical_path(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="was anything built"):
        bazel_profile.read(written(tmp_path, EVENTS[-1:]))


def test_the_table_shows_the_longest_steps_and_what_the_rest_takes() -> None:
    steps = [bazel_profile.Step(seconds, f"step {seconds}") for seconds in [0.25, *range(1, 14), 0.5]]
    lines = image.path_table(bazel_profile.Profile(steps, [])).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [f"step {number}" for number in range(2, 14)] + [
        "all other steps",
        "**critical path**",
    ]
    assert [line.split("|")[2].strip() for line in lines[-2:]] == ["1.8 s", "91.8 s"]
