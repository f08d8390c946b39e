"""Versions of the wheels: upstream's release, then a local version (PEP 440) that names this build and no other."""

load("@build_id//:build_id.bzl", "BUILD_ID")
load("//:version.bzl", "MLC_LLM_VERSION", "TVM_FFI_VERSION", "TVM_VERSION", "VERSION")

# The letter keeps an all-digit id from being read as a number, which would lose leading zeros.
LOCAL_VERSION = "mlc{}.b{}".format(VERSION, BUILD_ID)

TVM_WHEEL_VERSION = "{}+{}".format(TVM_VERSION, LOCAL_VERSION)

TVM_FFI_WHEEL_VERSION = "{}+{}".format(TVM_FFI_VERSION, LOCAL_VERSION)

MLC_LLM_WHEEL_VERSION = "{}+{}".format(MLC_LLM_VERSION, LOCAL_VERSION)
