"""The response is JSON that meets a schema. Parsed strictly here, validated in a judging process."""

import json
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

from verifiers import answers
from verifiers.grader import Grader, Item, in_threads
from verifiers.kinds import Tools, task_of
from verifiers.schemas import LONGEST_REASON, schema_fault
from verifiers.score import Score, Status
from verifiers.strict_json import NotJsonError, agreement, last_block, parse
from verifiers.text_config import JsonSchemaVerifier
from verifiers.workers import Workers

MOST_FAULTS = 100
"""Faults among which the most telling one is looked for."""


def open_grader(own: JsonSchemaVerifier, tools: Tools) -> Grader:
    """A grader that parses here and validates in killable workers."""
    workers = tools.killable()
    return in_threads(lambda item: judge(own, item, workers), own.workers)


def judge(own: JsonSchemaVerifier, item: Item, workers: Workers) -> Score:
    """Whether the response is JSON, meets the schema, and equals the reference where that is asked."""
    schema, known = _plain(item.reference) if own.against == "reference" else (own.against, True)
    expected, given = _plain(item.reference) if own.equals != "no" else (None, True)
    if not known or not given or not isinstance(schema, Mapping | bool):
        return Score.unknown(
            Status.ERROR, "reference is no JSON" if not known or not given else "reference is no schema"
        )
    try:
        value = parse(last_block(item.response) if own.place == "block" else item.response)
    except NotJsonError as error:
        return answers.wrong(str(error))
    if schema not in ({}, True):
        met = workers.ask({"task": task_of(own), "schema": json.dumps(schema), "value": value}, own.timeout)
        if isinstance(met, Score) and not met.passed:
            return met
    return _compared(value, expected, own) if own.equals != "no" else answers.right()


def _compared(value: Any, expected: Any, own: JsonSchemaVerifier) -> Score:
    """How much of the value is the reference's."""
    share, first = agreement(value, expected)
    if share == 1.0:
        return answers.right()
    reason = f"{first} is not the reference's"[:LONGEST_REASON]
    return Score(share if own.equals == "fields" else 0.0, False, reason=reason)


def _plain(reference: Any) -> tuple[Any, bool]:
    """The reference as a JSON value, read from its text where it is one; False where it cannot be."""
    try:
        return (parse(reference) if isinstance(reference, str) else json.loads(json.dumps(reference))), True
    except (ValueError, TypeError, RecursionError):
        return None, False


# ---------------------------------------------------------------- in a worker


def preload(_: str) -> None:
    """Load what `work` needs, in a worker."""
    work("", {"schema": '{"type": "integer"}', "value": "1"})


def work(_: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The worker's task `json_schema`: passed, or the most telling fault; `error` where the schema is none."""
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    validator, fault = _validator(request["schema"])
    if validator is None:
        return {"error": f"reference: {fault}"}
    try:
        found = best_match(islice(validator.iter_errors(request["value"]), MOST_FAULTS))
    except Unresolvable as error:
        return {"error": f"the schema's $ref {error.ref!r} leads nowhere"}
    reason = f"{found.json_path}: {found.message}"[:LONGEST_REASON] if found else ""
    return {"value": float(not found), "passed": not found, "reason": reason, "parts": {}}


@lru_cache(maxsize=256)
def _validator(schema: str) -> tuple[Any, str]:
    """The validator of a schema's text, with a registry that fetches nothing; else None and why."""
    from jsonschema import Draft202012Validator
    from referencing import Registry

    read = json.loads(schema)
    fault = schema_fault(read)
    return (None, fault) if fault else (Draft202012Validator(read, registry=Registry()), "")
