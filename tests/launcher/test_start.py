"""tools/bazel becomes the right Bazel, passes everything on, chooses the profile, and says what a machine lacks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_machine import BAZEL_SCRIPT, HERE, ROOT, TESTDATA, FakeMachine

from fetch import errors, trust
from tests.git_sources.repositories import Repository
from tools.launcher import bazel_options, options, release_options


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
        # For a release with the Bazel of these tests, which no lock pins.
        done = self.run_launcher(*given, fake=fake, **{"MLC_UNLOCKED_BAZEL": "1", **environment})
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


def runs(done: subprocess.CompletedProcess) -> list[list[str]]:
    """The arguments of each run of Bazel, from its command on."""
    started = done.stdout.split("pid ")[1:]
    found = [re.findall(r"^argument (.*)$", text, re.MULTILINE) for text in started]
    return [each[each.index("run") + 1 :] for each in found]


@pytest.mark.parametrize(
    ("target", "check"),
    [
        ("//images:push", "//release:push_check"),
        ("@//images:push", "//release:push_check"),
        ("images:push", "//release:push_check"),
        ("//release:push", "//release:push_check"),
        ("//release:publish", "//release:publish_check"),
    ],
)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["--config=upstream"], ["--", "--tag", "one"]),
        (["--config=upstream", "--jobs", "4", "-c", "opt"], ["--verbose_failures", "--", "--tag", "one"]),
        (["--config=upstream", "--"], ["--tag", "one"]),
    ],
    ids=["", "more options", "--"],
)
def test_what_waits_for_tests_is_checked_before(
    machine: Launcher, target: str, check: str, before: list[str], after: list[str]
) -> None:
    done = machine.run_launcher("run", *before, target, *after, BAZEL_REAL=machine.real)
    assert done.returncode == 0, done.stderr
    assert runs(done) == [[*before, check, *after], [*before, target, *after]]


def test_what_a_check_refuses_is_not_run(machine: Launcher) -> None:
    done = machine.run_launcher(
        "run", "--config=upstream", "//images:push", "--", "--tga", BAZEL_REAL=machine.real, FAKE_EXIT="2"
    )
    assert (done.returncode, runs(done)) == (2, [["--config=upstream", "//release:push_check", "--", "--tga"]])


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_needs_no_tests(machine: Launcher, flag: str) -> None:
    done = machine.run_launcher("run", "--config=upstream", "//images:push", "--", flag, BAZEL_REAL=machine.real)
    assert runs(done) == [["--config=upstream", "//release:push_check", "--", flag]]


@pytest.mark.parametrize(
    "given",
    [
        ["//images:run", "--", "//images:push"],
        ["--config", "upstream", "//a:b", "//images:push"],
        ["--script_path=x", "//images:push"],
        [],
    ],
    ids=" ".join,
)
def test_nothing_else_is_checked(machine: Launcher, given: list[str]) -> None:
    done = machine.run_launcher("run", "--config=upstream", *given, BAZEL_REAL=machine.real)
    assert runs(done) == [["--config=upstream", *given]]


def test_a_check_checks_nothing_itself(machine: Launcher) -> None:
    """Where Bazel is a program that leads back to tools/bazel, for example."""
    given = ["--config=upstream", "//images:push"]
    assert runs(machine.run_launcher("run", *given, BAZEL_REAL=machine.real, MLC_LAUNCHER_CHECKS="1")) == [given]


# What .bazelrc says of a release.
RELEASE = [
    "--stamp",
    "--workspace_status_command=tools/workspace_status.py",
    "--disk_cache=",
    "--remote_cache=",
    "--remote_executor=",
]


def assert_release(machine: Launcher, *given: str, **environment: str) -> None:
    """Asserts that Bazel gets these arguments with a release's output base before and its options behind all others."""
    got, message = machine.arguments(*given, BAZEL_REAL=machine.real, **environment)  # type: ignore[arg-type]
    options = got[: got.index("--", got.index("//x"))] if "--flag" in given else got
    assert options[-len(RELEASE) :] == RELEASE, got
    assert [each for each in got if each.startswith(f"--output_base={machine.cache}/release/")] != [], got
    assert "nothing comes from a cache" in message


