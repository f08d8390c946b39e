"""Workflows run the commands of a laptop with pinned actions and minimal permissions, and publish only what passed."""

from __future__ import annotations

import fnmatch
import os
import pathlib
import re
import shlex
import subprocess
from typing import Any

import pytest
import yaml

FILES = {
    path.parent.name if path.stem == "action" else path.stem: path
    for path in map(pathlib.Path, os.environ["WORKFLOWS"].split())
}
DOCUMENTS = "\n".join(pathlib.Path(path).read_text() for path in os.environ["DOCUMENTS"].split())

# PyYAML reads YAML 1.1, in which the key `on` is a Boolean.
CONTENT = {name: yaml.safe_load(path.read_text()) for name, path in FILES.items()}
MAIN = CONTENT["main"]
ON = MAIN[True]
JOBS = MAIN["jobs"]
RUN = CONTENT["bazel"]["jobs"]["run"]
INPUTS = CONTENT["bazel"][True]["workflow_call"]["inputs"]
# Jobs that build are calls of the one workflow; jobs that publish have steps and build nothing. One runs what was built
# on another processor.
BUILDING = {name: job for name, job in JOBS.items() if "steps" not in job}
NATIVE = JOBS["arm64"]
PUBLISHING = {name: job for name, job in JOBS.items() if "steps" in job and job is not NATIVE}
ACTIONS = CONTENT["prepare"]["runs"]["steps"] + CONTENT["take-over"]["runs"]["steps"]
STEPS = RUN["steps"] + ACTIONS + [step for job in (NATIVE, *PUBLISHING.values()) for step in job["steps"]]
PROOFS = JOBS["proofs"]["strategy"]["matrix"]["proof"]
# A command with the matrix variable stands for several commands.
CALLED = [
    line.replace("${{ matrix.proof }}", proof)
    for job in BUILDING.values()
    for line in job["with"]["commands"].splitlines()
    for proof in (PROOFS if "matrix.proof" in line else [""])
]
COMMANDS = CALLED + [line for step in STEPS for line in step.get("run", "").splitlines()]


def needs(job: str) -> set[str]:
    """Returns every job that must succeed before this one starts."""
    direct = MAIN["jobs"][job].get("needs", [])
    direct = {direct} if isinstance(direct, str) else set(direct)
    return direct.union(*map(needs, direct))


def test_the_files_are_all_there() -> None:
    assert set(FILES) == {"main", "bazel", "prepare", "take-over"}


def test_every_job_that_builds_is_a_call_of_the_one_workflow() -> None:
    assert {job["uses"] for job in BUILDING.values()} == {"./.github/workflows/bazel.yml"}
    assert set(PUBLISHING) == {"image", "release"}
    assert list(CONTENT["bazel"]["jobs"]) == ["run"]
    assert all(set(job["with"]) <= set(INPUTS) for job in BUILDING.values())


def test_a_run_keeps_the_wheels_from_where_the_build_puts_them() -> None:
    (step,) = [step for step in STEPS if step.get("if") == "inputs.keep-wheels"]
    (wheel,) = pathlib.Path(os.environ["WHEEL"]).iterdir()
    assert fnmatch.fnmatchcase(f"bazel-bin/{wheel}", step["with"]["path"])
    assert step["with"]["if-no-files-found"] == "error"


def test_the_one_workflow_runs_the_commands_of_its_caller() -> None:
    (step,) = [step for step in RUN["steps"] if step.get("name") == "Run"]
    assert step["run"] == "bash .ci/commands"
    assert step["env"]["COMMANDS"] == "${{ inputs.commands }}"
    assert step["env"]["KEEP_GOING"] == "${{ inputs.keep-going }}"


# Actions and images.


def test_every_action_is_pinned_by_commit_with_its_version_beside_it() -> None:
    lines = [line.strip() for path in FILES.values() for line in path.read_text().splitlines() if "uses:" in line]
    assert len(lines) == len(BUILDING) + len([step for step in STEPS if "uses" in step])
    pinned = re.compile(r"(- )?uses: (\./(source/)?\.github/[a-z/.-]+|actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)")
    assert [line for line in lines if not pinned.fullmatch(line)] == []


def test_an_action_has_one_version() -> None:
    pins = {step["uses"] for step in STEPS if "@" in step.get("uses", "")}
    assert len({pin.split("@")[0] for pin in pins}) == len(pins)


