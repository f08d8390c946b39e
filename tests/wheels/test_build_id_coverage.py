"""From the action graph: the build id of a published wheel covers everything that reaches the wheel.

The id is a hash of the finished wheel's content. It covers everything that decides this content as long as the finished
wheel is written from the wheel and pins that were hashed, and from nothing else.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

WHEELS = os.environ["WHEELS"].split()

Action = dict[str, Any]


def read(report: Path) -> dict[str, list[Action]]:
    """Target → its actions."""
    actions: dict[str, list[Action]] = {}
    for action in map(json.loads, report.read_text(encoding="utf-8").splitlines()):
        actions.setdefault(action["target"], []).append(action)
    return actions


ACTIONS = read(Path(os.environ["ACTIONS"]))


def target(wheel: str, name: str = "") -> str:
    """The label of a target in a wheel's package, in full."""
    return wheel if ":" in wheel else f"{wheel}:{name or wheel.rpartition('/')[2]}"


def producers(actions: dict[str, list[Action]]) -> dict[str, Action]:
    """Output → the action that makes it."""
    return {output: action for each in actions.values() for action in each for output in action.get("outputs", [])}


def data(action: Action) -> set[str]:
    """The inputs of an action, without the files of the programs that it runs."""
    program = action["arguments"][0]
    runfiles = (program + ".runfiles", program + ".repo_mapping")
    inputs = {path for path in action["inputs"] if not path.startswith(runfiles) and "/_middlemen/" not in path}
    return inputs - set(action["tools"])


def uncovered(wheel: str, actions: dict[str, list[Action]]) -> list[str]:
    """One line for everything that reaches the finished wheel but not its build id."""
    own = actions[target(wheel)]
    made = producers(actions)
    by_kind = {action["mnemonic"]: action for action in own}
    if (mnemonics := sorted(action["mnemonic"] for action in own)) != ["FinishWheel", "IdentifyWheel"]:
        return [f"{wheel}: expected the actions FinishWheel and IdentifyWheel, found {mnemonics}"]
    finish, identify = by_kind["FinishWheel"], by_kind["IdentifyWheel"]
    (folder,) = finish["outputs"]
    assembled = [path for path in data(finish) if path.endswith(".whl")]
    # The same for other Pythons, which share the version.
    others = [path for path in identify["inputs"] if path.endswith(".whl") and path not in assembled]
    identity = [path for path in identify["outputs"] if path.endswith(".json")]
    version = [path for path in identify["outputs"] if path.endswith(".version")]
    problems = []
    of_py_wheel = [made.get(path, {}).get("mnemonic") == "PyWheel" for path in (*assembled, *others)]
    if len(assembled) != 1 or assembled[0] not in data(identify) or not all(of_py_wheel):
        return [f"{wheel}: expected wheels of py_wheel as input of the id, found {assembled + others}"]
    pins = data(identify) - {*assembled, *others}
    problems += [
        f"{wheel}: the id reads {path}, which is not the version of a wheel"
        for path in sorted(pins)
        if made.get(path, {}).get("mnemonic") != "IdentifyWheel"
    ]
    problems += [
        f"{wheel}: {path} reaches the finished wheel past the id"
        for path in sorted(data(finish) - {*assembled, *identity})
    ]

    def said(action: Action) -> list[str]:
        return [argument for argument in action["arguments"][1:] if not argument.startswith("--pin=")]

    expected = ["identify", "--unversioned", *assembled, *(word for path in others for word in ("--with", path))]
    expected += ["--identity", *identity, "--version", *version]
    problems += [f"{wheel}: expected arguments {expected}, found {said(identify)}"] * (said(identify) != expected)
    expected = ["write", "--unversioned", *assembled, "--identity", *identity, "--folder", folder]
    problems += [f"{wheel}: expected arguments {expected}, found {said(finish)}"] * (
        finish["arguments"][1:] != expected
    )
    named = {
        argument.partition("=")[2].partition("=")[2]
        for argument in identify["arguments"]
        if argument.startswith("--pin=")
    }
    problems += [f"{wheel}: expected the pins {sorted(pins)}, found {sorted(named)}"] * (named != pins)
    # Both run the same program with the same environment.
    problems += [f"{wheel}: the id and the wheel come from two programs"] * (
        finish["arguments"][0] != identify["arguments"][0] or set(finish["tools"]) != set(identify["tools"])
    )
    problems += [
        f"{wheel}: {each['mnemonic']} is given the variable {name}"
        for each in (finish, identify)
        for name in sorted(each["environment"].keys() - {"PATH"})
    ]
    return problems


@pytest.mark.parametrize("wheel", WHEELS)
def test_nothing_reaches_a_wheel_past_its_build_id(wheel: str) -> None:
    assert uncovered(wheel, ACTIONS) == []


def test_the_report_has_every_published_wheel() -> None:
    assert len(WHEELS) >= 2 and {target(wheel) for wheel in WHEELS} <= ACTIONS.keys()


@pytest.mark.parametrize("wheel", WHEELS)
def test_the_version_of_a_pinned_wheel_reaches_the_id(wheel: str) -> None:
    (identify,) = [action for action in ACTIONS[target(wheel)] if action["mnemonic"] == "IdentifyWheel"]
    made = producers(ACTIONS)
    pinned = {made[path]["target"] for path in data(identify) if path.endswith(".version")}
    expected = {"//wheels/tvm_ffi": [], "//wheels/tvm": ["//wheels/tvm_ffi"]}.get(
        wheel.partition(":")[0], ["//wheels/tvm", "//wheels/tvm_ffi"]
    )
    assert pinned == {target(each) for each in expected}


# The check itself finds what is smuggled in.


def smuggled(kind: str, **changes: Any) -> list[str]:
    actions = copy.deepcopy(ACTIONS)
    (action,) = [each for each in actions["//wheels/tvm_ffi:tvm_ffi"] if each["mnemonic"] == kind]
    for key, value in changes.items():
        action[key] = action[key] | value if isinstance(value, dict) else action[key] + value
    return uncovered("//wheels/tvm_ffi", actions)


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("FinishWheel", {"inputs": ["wheels/extra.txt"]}, "wheels/extra.txt reaches the finished wheel past the id"),
        ("FinishWheel", {"arguments": ["--strip"]}, "expected arguments"),
        ("FinishWheel", {"environment": {"MODE": "dbg"}}, "FinishWheel is given the variable MODE"),
        ("FinishWheel", {"tools": ["other"]}, "two programs"),
        ("IdentifyWheel", {"inputs": ["wheels/extra.txt"]}, "the id reads wheels/extra.txt"),
        ("IdentifyWheel", {"arguments": ["--pin=other=other.version"]}, "expected the pins"),
        ("IdentifyWheel", {"inputs": ["other.whl"]}, "expected wheels of py_wheel as input of the id"),
    ],
)
def test_what_is_smuggled_in_is_found(kind: str, changes: dict[str, Any], expected: str) -> None:
    assert any(expected in problem for problem in smuggled(kind, **changes)), smuggled(kind, **changes)
