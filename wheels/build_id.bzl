"""Module extension `build_id`: short digests of everything that decides the native libraries' bytes: of TVM's, of its CUDA parts', and of mlc-llm's.

They are part of the wheels' versions, so wheels of two different builds never satisfy each other's pins. A change of mlc-llm or of the CUDA parts alone
leaves TVM's wheels as they are; a change of TVM changes all.
"""

load("//fetch/git:source.bzl", "ENVIRON", "sources_are_given")

# What counts; see private/build_id.py.
_TVM = {
    "crates": [],
    "debian": ["cc"],
    "files": [
        "fetch/pypi",
        "third_party/tvm",
        "third_party/tvm_ffi",
        "toolchains/cc",
        "version.bzl",
        "wheels/BUILD.bazel",
    ],
    "requirements": [
        "apache-tvm",
        "apache-tvm-ffi",
    ],
    "sources": ["tilelang"],
}

_TVM_CUDA = {
    "crates": [],
    "debian": ["cuda"],
    "files": [
        "src/tvm_cuda",
        "toolchains/cuda",
    ],
    "requirements": [
        "nvidia-cublas",
        "nvidia-cuda-cccl",
        "nvidia-cuda-crt",
        "nvidia-cuda-nvcc",
        "nvidia-cuda-runtime",
        "nvidia-cudnn-cu13",
        "nvidia-curand",
        "nvidia-nccl-cu13",
        "nvidia-nvvm",
    ],
    # With sources the device runtime is compiled, without it is the official build's (third_party/tvm_cuda).
    "sources": [],
}

_TVM_CUDA_SOURCES = ["tvm"]

_MLC_LLM = {
    "crates": ["tokenizers_cpp"],
    "debian": [
        "cxx_headers",
        "rust",
    ],
    "files": [
        "fetch/crates",
        "third_party/debian/cxx_headers.BUILD.bazel",
        "fetch/git",
        "third_party/mlc_llm",
        "third_party/sentencepiece",
        "third_party/tokenizers_cpp",
        "third_party/xgrammar",
        "toolchains/rust",
    ],
    "requirements": [],
    "sources": [
        "mlc-llm",
        "sentencepiece",
        "tokenizers-cpp",
        "xgrammar",
    ],
}

def _ids(with_sources):
    return {
        "MLC_LLM_BUILD_ID": {kind: _TVM[kind] + _MLC_LLM[kind] for kind in _TVM},
        "TVM_BUILD_ID": _TVM,
        "TVM_CUDA_BUILD_ID": {
            kind: _TVM[kind] + _TVM_CUDA[kind] + (_TVM_CUDA_SOURCES if with_sources and kind == "sources" else [])
            for kind in _TVM
        },
    }

_LOCKS = [
    "locks/crates.lock.json",
    "locks/debian.lock.json",
    "locks/requirements.lock.txt",
    "locks/sources.lock.json",
]

def _build_id_repository_impl(rctx):
    root = rctx.path(Label("//:version.bzl")).dirname
    script = rctx.path(Label("//wheels/private:build_id.py"))
    for name in _TVM["files"] + _TVM_CUDA["files"] + _MLC_LLM["files"] + _LOCKS:
        path = root.get_child(name)
        rctx.watch_tree(path) if path.is_dir else rctx.watch(path)
    lines = ["\"\"\"Written by //wheels:build_id.bzl.\"\"\"\n"]
    for name, inputs in _ids(sources_are_given(rctx)).items():
        result = rctx.execute([rctx.which("python3"), "-B", script, root, json.encode(inputs)])
        if result.return_code:
            fail(result.stderr)
        lines.append("{} = \"{}\"".format(name, result.stdout.strip()))
    rctx.file("BUILD.bazel", "exports_files([\"build_id.bzl\"])\n")
    rctx.file("build_id.bzl", "\n".join(lines + [""]))

_build_id_repository = repository_rule(
    implementation = _build_id_repository_impl,
    doc = "A repository with the build ids, eight hex digits each.",
    local = True,
    environ = ENVIRON,
)

def _build_id_impl(_mctx):
    _build_id_repository(name = "build_id")

build_id = module_extension(implementation = _build_id_impl)
