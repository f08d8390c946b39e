"""pip and uv install this build's wheels from its index, on the Python that runs this file."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import pathlib
import platform
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator

import pytest

INDEX = pathlib.Path(os.environ["INDEX"]).absolute()
DEPENDENCIES = [pathlib.Path(path).absolute() for path in os.environ["DEPENDENCY_WHEELS"].split()]
VERSION = "{}.{}".format(*sys.version_info)
TAG = "cp{}{}".format(*sys.version_info)

PROGRAM = """\
import numpy, tvm, tvm_ffi
assert tvm.__file__.startswith({folder!r}) and tvm_ffi.__file__.startswith({folder!r}), tvm.__file__
from tvm import relax
builder = relax.BlockBuilder()
x = relax.Var("x", relax.TensorType((3, 4), "float32"))
with builder.function("main", [x]):
    builder.emit_func_output(builder.emit(relax.op.matmul(x, relax.op.permute_dims(x))))
machine = relax.VirtualMachine(relax.build(builder.get(), target="llvm"), tvm.cpu())
data = numpy.arange(12, dtype="float32").reshape(3, 4)
numpy.testing.assert_allclose(machine["main"](tvm.runtime.tensor(data)).numpy(), data @ data.T)
try:
    tvm.runtime.convert(lambda: int("x"))()
except ValueError:
    print("works")
"""


def pip(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pip", *map(str, arguments), "--isolated", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": os.environ["PIP_SITE"], "HOME": os.environ["TEST_TMPDIR"], "PATH": "", **environment},
    )


def links(folder: pathlib.Path) -> pathlib.Path:
    """A folder of the wheels that ours require."""
    folder.mkdir()
    for wheel in DEPENDENCIES:
        (folder / wheel.name).symlink_to(wheel)
    return folder


def sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def works(folder: pathlib.Path) -> None:
    """Runs TVM out of a folder, from a file, because TVMScript and tracebacks read sources."""
    program = folder.parent / "program.py"
    program.write_text(PROGRAM.format(folder=str(folder)))
    ran = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(folder), "HOME": str(folder.parent), "TVM_NUM_THREADS": "1"},
    )
    assert (ran.returncode, ran.stdout) == (0, "works\n"), ran.stderr


def test_pip_installs_from_a_file_of_hashes(tmp_path: pathlib.Path) -> None:
    here = f"*_{platform.machine()}.whl"
    wheels = [*INDEX.glob(f"wheels/apache_tvm-{here}"), *INDEX.glob(f"wheels/apache_tvm_ffi-*-{TAG}-{TAG}-{here}")]
    assert len(wheels) == 2
    lines = [
        "{}=={} --hash=sha256:{}".format(*wheel.name.split("-")[:2], sha256(wheel))
        for wheel in (*wheels, *DEPENDENCIES)
    ]
    (tmp_path / "requirements.txt").write_text("\n".join(lines))
    folder = tmp_path / "installed"
    done = pip(
        "install",
        "--require-hashes",
        f"--index-url={(INDEX / 'simple').as_uri()}",
        f"--find-links={links(tmp_path / 'links')}",
        f"--requirement={tmp_path / 'requirements.txt'}",
        f"--target={folder}",
    )
    assert done.returncode == 0, done.stderr
    works(folder)


def test_uv_installs_it(tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(os.environ["UV_WHEEL"]) as wheel:
        (name,) = [each for each in wheel.namelist() if each.endswith(".data/scripts/uv")]
        uv = tmp_path / "uv"
        uv.write_bytes(wheel.read(name))
    uv.chmod(0o755)
    folder = tmp_path / "installed"
    done = subprocess.run(
        [
            str(uv),
            "pip",
            "install",
            "--no-config",
            "--no-cache",
            "--offline",
            f"--python={sys.executable}",
            f"--target={folder}",
        ]
        + [f"--default-index={(INDEX / 'simple').as_uri()}", f"--find-links={links(tmp_path / 'links')}", "apache-tvm"],
        capture_output=True,
        text=True,
        env={"HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    works(folder)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(
    ("python", "abi", "tag"),
    [(VERSION, TAG, f"{TAG}-{TAG}"), ("3.14", "cp314t", "cp314-cp314t"), ("3.11", "cp311", "cp311-cp311")],
    ids=["own", "free-threaded", "of images"],
)
def test_each_python_and_processor_gets_its_own_module(
    python: str, abi: str, tag: str, machine: str, tmp_path: pathlib.Path
) -> None:
    done = pip(
        *("download", "--no-deps", f"--dest={tmp_path}", "--only-binary=:all:", f"--platform=manylinux_2_28_{machine}"),
        *(f"--python-version={python}", f"--abi={abi}", f"--index-url={(INDEX / 'simple').as_uri()}", "apache-tvm-ffi"),
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.iterdir()
    assert f"-{tag}-" in wheel.name and wheel.name.endswith(f"_{machine}.whl")


@pytest.mark.parametrize("python", ["3.9", "3.15"])
def test_another_python_is_told_which_ones_are_supported(python: str, tmp_path: pathlib.Path) -> None:
    done = pip(
        *("download", "--no-deps", f"--dest={tmp_path}", "--only-binary=:all:", f"--python-version={python}"),
        *(f"--index-url={(INDEX / 'simple').as_uri()}", "apache-tvm"),
    )
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if "require a different python version" in line]
    assert "Requires-Python <3.15,>=3.10" in line.replace(">=3.10,<3.15", "<3.15,>=3.10")


class _Server(http.server.SimpleHTTPRequestHandler):
    """Serves the index in the form that a client asks for (PEP 691), as wheels/README.md configures a server."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments, directory=str(INDEX))  # type: ignore[arg-type]

    def do_GET(self) -> None:
        asked.append(self.path)
        if self.path.endswith("/") and "application/vnd.pypi.simple.v1+json" in self.headers["Accept"]:
            self.path += "index.v1.json"
            asked.append(self.path)
        super().do_GET()

    def guess_type(self, path: str | os.PathLike[str]) -> str:
        is_json = str(path).endswith(".v1.json")
        return "application/vnd.pypi.simple.v1+json" if is_json else super().guess_type(path)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


asked: list[str] = []


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/simple"
        running.shutdown()
        thread.join()


def test_pip_reads_the_json_form_and_only_the_metadata(server: str, tmp_path: pathlib.Path) -> None:
    asked.clear()
    report = tmp_path / "report.json"
    done = pip(
        *("install", "--dry-run", "--ignore-installed", f"--report={report}", f"--target={tmp_path / 'installed'}"),
        *(f"--index-url={server}", f"--find-links={links(tmp_path / 'links')}", "apache-tvm"),
    )
    assert done.returncode == 0, done.stderr
    installed = {each["metadata"]["name"]: each for each in json.loads(report.read_text())["install"]}
    assert {"apache-tvm", "apache-tvm-ffi", "numpy"} <= installed.keys()
    assert f"-{TAG}-{TAG}-" in installed["apache-tvm-ffi"]["download_info"]["url"]
    assert "/simple/apache-tvm/index.v1.json" in asked
    assert any(path.endswith(".whl.metadata") for path in asked)
    assert not any(path.endswith(".whl") for path in asked), asked
