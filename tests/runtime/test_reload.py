"""A saved executable gives the same results after reloading, without a compiler or linker on the machine."""

# TVMScript's annotations are shapes of tensors, not types.
# mypy: disable-error-code="valid-type"

import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

import tvm
from tvm import relax


@I.ir_module
class Module:
    @R.function
    def main(x: R.Tensor(("n", 4), "float32"), w: R.Tensor((4, 3), "float32")):  # type: ignore[no-untyped-def]
        with R.dataflow():
            product = R.matmul(x, w)
            shifted = R.add(product, R.const(np.arange(3, dtype="float32")))
            total = R.sum(shifted, axis=[0])
            R.output(shifted, total)
        return (shifted, total)


X = np.random.default_rng(5).standard_normal((6, 4)).astype("float32")
W = np.random.default_rng(6).standard_normal((4, 3)).astype("float32")


@pytest.fixture(scope="module")
def executable() -> relax.VMExecutable:
    return tvm.compile(Module, target="llvm")


def check(executable: tvm.runtime.Module) -> None:
    shifted, total = relax.VirtualMachine(executable, tvm.cpu())["main"](*map(tvm.runtime.tensor, (X, W)))
    expected = X @ W + np.arange(3, dtype="float32")
    np.testing.assert_allclose(shifted.numpy(), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(total.numpy(), expected.sum(0), rtol=1e-5, atol=1e-5)


def save(executable: relax.VMExecutable, folder: Path) -> tuple[Path, Path]:
    """The virtual machine's byte code and the kernels' LLVM IR."""
    code, kernels = folder / "code.vm", folder / "kernels.ll"
    executable.mod.write_to_file(str(code), "relax.VMExecutable")
    (llvm,) = executable.mod.imports
    llvm.write_to_file(str(kernels), "ll")
    return code, kernels


def load(code: Path, kernels: Path) -> tvm.runtime.Module:
    executable = tvm.get_global_func("ffi.Module.load_from_file.relax.VMExecutable")(str(code))
    executable.import_module(tvm.runtime.load_module(str(kernels)))
    return executable


def test_byte_code_and_kernels_reload(executable: relax.VMExecutable, tmp_path: Path) -> None:
    check(executable.mod)
    reloaded = load(*save(executable, tmp_path))
    check(reloaded)
    assert reloaded["as_text"]() == executable.as_text()


def test_reload_in_another_process(executable: relax.VMExecutable, tmp_path: Path) -> None:
    code, kernels = save(executable, tmp_path)
    program = (
        f"import sys; sys.path[:] = {[str(Path(__file__).parent), *sys.path]!r}\n"
        "from pathlib import Path\n"
        "import test_reload\n"
        f"test_reload.check(test_reload.load(Path({str(code)!r}), Path({str(kernels)!r})))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_damaged_byte_code_is_refused(executable: relax.VMExecutable, tmp_path: Path) -> None:
    code, kernels = save(executable, tmp_path)
    whole = code.read_bytes()
    for damaged in (b"", whole[:10], b"\0" * 16 + whole[16:]):
        code.write_bytes(damaged)
        with pytest.raises((ValueError, RuntimeError)):
            load(code, kernels)


def test_archive_of_objects_holds_everything_a_linker_needs(executable: relax.VMExecutable, tmp_path: Path) -> None:
    """`mlc_llm compile` writes such archives for phones and browsers."""
    archive = tmp_path / "library.tar"

    def pack(output: str, objects: list[str], options: list[str] | None = None) -> None:
        """Does what TVM's function does, which calls the program tar."""
        with tarfile.open(output, "w") as tar:
            for path in objects:
                tar.add(path, Path(path).name)

    executable.export_library(str(archive), fcompile=pack)
    with tarfile.open(archive) as tar:
        members = {member.name: file.read() for member in tar if (file := tar.extractfile(member))}
    assert members
    assert all(data.startswith(b"\x7fELF") for name, data in members.items() if name.endswith(".o"))
    objects = b"".join(members.values())
    assert b"matmul" in objects and b"__tvm_ffi__library_bin" in objects