def test_jobs_run_in_an_image_by_digest() -> None:
    jobs = [RUN, *PUBLISHING.values()]
    assert {job["container"]["image"] for job in jobs} == {RUN["container"]["image"]}
    assert re.fullmatch(r"debian:12@sha256:[0-9a-f]{64}", RUN["container"]["image"])
    assert {job["runs-on"] for job in jobs} == {"ubuntu-24.04"}


# Permissions.


def test_only_the_job_that_publishes_a_thing_may_write_it() -> None:
    assert MAIN["permissions"] == {}
    # A called workflow without permissions gets exactly those of its caller.
    assert "permissions" not in CONTENT["bazel"] and "permissions" not in RUN
    writing = {
        "image": {"contents": "read", "packages": "write", "id-token": "write"},
        "release": {"contents": "write"},
    }
    assert {name: job["permissions"] for name, job in JOBS.items()} == {
        name: writing.get(name, {"contents": "read"}) for name in JOBS
    }


def test_no_checkout_keeps_the_token() -> None:
    checkouts = [step for step in STEPS if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) == 2 + len(PUBLISHING)
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def uses_a_secret(part: Any) -> bool:
    """Whether a part of a workflow names a secret, or the job's token."""
    return bool(re.search(r"\bsecrets\b|github\.token", str(part)))


def test_what_builds_has_no_secret_and_writes_nothing() -> None:
    """Any action or repository rule of the build could read them, from the environment or from root's home."""
    assert not uses_a_secret(CONTENT["bazel"])
    for name, job in BUILDING.items():
        assert not uses_a_secret(job) and "environment" not in job, name
        assert set(job["permissions"].values()) == {"read"}, name


def test_what_is_published_for_arm64_runs_there_first() -> None:
    assert NATIVE["runs-on"] == "ubuntu-24.04-arm" and "arm64" in needs("image")
    assert not uses_a_secret(NATIVE) and set(NATIVE["permissions"].values()) == {"read"}
    [step] = [step for step in NATIVE["steps"] if step.get("uses") == "./source/.github/actions/take-over"]
    assert step["with"] == {"sha256": "${{ needs.publication.outputs.sha256 }}", "options": "--only-check"}
    [run] = [step["run"] for step in NATIVE["steps"] if "run" in step]
    image = "podman run --rm oci:publication/content/layouts/mlc_llm"
    assert run.splitlines() == [f"{image} smoke", f"{image} pytest /tests"]


def test_what_has_secrets_or_may_write_builds_nothing() -> None:
    assert {name for name, job in JOBS.items() if uses_a_secret(job) or "write" in job["permissions"].values()} == set(
        PUBLISHING
    )
    for name, job in PUBLISHING.items():
        steps = job["steps"] + CONTENT["take-over"]["runs"]["steps"]
        # No Bazel, nothing that starts it, and no cache or script that a build could have written.
        assert {step["uses"].split("@")[0] for step in steps if "uses" in step} == {
            "actions/checkout",
            "actions/download-artifact",
            "./source/.github/actions/take-over",
        }, name
        programs = {re.findall(r"^\S+(?: -m \S+)?", step["run"])[0] for step in steps if "run" in step}
        assert programs <= {
            *("apt-get", "git", "python3 -m release.private.take_over"),
            *("publication/tools/usr/bin/oras", "publication/push", "publication/publish"),
        }, name
        assert not re.search(r"bazel(?!\.yml)|\.ci/", str([step.get("run") for step in steps])), name
        assert "options" not in job["container"], name


def test_only_the_steps_that_need_a_secret_get_it() -> None:
    for name, job in PUBLISHING.items():
        assert not uses_a_secret({key: value for key, value in job.items() if key != "steps"}), name
        for step in job["steps"]:
            assert not uses_a_secret({key: value for key, value in step.items() if key != "env"}), name
    assert not uses_a_secret(ACTIONS)
    given = {step["name"]: set(step["env"]) for job in PUBLISHING.values() for step in job["steps"] if "env" in step}
    key = {"COSIGN_PASSWORD", "COSIGN_PRIVATE_KEY"}
    assert given == {"Log in to the registry": {"GH_TOKEN"}, "Push": key | {"KEYLESS"}, "Publish": key | {"GH_TOKEN"}}


