"""Nothing untested passes the gate; a release takes no test result from a cache, and has every part that it names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.private.starlark import evaluate

POLICY = evaluate(Path(os.environ["POLICY_BZL"]))
UNCACHED = {"no-cache": "", "no-remote-cache": ""}


def published(sources: bool, cuda: bool) -> dict:
    """release/published.bzl, in a build with and without mlc-llm's sources and CUDA."""
    return evaluate(
        Path(os.environ["PUBLISHED_BZL"]),
        NEEDS_SOURCES=[] if sources else ["//no:sources"],
        NEEDS_CUDA=[] if cuda else ["//no:cuda"],
        PYTHON="cp311",
        PYTHONS=["cp310", "cp311"],
    )


def packages(build: dict) -> list[str]:
    """The packages of what is published; //wheels:x_arm64 is //wheels/x for another processor."""
    images = {label.partition(":")[0]: None for label in build["IMAGES"].values()}
    wheels = {wheel.partition(":")[0]: None for wheel in build["WHEELS"] if not wheel.startswith("//wheels:")}
    return [package.removeprefix("//") for package in [*images, *wheels]]


class File(NamedTuple):
    """Stands in for a File of Bazel."""

    short_path: str


WHEEL, INDEX, AMD64, ARM64 = map(File, ["wheel", "index", "image_amd64", "image_arm64"])


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        ([([], [WHEEL, INDEX]), ([], [AMD64]), (["gate"], [ARM64])], None),
        # One test may take several, and an index needs no test of its own.
        ([(["every-image"], [INDEX, AMD64, ARM64]), ([], [WHEEL, AMD64, ARM64])], None),
        ([([], [WHEEL, AMD64, ARM64])], "no gating test has index as data, so it would be published untested"),
        ([([], [INDEX, AMD64, ARM64])], "no gating test has wheel as data, so it would be published untested"),
        ([([], [WHEEL, INDEX, AMD64])], "no gating test of its own has image_arm64 as data"),
        (
            [([], [WHEEL, AMD64]), (["gate", "every-image"], [INDEX, AMD64, ARM64])],
            "no gating test of its own has image_arm64 as data",
        ),
        ([], "no gating test has index as data"),
    ],
)
def test_each_wheel_and_each_image_of_an_index_needs_a_test(
    tests: list[tuple[list[str], list[File]]], said: str | None
) -> None:
    found = POLICY["untested"]([INDEX, WHEEL], [AMD64, ARM64], tests)
    assert (found or "").startswith(said) and "gate = True" in found if said else found is None


@pytest.mark.parametrize("tags", [[], ["gate"], ["local", "requires-network"]])
def test_a_release_runs_every_test_of_the_gate_itself(tags: list[str]) -> None:
    requirements = POLICY["execution_requirements"](tags, True)
    assert requirements.items() >= UNCACHED.items()
    assert requirements.keys() - UNCACHED.keys() == set(tags) - {"gate"}


def test_other_builds_may_use_a_cache() -> None:
    assert POLICY["execution_requirements"](["gate", "no-sandbox"], False) == {"no-sandbox": ""}


@pytest.mark.parametrize("cuda", [False, True])
def test_a_release_with_everything_lacks_nothing(cuda: bool) -> None:
    build = published(sources=True, cuda=cuda)
    assert sorted(build["REQUIRED"]) == sorted(packages(build))
    assert POLICY["missing_parts"](build["REQUIRED"], packages(build)) is None


@pytest.mark.parametrize("cuda", [False, True])
def test_a_release_without_mlc_llms_sources_is_refused(cuda: bool) -> None:
    build = published(sources=False, cuda=cuda)
    said = POLICY["missing_parts"](build["REQUIRED"], packages(build))
    serving = ["images/mlc_llm_serve", "images/mlc_llm_serve_debug"]
    on_gpus = ["mlc_llm_cuda", "mlc_llm_serve_cuda", "mlc_llm_serve_cuda_cublas", "mlc_llm_serve_cuda_nccl"]
    parts = ["images/mlc_llm", "images/mlc_llm_dev", *serving, *(f"images/{name}" for name in on_gpus if cuda)]
    parts += [f"models/{model}" for model in build["_MODELS"]] + ["wheels/mlc_llm"]
    assert f"this build lacks {', '.join('//' + part for part in parts)}: supply mlc-llm's sources" in said
    assert "release/published.bzl" in said


def test_what_runs_on_gpus_is_part_of_a_release_with_cuda_only() -> None:
    assert "wheels/tvm_cuda" in published(sources=True, cuda=True)["REQUIRED"]
    assert not [part for part in published(sources=True, cuda=False)["REQUIRED"] if "cuda" in part]
