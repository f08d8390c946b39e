"""An image that a model was added to serves it when started without a command, from a container."""

from __future__ import annotations

import json
import signal

from tests.images.containers import Container

# Runs in the container: starts what the image starts, asks it, ends it as `docker stop` does.
CLIENT = """\
import json, signal, subprocess, sys, time, urllib.request

server = subprocess.Popen(sys.argv[1:])

def ask(path, body=None):
    data = body and json.dumps(body).encode()
    request = urllib.request.Request("http://127.0.0.1:8000" + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)

while server.poll() is None:
    try:
        health = ask("/health")
        break
    except OSError:
        time.sleep(0.1)
else:
    sys.exit(f"the server ended with {server.returncode} before it answered")
question = {"messages": [{"role": "user", "content": "hello"}], "temperature": 0, "max_tokens": 4}
answer = ask("/v1/chat/completions", question)
server.send_signal(signal.SIGTERM)
print(json.dumps({"health": health, "answer": answer, "status": server.wait()}))
"""


def test_it_serves_its_model_when_started_without_a_command(container: Container) -> None:
    command = container.image_config["Cmd"]
    assert command == ["serve", "/models/tiny"]
    output = container.said("python", "-c", CLIENT, *container.entrypoint, *command)
    said = json.loads(output[output.index('{"health"') :].splitlines()[0])
    assert said["health"] == {"status": "ok", "models": ["/models/tiny"]}
    assert said["answer"]["usage"]["completion_tokens"] == 4
    # uvicorn ends in order, then by the signal that it was sent.
    assert said["status"] == -signal.SIGTERM, output
    assert "Finished server process" in output


def test_a_folder_without_a_model_is_named(container: Container) -> None:
    message = container.said("serve", "/workspace", code=1)
    assert message.splitlines()[-1][:67] == "serve: /workspace: expected a folder with mlc-chat-config.json, fou"
