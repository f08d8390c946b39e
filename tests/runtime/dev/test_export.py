"""A compiled module exported as a shared library loads in another process. Needs a C++ compiler: $CXX or `c++`."""

# TVMScript's annotations are shapes of tensors, not types.
# mypy: disable-error-code="valid-type"

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.support import cc

import tvm


@I.ir_module
class Module:
    @R.function
    def main(x: R.Tensor(("n", 4), "float32"), w: R.Tensor((4, 3), "float32")):  # type: ignore[no-untyped-def]
        return R.nn.softmax(R.matmul(x, w))


@pytest.fixture(scope="module")
def compiler() -> str:
    """The C++ compiler. These tests fail without one, because they run only where there should be one."""
    asked = os.environ.get("CXX", "c++")
    found = shutil.which(asked)
    assert found, f"C++ compiler {asked!r} not found: set CXX to one"
    return str(Path(found).absolute())


def export(executable: tvm.runtime.Executable, path: Path, compiler: str) -> None:
    executable.export_library(str(path), fcompile=cc.cross_compiler(compiler))


def test_export_and_reload_in_another_process(compiler: str, tmp_path: Path) -> None:
    executable = tvm.compile(Module, target="llvm")
    library = tmp_path / "library.so"
    export(executable, library, compiler)
    x = np.random.default_rng(5).standard_normal((6, 4)).astype("float32")
    w = np.random.default_rng(6).standard_normal((4, 3)).astype("float32")
    np.savez(tmp_path / "inputs.npz", x=x, w=w)
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "import numpy, tvm\n"
        "from tvm import relax\n"
        f"vm = relax.VirtualMachine(tvm.runtime.load_module({str(library)!r}), tvm.cpu())\n"
        f"inputs = numpy.load({str(tmp_path / 'inputs.npz')!r})\n"
        "result = vm['main'](*(tvm.runtime.tensor(inputs[name]) for name in 'xw'))\n"
        f"numpy.save({str(tmp_path / 'result.npy')!r}, result.numpy())\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    exponential = np.exp(x @ w)
    expected = exponential / exponential.sum(-1, keepdims=True)
    np.testing.assert_allclose(np.load(tmp_path / "result.npy"), expected, rtol=1e-5, atol=1e-6)


def test_exported_library_names_no_folder_of_the_build(compiler: str, tmp_path: Path) -> None:
    library = tmp_path / "library.so"
    export(tvm.compile(Module, target="llvm"), library, compiler)
    assert str(tmp_path).encode() not in library.read_bytes()


def test_exporting_twice_gives_the_same_bytes(compiler: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first.so", tmp_path / "second.so"
    for path in (first, second):
        export(tvm.compile(Module, target="llvm"), path, compiler)
    assert first.read_bytes() == second.read_bytes()


def test_cpp_extension_against_the_installed_headers(compiler: str, tmp_path: Path) -> None:
    """Python calls a C++ function that was built with the wheel's headers, so they fit its library."""
    source, library = tmp_path / "extension.cc", tmp_path / "extension.so"
    source.write_text(
        "#include <tvm/ffi/container/tensor.h>\n"
        "#include <tvm/ffi/error.h>\n"
        "#include <tvm/ffi/reflection/registry.h>\n"
        "int64_t Elements(tvm::ffi::Tensor tensor) {\n"
        '  if (tensor.ndim() == 0) TVM_FFI_THROW(ValueError) << "a scalar";\n'
        "  return tensor.numel();\n"
        "}\n"
        'TVM_FFI_STATIC_INIT_BLOCK() { tvm::ffi::reflection::GlobalDef().def("tests.elements", Elements); }\n'
    )
    command = [compiler, "-std=c++20", "-shared", "-fPIC", str(source), "-o", str(library)]
    command += [f"-I{path}" for path in tvm_ffi.libinfo.include_paths()] + [tvm_ffi.libinfo.find_libtvm_ffi()]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    ctypes.CDLL(str(library))
    elements = tvm.get_global_func("tests.elements")
    assert elements(tvm.runtime.empty((2, 3, 4), "float32")) == 24
    with pytest.raises(ValueError, match="a scalar"):
        elements(tvm.runtime.empty((), "float32"))
