"""What nvcc makes is the same, byte by byte, wherever work tree, cache and temporary folder are, and whatever process makes it."""

from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path

from tests.toolchains import recompile, runfiles

FILES = ("kernels.cu", "kernels.h")


class GpuObjects(unittest.TestCase):
    def test_two_folders_one_object(self):
        action = recompile.action("kernels_actions.jsonl", "CudaCompile", "tests/toolchains/kernels.cu")
        # Machine code of one architecture and PTX: each further one takes as long again, and is made in the same way.
        kept = [argument for argument in action["arguments"] if not argument.startswith("--generate-code=") or argument.endswith(("code=sm_90", "code=compute_120"))]
        self.assertEqual(len(action["arguments"]) - len(kept), 4)
        action = action | {"arguments": kept}
        repositories = (runfiles.repository("debian_cc"), runfiles.repository("cuda_nvcc"))
        with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as scratch:
            objects = []
            for place in ("one", "another/place"):
                temporary = Path(scratch, place, "tmp")
                temporary.mkdir(parents=True)
                moved = action | {"environment": action["environment"] | {"TMPDIR": str(temporary)}}
                objects.append(recompile.compile_in(Path(scratch, place), moved, FILES, repositories, []))
                self.assertEqual(list(temporary.iterdir()), [], "left behind")
            self.assertTrue(objects[0] == objects[1], "the objects differ")
            for trace in (scratch.encode(), b"tmpxft"):
                self.assertNotIn(trace, objects[0])


if __name__ == "__main__":
    unittest.main()
