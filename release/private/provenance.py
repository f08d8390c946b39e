"""Writes the provenance of wheels and images: an unsigned in-toto statement (v1) with SLSA provenance (v1).

    python3 -m release.private.provenance --locks FILE... --version VERSION --status stable-status.txt \\
        --wheel FILE... --image NAME=LAYOUT... --output provenance.json

One statement covers all wheels and images that it is given, of an index also each of its images: run it for the whole
release, or for one layout. A statement
proves nothing by itself: it is only as good as its signature. It names what the workspace status could show
(release/builder.py): the workflow that GitHub's token names, and the Bazel server that ran; else "unverified".
"""

from __future__ import annotations

import argparse
import json
import operator
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from fetch import locks as inputs
from fetch.arguments import named_path
from fetch.locks import Input
from oci import layout as oci_layout
from oci import status
from oci.status import UNSTAMPED
from release.private import stamp

# in-toto attestation framework, spec/v1/statement.md; SLSA 1.0, provenance.
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"

# Must tell a reader how to repeat the build. An address of this repository would be wrong in a fork or a mirror, so
# this is Bazel's page about the command: externalParameters are arguments of `bazel build` (targets, options) and the
# release that version.bzl names (version).
BUILD_TYPE = "https://bazel.build/reference/command-line-reference#build"

# What is built for a release, unless --target says otherwise.
TARGETS = ("//images/...", "//wheels/...")


class ProvenanceError(Exception):
    """The facts do not make a statement; the message is one line that says what is missing."""


def statement(
    subjects: Mapping[str, str],
    locked: Iterable[Input],
    *,
    targets: Iterable[str],
    options: Iterable[str],
    version: str,
    bazel: str,
    bazel_packages: Iterable[Input] | None,
    revision: str,
    builder: str,
    uri: Callable[[Input], str] = operator.attrgetter("purl"),
) -> dict[str, Any]:
    """The statement (in-toto Statement v1, SLSA Provenance v1).

    Args:
        subjects: a wheel's file name, or the name of a layout or of an image in it → "sha256:" and 64 hex digits.
        locked: all external inputs of the build.
        targets: the targets that were built.
        options: the options that, besides the repository's content, decided what was built.
        version: the release's version, without "v".
        bazel: version and digest of the Bazel server that built, as release/builder.py has it, or `UNSTAMPED`.
        bazel_packages: the packages that locks/bazel.lock.json pins if that server was installed from them, else None.
        revision: the commit, or `UNSTAMPED`.
        builder: URI, or `UNSTAMPED`.
        uri: an input's package URL.

    Raises:
        ProvenanceError: there are no subjects.
    """
    if not subjects:
        raise ProvenanceError("expected at least one wheel or image, found none: pass them with --wheel and --image")
    # If the lock accepts any of several files, each is a dependency.
    dependencies = [
        {"name": f"{prefix}{each.ecosystem} {each.key}", "uri": uri(each), "digest": {"sha256": sha256}}
        for prefix, listed in (("", locked), ("bazel: ", bazel_packages or ()))
        for each in listed
        for sha256 in each.sha256
    ]
    if revision != UNSTAMPED:
        dependencies.insert(0, {"name": "this repository", "digest": {"gitCommit": revision}})
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}
            for name, digest in sorted(subjects.items())
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"options": sorted(options), "targets": sorted(targets), "version": version},
                "internalParameters": {
                    "bazel": bazel,
                    "bazel_locked": bazel_packages is not None,
                    "revision": revision,
                },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {"builder": {"id": builder}},
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    inputs.add_locks_argument(parser)
    parser.add_argument("--version", required=True, help="the release's version, without v")
    parser.add_argument(
        "--target", action="append", help=f"a target that is built; repeated (default: {' '.join(TARGETS)})"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        help="an option of the build, for example --config=cuda; repeated",
    )
    parser.add_argument("--status", type=Path, help="Bazel's stable-status.txt, for a stamped build")
    parser.add_argument("--wheel", type=Path, action="append", default=[], help="a wheel of the build; repeated")
    parser.add_argument(
        "--image", type=named_path, action="append", default=[], metavar="NAME=LAYOUT", help="an OCI layout; repeated"
    )
    parser.add_argument("--output", type=Path, required=True, help="the statement to write, JSON")
    arguments = parser.parse_args()
    try:
        locks = inputs.by_name(arguments.locks)
        locked = inputs.load(locks)
        revision = status.value(arguments.status, status.REVISION)
        builder = status.value(arguments.status, status.BUILDER)
        is_locked = status.value(arguments.status, status.BAZEL_LOCKED) == "yes"
        subjects = {path.name: stamp.sha256(path) for path in map(stamp.artifact_file, arguments.wheel)}
        for name, layout in arguments.image:
            stamp.image_digest(layout)
            subjects |= oci_layout.named_digests(name, layout)
        content = statement(
            subjects,
            locked,
            targets=arguments.target or TARGETS,
            options=arguments.option,
            version=arguments.version,
            bazel=status.value(arguments.status, status.BAZEL),
            bazel_packages=inputs.bazel(inputs.path(locks, inputs.BAZEL_LOCK))[1] if is_locked else None,
            revision=revision,
            builder=builder,
        )
    except (inputs.InputsError, ProvenanceError, stamp.Untested, status.StatusError, OSError) as error:
        print(f"provenance: {error}", file=sys.stderr)
        return 1
    arguments.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
