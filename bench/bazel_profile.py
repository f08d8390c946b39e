"""What Bazel's profile (--profile: JSON trace of events, times in µs) says of where a build's time went."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """An action, and the seconds that it took."""

    seconds: float
    name: str


@dataclass(frozen=True)
class Profile:
    """Of one build.

    Args:
      critical_path: the chain of actions, of which each needs the one before, that took longest; in their order.
      actions: all actions, those that only copy or link within Bazel too, as they began.

    Times include what an action waited for a free core.
    """

    critical_path: list[Step]
    actions: list[Step]

    @property
    def critical_seconds(self) -> float:
        """What that chain took, waiting included."""
        return sum(step.seconds for step in self.critical_path)


def read(path: Path) -> Profile:
    """Reads a profile, compressed as Bazel writes it.

    Raises:
      ValueError: the file has no critical path, so it is of no build, or of one that made nothing.
    """
    with gzip.open(path, "rt", encoding="utf-8") as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    events.sort(key=lambda event: event["ts"])

    def steps(category: str) -> list[Step]:
        return [Step(event["dur"] / 1e6, _short(event["name"])) for event in events if event.get("cat") == category]

    critical_path = steps("critical path component")
    if not critical_path:
        raise ValueError(f"{path}: expected events of the category 'critical path component', found none: did the build make anything?")
    return Profile(critical_path, steps("action processing"))


def _short(name: str) -> str:
    """An action's name without what surrounds it in every line.

    >>> _short("action 'Compiling tvm/src/runtime/tensor.cc'")
    'Compiling tvm/src/runtime/tensor.cc'
    """
    return name.removeprefix("action '").removesuffix("'")
