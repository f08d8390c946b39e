"""When remote execution fails, the build still succeeds or says what is wrong; its bytes are never different."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import unittest

from release.private.reproduce.second_workspace import SecondWorkspace, digests
from tests.proofs import proof
from tests.proofs.remote import service
from tests.proofs.remote.service import RemoteService

TARGETS = ["//wheels/tvm_ffi"]
# The storage's limit in the test of a full one: more than one action needs, less than all of them.
SMALL = "250M"
ATTEMPTS = 5

OPTIONS = proof.parser(__doc__, artifacts=True).parse_args()


class Faults(unittest.TestCase):
    place: pathlib.Path
    expected: dict[str, str]
    build: service.Build

    @classmethod
    def setUpClass(cls) -> None:
        place = service.place()
        cls.addClassCleanup(place.cleanup)
        cls.place = pathlib.Path(place.name)
        cls.expected = digests([pathlib.Path(artifact) for artifact in OPTIONS.artifacts])
        second = cls.enterClassContext(SecondWorkspace(OPTIONS.workspace, cls.place))
        cls.build = service.Build(second, OPTIONS.artifacts, TARGETS)

    def tearDown(self) -> None:
        # Each test leaves gigabytes.
        shutil.rmtree(self.place / self._testMethodName, ignore_errors=True)

    def service(self, *arguments: str) -> RemoteService:
        return RemoteService(self.place / self._testMethodName, *arguments)

    def assert_same_bytes(self) -> None:
        self.assertTrue(self.expected)
        self.assertEqual(self.build.digests(), self.expected)

    def interrupted(self, remote: RemoteService, last: str) -> None:
        """Builds, and kills the process with this last argument once a worker is busy."""

        def kill() -> None:
            staging = remote.state / "worker1/cas/staging"
            while not (staging.exists() and any(staging.iterdir())):
                time.sleep(0.05)
            os.kill(remote.pid(last), signal.SIGKILL)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        self.build.run(remote)
        killer.join(timeout=1)
        self.assertFalse(killer.is_alive(), "no worker was busy")
        self.assertIn("restarting it", remote.said())
        self.assertGreater(self.build.runners()["remote"], 0)
        self.assert_same_bytes()

    def test_a_killed_worker_loses_nothing(self) -> None:
        with self.service() as remote:
            self.interrupted(remote, "worker1")

    def test_a_killed_storage_of_a_worker_loses_nothing(self) -> None:
        with self.service() as remote:
            self.interrupted(remote, str(remote.state / "worker1"))

    def test_a_killed_scheduler_loses_nothing(self) -> None:
        with self.service() as remote:
            self.interrupted(remote, str(remote.state / "scheduler.yml"))

    def test_a_restarted_service_has_everything(self) -> None:
        with self.service() as remote:
            self.build.run(remote)
        with self.service() as remote:
            self.build.run(remote)
            self.assertNotIn("remote", self.build.runners())
            self.assert_same_bytes()

    def test_a_full_storage_costs_a_retry_and_changes_no_bytes(self) -> None:
        with self.service(f"--storage={SMALL}") as remote:
            self.build.workspace.bazel("clean")
            for _ in range(ATTEMPTS):
                done = self.build.workspace.bazel(
                    *self.build.command(remote), check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                )
                if not done.returncode:
                    break
                # A worker's message; Bazel uploads its files again only in the next build.
                self.assertRegex(done.stdout, "(?i)blob.* missing|not found in the local CAS|evicted")
            else:
                self.fail(f"{ATTEMPTS} builds failed:\n{done.stdout}")
            self.assert_same_bytes()
            self.assertLess(sum(file.stat().st_size for file in remote.stored()), 1.2 * 250e6)

    def test_damaged_blobs_are_refused_and_then_rebuilt(self) -> None:
        with self.service() as remote:
            self.build.run(remote)
            for file in remote.stored():
                size = file.stat().st_size
                file.chmod(0o644)
                with file.open("r+b") as blob:
                    blob.seek(size // 2)
                    blob.write(b"?" * min(8, size - size // 2))
            self.build.workspace.bazel("clean")
            done = self.build.workspace.bazel(
                *self.build.command(remote), check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            if done.returncode:
                self.assertRegex(done.stdout, "(?i)digest|hash|damaged")
            else:
                self.assert_same_bytes()
        with self.service("--check") as remote:
            self.assertNotIn(" 0 damaged blobs", remote.said())
            self.build.run(remote)
            self.assert_same_bytes()

    def test_damaged_results_of_actions_are_not_used(self) -> None:
        with self.service() as remote:
            self.build.run(remote)
            for file in (remote.state / "storage/actioncache/objects").glob("??/*"):
                file.chmod(0o644)
                file.write_bytes(file.read_bytes()[:-20] + b"\xff" * 20)
            self.build.run(remote)
            self.assertGreater(self.build.runners()["remote"], 0)
            self.assert_same_bytes()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
