"""Public rules of releases: `test_gate`, what everything published depends on, and `describe_release`, what a release says of itself."""

load("//release/private:describe.bzl", _describe_release = "describe_release")
load("//release/private:document.bzl", _document = "document")
load("//release/private:gate.bzl", _test_gate = "test_gate")

describe_release = _describe_release
document = _document
test_gate = _test_gate
