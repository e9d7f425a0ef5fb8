r"""What kind of thing an answer is by the brackets round it: `(1,2)` is no `\{1,2\}`, and neither is `[1,2)`.

math-verify reads a pair in round brackets as an open interval and takes the set of its ends for the same.
"""

import re

OPEN, CLOSE = "({[", ")}]"
UNORDERED = ("list", r"\{\}")
TOKEN = re.compile(r"\\[{}]|\\.|.", re.DOTALL)
BASE = re.compile(r"(?<![A-Za-z}])(?:\d+|\([\dA-F]+\))\s*_\s*\{?\s*(\d{1,2})\s*\}?\s*$")


def split(text: str) -> list[str]:
    """The parts between commas that stand in no brackets."""
    parts, depth = [""], 0
    for token in TOKEN.findall(text.replace("{,}", "")):
        sign = str(token)[-1]
        depth += (sign in OPEN) - (sign in CLOSE)
        if token == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += token
    return [part.strip() for part in parts]


def shape(text: str) -> str:
    r"""`()`, `[)`, `(]`, `[]` or `\{\}` for values between brackets, `list` for values with commas, else nothing."""
    text = text.strip()
    if len(split(text)) > 1:
        return "list"
    tokens: list[str] = [token for token in TOKEN.findall(text) if not token.isspace()]
    if len(tokens) < 3 or tokens[0][-1] not in OPEN or tokens[-1][-1] not in CLOSE:
        return ""
    inside = text[len(tokens[0]) : len(text) - len(tokens[-1])]
    if not _whole(tokens) or len(split(inside)) < 2:
        return ""
    if tokens[0] in ("{", r"\{"):
        return r"\{\}" if tokens[0] == r"\{" else "list"
    return tokens[0] + tokens[-1]


def parts(text: str) -> list[str]:
    """The values of a list, or between the brackets; the text alone where it is one value."""
    text = text.strip()
    if len(split(text)) > 1 or not shape(text):
        return split(text)
    opening = 2 if text.startswith("\\") else 1
    closing = 2 if text[:-1].endswith("\\") else 1
    return split(text[opening : len(text) - closing])


def _whole(tokens: list[str]) -> bool:
    """Whether the first bracket closes with the last token."""
    depth = 0
    for at, token in enumerate(tokens):
        depth += (token[-1] in OPEN) - (token[-1] in CLOSE)
        if depth == 0:
            return at == len(tokens) - 1
    return False


def fault(answer: str, expected: str) -> str:
    """Why the answer is another kind of thing than the reference, or nothing."""
    found, wanted = shape(answer), shape(expected)
    if found and wanted and found != wanted and not (found in UNORDERED and wanted in UNORDERED):
        return f"{_said(found)} where {_said(wanted)} is asked"
    if wanted in ("()", "[)", "(]", "[]") and not found and len(split(answer)) != len(split(expected)):
        return f"{_said('list')} where {_said(wanted)} is asked"
    base, wanted_base = BASE.search(answer), BASE.search(expected)
    if base and (wanted_base[1] if wanted_base else "10") != base[1]:
        return f"a number in base {base[1]}"
    return ""


def _said(kind: str) -> str:
    return "a list" if kind == "list" else f"values in {kind}"
