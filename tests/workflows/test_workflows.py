"""The workflows run what a laptop runs, from pinned actions, with no more rights than each job needs, and publish only what was tested."""

from __future__ import annotations

import os
import pathlib
import re
import shlex

import pytest
import yaml

FILES = {path.parent.name if path.stem == "action" else path.stem: path for path in map(pathlib.Path, os.environ["WORKFLOWS"].split())}
DOCUMENTS = "\n".join(pathlib.Path(path).read_text() for path in os.environ["DOCUMENTS"].split())

# YAML 1.1, which PyYAML reads, takes the key `on` for a truth value.
CONTENT = {name: yaml.safe_load(path.read_text()) for name, path in FILES.items()}
MAIN = CONTENT["main"]
ON = MAIN[True]
JOBS = {f"{name}/{job}": content for name, workflow in CONTENT.items() for job, content in workflow.get("jobs", {}).items()}
OWN_JOBS = {name: job for name, job in JOBS.items() if "steps" in job}
STEPS = [step for job in OWN_JOBS.values() for step in job["steps"]] + CONTENT["prepare"]["runs"]["steps"]
PROOFS = MAIN["jobs"]["proofs"]["strategy"]["matrix"]["proof"]
# Continued lines are one command, and one with a variable of the matrix is several.
COMMANDS = [
    line.replace("$PROOF", proof)
    for step in STEPS
    for line in step.get("run", "").replace("\\\n", " ").splitlines()
    for proof in (PROOFS if "$PROOF" in line else [""])
]


def needs(job: str) -> set[str]:
    """Every job that must have succeeded before this one starts."""
    direct = MAIN["jobs"][job].get("needs", [])
    direct = {direct} if isinstance(direct, str) else set(direct)
    return direct.union(*map(needs, direct))


def test_the_files_are_all_there():
    assert set(FILES) == {"main", "build", "prepare"}


# Actions and images.


def test_every_action_is_pinned_by_commit_with_its_version_beside_it():
    lines = [line.strip() for path in FILES.values() for line in path.read_text().splitlines() if "uses:" in line]
    assert len(lines) >= len(JOBS)
    pinned = re.compile(r"(- )?uses: (\./\.github/[a-z/.]+|actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)")
    assert [line for line in lines if not pinned.fullmatch(line)] == []


def test_an_action_has_one_version():
    pins = {step["uses"] for step in STEPS if "@" in step.get("uses", "")}
    assert len({pin.split("@")[0] for pin in pins}) == len(pins)


def test_every_job_runs_in_the_same_image_by_digest():
    images = {job["container"]["image"] for job in OWN_JOBS.values()}
    assert len(images) == 1
    assert re.fullmatch(r"debian:12@sha256:[0-9a-f]{64}", images.pop())
    assert {job["runs-on"] for job in OWN_JOBS.values()} == {"ubuntu-24.04"}


# Rights.


def test_only_the_job_that_publishes_a_thing_may_write_it():
    assert [workflow["permissions"] for workflow in (MAIN, CONTENT["build"])] == [{}, {}]
    writing = {"main/image": {"contents": "read", "packages": "write"}, "main/release": {"contents": "write"}}
    assert {name: job["permissions"] for name, job in JOBS.items()} == {name: writing.get(name, {"contents": "read"}) for name in JOBS}


def test_no_checkout_keeps_the_token():
    checkouts = [step for step in STEPS if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) == len(OWN_JOBS)
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


def test_secrets_are_where_no_pull_request_comes():
    for name, job in JOBS.items():
        if "secrets." in str(job) or "github.token" in str(job) or "write" in job["permissions"].values():
            assert job["if"].startswith("github.event_name == 'push'"), name
    assert set(ON) == {"push", "pull_request", "schedule"}


def test_nothing_from_outside_is_pasted_into_a_command():
    assert [command for command in COMMANDS if "${{" in command] == []


# Order.


def test_runs_on_main_on_pull_requests_and_on_tags_of_versions():
    assert ON["push"] == {"branches": ["main"], "tags": ["v*.*.*"]}
    assert ON["pull_request"] is None
    assert MAIN["jobs"]["build"]["if"] == "github.event_name != 'schedule'"
    assert MAIN["jobs"]["release"]["if"] == "github.event_name == 'push' && github.ref_type == 'tag'"


def test_what_publishes_needs_the_build():
    assert MAIN["jobs"]["build"]["uses"] == "./.github/workflows/build.yml"
    assert needs("image") == needs("wheels") == {"build"}
    assert needs("release") == {"build", "image", "wheels"}


