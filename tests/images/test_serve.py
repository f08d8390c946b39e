"""An image that a model was added to serves it when started without a command, from a container."""

from __future__ import annotations

import json

from tests.images.containers import Container
from tests.images.served import CLIENT, answers

# Runs first: a hub on loopback that has the image's model under another name, so that the image has no library for it.
HUB = """\
import http.server, os, threading

class Handler(http.server.SimpleHTTPRequestHandler):
    def translate_path(self, path):
        place, _, name = path.rpartition("/")
        return "/models/tiny/" + name if place.startswith("/owner/small/resolve/") else "/nonexistent"

hub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=hub.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{hub.server_address[1]}"
"""

# Prints the options of mlc_llm serve that take no value, those that take a list, and the command's tables of them.
OPTIONS = """\
import argparse, json, runpy
from mlc_llm.cli import serve

def parse_args(parser, *_):
    listed = {0: [], "*": []}
    for action in parser._actions[1:]:
        listed.setdefault(action.nargs, []).extend(action.option_strings)
    command = runpy.run_path(PLACE)
    print(json.dumps([listed[0], listed["*"], *map(list, (command["FLAGS"], command["LISTS"]))]))
    raise SystemExit

argparse.ArgumentParser.parse_args = parse_args
serve.main([])
"""


def test_it_serves_its_model_when_started_without_a_command(container: Container) -> None:
    command = container.image_config["Cmd"]
    assert command == ["serve", "/models/tiny"]
    output = container.said("python", "-c", CLIENT, "hello", *container.entrypoint, *command)
    said = answers(output)
    assert said["health"] == {"status": "ok", "models": ["/models/tiny"]}
    assert not said["compiler"]
    assert said["answer"]["usage"]["completion_tokens"] == 8
    assert said["status"] == 0, output
    assert "Finished server process" in output


def test_it_compiles_a_model_of_a_hub_and_serves_it(container: Container) -> None:
    command = ("serve", "HF://owner/small", "--device", "cpu")
    output = container.said("python", "-c", HUB + CLIENT, "hello", *container.entrypoint, *command)
    said = answers(output)
    assert said["health"]["status"] == "ok" and "owner/small" in said["health"]["models"][0]
    assert said["compiler"]
    assert said["answer"]["usage"]["completion_tokens"] == 8
    assert said["status"] == 0, output


def test_it_knows_which_options_of_mlc_llm_take_a_value(container: Container) -> None:
    output = container.said("python", "-c", OPTIONS.replace("PLACE", repr("/usr/local/bin/serve")))
    flags, lists, known_flags, known_lists = json.loads(output.splitlines()[-1])
    assert (sorted(flags), sorted(lists)) == (sorted(known_flags), sorted(known_lists))


def test_a_folder_without_a_model_is_named(container: Container) -> None:
    message = container.said("serve", "/workspace", code=1)
    assert message.splitlines()[-1][:67] == "serve: /workspace: expected a folder with mlc-chat-config.json, fou"
