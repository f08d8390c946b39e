"""The inputs of a build are those of the locks: each once, with version, hash and licence; locks that disagree are
refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterable

import pytest
from packageurl import PackageURL

from fetch import locks as inputs
from release.private import inputs as written_inputs

LOCKS = inputs.by_name([pathlib.Path(path) for path in os.environ["LOCKS"].split()])
MADE = [inputs.Made.read(pathlib.Path(path)) for path in os.environ["MADE_OF"].split()]
UNAVAILABLE = inputs.Parts.of(json.loads(pathlib.Path(os.environ["UNAVAILABLE"]).read_text()))
WITH_CUDA, WITH_SOURCES = (any(made.distribution == name for made in MADE) for name in ("apache-tvm-cuda", "mlc-llm"))

DEBIAN = json.loads(LOCKS["debian.lock.json"].read_text())
CRATES = json.loads(LOCKS["crates.lock.json"].read_text())
MODELS = json.loads(LOCKS["models.lock.json"].read_text())["models"]
SOURCES = json.loads(LOCKS["sources.lock.json"].read_text())["sources"]
LICENSES = json.loads(LOCKS["licenses.lock.json"].read_text())

# The version of a local folder's model, which has none of its own.
MINE = hashlib.sha256(f"{'5' * 64}  config.json\n".encode()).hexdigest()


@pytest.fixture(scope="module")
def loaded() -> list[inputs.Input]:
    return inputs.load(LOCKS)


@pytest.fixture
def small(tmp_path: pathlib.Path) -> dict[str, pathlib.Path]:
    """A lock of each kind with one entry, to be spoiled."""
    contents = {
        "crates.lock.json": {
            "sets": {"tokenizers": ["0.3/rand"]},
            "crates": {"0.3/rand": {"name": "rand", "version": "0.3.1", "sha256": "e" * 64}},
        },
        "debian.lock.json": {
            "sets": {"cc": ["bullseye/g++"], "image_dev": ["bullseye/g++"]},
            "packages": {
                "bullseye/g++": {"version": "1:2+b3", "sha256": "a" * 64, "path": "pool/main/g/g/g++_2+b3_all.deb"}
            },
        },
        "models.lock.json": {
            "models": {
                "checkpoint": {
                    "registry": "hub",
                    "repository": "Org/Name-1B",
                    "revision": "main",
                    "commit": "3" * 40,
                    "license": "mit",
                    "files": {
                        "model.safetensors": {"sha256": "2" * 64, "size": 9},
                        "sub/config.json": {"sha256": "1" * 64, "size": 1},
                    },
                },
                "gguf": {
                    "registry": "pypi",
                    "project": "one-model",
                    "version": "7",
                    "file": "one_model-7-py3-none-any.whl",
                    "sha256": "4" * 64,
                    "files": ["one_model/x.gguf"],
                },
                "mine": {
                    "registry": "folder",
                    "folder": "models",
                    "license": "mit",
                    "files": {"config.json": {"sha256": "5" * 64, "size": 1}},
                },
            }
        },
        "sources.lock.json": {
            "sources": {
                "engine": {
                    "registry": "git",
                    "repository": "https://github.com/some/engine.git",
                    "commit": "1" * 40,
                    "paths": ["src"],
                    "sha256": "f" * 64,
                },
                "tree": {"registry": "pypi", "version": "5", "file": "tree-5.tar.gz", "sha256": "b" * 64},
                "yard": {
                    "registry": "git",
                    "repository": "https://git.example.org/some/yard",
                    "commit": "2" * 40,
                    "paths": ["src"],
                    "sha256": "0" * 64,
                },
            }
        },
        "licenses.lock.json": {
            "crates": {"0.3/rand": {"version": "0.3.1", "license": "Zlib"}},
            "debian": {"bullseye/g++": {"version": "1:2+b3", "license": "GPL-3.0-or-later"}},
            "models": {
                "checkpoint": {"version": "3" * 40, "license": "MIT"},
                "gguf": {"version": "7", "license": "Apache-2.0"},
                "mine": {"version": MINE, "license": "MIT"},
            },
            "pypi": {"one": {"version": "4", "license": "MIT"}},
            "sources": {
                "engine": {"version": "1" * 40, "license": "Apache-2.0"},
                "tree": {"version": "5", "license": "Apache-2.0"},
                "yard": {"version": "2" * 40, "license": "MIT"},
            },
        },
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(json.dumps(content))
    hashes = " \\\n    ".join(f"--hash=sha256:{digit * 64}" for digit in "dc")
    (tmp_path / "requirements.lock.txt").write_text(f"# Generated\none==4 \\\n    {hashes}\n")
    (tmp_path / "requirements_arm64.lock.txt").write_text("")
    return {name: tmp_path / name for name in inputs.LOCKS}


def test_every_debian_package_is_there_once(loaded: list[inputs.Input]) -> None:
    found = {each.key: (each.version, each.sha256, each.license) for each in loaded if each.ecosystem == "debian"}
    assert len(found) == sum(each.ecosystem == "debian" for each in loaded) > 100
    packages = DEBIAN["packages"]
    assert found == {
        key: (entry["version"], (entry["sha256"],), LICENSES["debian"][key]["license"])
        for key, entry in packages.items()
    }


def test_every_requirement_is_there_once(loaded: list[inputs.Input]) -> None:
    text = LOCKS["requirements.lock.txt"].read_text()
    found = {each.name: each for each in loaded if each.ecosystem == "pypi"}
    of_arm64 = {name for name in found if name.endswith(":arm64")}
    assert len(found) == sum(each.ecosystem == "pypi" for each in loaded) == text.count("==") + len(of_arm64)
    assert {"numpy:arm64", "apache-tvm:arm64"} < of_arm64 and "requests:arm64" not in of_arm64
    other = LOCKS["requirements_arm64.lock.txt"].read_text()
    for name, each in found.items():
        pin = f"{each.package}=={each.version} \\\n    --hash=sha256:{each.sha256[0]}\n"
        assert pin in (other if name in of_arm64 else text) and (name in of_arm64) != (pin in text)
        assert (len(each.sha256), each.license) == (1, LICENSES["pypi"][each.package]["license"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("one==5", "expected one 4, as in requirements.lock.txt, found 5"),
        ("two==4", "expected two none, as in requirements.lock.txt, found 4"),
    ],
)
def test_arm64_has_the_same_versions(small: dict[str, pathlib.Path], line: str, message: str) -> None:
    small[inputs.ARM64_LOCK].write_text(f"{line} --hash=sha256:{'e' * 64}\n")
    with pytest.raises(inputs.InputsError, match=f"locks/requirements_arm64.lock.txt: {message}"):
        inputs.pinned(small)


def test_every_source_is_there_once(loaded: list[inputs.Input]) -> None:
    found = {each.name: (each.version, each.sha256, each.license) for each in loaded if each.ecosystem == "source"}
    assert len(found) == sum(each.ecosystem == "source" for each in loaded)
    assert found == {
        name: (entry.get("version") or entry["commit"], (entry["sha256"],), LICENSES["sources"][name]["license"])
        for name, entry in SOURCES.items()
    }
    assert found["mlc-llm"][0] == SOURCES["mlc-llm"]["commit"]


def test_every_crate_is_there_once(loaded: list[inputs.Input]) -> None:
    found = {
        each.key: (each.name, each.version, each.sha256, each.license) for each in loaded if each.ecosystem == "crate"
    }
    assert len(found) == sum(each.ecosystem == "crate" for each in loaded) > 10
    assert found == {
        key: (entry["name"], entry["version"], (entry["sha256"],), LICENSES["crates"][key]["license"])
        for key, entry in CRATES["crates"].items()
    }


def test_every_model_is_there_once(loaded: list[inputs.Input]) -> None:
    found = {each.name: (each.version, each.sha256, each.license) for each in loaded if each.ecosystem == "model"}
    assert len(found) == sum(each.ecosystem == "model" for each in loaded)
    assert found == {
        name: (entry["version"], (entry["sha256"],), LICENSES["models"][name]["license"])
        for name, entry in MODELS.items()
    }


def test_uses_are_the_sets(loaded: list[inputs.Input]) -> None:
    used = {(each.ecosystem, each.key, use) for each in loaded for use in each.uses}
    assert used == {
        (ecosystem, key, name)
        for ecosystem, lock in {"crate": CRATES, "debian": DEBIAN}.items()
        for name, keys in lock["sets"].items()
        for key in keys
    }


def test_order_and_identity(loaded: list[inputs.Input]) -> None:
    identities = [each.identity for each in loaded]
    assert identities == sorted(set(identities))


def test_package_urls(loaded: list[inputs.Input]) -> None:
    """Each is another one, but for what PyPI has for arm64 too, and reads back as the input that it is of."""
    named = [each.purl for each in loaded if not (each.ecosystem == "pypi" and each.architecture == "arm64")]
    assert len({each.purl for each in loaded}) == len(named)
    for each in loaded:
        purl = PackageURL.from_string(each.purl)
        name = MODELS[each.name]["project"] if each.ecosystem == "model" else each.package
        source = SOURCES[each.name] if each.ecosystem == "source" else {"registry": ""}
        assert (purl.name, purl.version) == (source.get("artifact", name), each.version), each
        if each.ecosystem == "debian":
            assert (purl.type, purl.namespace, purl.qualifiers["distro"]) == ("deb", "debian", each.suite)
            assert purl.qualifiers["arch"] in ("all", each.architecture)
        else:
            assert each.from_git == (source["registry"] == "git") and each.from_maven == (source["registry"] == "maven")
            expected = (
                ("github", source["repository"].split("/")[-2])
                if each.from_git
                else ("maven", source["group"])
                if each.from_maven
                else ("cargo" if each.ecosystem == "crate" else "pypi", None)
            )
            assert (purl.type, purl.namespace) == expected, each


def test_small_locks(small: dict[str, pathlib.Path]) -> None:
    assert inputs.load(small) == [
        inputs.Input("crate", "rand", "0.3.1", ("e" * 64,), "Zlib", ("tokenizers",), "0.3"),
        inputs.Input(
            "debian",
            "g++",
            "1:2+b3",
            ("a" * 64,),
            "GPL-3.0-or-later",
            ("cc", "image_dev"),
            "bullseye",
        ),
        inputs.Input("model", "checkpoint", "3" * 40, ("1" * 64, "2" * 64), "MIT"),
        inputs.Input("model", "gguf", "7", ("4" * 64,), "Apache-2.0"),
        inputs.Input("model", "mine", MINE, ("5" * 64,), "MIT"),
        inputs.Input("pypi", "one", "4", ("c" * 64, "d" * 64), "MIT"),
        inputs.Input("source", "engine", "1" * 40, ("f" * 64,), "Apache-2.0"),
        inputs.Input("source", "tree", "5", ("b" * 64,), "Apache-2.0"),
        inputs.Input("source", "yard", "2" * 40, ("0" * 64,), "MIT"),
    ]
    assert [each.purl for each in inputs.load(small)] == [
        "pkg:cargo/rand@0.3.1",
        "pkg:deb/debian/g%2B%2B@1:2%2Bb3?arch=all&distro=bullseye",
        f"pkg:huggingface/Org/Name-1B@{'3' * 40}",
        "pkg:pypi/one-model@7?file_name=one_model-7-py3-none-any.whl",
        f"pkg:generic/mine@{MINE}",
        "pkg:pypi/one@4",
        f"pkg:github/some/engine@{'1' * 40}",
        "pkg:pypi/tree@5?file_name=tree-5.tar.gz",
        f"pkg:generic/yard@{'2' * 40}?vcs_url=git%2Bhttps://git.example.org/some/yard%40{'2' * 40}",
    ]


@pytest.mark.parametrize(
    ("section", "key", "version"),
    [
        ("crates", "0.3/rand", "0.3.1"),
        ("debian", "bullseye/g++", "1:2+b3"),
        ("models", "checkpoint", "3" * 40),
        ("models", "mine", MINE),
        ("pypi", "one", "4"),
        ("sources", "engine", "1" * 40),
        ("sources", "tree", "5"),
    ],
)
def test_a_missing_licence_is_refused(small: dict[str, pathlib.Path], section: str, key: str, version: str) -> None:
    licenses = json.loads(small["licenses.lock.json"].read_text())
    del licenses[section][key]
    small["licenses.lock.json"].write_text(json.dumps(licenses))
    with pytest.raises(inputs.InputsError) as refused:
        inputs.load(small)
    assert (
        str(refused.value)
        == f"locks/licenses.lock.json: expected {section} '{key}' {version}, found no entry: run tools/bazel run"
        " //locks:update_licenses"
    )


def test_the_licence_of_another_version_is_refused(small: dict[str, pathlib.Path]) -> None:
    small["licenses.lock.json"].write_text(
        small["licenses.lock.json"].read_text().replace('"version": "4"', '"version": "3"')
    )
    message = r"expected pypi 'one' 4, found the licence of 3: run tools/bazel run //locks:update_licenses$"
    with pytest.raises(inputs.InputsError, match=message):
        inputs.load(small)


def test_the_licence_of_nothing_is_refused(small: dict[str, pathlib.Path]) -> None:
    licenses = json.loads(small["licenses.lock.json"].read_text())
    licenses["pypi"]["gone"] = {"version": "1", "license": "MIT"}
    small["licenses.lock.json"].write_text(json.dumps(licenses))
    with pytest.raises(
        inputs.InputsError, match=r"has pypi 'gone', which locks/requirements.lock.txt has not: run tools/bazel"
    ):
        inputs.load(small)


@pytest.mark.parametrize("name", inputs.LOCKS)
def test_a_missing_lock_is_refused(small: dict[str, pathlib.Path], name: str) -> None:
    del small[name]
    with pytest.raises(inputs.InputsError, match=f"expected locks/{name} among the locks"):
        inputs.load(small)


PYPI_CUDA = {
    "nvidia-cublas",
    "nvidia-cuda-cccl",
    "nvidia-cuda-crt",
    "nvidia-cuda-nvcc",
    "nvidia-cuda-runtime",
    "nvidia-cudnn-cu13",
    "nvidia-curand",
    "nvidia-nccl-cu13",
    "nvidia-nvtx",
    "nvidia-nvvm",
}

# What each wheel is made of, and what its bill of materials says: a change of the graph that changes this is a change
# of what is published.
CONTENT: dict[str, tuple[set[tuple[str, str]], set[tuple[str, str]]]] = {
    "apache-tvm": ({("pypi", "apache-tvm"), ("source", "tilelang")}, set()),
    "apache-tvm-cuda": (
        {("pypi", "apache-tvm"), ("source", "flashinfer-python"), ("source", "tilelang")}
        | ({("source", "tvm")} if WITH_SOURCES else set()),
        set(),
    ),
    # And the headers of its Python.
    "apache-tvm-ffi": ({("pypi", "apache-tvm-ffi")}, set()),
    "mlc-llm": (
        {("source", "mlc-llm"), ("source", "sentencepiece"), ("source", "tokenizers-cpp"), ("source", "xgrammar")},
        {("crate", "tokenizers_cpp"), ("debian", "cxx_headers")},
    ),
}
LICENSED_AS = {"apache-tvm-cuda": ("pypi", "apache-tvm"), "mlc-llm": ("source", "mlc-llm")}


@pytest.mark.parametrize("made", MADE, ids=lambda made: made.distribution + made.abi + made.architecture)
def test_the_build_graph_says_what_a_wheel_is_made_of(made: inputs.Made) -> None:
    entries, sets = CONTENT[made.distribution]
    official = {"apache-tvm", *(() if WITH_SOURCES else ("apache-tvm-cuda",))}
    if made.distribution in official and made.architecture == "arm64":
        # The official compiler or device runtime; what is the same for every processor comes from the wheel for x86-64.
        entries = entries | {("pypi", "apache-tvm:arm64")}
    headers = {("source", re.sub(r"cp3(\d+)t?", r"cpython-3.\1", made.abi))} if made.abi else set()
    assert made.content == inputs.Parts(frozenset(entries | headers), frozenset(sets))
    assert made.licensed_as == LICENSED_AS.get(made.distribution, ("pypi", made.distribution))
    # Its licence and notice are those of its project, and of the rest none.
    own = {
        ("pypi", "apache-tvm"),
        ("pypi", "apache-tvm:arm64"),
        ("pypi", "apache-tvm-ffi"),
        ("source", "tilelang"),
        ("source", "tvm"),
        ("source", "mlc-llm"),
    }
    assert made.of_the_project & made.content.entries == own & made.content.entries


@pytest.mark.parametrize("made", MADE, ids=lambda made: made.distribution + made.abi + made.architecture)
def test_compilers_and_called_libraries_are_tools(made: inputs.Made) -> None:
    tools = {name for ecosystem, name in made.tools.entries if ecosystem == "pypi" and name.startswith("nvidia-")}
    assert tools == (PYPI_CUDA if made.distribution == "apache-tvm-cuda" else set())
    assert (("debian", "cuda") in made.tools.sets) == (made.distribution == "apache-tvm-cuda")
    assert ("debian", "licenses") in made.tools.sets
    assert (("debian", "rust") in made.tools.sets) == (made.distribution == "mlc-llm")
    assert not made.tools.sets & made.content.sets and not made.tools.entries & made.content.entries


@pytest.mark.parametrize("made", MADE, ids=lambda made: made.distribution + made.abi + made.architecture)
def test_what_a_wheel_is_made_of_is_locked(made: inputs.Made, loaded: list[inputs.Input]) -> None:
    names = {(each.ecosystem, each.name) for each in loaded}
    sets = {(each.ecosystem, use) for each in loaded for use in each.uses}
    for parts in (made.content, made.tools):
        assert parts.entries <= names and parts.sets <= sets
    sources = made.sources(loaded)
    assert {(each.ecosystem, each.name) for each in sources if not each.uses} == made.content.entries
    assert {each.key for each in sources if each.ecosystem == "crate"} == {
        key for ecosystem, name in made.content.sets if ecosystem == "crate" for key in CRATES["sets"][name]
    }


def test_what_a_build_cannot_take_depends_on_its_options(loaded: list[inputs.Input]) -> None:
    entries, sets = set(), set()
    if not WITH_CUDA:
        entries |= {("pypi", name) for name in PYPI_CUDA} | {("source", "flashinfer-python")}
        sets |= {("debian", "cuda")}
    if not WITH_SOURCES:
        entries |= {("source", name) for name in ("mlc-llm", "sentencepiece", "tokenizers-cpp", "xgrammar")}
        sets |= {("crate", "tokenizers_cpp"), ("debian", "cxx_headers")}
    if not WITH_CUDA or not WITH_SOURCES:
        entries |= {("source", "tvm")}
    assert inputs.Parts(frozenset(entries), frozenset(sets)) == UNAVAILABLE
    taken = inputs.available(loaded, UNAVAILABLE)
    assert not [each for each in taken if each in UNAVAILABLE]
    # Debian packages that other sets have too stay.
    gone = {each.identity for each in loaded} - {each.identity for each in taken}
    assert not [
        each for each in loaded if each.identity in gone and any((each.ecosystem, use) not in sets for use in each.uses)
    ]


def test_unavailable_inputs_are_left_out_and_their_sets_forgotten(small: dict[str, pathlib.Path]) -> None:
    crate, debian, *others = inputs.load(small)
    unavailable = inputs.Parts(
        frozenset({("pypi", "one"), ("source", "tree")}), frozenset({("crate", "tokenizers"), ("debian", "cc")})
    )
    found = inputs.available([crate, debian, *others], unavailable)
    assert [each.name for each in found] == ["g++", "checkpoint", "gguf", "mine", "engine", "yard"]
    assert found[0].uses == ("image_dev",)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"distribution": "a", "licensed_as": ["pypi"]}'])
def test_a_malformed_made_of_is_refused(tmp_path: pathlib.Path, content: str) -> None:
    (tmp_path / "made_of.json").write_text(content)
    with pytest.raises(
        inputs.InputsError,
        match="made_of.json: expected what a target made_of of //wheels writes, found .*: build it again",
    ):
        inputs.Made.read(tmp_path / "made_of.json")


def run(monkeypatch: pytest.MonkeyPatch, locks: Iterable[pathlib.Path], output: pathlib.Path) -> int:
    monkeypatch.setattr(
        sys, "argv", ["inputs", "--locks", *map(str, locks), "--release", "v1", "--output", str(output)]
    )
    return written_inputs.main()


def test_the_program_writes_json(
    monkeypatch: pytest.MonkeyPatch,
    small: dict[str, pathlib.Path],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "inputs.json"
    assert run(monkeypatch, small.values(), output) == 0
    written = json.loads(output.read_text())
    assert written["release"] == "v1"
    assert [inputs.Input.from_json(each) for each in written["inputs"]] == inputs.load(small)
    assert [each["purl"] for each in written["inputs"]] == [each.purl for each in inputs.load(small)]
    small["licenses.lock.json"].unlink()
    assert run(monkeypatch, small.values(), output) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