def assert_no_release(machine: Launcher, *given: str) -> None:
    got, message = machine.arguments(*given, BAZEL_REAL=machine.real)
    assert got[-len(given) :] == list(given)
    assert "output base" not in message
    assert not [argument for argument in got if argument.startswith("--output_base=" + str(machine.cache))], got


@pytest.mark.parametrize(
    "given",
    [
        ["build", "--config=upstream", "--config=release", "//x"],
        ["build", "--config=upstream", "--config", "release", "//x"],
        ["--max_idle_secs", "1", "test", "--config=upstream", "//x", "--config", "release"],
        ["run", "--config=upstream", "//x", "--config=release", "--", "--flag"],
        ["build", "--config=upstream", "--test_arg", "--", "--config=release", "//x"],
        ["build", "--config=upstream", "--stamp", "--config=release", "--nostamp", "--disk_cache=/x"],
    ],
    ids=" ".join,
)
def test_a_release_is_one_in_either_spelling(machine: Launcher, given: list[str]) -> None:
    assert_release(machine, *given)


@pytest.mark.parametrize(
    "given",
    [
        ["build", "--config=upstream", "//x"],
        ["build", "--config=upstream", "--config=releases", "//x"],
        ["run", "--config=upstream", "//x", "--", "--config=release"],
        ["run", "--config=upstream", "//x", "--", "--config", "release"],
        ["test", "--config=upstream", "--test_arg", "--config=release", "//x"],
        ["test", "--config=upstream", "--test_arg", "--config", "//x"],
    ],
    ids=" ".join,
)
def test_what_is_no_option_of_bazels_makes_no_release(machine: Launcher, given: list[str]) -> None:
    assert_no_release(machine, *given)


@pytest.mark.parametrize(
    "lines",
    [
        "common --config=release",
        "build --config release",
        "build:ci --config=release\ncommon --config=ci",
        "always:mine \\\n  --config=release  # as always\ntest --config=mine",
        "import %workspace%/more.bazelrc",
    ],
)
def test_a_release_is_one_if_an_rc_file_says_so(machine: Launcher, lines: str) -> None:
    (machine.root / "user.bazelrc").write_text(lines + "\n")
    (machine.root / "more.bazelrc").write_text("import %workspace%/user.bazelrc\ntest --config=release\n")
    assert_release(machine, "test", "--config=upstream", "//x")


def test_an_rc_file_for_other_commands_makes_no_release(machine: Launcher) -> None:
    (machine.root / "user.bazelrc").write_text(
        "# build --config=release\nquery --config=release\ntest --config=release\nbuild:unused --config=release\n"
    )
    assert_no_release(machine, "build", "--config=upstream", "//x")


def test_rc_files_are_those_that_bazel_reads(machine: Launcher) -> None:
    home = machine.folder / "home"
    home.mkdir()
    (home / ".bazelrc").write_text("build --config=release\n")
    (machine.folder / "named").write_text("build --config=release\n")
    build = ["build", "--config=upstream", "//x"]
    assert_release(machine, *build)
    assert_no_release(machine, "--nohome_rc", *build)
    assert_no_release(machine, "--ignore_all_rc_files", *build)
    # This one makes it a release too, and a release takes no such file.
    done = machine.run_launcher(
        "--nohome_rc", "--bazelrc", str(machine.folder / "named"), *build, BAZEL_REAL=machine.real
    )
    assert done.returncode == 1 and "--bazelrc=" in done.stderr and "does not take this option" in done.stderr
    assert_no_release(machine, "--nohome_rc", "--bazelrc=/dev/null", f"--bazelrc={machine.folder}/named", *build)


