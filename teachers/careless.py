"""The careless teacher: column arithmetic with every carry written out, which it sometimes forgets.

`346+77=` is worked as `6+7+0=13;4+7+1=12;3+0+1=04;#423`: a column a step from the right, each `digit+digit+carry=`
carry and digit, so that a column depends on four characters at fixed places. Subtraction borrows in the same shape:
`423-77=` gives `3-7-0=16;2-7-1=14;4-0-1=03;#346`. A forgotten carry is written as 0 in the next column and the
rest follows from it, so that the mistake is a habit to unlearn, not noise.
"""

import random
import re

PROBLEM = re.compile(r"(\d+)([+-])(\d+)=")


def work(prompt: str, carelessness: float, draws: random.Random) -> str:
    """The worked solution; each carry or borrow is forgotten with probability `carelessness`.

    ValueError unless the prompt is `a+b=`, or `a-b=` with a >= b.
    """
    match = PROBLEM.fullmatch(prompt.strip())
    if match is None:
        raise ValueError("the careless teacher works a+b= and a-b= alone")
    first, sign, second = match.groups()
    if sign == "-" and int(first) < int(second):
        raise ValueError("the careless teacher subtracts only the smaller from the larger")
    width = max(len(first), len(second))
    steps: list[str] = []
    digits = ""
    carry = 0
    for above, below in zip(reversed(first.zfill(width)), reversed(second.zfill(width)), strict=True):
        out, digit = _column(int(above), int(below), carry, sign)
        steps.append(f"{above}{sign}{below}{sign}{carry}={out}{digit};")
        digits = f"{digit}{digits}"
        carry = 0 if out and draws.random() < carelessness else out
    answer = int(f"{carry}{digits}" if sign == "+" else digits)
    return f"{''.join(steps)}#{answer}"


def _column(above: int, below: int, carry: int, sign: str) -> tuple[int, int]:
    """(carry or borrow, digit) of one column."""
    if sign == "+":
        return divmod(above + below + carry, 10)
    borrowed, digit = divmod(above - below - carry, 10)
    return -borrowed, digit
