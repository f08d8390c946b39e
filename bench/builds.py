"""Part `builds`: the runtime libraries built by Bazel and by CMake + Ninja, with the same compiler, flags, sources and number of jobs."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import commands
import report

LIBRARIES = {
    "libtvm_ffi.so": "@tvm_ffi//:libtvm_ffi",
    "libtvm_runtime.so": "@tvm//:libtvm_runtime",
    "libtvm_runtime_extra.so": "@tvm//:libtvm_runtime_extra",
}
# Where the programs are in their wheels, which hold several files of these names.
PROGRAMS = {"cmake": "cmake/data/bin/cmake", "ninja": "*.data/scripts/ninja"}
# In the middle of the sources by the time it takes to compile.
CHANGED = "tvm/src/runtime/tensor.cc"


def flags(arguments: Iterable[str]) -> frozenset[str]:
    """The arguments of a compiler call that say what is to be made, without those that name places or make bytes reproducible."""
    places = ("-ffile-prefix-map=", "-frandom-seed=")
    return frozenset(argument for argument in arguments if argument.startswith(("-D", "-O", "-W", "-f", "-g", "-std", "-w")) and not argument.startswith(places))


def flags_of_bazel(graph: dict) -> dict[str, frozenset[str]]:
    """Source → flags of what `aquery --output=jsonproto` lists; sources by their path below external/<repository>/ or the workspace."""
    found = {}
    for action in graph["actions"]:
        arguments = action["arguments"]
        if "-fPIC" in arguments:  # Bazel also lists what an executable would be made of.
            source = arguments[arguments.index("-c") + 1]
            found[source.split("/", 2)[2] if source.startswith("external/") else source] = flags(arguments)
    return found


def flags_of_cmake(database: list[dict], roots: Iterable[Path]) -> dict[str, frozenset[str]]:
    """Source → flags of a compile_commands.json; sources by their path below the root that they are in."""
    found = {}
    for entry in database:
        path = Path(entry["file"])
        (root,) = (root for root in roots if path.is_relative_to(root))
        found[str(path.relative_to(root))] = flags(shlex.split(entry["command"]))
    return found


def difference(ours: dict[str, frozenset[str]], theirs: dict[str, frozenset[str]]) -> str:
    """One line for each key whose sets differ; empty where none do."""
    lines = []
    for key in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(key), theirs.get(key)
        if mine is None or other is None:
            lines.append(f"{key}: only {'Bazel' if other is None else 'CMake'} has it")
        elif mine != other:
            lines.append(f"{key}: only Bazel {sorted(mine - other)}, only CMake {sorted(other - mine)}")
    return "\n".join(lines)


class _Builds:
    """Both builds of the same sources, in a scratch folder."""

    def __init__(self, bazel: commands.Bazel, folder: Path, wheels: dict[str, Path]):
        self.bazel = bazel
        self.root = bazel.root
        self.jobs = len(os.sched_getaffinity(0))
        commands.say("fetching and unpacking what the builds need (not timed)")
        names = {name: self.bazel.repository(name) for name in ("debian_cc", "tvm", "tvm_ffi")}
        self.bazel.output("build", "--nobuild", *LIBRARIES.values())
        external = {name: bazel.output_base / "external" / canonical for name, canonical in names.items()}

        # Both builds read this copy, so that a change to it is a change for both.
        self.sources = folder / "tvm"
        shutil.copytree(external["tvm"], self.sources, symlinks=True)
        self.flags = [f"--jobs={self.jobs}", "--disk_cache=", "--remote_cache=", f"--override_repository={names['tvm']}={self.sources}"]

        tools = {name: self._program(folder / name, wheel, PROGRAMS[name]) for name, wheel in wheels.items()}
        self.binary_folder = folder / "cmake_build"
        self.gcc = external["debian_cc"] / "usr/bin"
        variables = {
            "CMAKE_AR": self.gcc / "ar",
            "CMAKE_CXX_COMPILER": self.gcc / "g++",
            "CMAKE_C_COMPILER": self.gcc / "gcc",
            "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
            "CMAKE_MAKE_PROGRAM": tools["ninja"],
            "TVM": self.sources,
            "TVM_FFI": external["tvm_ffi"],
            "TVM_VERSION": json.loads(_starlark_string((self.root / "version.bzl").read_text(encoding="utf-8"), "TVM_VERSION")),
            "WORKSPACE": self.root,
        }
        self.configure = [tools["cmake"], "-G", "Ninja", "-S", self.root / "bench/cmake", "-B", self.binary_folder]
        self.configure += [f"-D{name}={value}" for name, value in variables.items()]
        self.ninja = [tools["ninja"], "-C", self.binary_folder, f"-j{self.jobs}"]
        self.environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
        self.source_roots = [self.sources, external["tvm_ffi"], self.root]
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
        """Nothing built, no server; Bazel's time includes starting it, CMake's the configuration."""
        self.bazel.output("clean")
        self.bazel.output("shutdown")
        shutil.rmtree(self.binary_folder, ignore_errors=True)
        bazel = self.bazel.seconds("build", *self.flags, *LIBRARIES.values())
        return bazel, commands.seconds(self.configure, env=self.environment) + self._ninja()

    def again(self) -> tuple[float, float]:
        """Bazel, then Ninja, of what is there."""
        return self.bazel.seconds("build", *self.flags, *LIBRARIES.values()), self._ninja()

    def change(self, number: int) -> None:
        """Adds a function that no library exports: its object file changes, and what is linked of it."""
        with open(self.sources / CHANGED, "a", encoding="utf-8") as file:
            file.write(f"int bench_change_{number}() {{ return {number}; }}\n")

    def check(self) -> None:
        """Both made the same: sources, flags, exported symbols.

        Raises:
          SystemExit: they did not, so that there is nothing to compare.
        """
        targets = " + ".join(LIBRARIES.values())
        graph = json.loads(self.bazel.output("aquery", "--output=jsonproto", *self.flags, f'mnemonic("CppCompile", deps({targets}))'))
        database = json.loads((self.binary_folder / "compile_commands.json").read_text(encoding="utf-8"))
        unlike = difference(flags_of_bazel(graph), flags_of_cmake(database, self.source_roots))
        made = self.bazel.listed(targets, *self.flags), [self.binary_folder / name for name in LIBRARIES]
        unlike += difference(*({path.name: self._exported(path) for path in paths} for paths in made))
        if unlike:
            raise SystemExit(f"bench: Bazel and CMake do not build the same; make bench/cmake/CMakeLists.txt follow the BUILD files:\n{unlike}")

    def _exported(self, library: Path) -> frozenset[str]:
        listing = commands.output([self.gcc / "nm", "--dynamic", "--defined-only", library])
        return frozenset(line.split()[-1] for line in listing.splitlines())

    def _ninja(self) -> float:
        return commands.seconds(self.ninja, env=self.environment)


def _starlark_string(text: str, name: str) -> str:
    (value,) = (line.split(" = ", 1)[1] for line in text.splitlines() if line.startswith(name + " = "))
    return value


def measure(workspace: commands.Bazel, options: argparse.Namespace) -> tuple[str, str]:
    """The table of this part, and the versions of what was measured."""
    runs: dict[str, list[tuple[float, float]]] = {"cold": [], "nothing changed": [], "one file changed": []}
    wheels = {name: workspace.file(f"@pypi//{name}:whl") for name in PROGRAMS}
    with commands.scratch() as folder:
        bazel = commands.Bazel(workspace.root, folder / "output_base")
        try:
            builds = _Builds(bazel, folder, wheels)
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
    return report.table(["build of the three runtime libraries, median", "Bazel", "CMake + Ninja", "Bazel / CMake", "runs"], rows), builds.versions