def test_every_option_of_a_release_is_repeated(machine: Launcher) -> None:
    """.bazelrc is the only list, so that an option added there holds too."""
    with open(machine.root / ".bazelrc", "a") as file:
        file.write("build:release --more\n")
    (machine.root / "user.bazelrc").write_text("build:release --theirs --workspace_status_command=theirs\n")
    got, _ = machine.arguments("build", "--config=upstream", "--config=release", "//x", BAZEL_REAL=machine.real)
    assert got[-len(RELEASE) - 1 :] == [*RELEASE, "--more"]


@pytest.mark.parametrize("value", ["", "0", "yes"])
def test_a_release_is_not_built_by_a_bazel_that_no_lock_pins(machine: Launcher, value: str) -> None:
    given = ["build", "--config=upstream", "--config=release", "//x"]
    done = machine.run_launcher(*given, BAZEL_REAL=machine.real, MLC_UNLOCKED_BAZEL=value)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{machine.real} (from BAZEL_REAL) is not compared with it" in done.stderr
    assert "MLC_UNLOCKED_BAZEL=1" in done.stderr
    # Other builds take it as it is.
    assert machine.arguments("build", "--config=upstream", "//x", BAZEL_REAL=machine.real, MLC_UNLOCKED_BAZEL=value)


def test_a_release_reads_no_rc_file_of_the_user(machine: Launcher) -> None:
    home = machine.folder / "home"
    home.mkdir()
    (home / ".bazelrc").write_text("common --theirs\n")
    (machine.root / "user.bazelrc").write_text("common --override_repository=x=/y\n")
    got, message = machine.arguments("build", "--config=upstream", "--config=release", "//x", BAZEL_REAL=machine.real)
    startup = got[: got.index("build")]
    assert {"--nosystem_rc", "--nohome_rc", "--noworkspace_rc"} < set(startup)
    (file,) = [each.removeprefix("--bazelrc=") for each in startup if each.startswith("--bazelrc=")]
    copy = Path(file)
    assert copy.is_relative_to(machine.cache / "release")
    own = (machine.root / ".bazelrc").read_text()
    assert [line for line in own.splitlines() if line not in copy.read_text().splitlines()] == [
        "try-import %workspace%/user.bazelrc"
    ]
    ignored = f"a release ignores {home}/.bazelrc and {machine.root}/user.bazelrc: put options on the command line,"
    assert ignored in message
    # No release: nothing changes.
    got, message = machine.arguments("build", "--config=upstream", "//x", BAZEL_REAL=machine.real)
    assert "--noworkspace_rc" not in got and "ignores" not in message


@pytest.mark.parametrize(
    "given",
    [
        ["--copt=-O0"],
        ["--copt", "-O0"],
        ["-c", "dbg"],
        ["--compilation_mode=dbg"],
        ["--define", "a=b"],
        ["--override_repository=x=/y"],
        ["--override_module=x=/y"],
        ["--registry=https://a.example"],
        ["--action_env=PATH=/y"],
        ["--run_under=/y"],
        ["--platforms=//y"],
        ["--//y:flag=1"],
        ["--@y//:flag"],
        ["--noincompatible_strict_action_env"],
        ["--sandbox_default_allow_network=true"],
        ["--default_override=0:build=--copt=-O0"],
        ["--invocation_policy=x"],
        ["--repo_env=BAZEL_DO_NOT_DETECT_CPP_TOOLCHAIN=0"],
        ["--repo_env", "PATH=/y"],
        ["--repo_env"],
        ["--sandbox_tmpfs_path=/usr/include"],
        # Behind an option whose value looks like one.
        ["--test_arg", "--jobs", "--copt=-O0"],
    ],
    ids=" ".join,
)
def test_a_release_takes_no_option_that_could_change_it(given: list[str]) -> None:
    refused = given[-1] if "=" in given[-1] and given[-1].startswith("-") else "=".join(given)
    with pytest.raises(errors.UserError) as error:
        release_options.check(options.CommandLine(["build", "--config=release", "//x", *given]))
    assert f"{refused} (on the command line): a release does not take this option" in str(error.value)
    assert "commit it to .bazelrc" in str(error.value)
    # What is behind "--" is a program's.
    release_options.check(options.CommandLine(["run", "--config=release", "//x", "--", *given]))


