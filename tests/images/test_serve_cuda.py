"""An image that serves models on GPUs loads what it has, and says of a model what it lacks."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest

from tests.images.containers import Container

PARTS = os.environ["PARTS"].split(",")


@pytest.fixture
def driver(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The driver as NVIDIA's container runtime mounts it; this one is an imitation without a GPU."""
    (folder / "driver").mkdir()
    shutil.copy(os.environ["DRIVER"], folder / "driver/libcuda.so.1")
    return {"/usr/local/nvidia/lib64": folder / "driver"}


def test_it_loads_what_it_has_and_warns_of_nothing(container: Container, driver: dict[str, pathlib.Path]) -> None:
    ran = container.run("python3", "-m", "tvm_cuda", mounts=driver)
    loaded = [line.split("  ")[0] for line in ran.stdout.splitlines() if line.endswith(" loaded")]
    assert loaded == ["driver", *PARTS], ran.stderr
    # The imitation has no library of NVML's, which NCCL asks of GPUs.
    warned = "libnvidia-ml.so.1, which NCCL calls, does not load: libnvidia-ml.so.1\n" if "nccl" in PARTS else ""
    assert ran.stderr == warned


def test_smoke_finds_that_everything_works(container: Container) -> None:
    said = container.said("smoke")
    assert "smoke: everything works" in said and "mlc-llm answers" in said and "libcuda.so.1 is not found" in said


def test_a_model_that_calls_what_is_missing_is_refused_in_a_line(
    container: Container, driver: dict[str, pathlib.Path], folder: pathlib.Path
) -> None:
    shutil.copytree(os.environ["WEIGHTS"], folder / "models/tiny")
    shutil.copy(os.environ["LIBRARY"], folder / "models/tiny.so")
    mounts = driver | {"/workspace": folder / "models"}
    # As an engine does before it loads a model; one has no GPU here.
    check = ("python3", "-m", "mlc_llm._mlc_bazel.model_check", "/workspace/tiny", "/workspace/tiny.so")
    ran = container.run(*check, mounts=mounts)
    if "cublas" in PARTS:
        assert ran.returncode == 0, ran.stderr
    else:
        line = ran.stderr.splitlines()[-1]
        assert ran.returncode == 1 and line.startswith("model_check: /workspace/tiny.so: expected cuBLAS, "), ran.stderr
        assert line.endswith(", or use an image of this build with cuBLAS")


def test_a_missing_gpu_is_a_line(container: Container, folder: pathlib.Path) -> None:
    shutil.copytree(os.environ["WEIGHTS"], folder / "tiny")
    shutil.copy(os.environ["LIBRARY"], folder / "tiny.so")
    said = container.said("serve", "/workspace/tiny", "--device", "cuda", code=1, mounts={"/workspace": folder})
    assert "Traceback" not in said
    assert said.splitlines()[-1].endswith(
        "device cuda: expected one that TVM finds, found no NVIDIA driver on this machine: libcuda.so.1 is not found;"
        " in a container, start it with --gpus all"
    )
