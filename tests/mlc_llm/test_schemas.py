"""The engine compiles only JSON schemas that xgrammar can compile, in limited time, and reads no client's text."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from mlc_llm._mlc_bazel import json_schema

SMALL, LARGE = 320, 128_256
"""Vocabularies: the tiny model's and Llama 3's."""


def simplify(schema: Any, vocabulary: int = SMALL) -> Any:
    return json.loads(json_schema.simplify(json.dumps(schema), vocabulary))


def refusal(schema: Any, vocabulary: int = SMALL) -> str:
    with pytest.raises(json_schema.SchemaError) as caught:
        json_schema.simplify(schema if isinstance(schema, str) else json.dumps(schema), vocabulary)
    message = str(caught.value)
    assert len(message) < 200 and "\n" not in message
    return message


def nested(count: int) -> str:
    return '{"type":"array","items":' * count + "{}" + "}" * count


def properties(count: int, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {f"name_{number}": {"type": "string"} for number in range(count)}, **more}


@pytest.mark.parametrize(
    ("definitions", "used"),
    [
        ({"a": {"$ref": "#/$defs/a"}}, "a"),
        ({"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "a"),
        ({"list": {"type": "object", "properties": {"next": {"$ref": "#/$defs/list"}}}}, "list"),
        (
            {
                "list": {
                    "type": "object",
                    "properties": {"next": {"anyOf": [{"$ref": "#/$defs/list"}, {"type": "null"}]}},
                }
            },
            "list",
        ),
        ({"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "tree"),
        ({"map": {"type": "object", "additionalProperties": {"$ref": "#/$defs/map"}}}, "map"),
    ],
    ids=["itself", "each_other", "list", "list_or_null", "tree", "map"],
)
def test_a_schema_that_refers_to_itself_is_refused(definitions: dict[str, Any], used: str) -> None:
    """It overflowed the stack of the engine's thread, and with it ended the server."""
    assert "refer to themselves" in refusal({"$defs": definitions, "$ref": f"#/$defs/{used}"})
    # Upstream reads only what is used.
    assert simplify({"$defs": definitions, "type": "object", "properties": {"a": {"type": "null"}}})


def test_a_reference_that_upstream_ignores_is_anything() -> None:
    assert simplify({"type": "array", "items": {"$ref": "#"}}) == {"type": "array", "items": {}}
    assert simplify({"type": "array", "items": {"$ref": "x#/$defs/x"}}) == {"type": "array", "items": {}}


def test_references_are_replaced_as_upstream_replaces_them() -> None:
    definitions = {"a": {"type": "object", "properties": {"x": {"$ref": "#/$defs/b"}}}, "b": {"enum": [1]}}
    assert simplify({"$defs": definitions, "type": "array", "items": {"$ref": "#/$defs/a", "required": ["x"]}}) == {
        "type": "array",
        "items": {"type": "object", "properties": {"x": {"enum": [1]}}, "required": ["x"]},
    }
    # With what is next to it, this one ends.
    definitions = {"a": {"type": "array", "items": {"$ref": "#/$defs/a", "items": False}}}
    assert simplify({"$defs": definitions, "$ref": "#/$defs/a"})["items"] == {"type": "array", "items": False}


def test_what_clients_write_becomes_what_upstream_reads() -> None:
    either = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert simplify({"type": ["string", "null"]}) == either
    assert simplify({"oneOf": either["anyOf"]}) == either
    assert simplify({"definitions": {"a": either}, "allOf": [{"$ref": "#/definitions/a"}]}) == either


def test_a_schema_in_a_schema_has_its_own_definitions() -> None:
    def inner(name: str, value: Any) -> dict[str, Any]:
        return {"$id": name, "$defs": {"a": {"const": value}}, "$ref": "#/$defs/a"}

    schema = {"$defs": {"a": {"const": 0}}, "anyOf": [inner("x", 1), {"$ref": "#/$defs/a"}, inner("y", 2)]}
    assert simplify(schema) == {"anyOf": [{"const": 1}, {"const": 0}, {"const": 2}]}
    copies = {"anyOf": [{"$id": "x", **dict.fromkeys(map(str, range(900)))}] * 9}
    found = refusal({"$defs": {"a": copies}, "anyOf": [{"$ref": "#/$defs/a"}] * 20})
    assert "keywords and names in required" in found


def test_keywords_that_the_engine_cannot_enforce_are_listed() -> None:
    named = {"properties": {"pattern": {"minItems": 1}}, "$defs": {"format": {"enum": [{"not": 1}]}}}
    assert json_schema.unenforced(named) == ["minItems"]
    assert json_schema.unenforced({"items": [{"anyOf": [{"format": "date"}]}], "allOf": [1, 2]}) == ["allOf", "format"]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (properties(20_000), "bytes, found"),
        (properties(1001), "2000 schemas"),
        (nested(470), "32 deep"),
        # Some versions of Python read so many levels.
        (nested(4000), "expected a JSON schema|32 deep"),
        ({"anyOf": [{"const": "x"}] * 100_000}, "bytes, found"),
        ({"anyOf": [{"const": "x"}] * 1001}, "2000 schemas"),
        ({"enum": list(range(2001))}, "2000 schemas"),
        ({"type": "array", "prefixItems": [{}] * 2001}, "2000 schemas"),
        ({"const": "x" * 200_000}, "bytes, found"),
        ({"const": json.loads("[" * 100 + "]" * 100)}, "values nested at most 32"),
        ({"description": "x" * 200_000}, "bytes, found"),
    ],
)
def test_a_schema_over_a_limit_is_refused(schema: Any, message: str) -> None:
    assert re.search(message, refusal(schema))


