"""mlc-llm's wheel holds upstream's package and ours, declares what it needs, and is small."""

from __future__ import annotations

import json
import os
import pathlib
import re

import pytest
from wheels_under_test import (
    MACHINE_PATHS,
    Wheel,
    assert_plain_zip_entries,
    assert_record_lists_every_file,
    check_wheel_contents,
    open_wheel,
    ours,
)

ADDED = "mlc_llm/_mlc_bazel/"
INIT = "mlc_llm/__init__.py"
LIBRARIES = {"mlc_llm/libmlc_llm.so", "mlc_llm/libmlc_llm_module.so"}

# Megabytes. It was 6.8 at first: two libraries of 2.9 each, and 1 of Python.
SIZE_LIMIT = 8

EXTRAS = {
    "bench": {"aiohttp", "datasets", "openai", "pandas", "transformers"},
    "chat": {"openai", "prompt-toolkit"},
    "convert": {"safetensors"},
    "convert-torch": {"torch", "transformers"},
    "flashinfer": {"flashinfer-python"},
    "images": {"pillow"},
    "router": {"aiohttp"},
    "tiktoken": {"tiktoken", "transformers"},
}

REQUIRED = {
    "apache-tvm",
    "apache-tvm-ffi",
    "fastapi",
    "ml-dtypes",
    "numpy",
    "prometheus-client",
    "psutil",
    "requests",
    "shortuuid",
    "tqdm",
    "uvicorn",
}


@pytest.fixture(scope="module")
def wheel() -> Wheel:
    return open_wheel("MLC_LLM_WHEEL")


@pytest.fixture(scope="module")
def upstream() -> dict[str, bytes]:
    """Upstream's package, from the sources of this build: name in the wheel → content."""
    init = pathlib.Path(os.environ["MLC_LLM_INIT"])
    root = init.parent.parent
    files = {str(path.relative_to(root)): path.read_bytes() for path in init.parent.rglob("*") if path.is_file()}
    return {name: content for name, content in files.items() if "__pycache__" not in name}


@pytest.fixture(scope="module")
def requirements(wheel: Wheel) -> dict[str, str]:
    """Requires-Dist: "name" or "name[extra]" → its line."""
    lines = {}
    for line in wheel.metadata().get_all("Requires-Dist") or []:
        (name,), extra = re.findall(r"^[A-Za-z0-9._-]+", line), re.search(r"extra == '([^']+)'", line)
        key = name.replace("_", "-").lower() + (f"[{extra[1]}]" if extra else "")
        assert key not in lines
        lines[key] = re.sub(r"\s", "", line)
    return lines


def test_holds_only_upstreams_files_and_ours(wheel: Wheel, upstream: dict[str, bytes]) -> None:
    payload = {name for name in wheel.names if not name.startswith(wheel.dist_info)}
    modules = (
        "__init__",
        "access",
        "after_import",
        "answer_text",
        "checkpoint_config",
        "checkpoint_files",
        "compatibility",
        "compile_here",
        "connections",
        "convert",
        "cpu_kernels",
        "cpu_rotation",
        "devices",
        "engine_watch",
        "health",
        "home",
        "hub",
        "json_schema",
        "library_parts",
        "lifecycle",
        "metrics",
        "model_check",
        "openai_answers",
        "openai_api",
        "openai_errors",
        "openai_requests",
        "pairing",
        "request_body",
        "request_check",
        "rotation",
        "runtime_only",
        "shape_functions",
        "startup",
        "tool_calls",
        "versions",
    )
    added = {f"{ADDED}{module}.py" for module in modules}
    assert payload - set(upstream) == added | LIBRARIES
    assert set(upstream) - payload == set()


def test_upstreams_files_are_unchanged_except_the_first_import(wheel: Wheel, upstream: dict[str, bytes]) -> None:
    assert [name for name in upstream if wheel.zip.read(name) != upstream[name]] == [INIT]
    ours_lines, theirs = (content.decode().splitlines() for content in (wheel.zip.read(INIT), upstream[INIT]))
    added = [line for line in ours_lines if line not in theirs]
    assert added == ["from . import _mlc_bazel as _"]
    first = next(line for line in ours_lines if re.match(r"(from|import) ", line) and "__future__" not in line)
    assert first == added[0]
    assert [line for line in ours_lines if line and line not in added] == [line for line in theirs if line]


def test_record_lists_every_file_with_its_hash(wheel: Wheel) -> None:
    assert_record_lists_every_file(wheel)


def test_version_is_upstreams_with_a_local_part_and_its_own_build_id(wheel: Wheel) -> None:
    """Its build id differs from TVM's, so a change to mlc-llm leaves TVM's wheels alone."""
    version = wheel.metadata()["Version"]
    assert re.fullmatch(r"0\.20\.0\.dev0\+mlc\d+\.\d+\.\d+\.b[0-9a-f]{8}", version)
    tvm = ours()["tvm"].metadata()["Version"]
    assert version.split("+")[1].split(".b")[0] == tvm.split("+")[1].split(".b")[0]
    assert version.split(".b")[-1] != tvm.split(".b")[-1]
    assert wheel.metadata()["Name"] == "mlc-llm"


