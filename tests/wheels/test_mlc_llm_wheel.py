"""The wheel of mlc-llm holds upstream's package and ours, says correctly what it needs, and is small."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from wheels_under_test import Wheel, open_wheel, ours

ADDED = "mlc_llm/_mlc_bazel/"
INIT = "mlc_llm/__init__.py"
LIBRARIES = {"mlc_llm/libmlc_llm.so", "mlc_llm/libmlc_llm_module.so"}

# Megabytes. 6.8 when this was written: two libraries of 2.9 each, 1 of Python.
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
    """Upstream's package: name in the wheel → content, from the sources that the build was given."""
    init = pathlib.Path(os.environ["MLC_LLM_INIT"])
    root = init.parent.parent
    files = {str(path.relative_to(root)): path.read_bytes() for path in init.parent.rglob("*") if path.is_file()}
    return {name: content for name, content in files.items() if "__pycache__" not in name}


@pytest.fixture(scope="module")
def requirements(wheel: Wheel) -> dict[str, str]:
    """Requires-Dist lines, each by the name of what it requires and its extra: "name" or "name[extra]"."""
    lines = {}
    for line in wheel.metadata().get_all("Requires-Dist") or []:
        name, extra = re.match(r"[A-Za-z0-9._-]+", line)[0], re.search(r"extra == '([^']+)'", line)
        key = name.replace("_", "-").lower() + (f"[{extra[1]}]" if extra else "")
        assert key not in lines
        lines[key] = re.sub(r"\s", "", line)
    return lines


def test_holds_upstreams_files_and_ours_and_nothing_else(wheel: Wheel, upstream: dict[str, bytes]) -> None:
    payload = {name for name in wheel.names if not name.startswith(wheel.dist_info)}
    modules = (
        "__init__",
        "compatibility",
        "engine_watch",
        "health",
        "model_check",
        "pairing",
        "shape_functions",
        "versions",
    )
    added = {f"{ADDED}{module}.py" for module in modules}
    assert payload - set(upstream) == added | LIBRARIES
    assert set(upstream) - payload == set()


def test_upstreams_files_are_unchanged_but_for_the_first_import(wheel: Wheel, upstream: dict[str, bytes]) -> None:
    assert [name for name in upstream if wheel.zip.read(name) != upstream[name]] == [INIT]
    ours_lines, theirs = (content.decode().splitlines() for content in (wheel.zip.read(INIT), upstream[INIT]))
    added = [line for line in ours_lines if line not in theirs]
    assert added == ["from . import _mlc_bazel as _"]
    first = next(line for line in ours_lines if re.match(r"(from|import) ", line) and "__future__" not in line)
    assert first == added[0]
    assert [line for line in ours_lines if line and line not in added] == [line for line in theirs if line]


def test_record_lists_every_file_with_its_hash(wheel: Wheel) -> None:
    text = wheel.zip.read(f"{wheel.dist_info}/RECORD").decode()
    record = {name: (digest, size) for name, digest, size in csv.reader(io.StringIO(text))}
    assert set(record) == set(wheel.names) and len(wheel.names) == len(set(wheel.names))
    assert record.pop(f"{wheel.dist_info}/RECORD") == ("", "")
    for name, (digest, size) in record.items():
        content = wheel.zip.read(name)
        assert int(size) == len(content), name
        assert digest == "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode(), (
            name
        )


def test_version_is_upstreams_and_a_local_part_for_its_own_build(wheel: Wheel) -> None:
    """Another build id than TVM's: a change of mlc-llm alone leaves TVM's wheels as they are."""
    version = wheel.metadata()["Version"]
    assert re.fullmatch(r"0\.20\.0\.dev0\+mlc\d+\.\d+\.\d+\.b[0-9a-f]{8}", version)
    tvm = ours()["tvm"].metadata()["Version"]
    assert version.split("+")[1].split(".b")[0] == tvm.split("+")[1].split(".b")[0]
    assert version.split(".b")[-1] != tvm.split(".b")[-1]
    assert wheel.metadata()["Name"] == "mlc-llm"


