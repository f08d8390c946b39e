"""`tools/bazel run //images:push` sends nothing while the runtime library is broken, and pushes once it is fixed.

A second workspace leaves the sort functions out of libtvm_runtime_extra. It still compiles, links and goes into wheel
and images: only the tests can tell.
"""

from __future__ import annotations

import subprocess
import sys
import unittest

from oci.registry_server import Proxy, registry
from release.private.reproduce.second_workspace import SecondWorkspace
from tests.proofs import proof

OVERLAY = "third_party/tvm/tvm.BUILD.bazel"
LEFT_OUT = '        "tvm/src/runtime/extra/contrib/sort/*.cc",\n'


class BrokenRuntimeTest(unittest.TestCase):
    def test_a_broken_runtime_library_is_not_pushed(self) -> None:
        place = proof.place()
        (place / "registry").mkdir()
        with (
            registry(arguments.registry, place / "registry") as port,
            Proxy(port) as server,
            SecondWorkspace(arguments.workspace, place) as second,
        ):
            overlay = second.root / OVERLAY
            whole = overlay.read_text()
            self.assertEqual(whole.count(LEFT_OUT), 1)
            self.refuse_an_untested_artifact(second)
            push = ["--repository", f"{server.host}/team/tvm_runtime", "--tag", "broken", "--unsigned"]

            overlay.write_text(whole.replace(LEFT_OUT, ""))
            refused = second.bazel(
                "run", *proof.QUIET, "//images:push", "--", *push, check=False, stderr=subprocess.PIPE
            )
            sys.stderr.write(refused.stderr[-6000:])
            self.assertNotEqual(refused.returncode, 0)
            self.assertRegex(refused.stderr, r"//tests/\S+: exit status 1. Nothing is published")
            self.assertNotIn("Running command line", refused.stderr)
            self.assertEqual(server.requests, [])

            overlay.write_text(whole)
            pushed = second.bazel(
                "run", *proof.QUIET, "//images:push", "--", *push, check=False, stderr=subprocess.PIPE
            )
            self.assertEqual(pushed.returncode, 0, pushed.stderr[-6000:])
            self.assertEqual(server.sent("PUT")[-1].path, "/v2/team/tvm_runtime/manifests/broken")
            self.assertIn(f"{server.host}/team/tvm_runtime:broken", pushed.stdout)

    def refuse_an_untested_artifact(self, second: SecondWorkspace) -> None:
        """The gate refuses an artifact that none of its tests reads."""
        release = second.root / "release/BUILD.bazel"
        whole = release.read_text()
        gate = 'tests = ["//tests:gate"]'
        self.assertEqual(whole.count(gate), 1)
        # Tests of the runtime alone, which take no image as data; only tests may name them.
        release.write_text(whole.replace(gate, 'tests = ["//tests/runtime:gate"]'))
        command = ["build", *proof.QUIET, "--nobuild", "--check_visibility=false", "//release:gate"]
        refused = second.bazel(*command, check=False, stderr=subprocess.PIPE)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn(
            "no gating test has images/tvm_runtime/index as data, so it would be published untested",
            refused.stderr,
        )
        release.write_text(whole)


if __name__ == "__main__":
    arguments = proof.parser(__doc__, registry=True).parse_args()
    unittest.main(argv=sys.argv[:1])
