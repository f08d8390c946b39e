"""Promises of tools/bazel: it becomes the right Bazel, passes everything through, chooses the profile, and says what a machine lacks."""

import json
import shutil
import signal
import unittest

from fake_machine import BAZEL_SCRIPT, TESTDATA, FakeMachine

from fetch import trust
from tests.git_sources.repositories import Repository


class LauncherCase(FakeMachine):
    def program(self, path, text=BAZEL_SCRIPT):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def arguments(self, *given, fake=None, **environment):
        """What Bazel was started with, and the launcher's own lines."""
        done = self.run_launcher(*given, fake=fake, **environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith("argument ")], done.stderr


class PassingThroughTest(LauncherCase):
    def setUp(self):
        super().setUp()
        self.real = str(self.program(self.folder / "real/bazel"))

    def test_every_argument_as_it_was(self):
        given = ["--output_base", "/x y", "--host_jvm_args=-Xmx1g", "run", "--config=upstream", "//a:b", "--", "--flag", "", "a  b", "*"]
        got, _ = self.arguments(*given, BAZEL_REAL=self.real)
        self.assertEqual(got[-len(given) :], given)

    def test_a_release_reads_no_cache_whatever_a_user_bazelrc_says(self):
        flags = ["--disk_cache=", "--remote_cache=", "--remote_executor="]
        for given, rest in ((["build", "--config=upstream", "--config=release", "//x"], []), (["run", "--config=upstream", "//x", "--config=release"], ["--", "--flag"])):
            got, _ = self.arguments(*given, *rest, BAZEL_REAL=self.real)
            self.assertEqual(got[-len(given + flags + rest) :], given + flags + rest)
        for given in (["build", "--config=upstream", "//x"], ["info", "--config=upstream", "--config=release"], ["run", "--config=upstream", "//x", "--", "--config=release"]):
            got, _ = self.arguments(*given, BAZEL_REAL=self.real)
            self.assertEqual(got[-len(given) :], given)

    def test_a_release_has_an_output_base_of_its_own(self):
        bases = set()
        for given in (["build", "--config=upstream", "--config=release", "//x"], ["info", "--config=upstream", "--config=release"], ["clean", "--config=release"]):
            got, message = self.arguments("--max_idle_secs=1", *given, BAZEL_REAL=self.real)
            (base,) = [argument.removeprefix("--output_base=") for argument in got[: got.index("--max_idle_secs=1")] if argument.startswith("--output_base=")]
            self.assertIn(f"nothing came from a cache: {base}\n", message)
            bases.add(base)
        (base,) = bases
        self.assertEqual(str(self.cache / "release"), base.rpartition("/")[0])
        for given in (["build", "--config=upstream", "//x"], ["run", "--config=upstream", "//x", "--", "--config=release"], ["--output_base=/x", "info", "--config=upstream", "--config=release"]):
            got, message = self.arguments(*given, BAZEL_REAL=self.real)
            self.assertFalse([argument for argument in got if argument.startswith("--output_base=" + str(self.cache))], got)
            self.assertNotIn("output base", message)

    def test_without_arguments_too(self):
        got, message = self.arguments(BAZEL_REAL=self.real)
        self.assertEqual([each for each in got if not each.startswith("--host_jvm_args=")], [])
        self.assertEqual(message, "")

    def test_the_exit_code_is_bazels(self):
        for code in (1, 3, 37):
            self.assertEqual(self.run_launcher("version", BAZEL_REAL=self.real, FAKE_EXIT=str(code)).returncode, code)

    def test_ctrl_c_is_bazels(self):
        process = self.start("version", BAZEL_REAL=self.real, FAKE_SLEEP="1")
        lines = iter(process.stdout.readline, "ready\n")
        self.assertIn(f"pid {process.pid}\n", list(lines), "Bazel is not the launcher's own process")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        self.assertEqual((process.returncode, out), (8, "interrupted\n"))


