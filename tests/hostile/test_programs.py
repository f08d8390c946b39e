"""A program that another host makes speak or wait without end is stopped, and what it says becomes one line."""

from __future__ import annotations

import os
import pathlib
import signal
import sys
import time

import pytest

from fetch import programs


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def refused(text: str, **options: object) -> programs.ProgramError:
    started = time.monotonic()
    with pytest.raises(programs.ProgramError) as error:
        programs.run(python(text), **options)  # type: ignore[arg-type]
    assert time.monotonic() - started < 30
    return error.value


def test_an_answer_is_returned(tmp_path: pathlib.Path) -> None:
    text = "import os, sys; print(sys.stdin.read(), os.getcwd(), os.environ['A'])"
    said = programs.run(python(text), given="asked", folder=tmp_path, environment={"A": "b"})
    assert said == f"asked {tmp_path} b\n"


def test_an_answer_is_handed_on_piece_by_piece() -> None:
    pieces: list[bytes] = []
    assert programs.run(python("print('x' * 1_000_000)"), sink=pieces.append) == ""
    assert len(pieces) > 1 and b"".join(pieces) == b"x" * 1_000_000 + b"\n"


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert programs.run(python(r"import os; os.write(1, b'\xff')")) == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("sink", [None, lambda chunk: None])
def test_one_that_says_too_much_is_stopped(sink: object) -> None:
    error = refused("import os\nwhile True: os.write(1, bytes(65536))", most=1_000_000, sink=sink)
    assert str(error) == f"{os.path.basename(sys.executable)}: wrote more than 1000000 bytes"
    assert error.status is None


@pytest.mark.parametrize(
    "text",
    [
        "import time; time.sleep(600)",
        "import os, time; os.close(1); os.close(2); time.sleep(600)",
        "import os, time\nwhile True: os.write(1, b'.'); time.sleep(0.05)",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)",
    ],
    ids=["silent", "closed", "slow", "deaf"],
)
def test_one_that_does_not_end_is_stopped(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_SECONDS_TO_END", 0.5)
    error = refused(text, seconds=1)
    assert str(error).endswith(": did not end within 1 s") and error.status is None


def test_its_children_are_stopped_with_it(tmp_path: pathlib.Path) -> None:
    """A wrapper's program holds the pipe open, and would go on talking to the host."""
    note = str(tmp_path / "child")
    child = f"subprocess.Popen({python('import time; time.sleep(600)')!r})"
    refused(f"import subprocess; open({note!r}, 'w').write(str({child}.pid))", seconds=5)
    number = int(pathlib.Path(note).read_text())
    for _ in range(100):
        try:
            state = pathlib.Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    raise AssertionError(f"{number} goes on")


def test_messages_without_end_do_not_fill_the_memory() -> None:
    text = "import os, sys\nfor _ in range(200): os.write(2, b'x' * 65536)\nsys.exit(3)"
    error = refused(text)
    assert error.status == 3 and len(error.said) == 1 << 20 and len(str(error)) < 1100


def test_a_failure_is_one_line() -> None:
    error = refused(r"import sys; sys.stderr.write('Error:\n\x1b[2Kno\n::set-env::'); print('out'); sys.exit(1)")
    assert (error.status, error.output) == (1, "out\n")
    assert str(error) == r"Error: \x1b[2Kno ::set-env::"
    assert str(refused("import sys; sys.exit(7)")) == "exit status 7, and no reason given"
    assert str(refused("import os; os.kill(os.getpid(), 9)")) == f"exit status {-signal.SIGKILL}, and no reason given"


def test_a_status_that_is_no_error_is_accepted() -> None:
    assert programs.run(python("import sys; print(1); sys.exit(1)"), accepted=(0, 1)) == "1\n"


def test_one_that_is_not_there_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(programs.ProgramError, match="^cannot start .*/absent: No such file or directory$"):
        programs.run([str(tmp_path / "absent")])


def test_one_that_does_not_read_what_it_is_given_answers() -> None:
    assert programs.run(python("pass"), given="x") == ""


def test_one_that_leaves_a_daemon_behind_has_answered() -> None:
    """A credential helper may start an agent, which keeps the helper's output open."""
    daemon = f"subprocess.Popen({python('import time; time.sleep(600)')!r}, start_new_session=True)"
    text = f"import subprocess; print('answer', flush=True); {daemon}"
    started = time.monotonic()
    assert programs.run(python(text)) == "answer\n"
    assert time.monotonic() - started < 60
