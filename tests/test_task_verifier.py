"""reasoning-gym's own scorers, every one: entries survive JSON, and no answer is run as Python."""

import ast
import json

import pytest
import reasoning_gym
from hypothesis import given
from hypothesis import strategies as st
from reasoning_gym.factory import DATASETS

import verifiers
from verifiers import Status
from verifiers.task_screens import FUNCTIONS, SCREENS, only_constants, plain_expression, screen
from verifiers.tasks import work

NAMES = sorted(set(DATASETS) - {"composite"})
NO_ANSWER = {
    "boxnet": None,
    "graph_color": lambda entry: json.dumps(entry["metadata"]["possible_answer"]),
    "propositional_logic": None,
    "rubiks_cube": lambda entry: entry["metadata"]["example_correct_answer"],
    "rush_hour": None,
}
"""Data sets whose entries name no answer, for many are right, and where one is to be found. Without one, what other
answers get must at least be what it was before the entry became JSON. (`composite` is a mixture, and refused.)"""

RAISING = {"boxnet", "game_of_life", "prime_factorization"}
"""Data sets whose scorers raise on an answer that they cannot read."""


def entries(name, size=2):
    return list(reasoning_gym.create_dataset(name, size=size, seed=7))


def travelled(entry):
    """As prompts are written to a run's files."""
    return json.loads(json.dumps(entry, default=str))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_passes_its_own_answer(name):
    judged = reasoning_gym.create_dataset(name, size=2, seed=7)
    for entry in judged:
        find = NO_ANSWER.get(name, lambda entry: entry["answer"])
        own = [find(entry)] if find else []
        for answer in own:
            assert work(name, {"answer": answer, "reference": travelled(entry)}) == 1.0
        for answer in [*own, "", "0", "[]", "{}", "nothing", entry["question"]]:
            found = work(name, {"answer": answer, "reference": travelled(entry)})
            if isinstance(found, float):
                assert found == judged.score_answer(answer, entry)
            else:
                assert found["value"] == 0 and (screen(name, answer, entry) or name in RAISING), found


@pytest.mark.parametrize("name", ["arc_agi", "countdown", "n_queens", "string_insertion", "rubiks_cube"])
def test_the_verifier_passes_what_is_right_and_what_is_nothing_fails(name):
    built = verifiers.build({"kind": "reasoning_gym", "dataset": name, "workers": 1, "timeout": 30})
    for entry in entries(name):
        answer = NO_ANSWER.get(name, lambda entry: entry["answer"])(entry)
        assert built.score("", answer, json.dumps(entry, default=str)).passed
        wrong = built.score("", "nothing of the kind", travelled(entry))
        assert (wrong.passed, wrong.status) == (False, Status.OK) and wrong.reason
    built.close()


# ---------------------------------------------------------------- answers that are programs

ATTACKS = [
    "__import__('os').system('touch {path}')",
    "open('{path}', 'w')",
    "[open('{path}', 'w')]",
    "[c for c in [open('{path}', 'w')]]",
    "(lambda: open('{path}', 'w'))()",
    "f\"{{open('{path}', 'w')}}\"",
    "ｏｐｅｎ('{path}', 'w')",
    "\n\t open('{path}', 'w')",
    "(open)('{path}', 'w')",
    "1 if open('{path}', 'w') else 2",
    "1+open('{path}','w').fileno()",
    "x.__class__.__base__.__subclasses__()",
]


@pytest.mark.parametrize("name", sorted(SCREENS))
def test_no_answer_is_run(name, tmp_path):
    path = tmp_path / "run"
    entry = travelled(entries(name, 1)[0])
    for attack in ATTACKS:
        found = work(name, {"answer": attack.format(path=path), "reference": entry})
        assert not path.exists(), attack
        assert (found if isinstance(found, float) else found["value"]) < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_other_data_set_runs_an_answer(name, tmp_path):
    entry = travelled(entries(name, 1)[0])
    for attack in ATTACKS[:4]:
        work(name, {"answer": attack.format(path=tmp_path / "run"), "reference": entry})
        assert not (tmp_path / "run").exists(), attack


