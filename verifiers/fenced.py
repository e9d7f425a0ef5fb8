"""Fenced code blocks of a response (CommonMark 0.31, section 4.5), linear in its length."""

import re
from typing import NamedTuple

FENCE = re.compile(r" {0,3}(?P<marks>`{3,}|~{3,})(?P<rest>[^\n]*)\Z")


class Block(NamedTuple):
    """A closed block."""

    language: str
    text: str


def blocks(response: str) -> list[Block]:
    """Every closed block, in order. One that is never closed is none: the response was cut inside it."""
    found: list[Block] = []
    opened: tuple[str, str] | None = None
    inside: list[str] = []
    for line in response.split("\n"):
        fence = FENCE.match(line.rstrip("\r"))
        if opened is None:
            if fence and not (fence["marks"][0] == "`" and "`" in fence["rest"]):
                opened, inside = (fence["marks"], fence["rest"].strip()), []
        elif fence and _closes(fence["marks"], fence["rest"], opened[0]):
            found.append(Block(opened[1].split(" ")[0], "\n".join(inside)))
            opened = None
        else:
            inside.append(line)
    return found


def _closes(marks: str, rest: str, opening: str) -> bool:
    return marks[0] == opening[0] and len(marks) >= len(opening) and not rest.strip()
