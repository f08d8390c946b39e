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


def _wheel(variable: str) -> Wheel:
    return Wheel(pathlib.Path(os.environ[variable]))


def ours() -> dict[str, Wheel]:
    """This build's wheels by the name of their Python package."""
    return {"tvm": _wheel("TVM_WHEEL"), "tvm_ffi": _wheel("TVM_FFI_WHEEL")}


def official() -> dict[str, Wheel]:
    """The official wheels of the same releases."""
    return {"tvm": _wheel("OFFICIAL_TVM_WHEEL"), "tvm_ffi": _wheel("OFFICIAL_TVM_FFI_WHEEL")}
