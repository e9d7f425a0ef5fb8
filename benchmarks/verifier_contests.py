"""What `benchmarks.verifiers` times: answers as a model gives them, a bomb of each kind, and a floor of the least work.

Of every three answers one is right as it is written, one is right in other words, and one is wrong.
"""

import json
import logging
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verifiers import Item

Floor = Callable[[Sequence[Item]], list[bool]]
"""Whether each answer is right, by the least work that could tell."""

WORDS = (
    *("we", "add", "both", "numbers", "first", "and", "then", "take", "the", "larger", "part", "away", "so", "that"),
    *("what", "is", "left", "over", "must", "be", "even", "because", "each", "of", "them", "was", "odd", "which"),
)
LONGEST = "so " * 40_000
"""More than a model writes."""
GERMAN = "wir addieren zuerst beide Zahlen und ziehen dann den kleineren Teil davon ab weil er gerade ist "


@dataclass(frozen=True, slots=True)
class Contest:
    """A verifier, what it judges, and its floor."""

    name: str
    config: dict[str, Any]
    item: Callable[[int], Item]
    """Answer number n; right unless n % 3 == 2."""
    bomb: Item
    floor_name: str
    floor: Floor
    deadline: float
    """Seconds that one verdict may take; of those that compute in this process, that it should."""


def prose(at: int, words: int = 120) -> str:
    """Reasoning of so many words, another one for each number."""
    draw = random.Random(at)
    return " ".join(draw.choice(WORDS) for _ in range(words))


def wrong(at: int) -> int:
    """What is added to the right answer."""
    return at % 3 == 2


# ---------------------------------------------------------------- texts


def compare(items: Sequence[Item]) -> list[bool]:
    """A bare comparison of strings."""
    return [item.response.rpartition("#")[2] == item.reference for item in items]


def answer(at: int) -> Item:
    """A number after a marker."""
    return Item("", f"{prose(at)}\n#{at + wrong(at)}", str(at))


def mathematics(at: int) -> Item:
    r"""A number in a box; one in three as a fraction."""
    told = rf"\frac{{{2 * at}}}{{2}}" if at % 3 == 1 else str(at + wrong(at))
    return Item("", rf"{prose(at)} \boxed{{{told}}}", str(at))


def algebra(at: int) -> Item:
    """A polynomial in another form."""
    return Item("", rf"{prose(at)} \boxed{{x(x+{at + wrong(at)})}}", f"x^2+{at}x")


TOWER = Item("", r"\boxed{9^{9^9}}", "3")
POWER = Item("", r"\boxed{(a+b+c+d+e+f)^{400}}", "x^2+x")


def math_verify_bare(items: Sequence[Item]) -> list[bool]:
    """math-verify in this process, with no limit of its own."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of the missing limit once
    return [
        bool(
            verify(
                parse(f"${item.reference}$", parsing_timeout=None),
                parse(item.response, parsing_timeout=None),
                timeout_seconds=None,
            )
        )
        for item in items
    ]


def countdown(at: int) -> Item:
    """A sum that reaches a number."""
    entry = {"question": "", "answer": f"{at} + 7", "metadata": {"numbers": [at, 7], "target": at + 7}}
    return Item("", f"{at} + 7" if not wrong(at) else f"{at} - 7", entry)


def countdown_bare(items: Sequence[Item]) -> list[bool]:
    """The data set's scorer in this process."""
    from verifiers.tasks import scorer

    score = scorer("countdown")
    return [score(item.response, item.reference) == 1.0 for item in items]


SCHEMA = {
    "type": "object",
    "properties": {
        "answer": {"type": "integer", "minimum": 0},
        "steps": {"type": "array", "items": {"type": "string", "pattern": "^([a-z]+ ?)+$"}, "maxItems": 20},
    },
    "required": ["answer", "steps"],
    "additionalProperties": False,
}


def document(at: int) -> Item:
    """JSON of a dozen steps."""
    value = {"answer": str(at) if wrong(at) else at, "steps": [prose(at + step, 6) for step in range(12)]}
    return Item("", json.dumps(value), None)


def schema_bare(items: Sequence[Item]) -> list[bool]:
    """jsonschema in this process."""
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(SCHEMA)
    return [validator.is_valid(json.loads(item.response)) for item in items]


def text(at: int) -> Item:
    """Prose; a wrong one says the same over and over."""
    return Item("", prose(at) if not wrong(at) else prose(at, 8) * 15, None)


def ngrams(items: Sequence[Item]) -> list[bool]:
    """Whether four fifths of the n-grams of words are different, as a set."""
    found = []
    for item in items:
        words = item.response.split()
        grams = list(zip(*(words[at:] for at in range(6)), strict=False))
        found.append(len(set(grams)) > 0.8 * len(grams))
    return found


def spoken(at: int) -> Item:
    """English; a wrong one is German."""
    return Item("", GERMAN * 7 if wrong(at) else prose(at), None)


def langid_bare(items: Sequence[Item]) -> list[bool]:
    """One classification of the whole text."""
    import py3langid

    return [str(py3langid.classify(item.response)[0]) == "en" for item in items]


# ---------------------------------------------------------------- programs


