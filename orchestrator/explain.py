"""Faults in words: `file: key.path: problem (got value); fix`, all of them at once."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from orchestrator.keys import by_kind, fields, models, names_at, step_in

_NAME_PATTERN = r"^[a-z][a-z0-9-]*$"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong at one key. `path` is as in the file: names and list indices."""

    path: tuple[str | int, ...]
    problem: str
    fix: str = ""

    def line(self, origin: str, raw: Any = None) -> str:
        """The fault on one line; `raw` is the file's content, from which stages get their names."""
        key = spell(self.path, raw)
        return f"{origin}: {key + ': ' if key else ''}{self.problem}{'; ' + self.fix if self.fix else ''}"


def spell(path: Sequence[str | int], raw: Any = None) -> str:
    """`stages.sharpen.steps`, or `stages[1].steps` where the stage has no name of its own; `--set` takes both."""
    text = ""
    for place, element in enumerate(path):
        name = _stage_name(raw, element) if tuple(path[:place]) == ("stages",) else None
        if isinstance(element, int) and name is None:
            text += f"[{element}]"
        else:
            text += f"{'.' if text else ''}{name or element}"
    return text


def _stage_name(raw: Any, element: str | int) -> str | None:
    """The stage's name, where it has one that no other stage has."""
    stages = raw.get("stages") if isinstance(raw, Mapping) else None
    if not isinstance(element, int) or not isinstance(stages, Sequence) or element >= len(stages):
        return None
    names = [stage.get("name") if isinstance(stage, Mapping) else None for stage in stages]
    name = names[element]
    return name if isinstance(name, str) and name and names.count(name) == 1 else None


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` where a known name is close, else empty."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean '{found[0]}'?" if found else ""


def shown(value: Any) -> str:
    """`(got 1.5)`: a value as a YAML file would have it, short."""
    match value:
        case None:
            text = "null"
        case bool():
            text = str(value).lower()
        case str():
            text = repr(value if len(value) <= 60 else value[:57] + "...")
        case dict():
            text = "a mapping"
        case list() | tuple():
            text = f"a list of {len(value)}"
        case _:
            text = str(value)
    return f"(got {text})"


# ---------------------------------------------------------------- YAML


def yaml_line(error: yaml.YAMLError, origin: str) -> str:
    """A syntax error with its line, column and what to look at."""
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or error).splitlines()[0]
    where = f"{origin}: line {mark.line + 1}, column {mark.column + 1}" if mark else origin
    if "stands twice" in problem:
        fix = "keep one of the two"
    elif "\\t" in problem:
        fix = "indent with spaces, not tabs"
    else:
        fix = "check the indentation, brackets and quotes there and on the line above"
    return f"{where}: {problem}; {fix}"


# ---------------------------------------------------------------- pydantic


def faults(error: ValidationError, model: Any, raw: Any, prefix: Sequence[str | int] = ()) -> list[Fault]:
    """Every error of a validation as a fault; `model` is what `raw` was read as, `prefix` where `raw` stands."""
    found = []
    for one in error.errors(include_url=False):
        path, annotation, owner = _follow(model, raw, one["loc"])
        if one["type"] == "too_short" and len(one["input"]) >= one["ctx"]["min_length"]:
            continue  # entries with faults of their own do not count for pydantic
        problem, fix = _said(one, _Place(path, annotation, owner))
        found.append(Fault((*prefix, *path), problem, fix))
    return found


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an error is: its path, what should stand there, and what should stand one level up."""

    path: tuple[str | int, ...]
    annotation: Any
    owner: Any


def _follow(model: Any, raw: Any, location: Sequence[str | int]) -> tuple[tuple[str | int, ...], Any, Any]:
    """The path without the union tags that pydantic puts in it, what stands there, and the model that holds it."""
    path: list[str | int] = []
    annotation = owner = model
    for element in location:
        if element == "[key]":  # of a mapping: the key itself is wrong, and it is the last of the path already
            continue
        if isinstance(element, str) and element in by_kind(annotation):
            annotation = by_kind(annotation)[element]
            continue
        owner, annotation = annotation, step_in(annotation, element)
        path.append(element)
    return tuple(path), annotation, owner


_Words = tuple[str, str]


def _said(error: Any, place: _Place) -> _Words:
    """Problem and fix of one pydantic error."""
    got = shown(error["input"])
    say = _SAY.get(error["type"])
    if say is not None:
        return say(error, place, got)
    problem, _, fix = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").partition("; ")
    return f"{problem[:1].lower()}{problem[1:]} {got}", fix


def _unknown_key(error: Any, place: _Place, _got: str) -> _Words:
    known = tuple(fields(models(place.owner)[0])) if models(place.owner) else ()
    fix = nearest(str(place.path[-1]), known)
    listed = ", ".join(known)
    return "unknown key", fix or (f"the keys here are {listed}" if listed else "nothing may be set here; remove it")


def _missing(_error: Any, place: _Place, _got: str) -> _Words:
    owner = models(place.owner)
    field = owner[0].model_fields.get(str(place.path[-1])) if owner else None
    said = field.description.splitlines()[0] if field is not None and field.description else ""
    return "missing", f"add it{': ' + said if said else ''}"


def _unknown_kind(error: Any, place: _Place, _got: str) -> _Words:
    kinds = ", ".join(by_kind(place.annotation))
    close = nearest(str(error["ctx"]["tag"]), by_kind(place.annotation))
    return f"unknown kind (got '{error['ctx']['tag']}')", f"{close + ' ' if close else ''}the kinds are {kinds}"


def _no_kind(_error: Any, place: _Place, got: str) -> _Words:
    return f"has no kind {got}", f"add `kind:` and one of {', '.join(by_kind(place.annotation))}"


def _literal(error: Any, _place: _Place, got: str) -> _Words:
    expected = error["ctx"]["expected"]
    close = nearest(str(error["input"]), expected.replace("'", "").replace(" or ", ", ").split(", "))
    return f"unknown value {got}", f"{close + ' ' if close else ''}use {expected}"


def _mapping(error: Any, place: _Place, got: str) -> _Words:
    names = ", ".join(names_at(place.annotation, error["input"])) or ", ".join(by_kind(place.annotation))
    return f"must be a mapping {got}", f"write its keys{' (' + names + ')' if names else ''} as `key: value`"


def _pattern(error: Any, _place: _Place, got: str) -> _Words:
    if error["ctx"]["pattern"] == _NAME_PATTERN:
        return f"not a name {got}", "use lower-case letters, digits and dashes, a letter first"
    return f"does not match {error['ctx']['pattern']} {got}", "change it to match"


def _bound(problem: str, fix: str, key: str) -> Callable[[Any, _Place, str], _Words]:
    """A message that tells the bound which pydantic keeps under `key`."""

    def say(error: Any, _place: _Place, got: str) -> _Words:
        bound = error["ctx"][key]
        return f"{problem} {got}", fix.format(f"{bound:g}" if isinstance(bound, float) else bound)

    return say


def _must(problem: str, fix: str) -> Callable[[Any, _Place, str], _Words]:
    """A message that tells the type."""
    return lambda _error, _place, got: (f"{problem} {got}", fix)


_WHOLE = _must("must be a whole number", "write it without quotes and decimals, such as 8")
_NUMBER = _must("must be a number", "write it without quotes, such as 0.5 or 1e-5")
_BOOLEAN = _must("must be true or false", "write true or false")
_LIST = _must("must be a list", "write [a, b]")

_SAY: dict[str, Callable[[Any, _Place, str], _Words]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing,
    "union_tag_invalid": _unknown_kind,
    "union_tag_not_found": _no_kind,
    "literal_error": _literal,
    "model_type": _mapping,
    "model_attributes_type": _mapping,
    "dict_type": _mapping,
    "string_pattern_mismatch": _pattern,
    "greater_than_equal": _bound("too small", "set it to {} or more", "ge"),
    "greater_than": _bound("too small", "set it above {}", "gt"),
    "less_than_equal": _bound("too large", "set it to {} or less", "le"),
    "less_than": _bound("too large", "set it below {}", "lt"),
    "too_short": _bound("too few entries", "give {} or more", "min_length"),
    "too_long": _bound("too many entries", "give {} or fewer", "max_length"),
    "string_too_long": _bound("too long", "use {} characters or fewer", "max_length"),
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _must("must be finite", "write a number"),
    "bool_type": _BOOLEAN,
    "bool_parsing": _BOOLEAN,
    "tuple_type": _LIST,
    "list_type": _LIST,
    "string_type": _must("must be text", "put it in quotes"),
}
