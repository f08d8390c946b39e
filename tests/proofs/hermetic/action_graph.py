"""No action of any target, tests included, leaves the sandbox, uses the network, or depends on who builds.

Reads Bazel's action graph of a copy of the workspace twice, the second time with every odd variable set. No action may
differ in its command, its environment or its key, the digest that caches use. And no action of a release's gate takes
its result from a cache. Nothing is built.
"""

from __future__ import annotations

import collections
import json
import sys
from typing import Any

from release.private.reproduce.second_workspace import SecondWorkspace
from tests.proofs import proof
from tests.proofs.hermetic.odd_environment import ODD, PROXIES
from tests.proofs.hermetic.rules import EXCEPTIONS, Action, problems

# Fix the profile: the launcher would otherwise choose one by what answers, through the proxies.
OPTIONS = ["--config=registries", "--color=no", "--curses=no", "--show_progress_rate_limit=30"]


def pairs(values: list[dict[str, str]]) -> dict[str, str]:
    """aquery's list of keys and values, which leaves out empty values."""
    return {each["key"]: each.get("value", "") for each in values}


def read_graph(second: SecondWorkspace) -> tuple[list[Action], collections.Counter[str]]:
    """All actions, and how often each occurs with its key."""
    # //... leaves out manual tests.
    manual = second.bazel("query", *OPTIONS, "attr(tags, '[\\[ ]manual[,\\]]', tests(//...))").stdout.split()
    query = "deps(//... + set({}))".format(" ".join(manual))
    wanted = [
        "--output=jsonproto",
        "--include_artifacts=false",
        "--include_param_files",
        "--skip_incompatible_explicit_targets",
    ]
    graph: dict[str, Any] = json.loads(second.bazel("aquery", *OPTIONS, *wanted, query).stdout)
    labels = {target["id"]: target["label"] for target in graph["targets"]}
    actions: list[Action] = []
    keys: collections.Counter[str] = collections.Counter()
    for each in graph["actions"]:
        parameters = [argument for file in each.get("paramFiles", []) for argument in file.get("arguments", [])]
        actions.append(
            Action(
                labels[each["targetId"]],
                each["mnemonic"],
                (*each.get("arguments", []), *parameters),
                pairs(each.get("environmentVariables", [])),
                frozenset(pairs(each.get("executionInfo", []))),
            )
        )
        keys[
            json.dumps(
                [labels[each["targetId"]], {name: value for name, value in each.items() if not name.endswith("Id")}],
                sort_keys=True,
            )
        ] += 1
    return actions, keys


def cached_gate(second: SecondWorkspace) -> list[str]:
    """Actions of a gate in a stamped build whose result may come from a cache."""
    query = 'mnemonic("Gate.*", //tests/release:small_gate)'
    shown = second.bazel("aquery", *OPTIONS, "--stamp", "--output=jsonproto", query).stdout
    actions = json.loads(shown)["actions"]
    if {each["mnemonic"] for each in actions} != {"GateStamp", "GateTest"}:
        return ["//tests/release:small_gate: expected actions GateTest and GateStamp"]
    return [
        f"{each['mnemonic']} of a release may take its result from a cache: expected the requirement no-cache"
        for each in actions
        if not {"no-cache", "no-remote-cache"} <= pairs(each.get("executionInfo", [])).keys()
    ]


def main() -> int:
    arguments = proof.parser(__doc__).parse_args()

    with SecondWorkspace(arguments.workspace, proof.place()) as second:
        actions, keys = read_graph(second)
        cached = cached_gate(second)
        second.environment |= ODD | PROXIES
        _, odd_keys = read_graph(second)

    found = cached + [problem for action in actions for problem in problems(action)]
    found += [f"an action depends on the environment: {key[:2000]}" for key in (keys - odd_keys) + (odd_keys - keys)]
    excepted = collections.Counter(action.test for action in actions if action.requirements)
    print(f"{len(actions)} actions, of {len({action.mnemonic for action in actions})} kinds; {len(found)} problems")
    print(f"with {len(ODD | PROXIES)} variables set, {(keys & odd_keys).total()} of them stay the same")
    for label, count in sorted(excepted.items()):
        print(f"{count} by exception: {label}: {EXCEPTIONS.get(label, 'no reason given')}")
    print("\n".join(found))
    return 0 if len(actions) > 1000 and not found else 1


if __name__ == "__main__":
    sys.exit(main())
