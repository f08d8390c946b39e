"""The image's command `serve` finds the library of a model, and says what is missing."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile
import unittest

from images.commands import serve
from tests.private import python_program


class ServeCommandTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        self.model = self.folder / "model"
        self.model.mkdir()
        (self.model / "mlc-chat-config.json").write_text("{}")

    def test_the_library_beside_the_folder_goes_before_one_in_it(self):
        within, beside = self.model / "lib.so", self.folder / "model.so"
        within.touch()
        self.assertEqual(serve.model_library(self.model), within)
        beside.touch()
        self.assertEqual(serve.model_library(self.model), beside)

    def test_without_a_library_the_command_that_makes_one_is_named(self):
        with self.assertRaisesRegex(serve.ModelError, r"expected the compiled library .*/model\.so, or one \*\.so .* found none: .*mlc_llm compile .*/model --output"):
            serve.model_library(self.model)

    def test_of_several_libraries_none_is_guessed(self):
        for name in ("b.so", "a.so"):
            (self.model / name).touch()
        with self.assertRaisesRegex(serve.ModelError, "found a.so, b.so: name it with --model-lib"):
            serve.model_library(self.model)

    def test_a_folder_without_configuration_is_no_model(self):
        (self.model / "mlc-chat-config.json").unlink()
        with self.assertRaisesRegex(serve.ModelError, "expected a folder with mlc-chat-config.json, found none"):
            serve.model_library(self.model)

    def run_serve(self, *arguments: str) -> subprocess.CompletedProcess:
        """With a program in the place of mlc_llm that prints its arguments."""
        python_program.write(self.folder / "mlc_llm", "import sys\nprint(sys.argv[1:])\n")
        command = [sys.executable, serve.__file__, *arguments]
        return subprocess.run(command, cwd=self.folder, env={"PATH": str(self.folder)}, capture_output=True, text=True)

    def test_mlc_llm_serves_it_to_all_who_reach_the_container(self):
        (self.folder / "model.so").touch()
        ran = self.run_serve("model", "--port", "80", "--mode=server")
        # macOS and some others reach a temporary folder by way of links.
        place = self.folder.resolve()
        expected = ["serve", f"{place}/model", "--model-lib", f"{place}/model.so", "--host", "0.0.0.0", "--port", "80", "--mode=server"]
        self.assertEqual((ran.returncode, ran.stdout), (0, f"{expected}\n"), ran.stderr)

    def test_a_named_library_and_address_are_taken(self):
        ran = self.run_serve("model", "--model-lib", "other.so", "--host", "127.0.0.1")
        self.assertIn("'--model-lib', 'other.so', '--host', '127.0.0.1'", ran.stdout)

    def test_what_is_missing_is_one_line(self):
        ran = self.run_serve("model")
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr.count("\n")), (1, "", 1))
        self.assertTrue(ran.stderr.startswith("serve: "), ran.stderr)


if __name__ == "__main__":
    unittest.main()
