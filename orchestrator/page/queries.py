"""A query string as the values that a document takes; whatever is wrong with it is said."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

from policies.bad_input import BadInput, near

Record = TypeVar("Record")

LARGEST = 2**53
"""Of a whole number in a query."""
LONGEST = 1000
"""Characters of a text in a query."""


def record(kind: type[Record], query: Mapping[str, str], names: Mapping[str, str] | None = None) -> Record:
    """A dataclass from the keys of a query; `names` maps a key to a field that is called otherwise.

    BadInput names the key that is unknown, missing, or not of its field's type.
    """
    fields_of = {key: (names or {}).get(key, key) for key in query}
    called = {field: key for key, field in (names or {}).items()}
    hints = get_type_hints(kind)
    every = fields(kind)  # type: ignore[arg-type]  # every kind given here is a dataclass
    allowed = [called.get(field.name, field.name) for field in every]
    for key, field in fields_of.items():
        if field not in hints:
            raise BadInput([f"{key}: no such key; there are {', '.join(allowed)}{near(key, allowed)}"])
    needed = [called.get(field.name, field.name) for field in every if field.default is MISSING]
    for key in needed:
        if key not in query:
            raise BadInput([f"{key}: is missing; give {', '.join(needed)}"])
    return kind(**{field: value_of(key, query[key], hints[field]) for key, field in fields_of.items()})


def value_of(key: str, text: str, hint: Any) -> Any:
    """The text as the type that the hint asks for; BadInput otherwise."""
    words = str(hint)
    if len(text) > LONGEST:
        raise BadInput([f"{key}: at most {LONGEST} characters (got {len(text)})"])
    try:
        if "int" in words and "Literal" not in words:
            number = int(text)
            if abs(number) > LARGEST:
                raise ValueError
            return number
        if "float" in words:
            return float(text)
    except ValueError:
        raise BadInput([f"{key}: a number (got {text[:40]!r})"]) from None
    return text


def whole(query: Mapping[str, str], *allowed: str) -> dict[str, int]:
    """Whole numbers under these keys and no others."""
    for key in query:
        if key not in allowed:
            raise BadInput([f"{key}: no such key; there are {', '.join(allowed) or 'none'}{near(key, allowed)}"])
    return {key: value_of(key, value, int) for key, value in query.items()}
