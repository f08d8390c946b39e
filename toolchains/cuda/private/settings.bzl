"""Settings of the CUDA toolchain, and constraints for targets that need it."""

load("@cuda_facts//:facts.bzl", "ENABLED", "HAS_GPU")

# Bazel prints the name of a constraint that a target lacks, so it is a message. It may contain neither ":" nor "\\".
NO_CUDA = "built without CUDA, add --config=cuda, see toolchains-cuda-README.md"
NO_GPU = "no NVIDIA GPU on this machine, see tests-gpu-README.md"

NEEDS_CUDA = [] if ENABLED else [Label("//toolchains/cuda:" + NO_CUDA)]

NEEDS_GPU = NEEDS_CUDA + ([] if HAS_GPU else [Label("//toolchains/cuda:" + NO_GPU)])

CudaArchsInfo = provider(
    doc = "The architectures that device code is compiled for.",
    fields = {"archs": "List of \"sm_90\" (machine code of one architecture) and \"compute_90\" (PTX, which the driver compiles for newer ones)."},
)

# Architectures that nvcc of CUDA 13.0 supports (`nvcc --list-gpu-arch`).
_KNOWN = ["75", "80", "86", "87", "88", "89", "90", "90a", "100", "100a", "100f", "103", "103a", "103f", "110", "110a", "110f", "120", "120a", "120f", "121", "121a", "121f"]

def _cuda_archs_impl(ctx):
    archs = [arch for arch in ctx.build_setting_value.split(";") if arch]
    for arch in archs:
        kind, _, number = arch.partition("_")
        if kind not in ["sm", "compute"] or number not in _KNOWN:
            fail("--{}: expected sm_N or compute_N, separated by \";\", with N one of {}; found {}".format(ctx.label, ", ".join(_KNOWN), repr(arch)))
    if not archs:
        fail("--{}: expected at least one architecture, such as sm_90, found none".format(ctx.label))
    return [CudaArchsInfo(archs = archs)]

cuda_archs = rule(
    implementation = _cuda_archs_impl,
    doc = "A setting: the architectures to compile device code for, separated by semicolons.",
    build_setting = config.string(flag = True),
)

bool_flag = rule(
    implementation = lambda ctx: [],
    doc = "A setting that is on or off.",
    build_setting = config.bool(flag = True),
)
