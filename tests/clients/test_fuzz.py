"""Schemathesis sends requests made from OpenAI's own types, right and wrong ones, and the server survives them.

    tools/bazel test //tests/clients:fuzz --test_env=FUZZ_SECONDS=60 --test_env=FUZZ_SEED=2
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydantic
from openai.types import Completion, CreateEmbeddingResponse, completion_create_params, embedding_create_params
from openai.types.chat import ChatCompletion
from openai.types.chat import completion_create_params as chat_create_params
from server import PATIENCE, Server
from server import server as server

SECONDS = int(os.environ.get("FUZZ_SECONDS", "15"))
SEED = os.environ.get("FUZZ_SEED", "1")

PLACE = "#/components/schemas/"

ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string", "pattern": r"^[^\n]+$"},
                "type": {"enum": ["invalid_request_error"]},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
            "additionalProperties": False,
        }
    },
    "required": ["error"],
    "additionalProperties": False,
}


def document() -> dict[str, Any]:
    """An OpenAPI document of the server's endpoints."""
    schemas: dict[str, Any] = {}

    def schema(kind: Any, prefix: str) -> dict[str, Any]:
        made = pydantic.TypeAdapter(kind).json_schema(ref_template=f"{PLACE}{prefix}{{model}}")
        schemas.update({prefix + name: each for name, each in made.pop("$defs", {}).items()})
        return made

    paths: dict[str, Any] = {}
    for path, request, answer in (
        ("/chat/completions", chat_create_params.CompletionCreateParamsNonStreaming, ChatCompletion),
        ("/completions", completion_create_params.CompletionCreateParamsNonStreaming, Completion),
        ("/embeddings", embedding_create_params.EmbeddingCreateParams, CreateEmbeddingResponse),
    ):
        body = schema(request, path.replace("/", "_"))
        # Most of OpenAI's fields are not supported, and a request with one says nothing about the others.
        for name in ("audio", "functions", "function_call", "moderation", "prediction", "web_search_options", "suffix"):
            body["properties"].pop(name, None)
        if path != "/embeddings":
            # Not for as many tokens as fit.
            body["properties"]["max_tokens"] = {"type": "integer", "minimum": 1, "maximum": 4}
            body["required"].append("max_tokens")
            body["properties"].pop("max_completion_tokens", None)
        paths[path] = {
            "post": {
                "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
                "responses": {
                    "200": {
                        "description": "",
                        "content": {"application/json": {"schema": schema(answer, path.replace("/", "_"))}},
                    },
                    **{
                        status: {"description": "", "content": {"application/json": {"schema": ERROR}}}
                        for status in ("400", "405", "413", "415")
                    },
                },
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "OpenAI", "version": "1"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def test_no_request_ends_in_a_failure_or_a_hang(server: Server, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(document()))
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    result = subprocess.run(
        [
            *(sys.executable, "-P", "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("run", "openapi.json", f"--url={server.url}/v1", f"--seed={SEED}", f"--max-time={SECONDS}"),
            *(f"--checks={checks}", "--request-timeout=120", "--no-color", "--generation-database=none"),
            *("--max-examples=100000", "--no-shrink", "--phases=coverage,fuzzing", "--warnings=off"),
        ],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE + SECONDS,
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-4000:]
    assert "Test cases:" in result.stdout, result.stdout
    assert server.answers()
