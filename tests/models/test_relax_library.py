"""The runtime loads the libraries of relax_library, and they compute what NumPy does."""

import os

import numpy as np

import tvm
from tvm import relax

RANDOM = np.random.default_rng(11)
WIDTH = 16
"""The BUILD file passes this to affine.py instead of its default."""


def test_a_relax_module_runs_for_every_shape() -> None:
    machine = relax.VirtualMachine(tvm.runtime.load_module(os.environ["AFFINE"]), tvm.cpu())
    w, b = (RANDOM.uniform(-1, 1, shape).astype("float32") for shape in ((WIDTH, WIDTH), (WIDTH,)))
    for rows, columns in ((1, 1), (3, 5), (17, 2)):
        x = RANDOM.uniform(-1, 1, (rows, columns, WIDTH)).astype("float32")
        got = machine["main"](*map(tvm.runtime.tensor, (x, w, b))).numpy()
        np.testing.assert_allclose(got, np.sort(np.maximum(x @ w + b, 0)), rtol=1e-5, atol=1e-5)


def test_a_module_without_relax_runs() -> None:
    module = tvm.runtime.load_module(os.environ["KERNEL"])
    a, b = RANDOM.uniform(-1, 1, 1000).astype("float32"), tvm.runtime.empty((1000,), "float32")
    module["main"](tvm.runtime.tensor(a), b)
    np.testing.assert_array_equal(b.numpy(), a * 2)
