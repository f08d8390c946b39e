"""What a second Bazel is given so that it builds what this one builds."""

load("@git_sources//:sources.bzl", "VARIABLES")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA")

# Environment variables: mlc-llm's sources, CUDA.
LIKE_THIS_BUILD = VARIABLES | ({} if NEEDS_CUDA else {"MLC_CUDA": "1"})
