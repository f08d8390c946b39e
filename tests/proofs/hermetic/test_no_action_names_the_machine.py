"""In the action graph of everything published and its tests, no action names the machine, its environment or its
network.
"""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from tests.proofs.hermetic.rules import EXCEPTIONS, LOOSENING, Action, problems


def actions() -> list[Action]:
    report = pathlib.Path(os.environ["ACTIONS"]).read_text()
    return [
        Action(
            each["target"],
            each["mnemonic"],
            tuple(each["arguments"]),
            each["environment"],
            LOOSENING.intersection(each["tags"]),
        )
        for each in map(json.loads, report.splitlines())
    ]


def action_of(*arguments: str, mnemonic: str = "Any", requirements: tuple[str, ...] = (), **environment: str) -> Action:
    return Action("//a:b", mnemonic, arguments, environment, frozenset(requirements))


def test_none_of_the_graph() -> None:
    assert [problem for each in actions() for problem in problems(each)] == []


def test_the_graph_has_every_kind_of_action() -> None:
    kinds = {
        "CppCompile",
        "CppLink",
        "GateTest",
        "ImageLayer",
        "InstallWheels",
        "OCIImage",
        "Objcopy",
        "PyWheel",
        "ReleaseDocument",
    }
    assert kinds <= {each.mnemonic for each in actions()}


@pytest.mark.parametrize("label", EXCEPTIONS)
def test_every_exception_is_a_target_with_a_reason(label: str) -> None:
    assert label.startswith("//") and EXCEPTIONS[label], label


@pytest.mark.parametrize(
    "action",
    [
        action_of(
            *("external/gcc", "-ffile-prefix-map=/proc/self/cwd=.", "-Iinclude", "-Iexternal/a", "-isystemexternal/a"),
            PATH="/bin:/usr/bin:/usr/local/bin",
        ),
        action_of(
            "bazel-out/run_test",
            "--label",
            "//tests/release:push_full_disk",
            mnemonic="GateTest",
            requirements=("local",),
        ),
        action_of("bazel-out/make_labels", "source=https://example.org/x", "//a/...", "--env=TESTS_FOLDER=/tests"),
    ],
    ids=["compiler", "exception", "address and label"],
)
def test_what_is_allowed(action: Action) -> None:
    assert problems(action) == []


@pytest.mark.parametrize(
    ("action", "why"),
    [
        (action_of("/bin/bash", "-c", "true"), "runs /bin/bash"),
        (action_of("external/gcc", "-I/usr/include"), "is given -I/usr/include"),
        (action_of("external/gcc", "-isystem/usr/include"), "is given -isystem/usr/include"),
        (action_of("external/gcc", "-Wl,-rpath,/usr/lib"), "is given -Wl,-rpath,/usr/lib"),
        (action_of("external/gcc", "--sysroot=/"), "is given --sysroot=/"),
        (action_of("external/gcc", PATH="/usr/lib/ccache:/bin"), "has PATH='/usr/lib/ccache:/bin'"),
        (action_of("external/gcc", HOME="/home/user"), "has HOME="),
        (action_of("external/gcc", requirements=("requires-network",)), "asks for requires-network"),
        (
            action_of("bazel-out/run_test", "--label", "//tests:new", mnemonic="GateTest", requirements=("local",)),
            "asks for local",
        ),
    ],
)
def test_what_is_not(action: Action, why: str) -> None:
    assert any(why in problem for problem in problems(action)), problems(action)
