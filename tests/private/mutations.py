"""Damages data for fuzzing, the same way for the same seed.

Ours rather than a library's: a crash is reproduced by seed and round alone, and no lock grows for a hundred lines.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

# Numbers at which readers go wrong: signs, ends of integers, more digits than Python converts.
_NUMBERS = ("-1", "0", "00", "1_0", "+1", "0x1", "1e400", "4294967296", "9223372036854775808", "9" * 5000, "١")
_TEXTS = (
    *("", " ", "\t", "\n", "\r\n", "\0", "\x1b[2J", "\x85", "\u2028", "é", "..", "../", "../../x", "/etc/passwd", "./"),
    *("#", " #", "\\", "\\\n", '"', "'", ":", "=", "==", "@", "%00", "[", "]", "{", "}", "(", ")", "<", ">", "|", ","),
    *("a" * 300, "http://[", "file:///", "sha256:", "sha256:" + "A" * 64, "x" * 5000),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 1 << 80, [], {}, [[]], {"": ""}, [None], "\ud800", "sha256:../../x", {"a": {"b": []}}),
    *_TEXTS,
)


class Mutator:
    """A source of damage.

    Args:
        seed: the same one damages the same way.
        tokens: pieces of the format under test to put anywhere.
    """

    def __init__(self, seed: str, tokens: Sequence[str] = ()) -> None:
        self.random = random.Random(seed)
        self._texts = (*_TEXTS, *_NUMBERS, *tokens)

    def data(self, data: bytes, others: Sequence[bytes] = ()) -> bytes:
        """Damages bytes in one to four places.

        Args:
            others: further samples of the format, to splice parts of.
        """
        for _ in range(self.random.randint(1, 4)):
            data = self.random.choice(self._operations())(data, others)
        return data

    def text(self, text: str, others: Sequence[str] = ()) -> str:
        """Damages text; the result is text again."""
        damaged = self.data(text.encode(errors="surrogatepass"), [other.encode() for other in others])
        return damaged.decode("utf-8", self.random.choice(["ignore", "replace"]))

    def json(self, text: str) -> str:
        """Damages a JSON document: its values, a key that it has twice, how deep it is, or its text."""
        kind = self.random.randrange(10)
        if kind == 0:
            return self.text(text)
        if kind == 1:
            return "[" * 100_000
        content = json.loads(text)
        for _ in range(self.random.randint(1, 3)):
            content = self.value(content)
        written = json.dumps(content)
        if kind == 2 and written.startswith("{") and len(content) > 0:
            key = self.random.choice(sorted(content))
            return "{" + json.dumps(key) + ": 1, " + written[1:]
        return written

    def value(self, content: Any) -> Any:
        """Replaces, adds or removes one value somewhere in a JSON value."""
        if isinstance(content, (dict, list)) and content and self.random.random() < 0.9:
            keys: list[Any] = sorted(content) if isinstance(content, dict) else list(range(len(content)))
            key = self.random.choice(keys)
            copy: Any = dict(content) if isinstance(content, dict) else list(content)
            kind = self.random.randrange(8)
            if kind == 0:
                del copy[key]
            elif kind == 1 and isinstance(copy, list):
                copy.append(copy[key])
            elif kind == 1:
                copy[self.random.choice(self._texts)] = copy[key]
            else:
                copy[key] = self.value(content[key])
            return copy
        if isinstance(content, str) and content and self.random.random() < 0.4:
            return self.text(content)
        return self.random.choice([*_VALUES, *self._texts])

    def _operations(self) -> list[Callable[[bytes, Sequence[bytes]], bytes]]:
        return [self._flip, self._flip, self._fill, self._cut, self._truncate, self._repeat, self._insert, self._splice]

    def _place(self, data: bytes, most: int = 64) -> tuple[int, int]:
        begin = self.random.randint(0, len(data))
        return begin, min(len(data), begin + self.random.randint(1, most))

    def _flip(self, data: bytes, _: Sequence[bytes]) -> bytes:
        begin, _end = self._place(data)
        if begin == len(data):
            return data
        return data[:begin] + bytes([data[begin] ^ 1 << self.random.randrange(8)]) + data[begin + 1 :]

    def _fill(self, data: bytes, _: Sequence[bytes]) -> bytes:
        begin, end = self._place(data, 16)
        return (
            data[:begin]
            + bytes([self.random.choice([0, 0x20, 0x2D, 0x30, 0x7F, 0x80, 0xFF])]) * (end - begin)
            + data[end:]
        )

    def _cut(self, data: bytes, _: Sequence[bytes]) -> bytes:
        begin, end = self._place(data)
        return data[:begin] + data[end:]

    def _truncate(self, data: bytes, _: Sequence[bytes]) -> bytes:
        return data[: self.random.randint(0, len(data))]

    def _repeat(self, data: bytes, _: Sequence[bytes]) -> bytes:
        begin, end = self._place(data, 1024)
        return data[:end] + data[begin:]

    def _insert(self, data: bytes, _: Sequence[bytes]) -> bytes:
        begin, _end = self._place(data)
        return data[:begin] + self.random.choice(self._texts).encode(errors="surrogatepass") + data[begin:]

    def _splice(self, data: bytes, others: Sequence[bytes]) -> bytes:
        other = self.random.choice(others) if others else data
        begin, end = self._place(other, 1024)
        place, _end = self._place(data)
        return data[:place] + other[begin:end] + data[place:]
