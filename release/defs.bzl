"""Public rules of releases.

Everything published depends on `test_gate`; `gating_tests` groups tests for it; `describe_release` writes a release's documents.
"""

load("//release/private:describe.bzl", _describe_release = "describe_release")
load("//release/private:document.bzl", _document = "document")
load("//release/private:gate.bzl", _gating_tests = "gating_tests", _test_gate = "test_gate")

describe_release = _describe_release
document = _document
gating_tests = _gating_tests
test_gate = _test_gate