def test_secrets_are_in_a_protected_environment_where_no_pull_request_comes() -> None:
    for name, job in PUBLISHING.items():
        assert job["if"].startswith("github.event_name == 'push'"), name
    # One key does not sign both.
    assert JOBS["image"]["environment"] == "${{ github.ref_type == 'tag' && 'release' || 'main' }}"
    assert JOBS["release"]["environment"] == "release"
    assert set(ON) == {"push", "pull_request", "schedule"}


def test_what_is_published_is_what_was_built() -> None:
    (taken,) = [step for step in CONTENT["take-over"]["runs"]["steps"] if "take_over" in step.get("run", "")]
    assert taken["env"]["SHA256"] == "${{ inputs.sha256 }}" and '--sha256 "$SHA256"' in taken["run"]
    for name, job in PUBLISHING.items():
        (step,) = [step for step in job["steps"] if step.get("uses") == "./source/.github/actions/take-over"]
        assert step["with"] == {"sha256": "${{ needs.publication.outputs.sha256 }}"}, name
    outputs = CONTENT["bazel"][True]["workflow_call"]["outputs"]
    assert outputs["sha256"]["value"] == "${{ jobs.run.outputs.sha256 }}"
    assert RUN["outputs"]["sha256"] == "${{ steps.run.outputs.sha256 }}"
    (run,) = [step for step in RUN["steps"] if step.get("id") == "run"]
    assert run["run"] == "bash .ci/commands"
    (kept,) = [step for step in RUN["steps"] if step.get("if") == "inputs.keep-publication"]
    assert kept["with"]["path"] in JOBS["publication"]["with"]["commands"]


def test_nothing_from_outside_is_pasted_into_a_command() -> None:
    assert [command for command in COMMANDS if "${{" in command] == []


# Order.


def test_runs_on_main_on_pull_requests_and_on_tags_of_versions() -> None:
    assert ON["push"] == {"branches": ["main"], "tags": ["v*.*.*"]}
    assert ON["pull_request"] is None
    assert MAIN["jobs"]["build"]["if"] == "github.event_name != 'schedule'"
    assert MAIN["jobs"]["release"]["if"] == "github.event_name == 'push' && github.ref_type == 'tag'"


def test_what_publishes_needs_the_build() -> None:
    assert needs("publication") == needs("wheels") == {"build"}
    assert needs("image") == {"build", "publication", "arm64"}
    assert needs("release") == {"build", "publication", "arm64", "image", "wheels"}


def test_the_build_runs_what_ci_runs() -> None:
    assert JOBS["build"]["with"]["commands"] == JOBS["upstream"]["with"]["commands"] == "bash .ci/run"
    assert (
        JOBS["build"]["with"].get("profile", INPUTS["profile"]["default"]),
        JOBS["upstream"]["with"]["profile"],
    ) == ("registries", "upstream")


def test_locks_that_are_behind_block_nothing_but_are_seen() -> None:
    locks = MAIN["jobs"]["locks"]
    assert all("locks" not in needs(job) for job in MAIN["jobs"])
    assert "if" not in locks
    assert locks["with"]["may-fail"] == "${{ github.event_name != 'schedule' }}"
    assert locks["with"]["keep-going"] is True
    assert RUN["continue-on-error"] == "${{ inputs.may-fail }}"
    assert [name for name, job in BUILDING.items() if "may-fail" in job["with"]] == ["locks"]
    assert INPUTS["may-fail"]["default"] is False


def test_every_lock_is_checked() -> None:
    checked = {command.split()[2] for command in COMMANDS if " -- " in command and command.endswith(" --check")}
    assert checked == {f"//locks:{path.removesuffix('.py')}" for path in os.environ["UPDATE_COMMANDS"].split()}


def test_vulnerable_pins_are_looked_for_every_week_and_block_nothing() -> None:
    audit = MAIN["jobs"]["audit"]
    assert audit["if"] == "github.event_name == 'schedule'"
    assert all("audit" not in needs(job) for job in MAIN["jobs"])
    (command,) = [command for command in COMMANDS if "//locks:audit" in command]
    data = {"/".join(word.split("/")[-2:]) for word in shlex.split(command) if word.startswith("https://")}
    # OSV has all ecosystems. Debian's own data also covers Debian testing, which supplies remote workers.
    assert data == {"osv-vulnerabilities.storage.googleapis.com/all.zip", "data/json"}
    assert "--partial" not in command and "--offline" not in command