class FindingBazelTest(LauncherCase):
    def test_bazel_real_comes_first(self):
        self.program(self.folder / "bin/bazel", "#!/bin/sh\necho bazel 7.7.1\n")
        real = self.program(self.folder / "real/bazel")
        self.arguments("version", BAZEL_REAL=str(real), PATH=f"{self.folder}/bin:/usr/bin:/bin")
        self.assertFalse(self.prefix.exists())

    def test_a_bazel_real_that_is_not_there_is_an_error(self):
        done = self.run_launcher("version", BAZEL_REAL="/nowhere/bazel")
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nowhere/bazel", done.stderr)

    def test_a_bazel_on_path_of_the_right_version_is_taken(self):
        self.program(self.folder / "bin/bazel", "#!/bin/sh\n[ \"$1\" != --version ] || { echo bazel 7.7.1; exit; }\necho argument installed\n")
        got, _ = self.arguments("version", PATH=f"{self.folder}/bin:/usr/bin:/bin")
        self.assertEqual(got, ["installed"])
        self.assertFalse(self.prefix.exists())

    def test_a_bazel_on_path_of_another_version_is_not(self):
        self.program(self.folder / "bin/bazel", "#!/bin/sh\necho bazel 8.0.0\n")
        self.arguments("version", PATH=f"{self.folder}/bin:/usr/bin:/bin")
        self.assertTrue(self.prefix.exists())

    def test_itself_on_path_is_not_taken_for_bazel(self):
        (self.folder / "bin").mkdir()
        (self.folder / "bin/bazel").symlink_to(self.root / "tools/bazel")
        self.arguments("version", PATH=f"{self.folder}/bin:{self.root}/tools:/usr/bin:/bin")
        self.assertTrue(self.prefix.exists())

    def test_without_a_version_file_nothing_is_guessed(self):
        (self.root / ".bazelversion").unlink()
        done = self.run_launcher("version")
        self.assertEqual(done.returncode, 1)
        self.assertIn(".bazelversion: expected a version of Bazel", done.stderr)


class ProfileTest(LauncherCase):
    def setUp(self):
        super().setUp()
        self.real = str(self.program(self.folder / "real/bazel"))
        self.server.files["/registry.json"] = b"{}"

    def build(self, *given, answers=True, **environment):
        path = "/registry.json" if answers else "/absent"
        got, message = self.arguments("build", *given, "//x", fake={"upstream": {"The registry": self.server.url + path}}, BAZEL_REAL=self.real, **environment)
        return got[got.index("build") :], message

    def test_upstream_where_it_answers(self):
        got, message = self.build(MLC_PROFILE="")
        self.assertEqual(got, ["build", "--config=upstream", "//x"])
        self.assertRegex(message, r"^tools/bazel: profile upstream: The registry answer.*\n$")

    def test_registries_where_it_does_not(self):
        got, message = self.build(answers=False, MLC_PROFILE="")
        self.assertEqual((got[1], got[-1]), ("--config=registries", "//x"))
        self.assertIn("profile registries: The registry does not answer (HTTP 404", message)

    def test_modules_of_the_packages_are_named_in_registries_only(self):
        self.assertIn(f"--override_module=platforms={self.prefix}/usr/share/bazel/tools/platforms", self.build()[0])
        self.assertNotIn("--override_module", " ".join(self.build(MLC_PROFILE="upstream")[0]))

    def test_the_command_line_decides_and_nobody_is_asked(self):
        got, message = self.build("--config=upstream")
        self.assertEqual((got, message), (["build", "--config=upstream", "//x"], ""))
        self.assertEqual(self.requested("/registry.json"), [])

    def test_the_environment_decides_before_the_network(self):
        self.assertIn("--config=upstream", self.build(MLC_PROFILE="upstream")[0])
        self.assertEqual(self.requested("/registry.json"), [])

    def test_an_unknown_profile_is_an_error(self):
        done = self.run_launcher("build", "//x", BAZEL_REAL=self.real, MLC_PROFILE="best")
        self.assertEqual(done.returncode, 1)
        self.assertIn("MLC_PROFILE: expected upstream or registries, found 'best'", done.stderr)

    def test_the_network_is_asked_once(self):
        for _ in range(2):
            self.build(MLC_PROFILE="")
        self.assertEqual(len(self.requested("/registry.json")), 1)

    def test_commands_that_resolve_nothing_need_no_profile(self):
        for command in ("version", "shutdown", "help"):
            _, message = self.arguments(command, BAZEL_REAL=self.real, MLC_PROFILE="")
            self.assertEqual(message, "")


class TrustStoreTest(LauncherCase):
    def test_bazels_java_is_given_the_machines_authorities(self):
        real = str(self.program(self.folder / "real/bazel"))
        got, _ = self.arguments("version", BAZEL_REAL=real)
        (flag,) = [each for each in got if "trustStore" in each]
        store = flag.partition("trustStore=")[2]
        with open(store, "rb") as file:
            data = file.read()
        (certificate,) = trust.certificates((TESTDATA / "ca.pem").read_text())
        self.assertEqual(data[:12], bytes.fromhex("feedfeed 00000002 00000001"))
        self.assertIn(certificate, data)

    def test_it_is_made_anew_when_the_bundle_changes(self):
        real = str(self.program(self.folder / "real/bazel"))
        bundle = self.folder / "bundle.pem"
        stores = set()
        for text in ((TESTDATA / "ca.pem").read_text(), (TESTDATA / "ca.pem").read_text() + "\n# changed\n"):
            bundle.write_text(text)
            stores |= {each for each in self.arguments("version", BAZEL_REAL=real, SSL_CERT_FILE=str(bundle))[0] if "trustStore" in each}
        self.assertEqual(len(stores), 2)


