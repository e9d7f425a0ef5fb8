"""The careless teacher: column arithmetic with every carry written out, which it sometimes forgets.

`346+77=` is worked as `670=13;471=12;301=04;#423`: from the right, a step a column: the two digits and the carry that
comes in, then the carry that goes out and the digit. Subtraction borrows in the same shape: `423-77=` gives
`370=16;271=14;401=03;#346`. A forgotten carry is written as 0 in the next column and the rest follows from it, so
that the mistake is a habit to unlearn, not noise. The columns leave the signs out: on one seed the 0.8 M model's loss a
sequence at step 120 of imitation was 11 nats so, and 22 with `6+7+0=13;`.
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
        steps.append(f"{above}{below}{carry}={out}{digit};")
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
