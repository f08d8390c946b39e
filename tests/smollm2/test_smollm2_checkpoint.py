"""SmolLM2's checkpoint says what its GGUF file says, by independent readers of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tokenizers
from numpy_llama import Llama, log_softmax, read_safetensors
from smollm2_model import ANSWER, CHECKPOINT, LLAMA_CPP_TOKENS, QUESTION, SYSTEM_MESSAGE, TEXT
from transformers import AutoConfig, AutoTokenizer

PROMPT = (
    f"<|im_start|>system\n{SYSTEM_MESSAGE}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def tokenizer() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))


@pytest.mark.parametrize(("text", "tokens"), LLAMA_CPP_TOKENS.items(), ids=lambda value: ascii(value)[:20])
def test_tokens_are_those_of_llama_cpp(tokenizer: tokenizers.Tokenizer, text: str, tokens: list[int]) -> None:
    assert tokenizer.encode(text).ids == tokens
    assert tokenizer.decode(tokens, skip_special_tokens=False) == text


def test_transformers_reads_the_tokenizer_and_applies_the_template(tokenizer: tokenizers.Tokenizer) -> None:
    automatic = AutoTokenizer.from_pretrained(CHECKPOINT)
    for text, tokens in LLAMA_CPP_TOKENS.items():
        assert automatic.encode(text) == tokens
    messages = [{"role": "user", "content": QUESTION}]
    assert automatic.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == PROMPT
    assert automatic.eos_token == "<|im_end|>" and automatic.bos_token == "<|im_start|>"


def test_transformers_reads_the_configuration() -> None:
    config: Any = AutoConfig.from_pretrained(CHECKPOINT)
    found = {
        "heads": (config.num_attention_heads, config.num_key_value_heads, config.head_dim),
        "layers": config.num_hidden_layers,
        "sizes": (config.vocab_size, config.hidden_size, config.intermediate_size, config.max_position_embeddings),
        "theta": config.to_dict()["rope_parameters"]["rope_theta"],
        "epsilon": config.rms_norm_eps,
        "tied": config.tie_word_embeddings,
        "stop": config.eos_token_id,
    }
    assert found == {
        "heads": (9, 3, 64),
        "layers": 30,
        "sizes": (49152, 576, 1536, 8192),
        "theta": 100000.0,
        "epsilon": 1e-5,
        "tied": True,
        "stop": 2,
    }


def test_weights() -> None:
    weights = read_safetensors(CHECKPOINT / "model.safetensors")
    assert len(weights) == 2 + 9 * 30
    assert sum(weight.size for weight in weights.values()) == 134_515_008


@pytest.fixture(scope="module")
def reference() -> Llama:
    return Llama(CHECKPOINT)


def perplexity(model: Llama, tokens: list[int]) -> float:
    scores = log_softmax(model.logits(tokens[:-1]))
    return float(np.exp(-scores[np.arange(len(tokens) - 1), tokens[1:]].mean()))


def test_the_reference_answers(reference: Llama, tokenizer: tokenizers.Tokenizer) -> None:
    prompt, answer = tokenizer.encode(PROMPT).ids, tokenizer.encode(ANSWER + "<|im_end|>").ids
    best = reference.logits([*prompt, *answer]).argmax(axis=-1)
    assert best[len(prompt) - 1 : -1].tolist() == answer


def test_perplexity(reference: Llama, tokenizer: tokenizers.Tokenizer) -> None:
    assert perplexity(reference, tokenizer.encode(TEXT).ids[:201]) == pytest.approx(PERPLEXITY, rel=1e-4)


PERPLEXITY = 30.11475
"""Of the first 200 tokens of TEXT. Rows of Q and K in GGUF's order would make it five times as large."""


def test_rows_in_the_order_of_the_file_give_another_model(
    reference: Llama, tokenizer: tokenizers.Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(30):
        for letter, heads in ("q", 9), ("k", 3):
            name = f"model.layers.{index}.self_attn.{letter}_proj.weight"
            weight = reference.weights[name].reshape(heads, 2, 32, 576).swapaxes(1, 2).reshape(-1, 576)
            monkeypatch.setitem(reference.weights, name, weight)
    assert perplexity(reference, tokenizer.encode(TEXT).ids[:201]) > 4 * PERPLEXITY
