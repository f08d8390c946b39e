"""The entrypoint runs what it is given, as it is given."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

from images.commands import entrypoint


class EntrypointTest(unittest.TestCase):
    def run_entrypoint(self, *arguments: str, path: str = "/usr/bin:/bin", **options) -> subprocess.CompletedProcess:
        command = [sys.executable, entrypoint.__file__, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env={"PATH": path}, check=False, **options)

    def test_a_command_runs_with_its_arguments_and_exit_code(self):
        ran = self.run_entrypoint("sh", "-c", 'printf "%s|" "$@"; exit 7', "sh", "a b", "", "--help")
        self.assertEqual((ran.returncode, ran.stdout), (7, "a b||--help|"))

    def test_a_command_takes_the_entrypoints_process(self):
        process = subprocess.Popen(
            [sys.executable, entrypoint.__file__, "sh", "-c", "echo $$; exec sleep 60"], stdout=subprocess.PIPE, text=True
        )
        with process:
            self.assertEqual(int(process.stdout.readline()), process.pid)
            process.terminate()
        self.assertEqual(process.returncode, -signal.SIGTERM)

    def test_no_command_is_a_shell(self):
        with tempfile.TemporaryDirectory() as folder:
            shell = pathlib.Path(folder, "bash")
            shell.write_text("#!/bin/sh\necho shell in $PWD with $#\n")
            shell.chmod(0o755)
            ran = self.run_entrypoint(path=f"{folder}:/usr/bin:/bin", cwd=folder)
            self.assertEqual(ran.stdout, f"shell in {os.path.realpath(folder)} with 0\n", ran.stderr)

    def test_help_names_every_command(self):
        ran = self.run_entrypoint("--help")
        self.assertEqual(ran.returncode, 0)
        for word in ("smoke", "build", "/src/mlc-llm/python/dist", "pytest /tests", "/workspace", "any other command runs as given"):
            self.assertIn(word, ran.stdout)

    def test_what_cannot_run_gives_the_shells_exit_codes(self):
        missing, folder = self.run_entrypoint("no-such-command"), self.run_entrypoint("/tmp")
        self.assertEqual((missing.returncode, folder.returncode), (127, 126))
        self.assertRegex(missing.stderr, "no-such-command: no such command; --help lists")


if __name__ == "__main__":
    unittest.main()
