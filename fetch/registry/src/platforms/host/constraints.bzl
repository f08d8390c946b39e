"""HOST_CONSTRAINTS: labels of the constraint values of the machine Bazel runs on."""

load("@host_platform//:constraints.bzl", _HOST_CONSTRAINTS = "HOST_CONSTRAINTS")

HOST_CONSTRAINTS = _HOST_CONSTRAINTS
