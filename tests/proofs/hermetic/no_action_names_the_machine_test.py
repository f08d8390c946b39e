"""From the action graph behind all that is published and its tests: no action names the machine, its environment or its network."""

from __future__ import annotations

import json
import os
import pathlib
import unittest

from tests.proofs.hermetic.rules import EXCEPTIONS, LOOSENING, Action, problems


def actions() -> list[Action]:
    report = pathlib.Path(os.environ["ACTIONS"]).read_text()
    return [
        Action(each["target"], each["mnemonic"], tuple(each["arguments"]), each["environment"], LOOSENING & set(each["tags"]))
        for each in map(json.loads, report.splitlines())
    ]


def action(*arguments: str, mnemonic: str = "Any", requirements: tuple[str, ...] = (), **environment: str) -> Action:
    return Action("//a:b", mnemonic, arguments, environment, frozenset(requirements))


class NoActionNamesTheMachine(unittest.TestCase):
    def test_none_of_the_graph(self):
        self.assertEqual([problem for each in actions() for problem in problems(each)], [])

    def test_the_graph_has_every_kind_of_action(self):
        kinds = {"CppCompile", "CppLink", "GateTest", "ImageLayer", "InstallWheels", "OCIImage", "Objcopy", "PyWheel", "ReleaseDocument"}
        self.assertLessEqual(kinds, {each.mnemonic for each in actions()})

    def test_every_exception_is_a_target_with_a_reason(self):
        for label, reason in EXCEPTIONS.items():
            self.assertTrue(label.startswith("//") and reason, label)

    def test_what_is_allowed(self):
        for each in (
            action("external/gcc", "-ffile-prefix-map=/proc/self/cwd=.", "-Iinclude", "-Iexternal/a", "-isystemexternal/a", PATH="/bin:/usr/bin:/usr/local/bin"),
            action("bazel-out/run_test", "--label", "//tests/images:push_full_disk", mnemonic="GateTest", requirements=("local",)),
            action("bazel-out/make_labels", "source=https://example.org/x", "//a/...", "--env=TESTS_FOLDER=/tests"),
        ):
            self.assertEqual(problems(each), [])

    def test_what_is_not(self):
        for each, why in (
            (action("/bin/bash", "-c", "true"), "runs /bin/bash"),
            (action("external/gcc", "-I/usr/include"), "is given -I/usr/include"),
            (action("external/gcc", "-isystem/usr/include"), "is given -isystem/usr/include"),
            (action("external/gcc", "-Wl,-rpath,/usr/lib"), "is given -Wl,-rpath,/usr/lib"),
            (action("external/gcc", "--sysroot=/"), "is given --sysroot=/"),
            (action("external/gcc", PATH="/usr/lib/ccache:/bin"), "has PATH='/usr/lib/ccache:/bin'"),
            (action("external/gcc", HOME="/home/user"), "has HOME="),
            (action("external/gcc", requirements=("requires-network",)), "asks for requires-network"),
            (action("bazel-out/run_test", "--label", "//tests:new", mnemonic="GateTest", requirements=("local",)), "asks for local"),
        ):
            with self.subTest(why):
                self.assertTrue(any(why in problem for problem in problems(each)), problems(each))


if __name__ == "__main__":
    unittest.main()
