"""A server in a container that has no network: it is asked from the inside."""

from __future__ import annotations

import json
from typing import Any

CLIENT = """\
import json, pathlib, signal, subprocess, sys, time, urllib.request

server = subprocess.Popen(sys.argv[2:])

def ask(path, body=None):
    data = body and json.dumps(body).encode()
    request = urllib.request.Request("http://127.0.0.1:8000" + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)

while server.poll() is None:
    try:
        health = ask("/health")  # 503 while the model loads.
        break
    except OSError:
        time.sleep(0.1)
else:
    sys.exit(f"the server ended with {server.returncode} before it answered")
question = {"messages": [{"role": "user", "content": sys.argv[1]}], "temperature": 0, "max_tokens": 8}
answer = ask("/v1/chat/completions", question)
compiler = False
for maps in pathlib.Path("/proc").glob("[0-9]*/maps"):
    try:
        compiler |= b"libtvm_compiler" in maps.read_bytes()
    except OSError:  # It has ended.
        pass
server.send_signal(signal.SIGTERM)
print(json.dumps({"health": health, "answer": answer, "compiler": compiler, "status": server.wait()}))
"""
"""Program for `python -c CLIENT QUESTION SERVER...`: starts the server, asks it, and ends it as `docker stop` does."""


def answers(output: str) -> dict[str, Any]:
    """What CLIENT printed among the server's lines.

    Returns:
        `health`, `answer`, whether a `compiler` was loaded, and the server's exit `status`.
    """
    return json.loads(output[output.index('{"health"') :].splitlines()[0])
