"""//images:load and //images:run take the container tool that works, load what was tested, start what was asked for,
and say what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import types
from typing import Any

import pytest

from oci import container_tool
from oci.layout import Image
from release.private import load, run, stamp
from tests.oci import layouts
from tests.private import python_program

# Stands in for podman and docker: keeps a log of its arguments, and knows what it was told to know.
ENGINE = """\
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
with open(here / "log", "a") as log:
    log.write(json.dumps([pathlib.Path(__file__).name, *sys.argv[1:]]) + "\\n")
if sys.argv[1] in ("info", "version") and (here / "no-daemon").exists():
    sys.exit("first line\\nCannot connect to the daemon")
if sys.argv[1:3] == ["image", "inspect"]:
    known = here / "known"
    print(known.read_text()) if known.exists() else sys.exit("no such image")
if sys.argv[1] == "run":
    print("ran")
    sys.exit(7)
"""


class Machine:
    """A PATH with the tools that a test puts there, two small images, and a gate that passed on them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.images = {
            name: layouts.write_layout(folder / name, [{f"usr/{name}": name.encode()}]) for name in ("first", "second")
        }
        self.gate = folder / "gate.json"
        self.pass_gate()
        self.loader = folder / "loader"
        python_program.write(self.loader, "import os\nprint('loading into', os.environ['MLC_CONTAINER_TOOL'])\n")

    def pass_gate(self) -> None:
        artifacts = {name: stamp.describe(path) for name, path in self.images.items()}
        self.gate.write_text(json.dumps({"artifacts": artifacts, "tests": []}))

    def install(self, *names: str) -> None:
        for name in names:
            python_program.write(self.bin / name, ENGINE)

    def log(self) -> list[list[str]]:
        file = self.bin / "log"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def call(self, program: Any, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        fixed = [f"--layout={name}={path}" for name, path in self.images.items()]
        fixed += [f"--loader={name}={self.loader}" for name in self.images]
        fixed += [f"--gate={self.gate}"] if program is load else ["--umoci=umoci", "--runc=runc", "--version=1.2.3"]
        environment = {"PATH": str(self.bin), "PYTHONPATH": os.pathsep.join(sys.path), **environment}
        command = [sys.executable, program.__file__, *fixed, *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    def config_digest(self, name: str) -> str:
        return Image(self.images[name]).config_digest


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Machine:
    return Machine(tmp_path)


# load ---------------------------------------------------------------------------------------------------------------


def test_load_hands_the_tested_image_to_the_first_tool_that_works(machine: Machine) -> None:
    machine.install("podman", "docker")
    done = machine.call(load)
    assert (done.returncode, done.stdout) == (0, "loading into podman\n"), done.stderr
    assert f"load: first {stamp.image_digest(machine.images['first'])} into podman" in done.stderr
    assert machine.call(load, "--tool", "docker", "--image", "second").stdout == "loading into docker\n"


def test_load_names_the_image_of_an_index_that_the_loader_has(machine: Machine) -> None:
    """The gate passed on the index; engines load the image for x86-64."""
    machine.install("podman")
    single = [
        layouts.write_layout(machine.folder / cpu, [{"usr/x": cpu.encode()}], architecture=cpu)
        for cpu in ("amd64", "arm64")
    ]
    layouts.write_index(machine.images["first"], single)
    machine.pass_gate()
    done = machine.call(load)
    assert (done.returncode, done.stdout) == (0, "loading into podman\n"), done.stderr
    assert f"load: first {stamp.image_digest(single[0])} into podman" in done.stderr
    assert stamp.image_digest(machine.images["first"]) in machine.gate.read_text()


def test_load_refuses_what_was_not_tested(machine: Machine) -> None:
    machine.install("podman")
    machine.gate.write_text(
        machine.gate.read_text().replace(stamp.image_digest(machine.images["first"]), "sha256:" + "0" * 64)
    )
    done = machine.call(load)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("load: first: the tests passed on sha256:000") and done.stderr.count("\n") == 1


def test_without_a_tool_one_line_says_what_was_tried(machine: Machine) -> None:
    machine.install("docker")
    (machine.bin / "no-daemon").touch()
    done = machine.call(load)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "no container tool works here (podman: not on PATH; docker: Cannot connect to the daemon" in done.stderr
    assert "apt-get install podman" in done.stderr


def test_run_needs_no_tool_of_the_machine(machine: Machine) -> None:
    """It goes on to unpack the image for the build's runc, with an umoci that this test lacks."""
    machine.install("docker")
    (machine.bin / "no-daemon").touch()
    for arguments in ((), ("--tool", "runc")):
        done = machine.call(run, *arguments)
        assert done.returncode == 1
        assert "run: unpacking the image for runc\nrun: umoci cannot unpack the image: cannot start" in done.stderr
    done = machine.call(run, "--tool", "docker")
    assert "no container tool works here (docker: Cannot connect to the daemon" in done.stderr
    done = machine.call(run, MLC_CONTAINER_TOOL="kubectl")
    assert "expected podman or docker or runc as the container tool, found 'kubectl'" in done.stderr


@pytest.mark.parametrize("program", [load, run])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--image", "third"), "--image: expected first or second, found 'third'"),
        (("--tool", "kubectl"), "argument --tool: invalid choice: 'kubectl'"),
        (("--imag", "first"), "unrecognized arguments: --imag"),
    ],
)
def test_bad_arguments_get_one_line(machine: Machine, program: Any, arguments: Any, expected: Any) -> None:
    machine.install("podman")
    done = machine.call(program, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert expected in done.stderr and machine.log() == []


def test_the_tool_may_be_named_by_the_environment(machine: Machine) -> None:
    machine.install("podman", "docker")
    assert machine.call(load, MLC_CONTAINER_TOOL="docker").stdout == "loading into docker\n"
    done = machine.call(load, MLC_CONTAINER_TOOL="kubectl")
    assert done.returncode == 1 and "expected podman or docker as the container tool, found 'kubectl'" in done.stderr


def test_the_loader_of_every_image_becomes_the_tool_that_works(machine: Machine) -> None:
    machine.install("podman", "docker")
    done = subprocess.run(
        [sys.executable, container_tool.__file__, "load", "--input", "x"],
        env={"PATH": str(machine.bin), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0
    assert machine.log() == [["podman", "info"], ["podman", "load", "--input", "x"]]


# run ----------------------------------------------------------------------------------------------------------------


def test_run_publishes_ports(machine: Machine) -> None:
    machine.install("docker")
    machine.call(run, "--publish", "8000:8000", "--publish", "127.0.0.1:80:8001", "--", "serve", "/workspace/m")
    assert machine.log()[-1][2:] == [
        "--rm",
        "--interactive",
        "--publish",
        "8000:8000",
        "--publish",
        "127.0.0.1:80:8001",
        "first:1.2.3",
        "serve",
        "/workspace/m",
    ]


@pytest.mark.parametrize("ports", ["8000", "8000:", ":80", "a:80", ""])
def test_run_refuses_what_are_no_ports(machine: Machine, ports: str) -> None:
    machine.install("docker")
    done = machine.call(run, f"--publish={ports}")
    assert (done.returncode, machine.log()) == (2, [])
    assert f"argument --publish: expected HOST:CONTAINER, two ports, found {ports!r}" in done.stderr


@pytest.mark.parametrize(
    "ports", [["9000:8000"], ["127.0.0.1:8000:8000", "0.0.0.0:8001:8001"], ["8000:8000", "[::1]:8001:8001"]]
)
def test_runc_cannot_publish_another_port_than_the_containers(machine: Machine, ports: list[str]) -> None:
    done = machine.call(run, "--tool", "runc", *(f"--publish={each}" for each in ports))
    expected = f"expected --publish PORT:PORT, the same port twice, and one address, found {', '.join(ports)}."
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and expected in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("ports", "host"),
    [
        ([], None),
        (["8000:8000"], "127.0.0.1"),
        (["0.0.0.0:80:80", "0.0.0.0:81:81"], "0.0.0.0"),
        (["[::1]:80:80"], "::1"),
    ],
)
def test_what_is_published_with_runc_listens_on_loopback_unless_told_otherwise(
    ports: list[str], host: str | None
) -> None:
    assert run.published_host(ports) == host


@pytest.mark.parametrize("ports", [[":80:80"], ["80:80", ":81:81"]])
def test_an_empty_address_does_not_publish_to_everyone(ports: list[str]) -> None:
    """`--publish $ADDRESS:80:80` without the variable."""
    with pytest.raises(run.RunError, match="and one address, found"):
        run.published_host(ports)


@pytest.mark.parametrize(("text", "mode"), [("", "rw"), (":ro", "ro"), (":Z,ro", "ro"), (":rw", "rw")])
def test_a_volume_may_be_read_only_in_runc(machine: Machine, text: str, mode: str) -> None:
    (machine.folder / "models").mkdir()
    options = argparse.Namespace(command=["x"], volume=[run.volume(f"{machine.folder}/models:/workspace{text}")])
    image = types.SimpleNamespace(config={"config": {}})
    config: dict[str, Any] = {"process": {"env": []}, "linux": {"namespaces": []}, "mounts": []}
    (mount,) = run.container_config(config, image, options, False, None)["mounts"]  # type: ignore[arg-type]
    assert (mount["destination"], mount["options"]) == ("/workspace", ["rbind", mode])


def test_run_loads_an_image_that_the_engine_does_not_have_and_gives_its_exit_status(machine: Machine) -> None:
    machine.install("podman")
    done = machine.call(run, "smoke", "--verbose")
    assert (done.returncode, done.stdout) == (7, "ran\n"), done.stderr
    assert "run: loading first:1.2.3 into podman" in done.stderr and "loading into podman" in done.stderr
    assert machine.log()[-1] == ["podman", "run", "--rm", "--interactive", "first:1.2.3", "smoke", "--verbose"]


@pytest.mark.parametrize("by", ["configuration", "manifest"])
def test_run_does_not_load_what_the_engine_has(machine: Machine, by: str) -> None:
    machine.install("podman")
    digest = machine.config_digest("first") if by == "configuration" else stamp.image_digest(machine.images["first"])
    (machine.bin / "known").write_text(digest.removeprefix("sha256:"))
    done = machine.call(run)
    assert done.returncode == 7 and "loading" not in done.stderr


def test_run_loads_again_when_the_engine_has_another_image_of_that_name(machine: Machine) -> None:
    machine.install("podman")
    (machine.bin / "known").write_text("0" * 64)
    assert "run: loading first:1.2.3 into podman" in machine.call(run).stderr


def test_run_shows_folders_and_gpus_to_the_container(machine: Machine) -> None:
    machine.install("docker")
    (machine.folder / "models").mkdir()
    arguments = ("--image", "second", "--gpus", "--volume", "models:/workspace", "--", "ls", "-l")
    assert machine.call(run, *arguments, BUILD_WORKING_DIRECTORY=str(machine.folder)).returncode == 7
    expected = ["--gpus", "all", "--volume", f"{machine.folder}/models:/workspace", "second:1.2.3", "ls", "-l"]
    assert machine.log()[-1] == ["docker", "run", "--rm", "--interactive", *expected]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("nowhere:/workspace", "expected a folder, found none at"),
        ("bin:workspace", "expected HOST:CONTAINER with an absolute path in the container, found 'bin:workspace'"),
        ("bin", "expected HOST:CONTAINER with an absolute path in the container, found 'bin'"),
    ],
)
def test_run_refuses_a_volume_that_cannot_be(machine: Machine, value: Any, expected: Any) -> None:
    machine.install("podman")
    done = machine.call(run, "--volume", value, BUILD_WORKING_DIRECTORY=str(machine.folder))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and expected in done.stderr
    assert machine.log() == []


def test_runc_alone_has_no_gpus(machine: Machine) -> None:
    done = machine.call(run, "--gpus")
    assert done.returncode == 1 and "runc alone gives a container no GPU: install podman or docker" in done.stderr
