"""A runtime library that is broken stops `tools/bazel run //images:push` before any byte leaves; mended, the same
command pushes.

In a second workspace the sort functions are left out of libtvm_runtime_extra: it compiles, links and is packed into
wheel and images, and
only the tests can tell.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import unittest

from oci.registry_server import Proxy, registry
from release.private.reproduce.second_workspace import SecondWorkspace

OVERLAY = "third_party/tvm/tvm.BUILD.bazel"
LEFT_OUT = '        "tvm/src/runtime/extra/contrib/sort/*.cc",\n'
OPTIONS = ["--color=no", "--curses=no", "--show_progress_rate_limit=30"]


class BrokenRuntimeTest(unittest.TestCase):
    def test_a_broken_runtime_library_is_not_pushed(self) -> None:
        place = pathlib.Path(os.environ["TEST_TMPDIR"])
        (place / "registry").mkdir()
        workspace = pathlib.Path(arguments.workspace_file).resolve().parent
        with (
            registry(arguments.registry, place / "registry") as port,
            Proxy(port) as server,
            SecondWorkspace(workspace, place) as second,
        ):
            overlay = second.root / OVERLAY
            whole = overlay.read_text()
            self.assertEqual(whole.count(LEFT_OUT), 1)
            self.refuse_what_no_test_takes(second)
            push = ["--repository", f"{server.host}/team/tvm_runtime", "--tag", "broken", "--unsigned"]

            overlay.write_text(whole.replace(LEFT_OUT, ""))
            refused = second.bazel("run", *OPTIONS, "//images:push", "--", *push, check=False, stderr=subprocess.PIPE)
            sys.stderr.write(refused.stderr[-6000:])
            self.assertNotEqual(refused.returncode, 0)
            self.assertRegex(refused.stderr, r"//tests/\S+: exit status 1. Nothing is published")
            self.assertNotIn("Running command line", refused.stderr)
            self.assertEqual(server.requests, [])

            overlay.write_text(whole)
            pushed = second.bazel("run", *OPTIONS, "//images:push", "--", *push, check=False, stderr=subprocess.PIPE)
            self.assertEqual(pushed.returncode, 0, pushed.stderr[-6000:])
            self.assertEqual(server.sent("PUT")[-1].path, "/v2/team/tvm_runtime/manifests/broken")
            self.assertIn(f"{server.host}/team/tvm_runtime:broken", pushed.stdout)

    def refuse_what_no_test_takes(self, second: SecondWorkspace) -> None:
        """A gate is not made over an artifact that none of its tests looks at."""
        published = second.root / "release/published.bzl"
        whole = published.read_text()
        self.assertEqual(whole.count("\nTESTS = "), 1)
        published.write_text(whole.split("\nTESTS = ")[0] + '\nTESTS = ["//tests/runtime:imports"]\n')
        refused = second.bazel("build", *OPTIONS, "--nobuild", "//release:gate", check=False, stderr=subprocess.PIPE)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn(
            "none of its tests takes images/tvm_runtime/tvm_runtime as data, so nothing would be tested of it",
            refused.stderr,
        )
        published.write_text(whole)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace_file", required=True, help="a file at the workspace's root")
    parser.add_argument("--registry", required=True, help="docker-registry")
    arguments = parser.parse_args()
    unittest.main(argv=sys.argv[:1])
