"""What config.json of real models contains, as transformers 4 and as transformers 5 write it."""

from __future__ import annotations

from typing import Any

COMMON: dict[str, Any] = {"attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True, "vocab_size": 32000}
FOUR = {"torch_dtype": "bfloat16", "transformers_version": "4.45.0"}
FIVE = {"dtype": "bfloat16", "transformers_version": "5.24.0"}

LLAMA_3 = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


def shape(**others: Any) -> dict[str, Any]:
    """The sizes of a small model, and other keys."""
    sizes = {
        "head_dim": 16,
        "hidden_size": 64,
        "intermediate_size": 128,
        "max_position_embeddings": 4096,
        "num_attention_heads": 4,
        "num_hidden_layers": 6,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
    }
    return {**COMMON, **sizes, **others}


LONG = {"long_factor": [2.0] * 8, "short_factor": [1.0] * 8}

LLAMA = shape(
    architectures=["LlamaForCausalLM"],
    attention_bias=False,
    bos_token_id=128000,
    eos_token_id=[128001, 128008],
    hidden_act="silu",
    mlp_bias=False,
    model_type="llama",
    pretraining_tp=1,
    tie_word_embeddings=True,
)
QWEN_2 = shape(
    hidden_act="silu", max_window_layers=21, model_type="qwen2", tie_word_embeddings=True, use_sliding_window=False
)
QWEN_3 = shape(
    attention_bias=False,
    hidden_act="silu",
    max_window_layers=6,
    model_type="qwen3",
    tie_word_embeddings=True,
    use_sliding_window=False,
)
QWEN_3_MOE = QWEN_3 | {
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
    "num_experts_per_tok": 2,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "tie_word_embeddings": False,
}
MISTRAL = shape(hidden_act="silu", model_type="mistral", tie_word_embeddings=False)
PHI_3 = shape(
    embd_pdrop=0.0,
    hidden_act="silu",
    max_position_embeddings=131072,
    model_type="phi3",
    num_key_value_heads=4,
    original_max_position_embeddings=4096,
    resid_pdrop=0.0,
    sliding_window=262144,
    tie_word_embeddings=False,
)
GEMMA_3 = shape(
    attention_bias=False,
    attn_logit_softcapping=None,
    final_logit_softcapping=None,
    hidden_activation="gelu_pytorch_tanh",
    model_type="gemma3_text",
    query_pre_attn_scalar=16,
    sliding_window=512,
)
GPT_NEOX = {
    key: value for key, value in shape().items() if key not in ("head_dim", "num_key_value_heads", "rms_norm_eps")
} | {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "model_type": "gpt_neox",
    "tie_word_embeddings": False,
    "use_parallel_residual": True,
}
FULL = ["full_attention"] * 6


def rope(theta: float, **others: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": theta, "rope_type": "default", **others}}


SPELLINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gemma3": (
        {
            **GEMMA_3,
            **FOUR,
            "rope_local_base_freq": 10000,
            "rope_scaling": None,
            "rope_theta": 1000000,
            "sliding_window_pattern": 6,
        },
        {
            **GEMMA_3,
            **FIVE,
            "_sliding_window_pattern": 6,
            "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
            "rope_parameters": {
                "full_attention": {"rope_theta": 1000000, "rope_type": "default"},
                "sliding_attention": {"rope_theta": 10000, "rope_type": "default"},
            },
            "use_bidirectional_attention": False,
        },
    ),
    "gemma3 with linear scaling": (
        {
            **GEMMA_3,
            **FOUR,
            "rope_local_base_freq": 10000,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "rope_theta": 1000000,
            "sliding_window_pattern": 6,
        },
        {
            **GEMMA_3,
            **FIVE,
            "_sliding_window_pattern": 6,
            "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
            "rope_parameters": {
                "full_attention": {"factor": 8.0, "rope_theta": 1000000, "rope_type": "linear"},
                "sliding_attention": {"rope_theta": 10000, "rope_type": "default"},
            },
        },
    ),
    "gpt_neox": (
        {**GPT_NEOX, **FOUR, "rotary_emb_base": 20000, "rotary_pct": 0.25},
        {**GPT_NEOX, **FIVE, "attention_bias": True, **rope(20000, partial_rotary_factor=0.25)},
    ),
    "llama": (
        {**LLAMA, **FOUR, "rope_scaling": LLAMA_3, "rope_theta": 500000.0},
        {**LLAMA, **FIVE, "rope_parameters": {**LLAMA_3, "rope_theta": 500000.0}},
    ),
    "mistral": (
        {**MISTRAL, **FOUR, "rope_theta": 1000000.0, "sliding_window": None},
        {**MISTRAL, **FIVE, **rope(1000000.0), "sliding_window": None},
    ),
    "mistral with a window": (
        {**MISTRAL, **FOUR, "rope_theta": 10000.0, "sliding_window": 1024},
        {**MISTRAL, **FIVE, **rope(10000.0), "layer_types": ["sliding_attention"] * 6, "sliding_window": 1024},
    ),
    "phi3": (
        {**PHI_3, **FOUR, "rope_scaling": {**LONG, "type": "longrope"}, "rope_theta": 10000.0},
        {
            **PHI_3,
            **FIVE,
            "rope_parameters": {
                **LONG,
                "original_max_position_embeddings": 4096,
                "partial_rotary_factor": 1.0,
                "rope_theta": 10000.0,
                "rope_type": "longrope",
            },
        },
    ),
    "qwen2": (
        {**QWEN_2, **FOUR, "rope_theta": 1000000.0, "sliding_window": 32768},
        {**QWEN_2, **FIVE, **rope(1000000.0), "layer_types": FULL, "sliding_window": None},
    ),
    "qwen3": (
        {**QWEN_3, **FOUR, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None},
        {**QWEN_3, **FIVE, **rope(1000000), "layer_types": FULL, "sliding_window": None},
    ),
    "qwen3_moe": (
        {**QWEN_3_MOE, **FOUR, "num_experts": 8, "rope_theta": 1000000.0},
        {**QWEN_3_MOE, **FIVE, **rope(1000000.0), "num_local_experts": 8},
    ),
}
"""Maps a name to the configuration of one model in both spellings."""

REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "a bias": ("llama", {"attention_bias": True}),
    "a bias of the MLP": ("llama", {"mlp_bias": True}),
    "an activation": ("mistral", {"hidden_act": "gelu"}),
    "an unknown key": ("llama", {"residual_scale": 0.5}),
    "another local base": ("gemma3", {"rope_local_base_freq": 20000}),
    "another pattern of layers": ("gemma3", {"layer_types": ["sliding_attention", "full_attention"] * 3}),
    "another sliding pattern": ("gemma3", {"sliding_window_pattern": 4}),
    "bidirectional attention": ("gemma3", {"use_bidirectional_attention": True}),
    "dense layers among experts": ("qwen3_moe", {"mlp_only_layers": [0]}),
    "interleaved rotation": ("llama", {"rope_interleaved": True}),
    "layers with windows": ("llama", {"layer_types": ["sliding_attention"] * 6}),
    "linear scaling": ("qwen2", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "YaRN of Gemma 3": ("gemma3", {"rope_scaling": {"rope_type": "yarn", "factor": 8.0}}),
    "linear scaling in the old spelling": ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
    "partial rotation": ("qwen3", {"partial_rotary_factor": 0.5}),
    "quantized weights": ("llama", {"quantization_config": {"quant_method": "gptq"}}),
    "scaled embeddings": ("llama", {"embedding_multiplier": 12.0}),
    "scaled logits": ("llama", {"logits_scaling": 8.0}),
    "soft-capped attention": ("gemma3", {"attn_logit_softcapping": 50.0}),
    "soft-capped logits": ("qwen2", {"final_logit_softcapping": 30.0}),
    "YaRN": ("qwen3", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
}
"""Maps what would change the result to the model of SPELLINGS and the keys that mean it."""
