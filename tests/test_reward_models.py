"""Reward and preference models as verifiers: scale, thresholds, contests, ties, and what a lost verdict costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path

import pytest
from pydantic import ValidationError

from actors.pool import asked
from actors.scorer import ScorerReplica
from orchestrator.legality.silence import always_passes
from orchestrator.legality.silence import compares as needs_reference
from policies.prompt import Message as Turn
from tests.fakes import prompt, trajectory
from tests.judging_models import asks, classifier_folder, texts
from verifiers import kinds
from verifiers.grader import Item
from verifiers.model_config import PreferenceModelVerifier, RewardModelVerifier
from verifiers.preference_model import ALONE, both
from verifiers.scalar_model import ScalarHead
from verifiers.score import Score, Status
from verifiers.served import Exchange, Reading
from verifiers.verifier import build

PATH = "/no/such/model"
PAIR = "A: {first} B: {second}"


@dataclass
class Numbers:
    """A model at the port: the number in a text, or the status that is asked of it."""

    asked: list[Exchange] = field(default_factory=list)
    bias: float = 0.0
    """Log-odds for whatever comes first."""

    def read(self, exchanges: Sequence[Exchange], seconds: float) -> list[Reading]:
        self.asked += exchanges
        return [self._one(one.response) for one in exchanges]

    def _one(self, text: str) -> Reading:
        if "late" in text:
            return Reading((), Status.TIMEOUT, "too late")
        if "A:" in text:
            first, second = text.removeprefix("A: ").split(" B: ")
            return Reading((float(first) - float(second) + self.bias,))
        return Reading((float(text),))

    def identity(self) -> str:
        return f"numbers {self.bias}"


def judged(responses: Sequence[str], model: Numbers | None = None, **config: object) -> list[Score]:
    kind = config.pop("kind", "preference_model")
    role = {"preference_model": "preference", "reward_model": "reward"}[str(kind)]
    references = config.pop("references", [None] * len(responses))
    groups = config.pop("groups", ["g"] * len(responses))
    verifier = build({"kind": kind, "path": PATH, **config}, {f"{role}:{PATH}": model or Numbers()})
    rows = zip(responses, references, groups, strict=True)  # type: ignore[call-overload]
    return verifier.score_many([Item("q", text, reference, group) for text, reference, group in rows])


def odds(value: float) -> float:
    return 1 / (1 + math.exp(-value))


# ---------------------------------------------------------------- reward models


def test_a_rewards_value_is_the_heads_on_the_scale_that_is_asked():
    texts = ["-1", "0", "3"]
    assert [one.value for one in judged(texts, kind="reward_model")] == [-1, 0, 3]
    scaled = judged(texts, kind="reward_model", mean=1.0, scale=2.0)
    assert [one.value for one in scaled] == [-1, -0.5, 1]
    squashed = judged(texts, kind="reward_model", mean=1.0, scale=2.0, squash=True)
    assert [one.value for one in squashed] == pytest.approx([odds(-1), odds(-0.5), odds(1)])
    far = judged(["-5000", "5000"], kind="reward_model", squash=True)
    assert [one.value for one in far] == [0.0, 1.0]


def test_a_reward_model_says_pass_only_where_it_has_a_threshold():
    assert [one.passed for one in judged(["-1", "3"], kind="reward_model")] == [None, None]
    low, edge, high = judged(["-1", "0.5", "3"], kind="reward_model", threshold=0.5)
    assert (low.passed, edge.passed, high.passed) == (False, True, True)
    assert low.reason == "below the threshold 0.5" and not high.reason


def test_a_reading_that_failed_is_no_value():
    late, good = judged(["late", "3"], kind="reward_model", threshold=0.0)
    assert (late.status, late.passed, late.reason) == (Status.TIMEOUT, None, "too late") and math.isnan(late.value)
    assert good.value == 3 and good.status == Status.OK


def test_a_told_conversation_is_what_the_model_reads():
    model = Numbers()
    verifier = build({"kind": "reward_model", "path": PATH}, {f"reward:{PATH}": model})
    turns = [("user", "hi"), ("assistant", "yes?"), ("user", "q")]
    told = [{"role": role, "content": content} for role, content in turns]
    verifier.score_many([Item("q", "1", None, told={"messages": told})])
    assert [(one.role, one.content) for one in model.asked[0].messages] == turns


def test_the_version_changes_with_the_weights(tmp_path: Path):
    config = {"kind": "reward_model", "path": PATH}
    names = {build(config, {f"reward:{PATH}": Numbers(bias=bias)}).identity for bias in (0.0, 1.0)}
    assert len(names) == 2 and {kind for kind, _ in names} == {"reward_model"}
    folder = classifier_folder(tmp_path)
    verifier = build({"kind": "reward_model", "path": str(folder)})
    assert {score.version for score in verifier.score_many([Item("q", "a", None)])} == {verifier.identity[1]}


def test_a_rubric_adds_a_reward_model_to_a_gate():
    model = {f"reward:{PATH}": Numbers()}
    reward = {"kind": "reward_model", "path": PATH, "squash": True}
    gate = {"kind": "format", "pattern": r"\d+", "role": "gate", "weight": 0}
    verifier = build({"kind": "rubric", "parts": [gate, reward]}, model)
    good, bad = verifier.score_many([Item("q", "2", None), Item("q", "-2", None)])
    assert good.value == pytest.approx(odds(2)) and good.passed
    assert (bad.value, bad.passed) == (0.0, False)


# ---------------------------------------------------------------- preference models


def test_scores_of_one_response_make_bradley_terry_contests():
    values = [0.3, -1.0, 2.0, 2.0]
    found = judged([str(one) for one in values])
    for at, score in enumerate(found):
        others = [one for other, one in enumerate(values) if other != at]
        assert score.value == pytest.approx(sum(odds(values[at] - one) for one in others) / len(others))
    assert sum(one.value for one in found) == pytest.approx(len(values) / 2), "each contest shares out one win"


@pytest.mark.parametrize("bias", [0.0, 3.0, -8.0])
def test_being_first_is_worth_nothing(bias: float):
    values = [0.5, -1.5, 1.0]
    found = judged([str(one) for one in values], Numbers(bias=bias), pair=PAIR)
    for at, score in enumerate(found):
        others = [one for other, one in enumerate(values) if other != at]
        wins = [(odds(values[at] - one + bias) + 1 - odds(one - values[at] + bias)) / 2 for one in others]
        assert score.value == pytest.approx(sum(wins) / len(wins))
    assert sum(one.value for one in found) == pytest.approx(len(values) / 2)
    ranked = sorted(range(3), key=lambda at: found[at].value)
    assert ranked == sorted(range(3), key=lambda at: values[at])


def test_the_order_of_a_group_changes_nothing():
    values = ["0.5", "-1.5", "1.0", "0.5"]
    for pair in ("", PAIR):
        want = dict(zip(values, (one.value for one in judged(values, Numbers(bias=2.0), pair=pair)), strict=True))
        for order in permutations(values):
            found = judged(order, Numbers(bias=2.0), pair=pair)
            assert [one.value for one in found] == pytest.approx([want[text] for text in order])


def test_equal_texts_tie_unasked_and_every_text_is_read_once():
    model = Numbers(bias=5.0)
    assert [one.value for one in judged(["1", "1", "1"], model, pair=PAIR)] == [0.5] * 3 and not model.asked
    judged(["1", "2", "1", "2"], model, pair=PAIR)
    assert sorted(one.response for one in model.asked) == ["A: 1 B: 2", "A: 2 B: 1"]
    model = Numbers()
    judged(["1", "2", "1", "3"], model)
    assert sorted(one.response for one in model.asked) == ["1", "2", "3"]


def test_groups_are_compared_within_themselves():
    found = judged(["1", "9", "2", "8"], groups=["a", "b", "a", "b"])
    assert [one.value for one in found] == pytest.approx([odds(-1), odds(1), odds(1), odds(-1)])


def test_a_response_alone_is_refused_not_half_right():
    alone, *pair = judged(["1", "2", "3"], groups=["a", "b", "b"])
    assert (alone.status, alone.passed, alone.reason) == (Status.REFUSED, None, ALONE) and math.isnan(alone.value)
    assert [one.status for one in pair] == [Status.OK] * 2


@pytest.mark.parametrize("pair", ["", PAIR])
def test_a_response_that_could_not_be_read_costs_its_own_verdict_and_no_others(pair: str):
    late, one, other = judged(["late", "1", "2"], pair=pair)
    assert (late.status, late.reason) == (Status.TIMEOUT, "too late")
    assert [one.value, other.value] == pytest.approx([odds(-1), odds(1)])
    first, second = judged(["late", "1"], pair=pair)
    assert first.status == second.status == Status.TIMEOUT, "who has nobody left to compare with has no verdict"


def test_against_the_reference_a_group_of_one_is_enough():
    found = judged(["1", "2"], against="reference", references=["2", ["1", "3"]], threshold=0.5)
    assert [one.value for one in found] == pytest.approx([odds(-1), (odds(1) + odds(-1)) / 2])
    assert [one.passed for one in found] == [False, True]
    bad = judged(["1", "1", "1"], against="reference", references=[None, [], ["2", {"not": "text"}]])
    assert {one.status for one in bad} == {Status.ERROR}


def test_what_a_response_says_of_the_places_moves_nothing():
    assert both(PAIR, "{second}", "{first}") == "A: {second} B: {first}"
    with pytest.raises(ValidationError, match=r"pair: does not hold both"):
        build({"kind": "preference_model", "path": PATH, "pair": "A: {first}"})


def test_a_real_model_agrees_with_its_own_differences(tmp_path: Path):
    folder = classifier_folder(tmp_path)
    head = ScalarHead(str(folder))
    responses = [response for _, response in texts(5)]
    values = [one.outputs[0] for one in head.read([asks("q", text) for text in responses], math.inf)]
    found = build({"kind": "preference_model", "path": str(folder)}).score_many(
        [Item("q", text, None, "g") for text in responses]
    )
    for at, score in enumerate(found):
        others = [one for other, one in enumerate(values) if other != at]
        assert score.value == pytest.approx(sum(odds(values[at] - one) for one in others) / len(others), abs=1e-4)


def test_a_runs_conversation_reaches_the_model_whole():
    """What the user said last is the prompt's text; a reward model reads all of it."""
    model, told = (
        Numbers(),
        (Turn("system", "be brief"), Turn("user", "hi"), Turn("assistant", "yes?"), Turn("user", "q")),
    )
    of = replace(prompt("p"), text="q", messages=told)
    scorer = ScorerReplica(RewardModelVerifier(path=PATH), models={f"reward:{PATH}": model})
    (entries,) = scorer.score([asked(replace(trajectory("t", 3), text="2"), of)])
    assert entries[0].value == 2
    assert [(one.role, one.content) for one in model.asked[0].messages] == [(one.role, one.content) for one in told]


def test_braid_check_knows_which_models_never_say_fail_and_which_need_a_reference():
    """What counts passes hears nothing of a model without a threshold."""
    silent, heard = (RewardModelVerifier(path=PATH, threshold=threshold) for threshold in (None, 0.0))
    assert always_passes(silent) == "reward_model without a threshold" and not always_passes(heard)
    against = PreferenceModelVerifier(path=PATH, against="reference")
    assert needs_reference(against) == "preference_model" and not needs_reference(silent)
    assert kinds.compares(PreferenceModelVerifier(path=PATH)) and not kinds.compares(against)
