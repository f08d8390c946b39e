"""Settings that make a second Bazel build the same as this one."""

load("@git_sources//:sources.bzl", "VARIABLES")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA")

# Environment variables for mlc-llm's sources and for CUDA.
LIKE_THIS_BUILD = VARIABLES | ({} if NEEDS_CUDA else {"MLC_CUDA": "1"})
