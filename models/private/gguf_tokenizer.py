"""Turns the tokenizer in a GGUF file into the files of Hugging Face's libraries."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from models.private.gguf_file import GgufError, GgufFile

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of tokens (tokenizer.ggml.token_type)."""

_TYPES = range(NORMAL, BYTE + 1)

WITHOUT_EFFECT = {
    # Each tokenizer has either merges or scores, and sentencepiece's splits texts in one way.
    "tokenizer.ggml.merges",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.scores",
    # For other tasks than answers.
    *(f"tokenizer.ggml.{name}_token_id" for name in ("cls", "mask", "middle", "prefix", "seperator", "suffix")),
    *(f"tokenizer.ggml.fim_{name}_token_id" for name in ("mid", "pad", "pre", "rep", "sep", "suf")),
    # The names of the templates, each of which has its own key, and the same tokenizer in another form.
    "tokenizer.chat_templates",
    "tokenizer.huggingface.json",
}
"""Keys that do not change answers, or repeat others."""

_OFF = ("add_sep_token", "normalizer.lowercase", "remove_extra_whitespaces")
"""Keys of tokenizers (tokenizer.ggml) that change texts if they are True."""

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

Json = dict[str, Any]


def _byte_level(use_regex: bool) -> Json:
    """Bytes as printable characters, after GPT-2's split into words if `use_regex`."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split(pattern: str) -> Json:
    """A split into the matches of a pattern, which are the words."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


@dataclasses.dataclass(frozen=True)
class _PreTokenizer:
    """What a value of tokenizer.ggml.pre means."""

    steps: tuple[Json, ...]
    normalizer: Json | None = None
    ignore_merges: bool = False
    """Whether a word that is a token is that token, even if no merges lead to it."""
    add_bos: bool = False


_PRE_TOKENIZERS = {
    "gpt-2": _PreTokenizer((_byte_level(True),)),
    "llama-bpe": _PreTokenizer(
        (_split(_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _SPACES), _byte_level(False)),
        ignore_merges=True,
        add_bos=True,
    ),
    "qwen2": _PreTokenizer(
        (_split(_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _SPACES), _byte_level(False)),
        normalizer={"type": "NFC"},
    ),
    "smollm": _PreTokenizer(({"type": "Digits", "individual_digits": True}, _byte_level(True))),
}
"""The pre-tokenizers of Llama-like and Qwen-like models, as in the tokenizer.json of the models themselves."""


_ROLES = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
"""Roles of tokens in Hugging Face's files, and GGUF's names for them."""


class _Tokens:
    """The vocabulary: what each number stands for."""

    def __init__(self, file: GgufFile, size: int) -> None:
        self.texts = file.items("tokenizer.ggml.tokens", str)
        self.types = file.items("tokenizer.ggml.token_type", int)
        if len(self.types) != len(self.texts):
            raise GgufError(
                f"tokenizer.ggml.token_type: expected {len(self.texts)} types like tokens, found {len(self.types)}"
            )
        unknown = next((kind for kind in self.types if kind not in _TYPES), None)
        if unknown is not None:
            raise GgufError(f"tokenizer.ggml.token_type: expected types from {NORMAL} to {BYTE}, found {unknown}")
        if len(self.texts) != size:
            raise GgufError(f"tokenizer.ggml.tokens: expected {size} as the embedding has, found {len(self.texts)}")
        # Added to the size of the matrix, as [PAD151665] and so on. The vocabulary has no gap without them.
        while self.types and self.types[-1] == UNUSED:
            self.types.pop()
            self.texts.pop()
        self.numbers = {text: number for number, text in enumerate(self.texts)}
        if len(self.numbers) < len(self.texts):
            twice = next(text for number, text in enumerate(self.texts) if self.numbers[text] != number)
            raise GgufError(f"tokenizer.ggml.tokens: expected different tokens, found {ascii(twice)[:60]} twice")

    def of_types(self, kinds: Collection[int]) -> dict[str, int]:
        """The numbers of tokens by text, in order."""
        return {text: number for text, number in self.numbers.items() if self.types[number] in kinds}

    def added(self, special: Collection[int]) -> list[Json]:
        """The tokens that are found in a text before anything else."""
        return [
            {
                "id": number,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": self.types[number] in special,
            }
            for text, number in self.of_types({*special, USER_DEFINED}).items()
        ]

    def named(self, file: GgufFile, name: str) -> int | None:
        """The number of the token with a role, such as eos, if the file has one."""
        key = f"tokenizer.ggml.{name}_token_id"
        return self._checked(key, file.get(key, int)) if file.has(key) else None

    def ends(self, file: GgufFile) -> list[int]:
        """The numbers of the tokens that end an answer: the end of a text, of a turn, of a message, and others."""
        named = [self.named(file, name) for name in ("eos", "eot", "eom")]
        key = "tokenizer.ggml.eog_token_ids"
        others = [self._checked(key, number) for number in file.items(key, int)] if file.has(key) else []
        return list(dict.fromkeys(number for number in [*named, *others] if number is not None))

    def _checked(self, key: str, number: int) -> int:
        if not 0 <= number < len(self.texts):
            raise GgufError(f"{key}: expected one of {len(self.texts)} tokens, found {number}")
        return number


