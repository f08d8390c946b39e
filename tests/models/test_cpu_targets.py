"""A target's CPU is the one that is named, or the oldest of the platform that is built for."""

from __future__ import annotations

import json
import os
import types
from pathlib import Path

import pytest

from tests.private.starlark import evaluate


def fail(message: str) -> None:
    raise AssertionError(message)


BZL = evaluate(
    Path(os.environ["CPU_TARGETS"]),
    fail=fail,
    json=types.SimpleNamespace(encode=json.dumps, decode=json.loads),
    struct=types.SimpleNamespace,
)


def cpu(name: str) -> str:
    found = BZL["llvm"](name)
    return json.dumps({**found, "host": found})


CUDA = json.dumps({"kind": "cuda", "arch": "sm_90", "host": BZL["llvm"]("x86-64-v3")})


@pytest.mark.parametrize(
    ("name", "triple", "features"),
    [
        ("x86-64-v3", "x86_64-unknown-linux-gnu", None),
        ("armv8-a", "aarch64-unknown-linux-gnu", ["+v8a", "+neon"]),
        ("armv8.2-a+dotprod", "aarch64-unknown-linux-gnu", ["+v8.2a", "+neon", "+dotprod"]),
    ],
)
def test_a_cpu_has_its_triple_and_features(name: str, triple: str, features: list[str] | None) -> None:
    found = BZL["llvm"](name)
    assert (found["kind"], found["mtriple"], found.get("mattr")) == ("llvm", triple, features)
    assert BZL["for_platform"](cpu(name), True) == BZL["for_platform"](cpu(name), False) == cpu(name)


def test_an_unknown_architecture_of_arm_is_refused() -> None:
    with pytest.raises(
        AssertionError, match="one of Arm's architectures armv8-a, armv8.2-a\\+dotprod, found 'armv9-a'"
    ):
        BZL["llvm"]("armv9-a")


def test_a_target_without_a_cpu_has_the_oldest_of_its_platform() -> None:
    nothing = json.dumps({"kind": "llvm", "host": {"kind": "llvm"}})
    assert BZL["constraints"](nothing) == []
    assert BZL["for_platform"](nothing, False) == cpu("x86-64-v2")
    assert BZL["for_platform"](nothing, True) == cpu("armv8-a")


@pytest.mark.parametrize(
    ("target", "expected"),
    [(cpu("x86-64-v2"), "x86_64"), (cpu("armv8-a"), "aarch64"), (CUDA, "x86_64")],
)
def test_a_target_with_a_cpu_is_for_its_platform_only(target: str, expected: str) -> None:
    assert BZL["constraints"](target) == ["@platforms//cpu:" + expected]
