"""What is published, and the tests that it must pass: the one list, for //release:gate and for the test that the list is complete.

Without the sources of mlc-llm, what is made of TVM alone: see "Sources of mlc-llm" in README.md. With --config=cuda what runs on GPUs too.
"""

load("//fetch/git:defs.bzl", "NEEDS_SOURCES")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA")

_HAS_MLC_LLM = not NEEDS_SOURCES

_HAS_CUDA = not NEEDS_CUDA

_CUDA_IMAGES = ["tvm_runtime_cuda"] + (["mlc_llm_cuda"] if _HAS_MLC_LLM else [])

_CUDA_WHEELS = ["//wheels:tvm_cuda"]

_CUDA_TESTS = [
    "//tests/cuda:autoload",
    "//tests/images:cuda_image_test",
    "//tests/images:tvm_runtime_cuda_container_test",
    "//tests/models/cuda:cuda_libraries",
    "//tests/wheels:tvm_cuda_wheel",
] + ([
    "//tests/images:mlc_llm_cuda_container_test",
    "//tests/images:mlc_llm_cuda_image_test",
] if _HAS_MLC_LLM else [])

_MLC_LLM_IMAGES = [
    "mlc_llm",
    "mlc_llm_dev",
]

_MLC_LLM_WHEELS = ["//wheels:mlc_llm"]

_MLC_LLM_TESTS = [
    "//tests/images:mlc_llm_container_test",
    "//tests/images:mlc_llm_dev_container_test",
    "//tests/images:mlc_llm_image_test",
    "//tests/images:serve_test",
    "//tests/mlc_llm:bad_models",
    "//tests/mlc_llm:chat_config",
    "//tests/mlc_llm:command_line",
    "//tests/mlc_llm:engine",
    "//tests/mlc_llm:logits",
    "//tests/mlc_llm:package",
    "//tests/mlc_llm:pairing",
    "//tests/mlc_llm:registries",
    "//tests/mlc_llm:serve",
    "//tests/mlc_llm:tokenizers",
    "//tests/models:build_model",
    "//tests/models:build_relax",
    "//tests/models:compile_environment",
    "//tests/models:compiler",
    "//tests/models:cuda_modules",
    "//tests/models:relax_library",
    "//tests/models:tiny_model",
    "//tests/wheels:mlc_llm_libraries",
    "//tests/wheels:mlc_llm_pip",
    "//tests/wheels:mlc_llm_wheel",
]

_TVM_TESTS = [
    "//tests/images:image_test",
    "//tests/images:tvm_runtime_container_test",
    "//tests/images:tvm_runtime_dev_container_test",
    "//tests/release:license_texts",
    "//tests/runtime:errors",
    "//tests/runtime:function_registry",
    "//tests/runtime:imports",
    "//tests/runtime:loaded_libraries",
    "//tests/runtime:paged_kv_cache",
    "//tests/runtime:random_and_sort",
    "//tests/runtime:relax_programs",
    "//tests/runtime:reload",
    "//tests/runtime:sampling",
    "//tests/runtime:sessions",
    "//tests/runtime:tensor_cache",
    "//tests/runtime:tensors",
    "//tests/runtime:tir_programs",
    "//tests/runtime/dev:export",
    "//tests/wheels:build_id",
    "//tests/wheels:collect_licenses",
    "//tests/wheels:contents",
    "//tests/wheels:install_wheels",
    "//tests/wheels:libraries",
    "//tests/wheels:make_package",
    "//tests/wheels:pip",
]

# The first is what //images:run and the like take where none is named: the same with and without CUDA.
IMAGES = (_MLC_LLM_IMAGES if _HAS_MLC_LLM else []) + [
    "tvm_runtime",
    "tvm_runtime_dev",
] + (_CUDA_IMAGES if _HAS_CUDA else [])

WHEELS = (_MLC_LLM_WHEELS if _HAS_MLC_LLM else []) + (_CUDA_WHEELS if _HAS_CUDA else []) + [
    "//wheels:tvm_ffi",
    "//wheels:tvm_runtime",
]

TESTS = (_MLC_LLM_TESTS if _HAS_MLC_LLM else []) + (_CUDA_TESTS if _HAS_CUDA else []) + _TVM_TESTS
