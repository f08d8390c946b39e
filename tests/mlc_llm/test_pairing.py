"""mlc_llm refuses a TVM of another build at import, in one line with both versions, before it loads a library."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tvm_ffi
from mlc_llm._mlc_bazel import versions

import tvm

PACKAGES = {"tvm": ("apache-tvm", versions.TVM), "tvm_ffi": ("apache-tvm-ffi", versions.TVM_FFI)}

# Tries the import, then reports whether the process loaded anything of TVM or mlc-llm.
IMPORT = """
import sys
try:
    import mlc_llm
except ImportError as error:
    print(f"{type(error).__module__}.{type(error).__name__}: {error}")
else:
    print("imported")
names = [line.split("/")[-1].strip() for line in open("/proc/self/maps") if ".so" in line]
print(sorted({name for name in names if "tvm" in name or "mlc" in name}))
print(sorted({name.partition(".")[0] for name in sys.modules} & {"tvm", "tvm_ffi", "numpy", "fastapi"}))
"""


class Site:
    """A folder of packages before all others, with a fake TVM."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(self, package: str, version: str | None) -> None:
        """A package that fails if it is imported, with the metadata of a version; None: without metadata."""
        (self.folder / package).mkdir()
        (self.folder / package / "__init__.py").write_text(f"raise RuntimeError('{package} was imported')\n")
        if version:
            distribution = PACKAGES[package][0]
            metadata = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
            metadata.mkdir()
            (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")

    def import_mlc_llm(self, path: list[str] | None = None) -> list[str]:
        """The three lines of IMPORT in a fresh interpreter: error, libraries, modules."""
        path = [str(self.folder), *(sys.path if path is None else path)]
        # -S: only the path decides what is installed, in an image too.
        program = f"import sys; sys.path[:] = {path!r}\n{IMPORT}"
        # mlc_llm creates its cache folder in HOME at import.
        environment = {"PYTHONDONTWRITEBYTECODE": "1", "HOME": str(self.folder.parent)}
        done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout.splitlines()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def without_tvm(folder: Path) -> list[str]:
    """sys.path with every folder that holds a TVM exchanged for one of links to all else that it holds."""
    path = []
    for number, entry in enumerate(map(Path, filter(None, sys.path))):
        if any((entry / package / "__init__.py").exists() for package in PACKAGES):
            copy = folder / str(number)
            copy.mkdir(parents=True)
            for file in entry.iterdir():
                if not re.match(r"(tvm|tvm_ffi|apache_tvm.*)$", file.name):
                    (copy / file.name).symlink_to(file)
            entry = copy
        path.append(str(entry))
    return path


def assert_refused(lines: list[str], package: str, found: str) -> None:
    error, libraries, modules = lines
    distribution, expected = PACKAGES[package]
    assert error.startswith("mlc_llm._mlc_bazel.pairing.MismatchError: ")
    assert (
        f"mlc-llm {importlib.metadata.version('mlc-llm')} was built with {distribution} {expected}, found {found}"
        in error
    )
    assert error.endswith(f"pip install {distribution}=={expected}")
    assert (libraries, modules) == ("[]", "[]")


def test_the_right_pair_is_imported(site: Site) -> None:
    assert site.import_mlc_llm()[0] == "imported"


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ("tvm", "0.26.0"),
        ("tvm", "0.27.0.post1"),
        ("tvm", re.sub(r"\.b[0-9a-f]{8}$", ".b00000000", versions.TVM)),
        ("tvm_ffi", versions.TVM_FFI.partition("+")[0]),
        ("tvm_ffi", re.sub(r"\.b[0-9a-f]{8}$", ".b00000000", versions.TVM_FFI)),
    ],
    ids=["official TVM", "newer TVM", "TVM of another build", "official FFI", "FFI of another build"],
)
def test_a_foreign_version_is_refused_with_both_named_before_anything_is_loaded(
    site: Site, package: str, version: str
) -> None:
    assert version != PACKAGES[package][1]
    site.add(package, version)
    assert_refused(site.import_mlc_llm(), package, f"{version} in {site.folder}: ")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_copy_without_metadata_is_refused(site: Site, package: str) -> None:
    """A source tree of TVM on PYTHONPATH is the usual way to run another TVM by accident."""
    site.add(package, None)
    assert_refused(site.import_mlc_llm(), package, f"a copy without metadata in {site.folder}: ")


@pytest.mark.parametrize("package", PACKAGES)
def test_metadata_of_the_right_version_elsewhere_does_not_excuse_another_copy(
    site: Site, tmp_path: Path, package: str
) -> None:
    """The metadata next to the package that Python imports counts, not what pip lists first."""
    site.add(package, None)
    first = Site(tmp_path / "first")
    first.add(package, PACKAGES[package][1])
    shutil.rmtree(first.folder / package)
    lines = site.import_mlc_llm([str(first.folder), *sys.path])
    assert_refused(lines, package, f"a copy without metadata in {site.folder}: ")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_tvm_is_refused(site: Site, tmp_path: Path, package: str) -> None:
    (other,) = set(PACKAGES) - {package}
    site.add(other, PACKAGES[other][1])
    assert_refused(site.import_mlc_llm(without_tvm(tmp_path / "links")), package, "none: ")


def test_importing_a_submodule_is_refused_too(site: Site) -> None:
    """The check is the package's first import, so importing any part of the package runs it."""
    site.add("tvm", "0.26.0")
    program = f"import sys; sys.path[:] = {[str(site.folder), *sys.path]!r}; import mlc_llm.protocol.mlc_chat_config"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, env={"PYTHONDONTWRITEBYTECODE": "1"}
    )
    assert done.returncode == 1
    assert re.match(r"mlc_llm\._mlc_bazel\.pairing\.MismatchError: .* found 0\.26\.0 in ", done.stderr.splitlines()[-1])


def test_the_compiled_in_versions_are_those_of_the_installed_distributions() -> None:
    assert Path(tvm.__file__).parent.parent == Path(str(importlib.metadata.distribution("apache-tvm").locate_file("")))
    assert Path(tvm_ffi.__file__).parent.parent == Path(
        str(importlib.metadata.distribution("apache-tvm-ffi").locate_file(""))
    )
    assert importlib.metadata.version("apache-tvm") == versions.TVM
    assert importlib.metadata.version("apache-tvm-ffi") == versions.TVM_FFI
