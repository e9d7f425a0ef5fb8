"""`braid check` says before a run what an environment cannot do, and what a recipe asks of one that it lacks."""

from pathlib import Path

import pytest

from orchestrator import recipes
from orchestrator.config import RecipeChoice, Stage
from orchestrator.legality import Surroundings, judge
from orchestrator.load import read
from policies.bad_input import BadInput
from verifiers.environments.config import AnyEnvironment, RetryEnvironment, ToolsEnvironment

GOOD = """\
name: good
environment: {kind: tools, calls: {form: plain, open: "(", close: ")", before: "=", after: ";"}}
stages:
  - {name: one, recipe: {kind: grpo}, steps: 2}
"""


def faults(folder: Path, text: str, *sets: str) -> list[str]:
    path = folder / "some.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        read(path, sets)
    except BadInput as error:
        return [line.partition("some.yaml")[2].removeprefix(" with --set: ").removeprefix(": ") for line in error.lines]
    return []


def test_the_good_one_is_good(tmp_path: Path) -> None:
    assert faults(tmp_path, GOOD) == []
    assert faults(tmp_path, GOOD, "environment=null") == []


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (["environment.kind=tool"], "environment: unknown kind (got 'tool'); did you mean 'tools'?"),
        (["environment.turns=0"], "environment.turns: too small (got 0)"),
        (["environment.tokens=128"], "environment.tokens: is never reached: model.context is 128 (got 128)"),
        (["verifier.kind=environment"], "verifier: asks the environment, and tools give no reward"),
        (
            ["verifier.kind=environment", "environment=null"],
            "verifier: asks the environment, and there is none (got 'environment'); add environment",
        ),
        (
            ["environment={kind: retry}", "verifier.kind=environment"],
            "verifier: retry asks the verifier, which asks the environment",
        ),
        (
            ["environment={kind: tools, tools: [{kind: search, path: no.jsonl}]}"],
            "environment.tools[0].path: no such file",
        ),
        (["environment={kind: custom, path: no.py, name: Game}"], "environment.path: cannot be read"),
        (["environment={kind: custom, path: game.py, name: Gane}"], "environment.name: game.py has no such class"),
        (["environment={kind: custom, path: game.py, name: Half}"], "environment.name: the class has no start"),
        (
            ["demonstrations={kind: tool_caller}", "environment=null"],
            "demonstrations.kind: calls the environment's calculator, and there is none",
        ),
        (["stages.one.recipe.kind=score"], "environment of second: source.turn is a second turn"),
        (["stages.one.recipe.kind=hint_prefix"], "source.prefix begins the response"),
    ],
)
def test_what_cannot_be_is_told(sets: list[str], expected: str, tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text(
        "class Game:\n    def start(self, task): ...\n    def step(self, text): ...\n"
        "class Half:\n    def step(self, text): ...\n"
    )
    found = faults(tmp_path, GOOD, *sets)
    assert any(expected in line for line in found), found
    assert faults(tmp_path, GOOD, "environment={kind: custom, path: game.py, name: Game}") == []


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        (None, "the response has one turn"),
        (ToolsEnvironment(), "tools give none"),
        (RetryEnvironment(), ""),
    ],
)
def test_turns_are_rewarded_by_a_second_turn_or_by_an_environment(
    environment: AnyEnvironment | None, told: str
) -> None:
    """SCoRe's second strand without its own turn: its credit and its terms read turns."""
    score = recipes.load("score", stage="one")
    second = score.strands[1]
    alone = second.model_copy(update={"source": second.source.model_copy(update={"turn": "", "parent": ""})})
    stage = Stage(name="one", recipe=RecipeChoice(kind="score"), steps=1)
    found = judge(stage, score.model_copy(update={"strands": (alone,)}), Surroundings(environment=environment))
    errors = [one.text for one in found if one.level == "error"]
    assert any(told in text for text in errors) if told else not errors, errors
