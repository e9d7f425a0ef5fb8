r"""Answers that are words: the letter of a choice, `yes`, a name. Decided by text, never by algebra."""

import re

from verifiers.notation import STYLE, bare

LETTER = re.compile(r"\(?([A-Z])\)?[.)]?")
CHOSEN = re.compile(
    r"(?:(?:option|choice|answer)\s+)?\(?\s*([A-Z])\s*(?:\)|(?=[\s.):]|$))(?:\s*[.):]?\s*(?P<rest>.*))", re.IGNORECASE
)
ANOTHER = re.compile(r"(?<![A-Za-z])\(?[A-Z]\s*[.):]|(?<![A-Za-z])(?:and|or|not)(?![A-Za-z])|^\s*[,;&/|=+*^-]")
SAID = re.compile(r"[A-Za-z][A-Za-z' -]*")
PLAIN = frozenset(("yes", "no", "true", "false", "odd", "even", "none", "both", "neither", "never", "always"))
"""Single words that are no product of variables."""


def _text(answer: str) -> str:
    """Words without their style."""
    return bare(STYLE.sub(r"\1", bare(answer)))


def letter(answer: str, expected: str) -> bool | None:
    """Whether the chosen letter is the expected one; None where the reference is no letter or the answer chooses none.

    `B`, `(B)`, `B. 42`, `Option B` choose B; an answer that names a second choice has chosen none.
    """
    wanted = LETTER.fullmatch(_text(expected))
    chosen = CHOSEN.fullmatch(_text(answer))
    if not wanted or not chosen or not chosen[1].isupper():
        return None
    if ANOTHER.search(chosen["rest"]):
        return None
    return chosen[1] == wanted[1]


def words(answer: str, expected: str) -> bool | None:
    """Whether both say the same in words, whatever their case; None where that is not for words to decide."""
    wanted, found = _said(expected), _said(answer)
    if not wanted or not found:
        return None
    if wanted == found:
        return True
    sure = wanted in PLAIN or " " in wanted or STYLE.fullmatch(bare(expected)) is not None
    return False if sure and len(wanted) > 1 else None


def _said(answer: str) -> str:
    text = _text(answer)
    return " ".join(text.lower().split()) if SAID.fullmatch(text) and len(text) > 1 else ""
