"""Public rules of models: `mlc_model`, a model compiled and its weights converted by actions of the build, and targets to compile for."""

load("//models/private:mlc_model.bzl", _MlcModelInfo = "MlcModelInfo", _mlc_model = "mlc_model")

mlc_model = _mlc_model
MlcModelInfo = _MlcModelInfo

def cpu_target(mcpu = "x86-64-v3"):
    """A Linux CPU to compile for, for `mlc_model(target = ...)`.

    Never the machine that builds: the same library on every machine.

    Args:
        mcpu: LLVM's name of the CPU. x86-64-v3 is what AVX2 machines since 2013 run; x86-64-v4 needs AVX-512; x86-64-v2 runs anywhere.
    """
    llvm = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": mcpu}
    return json.encode(llvm | {"host": llvm})