@pytest.mark.parametrize(
    "given",
    [
        ["--config=cuda", "--config", "registries"],
        ["--jobs=2", "--keep_going", "--nokeep_going", "-j", "3", "-k"],
        ["--color=no", "--curses", "no", "--show_progress_rate_limit=30", "--noshow_progress", "--verbose_failures"],
        ["--repo_env=MLC_SOURCES=/a b", "--repo_env", "MLC_FETCH_SOURCES=1", "--repo_env=PIP_INDEX_URL=https://a"],
        ["--profile=/p", "--sandbox_tmpfs_path=/dev/shm", "--disk_cache=/c", "--remote_cache", "grpc://c", "--nostamp"],
        ["--test_output", "all", "--test_arg=--copt=-O0", "--test_arg", "--copt=-O0"],
    ],
    ids=" ".join,
)
def test_a_release_takes_options_that_change_nothing(given: list[str]) -> None:
    release_options.check(options.CommandLine(["build", *given, "--config=release", "//x"]))


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (["--host_jvm_args=-Xmx2g"], True),
        (["--host_jvm_args", "-Dhttps.proxyHost=a"], True),
        (["--max_idle_secs", "1"], True),
        (["--host_jvm_args=-javaagent:/y.jar"], False),
        (["--invocation_policy", "x"], False),
        (["--install_base=/y"], False),
        (["--bazelrc=/y"], False),
        (["--bazelrc", "/y"], False),
        (["--server_javabase=/y"], False),
        (["--ignore_all_rc_files"], False),
    ],
)
def test_a_release_takes_no_option_that_changes_bazel_itself(given: list[str], taken: bool) -> None:
    line = options.CommandLine([*given, "build", "--config=release", "//x"])
    if taken:
        release_options.check(line)
    else:
        with pytest.raises(errors.UserError, match="a release does not take this option") as error:
            release_options.check(line)
        assert str(error.value).startswith("=".join(given) + " (on the command line): ")


