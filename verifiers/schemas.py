"""JSON schemas (Draft 2020-12) that can be judged by: what is wrong with one is said before anything is judged."""

from collections.abc import Iterator, Mapping
from typing import Any

DRAFT = "https://json-schema.org/draft/2020-12/schema"

LONGEST_REASON = 300


def schema_fault(schema: Any) -> str:
    """Why this is no schema that can be judged by, or nothing."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    if isinstance(schema, Mapping) and str(schema.get("$schema", DRAFT)).rstrip("#") != DRAFT:
        return f"$schema is {schema['$schema']!r}; only {DRAFT} is read"
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"not a JSON schema: {error.json_path}: {error.message}"[:LONGEST_REASON]
    away = next((ref for ref in _references(schema) if not ref.startswith("#")), None)
    return f"$ref {away!r} leads out of the schema; nothing is fetched" if away is not None else ""


def _references(node: Any) -> Iterator[str]:
    """Every `$ref` and `$dynamicRef`, wherever it stands."""
    if isinstance(node, Mapping):
        yield from (node[key] for key in ("$ref", "$dynamicRef") if isinstance(node.get(key), str))
    if isinstance(node, Mapping | list):
        for below in node.values() if isinstance(node, Mapping) else node:
            yield from _references(below)
