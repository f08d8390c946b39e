"""mlc_llm's tokenizers agree with Python's `tokenizers` and `sentencepiece`, and stream whole characters."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
import tiny_model_files
import tokenizers
from mlc_llm.tokenizers import StopStrHandler, TextStreamer, Tokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

import tvm

SPECIAL = ["<|user|>", "<|end|>"]

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and then it runs away.",
    "naïve café, déjà vu; Übermut tut selten gut",
    "日本語のテキスト、中文字符，한국어 문장",
    "def answer(question):\n    return 42\n\n\n",
    "emoji 🙂🙃 and 👩‍👩‍👧‍👦",
] * 8

TEXTS = {
    "empty": "",
    "one space": " ",
    "words": "The lazy fox runs over the dog.",
    "runs of white space": "  two   spaces \t tab\n\n\n lines \r\n end  ",
    "other white space": "no\u00a0break, ideographic\u3000space, zero\u200bwidth, line\u2028separator",
    "emoji": "🙂🙃🙂 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
    "combining marks": "e\u0301 is not é, a\u0308\u0301\u0323 has three",
    "CJK": "日本語と中文と한국어、未知の字：龘",
    "right to left": "العربية ועברית together",
    "outside the corpus": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 ꙮ ß ǆ",
    "special tokens": "<|user|>hello<|end|><|user|>",
    "nearly special": "<|user |> <|us <||end|>",
    "control characters": "\x00\x01\x1f\x7f\x85",
    "not characters": "\ufffd \ufeff \uffff",
    "digits": "3.14159 1,000,000 2026-11-24",
    "code": "if (a[0] != b->c) { return ~x & 0xff; }",
    "one long word": "x" * 3000,
    "long": "The quick brown fox, 🙂 and 日本語. " * 300,
}


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tokenizers.Tokenizer]:
    """A byte-level BPE like GPT-2's and Llama 3's, and its folder."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    folder = tmp_path_factory.mktemp("byte_level")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder, tokenizer


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def pieces(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, sentencepiece.SentencePieceProcessor]:
    """sentencepiece's two models with byte fallback, like Llama 2's and T5's, and the folder."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type=request.param,
        vocab_size=380,
        byte_fallback=True,
        character_coverage=0.99,
        user_defined_symbols=SPECIAL,
        num_threads=1,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return folder, sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.fixture(scope="module")
def tiny() -> Tokenizer:
    """The built model's tokenizer: tokenizer.json, byte fallback, a space before the text."""
    return Tokenizer(str(tiny_model_files.WEIGHTS))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_byte_level_bpe_agrees_with_pythons_tokenizers(
    byte_level: tuple[Path, tokenizers.Tokenizer], text: str
) -> None:
    folder, python = byte_level
    ours = Tokenizer(str(folder))
    expected = python.encode(text, add_special_tokens=False).ids
    assert ours.encode(text) == expected
    assert ours.decode(expected) == python.decode(expected, skip_special_tokens=False) == text


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_sentencepiece_agrees_with_pythons(
    pieces: tuple[Path, sentencepiece.SentencePieceProcessor], text: str
) -> None:
    folder, python = pieces
    ours = Tokenizer(str(folder))
    expected = python.encode(text)
    assert ours.encode(text) == expected
    assert ours.decode(expected) == python.decode(expected)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_tiny_models_tokenizer_agrees_with_pythons_tokenizers(tiny: Tokenizer, text: str) -> None:
    python = tokenizers.Tokenizer.from_file(str(tiny_model_files.WEIGHTS / "tokenizer.json"))
    expected = python.encode(text, add_special_tokens=False).ids
    assert tiny.encode(text) == expected
    assert tiny.decode(expected) == python.decode(expected, skip_special_tokens=False)


def test_a_batch_equals_its_texts_one_by_one(byte_level: tuple[Path, tokenizers.Tokenizer]) -> None:
    ours = Tokenizer(str(byte_level[0]))
    assert [list(ids) for ids in ours.encode_batch(list(TEXTS.values()))] == [
        ours.encode(text) for text in TEXTS.values()
    ]
    assert ours.encode_batch([]) == []


def test_many_threads_may_encode_with_one_tokenizer(byte_level: tuple[Path, tokenizers.Tokenizer]) -> None:
    ours = Tokenizer(str(byte_level[0]))
    expected = ours.encode(TEXTS["long"])
    results: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: results.extend(ours.encode(TEXTS["long"]) for _ in range(5))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 20