def test_the_versions_that_the_import_compares_are_those_of_the_wheels(wheel: Wheel) -> None:
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
    """The rest of upstream's requirements, torch and CUDA packages among them, are gigabytes."""
    assert {name for name in requirements if "[" not in name} == REQUIRED


def test_extras_bring_the_rest(wheel: Wheel, requirements: dict[str, str]) -> None:
    assert set(wheel.metadata().get_all("Provides-Extra")) == set(EXTRAS)
    found: dict[str, set[str]] = {}
    for key in requirements:
        if extra := re.search(r"\[(.*)\]", key):
            found.setdefault(extra[1], set()).add(key.partition("[")[0])
    assert found == EXTRAS


def test_tag_and_python(wheel: Wheel) -> None:
    """Debian 11 is the oldest that the tag may ask for; test_mlc_llm_libraries.py holds auditwheel to what it does ask
    for.
    """
    (tag,) = wheel.metadata("WHEEL").get_all("Tag")
    assert int(re.fullmatch(r"py3-none-manylinux_2_(\d+)_x86_64", tag)[1]) <= 31
    assert wheel.path.name.endswith(f"-{tag}.whl")
    assert wheel.metadata("WHEEL")["Root-Is-Purelib"] == "false"
    assert wheel.metadata()["Requires-Python"] == ">=3.10"


def test_command_is_upstreams(wheel: Wheel) -> None:
    text = wheel.zip.read(f"{wheel.dist_info}/entry_points.txt").decode()
    assert re.findall(r"^[^#\n].*$", text, re.MULTILINE) == ["[console_scripts]", "mlc_llm = mlc_llm.__main__:main"]


def test_size(wheel: Wheel) -> None:
    assert wheel.path.stat().st_size <= SIZE_LIMIT * 10**6


def test_licence_is_there(wheel: Wheel) -> None:
    assert b"Apache License" in wheel.zip.read(f"{wheel.dist_info}/licenses/LICENSE")


def test_licences_of_all_that_is_linked_into_the_library_are_there(wheel: Wheel) -> None:
    text = wheel.zip.read(f"{wheel.dist_info}/licenses/THIRD_PARTY_LICENSES.txt").decode()
    headings = {name for line in re.findall(r"^-{100}\n(.+)\n-{100}$", text, re.MULTILINE) for name in line.split(", ")}
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
    # No licence file is in these two; both are of other systems only, UEFI and WebAssembly.
    assert headings == parts | crates - {name for name in crates if name.startswith(("r-efi-", "wasip2-"))}
    # Oniguruma's, which is inside a crate.
    assert "onig_sys" in text and "K.Kosako" in text


def locked_crates() -> list[dict[str, str]]:
    lock = json.loads(pathlib.Path(os.environ["CRATES_LOCK"]).read_text())
    return [lock["crates"][key] for key in lock["sets"]["tokenizers_cpp"]]


def test_notice_is_there(wheel: Wheel) -> None:
    assert b"MLC LLM" in wheel.zip.read(f"{wheel.dist_info}/licenses/NOTICE")


def test_names_no_path_of_the_machine_that_built_it(wheel: Wheel) -> None:
    """In what this build writes; the libraries have a test of their own, and upstream's presets name folders of other
    people's machines.
    """
    for name in [name for name in wheel.names if name.startswith((wheel.dist_info, ADDED))]:
        content = wheel.zip.read(name)
        for trace in (b"/execroot/", b"/sandbox/", b"bazel-out/", b"/home/", b"/root/", b"/tmp/"):
            assert trace not in content, (name, trace)


def test_zip_entries_have_one_time_and_plain_modes(wheel: Wheel) -> None:
    for entry in wheel.zip.infolist():
        assert entry.date_time == (1980, 1, 1, 0, 0, 0), entry.filename
        assert entry.external_attr >> 16 & 0o7777 in (0o644, 0o755, 0o777), entry.filename


# W002: upstream's equal __init__.py files; W004: its folder bench/evaluation has none.
IGNORED = "W002,W004"


def test_check_wheel_contents_finds_nothing(wheel: Wheel) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_wheel_contents", f"--ignore={IGNORED}", str(wheel.path)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