@pytest.mark.parametrize("command", ["build", "coverage", "run", "test"])
def test_an_option_that_could_change_a_release_starts_no_bazel(machine: Launcher, command: str) -> None:
    given = [command, "--config=upstream", "--config=release", "--copt", "-O0", "//x"]
    done = machine.run_launcher(*given, BAZEL_REAL=machine.real, MLC_UNLOCKED_BAZEL="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "--copt=-O0 (on the command line): a release does not take this option" in done.stderr
    assert done.stderr.count("\n") == 1


def test_other_builds_and_commands_take_every_option(machine: Launcher) -> None:
    assert_no_release(machine, "build", "--config=upstream", "//x", "--copt", "-O0")
    given = ["info", "--config=upstream", "--config=release", "--copt=-O0"]
    assert machine.arguments(*given, BAZEL_REAL=machine.real)[0][-len(given) :] == given


def test_a_release_that_an_rc_file_asks_for_is_still_one_without_it(machine: Launcher) -> None:
    (machine.root / "user.bazelrc").write_text("common --config=release --config=upstream\n")
    got, message = machine.build()
    assert "--config=release" in got and got[-len(RELEASE) :] == RELEASE
    # The file's other options are gone with it, so the profile is the one that the machine's variable names.
    assert "--config=registries" in got and "--config=upstream" not in got and "profile registries:" in message


def test_a_release_whose_rc_file_cannot_be_copied_says_what_helps(machine: Launcher) -> None:
    (machine.cache / "release").parent.mkdir(parents=True, exist_ok=True)
    (machine.cache / "release").write_text("")
    done = machine.run_launcher("build", "--config=upstream", "--config=release", "//x", BAZEL_REAL=machine.real)
    assert (done.returncode, done.stdout) == (1, "")
    assert "a release needs a copy of .bazelrc in the cache" in done.stderr and "MLC_BAZEL_CACHE" in done.stderr


def test_without_its_options_there_is_no_release(machine: Launcher) -> None:
    (machine.root / ".bazelrc").write_text("")
    done = machine.run_launcher(
        "build", "--config=upstream", "--config=release", "//x", BAZEL_REAL=machine.real, MLC_UNLOCKED_BAZEL="1"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert ".bazelrc: expected lines 'build:release" in done.stderr


def test_a_release_has_one_output_base(machine: Launcher) -> None:
    bases = set()
    for given in (
        ["build", "--config=upstream", "--config=release", "//x"],
        ["info", "--config=upstream", "--config", "release"],
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
    for startup in (["--output_base=/x"], ["--output_base", "/x"], ["--output_base=/x", "--output_user_root=/y"]):
        assert_no_release(machine, *startup, "info", "--config=upstream", "--config=release")


@pytest.mark.parametrize("startup", [["--output_user_root=/big disk"], ["--output_user_root", "/big disk"]])
def test_a_release_has_its_own_output_base_in_any_root(machine: Launcher, startup: list[str]) -> None:
    got, message = machine.arguments(
        *startup, "build", "--config=upstream", "--config=release", BAZEL_REAL=machine.real
    )
    (base,) = [each.removeprefix("--output_base=") for each in got if each.startswith("--output_base=")]
    assert base.startswith("/big disk/release/"), got
    assert f"nothing comes from a cache: {base}\n" in message
    assert startup[0] in got


def test_commands_that_build_nothing_get_no_options_of_a_release(machine: Launcher) -> None:
    given = ["info", "--config=upstream", "--config=release"]
    assert machine.arguments(*given, BAZEL_REAL=machine.real)[0][-len(given) :] == given


def test_options_with_values_are_those_of_the_bazel_in_use() -> None:
    assert (ROOT / ".bazelversion").read_text().split() == [bazel_options.VERSION]
    assert {"--test_arg", "--config", "--disk_cache", "--define"} < bazel_options.WITH_VALUE
    assert not {"--stamp", "--keep_going", "--announce_rc"} & bazel_options.WITH_VALUE


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


def test_itself_as_bazel_real_is_an_error(machine: Launcher) -> None:
    link = machine.folder / "bazel"
    link.symlink_to(machine.root / "tools/bazel")
    for real in (machine.root / "tools/bazel", link):
        done = machine.run_launcher("version", BAZEL_REAL=str(real))
        assert (done.returncode, done.stdout) == (1, "")
        assert f"BAZEL_REAL: expected the path of Bazel, found '{real}', this launcher" in done.stderr


def test_a_script_around_it_does_not_start_it_for_ever(machine: Launcher) -> None:
    """Neither on PATH, where it is asked for its version, nor as BAZEL_REAL."""
    count = machine.folder / "count"
    script = machine.program(
        machine.folder / "bin/bazel",
        f"""#!/bin/sh
echo >> {count}
[ "$(wc -l < {count})" -lt 9 ] || exit 99
exec {sys.executable} {HERE}/driver.py {machine.root} "$@"
""",
    )
    done = machine.run_launcher("version", PATH=f"{machine.folder}/bin:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert len(count.read_text().splitlines()) == 1
    done = machine.run_launcher("version", BAZEL_REAL=str(script))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"'{script}' starts tools/bazel again" in done.stderr


def test_a_program_that_bazel_runs_may_start_it_again(machine: Launcher) -> None:
    """`bazel run` becomes the program, which keeps the process and the environment."""
    again = f"exec {sys.executable} {HERE}/driver.py {machine.root} version"
    script = f'#!/bin/sh\n[ "$1" != run ] || BUILD_WORKSPACE_DIRECTORY=/x {again}\necho argument reached\n'
    real = machine.program(machine.folder / "real/again", script)
    assert machine.arguments("run", "--config=upstream", "//x", BAZEL_REAL=str(real))[0] == ["reached"]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"probe": 1}',
        '{"probe": {"time": %d}}',
        '{"probe": {"time": %d, "value": "upstream"}}',
        '{"probe": {"time": %d, "value": ["upstream"]}}',
        '{"probe": {"time": %d, "value": ["upstream", 1]}}',
        '{"probe": {"time": %d, "value": ["best", "why"]}}',
        '{"probe": {"time": %d, "value": {"upstream": 1, "why": 2}}}',
        '{"probe": {"time": "%d", "value": ["upstream", "why"]}}',
        '{"probe": {"time": 1e999, "value": ["upstream", "why"]}}',
        "[" * 100_000,
        "\udcff",
    ],
    ids=lambda text: text[:60],
)
def test_a_damaged_result_of_a_probe_is_ignored(machine: Launcher, text: str) -> None:
    machine.cache.mkdir()
    damaged = text.replace("%d", str(int(time.time())))
    (machine.cache / "profile.json").write_text(damaged, errors="surrogateescape")
    assert machine.build(MLC_PROFILE="")[0] == ["build", "--config=upstream", "//x"]
    assert len(machine.requested("/registry.json")) == 1


def test_a_damaged_version_is_asked_again(machine: Launcher) -> None:
    machine.program(
        machine.folder / "bin/bazel",
        '#!/bin/sh\n[ "$1" != --version ] || { echo bazel 7.7.1; exit; }\necho argument installed\n',
    )
    path = f"{machine.folder}/bin:/usr/bin:/bin"
    machine.arguments("version", PATH=path)
    known = json.loads((machine.cache / "version.json").read_text())
    for entry in known.values():
        entry["value"] = ["7.7.1"]
    (machine.cache / "version.json").write_text(json.dumps(known))
    assert machine.arguments("version", PATH=path)[0] == ["installed"]


# Not even root can write there.
UNWRITABLE = "/dev/null"
# Users that some containers have: without a home, or with one that cannot be written.
HOMES = {"missing": None, "empty": "", "read-only": UNWRITABLE, "relative": "x"}


@pytest.mark.parametrize("home", HOMES.values(), ids=HOMES)
@pytest.mark.parametrize("command", [["version"], ["build", "--config=upstream", "//x"]], ids=" ".join)
def test_any_home_will_do(machine: Launcher, home: str | None, command: list[str]) -> None:
    """Bazel starts without a cache, and one line says which variable helps."""
    done = machine.run_launcher(*command, BAZEL_REAL=machine.real, MLC_BAZEL_CACHE="", home=home, no_user=True)
    assert done.returncode == 0, done.stderr
    given = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith("argument ")]
    assert given[-len(command) :] == command
    assert f"user {os.getuid()}\n" in done.stdout
    assert done.stderr.count("Set MLC_BAZEL_CACHE") == 1
    outputs = [each for each in given if each.startswith("--output_user_root=")]
    assert len(outputs) == (1 if home else 0)
    assert not (machine.root / "x").exists() and not (machine.root / "~").exists()


