"""What the measurements on a GPU conclude from times, and the model and inputs that they generate."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import comparison
import machine
import measure
import numpy as np
import pytest
import random_model
import tables
import timeline


def rates(**times: float) -> dict[str, Any]:
    """A part `rates` of two equal rounds with these seconds of a product or copy."""
    names = {name.replace("__", ", ").replace("_itself", " itself"): time for name, time in times.items()}
    return {
        "size": 1000,
        "bytes": 10**9,
        "errors": {"cublas": 1e-3, "cublaslt": "Cannot find global function x"},
        "rounds": [names, names],
    }


@pytest.mark.parametrize(("seconds", "verdict"), [(1.0, "yes"), (1.1, "yes"), (1.2, "no")])
def test_a_product_is_judged_by_the_fastest_that_is_not_ours(seconds: float, verdict: str) -> None:
    table = tables.gemm(rates(gemm__cublas=seconds, gemm__torch=1.0, gemm__cublas_itself=1.5))
    row = next(line for line in table.splitlines() if "cuBLAS through" in line)
    assert f"| {100 / seconds:.1f} ({100 / seconds:.1f}–{100 / seconds:.1f}) % | {verdict} |" in row
    assert "that of PyTorch" in table


def test_a_product_that_was_not_there_says_why() -> None:
    assert "not measured: Cannot find global function x" in tables.gemm(rates(gemm__cublas=1.0, gemm__torch=1.0))


def test_a_copy_counts_what_it_reads_and_what_it_writes() -> None:
    found = rates(copy__ours=1e-3, copy__cuda=1e-3)
    assert "2.00 (2.00–2.00) | 100.0 (100.0–100.0) % | yes" in tables.copies(found)
    assert tables.bandwidth({"rates": found}) == 2e12
    assert tables.bandwidth({}) is None


def test_no_worse_is_more_than_noise() -> None:
    same = [(1.02, 1.0), (0.99, 1.0)]
    assert tables.no_worse([(0.9, 1.0), (1.0, 1.0), (1.3, 1.0)], same) == "yes"
    assert tables.no_worse([(1.01, 1.0)], same) == "within noise"
    assert tables.no_worse([(1.03, 1.0)], same) == "no"


def test_decoding_is_judged_by_the_bytes_that_a_step_reads() -> None:
    one = {"prefill": {"tokens": 100, "seconds": 0.1}, "decode": {"tokens": 200, "seconds": 1.0}, "prompt_tokens": 100}
    many = one | {"decode": {"tokens": 1600, "seconds": 2.0}}
    long = {"prefill": {"tokens": 2000, "seconds": 0.1}, "prompt_tokens": 2000}
    ours, official = ({"1": one | {"text": text}, "8": many, "long": long} for text in ("abcd", "abxy"))
    part = {
        "quantization": "q0f16",
        "weight_bytes": 9 * 10**9,
        "token_bytes": 5 * 10**6,
        "products": 10**9,
        "first": [2.0, 3.0],
        "torch": {"1": 0.004, "8": 0.005},
        "rounds": [{"ours": ours, "official": official}],
    }
    text = tables.engine({"8b": part}, 4e12, 80e12)
    assert text.startswith("### Llama 3 8B's shape\n")
    assert "reads 10.00 GB: 9.00 GB of weights, and 200 tokens' keys and values" in text
    assert "at most 400 tokens/s, of which ours reaches 50.0 (50.0–50.0) %" in text
    assert "| decode, batch 1 | 200 (200–200) | 200 (200–200) | 1.00 (1.00–1.00) | 250 |" in text
    assert "| decode, batch 8 | 800 (800–800) | 800 (800–800) | 1.00 (1.00–1.00) | 1600 |" in text
    assert "| prefill, 2000 tokens | 20000 (20000–20000) |" in text
    assert "products are 50.0 (50.0–50.0) % of the measured rate" in text
    assert "first token after 2.5 (2.0–3.0) s" in text
    assert "the same for at least 50 % of their length" in text


def test_the_rate_of_products_is_that_of_the_fastest() -> None:
    found = rates(gemm__cublas=1.0, gemm__torch=0.5, gemm__cublas_itself=2.0)
    assert tables.matrix_rate({"rates": found}) == 2 * 1000**3 / 0.5
    assert tables.matrix_rate({}) is None


def _sums(gpus: int, size: int, **times: float) -> str:
    times = {name.replace("_", " "): time for name, time in times.items()}
    return tables.allreduce(
        {
            "gpus": gpus,
            "nccl": 22809,
            "sizes": [{"bytes": size, "errors": dict.fromkeys(times, 1e-4), "rounds": [times, times]}],
        }
    )


def test_an_all_reduce_is_judged_by_what_nccl_itself_takes() -> None:
    table = _sums(4, 2 * 10**9, threads=0.0105, processes=0.011, nccl_itself=0.01)
    assert (
        "| a session of threads | 10500.0 (10500.0–10500.0) | 286 (286–286) | 95.2 (95.2–95.2) % | yes | 1.0e-04 |"
        in table
    )
    assert (
        "| a session of processes | 11000.0 (11000.0–11000.0) | 273 (273–273) | 90.9 (90.9–90.9) % | no | 1.0e-04 |"
        in table
    )
    assert (
        "| NCCL itself, one process | 10000.0 (10000.0–10000.0) | 300 (300–300) | 100.0 (100.0–100.0) % |  | 1.0e-04 |"
        in table
    )
    assert "over 4 GPUs" in table and "NCCL 2.28.9" in table


def test_an_all_reduce_of_little_has_no_bandwidth_and_no_target() -> None:
    table = _sums(2, 4096, threads=3e-5, processes=4e-5, nccl_itself=2e-5)
    assert "sum of 4 KiB" in table and "bandwidth" not in table and "95 %" not in table
    assert "| a session of processes | 40.0 (40.0–40.0) | 50.0 (50.0–50.0) % | 1.0e-04 |" in table


def test_on_one_gpu_an_all_reduce_sends_nothing() -> None:
    table = _sums(1, 2**28, threads=0.02, processes=0.01, nccl_itself=0.01)
    assert "| yes |" not in table and "| no |" not in table
    assert "sum of 256 MiB of float16 over 1 GPU," in table and table.count("| nothing is sent |") == 3


def test_several_gpus_are_compared_with_one_in_the_same_round() -> None:
    def side(rate: float, text: str) -> dict[str, Any]:
        return {
            "prefill": {"tokens": 100, "seconds": 0.1},
            "decode": {"tokens": 200, "seconds": 200 / rate},
            "prompt_tokens": 100,
            "text": text,
        }

    rounds = [
        {
            "2, all sums by NCCL": side(110, "abXdXfgh"),
            "2": side(rate, "abcdXfgh"),
            "1": side(100, "abcdefgh"),
        }
        for rate in (150, 200, 130)
    ]
    text = tables.shards({"gpus": 4, "models": {"1b": rounds}})
    assert text.startswith("| Llama 3.2 1B's shape: GPUs, of 4; ")
    assert text.splitlines()[2:] == [
        "| 1 | 1000 (1000–1000) | 1.00 (1.00–1.00) | 100 (100–100) | 1.00 (1.00–1.00) | 100 % |  |",
        "| 2 | 1000 (1000–1000) | 1.00 (1.00–1.00) | 150 (130–200) | 1.50 (1.30–2.00) | 50 % | 25 % |",
        "| 2, all sums by NCCL | 1000 (1000–1000) | 1.00 (1.00–1.00) | 110 (110–110) | 1.10 (1.10–1.10) | 25 % |  |",
    ]


def test_a_timeline_of_a_shared_model_says_whose_it_is() -> None:
    step = {"kernels": {"sum": [2, 1e-5]}, "busy": 1e-5, "seconds": 2e-5}
    text = tables.timeline({"8b_of_2": {"1": step}})
    assert "### Llama 3 8B's shape, the first of 2 GPUs, 1 at a time" in text


@pytest.mark.parametrize(("one", "other", "part"), [("", "", 0), ("ab", "ab", 1), ("ab", "abcd", 0.5), ("x", "y", 0)])
def test_texts_are_the_same_until_they_differ(one: str, other: str, part: float) -> None:
    assert tables.common(one, other) == part


def test_a_part_that_failed_is_named_beside_the_others() -> None:
    text = tables.text(
        {
            "when": "now",
            "device": "cuda",
            "machine": {"name": "card"},
            "failed": {"engine": "Traceback\nRuntimeError: out of memory"},
        }
    )
    assert "Part engine failed: RuntimeError: out of memory" in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"rms_norm_kernel", "rms_norm_kernel"),
        (b"void flashinfer::Merge<(unsigned int)8, __half>(__half*, int)", "flashinfer::Merge"),
        (b"void (anonymous namespace)::Product<1, 1, float>(__half const*)", "Product"),
        (b"<unknown>", "<unknown>"),
    ],
)
def test_a_kernels_name_is_without_what_tells_its_forms_apart(name: bytes, shown: str) -> None:
    assert timeline.short(name) == shown


def test_what_runs_at_once_counts_once() -> None:
    records = [("a", 0, 100), ("b", 50, 80), ("a", 90, 200), ("c", 300, 400)]
    assert timeline.busy(records) == pytest.approx(300e-9)
    assert timeline.totals(records) == {
        "a": (2, pytest.approx(210e-9)),
        "b": (1, pytest.approx(30e-9)),
        "c": (1, pytest.approx(100e-9)),
    }


def test_a_steps_table_sums_what_is_short() -> None:
    step = {
        "kernels": {"short": [7.0, 2e-6], "long": [16.0, 6e-4], "shorter": [1.0, 1e-6]},
        "busy": 6.03e-4,
        "span": 9e-4,
        "seconds": 8e-4,
    }
    table = tables.timeline({"1b": {"1": step}})
    assert "| `long` | 16 | 600 |" in table
    assert "`short`" not in table
    assert "| others |  | 3 |" in table
    assert "| **something runs** |  | 603 |" in table
    assert "| **step, not recorded** |  | 800 |" in table


def test_each_side_comes_first_as_often() -> None:
    assert [measure.turn(["a", "b", "c"], number)[0] for number in range(6)] == ["a", "b", "c"] * 2


def test_the_grown_tokenizer_keeps_its_words() -> None:
    grown = random_model.grown_tokenizer({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}}}, 5)["model"]
    assert grown["type"] == "BPE" and grown["vocab"]["a"] == 0
    assert sorted(grown["vocab"].values()) == list(range(5))


def test_a_variant_shares_all_but_its_configuration(tmp_path: Path) -> None:
    model, config = tmp_path / "model", tmp_path / "config.json"
    model.mkdir()
    (model / "params_shard_0.bin").write_bytes(b"weights")
    (model / "mlc-chat-config.json").write_text("{}")
    config.write_text('{"tensor_parallel_shards": 2}')
    random_model.write_variant(config, model, tmp_path / "of_2")
    assert (tmp_path / "of_2/params_shard_0.bin").resolve() == model / "params_shard_0.bin"
    assert json.loads((tmp_path / "of_2/mlc-chat-config.json").read_text())["tensor_parallel_shards"] == 2
    assert (model / "mlc-chat-config.json").read_text() == "{}"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("quantization", ["q0f16", "q4f16_1"])
def test_the_random_model_has_what_its_index_says(tmp_path: Path, quantization: str, tied: bool) -> None:
    model = {
        "tie_word_embeddings": tied,
        "hidden_size": 32,
        "intermediate_size": 64,
        "head_dim": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 2,
        "vocab_size": 96,
    }
    random_model.write_weights(model, quantization, tmp_path)
    index = json.loads((tmp_path / "tensor-cache.json").read_text())
    total = sum(shard["nbytes"] for shard in index["records"])
    assert total == index["metadata"]["ParamBytes"]
    embedding = 96 * 32 * (2 if quantization == "q0f16" else 0.5 + 2 / 32)
    assert random_model.step_bytes(model, quantization) == total - (0 if tied else embedding)
    assert random_model.products(model) == 2 * (64 * 32 + 32 * 32 + 128 * 32 + 32 * 64)
    for shard in index["records"]:
        (record,) = shard["records"]
        assert (tmp_path / shard["dataPath"]).stat().st_size == record["nbytes"] == shard["nbytes"]


def test_random_weights_of_four_bits_keep_the_scale_of_activations() -> None:
    rows, columns = 64, 512
    random = np.random.default_rng(1)
    words = random_model.values((rows, columns // 8), "uint32", random)
    scales = random_model.scales((rows, columns // 32))
    four = np.stack([words >> np.uint32(4 * each) & np.uint32(15) for each in range(8)], axis=-1).reshape(rows, columns)
    weights = (four.astype("float32") - 7) * np.repeat(scales.astype("float32"), 32, axis=1)
    assert 0.9 < float(np.std(weights)) * columns**0.5 < 1.1


def test_without_models_the_other_parts_are_measured(tmp_path: Path) -> None:
    assert measure.parts_of(tmp_path, "cuda") == ["rates", "overhead", "attention", "allreduce"]
    (tmp_path / "models").mkdir()
    assert measure.parts_of(tmp_path, "cuda") == list(measure.PARTS)
    assert measure.parts_of(tmp_path, "cpu") == [part for part in measure.PARTS if part not in measure.CUDA_PARTS]


def test_a_part_that_needs_a_missing_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["run bench", "--results", "x.json", "--bundle", str(tmp_path), "--only", "rates,engine"]
    )
    with pytest.raises(SystemExit, match="2"):
        measure.main()
    assert "--only engine: this bundle was built without mlc-llm's sources" in capsys.readouterr().err


def test_an_unknown_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["run bench", "--results", "x.json", "--bundle", str(tmp_path), "--models", "1b,70b"]
    )
    with pytest.raises(SystemExit, match="2"):
        measure.main()
    assert "--models: expected some of 1b, 8b, 8b_q4, found 70b" in capsys.readouterr().err


def test_without_a_gpu_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLC_NVIDIA_DRIVER", str(tmp_path))
    record = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", ["run bench", "--results", str(record)])
    with pytest.raises(SystemExit, match="run: expected an NVIDIA GPU, found none: .*libcuda.so.1"):
        measure.main()
    assert not record.exists()


def test_missing_nvidia_libraries_are_named(tmp_path: Path) -> None:
    options = argparse.Namespace(nvidia_libraries=tmp_path, python="python3")
    with pytest.raises(SystemExit, match="found no .*nvidia/cu13/lib/libcudart.so.13"):
        machine.nvidia_libraries(options)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e4m3fn"])
def test_an_output_that_no_kernel_wrote_is_no_result(dtype: str) -> None:
    with pytest.raises(AssertionError, match="6 of 6 elements are not finite, the first at"):
        comparison.relative_error(comparison.poison((2, 3), dtype), np.ones((2, 3)))


def test_an_integer_output_that_no_kernel_wrote_shows() -> None:
    assert (comparison.poison((4,), "int32") == np.iinfo("int32").min).all()
