"""Reads where a build's time went from Bazel's profile (--profile: a JSON trace of events with times in µs)."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """An action and its duration in seconds."""

    seconds: float
    name: str


@dataclass(frozen=True)
class Profile:
    """Profile of one build. Times include waiting for a free core.

    Args:
      critical_path: the longest chain of dependent actions, in order.
      actions: all actions in order of their start, including those that only copy or link within Bazel.
    """

    critical_path: list[Step]
    actions: list[Step]

    @property
    def critical_seconds(self) -> float:
        """Duration of the critical path."""
        return sum(step.seconds for step in self.critical_path)


def read(path: Path) -> Profile:
    """Reads a profile, gzip-compressed as Bazel writes it.

    Raises:
      ValueError: the profile has no critical path, because it is not of a build or nothing was built.
    """
    with gzip.open(path, "rt", encoding="utf-8") as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    events.sort(key=lambda event: event["ts"])

    def steps(category: str) -> list[Step]:
        return [Step(event["dur"] / 1e6, _short(event["name"])) for event in events if event.get("cat") == category]

    critical_path = steps("critical path component")
    if not critical_path:
        raise ValueError(
            f"{path}: expected events of the category 'critical path component', found none: was anything built?"
        )
    return Profile(critical_path, steps("action processing"))


def _short(name: str) -> str:
    """An action's name without the text that all lines share.

    >>> _short("action 'Compiling tvm/src/runtime/tensor.cc'")
    'Compiling tvm/src/runtime/tensor.cc'
    """
    return name.removeprefix("action '").removesuffix("'")
