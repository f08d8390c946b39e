"""The build id changes with what the libraries are made of, and with nothing else."""

import json

import pytest
from wheels.private import build_id

INPUTS = {
    "crates": ["one"],
    "debian": ["cc"],
    "files": ["overlay"],
    "requirements": ["apache-tvm", "apache-tvm-ffi"],
    "sources": ["mlc-llm"],
}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "locks").mkdir()
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay/BUILD.bazel").write_text("a")
    (tmp_path / "overlay/README.md").write_text("a")
    packages = {name: {"sha256": name * 64} for name in "ab"}
    (tmp_path / "locks/debian.lock.json").write_text(json.dumps({"sets": {"cc": ["a"], "image": ["b"]}, "packages": packages}))
    (tmp_path / "locks/crates.lock.json").write_text(json.dumps({"sets": {"one": ["1/a"]}, "crates": {"1/a": {"sha256": "d" * 64}}}))
    sources = {"mlc-llm": {"sha256": "e" * 64}, "other": {"sha256": "f" * 64}}
    (tmp_path / "locks/sources.lock.json").write_text(json.dumps({"sources": sources}))
    lines = [f"{name}==1 \\\n    --hash=sha256:{digit * 64}\n" for name, digit in (("apache-tvm", "1"), ("apache-tvm-ffi", "2"), ("pytest", "3"))]
    (tmp_path / "locks/requirements.lock.txt").write_text("".join(lines))
    return tmp_path


def replace(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("overlay/BUILD.bazel", "a", "b"),
        ("locks/debian.lock.json", "a" * 64, "c" * 64),
        ("locks/requirements.lock.txt", "1" * 64, "4" * 64),
        ("locks/requirements.lock.txt", "2" * 64, "4" * 64),
        ("locks/crates.lock.json", "d" * 64, "c" * 64),
        ("locks/sources.lock.json", "e" * 64, "c" * 64),
    ],
)
def test_changes_with(root, file, old, new):
    before = build_id.entries(root, INPUTS)
    replace(root / file, old, new)
    assert build_id.entries(root, INPUTS) != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("overlay/README.md", "a", "b"),
        ("locks/debian.lock.json", "b" * 64, "c" * 64),
        ("locks/requirements.lock.txt", "3" * 64, "4" * 64),
        ("locks/sources.lock.json", "f" * 64, "c" * 64),
    ],
)
def test_does_not_change_with(root, file, old, new):
    before = build_id.entries(root, INPUTS)
    replace(root / file, old, new)
    assert build_id.entries(root, INPUTS) == before


def test_a_file_that_comes_or_is_renamed_changes_it(root):
    before = build_id.entries(root, INPUTS)
    (root / "overlay/BUILD.bazel").rename(root / "overlay/BUILD")
    assert build_id.entries(root, INPUTS) != before


def test_a_lock_without_tvm_is_an_error(root):
    replace(root / "locks/requirements.lock.txt", "apache-tvm-ffi==1", "other==1")
    with pytest.raises(KeyError, match="apache-tvm-ffi"):
        build_id.entries(root, INPUTS)
