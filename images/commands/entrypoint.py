#!/usr/bin/python3 -IS
"""The images' entrypoint: a shell, or whatever command is given.

Images that only serve have no shell, build and pytest.

docker run --rm IMAGE                  # a shell in /workspace (add -it)
docker run --rm IMAGE smoke            # what works, and where it is loaded from
docker run --rm IMAGE pytest /tests    # the test suite
docker run --rm IMAGE build            # the wheels that this image was built from, to /src/mlc-llm/python/dist
docker run --rm IMAGE serve MODEL      # images with mlc-llm: an OpenAI-compatible server on port 8000
docker run --rm IMAGE python x.py      # any other command runs as given
"""

import os
import sys

_HELP = """usage: IMAGE [COMMAND [ARGUMENT ...]]

  (no command)     a shell in /workspace; run the container with a terminal (-it)
  smoke            report what works: versions, loaded libraries, devices, a compiled function against NumPy
  build            write the wheels this image was built from to /src/mlc-llm/python/dist (build --help)
  pytest /tests    run the test suite
  serve MODEL      in images with mlc-llm: serve a model on port 8000 through OpenAI's API (serve --help)
  COMMAND          any other command runs as given
  --help           this text

Mount models and projects at /workspace, a checkout of mlc-llm at /src/mlc-llm.
The container runs as the user mlc (1000:1000); nothing in it needs root.
"""


def main() -> int:
    command = sys.argv[1:] or ["bash"]
    if command[0] in ("--help", "-h"):
        sys.stdout.write(_HELP)
        return 0
    try:
        # The command replaces this process: tini passes it the signals, and its exit code is the container's.
        os.execvp(command[0], command)
    except FileNotFoundError:
        if not sys.argv[1:]:
            sys.stderr.write("entrypoint: this image has no shell; give a command\n\n" + _HELP)
            return 2
        problem, code = "no such command", 127
    except OSError as error:
        problem, code = error.strerror or str(error), 126
    print(f"entrypoint: {command[0]}: {problem}; --help lists the commands", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
