"""Module extension `sources`: the source repositories that are made from PyPI distributions."""

load(":source.bzl", "pypi_source")

def _sources_impl(_mctx):
    pypi_source(
        name = "tvm_ffi",
        wheel = "apache-tvm-ffi",
        build_file = "//third_party/tvm_ffi:tvm_ffi.BUILD.bazel",
    )
    pypi_source(
        name = "tvm",
        wheel = "apache-tvm",
        # Headers that TVM's runtime sources include, and CUDA sources, which its wheel leaves out; tilelang's sdist carries a TVM tree.
        sdist = "tilelang",
        sdist_prefix = "3rdparty/",
        sdist_files = [
            "tvm/3rdparty/compiler-rt/builtin_fp16.h",
            "tvm/3rdparty/tensorrt_llm/*",
            # No wheel has it, and its headers are compiled into every library.
            "tvm/3rdparty/tvm-ffi/licenses/LICENSE.dlpack.txt",
            "tvm/include/tvm/support/io.h",
            "tvm/include/tvm/support/serializer.h",
            "tvm/src/support/*.h",
        ],
        build_file = "//third_party/tvm:tvm.BUILD.bazel",
    )
    # Fetched only by a build with --config=cuda.
    for name, wheel in {
        "nvidia_cublas": "nvidia-cublas",
        "nvidia_cuda_runtime": "nvidia-cuda-runtime",
        "nvidia_cudnn": "nvidia-cudnn-cu13",
        "nvidia_curand": "nvidia-curand",
        "nvidia_nccl": "nvidia-nccl-cu13",
    }.items():
        pypi_source(
            name = name,
            wheel = wheel,
            build_file = "//toolchains/cuda:nvidia_wheel.BUILD.bazel",
        )
    pypi_source(
        name = "sentencepiece",
        sdist = "sentencepiece",
        sdist_prefix = "sentencepiece/",
        build_file = "//third_party/sentencepiece:sentencepiece.BUILD.bazel",
    )

sources = module_extension(implementation = _sources_impl)