def test_references_count_as_copies() -> None:
    """Each level doubles the work: 2 to the power of 40."""
    definitions: dict[str, Any] = {
        f"d{level}": {"anyOf": [{"$ref": f"#/$defs/d{level - 1}"}] * 2} for level in range(1, 15)
    }
    definitions["d0"] = {"type": "boolean"}
    assert "2000 schemas" in refusal({"$defs": definitions, "$ref": "#/$defs/d14"})


@pytest.mark.parametrize(
    ("target", "copies"),
    [
        ({"type": "object", "required": ["x"] * 20_000}, 900),
        ({"type": "null"} | dict.fromkeys(map(str, range(5000))), 500),
        ({"anyOf": [True] * 10_000}, 1),
    ],
    ids=["required", "keywords", "true"],
)
def test_what_is_copied_counts_even_if_it_is_ignored(target: dict[str, Any], copies: int) -> None:
    """110 kB with many copies of `required` took 2.9 s in the thread that answers all clients."""
    references = {"anyOf": [{"$ref": "#/$defs/a"}] * copies}
    assert "each $ref a copy" in refusal({"$defs": {"a": target}, **references})


def test_a_schema_of_the_largest_size_without_references_is_not_over_the_limit_of_copies() -> None:
    assert simplify({"type": "object", "required": [""] * 32_000, "title": "x"}) == {"anyOf": [{"type": "object"}]}


def test_the_limit_of_names_and_values_depends_on_the_vocabulary() -> None:
    """For each byte of them xgrammar tries each token."""
    schema = properties(200, required=["name_1"])
    assert simplify(schema, SMALL)
    assert "of at most 1046 bytes together" in refusal(schema, LARGE)
    assert "1046 bytes" in refusal({"enum": [f"value {number}" for number in range(200)]}, LARGE)


def test_an_ordinary_schema_is_accepted_with_a_large_vocabulary() -> None:
    schema = properties(30, required=[f"name_{number}" for number in range(30)])
    assert simplify(schema, LARGE) == schema


@pytest.mark.parametrize(
    "schema",
    [
        "{",
        "[]",
        '"boolean"',
        "true",
        {"type": "nonsense"},
        {"type": []},
        {"type": ["string", "x"]},
        {"type": {}},
        {"enum": []},
        {"enum": {}},
        {"anyOf": []},
        {"anyOf": {}},
        {"anyOf": [False]},
        {"anyOf": ["x"]},
        {"$ref": 5},
        {"$ref": "#/$defs/none"},
        {"$defs": [], "$ref": "#/$defs/none"},
        {"$defs": {"a": False}, "$ref": "#/$defs/a"},
        {"type": "array", "items": None},
        {"type": "array", "prefixItems": {}},
        {"type": "array", "prefixItems": [False]},
        {"type": "object", "properties": []},
        {"type": "object", "properties": {"a": False}},
        {"type": "object", "properties": {"a": {}}, "required": [1]},
        {"type": "object", "properties": {"a": {}}, "required": "a"},
        {"type": "object", "additionalProperties": []},
        {"const": 1 << 63},
        '{"const": NaN}',
        '{"const": 1e999}',
        '{"const": "\\ud800"}',
        '{"type": "object", "properties": {"\\ud800": {}}}',
    ],
    ids=str,
)
def test_a_schema_that_upstream_cannot_compile_is_refused(schema: Any) -> None:
    """An exception in the engine's thread ends the requests of all clients."""
    refusal(schema)


@pytest.mark.parametrize(
    "schema", [{}, {"type": "object"}, {"type": "boolean"}, {"title": "x", "type": "array"}], ids=str
)
def test_a_whole_schema_that_upstream_has_a_rule_for_gets_a_rule_named_root(schema: dict[str, Any]) -> None:
    """Without one upstream does not compile it."""
    assert simplify(schema) == {"anyOf": [{key: value for key, value in schema.items() if key != "title"}]}


def test_names_are_spelled_as_text_of_the_grammar() -> None:
    """Upstream copies them into the grammar as they are: such a name could add rules to it."""
    name = 'a" | "\\\n'
    (spelled,) = (simple := simplify(properties(0) | {"properties": {name: {}}, "required": [name, "x"]}))["properties"]
    assert simple["required"] == [spelled] == ['a\\\\\\" | \\\\\\"\\\\\\\\\\\\n']
    # What the grammar's parser reads, and what a JSON parser then reads.
    assert json.loads('"' + spelled.replace("\\\\", "\0").replace('\\"', '"').replace("\0", "\\") + '"') == name


def test_what_upstream_ignores_is_left_out() -> None:
    """It would write the schema around each of these to the log."""
    schema = properties(1, minProperties=1, description="x", required=["name_0", "name_0", "name_7"])
    assert simplify(schema) == properties(1, required=["name_0"])
    assert simplify({"type": "array", "items": {"type": "integer", "minimum": 1}})["items"] == {"type": "integer"}
