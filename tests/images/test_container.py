"""An image does in a real container what it promises."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import signal
import sys
import tempfile
from typing import Any

import pytest

from tests.images.containers import Container

TESTS = os.environ["TESTS"].split()
WHEELS = [wheel for folder in os.environ["WHEELS"].split() for wheel in pathlib.Path(folder).glob("*.whl")]

HAS_CUDA = any(wheel.name.startswith("apache_tvm_cuda-") for wheel in WHEELS)

# Libraries that others in the image name and that the dynamic linker does not find, and why that is right.
UNMET = {
    "libcuda.so.1": "comes with the driver, from outside",
    "libcudart.so.13": "loaded by tvm_cuda before those that need it",
    "libcudnn.so.9": "an option of the image",
    "libtvm_runtime.so": "loaded by `import tvm` before those that need it",
    "libtvm_runtime_extra.so": "loaded by tvm_cuda before those that need it",
    "libnsl.so.2": "only the module nis needs it; left out on purpose",
    "libtirpc.so.3": "as libnsl.so.2",
    "libtvm_ffi.so": "loaded by `import tvm_ffi` before those that need it",
}


def test_its_own_tests_pass(container: Container, folder: pathlib.Path) -> None:
    command = ("pytest", "-q", os.environ["TESTS_FOLDER"], "--junit-xml=/workspace/report.xml", "--color=no")
    report = container.said(*command, mounts={"/workspace": folder})
    sys.stderr.write(report)
    text = (folder / "report.xml").read_text()
    assert re.search('errors="0" failures="0" skipped="0" tests="[1-9]', text)
    for test in TESTS:
        if pathlib.Path(test).name.startswith("test_"):
            assert pathlib.Path(test).stem in text, "a test file of this repository did not run in the image"


def test_smoke_finds_everything_working(container: Container) -> None:
    report = container.said("smoke")
    assert "smoke: everything works" in report
    assert "equals NumPy's" in report
    assert ("no NVIDIA driver on this machine" if HAS_CUDA else "cuda: none; not in this image") in report
    assert ("mlc-llm answers" in report) == any(wheel.name.startswith("mlc_llm-") for wheel in WHEELS), report


OPENSHIFT = {"user": 1000660000, "group": 0}
"""It gives each project users of its own, in group 0."""


@pytest.mark.parametrize(
    "options",
    [
        {"user": 4711},
        {"read_only": True},
        {"user": 4711, "read_only": True},
        OPENSHIFT,
        {**OPENSHIFT, "read_only": True},
    ],
)
def test_smoke_needs_no_home_folder(container: Container, options: dict[str, Any]) -> None:
    """It works on a read-only root and for any user, even one unknown to the image, as images/README.md says."""
    assert "smoke: everything works" in container.said("smoke", **options)


def test_any_user_of_group_0_writes_where_the_images_user_does(container: Container) -> None:
    places = [
        f"{folder}/written" for folder in ("/home/mlc", "/home/mlc/.cache", "/src/mlc-llm/python/dist", "/workspace")
    ]
    container.said("touch", *places, **OPENSHIFT)
    container.said("rm", *places, **OPENSHIFT)


def test_a_signal_ends_every_command(container: Container) -> None:
    """PID 1 has no default action for signals: a command in its place would go on."""
    container.said("sh", "-c", "kill -TERM 1; sleep 60", code=128 + signal.SIGTERM)


def test_no_zombies_are_left(container: Container) -> None:
    """An orphan belongs to PID 1, which collects it when it ends."""
    program = """\
import os, pathlib, time
read, write = os.pipe()
if os.fork() == 0:
    orphan = os.fork()
    if orphan:
        os.write(write, str(orphan).encode())
    os._exit(0)
os.wait()
orphan = pathlib.Path("/proc", os.read(read, 20).decode())
while orphan.exists():
    time.sleep(0.01)
"""
    container.said("timeout", "60", "python", "-c", program)


def test_build_leaves_the_wheels_that_the_image_was_made_of(container: Container, folder: pathlib.Path) -> None:
    container.said("build", mounts={"/src/mlc-llm/python/dist": folder})
    expected = {wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in WHEELS}
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    assert found == expected
    assert len(found) == len(WHEELS)


def test_build_says_why_it_cannot_write(container: Container) -> None:
    message = container.said("build", "--output=/usr/share/wheels", code=1, read_only=True)
    assert f"cannot write to /usr/share/wheels as uid {container.uid}" in message
    assert "--output" in message


def test_help_names_the_commands(container: Container) -> None:
    for word in ("smoke", "build", "pytest /tests", "/workspace"):
        assert word in container.said("--help")


def test_any_other_command_runs_as_given_and_its_exit_code_is_the_containers(container: Container) -> None:
    assert container.said("sh", "-c", 'echo $0 "$@"; exit 7', "one", "two three", code=7) == "one two three\n"
    assert "entrypoint: nosuch: no such command" in container.said("nosuch", code=127)


def test_without_a_command_there_is_a_shell_in_the_workspace_for_an_ordinary_user(container: Container) -> None:
    script = "pwd; id -u; id -un; echo $HOME; type python3 awk tar\n"
    with tempfile.TemporaryFile("w+") as stdin:
        stdin.write(script)
        stdin.seek(0)
        lines = container.said(stdin=stdin).splitlines()
    assert lines[:4] == ["/workspace", str(container.uid), "root" if container.rootless else "mlc", "/home/mlc"]
    assert len(lines) == 7, lines


def test_what_is_mounted_at_the_workspace_is_seen(container: Container, folder: pathlib.Path) -> None:
    (folder / "model.bin").write_bytes(b"weights")
    assert container.said("cat", "model.bin", mounts={"/workspace": folder}) == "weights"


def test_tvm_works_on_a_read_only_root(container: Container) -> None:
    program = "import tvm; print(tvm.runtime.tensor([1.0, 2.0]).numpy().sum())"
    assert container.said("python", "-c", program, read_only=True) == "3.0\n"
    container.said("touch", "/home/mlc/x", read_only=True, code=1)


def test_the_gpu_half_says_what_is_missing(container: Container) -> None:
    said = container.said("python3", "-m", "tvm_cuda", code=1)
    if HAS_CUDA:
        assert "libcuda.so.1 is not found; in a container, start it with --gpus all" in said
    else:
        assert "No module named tvm_cuda" in said


def test_every_library_finds_what_it_needs(container: Container) -> None:
    listing = container.said("sh", "-c", "find /usr -name '*.so*' -type f -exec ldd {} + 2>/dev/null; true")
    assert "libtvm_compiler.so:" in listing
    missing = {line.split()[0] for line in listing.splitlines() if line.endswith("=> not found")}
    assert missing <= set(UNMET)
