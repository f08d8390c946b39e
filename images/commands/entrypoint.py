#!/usr/bin/python3 -IS
"""The images' entrypoint: a shell, or whatever command is given.

docker run --rm IMAGE                  # a shell in /workspace (add -it)
docker run --rm IMAGE smoke            # what works, and where it is loaded from
docker run --rm IMAGE pytest /tests    # the test suite
docker run --rm IMAGE build            # the wheels that this image was built from, to /src/mlc-llm/python/dist
docker run --rm IMAGE serve MODEL      # images with mlc-llm: an OpenAI-compatible server on port 8000
docker run --rm IMAGE python x.py      # any other command runs as given
"""

import os
import sys

# Program → its line. Images that only serve have no shell, build or pytest, those without mlc-llm no serve.
_COMMANDS = {
    "bash": "(no command)     a shell in /workspace; run the container with a terminal (-it)",
    "smoke": "smoke            report what works: versions, libraries, devices, an answer or a compiled function",
    "build": "build            write the wheels this image was built from to /src/mlc-llm/python/dist (build --help)",
    "pytest": "pytest /tests    run the test suite",
    "serve": "serve MODEL      serve a model on port 8000 through OpenAI's API (serve --help)",
}


def _help() -> str:
    """Describes the commands that this image has."""
    import shutil  # Not at the top: it takes longer than the rest, and every container starts here.

    found = [line for program, line in _COMMANDS.items() if shutil.which(program)]
    lines = [*found, "COMMAND          any other command runs as given", "--help           this text"]
    mount = "Mount models and projects at /workspace"
    if shutil.which("build"):
        mount += ", a checkout of mlc-llm at /src/mlc-llm"
    return (
        "usage: IMAGE [COMMAND [ARGUMENT ...]]\n\n"
        + "".join(f"  {line}\n" for line in lines)
        + f"\n{mount}.\nThe container runs as the user mlc (1000:1000); nothing in it needs root.\n"
    )


def main() -> int:
    command = sys.argv[1:] or ["bash"]
    if command[0] in ("--help", "-h"):
        sys.stdout.write(_help())
        return 0
    try:
        # The command replaces this process: tini passes it the signals, and its exit code is the container's.
        os.execvp(command[0], command)
    except FileNotFoundError:
        if not sys.argv[1:]:
            sys.stderr.write("entrypoint: this image has no shell; give a command\n\n" + _help())
            return 2
        problem, code = "no such command", 127
    except OSError as error:
        problem, code = error.strerror or str(error), 126
    print(f"entrypoint: {command[0]}: {problem}; --help lists the commands", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