@pytest.mark.parametrize("home", HOMES.values(), ids=HOMES)
@pytest.mark.parametrize("command", ["version", "doctor"])
def test_without_a_cache_nothing_is_installed(machine: Launcher, home: str | None, command: str) -> None:
    done = machine.run_launcher(command, MLC_BAZEL_CACHE="", home=home, no_user=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "set MLC_BAZEL_CACHE to a folder" in (done.stderr + done.stdout).replace("Set", "set")
    if command == "version":
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)


def test_a_cache_serves_those_without_a_home(machine: Launcher) -> None:
    done = machine.run_launcher("version", home=UNWRITABLE, no_user=True)
    assert done.returncode == 0, done.stderr
    assert f"argument --output_user_root={machine.cache}/output\n" in done.stdout
    done = machine.run_launcher("--output_base=/x", "version", home=UNWRITABLE, no_user=True)
    assert f"argument --output_user_root={machine.cache}/output\n" in done.stdout
    for given in (["--output_user_root", "/x"], ["--output_user_root=/x"]):
        done = machine.run_launcher(*given, "version", home=UNWRITABLE, no_user=True)
        assert f"{machine.cache}/output" not in done.stdout
    (machine.root / "user.bazelrc").write_text("startup --output_user_root=/x\n")
    assert f"{machine.cache}/output" not in machine.run_launcher("version", home=UNWRITABLE, no_user=True).stdout


