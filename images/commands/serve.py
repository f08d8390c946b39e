#!/usr/bin/python3
"""Serves a model with mlc-llm through OpenAI's HTTP API, on port 8000 unless --port says otherwise.

    docker run --rm -p 8000:8000 -v "$HOME/models":/workspace IMAGE serve /workspace/MODEL
    curl http://localhost:8000/health
    curl http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\
        -d '{"messages": [{"role": "user", "content": "Hello"}]}'

MODEL is a folder with mlc-chat-config.json. The compiled library is the one that --model-lib names, otherwise MODEL.so
next to the folder, otherwise the only *.so in it.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import socket
import sys


class ModelError(Exception):
    """There is nothing to serve; one line says what was expected, what was found, and what to do."""


def model_library(model: pathlib.Path) -> pathlib.Path:
    """The compiled library of a model folder.

    Raises:
        ModelError: the folder is not a model's, or it has no library or several.
    """
    if not (model / "mlc-chat-config.json").is_file():
        raise ModelError(
            f"{model}: expected a folder with mlc-chat-config.json, found none: make one with mlc_llm gen_config and"
            " convert_weight"
        )
    beside = model.parent / f"{model.name}.so"
    if beside.is_file():
        return beside
    within = sorted(model.glob("*.so"))
    if len(within) != 1:
        found = ", ".join(path.name for path in within) or "none"
        raise ModelError(
            f"{model}: expected the compiled library {beside}, or one *.so in the folder, found {found}: name it with"
            f" --model-lib, or make it with mlc_llm compile {model} --output {beside} in the image mlc_llm_dev, which"
            " has a linker"
        )
    return within[0]


def all_addresses() -> str:
    """The host that makes the server listen on all addresses: "" for IPv4 and IPv6, or IPv4's where IPv6 is off."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
    except OSError:
        return "0.0.0.0"  # noqa: S104
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="All other options are those of mlc_llm serve: mlc_llm serve --help",
        allow_abbrev=False,
    )
    parser.add_argument("model", type=pathlib.Path, metavar="MODEL", help="the model's folder")
    parser.add_argument("--model-lib", type=pathlib.Path, help="the compiled library")
    parser.add_argument("--host", help="address to listen on (default: all of the container's, IPv4 and IPv6)")
    options, rest = parser.parse_known_args()
    try:
        model = options.model.absolute()
        library = options.model_lib or model_library(model)
    except ModelError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    host = options.host or all_addresses()
    command = ["mlc_llm", "serve", str(model), "--model-lib", str(library), "--host", host, *rest]
    # The server replaces this process, so it gets the signals.
    os.execvp(command[0], command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
