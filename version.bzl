"""The one place that defines versions: this project's and those of what it packages."""

# This project's release; a release tag is "v" + VERSION.
VERSION = "0.1.0"

# Official wheel that supplies TVM's sources, Python package and prebuilt compiler. Update together with locks/requirements.in.
TVM_VERSION = "0.26.0"

# The apache-tvm-ffi release whose libtvm_ffi is compiled; TVM 0.26.0 was released against it.
TVM_FFI_VERSION = "0.1.13.post3"

# mlc-llm's version at the commit in locks/sources.packages.json.
MLC_LLM_VERSION = "0.20.0.dev0"
