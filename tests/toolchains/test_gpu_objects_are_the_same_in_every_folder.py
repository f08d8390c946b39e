"""nvcc writes the same bytes wherever work tree, cache and temporary folder are, and in every process."""

from __future__ import annotations

from pathlib import Path

from tests.toolchains import recompile, runfiles

FILES = ("kernels.cu", "kernels.h")


def test_two_folders_one_object(tmp_path: Path) -> None:
    action = recompile.action("kernels_actions.jsonl", "CudaCompile", "tests/toolchains/kernels.cu")
    # Machine code of one architecture and PTX. Others take as long again, and nvcc makes them in the same way.
    kept = [
        argument
        for argument in action["arguments"]
        if not argument.startswith("--generate-code=") or argument.endswith(("code=sm_90", "code=compute_120"))
    ]
    assert len(action["arguments"]) - len(kept) == 4
    action = action | {"arguments": kept}
    repositories = (runfiles.repository("debian_cc"), runfiles.repository("cuda_nvcc"))
    objects = []
    for place in ("one", "another/place"):
        temporary = tmp_path / place / "tmp"
        temporary.mkdir(parents=True)
        moved = action | {"environment": action["environment"] | {"TMPDIR": str(temporary)}}
        objects.append(recompile.compile_in(tmp_path / place, moved, FILES, repositories, []))
        assert list(temporary.iterdir()) == [], "left behind"
    assert objects[0] == objects[1], "the objects differ"
    for trace in (str(tmp_path).encode(), b"tmpxft"):
        assert trace not in objects[0]
