"""Checks and simplifies the JSON schema of a request before the engine compiles it to a grammar.

At the pinned commit xgrammar compiles a schema in the engine's thread. It copies the target of a `$ref` wherever it is
used, so a schema that refers to itself, such as a linked list, overflows the stack and kills the process; schemas of
unexpected types end the requests of all clients; and nothing limits its work. `simplify` therefore evaluates a schema
as `cpp/json_schema_converter.cc` does, and returns a new one that has the same grammar without references and with
nothing that the converter ignores or rejects. The engine never sees the client's text.

A second process with a time limit would be no substitute: it cannot hand a compiled grammar to the engine, which would
compile it again, and the library exports no compiler to call there. The work is predictable, so counting it is enough.
"""

from __future__ import annotations

import json
import math
from typing import Any

MAX_BYTES = 128 << 10
"""Of the schema as text. Reading it takes 2 ms; what xgrammar ignores, such as descriptions, counts only here."""

MAX_DEPTH = 32
"""Of nested schemas, references followed, and of the values in `const` and `enum`. OpenAI's limit is 10."""

MAX_PARTS = 2000
"""Of schemas, properties and alternatives, each reference counted as a copy. The converter's work is quadratic in it:
with 320 tokens, 2,000 optional properties take 0.25 s, 20,000 take 8 s.
"""

MAX_COPIED = 1 << 17
"""Of names in `required` and keywords of the targets of `$ref`, each reference counted as a copy. Reading as many takes
0.02 s. A schema without references has room for half of it.
"""

MAX_STEPS = 1 << 27
"""Of bytes that the grammar spells out (names of properties, values in `const` and `enum`, punctuation) times tokens
of the vocabulary. For each such byte xgrammar tries every token, at 23 ns: 1.0 s for 1,300 bytes with 32,000 tokens,
and 3 s for the 1,000 bytes that models with 128,000 tokens get. Fewer would refuse schemas of 30 properties there.
"""

TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")

DEFINITIONS = ("$defs", "definitions")
"""Keywords with the targets of `$ref`: today's, and that of drafts before 2019-09."""

UNENFORCED = (
    *("contains", "dependentRequired", "dependentSchemas", "else", "exclusiveMaximum", "exclusiveMinimum", "format"),
    *("if", "maxContains", "maxItems", "maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength"),
    *("minProperties", "minimum", "multipleOf", "not", "pattern", "patternProperties", "propertyNames", "then"),
    "uniqueItems",
)
"""Keywords that the engine's grammars do not have."""

ANY: dict[str, Any] = {}


class SchemaError(ValueError):
    """A schema cannot be compiled. The message is one line for the client who sent it."""


def simplify(text: str, vocabulary: int) -> str:
    """Returns a schema with the same grammar that xgrammar compiles without failure and in limited time.

    Args:
        text: the client's schema.
        vocabulary: number of tokens of the model.

    Raises:
        SchemaError: there is none.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise SchemaError(f"expected a schema of at most {MAX_BYTES} bytes, found {len(text)} characters")
    try:
        schema = json.loads(text)
        if not isinstance(schema, dict):
            raise ValueError
    except (ValueError, RecursionError):
        raise SchemaError("expected a JSON schema, an object as text") from None
    simple = _Simplifier(_definitions(schema), vocabulary).visit(schema, 0)
    if simple == ANY or set(simple) == {"type"}:
        # xgrammar has rules for these, and then makes none with the name `root`.
        simple = {"anyOf": [simple]}
    return json.dumps(simple, ensure_ascii=False)


def unenforced(schema: Any) -> list[str]:
    """Returns the keywords in a schema, of any depth, that the grammar of an answer would lack."""
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += each
        elif isinstance(each, dict):
            found |= each.keys() & set(UNENFORCED)
            schemas = each.get("allOf", [])
            found |= set() if isinstance(schemas, list) and len(schemas) <= 1 else {"allOf"}
            for keyword, value in each.items():
                if keyword in ("properties", *DEFINITIONS) and isinstance(value, dict):
                    waiting += value.values()  # Its keys are names.
                elif keyword not in ("const", "default", "enum", "examples"):
                    waiting.append(value)
    return sorted(found)


def _definitions(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns the targets of references in a schema."""
    found: dict[str, Any] = {}
    for keyword in DEFINITIONS:
        if isinstance(schema.get(keyword), dict):
            found |= schema[keyword]
    return found


