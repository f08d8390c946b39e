"""The versions of this project and of what it packages, defined only here."""

# The version of this project's next release, whose tag is "v" + VERSION.
VERSION = "0.1.0"

# The official wheel with TVM's sources, Python package and prebuilt compiler. Update it together with locks/requirements.in.
TVM_VERSION = "0.26.0"

# The apache-tvm-ffi release to compile libtvm_ffi from. TVM 0.26.0 was released against it.
TVM_FFI_VERSION = "0.1.13.post3"

# The version that mlc-llm has at the commit in locks/sources.packages.json.
MLC_LLM_VERSION = "0.20.0.dev0"
