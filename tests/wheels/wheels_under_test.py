"""The wheels under test, from the environment variables that the targets set, and checks that every wheel must pass."""

from __future__ import annotations

import base64
import csv
import email.message
import email.parser
import hashlib
import io
import os
import pathlib
import re
import subprocess
import sys
import zipfile

# Paths of the machine that built a wheel start like this; none may be in the wheel.
MACHINE_PATHS = (b"/execroot/", b"/sandbox/", b"bazel-out/", b"/home/", b"/root/", b"/tmp/")


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

    def license_headings(self) -> set[str]:
        """The parts that THIRD_PARTY_LICENSES.txt names in its headings."""
        text = self.zip.read(f"{self.dist_info}/licenses/THIRD_PARTY_LICENSES.txt").decode()
        headings = re.findall(r"^-{100}\n(.+)\n-{100}$", text, re.MULTILINE)
        return {name for heading in headings for name in heading.split(", ")}


def open_wheel(variable: str) -> Wheel:
    """The wheel that an environment variable names: a file, or a folder with one wheel in it."""
    path = pathlib.Path(os.environ[variable])
    if path.is_dir():
        (path,) = path.glob("*.whl")
    return Wheel(path)


def ours() -> dict[str, Wheel]:
    """This build's wheels: Python package → wheel."""
    return {"tvm": open_wheel("TVM_WHEEL"), "tvm_ffi": open_wheel("TVM_FFI_WHEEL")}


def official() -> dict[str, Wheel]:
    """The official wheels of the same releases: Python package → wheel."""
    return {"tvm": open_wheel("OFFICIAL_TVM_WHEEL"), "tvm_ffi": open_wheel("OFFICIAL_TVM_FFI_WHEEL")}


def record_digest(content: bytes) -> str:
    """A file's hash as RECORD writes it."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def assert_record_lists_every_file(wheel: Wheel) -> None:
    """Asserts that RECORD has the size and hash of every file (PyPA, Recording installed projects)."""
    text = wheel.zip.read(f"{wheel.dist_info}/RECORD").decode()
    record = {name: (digest, size) for name, digest, size in csv.reader(io.StringIO(text))}
    files = [name for name in wheel.names if not name.endswith("/")]
    assert sorted(record) == sorted(files)
    assert record.pop(f"{wheel.dist_info}/RECORD") == ("", "")
    for name, (digest, size) in record.items():
        content = wheel.zip.read(name)
        assert (digest, int(size)) == (record_digest(content), len(content)), name


def assert_plain_zip_entries(wheel: Wheel) -> None:
    """Asserts that no entry has a time or mode of the machine that built it."""
    for entry in wheel.zip.infolist():
        assert entry.date_time == (1980, 1, 1, 0, 0, 0), entry.filename
        # py_wheel of the upstream profile gives every file 0777; installers read only the executable bit.
        assert entry.external_attr >> 16 & 0o7777 in (0o644, 0o755, 0o777), entry.filename


def check_wheel_contents(path: pathlib.Path, ignored: str) -> subprocess.CompletedProcess[str]:
    """Runs check-wheel-contents without the checks in `ignored`, a list with commas."""
    return subprocess.run(
        [sys.executable, "-m", "check_wheel_contents", f"--ignore={ignored}", str(path)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )


def pip(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the locked pip without the user's settings."""
    variables = {
        "PYTHONPATH": os.environ["PIP_SITE"],
        "PIP_CONFIG_FILE": os.devnull,
        "HOME": os.environ["TEST_TMPDIR"],
    }
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=variables | environment)
