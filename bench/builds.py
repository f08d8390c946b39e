"""Part `builds`: the runtime libraries built by Bazel and by CMake + Ninja, with the same compiler, flags, sources and
jobs.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import commands
import report

_RUNTIME = {
    "libtvm_ffi.so": "@tvm_ffi//:libtvm_ffi",
    "libtvm_runtime.so": "@tvm//:libtvm_runtime",
    "libtvm_runtime_extra.so": "@tvm//:libtvm_runtime_extra",
}
# Paths of the programs in their wheels, which hold several files with these names.
PROGRAMS = {"cmake": "cmake/data/bin/cmake", "ninja": "*.data/scripts/ninja"}


@dataclass(frozen=True)
class Project:
    """What both tools build.

    Args:
      what: its description.
      libraries: file → target.
      repositories: variable of bench/cmake → repository.
      changed: repository and path of the source to change, which has about the median compile time.
      cargo: target of a Rust package that both build with the same program, or "".
    """

    what: str
    libraries: dict[str, str]
    repositories: dict[str, str]
    changed: tuple[str, str]
    cargo: str = ""


RUNTIME = Project(
    "the three runtime libraries", _RUNTIME, {"TVM": "tvm", "TVM_FFI": "tvm_ffi"}, ("TVM", "tvm/src/runtime/tensor.cc")
)


def flags(arguments: Iterable[str]) -> frozenset[str]:
    """The compiler arguments that decide what is compiled, without those that name paths or make the output
    reproducible.
    """
    places = ("-ffile-prefix-map=", "-frandom-seed=")
    return frozenset(
        argument
        for argument in arguments
        if argument.startswith(("-D", "-O", "-W", "-f", "-g", "-std", "-w")) and not argument.startswith(places)
    )


def flags_of_bazel(graph: dict) -> dict[str, frozenset[str]]:
    """Source → flags, from `aquery --output=jsonproto`. A source is <repository>/<path>, or a path in the workspace."""
    found = {}
    for action in graph["actions"]:
        arguments = action["arguments"]
        if "-fPIC" in arguments:  # Bazel also lists the objects for executables.
            source = arguments[arguments.index("-c") + 1]
            # Bazel's own tools are listed if a program of the build needs them.
            if not source.startswith("external/bazel_tools/"):
                found[source.removeprefix("external/")] = flags(arguments)
    return found


def flags_of_cmake(database: list[dict], roots: Mapping[str, Path]) -> dict[str, frozenset[str]]:
    """Source → flags, from a compile_commands.json; sources as in `flags_of_bazel`.

    Args:
      database: the file's content.
      roots: repository, or "" for the workspace → folder. None contains another.
    """
    found = {}
    for entry in database:
        path = Path(entry["file"])
        ((name, root),) = ((name, root) for name, root in roots.items() if path.is_relative_to(root))
        found[str(Path(name) / path.relative_to(root))] = flags(shlex.split(entry["command"]))
    return found


def difference(ours: dict[str, frozenset[str]], theirs: dict[str, frozenset[str]]) -> str:
    """One line per key whose sets differ; empty if none do."""
    lines = []
    for key in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(key), theirs.get(key)
        if mine is None or other is None:
            lines.append(f"{key}: only {'Bazel' if other is None else 'CMake'} has it")
        elif mine != other:
            lines.append(f"{key}: only Bazel {sorted(mine - other)}, only CMake {sorted(other - mine)}")
    return "\n".join(lines)


def cargo_command(arguments: Sequence[str], root: Path, external: Path, output: str) -> list[str]:
    """Bazel's command for a Rust package, from `aquery`, rewritten to run outside the execution root.

    Args:
      arguments: program and arguments, with paths relative to the execution root.
      root: the workspace.
      external: folder of the repositories.
      output: file that it writes.
    """
    command = [sys.executable, str(root / "toolchains/rust/private/cargo_build.py")]
    for option, value in zip(arguments, arguments[1:]):
        if option == "--output":
            command.append(output)
        elif value.startswith("external/"):
            command.append(str(external / value.removeprefix("external/")))
        elif option in ("--lock", "--manifest", "--source"):
            command.append(str(root / value))
        else:
            command.append(value)
    return command


class _Builds:
    """Both builds of the same sources, in a scratch folder."""

    def __init__(self, bazel: commands.Bazel, folder: Path, wheels: dict[str, Path], project: Project) -> None:
        self.bazel = bazel
        self.project = project
        self.root = bazel.root
        self.jobs = len(os.sched_getaffinity(0))
        commands.say("fetching and unpacking what the builds need (not timed)")
        names = {name: self.bazel.repository(name) for name in ("debian_cc", *project.repositories.values())}
        self.bazel.output("build", "--nobuild", *project.libraries.values())
        external = {name: bazel.external / canonical for name, canonical in names.items()}

        # Both builds read this copy, so that both see a change to it.
        variable, self.changed = project.changed
        self.sources = folder / "sources"
        copied = project.repositories[variable]
        shutil.copytree(external[copied], self.sources, symlinks=True)
        self.flags = [
            f"--jobs={self.jobs}",
            "--disk_cache=",
            "--remote_cache=",
            f"--override_repository={names[copied]}={self.sources}",
        ]
        # The sources are in a temporary folder, but a hermetic sandbox would have an empty /tmp.
        self.flags.append("--noincompatible_sandbox_hermetic_tmp")
        places = {name: external[repository] for name, repository in project.repositories.items()} | {
            variable: self.sources
        }

        tools = {name: self._program(folder / name, wheel, PROGRAMS[name]) for name, wheel in wheels.items()}
        self.binary_folder = folder / "cmake_build"
        self.gcc = external["debian_cc"] / "usr/bin"
        variables = {
            "CMAKE_AR": self.gcc / "ar",
            "CMAKE_CXX_COMPILER": self.gcc / "g++",
            "CMAKE_C_COMPILER": self.gcc / "gcc",
            "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
            "CMAKE_MAKE_PROGRAM": tools["ninja"],
            **places,
            "TVM_VERSION": json.loads(
                _starlark_string((self.root / "version.bzl").read_text(encoding="utf-8"), "TVM_VERSION")
            ),
            "WORKSPACE": self.root,
        }
        if project.cargo:
            (action,) = self._actions("CargoBuild", project.cargo)
            command = cargo_command(action["arguments"], self.root, bazel.external, "libtokenizers_c.a")
            variables["CARGO_COMMAND"] = ";".join(command)
        self.configure: list[str | Path] = [
            tools["cmake"],
            "-G",
            "Ninja",
            "-S",
            self.root / "bench/cmake",
            "-B",
            self.binary_folder,
        ]
        self.configure += [f"-D{name}={value}" for name, value in variables.items()]
        self.ninja: list[str | Path] = [tools["ninja"], "-C", self.binary_folder, f"-j{self.jobs}"]
        self.environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
        self.source_roots = {names[repository]: places[name] for name, repository in project.repositories.items()} | {
            "": self.root
        }
        gcc = commands.output([self.gcc / "g++", "-dumpfullversion"]).strip()
        cmake, ninja = (commands.output([tools[name], "--version"]).split("\n")[0] for name in ("cmake", "ninja"))
        self.versions = f"{self.bazel.output('--version').strip()}, {cmake}, ninja {ninja}, GCC {gcc}, {self.jobs} jobs"

    @staticmethod
    def _program(folder: Path, wheel: Path, pattern: str) -> Path:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        (program,) = folder.glob(pattern)
        program.chmod(0o755)
        return program

    def cold(self) -> tuple[float, float]:
        """Nothing built, no server. Bazel's time includes the server's start, CMake's the configuration."""
        self.bazel.output("clean")
        self.bazel.output("shutdown")
        shutil.rmtree(self.binary_folder, ignore_errors=True)
        bazel = self.bazel.seconds("build", *self.flags, *self.project.libraries.values())
        return bazel, commands.seconds(self.configure, env=self.environment) + self._ninja()

    def again(self) -> tuple[float, float]:
        """Bazel, then Ninja, on top of what is built."""
        return self.bazel.seconds("build", *self.flags, *self.project.libraries.values()), self._ninja()

    def change(self, number: int) -> None:
        """Adds a function that no library exports, which changes an object file and the libraries that link it."""
        with open(self.sources / self.changed, "a", encoding="utf-8") as file:
            file.write(f"int bench_change_{number}() {{ return {number}; }}\n")

    def check(self) -> None:
        """Checks that both builds have the same sources, flags and exported symbols.

        Raises:
          SystemExit: they differ, so their times cannot be compared.
        """
        targets = " + ".join(self.project.libraries.values())
        graph = {"actions": self._actions("CppCompile", targets)}
        database = json.loads((self.binary_folder / "compile_commands.json").read_text(encoding="utf-8"))
        unlike = difference(flags_of_bazel(graph), flags_of_cmake(database, self.source_roots))
        made = self.bazel.listed(targets, *self.flags), [self.binary_folder / name for name in self.project.libraries]
        unlike += difference(*({path.name: self._exported(path) for path in paths} for paths in made))
        if unlike:
            raise SystemExit(
                f"bench: Bazel and CMake do not build the same; make bench/cmake follow the BUILD files:\n{unlike}"
            )

    def _actions(self, mnemonic: str, targets: str) -> list[dict]:
        """Actions with this mnemonic that the targets need, from `aquery`."""
        expression = f'mnemonic("{mnemonic}", deps({targets}))'
        return json.loads(self.bazel.output("aquery", "--output=jsonproto", *self.flags, expression))["actions"]

    def _exported(self, library: Path) -> frozenset[str]:
        listing = commands.output([self.gcc / "nm", "--dynamic", "--defined-only", library])
        return frozenset(line.split()[-1] for line in listing.splitlines())

    def _ninja(self) -> float:
        return commands.seconds(self.ninja, env=self.environment)


