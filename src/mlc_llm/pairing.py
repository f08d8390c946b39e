"""Refuses to run beside another TVM than the one of the same build, before anything of it is loaded."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pathlib

from . import versions


class MismatchError(ImportError):
    """mlc-llm and TVM do not come from one build; one line that names both versions, where TVM is, and the command that mends it."""


def check() -> None:
    """Compares the versions of TVM and its FFI where Python finds them with those that this mlc-llm was built with.

    Raises:
        MismatchError: one is missing, or another.
    """
    for package, distribution, expected in (
        ("tvm_ffi", "apache-tvm-ffi", versions.TVM_FFI),
        ("tvm", "apache-tvm", versions.TVM),
    ):
        folder, found = _found(package, distribution)
        if found != expected:
            raise MismatchError(
                f"mlc-llm {versions.MLC_LLM} was built with {distribution} {expected}, found {found or 'none'}{f' in {folder}' if folder else ''}: "
                f"install the {distribution} wheel of the same build: pip install {distribution}=={expected}"
            )


def _found(package: str, distribution: str) -> tuple[str, str]:
    """The folder that Python would import a package from, and the version of the distribution there; empty where there is none."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        return "", ""
    folder = str(pathlib.Path(spec.origin).parent.parent)
    for each in importlib.metadata.distributions(name=distribution, path=[folder]):
        return folder, each.version
    return folder, "a copy without metadata"