class _Simplifier:
    """Evaluates schemas and counts the work of compiling them.

    Args:
        definitions: the `$defs` of the whole schema.
        vocabulary: number of tokens of the model.
    """

    def __init__(self, definitions: dict[str, Any], vocabulary: int) -> None:
        self.definitions = definitions
        self.max_bytes = MAX_STEPS // max(vocabulary, 1)
        self.parts = 0
        self.bytes = 0
        self.copied = 0

    def visit(self, schema: Any, depth: int) -> dict[str, Any]:
        """Simplifies a schema as VisitSchema of the converter reads it: the first keyword of these decides.

        Args:
            schema: the schema, JSON of any kind.
            depth: the number of schemas around it, references included.
        """
        if schema is True:
            self._count()
            return ANY
        if not isinstance(schema, dict):
            raise SchemaError(f"expected a schema, an object, found {_short(schema)}")
        if depth > MAX_DEPTH:
            raise SchemaError(
                f"expected schemas nested at most {MAX_DEPTH} deep, found more: schemas that refer to themselves,"
                " such as lists and trees, are not supported"
            )
        self._count()
        if depth and "$id" in schema:
            # A resource in another one: references in it are to its own definitions (JSON Schema 2020-12, 8.2.1).
            self._count(parts=0, copied=len(schema))
            outer, self.definitions = self.definitions, _definitions(schema)
            try:
                return self.visit({name: value for name, value in schema.items() if name != "$id"}, depth)
            finally:
                self.definitions = outer
        if "$ref" in schema:
            return self._reference(schema, depth)
        if "const" in schema:
            return {"const": self._value(schema["const"])}
        if "enum" in schema:
            return {"enum": [self._value(value) for value in self._array(schema, "enum")]}
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return {"anyOf": [self.visit(each, depth + 1) for each in self._array(schema, keyword)]}
        if isinstance(schema.get("allOf"), list) and len(schema["allOf"]) == 1:
            return self.visit(schema["allOf"][0], depth + 1)
        if "type" in schema:
            kind = schema["type"]
            if isinstance(kind, list):
                kinds = self._array(schema, "type")
                return {"anyOf": [self.visit({**schema, "type": each}, depth + 1) for each in kinds]}
            if kind not in TYPES:
                raise SchemaError(f"type: expected one of {', '.join(TYPES)}, found {_short(kind)}")
            if kind == "array":
                return self._items(schema, depth)
            return self._properties(schema, depth) if kind == "object" else {"type": kind}
        return ANY

    def _reference(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        reference = schema["$ref"]
        if not isinstance(reference, str):
            raise SchemaError(f"$ref: expected text, found {_short(reference)}")
        keyword, found, name = reference.partition("/")[2].partition("/")
        if not (reference.startswith("#/") and keyword in DEFINITIONS and found):
            return ANY  # Upstream ignores other references, among them "#".
        if name not in self.definitions:
            raise SchemaError(f"$ref: expected a name in {keyword}, found {_short(name)}")
        target = self.definitions[name]
        if isinstance(target, dict):
            self._count(parts=0, copied=len(target) + len(schema))
            # What is next to the reference overrides the target.
            target = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
        return self.visit(target, depth + 1)

    def _items(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        self._count(parts=0, spelled=8)
        simple: dict[str, Any] = {"type": "array"}
        if "prefixItems" in schema:
            first = self._array(schema, "prefixItems", empty=True)
            simple["prefixItems"] = [self.visit(each, depth + 1) for each in first]
            self._count(parts=0, spelled=2 * len(first))
        self._rest(schema, simple, ("items", "unevaluatedItems"), depth)
        return simple

    def _properties(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        self._count(parts=0, spelled=8)
        simple: dict[str, Any] = {"type": "object"}
        required = self._array(schema, "required", empty=True) if "required" in schema else []
        self._count(parts=0, copied=len(required))
        if not all(isinstance(name, str) for name in required):
            raise SchemaError("required: expected names, text")
        if "properties" in schema:
            properties = schema["properties"]
            if not isinstance(properties, dict):
                raise SchemaError(f"properties: expected an object, found {_short(properties)}")
            # Upstream copies names into the grammar as they are, where a quotation mark would end the name.
            names = {name: _spelled(name)[2:-2] for name in properties}
            simple["properties"] = {names[name]: self.visit(each, depth + 1) for name, each in properties.items()}
            simple["required"] = [names[name] for name in dict.fromkeys(required) if name in names]
            # If none is required, the grammar has each name twice: as the first one and as a later one.
            copies = 1 if simple["required"] or len(names) < 2 else 2
            for name in names.values():
                self._count(spelled=copies * (len(name.encode()) + 6))
        self._rest(schema, simple, ("additionalProperties", "unevaluatedProperties"), depth)
        return simple

    def _rest(self, schema: dict[str, Any], simple: dict[str, Any], keywords: tuple[str, str], depth: int) -> None:
        """Adds the schema of all other items or properties. The first keyword present decides."""
        for keyword in keywords:
            if keyword in schema:
                self._count(parts=0, spelled=4)
                simple[keyword] = False if schema[keyword] is False else self.visit(schema[keyword], depth + 1)
                return

    def _value(self, value: Any) -> Any:
        """Returns the value of `const` or `enum`, which is part of the grammar as JSON."""
        _check_value(value, 0)
        self._count(spelled=len(_spelled(value).encode()))
        return value

    def _array(self, schema: dict[str, Any], keyword: str, empty: bool = False) -> list[Any]:
        value = schema[keyword]
        if not isinstance(value, list) or not (value or empty):
            raise SchemaError(f"{keyword}: expected an array with content, found {_short(value)}")
        return value

    def _count(self, parts: int = 1, spelled: int = 0, copied: int = 0) -> None:
        self.parts += parts
        self.bytes += spelled
        self.copied += copied
        if self.copied > MAX_COPIED:
            raise SchemaError(f"expected at most {MAX_COPIED} keywords and names in required, each $ref a copy")
        if self.parts > MAX_PARTS:
            raise SchemaError(f"expected at most {MAX_PARTS} schemas, properties and values, each $ref a copy")
        if self.bytes > self.max_bytes:
            raise SchemaError(
                f"expected names of properties, values in enum and const, and punctuation of at most {self.max_bytes}"
                " bytes together, each $ref a copy"
            )


def _check_value(value: Any, depth: int) -> None:
    """Refuses values that Python reads and upstream's parser does not."""
    if depth > MAX_DEPTH:
        raise SchemaError(f"expected values nested at most {MAX_DEPTH} deep, found more")
    if isinstance(value, dict):
        for name, each in value.items():
            _check_value(name, depth)
            _check_value(each, depth + 1)
    elif isinstance(value, list):
        for each in value:
            _check_value(each, depth + 1)
    elif isinstance(value, str):
        _spelled(value)
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise SchemaError("expected integers of 64 bits, found a larger one")
    elif isinstance(value, float) and not math.isfinite(value):
        raise SchemaError(f"expected finite numbers, found {value}")


def _spelled(value: Any) -> str:
    """Returns JSON as a string in a grammar (EBNF) spells it, without the quotation marks around that string."""
    spelled = json.dumps(value, ensure_ascii=False).replace("\\", "\\\\").replace('"', '\\"')
    try:
        spelled.encode()
    except UnicodeEncodeError:
        raise SchemaError("expected text of Unicode characters, found half of a surrogate pair") from None
    return spelled


def _short(value: Any) -> str:
    """Returns JSON for a message, cut if it is long."""
    if isinstance(value, (dict, list)):
        return f"an {'' if value else 'empty '}{'object' if isinstance(value, dict) else 'array'}"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
