"""The second build sees varied surroundings, and a variation without effect fails the comparison."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from release.private.reproduce import namespace, second_build, surroundings

LIBFAKETIME = pathlib.Path(os.environ["LIBFAKETIME"]).absolute()
FIRST = {
    "clock": "2026-11-24",
    "hostname": "here",
    "jobs": "2 processors",
    "locale": "none",
    "output_base": "/a",
    "time_zone": "+0000",
    "toolchain": ["/usr/bin/gcc", "/usr/bin/ld", "/usr/include"],
    "umask": "022",
    "user": "0:0",
    "workspace": "/b",
}
SECOND = {
    "clock": "2031-01-02",
    "hostname": "elsewhere",
    "jobs": "3",
    "locale": "POSIX",
    "output_base": "/c",
    "time_zone": "+1345",
    "toolchain": [],
    "umask": "077",
    "user": "4242:4343",
    "workspace": "/d",
}


def test_everything_observed_can_be_varied() -> None:
    assert {*surroundings.surroundings(), "jobs"} == set(second_build.NAMES)


def test_every_variation_has_an_effect() -> None:
    lines, failed = second_build.table(FIRST, SECOND, [])
    assert failed == []
    assert len(lines) == 1 + len(second_build.VARIATIONS)
    assert all(line.endswith("  varied") for line in lines[1:])
    assert "host toolchain  gcc, ld, /usr/include  none" in lines[-1]


@pytest.mark.parametrize("name", sorted(FIRST))
def test_a_variation_without_effect_is_found(name: str) -> None:
    same = FIRST[name]
    lines, failed = second_build.table(FIRST, SECOND | {name: same}, [])
    assert failed == [name]
    assert sum(line.endswith("NO EFFECT") for line in lines) == 1
    lines, failed = second_build.table(FIRST, SECOND | {name: same}, [name])
    assert failed == [] and sum(line.endswith("not varied (--without)") for line in lines) == 1


def test_a_variation_that_was_not_observed_has_no_effect() -> None:
    seen = {name: value for name, value in SECOND.items() if name != "umask"}
    assert second_build.table({name: value for name, value in FIRST.items() if name != "umask"}, seen, [])[1] == [
        "umask"
    ]


def test_a_clock_one_day_ahead_is_not_enough() -> None:
    assert second_build.table(FIRST, SECOND | {"clock": "2026-11-25"}, [])[1] == ["clock"]


def test_without_a_host_toolchain_there_is_nothing_to_hide() -> None:
    assert second_build.table(FIRST | {"toolchain": []}, SECOND, [])[1] == []


def test_counts_concurrent_actions() -> None:
    def action(start: float, duration: float, category: str = "action processing") -> dict[str, Any]:
        return {"cat": category, "ts": start, "dur": duration}

    events = [
        action(0, 10),
        action(5, 10),
        action(10, 10),
        action(0, 100, "other"),
        {"cat": "action processing", "ts": 3},
    ]
    assert second_build.most_at_once(events) == 2
    assert second_build.most_at_once([]) == 0


def test_recognizes_toolchain_programs_by_name() -> None:
    known = (
        "gcc g++ cc c++ gcc-12 x86_64-linux-gnu-gcc-12 ld ld.bfd x86_64-linux-gnu-ld.gold as ar clang clang-14 clang++"
        " make cmake cargo rustc ninja nvcc"
    )
    assert all(surroundings.PROGRAMS.fullmatch(name) for name in known.split())
    assert not any(
        surroundings.PROGRAMS.fullmatch(name)
        for name in "sh python3 git ascii arch last ldd ldconfig env cat makepasswd".split()
    )


def fakes(command: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", command], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    ).stdout


def test_libfaketime_is_loaded_into_the_packaged_python(tmp_path: pathlib.Path) -> None:
    clock = {
        "LD_PRELOAD": str(LIBFAKETIME),
        "FAKETIME": f"+{second_build.DAYS_AHEAD}d",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    (tmp_path / "file").touch()
    code = f"import os, time; print(time.time(), os.stat({str(tmp_path / 'file')!r}).st_mtime)"
    now, file = map(float, fakes(code, **clock).split())
    # The clock is shifted, times of files are not.
    assert datetime.timedelta(seconds=now - file).days == second_build.DAYS_AHEAD


@pytest.mark.parametrize(
    "name, before, after",
    [
        ("linux-sandbox", ["-W", "/tmp", "--"], ["a b", "--", "c"]),
        ("process-wrapper", ["--timeout=1", "--kill_delay=2"], ["a b", "--", "c"]),
    ],
)
def test_the_action_starts_with_other_surroundings(
    tmp_path: pathlib.Path, name: str, before: list[str], after: list[str]
) -> None:
    """The script that replaces a starter passes every argument on, and inserts the action's script before the action's
    command.
    """
    program = tmp_path / name
    program.write_text('#!/bin/sh\nfor word in "$@"; do printf \'%s\\n\' "$word"; done\n')
    program.chmod(0o755)
    found, last = second_build._STARTERS[name]
    words = f"/action {last}" if last else '"$1" /action'
    script = tmp_path / "script"
    script.write_text(
        second_build._STARTER.format(name=name, action="/action", found=found, before=words, program=program)
    )
    script.chmod(0o755)
    done = subprocess.run([str(script), *before, *after], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [*before, "/action", *after]


def enter(*options: str, command: str) -> subprocess.CompletedProcess:
    program = [sys.executable, "-I", namespace.__file__, *options, "--", "/bin/sh", "-c", command]
    return subprocess.run(program, env={**os.environ, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True)


def test_namespaces_change_user_host_name_and_files(tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("1")
    (tmp_path / "one").write_text("one")
    (tmp_path / "other").write_text("other")
    done = enter(
        "--uid=4242",
        "--gid=4343",
        "--hostname=elsewhere",
        f"--replace={tmp_path}/one={tmp_path}/other",
        f"--empty={tmp_path}/empty",
        f"--hide={tmp_path}/full",
        command=f"id -u; id -g; uname -n; cat {tmp_path}/one; echo; ls {tmp_path}/full",
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, ["4242", "4343", "elsewhere", "other"]), done.stderr
    # Nothing changes outside.
    assert (tmp_path / "one").read_text() == "one" and os.uname().nodename != "elsewhere"


def test_a_refused_namespace_is_reported(tmp_path: pathlib.Path) -> None:
    done = enter("--replace=/no/such/file=/dev/null", command="true")
    assert done.returncode == namespace.REFUSED
    assert done.stderr.startswith("namespace: replacing /no/such/file: ")


def test_without_namespaces_the_error_lists_what_cannot_be_varied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        second_build,
        "_namespace_command",
        lambda *options: ["/bin/sh", "-c", "echo 'namespace: not allowed' >&2; exit 77", "--"],
    )
    with pytest.raises(second_build.NotVaried) as refused:
        second_build.check(["clock"])
    assert "(not allowed)" in str(refused.value)
    assert str(refused.value).endswith("--without user,hostname,umask,locale,time_zone,toolchain")
    second_build.check(["user", "hostname", "umask", "locale", "time_zone", "clock", "toolchain"])


def test_the_probe_writes_its_surroundings(tmp_path: pathlib.Path) -> None:
    subprocess.run([sys.executable, surroundings.__file__, f"--output={tmp_path}/seen.json"], check=True)
    assert json.loads((tmp_path / "seen.json").read_text())["hostname"] == os.uname().nodename


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/base/execroot/_main", "/base"),
        ("/base/sandbox/linux-sandbox/7/execroot/_main", "/base"),
        # A build inside a test of another build.
        ("/base/execroot/_main/_tmp/0/second/execroot/_main", "/base/execroot/_main/_tmp/0/second"),
        (
            "/base/execroot/_main/_tmp/0/second/sandbox/processwrapper-sandbox/12/execroot/_main",
            "/base/execroot/_main/_tmp/0/second",
        ),
        ("/elsewhere", "/elsewhere"),
    ],
)
def test_the_output_base_is_that_of_the_action(folder: str, expected: str) -> None:
    assert surroundings.output_base(folder) == expected
