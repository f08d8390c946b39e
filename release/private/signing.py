"""Signs with cosign and your own key, which is read once and checked before anything is sent.

The key is a file or the content of $COSIGN_PRIVATE_KEY, never a secret on a command line. Its password is
$COSIGN_PASSWORD; otherwise cosign asks for it. Nothing goes to a transparency log, so that a build can be published
inside a closed network.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator

from fetch import arguments, errors, programs
from release.private import tool_environment

_HOW_TO_MAKE = "make one: tools/bazel run @debian_publish_tools//:usr/bin/cosign -- generate-key-pair"


class SigningError(Exception):
    """There is no key, or it cannot be used; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Key:
    """A private key.

    Args:
        cosign: path of the program.
        reference: the key in cosign's form: a path, or env://NAME.
        public_key: a file with its public half.
        environment: cosign's environment.
    """

    cosign: str
    reference: str
    public_key: pathlib.Path
    environment: dict[str, str]

    def sign_file(self, file: pathlib.Path) -> bytes:
        """A signature of a file's content: base64 of ECDSA over its sha256, as `cosign verify-blob --signature` expects
        it.

        Raises:
            SigningError: cosign fails.
        """
        return _run(
            self.cosign,
            self.environment,
            "sign-blob",
            "--yes",
            "--tlog-upload=false",
            "--key",
            self.reference,
            str(file),
        ).encode()

    def has_signed(self, file: pathlib.Path, signature: bytes) -> bool:
        """Whether this key made the signature, of this file's content."""
        with tempfile.NamedTemporaryFile() as scratch:
            scratch.write(signature)
            scratch.flush()
            flags = ["--key", str(self.public_key), "--insecure-ignore-tlog=true", "--signature", scratch.name]
            try:
                _run(self.cosign, self.environment, "verify-blob", *flags, str(file))
            except SigningError:
                return False
        return True


def _run(cosign: str, environment: dict[str, str], *command: str) -> str:
    try:
        # Only a person at a terminal can be asked for the password.
        return programs.run([cosign, *command], environment=environment, may_ask=True)
    except programs.ProgramError as error:
        reason = next((line for line in error.said.splitlines() if line.startswith("Error: ")), str(error))
        raise SigningError(
            "signing key: expected a cosign private key, and its password in COSIGN_PASSWORD; cosign says:"
            f" {errors.one_line(reason.removeprefix('Error: '), 1000)}; to {_HOW_TO_MAKE}"
        ) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options --key, --unsigned and, from the BUILD file, --cosign."""
    parser.add_argument("--cosign", required=True, help=argparse.SUPPRESS)
    parser.add_argument(
        "--key",
        type=arguments.user_path,
        help="file with the cosign private key (default: the content of $COSIGN_PRIVATE_KEY)",
    )
    parser.add_argument("--unsigned", action="store_true", help="publish without signatures")


def _reference(options: argparse.Namespace, environment: dict[str, str]) -> str:
    """The key in cosign's form."""
    if options.key:
        if not options.key.is_file():
            raise SigningError(
                f"--key: expected a file with a cosign private key, found none at {options.key}; {_HOW_TO_MAKE}"
            )
        return str(options.key.absolute())
    if environment.get("COSIGN_PRIVATE_KEY"):
        return "env://COSIGN_PRIVATE_KEY"
    raise SigningError(
        f"no signing key: pass --key FILE or set COSIGN_PRIVATE_KEY ({_HOW_TO_MAKE}); --unsigned skips signing"
    )


def check(options: argparse.Namespace, environment: dict[str, str]) -> None:
    """Checks the key before it is needed, without asking for its password.

    Raises:
        SigningError: there is no key, or its password is known and wrong.
    """
    if options.unsigned:
        if options.key:
            raise SigningError("expected either --key or --unsigned, found both")
        return
    if "COSIGN_PASSWORD" not in environment and sys.stdin and sys.stdin.isatty():
        _reference(options, environment)
        return
    with key(options, environment):
        pass


@contextlib.contextmanager
def key(options: argparse.Namespace, environment: dict[str, str]) -> Iterator[Key | None]:
    """The key that the options and the environment name, or None for --unsigned.

    Args:
        options: with what `add_arguments` adds.
        environment: what cosign's variables are taken from.

    Raises:
        SigningError: there is none, or it cannot be read.
    """
    if options.unsigned:
        print("not signed (--unsigned): nobody can verify that this comes from you", file=sys.stderr)
        yield None
        return
    reference = _reference(options, environment)
    cosign = os.path.abspath(options.cosign)
    environment = tool_environment.only(environment, *tool_environment.SIGNING_KEY)
    with tempfile.TemporaryDirectory() as scratch:
        public_key = pathlib.Path(scratch, "cosign.pub")
        public_key.write_text(_run(cosign, environment, "public-key", "--key", reference))
        yield Key(cosign, reference, public_key, environment)