def printing(at: int) -> Item:
    """A short program, one test."""
    code = f"a, b = map(int, input().split())\nprint(a + b + {wrong(at)})  # {at}"
    tests = {"kind": "stdin", "cases": [{"input": f"{at} 7", "output": str(at + 7)}]}
    return Item("", f"{prose(at)}\n```python\n{code}\n```", tests)


def returning(at: int) -> Item:
    """A short function, one test."""
    code = f"def add(a, b):\n    return a + b + {wrong(at)}  # {at}"
    tests = {"kind": "function", "name": "add", "cases": [{"args": [at, 7], "returns": at + 7}]}
    return Item("", f"{prose(at)}\n```python\n{code}\n```", tests)


def spinning(tests: Item) -> Item:
    """A program that never ends."""
    return Item("", "```python\nwhile True: pass\n```", tests.reference)


def interpreter(threads: int) -> Floor:
    """A bare interpreter started on each program, so many at a time; nothing is contained."""

    def run(item: Item) -> bool:
        code, (case,) = item.response.split("```python\n")[1].rpartition("```")[0], item.reference["cases"]
        if item.reference["kind"] == "function":
            code += f"\nprint(add(*{case['args']}))"
        command = [sys.executable, "-I", "-S", "-c", code]
        done = subprocess.run(command, input=case.get("input", ""), capture_output=True, text=True, timeout=60)
        return done.stdout.strip() == str(case.get("output", case.get("returns")))

    def floor(items: Sequence[Item]) -> list[bool]:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(run, items))

    return floor


def programs(name: str, item: Callable[[int], Item], workers: int) -> Contest:
    """A contest of programs."""
    config = {"kind": "program", "timeout": 1.0, "workers": workers}
    return Contest(name, config, item, spinning(item(0)), "bare interpreter", interpreter(workers), 3.0)


# ---------------------------------------------------------------- a reward model


REWARD = "reward model, tiny"


def reward_model(folder: Path) -> Contest:
    """The tiny preset with a scalar head, in this process; the floor is its forward pass, one text at a time."""
    import torch

    from policies.config import TinyModel
    from policies.model_folder import materialise
    from policies.models import build, save_hf
    from verifiers.scalar_model import ScalarHead
    from verifiers.served import Exchange, Message

    torch.set_num_threads(1)
    tiny = TinyModel(context=2048)
    source = materialise(tiny, folder / "source")
    save_hf(build(source, tiny, seed=3, head="scalar"), source, folder / "reward")
    head = ScalarHead(str(folder / "reward"))

    def floor(items: Sequence[Item]) -> list[bool]:
        asked = [Exchange((Message("user", one.prompt),), one.response) for one in items]
        return [bool(head.read([one], 60.0)[0].outputs) for one in asked]

    config = {"kind": "reward_model", "path": str(folder / "reward"), "threshold": -1e9}
    bomb = Item("what?", "so " * 600, None)
    return Contest(
        REWARD,
        config,
        lambda at: Item("what?", prose(at, 40), None),
        bomb,
        "one text a pass",
        floor,
        60.0,
    )


def contests() -> list[Contest]:
    """All but the reward model, which has to be made first."""
    second = {"timeout": 1.0, "workers": 1}
    strings, bare = ("string comparison", compare), ("math-verify in-process", math_verify_bare)
    return [
        Contest("answer", {"kind": "answer"}, answer, Item("", LONGEST + "#1", "2"), *strings, 1.0),
        Contest(
            "format",
            {"kind": "format", "pattern": r"(\w+\s)*#\d+"},
            lambda at: Item("", answer(at).response.replace("#", "#" if not wrong(at) else "-"), answer(at).reference),
            Item("", "a " * 5000 + "!", "1"),
            *strings,
            1.0,
        ),
        Contest("math, numbers", {"kind": "math", **second}, mathematics, TOWER, *bare, 1.0),
        Contest("math, algebra", {"kind": "math", **second}, algebra, POWER, *bare, 1.0),
        Contest(
            "reasoning_gym countdown",
            {"kind": "reasoning_gym", "dataset": "countdown", **second},
            countdown,
            Item("", "7**8**7**8**7**8", countdown(8).reference),
            "its scorer in-process",
            countdown_bare,
            1.0,
        ),
        Contest(
            "json_schema",
            {"kind": "json_schema", "against": SCHEMA, **second},
            document,
            Item("", json.dumps({"answer": 1, "steps": ["a" * 60 + "!"]}), None),
            "jsonschema in-process",
            schema_bare,
            1.0,
        ),
        Contest(
            "repetition",
            {"kind": "repetition", "ngram": 6},
            text,
            Item("", LONGEST, None),
            "set of n-grams",
            ngrams,
            1.0,
        ),
        Contest(
            "language",
            {"kind": "language", "language": "en"},
            spoken,
            Item("", GERMAN * 1250, None),
            "one classification",
            langid_bare,
            1.0,
        ),
        programs("program, stdin", printing, 1),
        programs("program, function", returning, 1),
        programs("program, stdin, 2 cores", printing, 2),
        programs("program, function, 2 cores", returning, 2),
    ]


def workplace() -> "tempfile.TemporaryDirectory[str]":
    """A folder for what contests write."""
    return tempfile.TemporaryDirectory(prefix="verifiers-")
