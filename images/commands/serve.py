#!/usr/bin/python3
"""Serves a model with mlc-llm through OpenAI's HTTP API, on port 8000 unless --port says otherwise.

    docker run --rm -p 8000:8000 -v "$HOME/models":/workspace IMAGE serve /workspace/MODEL
    docker run --rm -p 8000:8000 -v mlc:/tmp/mlc_llm IMAGE serve HF://ORGANISATION/MODEL@REVISION
    curl http://localhost:8000/health
    curl http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\
        -d '{"messages": [{"role": "user", "content": "Hello"}]}'

MODEL is a folder with mlc-chat-config.json, or one with a single such folder in it or in its folder models, as where an
image that holds only a model is mounted. The compiled library is the one that --model-lib names, otherwise MODEL.so
next to the folder, otherwise the only *.so in it.

HF://ORGANISATION/MODEL is a model on Hugging Face's hub, converted for mlc-llm; @REVISION pins a commit or tag. It is
downloaded into $MLC_LLM_HOME, which a volume keeps. Its library is the one that --model-lib names, otherwise
/models/MODEL.so, otherwise it is compiled for this machine and kept there too. HF_ENDPOINT names a mirror, HF_TOKEN
opens private and gated models.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import shutil
import socket
import sys
import tempfile


class ModelError(Exception):
    """There is nothing to serve; one line says what was expected, what was found, and what to do."""


CONFIG = "mlc-chat-config.json"

MODELS = pathlib.Path("/models")
"""Where images with a model have it and its library."""

HUB = ("HF://", "https://huggingface.co/")

FLAGS = ("--allow-credentials", "--enable-debug", "--enable-microserving", "--enable-tracing", "--protect-metrics")
"""The options of mlc_llm serve that take no value."""

LISTS = ("--additional-models",)
"""Those that take every word up to the next option. All others take one."""


def take_model(words: list[str]) -> str | None:
    """Removes MODEL from the words of a command line of mlc_llm serve and returns it, or None without one."""
    position = 0
    while position < len(words):
        word = words[position]
        if not word.startswith("-"):
            return words.pop(position)
        if word == "--" and position + 1 < len(words):
            del words[position]
            return words.pop(position)
        position += 1
        if word in LISTS:
            while position < len(words) and not words[position].startswith("-"):
                position += 1
        # mlc_llm takes the beginning of a name too.
        elif "=" not in word and not any(flag.startswith(word) for flag in FLAGS):
            position += 1
    return None


def hub_library(address: str) -> pathlib.Path | None:
    """Returns the library that the image has for a model on the hub, or None: then mlc-llm compiles the model."""
    name = address.partition("@")[0].rstrip("/").rpartition("/")[2]
    library = MODELS / f"{name}.so"
    return library if library.is_file() else None


def has_compiler() -> bool:
    """Whether TVM's compiler is here. Images that only serve have its runtime alone."""
    tvm = importlib.util.find_spec("tvm")
    return tvm is None or pathlib.Path(str(tvm.origin)).with_name("lib").joinpath("libtvm_compiler.so").exists()


def model_folder(place: pathlib.Path) -> pathlib.Path:
    """The folder of a model: `place`, or the only one below it, as in a mounted image.

    A volume that is an image has models/NAME; with the sub-path "models", as KServe mounts it, it has NAME.

    Raises:
        ModelError: there is none, or several.
    """
    if (place / CONFIG).is_file():
        return place
    found = sorted({path.parent for pattern in (f"*/{CONFIG}", f"models/*/{CONFIG}") for path in place.glob(pattern)})
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(path.relative_to(place)) for path in found)
        raise ModelError(f"{place}: expected one model, found {names}: serve one of these folders")
    raise ModelError(
        f"{place}: expected a folder with {CONFIG}, found none: make one with mlc_llm gen_config and convert_weight"
    )


def loadable(library: pathlib.Path) -> pathlib.Path:
    """A library from a place that Linux loads code from: itself, or a copy.

    Kubernetes mounts images without the right to execute, and then no process can map a library.

    Raises:
        ModelError: there is no such place.
    """
    # mlc_llm says what is wrong with a file that is missing.
    if not library.exists() or not os.statvfs(library).f_flag & os.ST_NOEXEC:
        return library
    try:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="serve-"))
        copy = folder / library.name
        if os.statvfs(folder).f_flag & os.ST_NOEXEC:
            folder.rmdir()
            raise ModelError(f"{library}: on a file system mounted noexec, and so is {folder.parent}: set TMPDIR")
        shutil.copyfile(library, copy)
    except OSError as error:
        raise ModelError(
            f"{library}: on a file system mounted noexec, and it cannot be copied to {tempfile.gettempdir()}"
            f" ({error.strerror or error}): mount an emptyDir there, or set TMPDIR"
        ) from None
    print(f"serve: {library} is on a file system mounted noexec: loading the copy {copy}", file=sys.stderr)
    return copy


def model_library(model: pathlib.Path) -> pathlib.Path:
    """The compiled library of a model folder.

    Raises:
        ModelError: it has no library or several.
    """
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
        usage="serve [OPTION ...] MODEL [OPTION ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="All other options are those of mlc_llm serve: mlc_llm serve --help",
        allow_abbrev=False,
    )
    parser.add_argument("--model-lib", type=pathlib.Path, help="the compiled library")
    parser.add_argument(
        "--host", help="address to listen on (default: $MLC_LLM_HOST, or all of the container's, IPv4 and IPv6)"
    )
    options, rest = parser.parse_known_args()
    model = take_model(rest)
    if model is None:
        parser.error("expected MODEL: the model's folder, or its address HF://ORGANISATION/MODEL")
    try:
        if model.startswith(HUB):
            library = options.model_lib or hub_library(model)
            if not library and not has_compiler():
                # Before it is downloaded.
                raise ModelError(
                    f"{model}: expected its compiled library, because this image only serves, found none: name it with"
                    " --model-lib, or let the image mlc_llm compile it"
                )
        else:
            folder = model_folder(pathlib.Path(model).absolute())
            model, library = str(folder), options.model_lib or model_library(folder)
        if library:
            library = loadable(library)
    except ModelError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    host = options.host or os.environ.get("MLC_LLM_HOST") or all_addresses()
    named = ["--model-lib", str(library)] if library else []
    # mlc_llm takes the beginning of a name too.
    others = [word for word in rest if len(word) > 2 and any(each.startswith(word.partition("=")[0]) for each in LISTS)]
    if library and not others:
        # Nothing is left to compile: do not load TVM's compiler, which takes longer than a small model.
        os.environ.setdefault("TVM_USE_RUNTIME_LIB", "1")
    command = ["mlc_llm", "serve", model, *named, "--host", host, *rest]
    # The server replaces this process, so it gets the signals.
    os.execvp(command[0], command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
