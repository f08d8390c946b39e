"""The installed wheels import in a clean interpreter and agree on their versions."""

import importlib
import importlib.metadata
import subprocess
import sys

import pytest
import tvm_ffi

import tvm


@pytest.mark.parametrize(
    "name",
    [
        "tvm",
        "tvm.contrib.tvmjs",
        "tvm.relax",
        "tvm.relax.frontend.nn",
        "tvm.relax.frontend.nn.llm.kv_cache",
        "tvm.rpc",
        "tvm.runtime",
        "tvm.runtime.disco",
        "tvm.s_tir.dlight",
        "tvm.script",
        "tvm.te",
        "tvm.tirx",
        "tvm.topi",
        "tvm_ffi",
    ],
)
def test_module_imports(name: str) -> None:
    assert importlib.import_module(name).__name__ == name


def test_the_compiler_is_there() -> None:
    assert not tvm.base._RUNTIME_ONLY
    assert tvm.runtime.enabled("llvm")


def test_import_writes_nothing_to_stderr() -> None:
    """TVM only warns about a library or extra package that fails to load, so silence means that all of them load."""
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; import tvm; print(tvm.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (result.stdout.strip(), result.stderr) == (tvm.__version__, "")


def test_versions_agree_with_the_distributions() -> None:
    public = importlib.metadata.version("apache-tvm").partition("+")[0]
    assert tvm.__version__.partition("+")[0] == public
    public = importlib.metadata.version("apache-tvm-ffi").partition("+")[0]
    assert tvm_ffi.__version__.partition("+")[0] == public


def test_tvm_requires_exactly_this_tvm_ffi() -> None:
    """Objects that cross between the two may have another layout in any other pair."""
    requirements = importlib.metadata.requires("apache-tvm") or []
    tvm_ffi_requirements = [line for line in requirements if line.replace(" ", "").startswith("apache-tvm-ffi")]
    assert [line.replace(" ", "") for line in tvm_ffi_requirements] == [
        "apache-tvm-ffi==" + importlib.metadata.version("apache-tvm-ffi")
    ]


def test_only_one_distribution_provides_each_package() -> None:
    """A second TVM in the environment would mix libraries of two builds."""
    providers: dict[str, set[str]] = {}
    for distribution in importlib.metadata.distributions():
        for file in distribution.files or []:
            providers.setdefault(file.parts[0], set()).add(distribution.metadata["Name"])
    assert providers["tvm"] == {"apache-tvm"}
    assert providers["tvm_ffi"] == {"apache-tvm-ffi"}
