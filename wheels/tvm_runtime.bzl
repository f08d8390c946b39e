"""The wheel apache-tvm."""

load("@rules_python//python:packaging.bzl", "py_wheel")
load("//wheels:versions.bzl", "TVM_FFI_WHEEL_VERSION", "TVM_WHEEL_VERSION")

# glibc 2.27 and GCC 8's libstdc++ are the newest symbols used; tests/wheels holds auditwheel to it. See README.md.
PLATFORM = "manylinux_2_28_x86_64"

def tvm_runtime_wheel(name, **kwargs):
    """TVM, its runtime compiled here, its compiler library the official one.

    Args:
        name: the target.
        **kwargs: further attributes of py_wheel: `compress`.
    """
    py_wheel(
        name = name,
        author = "Apache TVM contributors; built by mlc_bazel",
        classifiers = [
            "License :: OSI Approved :: Apache Software License",
            "Programming Language :: Python :: 3",
        ],
        description_content_type = "text/markdown",
        description_file = "//wheels:tvm_runtime.md",
        distribution = "apache-tvm",
        extra_distinfo_files = {
            "//wheels:tvm_linked_licenses": "licenses/THIRD_PARTY_LICENSES.txt",
            "@tvm//:LICENSE": "licenses/LICENSE",
            "@tvm//:tvm/NOTICE": "licenses/NOTICE",
        },
        extra_requires = {
            "popen-pool": [
                "psutil",
                "cloudpickle",
            ],
            "rpc": [
                "tornado",
                "psutil",
                "cloudpickle",
            ],
        },
        license = "Apache-2.0",
        platform = PLATFORM,
        project_urls = {"Homepage": "https://tvm.apache.org/"},
        python_requires = ">=3.10",
        # The exact pin that no other build of tvm_ffi can satisfy.
        requires = [
            "apache-tvm-ffi==" + TVM_FFI_WHEEL_VERSION,
            "ml-dtypes",
            "numpy",
            "typing-extensions",
        ],
        strip_path_prefixes = [
            "third_party/tvm/libtvm_runtime_extra/",
            "third_party/tvm/libtvm_runtime/",
        ],
        summary = "Apache TVM, its runtime compiled from source by mlc_bazel",
        version = TVM_WHEEL_VERSION,
        deps = [
            "//third_party/tvm:libtvm_runtime",
            "//third_party/tvm:libtvm_runtime_extra",
            "@tvm//:python",
        ],
        **kwargs
    )
