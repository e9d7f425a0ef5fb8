"""Scores of steps and parts: refused where nobody gives them, where two do, and where their writer is not there."""

import pytest

from orchestrator.label_config import StepLabels
from orchestrator.legality import Surroundings
from orchestrator.legality.steps import speaks
from orchestrator.load import read
from orchestrator.plan import plan
from policies.bad_input import BadInput
from policies.config import PartCredit, ProcessCredit
from tests.compositions import findings, idle, recipe, strand
from verifiers.config import AnswerVerifier, FormatVerifier, RubricVerifier, StepsVerifier

STEPWISE = strand("r", credit=ProcessCredit())
STEPS = StepsVerifier(step=FormatVerifier(), outcome=AnswerVerifier())
SAMPLED = StepLabels()


def of(one, verifier=None, labels=None, level="error", teacher=None, **known):
    around = Surroundings(verifier=verifier, step_labels=labels, **known)
    made = recipe(one, teacher=teacher)
    return [
        (found.text, found.fix) for found in findings(made, around) if found.rule == "views" and found.level == level
    ]


def rubric(*names):
    return RubricVerifier(parts=tuple(STEPS.model_copy(update={"name": name}) for name in names))


def test_scores_that_nobody_gives_are_refused():
    ((text, fix),) = of(STEPWISE, AnswerVerifier())
    assert text == "credit process reads scores named step, and the verifier answer gives no spans"
    assert fix == "write step_labels: {kind: monte_carlo}, or verifier kind steps or prm"
    assert not of(STEPWISE, STEPS) and not of(STEPWISE, None)
    assert not of(STEPWISE, AnswerVerifier(), SAMPLED)
    ((text, _),) = of(STEPWISE, rubric("part"))
    assert text.endswith("the verifier rubric gives spans named part")
    assert not of(strand("r", credit=ProcessCredit(score="part")), rubric("part"))
    assert of(strand("r", credit=ProcessCredit(score="part")), AnswerVerifier(), SAMPLED), "labels are named step"
    assert not of(idle("r", credit=ProcessCredit()), AnswerVerifier()), "nobody reads it"


def test_parts_come_of_a_rubric():
    own = strand("r", credit=PartCredit(kl=0))
    ((text, fix),) = of(own, STEPS)
    assert text.endswith("reads scores named part, and the verifier steps gives spans named step")
    assert fix == "write a rubric's part named part of kind steps"
    assert not of(own, rubric("part"))


def test_names_are_those_that_the_scorer_gives():
    nested = RubricVerifier(parts=(rubric("a", "b").model_copy(update={"name": "in"}), FormatVerifier(), STEPS))
    from actors.scorer import ScorerReplica

    said = ScorerReplica(nested).score([("t", "", "1\n2", '"1"')])[0]
    assert {entry.name for entry in said if entry.start is not None} == set(speaks(nested)) == {"in/a", "in/b", "steps"}
    assert list(speaks(STEPS)) == ["step"] and not list(speaks(AnswerVerifier()))


def test_two_who_label_the_same_are_refused():
    ((text, fix),) = of(STEPWISE, STEPS, SAMPLED)
    assert "step_labels and the verifier steps both give scores named step" in text
    assert "remove one" in fix
    assert not of(STEPWISE, rubric("part"), SAMPLED)


def test_the_writer_must_be_there():
    asked = StepLabels(writer="teacher")
    ((text, _),) = of(STEPWISE, AnswerVerifier(), asked)
    assert "step_labels.writer is teacher, and the recipe has none" in text
    assert not of(STEPWISE, AnswerVerifier(), asked, teacher="models/big")
    assert not of(STEPWISE, AnswerVerifier(), StepLabels(writer="reference"))


def test_progress_under_the_policy_itself_and_a_budget_that_holds_nothing_are_doubted():
    ((text, _),) = of(STEPWISE, None, StepLabels(kind="progress"), "warning")
    assert "the prover is to be another" in text
    assert not of(STEPWISE, None, StepLabels(kind="progress", writer="reference"), "warning")
    ((text, fix),) = of(STEPWISE, None, StepLabels(tokens=8 * 64 - 1), "warning")
    assert "tokens is 511, and the completions of one prefix may take 512" in text
    assert "above 512" in fix
    assert not of(STEPWISE, None, StepLabels(tokens=512), "warning")


FILE = "name: x\nverifier: {{kind: answer}}\n{labels}stages: [{{name: one, steps: 3, recipe: {{kind: {recipe}}}}}]\n"


@pytest.mark.parametrize(
    ("recipe", "labels", "expected"),
    [
        ("pav", "", "credit process reads scores named step, and the verifier answer gives no spans"),
        ("grpo", "step_labels: {}\n", "x.yaml: step_labels: no stage's credit reads scores named step"),
        ("pav", "step_labels: {best_of: 9}\n", "best_of is 9, and 8 completions are drawn"),
        ("pav", "step_labels: {steps: {at: length}}\n", "set it to 32, say"),
    ],
)
def test_a_pipeline_is_refused_with_the_key(tmp_path, recipe, labels, expected):
    (tmp_path / "x.yaml").write_text(FILE.format(recipe=recipe, labels=labels))
    with pytest.raises(BadInput) as caught:
        read(tmp_path / "x.yaml")
    assert expected in "\n".join(caught.value.lines)


def test_the_plan_says_who_labels(tmp_path):
    told = {
        "step_labels: {}\n": ("rollout x 1 (vllm)", "each step's worth, by 8 completions; the scorer judges them"),
        "step_labels: {kind: progress, writer: reference, best_of: 4}\n": (
            "frozen x 1 (torch)",
            "what each step adds, by 8 completions of the reference, the best of 4; the scorer judges them",
        ),
    }
    for labels, expected in told.items():
        (tmp_path / "x.yaml").write_text(FILE.format(recipe="pav", labels=labels))
        found = plan(read(tmp_path / "x.yaml"))
        (view,) = [one for one in found.stages[0].views if one.name == "step_scores"]
        assert (view.supplier, view.note) == expected
        assert ("frozen" in found.actors) == ("frozen" in view.supplier)
        assert found.legal