def _byte_level_bpe(file: GgufFile, tokens: _Tokens, pre: _PreTokenizer) -> Json:
    """tokenizer.json of a tokenizer like GPT-2's."""
    merges = file.items("tokenizer.ggml.merges", str)
    for merge in merges:
        parts = merge.split(" ")
        if len(parts) != 2 or not {*parts, "".join(parts)} <= tokens.numbers.keys():
            raise GgufError(f"tokenizer.ggml.merges: expected two tokens that make a third, found {ascii(merge)[:60]}")
    first, *others = pre.steps
    return {
        "added_tokens": tokens.added({UNKNOWN, CONTROL}),
        "normalizer": pre.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [first, *others]} if others else first,
        "decoder": _byte_level(True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre.ignore_merges,
            "vocab": tokens.numbers,
            "merges": merges,
        },
    }


def _merges(vocabulary: dict[str, int], scores: list[float]) -> list[str]:
    """The merges of a sentencepiece model: it has none, but joins the neighbors whose union has the best score."""
    found = []
    for piece, number in vocabulary.items():
        for end in range(1, len(piece)):
            left, right = vocabulary.get(piece[:end]), vocabulary.get(piece[end:])
            if left is not None and right is not None:
                found.append((-scores[number], number, left, right, f"{piece[:end]} {piece[end:]}"))
    return [merge for *_, merge in sorted(found)]


def _sentencepiece_bpe(file: GgufFile, tokens: _Tokens, add_space: bool) -> Json:
    """tokenizer.json of a tokenizer like Llama 2's."""
    scores = file.items("tokenizer.ggml.scores", float)
    unknown = tokens.named(file, "unknown")
    if len(scores) < len(tokens.texts) or unknown is None or len(tokens.of_types({BYTE})) != 256:
        raise GgufError(
            "tokenizer.ggml: expected a score per token, an unknown token and 256 bytes as a sentencepiece model with"
            f" byte fallback has, found {len(scores)} scores for {len(tokens.texts)} tokens, unknown token {unknown}"
            f" and {len(tokens.of_types({BYTE}))} bytes"
        )
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    prepend = {"type": "Prepend", "prepend": "\u2581"}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    return {
        "added_tokens": tokens.added({UNKNOWN, CONTROL}),
        "normalizer": {"type": "Sequence", "normalizers": [prepend, replace]} if add_space else replace,
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *(strip if add_space else []),
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": tokens.texts[unknown],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": tokens.numbers,
            "merges": _merges(tokens.of_types({NORMAL}), scores),
        },
    }


def _template(tokens: _Tokens, first: list[int], last: list[int]) -> Json | None:
    """What surrounds an encoded text."""
    if not first and not last:
        return None

    def special(number: int, type_id: int) -> Json:
        return {"SpecialToken": {"id": tokens.texts[number], "type_id": type_id}}

    def sequence(name: str, type_id: int) -> list[Json]:
        before, after = ([special(number, type_id) for number in numbers] for numbers in (first, last))
        return [*before, {"Sequence": {"id": name, "type_id": type_id}}, *after]

    return {
        "type": "TemplateProcessing",
        "single": sequence("A", 0),
        "pair": [*sequence("A", 0), *sequence("B", 1)],
        "special_tokens": {
            tokens.texts[number]: {
                "id": tokens.texts[number],
                "ids": [number],
                "tokens": [tokens.texts[number]],
            }
            for number in [*first, *last]
        },
    }


