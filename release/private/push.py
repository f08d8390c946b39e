"""Pushes images that passed the tests to a registry: by digest and for all processors, then bills of materials,
provenance and signatures, and the tags last.

    tools/bazel run //images:push -- --repository HOST/NAME --tag TAG --key cosign.key

Credentials are those of `podman login` or `docker login`. The signing key is a file (--key) or the content of
$COSIGN_PRIVATE_KEY, its password $COSIGN_PASSWORD. A push that fails or is interrupted sets no tag. Run it again to
send only what the registry lacks.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from fetch import arguments, errors, programs, strict_json
from oci import credentials, lookup, reference
from oci import layout as oci_layout
from oci.status import UNSTAMPED
from release.private import signing, stamp, tool_environment, version_tags

# OCI image-spec, annotations.md: the predefined keys.
_REVISION = "org.opencontainers.image.revision"
_VERSION = "org.opencontainers.image.version"

# What a signature says instead of the version where the tag is no version's.
_UNRELEASED = "unreleased"

# An attachment's manifest contains a time; with a fixed one every push writes the same manifest.
_CREATED = "org.opencontainers.image.created=2000-01-01T00:00:00Z"

# How often to try what a concurrent push has overwritten or prevented, and the first pause in seconds.
_ATTEMPTS = 5
_PAUSE = 0.2

# What a registry says of a blob that another push is still writing.
_HALF_WRITTEN = r"digest.invalid|blob.unknown"

# oras 1.2.0 can panic, without saying why it failed, when two uploads fail at once
# (https://github.com/oras-project/oras-go/issues/916).
_PANIC = r"panic:"

# Message of a registry or the network → what it means and what to do. The first match counts.
_EXPLANATIONS = [
    (
        _PANIC,
        (
            f"the client crashed {_ATTEMPTS} times, which hides the reason: run again; if it persists, look into the"
            " registry's log"
        ),
    ),
    (
        r"status code 401|unauthorized|authentication required|credential not found",
        "the registry requires other credentials",
    ),
    (r"status code 403|denied", "these credentials may not push here: ask for write access to the repository"),
    (
        r"status code 404|NAME_UNKNOWN",
        "the registry does not know this repository: create it first, or correct --repository",
    ),
    (
        r"status code 413",
        (
            "the registry, or a proxy before it, refuses uploads of this size: raise its limit (nginx:"
            " client_max_body_size 0), then run again"
        ),
    ),
    (r"status code 429|TOOMANYREQUESTS", "the registry limits requests: wait, then run again"),
    (r"no space left|QUOTA|status code 507", "the registry's disk is full: free some space there, then run again"),
    (r"status code 5\d\d|unknown error", "the registry has failed: run again; if it persists, look into its log"),
    (_HALF_WRITTEN, "another push interfered: run again"),
    (r"x509|certificate", "its certificate is not trusted: set SSL_CERT_FILE to the authority's certificate"),
    (
        r"server gave HTTP response to HTTPS client|WRONG_VERSION_NUMBER|record layer failure",
        "the registry speaks plain http: pass --insecure if you trust the network",
    ),
    (
        r"no such host|connection refused|no route|i/o timeout|timed out|Temporary failure|Name or service not known",
        "the registry does not answer: check --repository and the network",
    ),
    (r"EOF|connection reset|broken pipe", "the connection broke: run again"),
]


_Result = TypeVar("_Result")


class PushError(Exception):
    """The push stopped; the message says where, why and what to do."""


class Unanswered(PushError):
    """A tool was stopped: it took too long or said too much, and would again."""


@dataclasses.dataclass(frozen=True)
class Image:
    """An image of this build.

    Args:
        name: as in //images.
        layout: folder of its OCI layout: one image, or an index of one for each processor.
        documents: what to attach to what: (name of the layout or of an image in it, media type) → file.
    """

    name: str
    layout: pathlib.Path
    documents: dict[tuple[str, str], pathlib.Path]

    def labels(self) -> list[dict[str, str]]:
        """See `oci.layout.Image.labels`: those of each image."""
        return [image.labels for image in oci_layout.images(self.layout).values()]

    def parts(self) -> list[tuple[str, list[tuple[str, pathlib.Path]]]]:
        """What is signed and has attachments, an index before its images: digest, and pairs of media type and file."""
        return [
            (digest, [(kind, path) for (of, kind), path in self.documents.items() if of == name])
            for name, digest in oci_layout.named_digests(self.name, self.layout).items()
        ]

    def blob_sizes(self) -> dict[str, int]:
        """Sizes of manifest, configuration and layers in bytes, by the first twelve digits of the digest, like oras."""
        return {blob.name[:12]: blob.stat().st_size for blob in (self.layout / "blobs/sha256").iterdir()}


class Registry:
    """One repository of a registry, accessed with oras and cosign, which locks/debian.lock.json pins.

    Args:
        repository: HOST/NAME.
        tools: paths of `oras` and `cosign`.
        insecure: use plain http, as always on this machine.
        environment: the source of the tools' variables (tool_environment.py).
        keyless: also sign with the workflow's identity.
    """

    def __init__(
        self, repository: str, tools: dict[str, str], insecure: bool, environment: dict[str, str], keyless: bool
    ) -> None:
        self.repository = repository
        self.host = repository.partition("/")[0]
        self.tools = tools
        registry = tool_environment.for_registry(environment)
        names = [*tool_environment.SIGNING_KEY, *(tool_environment.IDENTITY if keyless else [])]
        secrets = {name: environment[name] for name in names if name in environment}
        self.environments = {"oras": registry, "cosign": registry | secrets}
        self.keyless = keyless
        self.plain = insecure or reference.on_this_machine(self.host)

    def oras(self, what: str, *command: str, flag: str = "--plain-http", words: int = 1, **options: Any) -> str:
        # oras reads a flag only after its command, which is so many words.
        flags = [flag] if self.plain else []
        return self._again(
            lambda: self.run(what, "oras", *command[:words], *flags, *command[words:], **options), _PANIC
        )

    def cosign(self, what: str, *command: str, **options: Any) -> str:
        flags = ["--allow-http-registry", "--allow-insecure-registry"] if self.plain else []
        return self.run(what, "cosign", command[0], *flags, *command[1:], **options)

    def run(
        self,
        what: str,
        tool: str,
        *command: str,
        seconds: float = programs.SECONDS,
        sink: Callable[[bytes], None] | None = None,
        cwd: pathlib.Path | None = None,
    ) -> str:
        """Runs a tool and returns its standard output.

        Args:
            what: what the tool does, for messages.
            seconds: the time it may take.
            sink: see `programs.run`.
            cwd: the folder to run it in.

        Raises:
            PushError: it failed, or took too long or said too much.
        """
        try:
            return programs.run(
                [self.tools[tool], *command],
                seconds=seconds,
                environment=self.environments[tool],
                folder=cwd,
                may_ask=True,
                sink=sink,
            )
        except programs.ProgramError as error:
            kind = PushError if error.status else Unanswered
            raise kind(f"{self.repository}: {what}: {self.explain(error.said)}") from None

    def answer(self, what: str, read: Callable[[Any], _Result], *command: str, **options: Any) -> _Result:
        """What oras answers as JSON.

        Args:
            what: what oras does, for messages.
            read: takes the answer apart.
            command, options: see `oras`.

        Raises:
            PushError: it failed, or the answer is of another form.
        """
        text = self.oras(what, *command, **options)
        try:
            return read(strict_json.parse(text))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise PushError(
                f"{self.repository}: {what}: expected JSON as oras writes it, found {error!r:.200}"
            ) from None

    @staticmethod
    def _again(send: Callable[[], _Result], passing: str) -> _Result:
        """Returns the result of `send`, which it retries after transient errors.

        Args:
            send: runs a tool.
            passing: a regular expression for the messages of transient errors.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return send()
            except Unanswered:
                raise
            except PushError as error:
                if attempt == _ATTEMPTS or not re.search(passing, str(error), re.IGNORECASE):
                    raise
                time.sleep(_PAUSE * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def explain(self, said: str) -> str:
        """Condenses a tool's messages into one line: the reason and what to do."""
        reasons = [
            line for line in said.splitlines() if line.startswith("Error") and not line.endswith("command execution:")
        ]
        reason = (reasons or said.strip().splitlines() or ["no reason given"])[0]
        reason = (
            reason.removeprefix("Error response from registry: ")
            .removeprefix("Error: ")
            .removeprefix("recognizable error message not found: ")
        )
        for pattern, meaning in _EXPLANATIONS:
            if re.search(pattern, said, re.IGNORECASE):
                if "credentials" in meaning:
                    meaning += f": {credentials.advice(self.repository, dict(os.environ))}"
                return f"{meaning} ({errors.one_line(reason, 300)})"
        return errors.one_line(reason, 300)

    def resolve(self, tag: str) -> str | None:
        """The digest of the manifest that a tag or a digest names, or None if the registry says that it has none."""
        what = f"looking up {'' if tag.startswith('sha256:') else 'the tag '}{tag}"

        def ask() -> str | None:
            try:
                return lookup.tagged_digest(self.repository, tag, self.plain, self.environments["oras"])
            except lookup.NoRegistry as error:
                raise PushError(f"{self.repository}: {what}: {error}") from None
            except lookup.LookupFailed as error:
                raise PushError(f"{self.repository}: {what}: {self.explain(str(error))}") from None

        return self._again(ask, r"status code (429|5\d\d)|connection broke")

    def check_access(self) -> None:
        """Checks that the registry lets these credentials push.

        Raises:
            PushError: it does not, or does not answer.
        """
        try:
            lookup.check_push(self.repository, self.plain, self.environments["oras"])
        except lookup.LookupFailed as error:
            raise PushError(f"{self.repository}: beginning an upload: {self.explain(str(error))}") from None

    def check_served(self, digest: str, tag: str) -> None:
        """Checks that the registry, or what answers for it, serves what it has accepted.

        Args:
            digest: of the manifest that was sent.
            tag: the tag that was set, or the digest again.

        Raises:
            PushError: it serves something else.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            found = self.resolve(tag)
            if found == digest:
                return
            if attempt < _ATTEMPTS:
                time.sleep(_PAUSE * 2 ** (attempt - 1))
        name = f"{self.repository}{'@' if tag == digest else ':'}{tag}"
        raise PushError(
            f"{name}: expected {digest}, which the registry accepted, found {found or 'nothing'}: look at what answers"
            f" for {self.host}, and whether another push sets the same tag"
        )

    def version(self, digest: str) -> str:
        """The version that an image or artifact in the registry is labelled with, or ""; of an index, its first
        image's.
        """
        what, name = f"reading {digest}", f"{self.repository}@{digest}"
        fetch = ("manifest", "fetch", name)
        first = self.answer(
            what, lambda found: _digest(found["manifests"][0]) if "manifests" in found else "", *fetch, words=2
        )
        if first:
            name = f"{self.repository}@{first}"
        labels = self.answer(what, oci_layout.artifact_labels, "manifest", "fetch", name, words=2)
        if labels is None:
            labels = self.answer(
                what,
                lambda config: (config.get("config") or {}).get("Labels") or {},
                *("manifest", "fetch-config", name),
                words=2,
            )
        return str(labels.get(_VERSION, ""))

    def push(self, image: Image, digest: str) -> None:
        """Pushes the image by digest, without the blobs that the registry already has."""
        sizes = image.blob_sizes()
        done = set()

        rest = b""

        def progress(chunk: bytes) -> None:
            nonlocal rest
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if match := re.match(r"(Copied|Exists|Skipped) +([0-9a-f]{12}) ", line.decode(errors="replace")):
                    done.add(match[2])
                    what = "sent" if match[1] == "Copied" else "already there"
                    say(f"  {len(done)}/{len(sizes)} {match[2]} {sizes.get(match[2], 0) / 1e6:8.1f} MB {what}")

        # Send one blob at a time, so that two rarely fail at once: see _PANIC.
        self._again(
            lambda: self.oras(
                f"sending {image.name}",
                *(
                    "cp",
                    "--no-tty",
                    "-v",
                    "--concurrency",
                    "1",
                    "--from-oci-layout",
                    f"{image.layout}@{digest}",
                    f"{self.repository}@{digest}",
                ),
                flag="--to-plain-http",
                seconds=programs.SECONDS_OF_TRANSFER,
                sink=progress,
            ),
            _HALF_WRITTEN,
        )

    def attach(self, documents: list[tuple[str, pathlib.Path]], digest: str) -> list[str]:
        """Attaches documents to a manifest as referrers (OCI distribution specification 1.1); returns their digests."""
        attached = {media_type: self._attach(digest, media_type, path, 1) for media_type, path in documents}
        # Registries without the referrers API keep the list in a tag's manifest, which concurrent pushes overwrite.
        for attempt in range(2, _ATTEMPTS + 2):
            known = self.answer(
                "listing what is attached",
                lambda listed: {entry["digest"] for entry in listed.get("manifests") or []},
                *("discover", "--format", "json", f"{self.repository}@{digest}"),
            )
            missing = [(media_type, path) for media_type, path in documents if attached[media_type] not in known]
            if not missing:
                return list(attached.values())
            for media_type, path in missing:
                attached[media_type] = self._attach(digest, media_type, path, attempt)
        raise PushError(
            f"{self.repository}: the registry does not list what was attached {_ATTEMPTS} times: run again when no"
            " other push is running"
        )

    def _attach(self, digest: str, media_type: str, path: pathlib.Path, attempt: int) -> str:
        # oras does not list a manifest that the registry already has. Naming the attempt makes it a new manifest.
        again = ["--annotation", f"attempt={attempt}"] if attempt > 1 else []
        return self._again(
            lambda: self.answer(
                f"attaching {path.name}",
                _digest,
                "attach",
                *("--format", "json", "--artifact-type", media_type, "--annotation", _CREATED, *again),
                *(f"{self.repository}@{digest}", f"{path.name}:{media_type}"),
                cwd=path.parent,
            ),
            _HALF_WRITTEN,
        )

    def sign(self, digests: list[str], key: signing.Key | None, annotations: dict[str, str]) -> None:
        """Signs manifests and what they are published as.

        Args:
            digests: of the manifests. With a key, one cosign signs all, because it takes longer to start than to sign,
              and adds nothing where the key signed the same before. Without one, each signature enters the public log
              for good: what is retried must be the one that failed.
            key: to sign with, if any.
            annotations: what `cosign verify -a NAME=VALUE` compares. Without them a signature is about the bytes alone,
              and an old image passes under any tag.
        """
        annotated = [word for name, value in annotations.items() for word in ("-a", f"{name}={value}")]
        # Signatures share a manifest, so the registry refuses one of two concurrent pushes; its wording varies.
        signed: list[tuple[list[str], list[str]]] = []
        if key:
            signed.append((["--tlog-upload=false", "--key", key.reference], digests))
        if self.keyless:
            # cosign asks Fulcio for a certificate and writes to Rekor, the public log.
            signed += [([], [digest]) for digest in digests]
        for way, group in signed:
            names = [f"{self.repository}@{digest}" for digest in group]
            words = ("sign", "--yes", *way, *annotated, *names)
            self._again(functools.partial(self.cosign, "signing", *words), "")

    def tag(self, digest: str, tag: str) -> None:
        self.oras(f"setting the tag {tag}", "tag", f"{self.repository}@{digest}", tag)


def _digest(answer: Any) -> str:
    digest = answer["digest"]
    if not re.fullmatch(reference.DIGEST, digest):
        raise ValueError(f"the digest {digest!r:.100}")
    return str(digest)


def say(line: str) -> None:
    """Prints progress to standard error; standard output is for the result."""
    print(line, file=sys.stderr, flush=True)


def check_repository(repository: str) -> str:
    """Returns the repository if it is HOST/NAME; `{image}` may stand for the image's name.

    Raises:
        PushError: it is not.
    """
    if not repository:
        raise PushError(
            'no repository: pass --repository HOST/NAME, or set "image_repository" in release/settings.json'
        )
    if not re.fullmatch(f"{reference.HOST}/{reference.NAME}", repository.replace("{image}", "image")):
        raise PushError(
            "--repository: expected HOST/NAME (host with a dot or a port, name in lower case, no tag, no digest),"
            f" found {repository!r}; tags are set with --tag"
        )
    return repository


def check_tags(tags: list[str], version: str, name: str, labels: dict[str, str]) -> list[str]:
    """The tags to set: the given ones, or the version of a release build.

    Args:
        tags: the given ones.
        version: this build's.
        name: of the image, for messages.
        labels: the image's, or those that it will have.

    Raises:
        PushError: one is malformed or looks like a version that this build is not, or none is given for a build that is
          not stamped.
    """
    for tag in tags:
        if not re.fullmatch(reference.TAG, tag):
            raise PushError(
                f"--tag: expected up to 128 letters, digits, '_', '.', '-', not starting with '.' or '-', found {tag!r}"
            )
    stamped = labels.get(_REVISION, UNSTAMPED) != UNSTAMPED
    if not tags and not stamped:
        raise PushError(
            f"no tag: pass --tag TAG; the version, {version}, is the default only in a release build (--config=release)"
        )
    tags = tags or [version.replace("+", "_")]
    allowed = version_tags.own(version) | version_tags.series(version)
    for tag in filter(version_tags.looks_like_version, tags):
        if tag not in allowed:
            raise PushError(
                f"--tag {tag}: looks like a version, and this build is version {version}: expected"
                f" {', '.join(sorted(allowed))}, or a tag that is no version; VERSION is in version.bzl"
            )
        if not stamped:
            raise PushError(
                f"--tag {tag}: looks like a version, and {name} is {UNSTAMPED}: build it of a commit, with"
                " --config=release, or push it under a tag that is no version"
            )
        if labels.get(_VERSION) != version:
            raise PushError(
                f"--tag {tag}: expected {name} to be labelled with version {version}, found"
                f" {labels.get(_VERSION, 'none')}"
            )
    return tags


def destinations(options: argparse.Namespace, open_files: contextlib.ExitStack) -> list[tuple[Image, Registry]]:
    """Decides which image goes to which repository. Contacts no registry.

    Args:
        options: see `parse`.
        open_files: deletes the files with the repositories' credentials.

    Raises:
        PushError: an argument is wrong.
        credentials.CredentialsError: a file with credentials is unusable.
    """
    settings = json.loads(options.settings.read_text())
    repository = check_repository(settings["image_repository"] if options.repository is None else options.repository)
    images = [Image(name, layout, options.documents) for name, layout in options.images.items()]
    if options.image:
        images = [image for image in images if image.name == options.image]
    elif "{image}" not in repository:
        images = images[:1]
    tools = {"oras": os.path.abspath(options.oras), "cosign": os.path.abspath(options.cosign)}
    decided = []
    for image in images:
        place = repository.replace("{image}", image.name)
        environment = open_files.enter_context(credentials.docker_config(place, dict(os.environ)))
        decided.append((image, Registry(place, tools, options.insecure, environment, options.keyless)))
    return decided


def plan(options: argparse.Namespace, open_files: contextlib.ExitStack) -> list[tuple[Image, str, Registry, list[str]]]:
    """Decides which image, with which digest and tags, goes to which repository. Sends nothing.

    Args:
        options, open_files: see `destinations`.

    Raises:
        PushError, credentials.CredentialsError: see `destinations`.
        stamp.Untested: an image is not what the tests passed on.
    """
    tested = json.loads(options.gate.read_text())
    planned = []
    for image, registry in destinations(options, open_files):
        digest = stamp.check(tested, image.layout, image.name)
        # Of an index, each image must be labelled with the version.
        for labels in image.labels():
            tags = check_tags(options.tag, options.version, image.name, labels)
        planned.append((image, digest, registry, tags))
    try:
        known = {each for name, layout in options.images.items() for each in oci_layout.named_digests(name, layout)}
    except oci_layout.LayoutError as error:
        raise PushError(str(error)) from None
    if unknown := sorted({of for of, _ in options.documents} - known):
        raise PushError(f"{unknown[0]}: has documents, and is none of the images {', '.join(sorted(known))}")
    return planned


def check(options: argparse.Namespace, open_files: contextlib.ExitStack) -> None:
    """Says what can be said before the tests have run: of the arguments, the key, and what the registry allows.

    Args:
        options, open_files: see `destinations`.

    Raises:
        PushError, credentials.CredentialsError: see `destinations`; or the registry does not let these push.
        signing.SigningError: there is no usable key.
    """
    labels = {_VERSION: options.version, _REVISION: "to come" if options.stamped else UNSTAMPED}
    decided = destinations(options, open_files)
    for image, _ in decided:
        check_tags(options.tag, options.version, image.name, labels)
    if options.dry_run:
        return
    signing.check(options, dict(os.environ))
    for _, registry in decided:
        registry.check_access()
    say("push: the arguments, the key and the registry's answer are good; the tests are next")


def check_version_tags(registry: Registry, digest: str, tags: list[str], version: str) -> None:
    """Checks that no version's tag would move, and no series' tag to an older version.

    Raises:
        PushError: the registry has such a tag for another image, or does not say whether it has.
    """
    for tag in filter(version_tags.looks_like_version, tags):
        there = registry.resolve(tag)
        if not there or there == digest:
            continue
        if tag not in version_tags.series(version):
            raise PushError(
                f"{registry.repository}:{tag}: a release's tag does not move: the registry has {there}, this build is"
                f" {digest}; raise VERSION in version.bzl, or pass another --tag"
            )
        found = registry.version(there)
        if not version_tags.is_newer(version, found):
            raise PushError(
                f"{registry.repository}:{tag}: moves to newer versions only: the registry has {found or 'no version'}"
                f" there ({there}), this build is {version}; leave out --tag {tag}"
            )


def push(options: argparse.Namespace, open_files: contextlib.ExitStack) -> None:
    """Pushes as planned.

    Args:
        options, open_files: see `plan`.

    Raises:
        PushError, credentials.CredentialsError, stamp.Untested, signing.SigningError: see `plan`; or there is no usable
          key, or the registry refuses. Then no tag is set.
    """
    planned = plan(options, open_files)
    if options.dry_run:
        for image, digest, registry, tags in planned:
            print(f"would push {image.name} {digest} to {registry.repository} as {', '.join(tags)}")
        return
    with signing.key(options, dict(os.environ)) as key:
        for _, digest, registry, tags in planned:
            check_version_tags(registry, digest, tags, options.version)
        for image, digest, registry, tags in planned:
            say(f"push: {image.name} {digest} to {registry.repository}")
            registry.push(image, digest)
            registry.check_served(digest, digest)
            attached: dict[str, list[str]] = {}
            for part, documents in image.parts():
                say(f"push: {part}: attaching {', '.join(path.name for _, path in documents) or 'nothing'}")
                attached[part] = registry.attach(documents, part) if documents else []
            if key or options.keyless:
                say(f"push: signing for {', '.join(tags)}: {', '.join(attached)}, and what is attached")
                place = {"repository": registry.repository}
                for tag in tags:
                    # A key that signs other builds too must not make them releases: those have the version only under
                    # a tag that is checked to be a version's.
                    released = version_tags.looks_like_version(tag)
                    version = options.version if released else _UNRELEASED
                    registry.sign(list(attached), key, place | {"tag": tag, "version": version})
                for part, attachments in attached.items():
                    if attachments:
                        registry.sign(attachments, key, place | {"image": part})
        for _, digest, registry, tags in planned:
            for tag in tags:
                # Again: another push may have set it since. What remains open is the moment between the two requests.
                check_version_tags(registry, digest, [tag], options.version)
                registry.tag(digest, tag)
                options.tagged.append(f"{registry.repository}:{tag}")
                registry.check_served(digest, tag)
    for _, digest, registry, tags in planned:
        print(f"{registry.repository}@{digest}")
        for tag in tags:
            print(f"{registry.repository}:{tag}")


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = arguments.Parser("//images:push", __doc__)
    # Without the gate's output it only checks, and the layouts are names.
    parser.add_argument("--gate", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--stamped", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--settings", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    for fixed in ("--oras", "--version"):
        parser.add_argument(fixed, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--layout", type=arguments.named_path, action="append", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--document", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument(
        "-r",
        "--repository",
        help="HOST/NAME; {image} in NAME stands for the image's name and pushes all images",
    )
    parser.add_argument(
        "-t",
        "--tag",
        action="append",
        default=[],
        help="tag to set; may be repeated (default of a release build: the version)",
    )
    parser.add_argument(
        "--image", help="the image to push (default: the first, or all if the repository contains {image})"
    )
    signing.add_arguments(parser)
    parser.add_argument(
        "--keyless",
        action="store_true",
        help="sign with the identity of this GitHub workflow too; that enters the public log of Sigstore",
    )
    parser.add_argument("--insecure", action="store_true", help="plain http; registries on this machine always get it")
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, say what would be pushed, send nothing"
    )
    options = parser.parse_args(words)
    options.images = dict(options.layout)
    # IMAGE=MEDIA_TYPE=PATH
    options.documents = {
        (image, kind): pathlib.Path(path).absolute()
        for image, kind, path in (entry.split("=", 2) for entry in options.document)
    }
    if options.image and options.image not in options.images:
        parser.error(f"--image: expected {' or '.join(options.images)}, found {options.image!r}")
    return options


def main() -> int:
    options = parse()
    programs.interrupt_on_signals()
    options.tagged = []
    try:
        with contextlib.ExitStack() as open_files:
            (push if options.gate else check)(options, open_files)
        return 0
    except (PushError, credentials.CredentialsError, signing.SigningError, stamp.Untested) as error:
        code, reason = 1, str(error)
    except KeyboardInterrupt:
        code, reason = 130, "interrupted; run the same command again to send only what the registry lacks"
    errors.tell("push", f"{reason}. Tags set: {', '.join(options.tagged) or 'none'}.")
    return code


if __name__ == "__main__":
    sys.exit(main())