def _starlark_string(text: str, name: str) -> str:
    (value,) = (line.split(" = ", 1)[1] for line in text.splitlines() if line.startswith(name + " = "))
    return value


def measure(workspace: commands.Bazel, options: argparse.Namespace, project: Project = RUNTIME) -> tuple[str, str]:
    """The table for a project, and the versions of what was measured."""
    runs: dict[str, list[tuple[float, float]]] = {"cold": [], "nothing changed": [], "one file changed": []}
    wheels = {name: workspace.file(f"@pypi//{name}:whl") for name in PROGRAMS}
    with commands.scratch() as folder:
        bazel = commands.Bazel(workspace.root, folder / "output_base")
        try:
            builds = _Builds(bazel, folder, wheels, project)
            for number in range(options.cold_runs):
                commands.say(f"cold builds, {number + 1} of {options.cold_runs}")
                runs["cold"].append(builds.cold())
            builds.check()
            for number in range(options.runs):
                commands.say(f"builds of nothing and of one file, {number + 1} of {options.runs}")
                runs["nothing changed"].append(builds.again())
                builds.change(number)
                runs["one file changed"].append(builds.again())
            builds.check()
        finally:
            bazel.output("shutdown")
    rows = []
    for name, pairs in runs.items():
        bazel, cmake = (median(column) for column in zip(*pairs))
        rows.append([name, report.duration(bazel), report.duration(cmake), report.ratio(bazel, cmake), str(len(pairs))])
    return (
        report.table([f"build of {project.what}, median", "Bazel", "CMake + Ninja", "Bazel / CMake", "runs"], rows),
        builds.versions,
    )