def _pre_tokenizer(file: GgufFile) -> _PreTokenizer:
    """The pre-tokenizer of a byte-level tokenizer."""
    name = file.get("tokenizer.ggml.pre", str)
    if name not in _PRE_TOKENIZERS:
        raise GgufError(
            f"tokenizer.ggml.pre: expected one of {', '.join(_PRE_TOKENIZERS)}, found {ascii(name)[:60]}; take the"
            " model in the format of Hugging Face's hub"
        )
    return _PRE_TOKENIZERS[name]


def _chat_templates(file: GgufFile) -> dict[str, str]:
    """The chat templates by name: the default one, and those for tools and the like."""
    key = "tokenizer.chat_template"
    keys = {"default": key} if file.has(key) else {}
    keys |= {name.removeprefix(f"{key}."): name for name in file.unused(f"{key}.")}
    return {name: file.get(key, str) for name, key in keys.items()}


def tokenizer_files(file: GgufFile, vocabulary: int, context: int) -> dict[str, Json]:
    """Returns tokenizer.json, tokenizer_config.json and generation_config.json.

    Args:
        file: the model.
        vocabulary: rows of its embedding.
        context: tokens of its context.

    Raises:
        GgufError: the tokenizer is unsupported or inconsistent.
    """
    tokens = _Tokens(file, vocabulary)
    for key in _OFF:
        if file.get(f"tokenizer.ggml.{key}", bool, False):
            raise GgufError(f"tokenizer.ggml.{key}: expected False, found True, which is unsupported")
    model = file.get("tokenizer.ggml.model", str)
    if model == "gpt2":
        pre = _pre_tokenizer(file)
        if file.get("tokenizer.ggml.add_space_prefix", bool, False):
            raise GgufError("tokenizer.ggml.add_space_prefix: expected False for a byte-level tokenizer, found True")
        tokenizer, add_bos = _byte_level_bpe(file, tokens, pre), pre.add_bos
    elif model == "llama":
        tokenizer = _sentencepiece_bpe(file, tokens, file.get("tokenizer.ggml.add_space_prefix", bool, True))
        add_bos = True
    else:
        raise GgufError(
            f"tokenizer.ggml.model: expected gpt2 or llama, found {ascii(model)[:60]}; take the model in the format of"
            " Hugging Face's hub"
        )
    adds = {
        "bos": file.get("tokenizer.ggml.add_bos_token", bool, add_bos),
        "eos": file.get("tokenizer.ggml.add_eos_token", bool, False),
    }
    roles = {role: tokens.named(file, name) for role, name in _ROLES.items()}
    around: dict[str, list[int]] = {"bos": [], "eos": []}
    for role, add in adds.items():
        number = roles[role]
        if add and number is None:
            raise GgufError(f"tokenizer.ggml.{role}_token_id: expected a token to add to texts, found none")
        if add and number is not None:
            around[role] = [number]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        **tokenizer,
        "post_processor": _template(tokens, around["bos"], around["eos"]),
    }
    config: Json = {
        # Loads tokenizer.json as it is; other classes build parts of it themselves.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"add_{role}_token": add for role, add in adds.items()},
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        **{f"{role}_token": tokens.texts[number] for role, number in roles.items() if number is not None},
    }
    templates = _chat_templates(file)
    if templates.keys() == {"default"}:
        config["chat_template"] = templates["default"]
    elif templates:
        config["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
    ends = tokens.ends(file)
    generation: Json = {
        "bos_token_id": roles["bos"],
        "eos_token_id": ends[0] if len(ends) == 1 else ends,
        "pad_token_id": roles["pad"],
    }
    return {
        "generation_config.json": {key: value for key, value in generation.items() if value not in (None, [])},
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": config,
    }