class DoctorTest(LauncherCase):
    def doctor(self, *given, **environment):
        return self.run_launcher("doctor", *given, fake={"upstream": {"The registry": self.server.url + "/absent"}}, **environment)

    def rows(self, text):
        return {line.split("  ")[0]: line for line in text.splitlines()}

    def test_lists_what_there_is(self):
        # What the doctor asks of each source.
        for path in ("/debian/dists/bookworm/InRelease", "/debian-security/dists/bookworm-security/InRelease", "/simple/pip/"):
            self.server.files[path] = b"{}"
        done = self.doctor()
        rows = self.rows(done.stdout)
        self.assertLessEqual(
            {"Bazel", "profile", "Debian mirror", "Debian security", "PyPI index", "CA bundle", "disk", "cores", "memory", "container tools", "user namespaces", "GPU"},
            set(rows),
        )
        self.assertIn("the first command installs it", rows["Bazel"])
        self.assertIn("HTTP 404", rows["The registry"])

    def test_says_what_to_do_about_a_gap_and_fails(self):
        done = self.doctor(MLC_DEBIAN_MIRROR="http://127.0.0.1:1/debian")
        self.assertEqual(done.returncode, 1, done.stdout)
        row = self.rows(done.stdout)["Debian mirror"]
        self.assertIn("refused", row)
        self.assertIn("set MLC_DEBIAN_MIRROR to a mirror that answers", row)
        self.assertIn("cannot build yet", done.stdout)

    def lock_sources(self):
        """Small repositories in place of the locked ones; returns them by name."""
        lock = self.root / "locks/sources.lock.json"
        names = [name for name, entry in json.loads(lock.read_text())["sources"].items() if entry["registry"] == "git"]
        self.assertLessEqual({"mlc-llm", "xgrammar", "tokenizers-cpp"}, set(names))
        repositories = {name: Repository.make(self.folder / "sources" / name) for name in names}
        lock.write_text(json.dumps({"sources": {name: repository.entry() for name, repository in repositories.items()}}))
        return repositories

    def test_git_sources_that_nobody_gave_are_no_gap(self):
        for path in ("/debian/dists/bookworm/InRelease", "/debian-security/dists/bookworm-security/InRelease", "/simple/pip/"):
            self.server.files[path] = b"{}"
        done = self.doctor()
        self.assertEqual(done.returncode, 0, done.stdout)
        for name in ("mlc-llm", "tokenizers-cpp", "xgrammar"):
            row = self.rows(done.stdout)[f"source {name}"]
            self.assertIn("MLC_SOURCES is not set", row)
            self.assertIn("only mlc-llm needs it", row)
        self.assertIn("only --config=cuda can use it", self.rows(done.stdout)["source tvm"])
        row = self.rows(self.doctor(MLC_PROFILE="upstream").stdout)["source mlc-llm"]
        self.assertIn("fetched from https://github.com/mlc-ai/mlc-llm", row)

    def test_what_is_wrong_with_a_git_source_and_what_mends_it(self):
        repositories = self.lock_sources()
        locked = repositories["mlc-llm"].commit
        moved = repositories["mlc-llm"].move_on()
        (repositories["tokenizers-cpp"].folder / "cpp/engine.cc").write_text("edited")
        rows = self.rows(self.doctor(MLC_SOURCES=str(self.folder / "sources")).stdout)
        folder = self.folder / "sources"
        self.assertRegex(rows["source mlc-llm"], f"  {moved}  +git -C {folder}/mlc-llm checkout {locked}$")
        self.assertRegex(rows["source tokenizers-cpp"], "  changes to cpp/engine.cc  .*git -C .* stash push --include-untracked$")
        self.assertRegex(rows["source xgrammar"], f"  {repositories['xgrammar'].commit} in {folder}/xgrammar$")
        shutil.rmtree(folder / "xgrammar")
        (self.root / "user.bazelrc").write_text(f"common --repo_env=MLC_SOURCES={folder}\n")
        rows = self.rows(self.doctor().stdout)
        self.assertRegex(rows["source xgrammar"], f"  no such folder  +git clone file://{folder}/xgrammar ")

    def test_help_names_the_environment(self):
        done = self.doctor("--help")
        self.assertEqual(done.returncode, 0)
        for name in ("BAZEL_REAL", "MLC_PROFILE", "MLC_BAZEL_CACHE", "MLC_DEBIAN_MIRROR", "MLC_SOURCES", "PIP_INDEX_URL", "SSL_CERT_FILE"):
            self.assertRegex(done.stdout, rf"(?m)^  {name}\b")


if __name__ == "__main__":
    unittest.main()