def test_a_cache_whose_name_is_not_utf_8(machine: Launcher) -> None:
    folder = os.fsdecode(os.fsencode(machine.folder) + b"/\xff")
    done = machine.run_launcher("version", MLC_BAZEL_CACHE=folder)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "\\xff: expected a folder whose name is UTF-8. Set MLC_BAZEL_CACHE" in done.stderr
    assert machine.run_launcher("version", MLC_BAZEL_CACHE=folder, BAZEL_REAL=machine.real).returncode == 0
    assert machine.run_launcher("doctor", MLC_BAZEL_CACHE=folder).stderr == ""


# Names of modules of the standard library and of pip, which a user's folder may have too.
HOSTILE = [
    "argparse",
    "fetch",
    "hashlib",
    "importlib",
    "json",
    "os",
    "pip",
    "pwd",
    "re",
    "shlex",
    "ssl",
    "tools",
    "zlib",
]


def test_nothing_is_imported_from_the_users_folder(machine: Launcher) -> None:
    folder = machine.folder / "current"
    for place in (folder, machine.root):
        place.mkdir(exist_ok=True)
        for name in HOSTILE:
            if not (place / name).is_dir():
                (place / f"{name}.py").write_text(f"open({str(machine.folder / 'hacked')!r}, 'a').write({name!r})\n")
    environment = machine.environment(PIP_INDEX_URL="", PIP_CONFIG_FILE=os.devnull, BAZEL_REAL=machine.real)
    commands = [
        [str(machine.root / "tools/bazel"), "version"],
        [str(machine.root / "tools/bazel"), "doctor", "--help"],
        [sys.executable, str(machine.root / "fetch/debian/archive.py"), "mirrors"],
        [sys.executable, str(machine.root / "fetch/pypi/index.py"), "index-url"],
    ]
    for place in (folder, machine.root):
        for command in commands:
            done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
            assert not (machine.folder / "hacked").exists(), (command, (machine.folder / "hacked").read_text())
            # Of these, index-url may fail, where neither pip nor a mirror of Debian is there.
            assert done.returncode == 0 or "index-url" in command, done.stderr


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


@pytest.mark.parametrize(
    "given", [["--config", "upstream"], ["--config=upstream", "--test_arg", "--config=registries"]]
)
def test_either_spelling_decides(machine: Launcher, given: list[str]) -> None:
    got, message = machine.build(*given)
    assert (got, message) == (["build", *given, "//x"], "")


def test_arguments_of_a_program_do_not_decide(machine: Launcher) -> None:
    got, message = machine.arguments("run", "//x", "--", "--config=upstream", BAZEL_REAL=machine.real)
    assert "profile registries: MLC_PROFILE" in message
    assert got[got.index("run") + 1] == "--config=registries"


def test_an_rc_file_decides(machine: Launcher) -> None:
    (machine.root / "user.bazelrc").write_text("common --config=upstream\n")
    assert machine.build() == (["build", "//x"], "")


