"""What is published, and the tests that it must pass: the one list, for //release:gate and for the test that the list is complete."""

IMAGES = [
    "tvm_runtime",
    "tvm_runtime_dev",
]

WHEELS = [
    "//wheels:tvm_ffi",
    "//wheels:tvm_runtime",
]

TESTS = [
    "//tests/images:image_test",
    "//tests/images:tvm_runtime_container_test",
    "//tests/images:tvm_runtime_dev_container_test",
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
    "//tests/wheels:contents",
    "//tests/wheels:libraries",
    "//tests/wheels:pip",
]
