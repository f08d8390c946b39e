"""Results are printed in readable units, and a part that is measured again replaces its own section only."""

from __future__ import annotations

import platform

import pytest
import report


def test_table_aligns_figures_to_the_right() -> None:
    assert report.table(["what", "size"], [["a", "1"]]) == "| what | size |\n| --- | ---: |\n| a | 1 |\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0454, "45 ms"),
        (0.9994, "999 ms"),
        (1.04, "1.0 s"),
        (99.94, "99.9 s"),
        (99.96, "1 min 40 s"),
        (119.6, "2 min 0 s"),
        (200, "3 min 20 s"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(999, "1.0 kB"), (999_999, "1000.0 kB"), (1_000_000, "1.0 MB"), (2_667_136, "2.7 MB")]
)
def test_size(count: int, text: str) -> None:
    assert report.size(count) == text


def test_ratio_is_ours_by_theirs() -> None:
    assert report.ratio(3, 2) == "1.50"


@pytest.mark.parametrize(("per_second", "text"), [(99.94, "99.9/s"), (9444.2, "9444/s"), (7.25, "7.2/s")])
def test_rate(per_second: float, text: str) -> None:
    assert report.rate(per_second) == text


def test_ratios_are_of_pairs_not_of_medians() -> None:
    # The medians of the columns are 3 and 2.
    assert report.ratios([(1, 2), (3, 4), (8, 1)]) == "0.75 (0.50–8.00)"


def test_machine_does_not_name_this_machine() -> None:
    assert platform.node() not in report.machine()
    assert " cores of " in report.machine()


def test_first_results() -> None:
    assert report.merged("", {"b": report.section("b", "new")}, ["a", "b"]) == report.HEADER + "\n## b\n\nnew\n"


def test_measured_part_replaces_its_section_and_keeps_the_others() -> None:
    order = ["a", "b", "c"]
    old = report.merged("", {part: report.section(part, f"old {part}\n\n| table |\n") for part in ("c", "a")}, order)
    new = report.merged(old, {"a": report.section("a", "new a")}, order)
    assert new == report.HEADER + "\n## a\n\nnew a\n\n## c\n\nold c\n\n| table |\n"
    assert report.merged(new, {}, order) == new


def test_part_that_is_no_more_is_dropped() -> None:
    old = report.merged("", {"gone": report.section("gone", "old")}, ["gone"])
    assert report.merged(old, {}, ["a"]) == report.HEADER
