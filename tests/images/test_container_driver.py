"""An image for GPUs finds the driver that the host mounts."""

from __future__ import annotations

import os
import pathlib
import shutil

from tests.images.containers import Container


def test_everything_loads_where_the_host_mounts_a_driver(container: Container, folder: pathlib.Path) -> None:
    # As NVIDIA's container runtime mounts it; this one is an imitation without a GPU.
    shutil.copy(os.environ["DRIVER"], folder / "libcuda.so.1")
    said = container.said("python3", "-m", "tvm_cuda", code=1, mounts={"/usr/local/nvidia/lib64": folder})
    loaded = [line.split("  ")[0] for line in said.splitlines() if line.endswith(" loaded")]
    assert loaded == ["driver", "device runtime", "cublas", "curand", "nccl"], said
    assert "libcudnn.so.9 is not found: pip install nvidia-cudnn-cu13" in said
    # The image has none on purpose: nothing to warn of.
    assert "is not loaded" not in said
    assert "no GPU: the driver shows none" in said