def test_the_import_expects_the_versions_of_the_wheels(wheel: Wheel) -> None:
    text = wheel.zip.read(ADDED + "versions.py").decode()
    versions = dict(re.findall(r'^(\w+) = "(.*)"$', text, re.MULTILINE))
    assert versions == {
        "TVM": ours()["tvm"].metadata()["Version"],
        "TVM_FFI": ours()["tvm_ffi"].metadata()["Version"],
    }


def test_requires_exactly_the_tvm_of_its_build(requirements: dict[str, str]) -> None:
    assert requirements["apache-tvm"] == f"apache-tvm=={ours()['tvm'].metadata()['Version']}"
    assert requirements["apache-tvm-ffi"] == f"apache-tvm-ffi=={ours()['tvm_ffi'].metadata()['Version']}"


def test_requires_only_what_the_engine_and_its_server_import(requirements: dict[str, str]) -> None:
    """Upstream's other requirements, such as torch and CUDA packages, take gigabytes."""
    assert {name for name in requirements if "[" not in name} == REQUIRED


def test_extras_add_the_rest(wheel: Wheel, requirements: dict[str, str]) -> None:
    assert set(wheel.metadata().get_all("Provides-Extra", [])) == set(EXTRAS)
    found: dict[str, set[str]] = {}
    for key in requirements:
        if extra := re.search(r"\[(.*)\]", key):
            found.setdefault(extra[1], set()).add(key.partition("[")[0])
    assert found == EXTRAS


def test_tag_and_python(wheel: Wheel) -> None:
    """Debian 11, with glibc 2.31, is enough; test_mlc_llm_libraries.py checks the tag against the libraries."""
    (tag,) = wheel.metadata("WHEEL").get_all("Tag", [])
    glibc = re.fullmatch(r"py3-none-manylinux_2_(\d+)_x86_64", tag)
    assert glibc and int(glibc[1]) <= 31, tag
    assert wheel.path.name.endswith(f"-{tag}.whl")
    assert wheel.metadata("WHEEL")["Root-Is-Purelib"] == "false"
    assert wheel.metadata()["Requires-Python"] == ">=3.10,<3.15"


def test_command_is_upstreams(wheel: Wheel) -> None:
    text = wheel.zip.read(f"{wheel.dist_info}/entry_points.txt").decode()
    assert re.findall(r"^[^#\n].*$", text, re.MULTILINE) == ["[console_scripts]", "mlc_llm = mlc_llm.__main__:main"]


def test_size(wheel: Wheel) -> None:
    assert wheel.path.stat().st_size <= SIZE_LIMIT * 10**6


def test_licence_is_there(wheel: Wheel) -> None:
    assert b"Apache License" in wheel.zip.read(f"{wheel.dist_info}/licenses/LICENSE")


def test_has_the_licence_of_everything_linked_in(wheel: Wheel) -> None:
    text = wheel.zip.read(f"{wheel.dist_info}/licenses/THIRD_PARTY_LICENSES.txt").decode()
    parts = {
        "sentencepiece",
        "sentencepiece's part of Abseil",
        "Darts-clone",
        "Protocol Buffers",
        "tokenizers-cpp",
        "picojson",
        "xgrammar",
    }
    parts |= {
        "dlpack",
        "msgpack-c (libmsgpack-cxx-dev)",
        "stb (libstb-dev)",
        "parts of GCC's C++ library",
        "Rust's standard library",
    }
    crates = {f"{entry['name']}-{entry['version']}" for entry in locked_crates()}
    # These two have no licence file, and serve only other systems: UEFI and WebAssembly.
    assert wheel.license_headings() == parts | crates - {
        name for name in crates if name.startswith(("r-efi-", "wasip2-"))
    }
    # Oniguruma is inside a crate.
    assert "onig_sys" in text and "K.Kosako" in text


def locked_crates() -> list[dict[str, str]]:
    lock = json.loads(pathlib.Path(os.environ["CRATES_LOCK"]).read_text())
    return [lock["crates"][key] for key in lock["sets"]["tokenizers_cpp"]]


def test_notice_is_there(wheel: Wheel) -> None:
    assert b"MLC LLM" in wheel.zip.read(f"{wheel.dist_info}/licenses/NOTICE")


def test_names_no_path_of_the_machine_that_built_it(wheel: Wheel) -> None:
    """Checks the files that this build writes. The libraries have their own test; upstream's presets do name folders
    on other machines.
    """
    for name in [name for name in wheel.names if name.startswith((wheel.dist_info, ADDED))]:
        content = wheel.zip.read(name)
        for trace in MACHINE_PATHS:
            assert trace not in content, (name, trace)


def test_zip_entries_have_one_time_and_plain_modes(wheel: Wheel) -> None:
    assert_plain_zip_entries(wheel)


# W002: upstream ships equal __init__.py files. W004: its folder bench/evaluation has none.
IGNORED = "W002,W004"


def test_check_wheel_contents_finds_nothing(wheel: Wheel) -> None:
    done = check_wheel_contents(wheel.path, IGNORED)
    assert done.returncode == 0, done.stdout + done.stderr
