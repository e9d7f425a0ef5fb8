"""Worked running sums for reasoning-gym's chain_sum: one operation a line, the answer after a marker."""

import json
import re
from typing import Any

CHAIN = re.compile(r"(?<![\d.*/^+-])(?<![*/^+-] )-?\d+(?:\s*[+-]\s*-?\d+)*(?=\s*=)")
TERM = re.compile(r"(^|[+-])\s*(-?\d+)\s*")


def work(prompt: str, reference: str, marker: str) -> str:
    """`4 - 1 + 6 =` worked as `4 - 1 = 3`, `3 + 6 = 9`, `#### 9`, a line each.

    `reference` is the task's entry as JSON; its expression is read where it has one, else the prompt's. ValueError
    when neither holds a chain of sums.
    """
    terms = TERM.findall(_expression(prompt, reference))
    total = int(terms[0][1])
    lines = []
    for sign, term in terms[1:]:
        after = total + int(term) if sign == "+" else total - int(term)
        lines.append(f"{total} {sign} {term} = {after}")
        total = after
    return "\n".join([*lines, f"{marker} {total}"])


def _expression(prompt: str, reference: str) -> str:
    match _parsed(reference):
        case {"metadata": {"expression": str(expression)}} if CHAIN.match(f"{expression} ="):
            return expression.strip()
    chains: list[str] = CHAIN.findall(prompt)
    if not chains:
        raise ValueError("the chain solver finds no sum such as '4 - 1 + 6 =' in the prompt")
    return chains[-1]


def _parsed(reference: str) -> Any:
    try:
        return json.loads(reference)
    except json.JSONDecodeError:
        return None