@pytest.mark.parametrize("name", sorted(SCREENS))
def test_the_scorers_own_names_are_no_answer(name):
    entry = travelled(entries(name, 1)[0])
    attacks = ["oracle_answer", "entry['answer']", "[oracle_answer]", "[*oracle_answer]", "list(oracle_answer)"]
    for attack in [*attacks, "entry", "valid_solutions", "valid_solutions[0]", "metadata", "user_answer"]:
        found = work(name, {"answer": attack, "reference": entry})
        assert isinstance(found, dict) and found["value"] == 0 and found["reason"], attack


EXPRESSIONS = ["3*(4 + 5) - 6/2", "2*x**2 - x + C", "sin(x)*exp(-x) + log(x)", "1.5e-3*x^2", "sqrt(2)/2*pi", "Abs(x)"]
EXPRESSIONS += ["5!", "-x", "", "_", ".5 + 1."]
PROGRAMS = ["open", "(open)(5)", "x.real", "1..real", "3 .real", "x[0]", "'a'", "lambda x: x", "exec", "__import__"]
PROGRAMS += ["eval(1)", "x;y", "x:=1", "ｘ", "chr(5)", "S.One", "\\frac12", "0x1F", "{x}", "5 if x else 6", "a_b"]


@pytest.mark.parametrize("answer", EXPRESSIONS)
def test_an_expression_is_an_expression(answer):
    assert plain_expression(answer, {}) == ""


@pytest.mark.parametrize("answer", PROGRAMS)
def test_what_is_more_than_an_expression_is_refused(answer):
    assert plain_expression(answer, {})


PLAIN = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Constant, ast.Name, ast.Call, ast.Load)


@given(st.text(alphabet="openxsi12.()_'[] *+", max_size=12))
def test_a_plain_expression_has_only_plain_names(answer):
    if plain_expression(answer, {}):
        return
    try:
        tree = ast.parse(answer.strip(), mode="eval")
    except SyntaxError:
        return
    for node in ast.walk(tree):
        assert isinstance(node, (*PLAIN, ast.Tuple, ast.Starred)), ast.dump(node)
        assert not isinstance(node, ast.Name) or len(node.id) == 1 or node.id in FUNCTIONS
        assert not isinstance(node, ast.Constant) or isinstance(node.value, int | float)


@given(st.recursive(st.integers() | st.text(max_size=3), lambda below: st.lists(below, max_size=3), max_leaves=9))
def test_lists_of_constants_are_let_through(value):
    assert only_constants(repr(value), {}) == ""


def test_twenty_four_is_made_of_the_puzzles_numbers():
    entry = travelled(entries("puzzle24", 1)[0])
    assert work("puzzle24", {"answer": entry["answer"], "reference": entry}) == 1.0
    for answer, says in (("6*4*1*1", "numbers"), ("24", "numbers"), ("open", "name")):
        if sorted(entry["metadata"]["numbers"]) != [1, 1, 4, 6]:
            assert says in work("puzzle24", {"answer": answer, "reference": entry})["reason"]
    near = {"answer": "", "metadata": {"numbers": [7, 7, 2, 1]}}
    assert "not 24" in screen("puzzle24", "7*7/2*1", near)  # 24.5, which the scorer rounds down


def test_an_answer_that_a_scorer_cannot_read_is_wrong_and_an_entry_that_it_cannot_read_is_no_verdict():
    built = verifiers.build({"kind": "reasoning_gym", "dataset": "prime_factorization", "workers": 1})
    entry = travelled(entries("prime_factorization", 1)[0])
    score = built.score("", "two and three", entry)
    assert (score.value, score.status) == (0.0, Status.OK) and "cannot read the answer" in score.reason
    assert built.score("", "two and three", {**entry, "answer": "x", "metadata": {}}).status == Status.ERROR
    built.close()


def test_a_mixture_is_refused_by_name():
    with pytest.raises(ValueError, match="each data set by its own name"):
        verifiers.build({"kind": "reasoning_gym", "dataset": "composite"})
