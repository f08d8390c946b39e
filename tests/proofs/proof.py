"""What the proofs share: their options, the second workspace they build in, and what Bazel reports about a build."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from release.private.reproduce.second_workspace import SecondWorkspace

# Bazel's output goes to the log of a test.
QUIET = ["--color=no", "--curses=no", "--show_progress_rate_limit=30"]


def parser(about: str | None, *, artifacts: bool = False, registry: bool = False) -> argparse.ArgumentParser:
    """Parses what the BUILD files pass (`second_bazel_test` in tests/defs.bzl).

    Args:
        about: the program's docstring.
        artifacts: whether it takes --artifacts.
        registry: whether it takes --registry.

    Returns:
        A parser whose result has `workspace`, the root of this workspace, and, where asked for, `artifacts`, a list of
        paths below bazel-bin, and `registry`, an absolute path.
    """
    result = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument(
        "--workspace_file",
        dest="workspace",
        type=lambda file: Path(file).resolve().parent,
        required=True,
        help="a file in the workspace's root",
    )
    if artifacts:
        result.add_argument(
            "--artifacts", nargs="+", required=True, help="outputs of this build, as paths below bazel-bin"
        )
    if registry:
        result.add_argument("--registry", type=os.path.abspath, required=True, help="docker-registry")
    return result


def place() -> Path:
    """The folder in which this test may write."""
    return Path(os.environ["TEST_TMPDIR"]).resolve()


def bazel_bin(second: SecondWorkspace, *options: str) -> Path:
    """Where a second workspace's outputs are; `options` choose the configuration."""
    return Path(second.bazel("info", *options, "--color=no", "bazel-bin").stdout.strip())


def runners(events: Path) -> dict[str, int]:
    """How Bazel ran the actions of a build: {"internal": 300, "linux-sandbox": 395, "remote cache hit": 5}.

    Args:
        events: what Bazel wrote by --build_event_json_file.

    Raises:
        ValueError: the build wrote no metrics.
    """
    for line in events.read_text().splitlines():
        if metrics := json.loads(line).get("buildMetrics"):
            counts = metrics["actionSummary"].get("runnerCount", [])
            return {each["name"]: each.get("count", 0) for each in counts if each["name"] != "total"}
    raise ValueError(f"{events}: expected an event buildMetrics, found none")
