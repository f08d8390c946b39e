"""Part `image`: from sources to an image's digest, from nothing, unchanged, and after one C++ file changed; and where
the time goes.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import bazel_profile
import commands
import report

from oci.layout import manifest_digest

# The README's main command.
EVERYTHING = ("//images/...", "//wheels/...")
# Number of steps of a critical path to show.
_SHOWN = 12


@dataclass(frozen=True)
class Change:
    """A C++ file with about the median compile time of its project, and what is rebuilt when it changes.

    Args:
      repository: apparent name of the file's repository.
      source: path in the repository.
      libraries: targets that link it, for comparing builds without packaging.
      image: the image that contains the libraries.
    """

    repository: str
    source: str
    libraries: tuple[str, ...]
    image: str


RUNTIME = Change(
    "tvm", "tvm/src/runtime/tensor.cc", ("@tvm//:libtvm_runtime", "@tvm//:libtvm_runtime_extra"), "//images:tvm_runtime"
)
MLC_LLM = Change(
    "mlc_llm",
    "cpp/serve/logit_processor.cc",
    ("@mlc_llm//:libmlc_llm", "@mlc_llm//:libmlc_llm_module"),
    "//images:mlc_llm",
)


def path_table(profile: bazel_profile.Profile) -> str:
    """The longest steps of the critical path, in order, and the sum of the others."""
    longest = sorted(profile.critical_path, key=lambda step: -step.seconds)[:_SHOWN]
    rows = [[step.name, report.duration(step.seconds)] for step in profile.critical_path if step in longest]
    rest = profile.critical_seconds - sum(step.seconds for step in longest)
    rows += [
        ["all other steps", report.duration(max(rest, 0))],
        ["**critical path**", report.duration(profile.critical_seconds)],
    ]
    return report.table(["step", "time"], rows)


class _Image:
    """A separate build that takes the changed files from copies of their repositories."""

    def __init__(self, bazel: commands.Bazel, folder: Path, changes: Sequence[Change]) -> None:
        self.bazel = bazel
        self.folder = folder
        # No caches. The copies are in a temporary folder, but a hermetic sandbox would have an empty /tmp.
        self.flags = ["--disk_cache=", "--remote_cache=", "--noincompatible_sandbox_hermetic_tmp"]
        commands.say("fetching and unpacking what the build needs (not timed)")
        bazel.output("build", "--nobuild", *self.flags, *EVERYTHING)
        for change in changes:
            name = bazel.repository(change.repository)
            shutil.copytree(bazel.external / name, folder / change.repository, symlinks=True)
            self.flags.append(f"--override_repository={name}={folder / change.repository}")
        bazel.output("build", "--nobuild", *self.flags, *EVERYTHING)

    def build(self, *targets: str) -> tuple[float, Path]:
        """Wall time and profile of a build."""
        profile = self.folder / "profile.json.gz"
        return self.bazel.seconds("build", *self.flags, f"--profile={profile}", *targets), profile

    def changed(self, change: Change, number: int) -> None:
        """Adds a function that no library exports to the file."""
        with open(self.folder / change.repository / change.source, "a", encoding="utf-8") as file:
            file.write(f"int bench_change_{number}() {{ return {number}; }}\n")

    def digest(self, image: str) -> str:
        """The image's current digest."""
        (layout,) = self.bazel.listed(image, *self.flags)
        return manifest_digest(layout)


def measure(workspace: commands.Bazel, options: argparse.Namespace) -> tuple[str, str]:
    """This part's tables, and the versions of what was measured."""
    changes = [RUNTIME] + ([MLC_LLM] if workspace.compatible("//wheels/mlc_llm") else [])
    with commands.scratch() as folder:
        bazel = commands.Bazel(workspace.root, folder / "output_base")
        try:
            image = _Image(bazel, folder, changes)
            commands.say("everything from nothing")
            cold, profile = image.build(*EVERYTHING)
            of_all = bazel_profile.read(profile)
            commands.say("nothing changed")
            null = [image.build(*EVERYTHING)[0] for _ in range(options.runs)]
            rows = [
                [
                    f"`{' '.join(EVERYTHING)}`, from nothing",
                    report.duration(cold),
                    report.duration(of_all.critical_seconds),
                    "1",
                ],
                ["the same, nothing changed", report.duration(median(null)), "", str(len(null))],
            ]
            paths = [
                f"Critical path of everything from nothing, {len(of_all.actions)} actions:\n\n{path_table(of_all)}"
            ]
            for change in changes:
                row, path = _after_a_change(image, change, options.runs)
                rows += row
                paths.append(path)
        finally:
            bazel.output("shutdown")
    text = report.table(["build, median", "wall time", "critical path", "runs"], rows) + "\n" + "\n".join(paths)
    return text, bazel.output("--version").strip()


def _after_a_change(image: _Image, change: Change, runs: int) -> tuple[list[list[str]], str]:
    """Rows for the libraries and for the image's digest, and the critical path to the digest."""
    libraries, images = [], []
    image.build(change.image)
    before = {image.digest(change.image)}
    for number in range(runs):
        commands.say(f"{change.source} changed, {number + 1} of {runs}")
        image.changed(change, 2 * number)
        libraries.append(image.build(*change.libraries)[0])
        image.build(change.image)
        image.changed(change, 2 * number + 1)
        before.add(image.digest(change.image))
        seconds, profile = image.build(change.image)
        images.append((seconds, bazel_profile.read(profile)))
        if image.digest(change.image) in before:
            raise SystemExit(
                f"bench: expected the digest of {change.image} to change with {change.source}, found the same"
            )
    wall = median(seconds for seconds, _ in images)
    critical = median(profile.critical_seconds for _, profile in images)
    rows = [
        [f"`{change.source}` changed, to libraries", report.duration(median(libraries)), "", str(runs)],
        [
            f"`{change.source}` changed, to the digest of `{change.image}`",
            report.duration(wall),
            report.duration(critical),
            str(runs),
        ],
    ]
    return (
        rows,
        (
            f"Critical path from `{change.source}` to the digest of `{change.image}`, last"
            f" run:\n\n{path_table(images[-1][1])}"
        ),
    )