@pytest.mark.parametrize(
    ("normalizer", "decoder", "expected"),
    [
        (None, {"type": "ByteLevel"}, ("byte_level", False, False)),
        (
            None,
            {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteLevel"}]},
            ("byte_level", False, False),
        ),
        (
            None,
            {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
            ("byte_fallback", False, False),
        ),
        ({"type": "Prepend", "prepend": "\u2581"}, {"type": "ByteFallback"}, ("byte_fallback", True, False)),
        ({"type": "Prepend", "prepend": "_"}, {"type": "ByteFallback"}, ("byte_fallback", False, False)),
        ({"type": "Sequence", "normalizers": [{"type": "NFC"}]}, {"type": "ByteLevel"}, ("byte_level", False, False)),
        (None, {"type": "Strip", "content": " ", "start": 1, "stop": 0}, ("byte_fallback", False, True)),
        (None, {"type": "Strip", "content": " ", "start": 0, "stop": 1}, ("byte_fallback", False, False)),
        (None, None, ("byte_fallback", False, False)),
    ],
)
def test_properties_of_a_tokenizer_are_detected(
    normalizer: dict | None, decoder: dict | None, expected: tuple[str, bool, bool], tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"normalizer": normalizer, "decoder": decoder}))
    info = Tokenizer.detect_tokenizer_info(str(tmp_path))
    assert (info.token_postproc_method, info.prepend_space_in_encode, info.strip_space_in_decode) == expected
    assert type(info).from_json(info.asjson()) == info


def test_without_a_tokenizer_json_the_defaults_apply(
    pieces: tuple[Path, sentencepiece.SentencePieceProcessor],
) -> None:
    """Upstream does not read tokenizer.model, so every part of a prompt gets a leading space, not only the first."""
    info = Tokenizer.detect_tokenizer_info(str(pieces[0]))
    assert (info.token_postproc_method, info.prepend_space_in_encode, info.strip_space_in_decode) == (
        "byte_fallback",
        False,
        False,
    )


def test_the_tiny_models_configuration_has_its_detected_properties() -> None:
    config = json.loads((tiny_model_files.WEIGHTS / "mlc-chat-config.json").read_text())
    info = Tokenizer.detect_tokenizer_info(str(tiny_model_files.WEIGHTS))
    assert config["tokenizer_info"] == json.loads(info.asjson())


def whole(text: str) -> bool:
    """Whether a text has only whole characters: neither U+FFFD nor anything invalid in UTF-8."""
    return "\ufffd" not in text and text.encode("utf-8", "strict").decode("utf-8") == text


STREAMED = {name: text for name, text in TEXTS.items() if "\ufffd" not in text and len(text) < 1000}


@pytest.fixture(params=["byte level", "byte fallback"])
def streaming(
    request: pytest.FixtureRequest, byte_level: tuple[Path, tokenizers.Tokenizer], tiny: Tokenizer
) -> Tokenizer:
    return Tokenizer(str(byte_level[0])) if request.param == "byte level" else tiny


@pytest.mark.parametrize("text", STREAMED.values(), ids=STREAMED)
def test_a_stream_has_whole_characters_and_adds_up_to_the_text(streaming: Tokenizer, text: str) -> None:
    """The tiny model has a token per byte for most of these, as every model has for rare text."""
    ids = streaming.encode(text)
    streamer = TextStreamer(streaming)
    parts = [streamer.put([token]) for token in ids] + [streamer.finish()]
    assert all(whole(part) for part in parts)
    assert "".join(parts) == streaming.decode(ids)


def test_a_character_comes_with_its_last_token(tiny: Tokenizer) -> None:
    ids = tiny.encode("🙂")[-4:]
    streamer = TextStreamer(tiny)
    assert [streamer.put([token]) for token in ids] == ["", "", "", "🙂"]
    assert streamer.finish() == ""


def test_tokens_may_come_in_any_pieces(streaming: Tokenizer) -> None:
    ids = streaming.encode(TEXTS["emoji"])
    for step in (2, 3, 7, len(ids)):
        streamer = TextStreamer(streaming)
        parts = [streamer.put(ids[start : start + step]) for start in range(0, len(ids), step)]
        assert "".join(parts) + streamer.finish() == streaming.decode(ids)


