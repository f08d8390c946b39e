"""Versions of the wheels: upstream's release, then a local version (PEP 440) that names this build and no other."""

load("@build_id//:build_id.bzl", "MLC_LLM_BUILD_ID", "TVM_BUILD_ID", "TVM_CUDA_BUILD_ID")
load("//:version.bzl", "MLC_LLM_VERSION", "TVM_FFI_VERSION", "TVM_VERSION", "VERSION")

def _version(upstream, build_id, variant = ""):
    # The letter keeps an all-digit id from being read as a number, which would lose leading zeros.
    return "{}+mlc{}{}.b{}".format(upstream, VERSION, variant, build_id)

MLC_LLM_WHEEL_VERSION = _version(MLC_LLM_VERSION, MLC_LLM_BUILD_ID)

# cu130: what it links with, CUDA 13.0.
TVM_CUDA_WHEEL_VERSION = _version(TVM_VERSION, TVM_CUDA_BUILD_ID, ".cu130")

TVM_FFI_WHEEL_VERSION = _version(TVM_FFI_VERSION, TVM_BUILD_ID)

TVM_WHEEL_VERSION = _version(TVM_VERSION, TVM_BUILD_ID)
