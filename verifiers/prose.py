"""A response without its code, mathematics and addresses: what is left is in some language. Linear in the text."""

import re
from collections.abc import Iterator

OPENERS = re.compile(r"```|~~~|\$\$|\\\[|\\\(|\\begin\{|`|\$")
CLOSERS = {"\\[": "\\]", "\\(": "\\)", "\\begin{": "\\end"}
"""Where another string closes what one opens."""

IN_ONE_LINE = {"`", "$"}
"""Openers that must be closed before their line ends: a price is no formula."""

NO_PROSE = re.compile(r"https?://\S+|\\(?:begin|end)\{\w{0,40}\*?\}|\\[A-Za-z]+|</?[A-Za-z][^<>\n]{0,100}>")


def prose(text: str) -> str:
    """The text with a space in the place of code blocks, formulas, LaTeX commands, tags and addresses.

    What is opened and never closed stays: a fence must not hide the rest of a response.
    """
    return NO_PROSE.sub(" ", " ".join(_outside(text)))


def _outside(text: str) -> Iterator[str]:
    """The stretches between what is opened and closed."""
    kept = line_end = 0
    hopeless: set[str] = set()  # what is not closed any more: it is searched for once, so that the whole stays linear
    opener = OPENERS.search(text)
    while opener:
        mark, at = opener.group(), opener.end()
        close = CLOSERS.get(mark, mark)
        end = -1 if close in hopeless else text.find(close, at)
        if end < 0:
            hopeless.add(close)
        elif mark in IN_ONE_LINE:
            line_end = _line_end(text, at) if at > line_end else line_end
            end = end if end <= line_end else -1
        if end >= 0:
            yield text[kept : opener.start()]
            kept = at = end if close == "\\end" else end + len(close)
        opener = OPENERS.search(text, at)
    yield text[kept:]


def _line_end(text: str, at: int) -> int:
    found = text.find("\n", at)
    return len(text) if found < 0 else found