def test_proofs_are_made_every_week_and_block_nothing() -> None:
    proofs = MAIN["jobs"]["proofs"]
    assert proofs["if"] == "github.event_name == 'schedule'"
    assert all("proofs" not in needs(job) for job in MAIN["jobs"])
    assert proofs["strategy"]["fail-fast"] is False
    assert {
        f"tools/bazel test --config=ci //tests/{proof}"
        for proof in (
            "arm64:bootstrap",
            "proofs/airgap",
            "proofs/broken_runtime",
            "proofs/hermetic",
            "proofs/remote",
            "proofs/reproducible",
            "wheels:build_id_mutations",
        )
    } == {" ".join(shlex.split(command)) for command in COMMANDS if "--config=ci //tests/" in command}


def test_what_publishes_takes_no_outputs_from_a_cache() -> None:
    assert [name for name, job in BUILDING.items() if job["with"].get("keep-outputs")] == ["build", "upstream"]
    assert INPUTS["keep-outputs"]["default"] is False
    (prepare,) = [step for step in RUN["steps"] if step.get("uses") == "./.github/actions/prepare"]
    assert prepare["with"] == {"keep-outputs": "${{ inputs.keep-outputs }}"}
    outputs = [
        step for step in CONTENT["prepare"]["runs"]["steps"] if "outputs" in str(step).replace("keep-outputs", "")
    ]
    assert outputs and all(step["if"] == "inputs.keep-outputs == 'true'" for step in outputs)


def test_only_a_pull_request_is_cancelled() -> None:
    assert MAIN["concurrency"]["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"


def test_every_job_ends() -> None:
    assert RUN["timeout-minutes"] == "${{ inputs.timeout-minutes }}"
    assert all(
        job["with"].get("timeout-minutes", INPUTS["timeout-minutes"]["default"]) <= 120 for job in BUILDING.values()
    )
    assert all(job["timeout-minutes"] <= 120 for job in (NATIVE, *PUBLISHING.values()))


# Commands.


@pytest.mark.parametrize(("keep_going", "printed", "status"), [("false", "one\n", 3), ("true", "one\nthree\n", 3)])
def test_commands_run_in_order_until_one_fails(
    keep_going: str, printed: str, status: int, tmp_path: pathlib.Path
) -> None:
    output = tmp_path / "output"
    commands = f"echo one >> {output}\n\n(exit 3)\necho three >> {output}\n"
    environment = {"COMMANDS": commands, "KEEP_GOING": keep_going, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["/bin/bash", os.environ["COMMANDS_PROGRAM"]], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert (output.read_text(), done.returncode) == (printed, status), done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_a_target_or_prepares_the_machine(command: str) -> None:
    programs = {"tools/bazel", "bash .ci/run", "bash .ci/commands", "apt-get", "git config", "echo"}
    programs |= {"python3 -m release.private.take_over", "podman run", "publication/"}
    for part in command.split("&&"):
        assert any(part.strip().startswith(program) for program in programs), part
    assert not re.search(r"[;|`]|\$\(", command), "logic belongs in a target"


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("tools/bazel")])
def test_a_bazel_command_is_in_the_documents(command: str) -> None:
    words = shlex.split(command)
    bazels = words[: words.index("--")] if "--" in words else words
    (target,) = [word for word in bazels if "//" in word]
    documented = re.search(rf"tools/bazel {words[1]} (\S+ )*{re.escape(target)}(?![\w/:])", DOCUMENTS)
    assert documented, f"no document has `tools/bazel {words[1]} … {target}`"


def test_what_is_published_is_with_cuda() -> None:
    publishing = [command for command in COMMANDS if re.search(r"//(images:|wheels/|release:)", command)]
    assert len(publishing) == 2
    assert all("--config=cuda " in command for command in publishing)


def test_the_images_go_to_the_owners_registry_under_the_version() -> None:
    (push,) = [command for command in COMMANDS if command.startswith("publication/push")]
    assert '--repository "ghcr.io/${GITHUB_REPOSITORY_OWNER,,}/{image}" --tag "${GITHUB_REF_NAME#v}"' in push
