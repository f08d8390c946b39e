"""The tables in docs/users/openai.md are true: the server accepts or refuses each row, and no field is missing."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from server import PATIENCE, Server, check
from server import server as server

PAGE = Path(os.environ["MLC_OPENAI_PAGE"]).read_text(encoding="utf-8")

PATHS: dict[str, tuple[str, dict[str, Any]]] = {
    "Chat completions": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
    "Completions": ("/v1/completions", {"prompt": "hello"}),
}


def rows(title: str) -> list[list[str]]:
    """The cells of the rows below a heading."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]


def fields(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


CASES = [(title, *cells) for title in PATHS for cells in rows(title)]


@pytest.mark.parametrize(("title", "names", "supported", "example"), CASES, ids=lambda value: str(value)[:40])
def test_a_row_is_true(server: Server, title: str, names: str, supported: str, example: str) -> None:
    path, request = PATHS[title]
    request = {"model": "x", "max_tokens": 30, "temperature": 0, **request, **json.loads(example.strip("`"))}
    if "max_completion_tokens" in request:
        del request["max_tokens"]
    with httpx.Client(timeout=PATIENCE) as client:
        response = client.post(server.url + path, json=request)
    check(response)
    if supported.startswith("no"):
        assert response.status_code == 400 and response.json()["error"]["param"] in fields(names)
    else:
        assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("title", "kinds"),
    [
        (
            "Chat completions",
            (chat_create_params.CompletionCreateParamsBase, chat_create_params.CompletionCreateParamsStreaming),
        ),
        (
            "Completions",
            (
                completion_create_params.CompletionCreateParamsBase,
                completion_create_params.CompletionCreateParamsStreaming,
            ),
        ),
        ("Embeddings", (embedding_create_params.EmbeddingCreateParams,)),
    ],
)
def test_no_field_of_openais_is_missing(title: str, kinds: tuple[Any, ...]) -> None:
    published = {name for kind in kinds for name in kind.__annotations__}
    assert {name for cells in rows(title) for name in fields(cells[0])} == published


def test_only_what_can_do_nothing_is_accepted_with_some_values(server: Server) -> None:
    """The rows that say "only"."""
    only = [cells for cells in rows("Chat completions") if cells[1].startswith("only")]
    assert len(only) == 5
    for names, _, _ in only:
        (name,) = fields(names)
        request = {"messages": [{"role": "user", "content": "x"}], name: ["other"]}
        response = httpx.post(server.url + "/v1/chat/completions", json=request, timeout=PATIENCE)
        check(response)
        assert response.status_code == 400 and response.json()["error"]["param"] == name
