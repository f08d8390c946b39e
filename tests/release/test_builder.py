"""The builder is the workflow that GitHub's signed token names, and Bazel is the server that ran; else "unverified"."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import pathlib
import random
import zipfile
from collections.abc import Mapping
from typing import Any

import pytest

from release import builder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WORKFLOW = "owner/repository/.github/workflows/bazel.yml@refs/tags/v0.1.0"
IN_A_JOB = {
    "ACTIONS_ID_TOKEN_REQUEST_URL": "https://example.org/token?api=1",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "bearer",
}
CLAIMS = {
    "iss": "https://token.actions.githubusercontent.com",
    "aud": "mlc-bazel-provenance",
    "sha": COMMIT,
    "exp": 2**40,
    "job_workflow_ref": WORKFLOW,
}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def prime(seed: int) -> int:
    """A prime of 512 bits, by Fermat's test: enough for a test's key."""
    numbers = random.Random(seed)
    while True:
        number = numbers.getrandbits(512) | (1 << 511) | (1 << 510) | 1
        if (number - 1) % 65537 and all(pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7)):
            return number


class Provider:
    """Signs tokens with a key of its own, and answers as GitHub does."""

    def __init__(self, seed: int = 1) -> None:
        one, other = prime(seed), prime(seed + 100)
        self.modulus = one * other
        self.private = pow(65537, -1, (one - 1) * (other - 1))
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.token = self.sign(CLAIMS)

    @property
    def key(self) -> dict[str, str]:
        numbers = {"n": self.modulus.to_bytes(128, "big"), "e": b"\1\0\1"}
        return {"kid": "k", "kty": "RSA", "alg": "RS256"} | {name: encoded(value) for name, value in numbers.items()}

    def sign(self, claims: dict[str, Any], **header: str) -> str:
        text = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": "k"} | header, claims))
        info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(text.encode()).digest()
        padded = b"\0\1" + b"\xff" * (125 - len(info)) + b"\0" + info
        signature = pow(int.from_bytes(padded, "big"), self.private, self.modulus).to_bytes(128, "big")
        return f"{text}.{encoded(signature)}"

    def fetch(self, url: str, headers: Mapping[str, str]) -> Any:
        self.asked.append((url, dict(headers)))
        return {"keys": [self.key]} if url.endswith("/.well-known/jwks") else {"value": self.token}


def test_the_workflow_that_a_signed_token_names_is_the_builder() -> None:
    provider = Provider()
    assert builder.identity(IN_A_JOB, COMMIT, provider.fetch) == f"https://github.com/{WORKFLOW}"
    assert provider.asked == [
        ("https://example.org/token?api=1&audience=mlc-bazel-provenance", {"Authorization": "Bearer bearer"}),
        ("https://token.actions.githubusercontent.com/.well-known/jwks", {}),
    ]


@pytest.mark.parametrize("environment", [{}, {"GITHUB_WORKFLOW_REF": WORKFLOW, "GITHUB_ACTIONS": "true"}])
def test_without_a_token_the_builder_is_unverified_and_nobody_is_asked(environment: dict[str, str]) -> None:
    provider = Provider()
    assert builder.identity(environment, COMMIT, provider.fetch) == "urn:mlc-bazel:unverified"
    assert provider.asked == []


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"iss": "https://example.org"}, "iss: expected https://token.actions"),
        ({"aud": "sigstore"}, "aud: expected mlc-bazel-provenance, found sigstore"),
        ({"sha": "f" * 40}, f"sha: expected {COMMIT}, found ffff"),
        ({"exp": 1}, "it has expired"),
        ({"job_workflow_ref": None, "exp": "soon"}, "cannot verify"),
    ],
)
def test_a_token_about_something_else_is_refused(claims: dict[str, Any], said: str) -> None:
    provider = Provider()
    provider.token = provider.sign(CLAIMS | claims)
    with pytest.raises(builder.BuilderError, match=said):
        builder.identity(IN_A_JOB, COMMIT, provider.fetch)


def forged(provider: Provider) -> dict[str, str]:
    header, _, signature = provider.token.split(".")
    other = encoded(json.dumps(CLAIMS | {"job_workflow_ref": "someone/else"}).encode())
    unsigned = encoded(json.dumps({"alg": "none", "kid": "k"}).encode())
    return {
        "other claims": f"{header}.{other}.{signature}",
        "another key": Provider(2).token,
        "no algorithm": f"{unsigned}.{other}.",
        "no signature": f"{header}.{other}.",
        "unknown key": provider.sign(CLAIMS, kid="other"),
        # Signed as it should be, but the header promises something else.
        "another algorithm": provider.sign(CLAIMS, alg="HS256"),
        "no token": "token",
    }


@pytest.mark.parametrize("kind", forged(Provider()))
def test_a_token_that_github_did_not_sign_is_refused(kind: str) -> None:
    provider = Provider()
    provider.token = forged(provider)[kind]
    with pytest.raises(builder.BuilderError, match="cannot verify the workflow's token"):
        builder.identity(IN_A_JOB, COMMIT, provider.fetch)


@pytest.mark.parametrize("claims", [[], None, 7, "x", [["sha", COMMIT]]])
def test_claims_of_another_form_are_refused(claims: Any) -> None:
    provider = Provider()
    provider.token = provider.sign(claims)
    with pytest.raises(builder.BuilderError, match="cannot verify the workflow's token"):
        builder.identity(IN_A_JOB, COMMIT, provider.fetch)


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"value": 7, "keys": 7}, {"value": "a.b.c", "keys": [7]}, {"value": []}]
)
def test_an_answer_of_another_form_is_refused(answer: Any) -> None:
    with pytest.raises(builder.BuilderError, match="cannot verify the workflow's token"):
        builder.identity(IN_A_JOB, COMMIT, lambda url, headers: answer)


def test_an_answer_that_is_no_http_is_refused() -> None:
    def fetch(url: str, headers: Mapping[str, str]) -> Any:
        raise http.client.BadStatusLine("not http")

    with pytest.raises(builder.BuilderError, match="cannot verify the workflow's token: BadStatusLine"):
        builder.identity(IN_A_JOB, COMMIT, fetch)


class Processes:
    """procfs with a Bazel server (10), a shell that it started (11), and a process that no Bazel started (20)."""

    def __init__(self, folder: pathlib.Path, place: str, label: str = "7.7.1", content: bytes = b"server") -> None:
        self.proc = folder / "proc"
        self.installed = folder / place
        for name in ("jdk/bin/java", "jdk/lib/modules", "jdk/lib/server/libjvm.so", "server.jar"):
            (self.installed / name).parent.mkdir(parents=True, exist_ok=True)
            (self.installed / name).write_bytes(name.encode())
        (self.installed / "server.jar").unlink()
        with zipfile.ZipFile(self.installed / "server.jar", "w") as jar:
            jar.writestr(zipfile.ZipInfo("Bazel.class"), content)
            jar.writestr(zipfile.ZipInfo("build-data.properties"), f"build.label={label}\n")
        server = ["bazel(x)", "-cp", f"{self.installed}/server.jar", "Bazel", f"--install_base={self.installed}"]
        self.process(10, 1, server)
        self.process(11, 10, ["sh", "-c", "a) b"])
        self.process(20, 1, ["python3"])

    def install_base(self, number: int) -> str | None:
        return builder.install_base(number, str(self.proc))

    def process(self, number: int, parent: int, words: list[str]) -> None:
        folder = self.proc / str(number)
        folder.mkdir(parents=True)
        (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
        (folder / "stat").write_text(f"{number} ({words[0]} ) S) S {parent} 0 0")
        (folder / "exe").symlink_to(self.installed / "jdk/bin/java")

    def bazel(self, number: int) -> str:
        return builder.bazel(number, str(self.proc))


def test_the_bazel_that_ran_is_named_by_its_bytes_wherever_it_is(tmp_path: pathlib.Path) -> None:
    here = Processes(tmp_path / "a", "here")
    names = ["server.jar", "jdk/lib/modules", "jdk/lib/server/libjvm.so"]
    sums = [
        (hashlib.sha256((here.installed / name).read_bytes()).hexdigest(), name.rpartition("/")[2]) for name in names
    ]
    listed = "".join(f"{digest}  {name}\n" for digest, name in sums)
    expected = f"7.7.1 sha256:{hashlib.sha256(listed.encode()).hexdigest()}"
    assert here.bazel(11) == here.bazel(10) == expected
    assert Processes(tmp_path / "b", "some/where/else").bazel(11) == expected


def test_another_bazel_of_the_same_version_has_another_digest(tmp_path: pathlib.Path) -> None:
    one = Processes(tmp_path / "a", "x").bazel(11)
    other = Processes(tmp_path / "b", "x", content=b"changed").bazel(11)
    assert one.split()[0] == other.split()[0] and one != other
    assert Processes(tmp_path / "c", "x", label="7.8.0").bazel(11).startswith("7.8.0 sha256:")


def test_a_process_that_no_bazel_started_has_none(tmp_path: pathlib.Path) -> None:
    processes = Processes(tmp_path, "x")
    assert processes.bazel(20) == processes.bazel(99) == "urn:mlc-bazel:unverified"
    assert processes.install_base(20) is processes.install_base(99) is None
    assert processes.install_base(11) == processes.install_base(10) == str(processes.installed)
    (processes.installed / "server.jar").write_bytes(b"no jar")
    assert processes.bazel(11) == "urn:mlc-bazel:unverified"
