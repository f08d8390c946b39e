"""What many workers would take, from the actions that one ran."""

from __future__ import annotations

import json

import pytest
import remote


def action(seconds: float, *needs: int) -> remote.Action:
    return remote.Action(seconds, frozenset(needs))


# Four compilations and the link of all; one of them takes long.
FAN = [action(1), action(1), action(1), action(4), action(2, 0, 1, 2, 3)]


def test_one_worker_takes_the_sum() -> None:
    assert remote.schedule(FAN, 1) == 9
    assert remote.schedule(FAN, 1, overhead=0.5) == 11.5


def test_the_longest_way_goes_first() -> None:
    assert remote.schedule(FAN, 2) == 6


def test_no_number_of_workers_beats_the_critical_path() -> None:
    assert max(remote.ranks(FAN)) == remote.schedule(FAN, 256) == 6
    assert max(remote.ranks(FAN, 0.5)) == remote.schedule(FAN, 256, 0.5) == 7


def test_a_cycle_is_refused() -> None:
    with pytest.raises(ValueError, match="found a cycle"):
        remote.ranks([action(1, 1), action(1, 0)])


def test_the_log_says_what_each_action_needs() -> None:
    def entry(seconds: str, inputs: dict[str, str], outputs: dict[str, str]) -> dict:
        files = [
            [{"path": path, "digest": {"hash": digest}} for path, digest in each.items()] for each in (inputs, outputs)
        ]
        return {
            "inputs": files[0],
            "actualOutputs": files[1],
            "metrics": {"totalTime": "3s", "queueTime": "1s", "executionWallTime": seconds},
        }

    log = [
        entry("1s", {"a.cc": "1"}, {"bazel-out/a.o": "2"}),
        entry("1.500s", {"bazel-out/a.o": "2"}, {"bazel-out/a.so": "3"}),
        # By a link that Bazel has made.
        entry("0.25s", {"bazel-out/_solib/a.so": "3"}, {"bazel-out/b": "4"}),
    ]
    found = remote.graph(remote.entries("\n".join(json.dumps(each, indent=2) for each in log)))
    assert [sorted(each.needs) for each in found] == [[], [0], [1]]
    assert [each.seconds for each in found] == [1, 1.5, 0.25]


def test_the_loopbacks_counter_is_read() -> None:
    text = "Inter-|   Receive\n face |bytes\n    lo: 1234 5 0 0 0 0 0 0 1234 5\n  eth0: 99 1 0 0 0 0 0 0 0 0\n"
    assert remote.loopback_bytes(text) == 1234
