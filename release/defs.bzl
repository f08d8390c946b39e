"""Public rules of releases: `test_gate`, what everything published depends on."""

load("//release/private:gate.bzl", _test_gate = "test_gate")

test_gate = _test_gate
