"""The wheels that the tests of this folder look at, from the environment that their targets set."""

from __future__ import annotations

import email.message
import email.parser
import os
import pathlib
import zipfile


class Wheel:
    """A wheel file, opened for reading."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.zip = zipfile.ZipFile(path)
        self.names = self.zip.namelist()
        (self.dist_info,) = {name.split("/")[0] for name in self.names if name.split("/")[0].endswith(".dist-info")}

    def metadata(self, file: str = "METADATA") -> email.message.Message:
        """METADATA or WHEEL of the .dist-info folder, both in e-mail header form."""
        return email.parser.BytesParser().parsebytes(self.zip.read(f"{self.dist_info}/{file}"))

    def libraries(self) -> list[str]:
        return [name for name in self.names if name.endswith(".so")]


def open_wheel(variable: str) -> Wheel:
    """The wheel at the path that an environment variable holds: a file, or the folder that a wheel of this build is
    alone in.
    """
    path = pathlib.Path(os.environ[variable])
    if path.is_dir():
        (path,) = path.glob("*.whl")
    return Wheel(path)


def ours() -> dict[str, Wheel]:
    """This build's wheels by the name of their Python package."""
    return {"tvm": open_wheel("TVM_WHEEL"), "tvm_ffi": open_wheel("TVM_FFI_WHEEL")}


def official() -> dict[str, Wheel]:
    """The official wheels of the same releases."""
    return {"tvm": open_wheel("OFFICIAL_TVM_WHEEL"), "tvm_ffi": open_wheel("OFFICIAL_TVM_FFI_WHEEL")}
