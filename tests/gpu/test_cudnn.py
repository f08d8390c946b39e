"""cuDNN, called through the runtime, gives the convolutions and softmax that NumPy gives in float64."""

import numpy as np
import pytest
from comparison import ROUNDING, random_array, softmax
from conftest import Compare, poisoned

import tvm

_CROSS_CORRELATION = 1  # cudnnConvolutionMode_t: the convolution of neural networks, which does not mirror the kernel.
_NCHW = 0  # cudnnTensorFormat_t
_IMPLICIT_PRECOMPUTED_GEMM = 1  # cudnnConvolutionFwdAlgo_t: supports every type, stride and group count used here.


def _convolution(x: np.ndarray, w: np.ndarray, padding: int, stride: int, dilation: int, groups: int) -> np.ndarray:
    """x: (n, c, h, w), w: (o, c / groups, kh, kw) -> (n, o, h', w'), in float64."""
    x = np.pad(x.astype("float64"), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    span = [dilation * (size - 1) + 1 for size in w.shape[2:]]
    windows = np.lib.stride_tricks.sliding_window_view(x, span, axis=(2, 3))[
        :, :, ::stride, ::stride, ::dilation, ::dilation
    ]
    parts = zip(np.split(windows, groups, axis=1), np.split(w.astype("float64"), groups, axis=0))
    return np.concatenate(
        [np.einsum("nchwij,ocij->nohw", part, kernel, optimize=True) for part, kernel in parts], axis=1
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    ("shape", "kernel", "padding", "stride", "dilation", "groups"),
    [
        ((1, 8, 16, 16), (16, 8, 3, 3), 1, 1, 1, 1),
        ((3, 5, 17, 23), (7, 5, 3, 5), 0, 1, 1, 1),
        ((2, 16, 33, 31), (24, 16, 3, 3), 1, 2, 1, 1),
        ((2, 8, 20, 20), (8, 8, 3, 3), 2, 1, 2, 1),
        ((2, 16, 14, 14), (32, 4, 1, 1), 0, 1, 1, 4),
    ],
    ids=["same size", "odd sizes", "stride", "dilation", "groups"],
)
def test_conv2d(
    device: tvm.runtime.Device,
    compare: Compare,
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    padding: int,
    stride: int,
    dilation: int,
    groups: int,
    dtype: str,
) -> None:
    x, w = random_array(1, shape, dtype), random_array(2, kernel, dtype)
    expected = _convolution(x, w, padding, stride, dilation, groups)
    y = poisoned(expected.shape, dtype, device)
    tvm.get_global_func("tvm.contrib.cudnn.conv2d.forward")(
        _CROSS_CORRELATION,
        _NCHW,
        _IMPLICIT_PRECOMPUTED_GEMM,
        *(padding, padding),
        *(stride, stride),
        *(dilation, dilation),
        tvm.runtime.tensor(x, device),
        tvm.runtime.tensor(w, device),
        y,
        "float32",  # Type of the sums.
        groups,
    )
    # The output's rounding; cuDNN also rounds float32 inputs to TF32, whose mantissa is as long as float16's, for the
    # tensor cores.
    compare(y.numpy(), expected, 4 * ROUNDING["float16"])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    ("shape", "axis"), [((7, 33), -1), ((64, 4097), 1), ((2, 3, 5, 100), 3), ((4, 10, 7), 1), ((19, 3), 0)], ids=str
)
def test_softmax(device: tvm.runtime.Device, compare: Compare, shape: tuple[int, ...], axis: int, dtype: str) -> None:
    x = random_array(3, shape, dtype)
    y = poisoned(shape, dtype, device)
    tvm.get_global_func("tvm.contrib.cudnn.softmax.forward")(tvm.runtime.tensor(x, device), y, axis)
    compare(y.numpy(), softmax(x, axis), 32 * ROUNDING["float32"] + ROUNDING[dtype])


def test_log_softmax(device: tvm.runtime.Device, compare: Compare) -> None:
    x = random_array(4, (31, 257), "float32")
    y = poisoned(x.shape, "float32", device)
    tvm.get_global_func("tvm.contrib.cudnn.log_softmax.forward")(tvm.runtime.tensor(x, device), y, 1)
    compare(y.numpy(), np.log(softmax(x)), 32 * ROUNDING["float32"])


def test_an_impossible_convolution_is_refused_and_the_next_one_works(device: tvm.runtime.Device) -> None:
    """The kernel has more channels than the image."""
    convolve = tvm.get_global_func("tvm.contrib.cudnn.conv2d.forward")
    x, w = (tvm.runtime.tensor(np.ones(shape, "float32"), device) for shape in ((1, 2, 4, 4), (1, 3, 1, 1)))
    good = tvm.runtime.tensor(np.ones((1, 2, 1, 1), "float32"), device)
    y = poisoned((1, 1, 4, 4), "float32", device)
    options = (_CROSS_CORRELATION, _NCHW, _IMPLICIT_PRECOMPUTED_GEMM, 0, 0, 1, 1, 1, 1)
    with pytest.raises(Exception, match="(?i)cudnn"):
        convolve(*options, x, w, y, "float32", 1)
    convolve(*options, x, good, y, "float32", 1)
    np.testing.assert_array_equal(y.numpy(), np.full((1, 1, 4, 4), 2, "float32"))