def test_two_profiles_are_an_error_that_names_both_places(machine: Launcher) -> None:
    (machine.root / "user.bazelrc").write_text("common --config=upstream\n")
    done = machine.run_launcher("build", "--config", "registries", "//x", BAZEL_REAL=machine.real)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--config=upstream (" + str(machine.root) in done.stderr
    assert "--config=registries (the command line)" in done.stderr


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


ANSWERING = (
    "/debian/dists/bookworm/InRelease",
    "/debian-security/dists/bookworm-security/InRelease",
    "/simple/pip/",
    "/registry.json",
)


@pytest.mark.parametrize("profile", ["registries", "upstream"])
@pytest.mark.parametrize("silent", [None, *ANSWERING])
def test_a_build_needs_every_source_of_its_profile(machine: Launcher, profile: str, silent: str | None) -> None:
    """Bazel itself is there already."""
    machine.server.files.update({path: b"{}" for path in ANSWERING if path != silent})
    fake = {"upstream": {"The registry": machine.server.url + "/registry.json"}}
    done = machine.run_launcher("doctor", fake=fake, BAZEL_REAL=machine.real, MLC_PROFILE=profile)
    able = silent is None or (profile == "registries" and silent == "/registry.json")
    assert (done.returncode, "This machine can build." in done.stdout) == ((0, True) if able else (1, False)), (
        done.stdout
    )


@pytest.mark.parametrize("root", ["", "--output_user_root=/dev/shm"])
def test_a_build_needs_room(machine: Launcher, root: str) -> None:
    machine.server.files.update(dict.fromkeys(ANSWERING, b"{}"))
    fake = {"disk_bytes": 10**18}
    done = machine.run_launcher(*filter(None, [root]), "doctor", fake=fake)
    assert done.returncode == 1, done.stdout
    row = machine.rows(done.stdout)["disk"]
    assert "a build takes 1000000000 GB: free some space" in row and "cannot build yet" in done.stdout


def test_a_file_of_options_in_another_encoding_is_no_traceback(machine: Launcher) -> None:
    (machine.root / "user.bazelrc").write_bytes(
        "# für mich\ncommon --repo_env=MLC_SOURCES=/gr\xf6\xdfe\n".encode("latin-1")
    )
    done = machine.doctor()
    assert "Traceback" not in done.stderr
    assert "no such folder" in machine.rows(done.stdout)["source mlc-llm"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["doctor", "version"])
def test_closed_streams_are_no_error(machine: Launcher, closed: str, command: str) -> None:
    """Nor does a file that Bazel opens become its standard output."""
    report = machine.folder / "report"
    machine.program(Path(machine.real), f"#!/bin/sh\nfor n in 0 1 2; do readlink /proc/$$/fd/$n; done > {report}\n")
    start = f'exec "$0" "$@" {closed}'
    done = subprocess.run(
        ["/bin/sh", "-c", start, sys.executable, str(HERE / "driver.py"), str(machine.root), command],
        env=machine.environment(BAZEL_REAL=machine.real),
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if command == "doctor" else 0)
    if command == "version":
        opened = report.read_text().splitlines()
        assert len(opened) == 3, opened
        for number, redirection in enumerate(("<&-", ">&-", "2>&-")):
            if redirection in closed.split() and number != 1:  # The report itself is 1.
                assert opened[number] == "/dev/null"


def test_a_reader_that_goes_away_is_no_traceback(machine: Launcher) -> None:
    process = machine.start("doctor")
    assert process.stdout and process.stderr
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    assert process.wait() == 1


def test_bazel_inherits_no_signal_that_python_ignores(machine: Launcher) -> None:
    program = "#!/bin/sh\nwhile read -r name mask; do [ $name = SigIgn: ] && echo $mask; done < /proc/self/status\n"
    machine.program(Path(machine.real), program)
    done = machine.run_launcher("version", BAZEL_REAL=machine.real)
    ignored = int(done.stdout, 16)
    assert not [name for name in ("SIGPIPE", "SIGXFSZ") if ignored >> (getattr(signal, name) - 1) & 1]


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
    clone = f"move it away, then git clone file://{folder}/mlc-llm {folder}/mlc-llm && git -C .* checkout {locked}$"
    assert re.search(f"  {moved}  +{clone}", rows["source mlc-llm"])
    assert re.search("  changes to cpp/engine.cc  +move it away, then git clone ", rows["source tokenizers-cpp"])
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
