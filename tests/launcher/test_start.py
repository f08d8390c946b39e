"""tools/bazel becomes the right Bazel, passes everything on, chooses the profile, and says what a machine lacks."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_machine import BAZEL_SCRIPT, TESTDATA, FakeMachine

from fetch import trust
from tests.git_sources.repositories import Repository


class Launcher(FakeMachine):
    """A machine with a program `real` instead of Bazel."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.real = str(self.program(self.folder / "real/bazel"))

    def program(self, path: Path, text: str = BAZEL_SCRIPT) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def arguments(self, *given: str, fake: dict | None = None, **environment: str) -> tuple[list[str], str]:
        """Returns the arguments that Bazel got, and the launcher's messages."""
        done = self.run_launcher(*given, fake=fake, **environment)
        assert done.returncode == 0, done.stderr
        return [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith("argument ")], done.stderr

    def build(self, *given: str, answers: bool = True, **environment: str) -> tuple[list[str], str]:
        """What `build` makes of its arguments, where the registry answers or does not, and the launcher's own lines."""
        self.server.files["/registry.json"] = b"{}"
        upstream = {"The registry": self.server.url + ("/registry.json" if answers else "/absent")}
        got, message = self.arguments(
            "build", *given, "//x", fake={"upstream": upstream}, BAZEL_REAL=self.real, **environment
        )
        return got[got.index("build") :], message

    def doctor(self, *given: str, **environment: str) -> subprocess.CompletedProcess:
        fake = {"upstream": {"The registry": self.server.url + "/absent"}}
        return self.run_launcher("doctor", *given, fake=fake, **environment)

    def rows(self, text: str) -> dict[str, str]:
        """The doctor's lines by what they are about."""
        return {line.split("  ")[0]: line for line in text.splitlines()}

    def lock_sources(self) -> dict[str, Repository]:
        """Puts small repositories in place of the locked ones; returns them by name."""
        lock = self.root / "locks/sources.lock.json"
        names = [name for name, entry in json.loads(lock.read_text())["sources"].items() if entry["registry"] == "git"]
        assert {"mlc-llm", "xgrammar", "tokenizers-cpp"} <= set(names)
        repositories = {name: Repository.make(self.folder / "sources" / name) for name in names}
        lock.write_text(
            json.dumps({"sources": {name: repository.entry() for name, repository in repositories.items()}})
        )
        return repositories


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launcher]:
    """A machine with Bazel. The test itself uses the real machine's git."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with Launcher(tmp_path) as machine:
        yield machine


def test_every_argument_as_it_was(machine: Launcher) -> None:
    given = [
        "--output_base",
        "/x y",
        "--host_jvm_args=-Xmx1g",
        "run",
        "--config=upstream",
        "//a:b",
        "--",
        "--flag",
        "",
        "a  b",
        "*",
    ]
    got, _ = machine.arguments(*given, BAZEL_REAL=machine.real)
    assert got[-len(given) :] == given


def test_a_release_reads_no_cache_whatever_a_user_bazelrc_says(machine: Launcher) -> None:
    flags = ["--disk_cache=", "--remote_cache=", "--remote_executor="]
    for given, rest in (
        (["build", "--config=upstream", "--config=release", "//x"], []),
        (["run", "--config=upstream", "//x", "--config=release"], ["--", "--flag"]),
    ):
        got, _ = machine.arguments(*given, *rest, BAZEL_REAL=machine.real)
        assert got[-len(given + flags + rest) :] == given + flags + rest
    for given in (
        ["build", "--config=upstream", "//x"],
        ["info", "--config=upstream", "--config=release"],
        ["run", "--config=upstream", "//x", "--", "--config=release"],
    ):
        got, _ = machine.arguments(*given, BAZEL_REAL=machine.real)
        assert got[-len(given) :] == given


def test_a_release_has_an_output_base_of_its_own(machine: Launcher) -> None:
    bases = set()
    for given in (
        ["build", "--config=upstream", "--config=release", "//x"],
        ["info", "--config=upstream", "--config=release"],
        ["clean", "--config=release"],
    ):
        got, message = machine.arguments("--max_idle_secs=1", *given, BAZEL_REAL=machine.real)
        (base,) = [
            argument.removeprefix("--output_base=")
            for argument in got[: got.index("--max_idle_secs=1")]
            if argument.startswith("--output_base=")
        ]
        assert f"nothing comes from a cache: {base}\n" in message
        bases.add(base)
    (base,) = bases
    assert str(machine.cache / "release") == base.rpartition("/")[0]
    for given in (
        ["build", "--config=upstream", "//x"],
        ["run", "--config=upstream", "//x", "--", "--config=release"],
        ["--output_base=/x", "info", "--config=upstream", "--config=release"],
    ):
        got, message = machine.arguments(*given, BAZEL_REAL=machine.real)
        assert not [argument for argument in got if argument.startswith("--output_base=" + str(machine.cache))], got
        assert "output base" not in message


def test_without_arguments_too(machine: Launcher) -> None:
    got, message = machine.arguments(BAZEL_REAL=machine.real)
    assert [each for each in got if not each.startswith("--host_jvm_args=")] == []
    assert message == ""


def test_the_exit_code_is_bazels(machine: Launcher) -> None:
    for code in (1, 3, 37):
        assert machine.run_launcher("version", BAZEL_REAL=machine.real, FAKE_EXIT=str(code)).returncode == code


def test_ctrl_c_is_bazels(machine: Launcher) -> None:
    process = machine.start("version", BAZEL_REAL=machine.real, FAKE_SLEEP="1")
    lines = iter(process.stdout.readline, "ready\n")
    assert f"pid {process.pid}\n" in list(lines), "Bazel is not the launcher's own process"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=300)
    assert (process.returncode, out) == (8, "interrupted\n")


def test_bazel_real_comes_first(machine: Launcher) -> None:
    machine.program(machine.folder / "bin/bazel", "#!/bin/sh\necho bazel 7.7.1\n")
    real = machine.program(machine.folder / "real/bazel")
    machine.arguments("version", BAZEL_REAL=str(real), PATH=f"{machine.folder}/bin:/usr/bin:/bin")
    assert not machine.prefix.exists()


def test_a_bazel_real_that_is_not_there_is_an_error(machine: Launcher) -> None:
    done = machine.run_launcher("version", BAZEL_REAL="/nowhere/bazel")
    assert done.returncode == 1
    assert "/nowhere/bazel" in done.stderr


def test_a_bazel_on_path_of_the_right_version_is_taken(machine: Launcher) -> None:
    machine.program(
        machine.folder / "bin/bazel",
        '#!/bin/sh\n[ "$1" != --version ] || { echo bazel 7.7.1; exit; }\necho argument installed\n',
    )
    got, _ = machine.arguments("version", PATH=f"{machine.folder}/bin:/usr/bin:/bin")
    assert got == ["installed"]
    assert not machine.prefix.exists()


def test_a_bazel_on_path_of_another_version_is_not(machine: Launcher) -> None:
    machine.program(machine.folder / "bin/bazel", "#!/bin/sh\necho bazel 8.0.0\n")
    machine.arguments("version", PATH=f"{machine.folder}/bin:/usr/bin:/bin")
    assert machine.prefix.exists()


def test_itself_on_path_is_not_taken_for_bazel(machine: Launcher) -> None:
    (machine.folder / "bin").mkdir()
    (machine.folder / "bin/bazel").symlink_to(machine.root / "tools/bazel")
    machine.arguments("version", PATH=f"{machine.folder}/bin:{machine.root}/tools:/usr/bin:/bin")
    assert machine.prefix.exists()


def test_without_a_version_file_nothing_is_guessed(machine: Launcher) -> None:
    (machine.root / ".bazelversion").unlink()
    done = machine.run_launcher("version")
    assert done.returncode == 1
    assert ".bazelversion: expected a version of Bazel" in done.stderr


def test_upstream_where_it_answers(machine: Launcher) -> None:
    got, message = machine.build(MLC_PROFILE="")
    assert got == ["build", "--config=upstream", "//x"]
    assert re.search(r"^tools/bazel: profile upstream: The registry answer.*\n$", message)


def test_registries_where_it_does_not(machine: Launcher) -> None:
    got, message = machine.build(answers=False, MLC_PROFILE="")
    assert (got[1], got[-1]) == ("--config=registries", "//x")
    assert "profile registries: The registry does not answer (HTTP 404" in message


def test_modules_of_the_packages_are_named_in_registries_only(machine: Launcher) -> None:
    assert f"--override_module=platforms={machine.prefix}/usr/share/bazel/tools/platforms" in machine.build()[0]
    assert "--override_module" not in " ".join(machine.build(MLC_PROFILE="upstream")[0])


def test_the_command_line_decides_and_nobody_is_asked(machine: Launcher) -> None:
    got, message = machine.build("--config=upstream")
    assert (got, message) == (["build", "--config=upstream", "//x"], "")
    assert machine.requested("/registry.json") == []


def test_the_environment_decides_before_the_network(machine: Launcher) -> None:
    assert "--config=upstream" in machine.build(MLC_PROFILE="upstream")[0]
    assert machine.requested("/registry.json") == []


def test_an_unknown_profile_is_an_error(machine: Launcher) -> None:
    done = machine.run_launcher("build", "//x", BAZEL_REAL=machine.real, MLC_PROFILE="best")
    assert done.returncode == 1
    assert "MLC_PROFILE: expected upstream or registries, found 'best'" in done.stderr


def test_the_network_is_asked_once(machine: Launcher) -> None:
    for _ in range(2):
        machine.build(MLC_PROFILE="")
    assert len(machine.requested("/registry.json")) == 1


def test_commands_that_resolve_nothing_need_no_profile(machine: Launcher) -> None:
    for command in ("version", "shutdown", "help"):
        _, message = machine.arguments(command, BAZEL_REAL=machine.real, MLC_PROFILE="")
        assert message == ""


def test_bazels_java_is_given_the_machines_authorities(machine: Launcher) -> None:
    real = str(machine.program(machine.folder / "real/bazel"))
    got, _ = machine.arguments("version", BAZEL_REAL=real)
    (flag,) = [each for each in got if "trustStore" in each]
    store = flag.partition("trustStore=")[2]
    with open(store, "rb") as file:
        data = file.read()
    (certificate,) = trust.certificates((TESTDATA / "ca.pem").read_text())
    assert data[:12] == bytes.fromhex("feedfeed 00000002 00000001")
    assert certificate in data


def test_it_is_made_anew_when_the_bundle_changes(machine: Launcher) -> None:
    real = str(machine.program(machine.folder / "real/bazel"))
    bundle = machine.folder / "bundle.pem"
    stores = set()
    for text in ((TESTDATA / "ca.pem").read_text(), (TESTDATA / "ca.pem").read_text() + "\n# changed\n"):
        bundle.write_text(text)
        stores |= {
            each
            for each in machine.arguments("version", BAZEL_REAL=real, SSL_CERT_FILE=str(bundle))[0]
            if "trustStore" in each
        }
    assert len(stores) == 2


def test_lists_what_there_is(machine: Launcher) -> None:
    # What the doctor requests from each source.
    for path in (
        "/debian/dists/bookworm/InRelease",
        "/debian-security/dists/bookworm-security/InRelease",
        "/simple/pip/",
    ):
        machine.server.files[path] = b"{}"
    done = machine.doctor()
    rows = machine.rows(done.stdout)
    assert {
        "Bazel",
        "profile",
        "Debian mirror",
        "Debian security",
        "PyPI index",
        "CA bundle",
        "disk",
        "cores",
        "memory",
        "container tools",
        "user namespaces",
        "GPU",
    } <= set(rows)
    assert "the first command installs it" in rows["Bazel"]
    assert "HTTP 404" in rows["The registry"]


def test_says_what_to_do_about_a_gap_and_fails(machine: Launcher) -> None:
    done = machine.doctor(MLC_DEBIAN_MIRROR="http://127.0.0.1:1/debian")
    assert done.returncode == 1, done.stdout
    row = machine.rows(done.stdout)["Debian mirror"]
    assert "refused" in row
    assert "set MLC_DEBIAN_MIRROR to a mirror that answers" in row
    assert "cannot build yet" in done.stdout


def test_git_sources_that_nobody_gave_are_no_gap(machine: Launcher) -> None:
    for path in (
        "/debian/dists/bookworm/InRelease",
        "/debian-security/dists/bookworm-security/InRelease",
        "/simple/pip/",
    ):
        machine.server.files[path] = b"{}"
    done = machine.doctor()
    assert done.returncode == 0, done.stdout
    for name in ("mlc-llm", "tokenizers-cpp", "xgrammar"):
        row = machine.rows(done.stdout)[f"source {name}"]
        assert "MLC_SOURCES is not set" in row
        assert "only mlc-llm needs it" in row
    assert "only --config=cuda uses it" in machine.rows(done.stdout)["source tvm"]
    row = machine.rows(machine.doctor(MLC_PROFILE="upstream").stdout)["source mlc-llm"]
    assert "fetched from https://github.com/mlc-ai/mlc-llm" in row


def test_what_is_wrong_with_a_git_source_and_what_mends_it(machine: Launcher) -> None:
    repositories = machine.lock_sources()
    locked = repositories["mlc-llm"].commit
    moved = repositories["mlc-llm"].move_on()
    (repositories["tokenizers-cpp"].folder / "cpp/engine.cc").write_text("edited")
    rows = machine.rows(machine.doctor(MLC_SOURCES=str(machine.folder / "sources")).stdout)
    folder = machine.folder / "sources"
    assert re.search(f"  {moved}  +git -C {folder}/mlc-llm checkout {locked}$", rows["source mlc-llm"])
    assert re.search(
        "  changes to cpp/engine.cc  .*git -C .* stash push --include-untracked$", rows["source tokenizers-cpp"]
    )
    assert re.search(f"  {repositories['xgrammar'].commit} in {folder}/xgrammar$", rows["source xgrammar"])
    shutil.rmtree(folder / "xgrammar")
    (machine.root / "user.bazelrc").write_text(f"common --repo_env=MLC_SOURCES={folder}\n")
    rows = machine.rows(machine.doctor().stdout)
    assert re.search(f"  no such folder  +git clone file://{folder}/xgrammar ", rows["source xgrammar"])


def test_help_names_the_environment(machine: Launcher) -> None:
    done = machine.doctor("--help")
    assert done.returncode == 0
    for name in (
        "BAZEL_REAL",
        "MLC_PROFILE",
        "MLC_BAZEL_CACHE",
        "MLC_DEBIAN_MIRROR",
        "MLC_SOURCES",
        "PIP_INDEX_URL",
        "SSL_CERT_FILE",
    ):
        assert re.search(rf"(?m)^  {name}\b", done.stdout)
