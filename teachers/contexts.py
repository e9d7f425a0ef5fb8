"""Contexts: a source's template, the prompt's facts, and what comes of them as tokens.

A template sees the names of `VARIABLES` and nothing else, in a sandbox. A name that this prompt has no value for (no
demonstration, no passing sibling) is not empty but missing: a template that reads it gives `Unavailable`, one that asks
`{% if demonstration is defined %}` first does without.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import jinja2
import jinja2.meta
import jinja2.sandbox

from policies.bad_input import near
from policies.prompt import Message, Prompt
from policies.tokens import Tokenizer
from policies.trajectory import Int32

VARIABLES: Final = (
    "prompt", "answer", "demonstration", "hint", "parent", "reason", "sibling", "attributes", "criteria",
)  # fmt: skip
"""What a template may read (policies/source_config.py)."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when a context is made; None is missing."""

    prompt: str
    answer: str | None = None
    demonstration: str | None = None
    hint: str | None = ""
    """Empty where no control asks for a hint; missing where one does and the prompt has no demonstration."""
    parent: str | None = None
    reason: str | None = None
    sibling: str | None = None
    attributes: Mapping[str, float] | None = None
    criteria: str = ""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The context cannot be made for this prompt: data with a reason, not a crash."""

    reason: str


def render(template: str, facts: Facts) -> str | Unavailable:
    """The user's text; the empty template is the prompt itself."""
    if not template:
        return facts.prompt
    known = {name: value for name in VARIABLES if (value := getattr(facts, name)) is not None}
    try:
        return _compiled(template).render(known)
    except jinja2.TemplateError as error:
        return Unavailable(f"the template's context cannot be made: {error.message or error}")


def context(template: str, prompt: Prompt, facts: Facts, tokenizer: Tokenizer) -> Int32 | Unavailable:
    """Context tokens under the chat template; the empty template gives the prompt's own."""
    if not template:
        return prompt.tokens
    text = render(template, facts)
    if isinstance(text, Unavailable):
        return text
    try:
        return _tokens(prompt, text, tokenizer)
    except ValueError as error:
        return Unavailable(f"the template's text has no tokens: {error}")


def _tokens(prompt: Prompt, text: str, tokenizer: Tokenizer) -> Int32:
    """The text as the user's; of a conversation it takes the place of what the user said last."""
    if not prompt.messages:
        return tokenizer.prompt(text)
    *before, _ = prompt.messages
    return tokenizer.encode(tokenizer.rendered([*before, Message("user", text)], reply=True))


def check_template(text: str) -> list[str]:
    """What is wrong with a template, in words; nothing where it is right."""
    try:
        parsed = _environment().parse(text)
        _compiled(text)
    except jinja2.TemplateError as error:
        return [f"not a jinja2 template: {error.message or error} (got {text[:60]!r})"]
    names = sorted(jinja2.meta.find_undeclared_variables(parsed) - set(VARIABLES))
    return [
        f"no such variable in a template (got '{name}'){near(name, VARIABLES)}; it may read {', '.join(VARIABLES)}"
        for name in names
    ]


@lru_cache(maxsize=256)
def reads(template: str) -> frozenset[str]:
    """Variables that a template names, asked for or only tested."""
    return frozenset(jinja2.meta.find_undeclared_variables(_environment().parse(template)))


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)


@lru_cache(maxsize=256)
def _compiled(template: str) -> jinja2.Template:
    return _environment().from_string(template)


# ---------------------------------------------------------------- what the reference says


def answer(reference: str) -> str | None:
    """The answer's text in a prompt's reference (JSON): itself, or its entry `answer`; None where it has none."""
    match json.loads(reference):
        case {"answer": str() | int() | float() as found}:
            return str(found)
        case (str() | int() | float()) as found:
            return str(found)
        case _:
            return None


def criteria(reference: str, share: float) -> str:
    """The first `share` of a rubric's criteria, one a line; empty where the reference is no list of criteria."""
    rubric = json.loads(reference)
    if not isinstance(rubric, list):
        return ""
    shown = rubric[: math.ceil(share * len(rubric) - 1e-9)]
    return "\n".join(f"- {_criterion(one)}" for one in shown)


def _criterion(entry: Any) -> str:
    match entry:
        case {"criterion": str() as text} | {"description": str() as text} | {"text": str() as text}:
            return text
        case _:
            return str(entry)


# ---------------------------------------------------------------- hints

BREAKS: Final = (r"[^\n]*\n|[^\n]+", r"[^;]*;\s*|[^;]+", r".+?[.!?]\s+|.+", r"\S+\s*", r"(?s).")
"""Where a text is cut: after lines, else steps, sentences, words, characters; the first that gives two parts."""


def hint(text: str, share: float) -> str:
    """The first `share` of a text's parts; 1 is the whole, less than 1 stops before the last part."""
    parts = _parts(text)
    return "".join(parts[: portion(len(parts), share)])


def hint_tokens(tokens: Int32, share: float, ends: Sequence[int]) -> Int32:
    """The first `share` of a demonstration's tokens, its end token never among them."""
    size = len(tokens) - int(len(tokens) > 0 and int(tokens[-1]) in ends)
    return tokens[: portion(size, share)]


def portion(size: int, share: float) -> int:
    """How many of `size` parts a share is: none at 0, all at 1, in between at least one and never all."""
    if share <= 0 or share >= 1:
        return size if share >= 1 else 0
    return max(min(1, size - 1), min(round(share * size), size - 1), 0)


def _parts(text: str) -> list[str]:
    for pattern in BREAKS:
        found = re.findall(pattern, text)
        if len(found) > 1:
            return found
    return [text]
