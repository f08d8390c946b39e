"""Module extension `cuda`: whether this build has CUDA, and whether this machine has a GPU for tests."""

ENVIRON = ["MLC_CUDA"]

# NVIDIA's kernel driver creates the first; WSL has the second instead.
_DEVICES = ["/dev/nvidiactl", "/dev/dxg"]

def _cuda_facts_impl(rctx):
    rctx.file("BUILD.bazel", "# See //toolchains/cuda:defs.bzl.\n")
    rctx.file("facts.bzl", """\
\"\"\"Whether --config=cuda is given, and whether this machine has an NVIDIA GPU.\"\"\"

ENABLED = {}

# This decides only which tests run, never what is built.
HAS_GPU = {}
""".format(rctx.os.environ.get("MLC_CUDA") == "1", any([rctx.path(device).exists for device in _DEVICES])))

_cuda_facts = repository_rule(
    implementation = _cuda_facts_impl,
    doc = "`facts.bzl` with ENABLED and HAS_GPU, for BUILD files.",
    configure = True,
    environ = ENVIRON,
    local = True,
)

def _cuda_impl(_mctx):
    _cuda_facts(name = "cuda_facts")

cuda = module_extension(implementation = _cuda_impl)
