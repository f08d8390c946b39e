"""Adding a distribution moves no other pin; --upgrade moves them all.

Against an index in a folder, with wheels that hold metadata only."""

from __future__ import annotations

import base64
import functools
import http.server
import threading
import zipfile
from pathlib import Path
from typing import Any

import pip
import pytest

from fetch import errors, lock_file
from fetch.hashes import file_sha256
from fetch.pypi import update_requirements

LOCK = f"""\
# a comment
new-style==1.0 \\
    --hash=sha256:{"0" * 64}
old==1.0 \\
    --hash=sha256:{"0" * 64}
"""


def add_wheel(folder: Path, name: str, version: str, requires: str = "", tags: str = "py3-none-any") -> None:
    """Adds a wheel to an index (PEP 503)."""
    project = folder / name
    project.mkdir(parents=True, exist_ok=True)
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(project / f"{name}-{version}-{tags}.whl", "w") as wheel:
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")
        wheel.writestr(f"{about}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tags}\n")
        wheel.writestr(f"{about}/RECORD", "")
    links = "".join(
        f'<a href="{path.name}#sha256={file_sha256(path)}">{path.name}</a>\n' for path in sorted(project.glob("*-*"))
    )
    (project / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index with two versions of "old", and "added", which requires "old" of any version.

    "choosy" requires "old" on newer Pythons on arm64 only; "native" has wheels for CPython 3.11, whose newer version
    needs a newer glibc than the build's wheels do.
    """
    folder = tmp_path / "simple"
    (folder / "old").mkdir(parents=True)
    # A source archive, which nobody should build.
    (folder / "old/old-3.0.tar.gz").write_bytes(b"")
    add_wheel(folder, "old", "1.0")
    add_wheel(folder, "old", "2.0")
    add_wheel(folder, "added", "3.0", "Requires-Dist: old\n")
    marker = "python_version >= '3.12' and platform_machine == 'aarch64'"
    add_wheel(folder, "choosy", "1.0", f"Requires-Dist: old ; {marker}\n")
    for machine in ("x86_64", "aarch64"):
        add_wheel(folder, "native", "1.0", tags=f"cp311-cp311-manylinux_2_28_{machine}")
        add_wheel(folder, "native", "2.0", tags=f"cp311-cp311-manylinux_2_31_{machine}")
    monkeypatch.setenv("PIP_INDEX_URL", folder.as_uri())
    # pytest's runner keeps its path to itself; pip runs as a process.
    monkeypatch.setenv("PYTHONPATH", str(Path(pip.__file__).parent.parent))
    return folder


def resolved(tmp_path: Path, asked: str, pins: list[str]) -> dict[str, str]:
    requirements = tmp_path / "requirements.in"
    requirements.write_text(asked)
    report = update_requirements.resolve(requirements, pins)
    return {entry["metadata"]["name"]: entry["metadata"]["version"] for entry in report}


def packages(version: str) -> list[dict]:
    """What uv answers for "old", which has a wheel for each processor."""
    urls = [
        f"https://example.org/old-{version}-cp311-cp311-manylinux_2_17_{each}.whl" for each in ("x86_64", "aarch64")
    ]
    hashes = {url: {"sha256": str(number) * 64} for number, url in enumerate(urls)}
    return [{"name": "Old", "version": version, "wheels": [{"url": url, "hashes": hashes[url]} for url in urls]}]


def test_arm64_gets_the_same_version_and_its_own_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple] = []

    def answer(*arguments: object) -> list[dict]:
        asked.append(arguments)
        return packages("1.0")

    monkeypatch.setattr(update_requirements, "resolve_for", answer)
    lock = update_requirements.arm64_lock("old # why\nadded\n", {"old": "1.0"})
    assert lock.endswith(f"old==1.0 \\\n    --hash=sha256:{'1' * 64}\n") and "on Linux arm64" in lock
    assert asked == [("3.11", ["old ", "added"], ["old==1.0"], "aarch64")]


def test_another_version_for_arm64_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_requirements, "resolve_for", lambda *_: packages("2.0"))
    with pytest.raises(
        errors.UserError, match="old: expected the version 1.0 of requirements.lock.txt .* found 2.0: dem"
    ):
        update_requirements.arm64_lock("old\n", {"old": "1.0"})


@pytest.mark.parametrize(
    ("machine", "files", "best"),
    [
        ("x86_64", ["a-1-py3-none-any.whl", "a-1-cp311-cp311-manylinux_2_17_x86_64.whl"], 1),
        ("aarch64", ["a-1-py3-none-any.whl", "a-1-cp311-cp311-manylinux_2_17_x86_64.whl"], 0),
        ("aarch64", ["a-1-cp39-abi3-manylinux2014_aarch64.whl", "a-1-cp311-cp311-manylinux_2_28_aarch64.whl"], 1),
        ("aarch64", ["a-1-cp311-cp311-manylinux_2_31_aarch64.whl", "a-1-cp311-cp311-manylinux_2_28_aarch64.whl"], 1),
    ],
)
def test_the_best_wheel_is_the_one_that_pip_takes(machine: str, files: list[str], best: int) -> None:
    wheels = [{"url": f"https://example.org/{file}", "hashes": {"sha256": file}} for file in files]
    package = {"name": "a", "version": "1", "wheels": wheels}
    assert update_requirements.best_wheel(package, "3.11", machine)["file"] == files[best]


def test_a_new_distribution_leaves_locked_versions_where_they_are(tmp_path: Path) -> None:
    assert resolved(tmp_path, "old\nadded\n", update_requirements.kept(LOCK, "old\nadded\n")) == {
        "added": "3.0",
        "old": "1.0",
    }


def test_upgrade_moves_them(tmp_path: Path) -> None:
    assert resolved(tmp_path, "old\nadded\n", []) == {"added": "3.0", "old": "2.0"}


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ("old\nnew.Style\n", ["new-style==1.0", "old==1.0"]),
        ("old>=1.5  # a newer one\n", ["new-style==1.0"]),
        ("# old>=1.5\nNew_Style!=1.0\n", ["old==1.0"]),
    ],
)
def test_what_requirements_in_rules_out_is_not_kept(asked: str, kept: list[str]) -> None:
    assert update_requirements.kept(LOCK, asked) == kept


def test_pins_in_the_way_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(errors.UserError, match="--upgrade lets them move"):
        resolved(tmp_path, "old\nadded\n", ["old==7"])
    assert "old==7" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("3.12", ["added"], ["old==1.0"]), {"added": "3.0", "old": "1.0"}),
        (("3.12", ["added"], []), {"added": "3.0", "old": "2.0"}),
        # A pin of what is not needed, and one that does not suit.
        (("3.12", ["old"], ["added==3.0", "old==7"]), {"old": "2.0"}),
        (("3.12", ["choosy"], [], "aarch64"), {"choosy": "1.0", "old": "2.0"}),
        (("3.11", ["choosy"], [], "aarch64"), {"choosy": "1.0"}),
        (("3.12", ["choosy"], []), {"choosy": "1.0"}),
        (("3.11", ["native"], []), {"native": "1.0"}),
        (("3.11", ["native"], ["native==2.0"], "aarch64"), {"native": "1.0"}),
    ],
)
def test_uv_resolves_for_another_python_and_processor(
    monkeypatch: pytest.MonkeyPatch, arguments: Any, expected: dict[str, str]
) -> None:
    # The machine's settings of uv do not count.
    monkeypatch.setenv("UV_RESOLUTION", "lowest")
    packages = update_requirements.resolve_for(*arguments)
    assert {package["name"]: package["version"] for package in packages} == expected


def test_what_uv_finds_has_the_hash_of_the_index(index: Path) -> None:
    packages = update_requirements.resolve_for("3.11", ["native"], [], "aarch64")
    file = "native-1.0-cp311-cp311-manylinux_2_28_aarch64.whl"
    assert [update_requirements.best_wheel(package, "3.11", "aarch64") for package in packages] == [
        {"version": "1.0", "file": file, "sha256": file_sha256(index / "native" / file)}
    ]


def test_what_uv_cannot_resolve_is_an_error_with_its_reason(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(errors.UserError, match=r"^uv cannot resolve for CPython 3\.12 on aarch64; its reason stands"):
        update_requirements.resolve_for("3.12", ["native"], [], "aarch64")
    said = capfd.readouterr()
    assert "native" in said.err and said.out == ""


def test_uv_logs_in_where_pip_does(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "Basic " + base64.b64encode(b"us@er:pass:word/").decode()
    refused = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def send_head(self) -> Any:
            if self.headers["Authorization"] == expected:
                return super().send_head()
            refused.append(self.path)
            self.send_error(401)
            return None

        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(index))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://us%40er:pass%3Aword%2F@127.0.0.1:{server.server_port}")
        packages = update_requirements.resolve_for("3.12", ["old"], [])
        server.shutdown()
    assert [package["version"] for package in packages] == ["2.0"] and not refused


def test_a_command_that_cannot_do_its_work_says_why_in_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise errors.UserError("no mirror answers")

    with pytest.raises(SystemExit, match="2"):
        lock_file.run(main)
    assert capsys.readouterr().err == "no mirror answers\n"
