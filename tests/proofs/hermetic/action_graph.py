"""Every action of every target, tests included, as Bazel itself tells it: none leaves the sandbox, has network or
depends on who builds.

The graph is read twice from a copy of the workspace, the second time by somebody with every odd variable set: no action
may differ in its command, its
environment or its key, the digest by which caches know it. Nothing is built.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import sys
from typing import Any

from release.private.reproduce.second_workspace import SecondWorkspace
from tests.proofs.hermetic.odd_environment import ODD, PROXIES
from tests.proofs.hermetic.rules import EXCEPTIONS, Action, problems

# Both readings are of one profile: left to itself the launcher looks for what answers, through the proxies.
OPTIONS = ["--config=registries", "--color=no", "--curses=no", "--show_progress_rate_limit=30"]


def pairs(values: list[dict[str, str]]) -> dict[str, str]:
    """aquery's list of keys and values; an empty value is left out there."""
    return {each["key"]: each.get("value", "") for each in values}


def read_graph(second: SecondWorkspace) -> tuple[list[Action], collections.Counter[str]]:
    """All actions, and how often each occurs with its key."""
    # Tests with a command of their own are not among //...
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
    actions, keys = [], collections.Counter()
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace_file", type=pathlib.Path, required=True, help="a file at the workspace's root")
    arguments = parser.parse_args()

    with SecondWorkspace(arguments.workspace_file.resolve().parent, pathlib.Path(os.environ["TEST_TMPDIR"])) as second:
        actions, keys = read_graph(second)
        second.environment |= ODD | PROXIES
        _, odd_keys = read_graph(second)

    found = [problem for action in actions for problem in problems(action)]
    found += [
        f"is another action in another environment: {key[:2000]}" for key in (keys - odd_keys) + (odd_keys - keys)
    ]
    excepted = collections.Counter(action.test for action in actions if action.requirements)
    print(f"{len(actions)} actions, of {len({action.mnemonic for action in actions})} kinds; {len(found)} problems")
    print(f"with {len(ODD | PROXIES)} variables set, {(keys & odd_keys).total()} of them are the same")
    for label, count in sorted(excepted.items()):
        print(f"{count} by exception: {label}: {EXCEPTIONS.get(label, 'no reason given')}")
    print("\n".join(found))
    return 0 if len(actions) > 1000 and not found else 1


if __name__ == "__main__":
    sys.exit(main())
