"""What an action may name and ask for, and every exception with its reason, for the tests of this folder."""

from __future__ import annotations

import dataclasses
import re

_STARTS_BAZEL = "starts its own Bazel, whose actions obey the same rules"
_READS_THE_WORKSPACE = "reads files of the whole workspace, which are not inputs of a target"
_STARTS_CONTAINERS = (
    "starts containers: in Bazel's sandbox there is only one user, and the image's own could not be tested"
)

# Target → why it may leave the sandbox or use the network. Add an exception here, with its reason.
EXCEPTIONS = {
    "//release/private/reproduce:seen": (
        "shows what an action of this build sees, so no cache or other machine may answer for it"
    ),
    "//tests/arm64:bootstrap": "as //tests/arm64:image",
    "//tests/arm64:engine": "as //tests/arm64:image",
    "//tests/arm64:image": "mounts binfmt_misc, which Bazel's sandbox does not allow",
    "//tests/docs:links": _READS_THE_WORKSPACE,
    "//tests/docs:threat_model": _READS_THE_WORKSPACE,
    "//tests/floors:floors": _READS_THE_WORKSPACE,
    "//tests/floors:python_is_isolated": _READS_THE_WORKSPACE,
    "//tests/proofs/airgap:airgap": _STARTS_BAZEL,
    "//tests/proofs/git_sources:build": _STARTS_BAZEL,
    "//tests/proofs/hermetic:action_graph": _STARTS_BAZEL,
    "//tests/proofs/hermetic:build": _STARTS_BAZEL,
    "//tests/images:mlc_llm_container": _STARTS_CONTAINERS,
    "//tests/images:mlc_llm_cuda_container": _STARTS_CONTAINERS,
    "//tests/images:mlc_llm_dev_container": _STARTS_CONTAINERS,
    "//tests/images:serve_cuda_container": _STARTS_CONTAINERS,
    "//tests/images:serve_cuda_cublas_container": _STARTS_CONTAINERS,
    "//tests/images:serve_cuda_nccl_container": _STARTS_CONTAINERS,
    "//tests/images:serve_only": _STARTS_CONTAINERS,
    "//tests/release:push_full_disk": "mounts a small disk, which Bazel's sandbox does not allow",
    "//tests/release:run_with_runc": _STARTS_CONTAINERS,
    "//tests/images:serve": _STARTS_CONTAINERS,
    "//tests/images:smollm2": _STARTS_CONTAINERS,
    "//tests/images:tvm_runtime_container": _STARTS_CONTAINERS,
    "//tests/images:tvm_runtime_cuda_container": _STARTS_CONTAINERS,
    "//tests/images:tvm_runtime_dev_container": _STARTS_CONTAINERS,
    "//tests/proofs/broken_runtime:broken_runtime": _STARTS_BAZEL,
    "//tests/proofs/remote:faults": _STARTS_BAZEL,
    "//tests/proofs/remote:same_bytes": _STARTS_BAZEL,
    "//tests/proofs/reproducible:reproducible": _STARTS_BAZEL,
    "//tests/proofs/tampering:tampering": _STARTS_BAZEL,
    "//tests/wheels:build_id_mutations": _STARTS_BAZEL,
    "//tests/wheels:mutations_apply": _READS_THE_WORKSPACE,
}

# Tags that become execution requirements and take an action out of the sandbox, or give it network access.
LOOSENING = frozenset({"local", "no-sandbox", "requires-fakeroot", "requires-network"})

# An action's whole environment, which Bazel sets on every machine. What those folders must contain: README.md, "What a
# machine must provide".
ENVIRONMENT = {"PATH": "/bin:/usr/bin:/usr/local/bin", "PWD": "/proc/self/cwd"}

# An absolute path, also directly after a flag: of one letter, or one of GCC's longer ones. -Iexternal/… is relative.
_ABSOLUTE = re.compile(r"(^|[=,:]|^-([A-Za-z]|isystem|iquote|idirafter|include|imacros|isysroot))/(?!/)")
# The current folder, which the compiler leaves out of its output, and the tests' folder in an image.
_NOT_OF_THE_MACHINE = re.compile(r"-ffile-prefix-map=/proc/self/cwd=\.|--env=[A-Z_]+=/tests(/\w+)*")


@dataclasses.dataclass(frozen=True)
class Action:
    """One action of the graph. `requirements` are its execution requirements, or tags that become such."""

    target: str
    mnemonic: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    requirements: frozenset[str]

    @property
    def test(self) -> str:
        """The test that the action runs for a gate (release/private/gate.bzl), else its target."""
        if self.mnemonic == "GateTest" and "--label" in self.arguments:
            return self.arguments[self.arguments.index("--label") + 1]
        return self.target


def problems(action: Action) -> list[str]:
    """One line for everything that makes an action depend on the machine it runs on."""
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
