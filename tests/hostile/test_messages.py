"""What hosts and other programs say reaches a terminal and a workflow's log as text, never as a command."""

from __future__ import annotations

import pytest

from fetch import errors


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("denied", "denied"),
        ("denied\n::error title=x::revoked", "denied ::error title=x::revoked"),
        ("::add-mask::a", "\\::add-mask::a"),
        ("  ::add-mask::a", "\\::add-mask::a"),
        ("no ##[command]x", "no ##\\[command]x"),
        ("a\x1b[2Jb\x9b1mc", "a\\x1b[2Jb\\x9b1mc"),
        ("a\r\u2028b\u202ec", "a b\\u202ec"),
        ("https://me:secret@a.example/x", "https://***@a.example/x"),
        ("[::1]:5000: é 中", "[::1]:5000: é 中"),
    ],
)
def test_one_line_is_text(said: str, shown: str) -> None:
    assert errors.one_line(said) == shown


def test_no_message_is_endless() -> None:
    assert errors.one_line("a" * 9, 3) == "aaa…" and len(errors.one_line("a" * 10**6)) < 10_000


def test_an_error_of_the_user_is_text_on_each_line() -> None:
    error = errors.UserError("HTTP 500 a\x1b[2J\n::error::x", 1)
    assert str(error.args[0]) == "HTTP 500 a\\x1b[2J\n\\::error::x" and error.args[1] == 1


def test_a_reason_is_told_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    errors.tell("push", ValueError("x\n::error::y\x07"))
    assert capsys.readouterr().err == "push: x ::error::y\\x07\n"


def test_a_line_keeps_its_indentation() -> None:
    assert errors.printable("\t  a\x1b[0m") == "\t  a\\x1b[0m"
    assert errors.printable("  ::warning::x") == "\\  ::warning::x"
