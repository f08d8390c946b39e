"""Paths of //models/smollm2, and texts for its tests."""

from __future__ import annotations

import os
from pathlib import Path


def place(variable: str) -> Path:
    """A file or folder that Bazel names in a variable, relative to the runfiles, where tests run."""
    return Path(os.environ[variable]).absolute()


CHECKPOINT = place("MLC_SMOLLM2_CHECKPOINT")

SYSTEM_MESSAGE = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What the model's chat template starts with if a conversation has no system message."""

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."

TEXT = """\
The lighthouse keeper's day began before sunrise. He climbed the narrow stairs, trimmed the lamp, and wrote the
weather into a book that his grandfather had started in 1871. Most entries were short: wind from the west, light rain,
three ships passed. But on some pages there were longer stories, about storms that lasted a week and sailors who were
pulled from the water. In the evening he read them aloud to his daughter, who wanted to know what had happened to each
of the sailors afterwards. He did not always know the answer, so he invented one. Years later, when she became a
historian, she went to the archives of the town and found that nearly all of his inventions were true. One of the men
had opened a bakery; another had married the doctor's sister and moved to Canada. She wrote a book about it, and the
first sentence was the one that her father had told her every night before she fell asleep: the sea gives nothing back,
but sometimes it forgets to take.
"""
"""Plain prose of more than 200 tokens, written for this test."""

_LLAMA_CPP_TOKENS = {
    "Hello, world!": ("19556 28 905 17"),
    "  two  spaces\tand\n\n\nlines  \n": ("216 827 216 5600 197 397 1116 198 5110 32057"),
    "naïve café 日本語 한국어 русский العربية": (
        "3546 46494 37366 17097 241 115 40993 179 120 248 216 33085 246 181 130 251 183 240 129 216 9175 14714 "
        "9382 39511 7872 24958 27819 34966 20602 31462 23339 43463"
    ),
    "\U0001f642\U0001f469\u200d\U0001f469\u200d\U0001f467 e\u0301 \xbd \xb2 \u2163 \u0be7": (
        "10813 38887 10813 235 119 321 231 10813 235 119 321 231 10813 235 117 297 151 219 216 16738 216 19133 "
        "216 173 223 113 216 33535 117"
    ),
    "def f(x):\n    return {'a': [1, 22, 333]}  # it's we'll I'M\n": (
        "1604 275 24 104 727 472 1003 7353 81 1539 933 33 28 216 34 34 28 216 35 35 35 28852 216 907 357 506 392 "
        "3060 339 23 61 198"
    ),
    "3.14159 1,000,000 2026-11-29": (
        "35 30 33 36 33 37 41 216 33 28 32 32 32 28 32 32 32 216 34 32 34 38 29 33 33 29 34 41"
    ),
    "<|im_start|>user\nHi<|im_end|>\n<|endoftext|>": ("1 4093 198 26843 2 198 0"),
    "don't DON'T l'été O'Neil's": ("12420 982 422 2154 23 68 303 23 19380 2756 492 23 47917 506"),
    "\xa0\u200b\u3000x\u2028y\r\n\r\nz": ("15442 321 229 12109 218 104 321 118 105 7209 198 106"),
    "": (""),
    "x": ("104"),
    "                                        ": ("12427 353"),
    "MixedCASE_snake_case-kebab/path\\back\x00nul": (
        "61 13609 51 13108 79 48284 79 7544 29 396 82 369 31 1537 76 2676 190 94 336"
    ),
    "<repo_name> <|im_start|": ("3 2067 108 306 79 3738 108"),
}

LLAMA_CPP_TOKENS = {text: [int(token) for token in tokens.split()] for text, tokens in _LLAMA_CPP_TOKENS.items()}
"""Tokens that llama.cpp gives each text with the same GGUF file: POST /tokenize with add_special and parse_special, of
the server in the PyPI wheel xllamacpp 2026.10.11549.
"""
