"""Scripts with TVM's names from before 0.26 run, with a warning that says the new names; others notice nothing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from unittest import mock

import pytest
from packaging.version import Version

import tvm
from tvm._mlc_bazel import old_names

SCRIPT = Path(__file__).with_name("old_docker_script.py")


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a fresh process with the same packages."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TVM_NUM_THREADS": "1", **variables}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)


def value(old: str) -> object:
    """Uses an old name that is no module, as `OWNER.NAME`, at a line of this file."""
    owner, _, name = old.rpartition(".")
    return getattr(importlib.import_module(owner), name)


def forget(module: str) -> None:
    """Lets the next import of an old module be the first one."""
    sys.modules.pop(module, None)
    owner, _, name = module.rpartition(".")
    vars(sys.modules.get(owner, types.ModuleType(""))).pop(name, None)


def test_a_script_for_the_old_docker_image_runs_unchanged_with_warnings() -> None:
    done = run(str(SCRIPT))
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        ["library libtvm_runtime.so", "main True", "add_one True"],
    ), done.stderr
    for old, new in {
        "tvm.base._LIB": "tvm.libinfo.find_libtvm_runtime()",
        "tvm.nd.array": "tvm.runtime.tensor",
        "tvm.script.tir": "tvm.script.tirx",
        "tvm.script.tir.block": "tvm.script.tirx.sblock",
        "tvm.tir": "tvm.tirx and tvm.s_tir",
    }.items():
        place = rf"^{re.escape(str(SCRIPT))}:\d+: DeprecationWarning: "
        assert re.search(f"{place}{re.escape(old)} is an old name of {re.escape(new)};", done.stderr, re.M), old


@pytest.mark.parametrize("old", sorted(old_names.MODULES))
def test_an_old_module_has_the_content_of_the_new_ones_and_says_so(old: str) -> None:
    forget(old)
    homes = old_names.MODULES[old]
    with pytest.warns(
        DeprecationWarning, match=f"^{re.escape(f'{old} is an old name of ' + ' and '.join(homes))};"
    ) as w:
        module = importlib.import_module(old)
    assert [warning.filename for warning in w if str(warning.message).startswith(f"{old} ")] == [__file__]
    for home in reversed(homes):
        for name, found in vars(importlib.import_module(home)).items():
            old_one = f"{old}.{name}"
            if (
                not name.startswith("__")
                and not isinstance(found, types.ModuleType)
                and (old_one not in old_names.NAMES and old_one not in old_names.VALUES)
            ):
                assert getattr(module, name) is getattr(importlib.import_module(homes[0]), name, found)


@pytest.mark.parametrize("old", sorted(old_names.NAMES))
def test_an_old_name_is_the_new_one_and_says_so(old: str) -> None:
    new = old_names.NAMES[old]
    with pytest.warns(DeprecationWarning, match=f"^{re.escape(old)} is an old name of {re.escape(new)};"):
        found = value(old)
    assert found is value(new)


@pytest.mark.parametrize("old", ["tvm.base._LIB", "tvm._ffi.base._LIB"])
def test_the_path_of_the_library_can_be_asked_for(old: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"^{re.escape(old)} is an old name of "):
        library = value(old)
    assert Path(library._name).samefile(tvm.libinfo.find_libtvm_runtime())  # type: ignore[attr-defined]


def test_the_library_is_found() -> None:
    with pytest.warns(DeprecationWarning, match=r"^tvm\.libinfo\.find_lib_path is an old name of "):
        assert tvm.libinfo.find_lib_path() == [tvm.libinfo.find_libtvm_runtime()]
    forget("tvm._ffi.libinfo")
    with pytest.warns(DeprecationWarning, match=r"^tvm\.(_ffi\.)?libinfo.* is an old name of tvm\.libinfo"):
        from tvm._ffi.libinfo import find_lib_path

        assert find_lib_path() == [tvm.libinfo.find_libtvm_runtime()]


@pytest.mark.parametrize("old", sorted(old_names.METHODS))
def test_an_old_method_is_the_new_one_and_says_so(old: str) -> None:
    new = old_names.METHODS[old]
    owner, _, name = new.rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"^{re.escape(old)} is an old name of {re.escape(new)};") as w:
        found = getattr(value(owner), old.rpartition(".")[2])
    assert found is getattr(value(owner), name)
    assert [warning.filename for warning in w] == [__file__]


def test_an_old_schedule_finds_blocks() -> None:
    from tvm import te

    x = te.placeholder((8,), name="x")
    kernel = te.create_prim_func([x, te.compute((8,), lambda i: x[i] + 1, name="y")])
    with pytest.warns(DeprecationWarning, match=r"^tvm\.tir\.Schedule\.get_block is an old name of "):
        schedule = tvm.tir.Schedule(kernel)
        (loop,) = schedule.get_loops(schedule.get_block("y"))
    schedule.vectorize(loop)
    assert "T.vectorized(8)" in schedule.mod.script()


@pytest.mark.parametrize(
    ("old", "some"),
    [
        ("tvm.contrib.cc", ["create_shared"]),
        ("tvm.nd", ["NDArray", "Tensor", "array", "empty"]),
        ("tvm.tir", ["Block", "IntImm", "Schedule", "transform"]),
        ("tvm.tir.transform", ["LoopPartition", "Simplify", "VectorizeLoop"]),
    ],
)
def test_a_star_imports_new_and_old_names(old: str, some: list[str]) -> None:
    names: dict[str, object] = {}
    with pytest.warns(DeprecationWarning):
        forget(old)
        exec(f"from {old} import *", names)  # A function cannot have this statement.
        for name in some:
            assert names[name] is value(f"{old}.{name}")
    assert not [name for name in names if name.startswith("_") and not name.startswith("__")]


def test_what_a_script_assigns_to_an_old_module_reaches_the_new_one() -> None:
    """Scripts replace, for example, the function that runs the compiler."""
    from tvm.support import cc

    from tvm import runtime, s_tir

    for old, new, name in [
        ("tvm.contrib.cc.create_shared", cc, "create_shared"),
        ("tvm.nd.array", runtime, "tensor"),
        ("tvm.tir.Schedule", s_tir, "Schedule"),
    ]:
        before, replacement = getattr(new, name), object()
        with pytest.warns(DeprecationWarning):
            forget(old.rpartition(".")[0])
            with mock.patch(old, replacement):
                assert getattr(new, name) is replacement
                assert value(old) is replacement
        assert getattr(new, name) is before
    old_cc = importlib.import_module("tvm.contrib.cc")
    old_cc.of_the_script = 1  # type: ignore[attr-defined]
    assert cc.of_the_script == 1
    del old_cc.of_the_script  # type: ignore[attr-defined]
    assert not hasattr(cc, "of_the_script")


def test_modules_below_old_ones_have_the_content_of_all_new_ones() -> None:
    from tvm.tir.transform import LoopPartition, VectorizeLoop

    from tvm import s_tir, tirx

    assert (LoopPartition, VectorizeLoop) == (s_tir.transform.LoopPartition, tirx.transform.VectorizeLoop)
    assert importlib.import_module("tvm.tir").transform.LoopPartition is LoopPartition
    assert importlib.import_module("tvm.tir.stmt_functor").post_order_visit is tirx.stmt_functor.post_order_visit


def test_an_old_kernel_is_the_new_one_of_blocks() -> None:
    from tvm.script import tir as old
    from tvm.script import tirx as new

    source = "@T.prim_func{}\ndef f(A: T.Buffer((4,), 'float32')):\n    for i in range(4):\n        with T.{}('b'):\n"
    source += "            v = T.axis.spatial(4, i)\n            A[v] = T.float32(1)\n"
    with pytest.warns(DeprecationWarning):
        parsed = tvm.script.from_source(source.format("", "block"), {"T": old})
    tvm.ir.assert_structural_equal(
        parsed, tvm.script.from_source(source.format("(s_tir=True)", "sblock"), {"T": new}, s_tir=True)
    )


def test_new_names_warn_of_nothing_and_load_nothing_old() -> None:
    program = (
        "import sys, tvm\nfrom tvm.script import tirx\nimport tvm.tirx, tvm.s_tir.dlight\n"
        "print(sorted(name for name in sys.modules if name.startswith('tvm._mlc_bazel')))\n"
        "print([name for name in ('tvm.tir', 'tvm.nd', 'tvm.script.tir') if name in sys.modules])\n"
    )
    done = run("-W", "error::DeprecationWarning", "-c", program)
    expected = "['tvm._mlc_bazel', 'tvm._mlc_bazel.old_names']\n[]\n"
    assert (done.stdout, done.stderr) == (expected, "")


def test_tvms_own_switch_turns_them_off() -> None:
    done = run("-c", "import tvm; print(hasattr(tvm, 'tir'))", TVM_DEVICE_BACKEND_AUTOLOAD="0")
    assert done.stdout == "False\n", done.stderr


def test_what_was_never_there_is_missing_as_ever() -> None:
    with pytest.raises(AttributeError, match="module 'tvm' has no attribute 'never'"):
        tvm.never  # noqa: B018
    with pytest.raises(AttributeError, match="module 'tvm.script' has no attribute 'never'"):
        tvm.script.never  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match="No module named 'tvm.never'"):
        importlib.import_module("tvm.never")
    with (
        pytest.warns(DeprecationWarning),
        pytest.raises(AttributeError, match="'tvm.tir', an old name of tvm.tirx and"),
    ):
        forget("tvm.tir")
        value("tvm.tir.never")
    assert importlib.util.find_spec("tvm.tir.never") is None
    # Below a module that is no package.
    with pytest.raises(ImportError, match="cannot import name 'never' from 'tvm.contrib.cc'"):
        exec("from tvm.contrib.cc import never")


def test_old_names_go_in_time() -> None:
    """Once this fails, remove src/tvm/_mlc_bazel, its entry point in wheels/tvm and this test."""
    (release,) = re.findall(r"\+mlc(\d+\.\d+\.\d+)", importlib.metadata.version("apache-tvm"))
    assert Version(release) < Version(old_names.REMOVAL)
