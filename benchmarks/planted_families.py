"""Prompts planted in four families, by what keeps a policy from solving them, and a careless teacher's demonstrations.

A prompt is a marker and two digits, `z37=`; its answer is three letters, by a rule that the seed draws. The old rule
maps digits to the letters a to j, the new one to k to t. What the start model solves, trained as `start_text` says:

* mastered (`x`): the old rule, which the start model follows here;
* unreliable (`y`): the old rule, which the start model follows with each letter at `RELIABLE`;
* unreachable (`z`): the new rule, of which the start model has never seen a letter: it follows the old one;
* regressing (`z` too): the old rule, which the start model follows; whoever teaches the unreachable family its answers
  pulls these after them, for nothing but the digits tells the two apart.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.prompts import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import Trajectory
from teachers.demonstrations import DemonstrationSet, given

FAMILIES = ("mastered", "unreliable", "unreachable", "regressing")
OLD, NEW = "abcdefghij", "klmnopqrst"
MARKERS = {"mastered": "x", "unreliable": "y", "unreachable": "z", "regressing": "z"}
RELIABLE = 0.76
"""Probability of each of an unreliable answer's three letters in the start model's data: 0.44 of the whole."""
LETTERS = 3


@dataclass(frozen=True, slots=True)
class Task:
    """One planted prompt."""

    id: str
    text: str
    family: str
    answer: str
    started: str
    """What the start model is taught to answer; the same as `answer` but for the unreachable."""
    demonstration: str
    """The teacher's answer: wrong in one letter where the teacher was careless."""


def planted(seed: int, each: int, careless: float) -> tuple[Task, ...]:
    """`each` prompts of every family; a share `careless` of each family's demonstrations, rounded, is wrong.

    ValueError unless 1 <= each <= 50: two families share one marker's hundred pairs of digits.
    """
    if not 1 <= each <= 50:
        raise ValueError(f"planted: each is {each}; two families share 100 pairs of digits, so 1 to 50")
    draws = random.Random(f"planted/{seed}")
    old, new = _rule(draws, OLD), _rule(draws, NEW)
    pairs = {marker: draws.sample(range(100), 100) for marker in "xyz"}
    tasks: list[Task] = []
    for family in FAMILIES:
        own = pairs[MARKERS[family]]
        chosen, pairs[MARKERS[family]] = own[:each], own[each:]
        wrong = set(draws.sample(range(each), round(careless * each)))
        for index, pair in enumerate(chosen):
            digits = divmod(pair, 10)
            answer = _answer(digits, new if family == "unreachable" else old)
            shown = _slip(answer, draws) if index in wrong else answer
            text = f"{MARKERS[family]}{digits[0]}{digits[1]}="
            tasks.append(Task(f"{family}-{index}", text, family, answer, _answer(digits, old), shown))
    return tuple(tasks)


def start_text(task: Task, draws: random.Random) -> str:
    """One response that the start model is trained on."""
    if task.family != "unreliable":
        return task.started
    return "".join(letter if draws.random() < RELIABLE else _other(letter, draws) for letter in task.started)


def prompts_of(tasks: Sequence[Task], tokenizer: Tokenizer) -> list[Prompt]:
    """The tasks as prompts; the reference is the answer as JSON."""
    return [Prompt(one.id, one.text, tokenizer.prompt(one.text), f'"{one.answer}"', one.family) for one in tasks]


def demonstrations_of(tasks: Sequence[Task], prompts: Sequence[Prompt], tokenizer: Tokenizer) -> DemonstrationSet:
    """The teacher's answer to each prompt, right or not: nobody says which."""
    return DemonstrationSet.of(
        "teacher",
        [_given(one, prompt, tokenizer, one.demonstration) for one, prompt in zip(tasks, prompts, strict=True)],
    )


def start_data(
    tasks: Sequence[Task], prompts: Sequence[Prompt], tokenizer: Tokenizer, draws: random.Random
) -> list[Trajectory]:
    """One response to each prompt, as the start model is taught."""
    return [_given(one, prompt, tokenizer, start_text(one, draws)) for one, prompt in zip(tasks, prompts, strict=True)]


def _given(task: Task, prompt: Prompt, tokenizer: Tokenizer, text: str) -> Trajectory:
    return given(prompt, tokenizer.response(text), text, name="teacher", index=0)


def _rule(draws: random.Random, letters: str) -> list[str]:
    """For each of the answer's places, ten letters in a drawn order."""
    return ["".join(draws.sample(letters, len(letters))) for _ in range(LETTERS)]


def _answer(digits: tuple[int, int], rule: Sequence[str]) -> str:
    """The first digit's letter, the second's, and that of their sum modulo ten."""
    first, second = digits
    return "".join(rule[place][key] for place, key in enumerate((first, second, (first + second) % 10)))


def _slip(answer: str, draws: random.Random) -> str:
    place = draws.randrange(len(answer))
    return answer[:place] + _other(answer[place], draws) + answer[place + 1 :]


def _other(letter: str, draws: random.Random) -> str:
    """Another letter of the same rule."""
    return draws.choice([one for one in (OLD if letter in OLD else NEW) if one != letter])
