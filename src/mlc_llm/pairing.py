"""Rejects a TVM from another build before loading any of it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pathlib

from . import versions  # type: ignore[attr-defined]  # written by the build


class MismatchError(ImportError):
    """mlc-llm and TVM come from different builds. The message names both versions, TVM's folder, and the fix."""


def check() -> None:
    """Compares the versions of TVM and its FFI that Python would import with those that mlc-llm was built with.

    Raises:
        MismatchError: one is missing or has another version.
    """
    for package, distribution, expected in (
        ("tvm_ffi", "apache-tvm-ffi", versions.TVM_FFI),
        ("tvm", "apache-tvm", versions.TVM),
    ):
        folder, found = _found(package, distribution)
        if found != expected:
            raise MismatchError(
                f"mlc-llm {own_version() or '(a copy without metadata)'} was built with {distribution} {expected},"
                f" found {found or 'none'}{f' in {folder}' if folder else ''}: install the {distribution} wheel of the"
                f" same build: pip install {distribution}=={expected}"
            )


def own_version() -> str | None:
    """Returns the version of this copy of mlc-llm, or None if it has no metadata, like that for compiling models."""
    # `versions` cannot contain it, because it includes a hash of this package's content.
    return _version("mlc-llm", pathlib.Path(__file__).parents[2])


def install() -> None:
    """Makes mlc_llm.__version__ this copy's version. Upstream's is a placeholder. Imports mlc_llm."""
    from mlc_llm import libinfo

    libinfo.__version__ = own_version() or libinfo.__version__


def _version(distribution: str, folder: pathlib.Path) -> str | None:
    for each in importlib.metadata.distributions(name=distribution, path=[str(folder)]):
        return each.version
    return None


def _found(package: str, distribution: str) -> tuple[str, str]:
    """Returns the folder that Python would import a package from, and its version there, or empty strings."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        return "", ""
    folder = pathlib.Path(spec.origin).parent.parent
    return str(folder), _version(distribution, folder) or "a copy without metadata"
