"""What an action may name and ask for, and every exception with its reason: the one list, for the tests of this folder."""

from __future__ import annotations

import dataclasses
import re

_STARTS_BAZEL = "starts its own Bazel, whose actions obey the same rules"
_STARTS_CONTAINERS = (
    "starts containers: in Bazel's sandbox there is only one user, and the image's own could not be tested"
)

# Target → why it asks for something: a test to run outside of the sandbox, or with network. A new exception is a new
# line here, with its reason.
EXCEPTIONS = {
    "//release/private/reproduce:seen": (
        "says what an action of this very build sees: no cache and no other machine may answer for it"
    ),
    "//tests/proofs/airgap:airgap": _STARTS_BAZEL,
    "//tests/proofs/git_sources:build": _STARTS_BAZEL,
    "//tests/proofs/hermetic:action_graph": _STARTS_BAZEL,
    "//tests/proofs/hermetic:build": _STARTS_BAZEL,
    "//tests/images:mlc_llm_container": _STARTS_CONTAINERS,
    "//tests/images:mlc_llm_cuda_container": _STARTS_CONTAINERS,
    "//tests/images:mlc_llm_dev_container": _STARTS_CONTAINERS,
    "//tests/release:push_full_disk": "mounts a small disk, which Bazel's sandbox does not allow",
    "//tests/release:run_with_runc": _STARTS_CONTAINERS,
    "//tests/images:serve": _STARTS_CONTAINERS,
    "//tests/images:tvm_runtime_container": _STARTS_CONTAINERS,
    "//tests/images:tvm_runtime_cuda_container": _STARTS_CONTAINERS,
    "//tests/images:tvm_runtime_dev_container": _STARTS_CONTAINERS,
    "//tests/proofs/broken_runtime:broken_runtime": _STARTS_BAZEL,
    "//tests/proofs/remote:faults": _STARTS_BAZEL,
    "//tests/proofs/remote:same_bytes": _STARTS_BAZEL,
    "//tests/proofs/reproducible:reproducible": _STARTS_BAZEL,
    "//tests/proofs/tampering:tampering": _STARTS_BAZEL,
}

# Tags of a target that become execution requirements and take an action out of the sandbox, or let it out to the
# network.
LOOSENING = {"local", "no-sandbox", "requires-fakeroot", "requires-network"}

# All that an action's environment holds: what Bazel sets on every machine. What it finds in those folders: README.md,
# "What a machine must provide".
ENVIRONMENT = {"PATH": "/bin:/usr/bin:/usr/local/bin", "PWD": "/proc/self/cwd"}

# Also behind a flag without a space. Of one letter, or GCC's longer ones; -Iexternal/… is a relative one.
_ABSOLUTE = re.compile(r"(^|[=,:]|^-([A-Za-z]|isystem|iquote|idirafter|include|imacros|isysroot))/(?!/)")
# The current folder, which the compiler is told to leave out; and where tests are in an image.
_NOT_OF_THE_MACHINE = re.compile(r"-ffile-prefix-map=/proc/self/cwd=\.|--env=[A-Z_]+=/tests(/\w+)*")


@dataclasses.dataclass(frozen=True)
class Action:
    """One action of the graph; `requirements` are its execution requirements, or tags that would become such."""

    target: str
    mnemonic: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    requirements: frozenset[str]

    @property
    def test(self) -> str:
        """The test that the action runs where a gate runs it (release/private/gate.bzl), else its target."""
        if self.mnemonic == "GateTest" and "--label" in self.arguments:
            return self.arguments[self.arguments.index("--label") + 1]
        return self.target


def problems(action: Action) -> list[str]:
    """One line for everything by which an action depends on the machine it runs on."""
    found = []
    if action.requirements and action.test not in EXCEPTIONS:
        found.append(
            f"asks for {', '.join(sorted(action.requirements))}: only the tests in EXCEPTIONS"
            " (tests/proofs/hermetic/rules.py) may"
        )
    for name, value in sorted(action.environment.items()):
        if ENVIRONMENT.get(name) != value:
            found.append(
                f"has {name}={value!r} in its environment: expected {ENVIRONMENT.get(name, 'no such variable')!r}"
            )
    if action.arguments and not re.match(r"(external|bazel-out)/", action.arguments[0]):
        found.append(
            f"runs {action.arguments[0]}: expected a program that is one of its inputs, below external/ or bazel-out/"
        )
    for argument in action.arguments:
        if _ABSOLUTE.search(argument) and not _NOT_OF_THE_MACHINE.fullmatch(argument):
            found.append(f"is given {argument}: expected no absolute path")
    return [f"{action.target} ({action.mnemonic}) {each}" for each in found]
