"""The image that serves a model has what the model's library calls, and no more."""

from __future__ import annotations

import pathlib

import pytest

from models.private import pick_base
from src.mlc_llm import library_parts

CUDA = b"\4\0\0\0\0\0\0\0cuda"
CUBLAS = b"\13\0\0\0\0\0\0\0cublas_json"
KERNELS = b"\0libcudart.so.13\0"


def shards(number: int) -> bytes:
    return b'{"model_type": "llama", "tensor_parallel_shards": %d}' % number


@pytest.fixture
def images(tmp_path: pathlib.Path) -> list[str]:
    """Options that name three images."""
    options = []
    for name, parts in {
        "cuda": "device runtime",
        "cublas": "device runtime,cublas",
        "nccl": "device runtime,cublas,nccl",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text(name)
        options += ["--image", f"{tmp_path / name}={parts}"]
    return options


def picked(tmp_path: pathlib.Path, images: list[str], library: bytes) -> int | str:
    """Returns the name of the image that the program copies, or its exit status."""
    path, output = tmp_path / "model.so", tmp_path / "output"
    path.write_bytes(b"\x7fELF" + library)
    if status := pick_base.main(["--library", str(path), *images, "--output", str(output)]):
        return status
    return (output / "index.json").read_text()


@pytest.mark.parametrize(
    ("library", "image", "calls"),
    [
        (CUDA + shards(1), "cuda", "CUDA"),
        # Words that are not names of modules.
        (CUDA + b"cublas_json", "cuda", "CUDA"),
        (KERNELS, "cuda", "CUDA"),
        (CUDA + CUBLAS, "cublas", "CUDA, cuBLAS"),
        (CUBLAS, "cublas", "CUDA, cuBLAS"),
        (CUDA + b'"pipeline_parallel_stages": 2', "nccl", "CUDA, NCCL"),
        (CUDA + shards(2), "nccl", "CUDA, NCCL"),
        (CUDA + CUBLAS + shards(16), "nccl", "CUDA, cuBLAS, NCCL"),
    ],
)
def test_the_smallest_image_that_has_all(
    tmp_path: pathlib.Path,
    images: list[str],
    capsys: pytest.CaptureFixture[str],
    library: bytes,
    image: str,
    calls: str,
) -> None:
    assert picked(tmp_path, images, library) == image
    assert capsys.readouterr().out == f"model.so calls {calls}: {image} serves it\n"


@pytest.mark.parametrize(
    ("mark", "calls"),
    [
        (CUDA, [library_parts.CUDA]),
        (KERNELS, [library_parts.CUDA]),
        (CUBLAS, [library_parts.CUDA, library_parts.CUBLAS]),
        (KERNELS + b'"tensor_parallel_shards": 2', [library_parts.CUDA, library_parts.NCCL]),
    ],
)
def test_what_is_on_the_border_of_two_parts_is_found(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, mark: bytes, calls: list[library_parts.CudaPart]
) -> None:
    monkeypatch.setattr(library_parts, "READ_BYTES", 300)
    library = tmp_path / "model.so"
    for padding in range(300 - len(mark), 301):
        library.write_bytes(bytes(padding) + mark + bytes(300))
        assert library_parts.calls(library) == calls, padding


@pytest.mark.parametrize("library", [shards(2), b"cuda cublas_json libcudart.so.13"])
def test_a_library_for_cpus_is_refused(
    tmp_path: pathlib.Path, images: list[str], capsys: pytest.CaptureFixture[str], library: bytes
) -> None:
    assert picked(tmp_path, images, library) == 1
    assert "expected CUDA in the library of a model for GPUs, found none" in capsys.readouterr().err


def test_no_image_has_all(tmp_path: pathlib.Path, images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert picked(tmp_path, images[:2], CUDA + CUBLAS) == 1
    assert capsys.readouterr().err == (
        f"pick_base: {tmp_path / 'model.so'}: expected an image with CUDA, cuBLAS, which the model calls, found only"
        " cuda: name one with base = ...\n"
    )
