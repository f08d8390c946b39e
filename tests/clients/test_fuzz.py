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
from openai.types import Completion, completion_create_params
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


TEXT = {"type": "string", "minLength": 1, "maxLength": 20}

LIMITS: dict[str, Any] = {
    "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "logit_bias": {
        "type": "object",
        "propertyNames": {"pattern": "^[1-9][0-9]?$"},
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
    },
    "max_tokens": {"type": "integer", "minimum": 1, "maximum": 4},
    "messages": {
        "type": "array",
        "minItems": 1,
        "maxItems": 4,
        "items": {
            "type": "object",
            "properties": {
                "role": {"enum": ["user", "assistant"]},
                "content": {
                    "anyOf": [
                        TEXT,
                        {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "object",
                                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                                "required": ["type", "text"],
                            },
                        },
                    ]
                },
                "name": {"type": ["string", "null"]},
            },
            "required": ["role", "content"],
        },
    },
    "model": TEXT,
    "n": {"type": "integer", "minimum": 1, "maximum": 3},
    "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "prompt": {"anyOf": [TEXT, {"type": "array", "minItems": 1, "maxItems": 3, "items": TEXT}]},
    "response_format": {
        "type": "object",
        "properties": {"type": {"enum": ["text", "json_object"]}},
        "required": ["type"],
        "additionalProperties": False,
    },
    "seed": {"type": "integer", "minimum": -(1 << 63), "maximum": (1 << 63) - 1},
    "stop": {"anyOf": [TEXT, {"type": "array", "maxItems": 4, "items": TEXT}, {"type": "null"}]},
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "tools": {
        "type": "array",
        "maxItems": 3,
        "items": {
            "type": "object",
            "properties": {
                "type": {"const": "function"},
                "function": {
                    "type": "object",
                    "properties": {
                        "name": {"enum": ["a", "b", "c"]},
                        "description": {"type": "string"},
                        "parameters": {"type": "object"},
                        "strict": {"type": ["boolean", "null"]},
                    },
                    "required": ["name"],
                },
            },
            "required": ["type", "function"],
        },
    },
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "user": {"type": "string"},
}
"""What OpenAI's types leave open. Without it hardly a request is right, and few of the wrong ones are nearly right."""

SUPPORTED_IN_PART = {
    *(
        "audio",
        "best_of",
        "function_call",
        "functions",
        "logprobs",
        "max_completion_tokens",
        "modalities",
        "moderation",
    ),
    *("prediction", "reasoning_effort", "service_tier", "store", "stream_options", "suffix", "tool_choice"),
    *("top_logprobs", "verbosity", "web_search_options"),
}
"""Fields left out: most of their values are refused, and then a request says nothing about its other fields."""


def document() -> dict[str, Any]:
    """An OpenAPI document of the server's endpoints, except that for embeddings, which has no model here."""
    schemas: dict[str, Any] = {}

    def schema(kind: Any, prefix: str) -> dict[str, Any]:
        made = pydantic.TypeAdapter(kind).json_schema(ref_template=f"{PLACE}{prefix}{{model}}")
        schemas.update({prefix + name: each for name, each in made.pop("$defs", {}).items()})
        return made

    paths: dict[str, Any] = {}
    for path, request, answer in (
        ("/chat/completions", chat_create_params.CompletionCreateParamsNonStreaming, ChatCompletion),
        ("/completions", completion_create_params.CompletionCreateParamsNonStreaming, Completion),
    ):
        body = schema(request, path.replace("/", "_"))
        body["properties"] = {
            name: LIMITS.get(name, each) for name, each in body["properties"].items() if name not in SUPPORTED_IN_PART
        }
        body["required"].append("max_tokens")  # Without it, as many tokens as fit.
        if path == "/completions":
            body["properties"]["logprobs"] = {"type": ["integer", "null"], "minimum": 0, "maximum": 5}
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
            *("--max-examples=100000", "--no-shrink", "--phases=fuzzing", "--warnings=off"),
        ],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE + SECONDS,
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-4000:]
    # Some requests were right.
    log = server.log.read_text()
    for path in ("/v1/chat/completions", "/v1/completions"):
        assert f'POST {path} HTTP/1.1" 200' in log, log
    assert server.answers()
