"""The TVM libraries in the process are the ones compiled here, not the official wheel's prebuilt ones.

Three marks, each read from what the process has mapped: the file belongs to a distribution with our local version and
has the hash that its RECORD states; the file is mapped once only; and its `.comment` section names no compiler but the
Debian GCC of our toolchain. The prebuilt compiler, made elsewhere, shows that the last one can tell the difference.
"""

import base64
import hashlib
import importlib.metadata
import re
import struct
from pathlib import Path

import pytest

import tvm  # noqa: F401  (loads the libraries)

OURS = {
    "libtvm_ffi.so": "apache-tvm-ffi",
    "libtvm_runtime.so": "apache-tvm",
    "libtvm_runtime_extra.so": "apache-tvm",
}


def mapped(name: str) -> Path:
    """The only file of this name that the process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {fields[5] for line in lines if len(fields := line.split(maxsplit=5)) == 6}
    found = sorted(path for path in paths if Path(path).name == name)
    assert len(found) == 1, f"{name}: expected to be mapped from one file, found {found}"
    return Path(found[0])


def compilers(library: Path) -> set[str]:
    """The strings of an ELF-64 file's .comment section: one per compiler that contributed code."""
    data = library.read_bytes()
    assert data[:6] == b"\x7fELF\x02\x01", f"{library}: not a little-endian 64-bit ELF file"
    (section_table,) = struct.unpack_from("<Q", data, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", data, section_table + i * entry_size) for i in range(count)]
    names = headers[names_index][4]
    for name, _, _, _, offset, size in headers:
        if data[names + name : names + name + 9] == b".comment\0":
            return {text.decode() for text in data[offset : offset + size].split(b"\0") if text}
    return set()


@pytest.mark.parametrize("name", OURS)
def test_library_is_the_one_in_its_distribution(name: str) -> None:
    library = mapped(name)
    distribution = importlib.metadata.distribution(OURS[name])
    (recorded,) = [file for file in distribution.files or [] if file.name == name]
    assert Path(str(recorded.locate())).resolve() == library.resolve()
    digest = base64.urlsafe_b64encode(hashlib.sha256(library.read_bytes()).digest()).rstrip(b"=").decode()
    assert recorded.hash and (recorded.hash.mode, recorded.hash.value) == ("sha256", digest)


def test_distributions_have_the_local_version_of_one_build() -> None:
    """Package indexes refuse local versions, so no upstream release can have one."""
    local = {name: importlib.metadata.version(name).partition("+")[2] for name in sorted(set(OURS.values()))}
    assert all(re.fullmatch(r"mlc[0-9.]+\.b[0-9a-f]{8}", version) for version in local.values()), (
        f"upstream wheels? {local}"
    )
    # Each wheel has its own build id; the pin says that both come from one build.
    pin = f"apache-tvm-ffi=={importlib.metadata.version('apache-tvm-ffi')}"
    assert pin in (importlib.metadata.requires("apache-tvm") or []), f"wheels of different builds: {local}"


@pytest.mark.parametrize("name", OURS)
def test_library_was_compiled_by_our_toolchain(name: str) -> None:
    found = compilers(mapped(name))
    assert found and all(text.startswith("GCC: (Debian ") for text in found), f"{name}: compiled by {found}"


def test_the_prebuilt_compiler_is_recognized_as_not_ours() -> None:
    found = compilers(mapped("libtvm_compiler.so"))
    assert found and not any(text.startswith("GCC: (Debian ") for text in found)