def test_half_a_character_at_the_end_becomes_the_replacement_character(tiny: Tokenizer) -> None:
    streamer = TextStreamer(tiny)
    parts = [streamer.put([token]) for token in tiny.encode("a🙂")[:-1]]
    assert "".join(parts) == "a" and set(streamer.finish()) == {"\ufffd"}


def test_a_finished_stream_takes_no_more(tiny: Tokenizer) -> None:
    streamer = TextStreamer(tiny)
    streamer.finish()
    with pytest.raises(tvm.error.InternalError, match="not expected to be invoked after finish"):
        streamer.put(tiny.encode("more"))


def until_stopped(tokenizer: Tokenizer, stops: list[str], text: str) -> tuple[str, bool]:
    """The text before a stop string, and whether there was one."""
    handler = StopStrHandler(stops, tokenizer)
    out: list[int] = []
    for token in tokenizer.encode(text):
        out += handler.put(token)
        if handler.stop_triggered:
            return tokenizer.decode(out), True
    return tokenizer.decode(out + handler.finish()), False


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        ([], "nothing stops this", ("nothing stops this", False)),
        (["###"], "before ### after", ("before ", True)),
        (["###"], "only ## and # here", ("only ## and # here", False)),
        (["aab"], "a a aaab", ("a a a", True)),
        (["zz", "###"], "one ### two zz", ("one ", True)),
        (["🙂"], "smile 🙂 now", ("smile ", True)),
        (["🙂"], "smile 🙃 now", ("smile 🙃 now", False)),
        (["日本"], "東京、日本", ("東京、", True)),
    ],
)
def test_a_stop_string_ends_the_text_before_it(
    stops: list[str], text: str, expected: tuple[str, bool], tiny: Tokenizer
) -> None:
    """Also if it starts inside a character's tokens, or after a prefix of itself."""
    assert until_stopped(tiny, stops, text) == expected


def test_no_part_of_a_stop_string_comes_out_early(tiny: Tokenizer) -> None:
    handler = StopStrHandler(["<stop>"], tiny)
    out: list[int] = []
    for token in tiny.encode("go <sto"):
        out += handler.put(token)
    assert tiny.decode(out) == "go "
    assert not handler.stop_triggered
    assert tiny.decode(out + handler.finish()) == "go <sto"


def test_an_empty_stop_string_is_refused(tiny: Tokenizer) -> None:
    with pytest.raises(tvm.error.InternalError, match="Stop string cannot be empty"):
        StopStrHandler([""], tiny)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "absent", "Cannot find tokenizer via path: .*/absent"),
        (lambda folder: folder, "Cannot find any tokenizer under: "),
    ],
    ids=["no folder", "no tokenizer in it"],
)
def test_a_missing_tokenizer_is_an_error_that_names_the_path(
    make: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    with pytest.raises(tvm.error.InternalError, match=message):
        Tokenizer(str(make(tmp_path)))


def test_a_truncated_tokenizer_json_is_an_error(tmp_path: Path) -> None:
    """It names the position in the file, but not the file."""
    whole_file = (tiny_model_files.WEIGHTS / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(whole_file[:1000])
    with pytest.raises(tvm.error.InternalError, match=r"Failed to parse JSON: .* \(char 1000\)"):
        Tokenizer(str(tmp_path))


def test_json_without_a_tokenizer_ends_the_process(tmp_path: Path) -> None:
    """It should be an exception that names the file, but upstream's Rust code unwraps the parser's error, and a panic
    cannot cross into C++.
    """
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    no_core_file = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
    program = f"{no_core_file}; from mlc_llm.tokenizers import Tokenizer; Tokenizer({str(tmp_path)!r})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=tiny_model_files.child_environment(tmp_path),
    )
    assert done.returncode == -signal.SIGABRT
    assert "called `Result::unwrap()` on an `Err` value" in done.stderr


@pytest.mark.parametrize("token", [-1, 10**6])
def test_an_unknown_token_decodes_to_nothing(tiny: Tokenizer, token: int) -> None:
    """Upstream reports no error, and neither do Python's tokenizers."""
    assert tiny.decode([token]) == ""


def test_a_wrong_argument_is_a_type_error(tiny: Tokenizer) -> None:
    for wrong in (5, None, b"bytes"):
        with pytest.raises(TypeError, match="Expected `str`"):
            tiny.encode(wrong)
