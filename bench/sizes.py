"""Part `sizes`: wheels and libraries against the official ones of the same release, and the layers of the images.

With --config=cuda also the wheel and images for GPUs, and the cost of their options.
"""

from __future__ import annotations

import argparse
import hashlib
import zipfile
from pathlib import Path

import commands
import report

from fetch import archives
from oci.layout import Image

# Our wheel → the official wheel of the same release.
WHEELS = {"//wheels/tvm_ffi": "@pypi//apache_tvm_ffi:whl", "//wheels/tvm": "@pypi//apache_tvm:whl"}
IMAGES = ("//images:tvm_runtime", "//images:tvm_runtime_dev")
# With mlc-llm's sources. No package registry has an official wheel to compare with.
MLC_LLM_WHEEL = "//wheels/mlc_llm"
MLC_LLM_IMAGES = ("//images:mlc_llm", "//images:mlc_llm_dev", "//images:mlc_llm_serve")
# With --config=cuda.
CUDA_WHEEL = "//wheels/tvm_cuda"
CUDA_IMAGE = "//images:tvm_runtime_cuda"
MLC_LLM_CUDA_IMAGES = ("//images:mlc_llm_cuda", "//images:mlc_llm_serve_cuda_nccl")
# Option → whether it adds or removes, and the layer concerned.
CUDA_OPTIONS = {
    "--//images/tvm_runtime_cuda:with_cudnn=True": ("+", "//images/tvm_runtime_cuda:nvidia_cudnn_cu13"),
    "--//images/tvm_runtime_cuda:with_nccl=False": ("−", "//images/tvm_runtime_cuda:nvidia_nccl_cu13"),
}


def libraries(wheel: Path) -> dict[str, zipfile.ZipInfo]:
    """Path → entry of the shared libraries in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry for entry in archive.infolist() if entry.filename.endswith(".so")}


def wheel_rows(ours: Path, official: Path | None) -> list[list[str]]:
    """A row for the wheel and one per library, marked if it is the official file or if there is no official one."""
    name = f"**{ours.name.split('-')[0]}** (wheel)"
    if official is None:
        sizes = [
            (name, ours.stat().st_size),
            *((path, entry.file_size) for path, entry in sorted(libraries(ours).items())),
        ]
        return [[path, report.size(size), "none", ""] for path, size in sizes]
    rows = [_row(name, ours.stat().st_size, official.stat().st_size)]
    theirs = libraries(official)
    for name, mine in sorted(libraries(ours).items()):
        rows.append(_row(name, mine.file_size, theirs[name].file_size))
        if mine.CRC == theirs[name].CRC:
            rows[-1][-1] = "same file"
    return rows


def _row(name: str, ours: int, official: int) -> list[str]:
    return [name, report.size(ours), report.size(official), report.ratio(ours, official)]


def uncompressed(path: Path) -> int:
    """Size of a layer's archive before compression, in bytes."""
    with open(path, "rb") as file:
        content = archives.decompressed(file, path.name)
        return sum(map(len, iter(lambda: content.read(1 << 20), b"")))


def layer_rows(layout: Path, names: dict[str, str]) -> list[list[str]]:
    """A row for each layer of the only image in an OCI layout (image-spec, image-layout.md), and their sum.

    Args:
      layout: its folder.
      names: digest → name of a layer.
    """
    image = Image(layout)
    sizes = [
        (names.get(layer["digest"], layer["digest"][7:19]), layer["size"], uncompressed(image.blob(layer["digest"])))
        for layer in image.manifest["layers"]
    ]
    sizes.append(("**all layers**", sum(size for _, size, _ in sizes), sum(size for *_, size in sizes)))
    return [[name, report.size(packed), report.size(unpacked)] for name, packed, unpacked in sizes]


def option_rows(layers: dict[str, tuple[str, Path]]) -> list[list[str]]:
    """A row for each option of an image: what it adds ("+") or removes ("−").

    Args:
      layers: option → its sign and the layer's file.
    """
    return [
        [f"`{option}`", sign + report.size(layer.stat().st_size), sign + report.size(uncompressed(layer))]
        for option, (sign, layer) in layers.items()
    ]


def _layer_names(workspace: commands.Bazel, image: str) -> dict[str, str]:
    """Digest → target, for the layers that the image adds to its base."""
    actual = workspace.output("query", f"labels(actual, {image})").strip()
    targets = workspace.output("query", f"labels(tars, {actual})").split()
    return {"sha256:" + hashlib.sha256(workspace.file(target).read_bytes()).hexdigest(): target for target in targets}


def measure(workspace: commands.Bazel, options: argparse.Namespace) -> tuple[str, str]:
    """This part's tables, and the versions of what was measured."""
    del options
    commands.say("building wheels and images")
    wheels: dict[str, str | None] = {**WHEELS}
    images: tuple[str, ...] = IMAGES
    if workspace.compatible(MLC_LLM_WHEEL):
        wheels[MLC_LLM_WHEEL] = None
        images += MLC_LLM_IMAGES
    with_cuda = workspace.compatible(CUDA_WHEEL)
    if with_cuda:
        wheels[CUDA_WHEEL] = None
        images += (CUDA_IMAGE,) + (MLC_LLM_CUDA_IMAGES if MLC_LLM_WHEEL in wheels else ())
    workspace.output("build", *wheels, *images)
    rows, versions = [], []
    for ours, official in wheels.items():
        pair = workspace.file(ours), workspace.file(official) if official else None
        rows += wheel_rows(*pair)
        versions.append(" ".join(pair[0].name.split("-")[:2]))
    text = report.table(["wheels, and the libraries in them", "ours", "official", "ours / official"], rows)
    names: dict[str, str] = {}
    for image in images:
        names |= _layer_names(workspace, image)
        text += "\n" + report.table(
            [f"layers of `{image}`", "compressed", "unpacked"], layer_rows(workspace.file(image), names)
        )
    if with_cuda:
        layers = {option: (sign, workspace.file(layer)) for option, (sign, layer) in CUDA_OPTIONS.items()}
        text += "\n" + report.table([f"options of `{CUDA_IMAGE}`", "compressed", "unpacked"], option_rows(layers))
    return text, ", ".join(versions)