def test_the_build_runs_what_ci_runs():
    assert "bash .ci/run" in [step.get("run") for step in CONTENT["build"]["jobs"]["build-and-test"]["steps"]]


def test_locks_that_are_behind_block_nothing_but_are_seen():
    locks = MAIN["jobs"]["locks"]
    assert all("locks" not in needs(job) for job in MAIN["jobs"])
    assert "if" not in locks
    assert locks["continue-on-error"] == "${{ github.event_name != 'schedule' }}"
    checks = [step for step in locks["steps"] if "--check" in step.get("run", "")]
    assert [step.get("if") for step in checks] == [None] + ["${{ !cancelled() }}"] * (len(checks) - 1)


def test_every_lock_is_checked():
    checked = {command.split()[2] for command in COMMANDS if " -- " in command and command.endswith(" --check")}
    assert checked == {f"//locks:{path.removesuffix('.py')}" for path in os.environ["UPDATE_COMMANDS"].split()}


def test_vulnerable_pins_are_looked_for_every_week_and_block_nothing():
    audit = MAIN["jobs"]["audit"]
    assert audit["if"] == "github.event_name == 'schedule'" and "continue-on-error" not in audit
    assert all("audit" not in needs(job) for job in MAIN["jobs"])
    (command,) = [command for command in COMMANDS if "//locks:audit" in command]
    data = {"/".join(word.split("/")[-2:]) for word in shlex.split(command) if word.startswith("https://")}
    # OSV's of all ecosystems, and Debian's own, which has Debian testing, of which remote workers are.
    assert data == {"osv-vulnerabilities.storage.googleapis.com/all.zip", "data/json"}
    assert "--partial" not in command and "--offline" not in command


def test_proofs_are_made_every_week_and_block_nothing():
    proofs = MAIN["jobs"]["proofs"]
    assert proofs["if"] == "github.event_name == 'schedule'" and "continue-on-error" not in proofs
    assert all("proofs" not in needs(job) for job in MAIN["jobs"])
    assert proofs["steps"][-1]["env"] == {"PROOF": "${{ matrix.proof }}"}
    assert proofs["strategy"]["fail-fast"] is False
    expected = ("airgap", "hermetic", "remote", "reproducible", "wheels:build_id_mutations")
    assert {f"tools/bazel test --config=ci //tests/{proof}" for proof in expected} == {
        " ".join(shlex.split(command)) for command in COMMANDS if "--config=ci //tests/" in command.replace('"', "")
    }


def test_what_publishes_takes_no_outputs_from_a_cache():
    keeping = [name for name, job in OWN_JOBS.items() if any(step.get("with", {}).get("keep-outputs") for step in job["steps"])]
    assert keeping == ["build/build-and-test"]
    outputs = [step for step in CONTENT["prepare"]["runs"]["steps"] if "outputs" in str(step).replace("keep-outputs", "")]
    assert outputs and all(step["if"] == "inputs.keep-outputs == 'true'" for step in outputs)


def test_only_a_pull_request_is_cancelled():
    assert MAIN["concurrency"]["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"


def test_every_job_ends():
    assert all(job["timeout-minutes"] <= 120 for job in OWN_JOBS.values())


# Commands.


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_a_target_or_prepares_the_machine(command):
    programs = {"tools/bazel", "bash .ci/run", "apt-get", "git config", "echo"}
    for part in command.split("&&"):
        assert any(part.strip().startswith(program) for program in programs), part
    assert not re.search(r"[;|`]|\$\(", command), "logic belongs in a target"


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("tools/bazel")])
def test_a_bazel_command_is_in_the_documents(command):
    words = shlex.split(command)
    bazels = words[: words.index("--")] if "--" in words else words
    (target,) = [word for word in bazels if "//" in word]
    documented = re.search(rf"tools/bazel {words[1]} (\S+ )*{re.escape(target)}(?![\w/:])", DOCUMENTS)
    assert documented, f"no README has `tools/bazel {words[1]} … {target}`"


def test_what_is_published_is_with_cuda():
    publishing = [command for command in COMMANDS if re.search(r"//(images:|wheels/|release:)", command)]
    assert len(publishing) == 4
    assert all("--config=cuda " in command for command in publishing)


def test_the_images_go_to_the_owners_registry_under_the_version():
    (push,) = [command for command in COMMANDS if "//images:push" in command]
    assert '--repository "ghcr.io/${GITHUB_REPOSITORY_OWNER,,}/{image}" --tag "${GITHUB_REF_NAME#v}"' in push
