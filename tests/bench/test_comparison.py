"""Two builds are compared only if they build the same: sources and flags as Bazel and CMake state them, and where they
differ.
"""

from __future__ import annotations

import pathlib

import builds

BAZEL_ARGUMENTS = [
    *[
        "external/_main~debian~debian_cc/usr/bin/g++",
        "-O2",
        "-g1",
        "-frandom-seed=bazel-out/a.o",
        "-fPIC",
        "-MD",
        "-MF",
        "a.d",
        "-DNDEBUG",
    ],
    *[
        '-DTVM_VERSION="0.26.0"',
        "-iquote",
        ".",
        "-isystem",
        "external/a/include",
        "-std=c++20",
        "-fvisibility=hidden",
        "-w",
    ],
    *[
        "-ffile-prefix-map=/proc/self/cwd=.",
        "-c",
        "external/_main~sources~tvm/tvm/src/runtime/a.cc",
        "-o",
        "bazel-out/a.o",
    ],
]
CMAKE_ENTRY = {
    "file": "/sources/tvm/src/runtime/a.cc",
    "command": (
        '/gcc/g++ -DNDEBUG -DTVM_VERSION=\\"0.26.0\\" -isystem /a/include -O2 -g1 -fPIC -std=c++20 -fvisibility=hidden'
        " -w -o a.o -c /sources/tvm/src/runtime/a.cc"
    ),
}
EXPECTED = {
    "_main~sources~tvm/tvm/src/runtime/a.cc": frozenset(
        {"-O2", "-g1", "-fPIC", "-DNDEBUG", '-DTVM_VERSION="0.26.0"', "-std=c++20", "-fvisibility=hidden", "-w"}
    )
}

ROOTS = {"": pathlib.Path("/workspace"), "_main~sources~tvm": pathlib.Path("/sources"), "other": pathlib.Path("/other")}


def test_flags_of_bazel_are_those_that_shape_the_output() -> None:
    assert builds.flags_of_bazel({"actions": [{"arguments": BAZEL_ARGUMENTS}]}) == EXPECTED


def test_flags_of_bazel_leave_out_what_is_compiled_for_executables() -> None:
    arguments = [argument for argument in BAZEL_ARGUMENTS if argument != "-fPIC"]
    assert builds.flags_of_bazel({"actions": [{"arguments": arguments}]}) == {}


def test_sources_of_the_workspace_keep_their_path() -> None:
    graph = {"actions": [{"arguments": ["g++", "-fPIC", "-c", "toolchains/cc/a.cc"]}]}
    assert builds.flags_of_bazel(graph) == {"toolchains/cc/a.cc": frozenset({"-fPIC"})}


def test_flags_of_cmake_are_those_that_shape_the_output() -> None:
    assert builds.flags_of_cmake([CMAKE_ENTRY], ROOTS) == EXPECTED


def test_sources_of_one_path_in_two_repositories_are_two() -> None:
    entry = {"file": "/other/tvm/src/runtime/a.cc", "command": "/gcc/g++ -O0 -c /other/tvm/src/runtime/a.cc"}
    assert builds.flags_of_cmake([CMAKE_ENTRY, entry], ROOTS) == EXPECTED | {
        "other/tvm/src/runtime/a.cc": frozenset({"-O0"})
    }


def test_sources_of_the_workspace_keep_their_path_with_cmake_too() -> None:
    entry = {"file": "/workspace/toolchains/cc/a.cc", "command": "g++ -fPIC -c a.cc"}
    assert builds.flags_of_cmake([entry], ROOTS) == {"toolchains/cc/a.cc": frozenset({"-fPIC"})}


def test_tools_of_bazel_are_no_part_of_the_build() -> None:
    arguments = ["g++", "-fPIC", "-c", "external/bazel_tools/src/tools/launcher/dummy.cc"]
    assert builds.flags_of_bazel({"actions": [{"arguments": arguments}]}) == {}


def test_equal_builds_do_not_differ() -> None:
    assert builds.difference(EXPECTED, EXPECTED) == ""


def test_a_flag_of_one_build_is_named() -> None:
    assert (
        builds.difference({"a.cc": frozenset({"-O2"})}, {"a.cc": frozenset({"-O3"})})
        == "a.cc: only Bazel ['-O2'], only CMake ['-O3']"
    )


def test_a_source_of_one_build_is_named() -> None:
    assert builds.difference({"a.cc": frozenset()}, {}) == "a.cc: only Bazel has it"
    assert builds.difference({}, {"a.cc": frozenset()}) == "a.cc: only CMake has it"


def test_cargo_command_is_bazels_outside_of_its_execution_root() -> None:
    arguments = [
        *["bazel-out/k8-opt-exec/bin/toolchains/rust/private/cargo_build", "--cargo", "external/rust/usr/bin/cargo"],
        *["--manifest", "external/tokenizers/rust/Cargo.toml", "--lock", "third_party/tokenizers_cpp/Cargo.lock"],
        *[
            "--source",
            "external/tokenizers/rust/src/lib.rs",
            "--jobs=4",
            "--output",
            "bazel-out/k8-opt/bin/libtokenizers_c.a",
        ],
    ]
    assert builds.cargo_command(arguments, pathlib.Path("/workspace"), pathlib.Path("/base/external"), "lib.a")[1:] == [
        *["/workspace/toolchains/rust/private/cargo_build.py", "--cargo", "/base/external/rust/usr/bin/cargo"],
        *[
            "--manifest",
            "/base/external/tokenizers/rust/Cargo.toml",
            "--lock",
            "/workspace/third_party/tokenizers_cpp/Cargo.lock",
        ],
        *["--source", "/base/external/tokenizers/rust/src/lib.rs", "--jobs=4", "--output", "lib.a"],
    ]
