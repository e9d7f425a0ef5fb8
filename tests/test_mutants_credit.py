"""The oracles of credit and selection can fail: each planted fault is caught by one of them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests import credit_cases, select_cases
from tests.planted import planted

MODULES = ("credit_views", "credit_group", "credit_token", "credit_spans", "credit_step", "credit", "select")

MUTANTS = {
    "deviation of a population": ("credit_group", "ddof=1", "ddof=0"),
    "own reward in its baseline": (
        "credit_group",
        "- np.where(counted_G, rewards_G, 0.0)) / (len(counted) - counted_G)",
        ") / len(counted)",
    ),
    "baseline added": ("credit_group", "(rewards_G - _baseline", "(rewards_G + _baseline"),
    "eps lost": ("credit_group", " + credit.eps", ""),
    "the mean does not divide": ("credit_group", "return 1.0 / mean if", "return mean if"),
    "length_mean weighs alike": ("credit_group", "weights=lengths if lengths.any() else None", "weights=None"),
    "lengths count observations": ("credit_group", "one.train_mask.sum() for one", "len(one.tokens) for one"),
    "greedy is compared with itself": ("credit_group", "    advantages_G[anchor_G] = 0.0\n", ""),
    "greedy means hot": ("credit_group", "temperature == 0", "temperature > 0"),
    "overlong rewards length": ("credit_group", "return -min(", "return min("),
    "overlong has no floor": ("credit_group", ", 0.0), 1.0)", ", 0.0), 9.0)"),
    "overlong starts at the length": ("credit_group", "(shape.length - shape.cache)", "shape.length"),
    "penalty added": ("credit_group", "rewards_G[index] -= credit.kl", "rewards_G[index] += credit.kl"),
    "suffix penalty added": ("credit_group", "- credit.kl * suffix_sum", "+ credit.kl * suffix_sum"),
    "children are the siblings": ("credit_group", "one.parent_id == parent.id", "one.parent_id == parent.parent_id"),
    "sign at the threshold": ("credit_group", "reward(one) > credit.threshold", "reward(one) >= credit.threshold"),
    "prefix in place of suffix": ("credit_views", "np.cumsum(values_T[::-1])[::-1]", "np.cumsum(values_T)"),
    "k1 the wrong way round": ("credit_views", "behavior - reference, 0.0", "reference - behavior, 0.0"),
    "gap inverted": ("credit_token", "target - behavior, 0.0", "behavior - target, 0.0"),
    "extrapolation from the teacher": (
        "credit_token",
        "base + credit.extrapolation * (target",
        "target + credit.extrapolation * (target",
    ),
    "suffix sum for its mean": ("credit_token", "suffix_sum(trajectory.train_mask.astype(np.float64))", "1.0"),
    "outcome lost": ("credit_token", "credit.scale * gap + outcome", "credit.scale * gap"),
    "outcome on the first token": ("credit_token", "(trajectory.train_mask)[-1]]", "(trajectory.train_mask)[0]]"),
    "lambda lost": ("credit_token", "gamma * lam * later_advantage", "gamma * later_advantage"),
    "gamma lost": ("credit_token", "+ gamma * later_value", "+ later_value"),
    "observations have values": ("credit_token", "np.flatnonzero(trained_T)[::-1]", "np.arange(len(trained_T))[::-1]"),
    "returns without values": ("credit_token", "advantage_T + values_T", "advantage_T"),
    "steps up to here": ("credit_spans", "worth_T[: span.end] += score", "worth_T[span.start :] += score"),
    "steps not normalised": ("credit_spans", "(float(centred.std(ddof=1)) + credit.eps)", "1.0"),
    "the best step": ("credit_spans", "min(scores, default=0.0)", "max(scores, default=0.0)"),
    "alpha on the outcome": (
        "credit_spans",
        "credit.scale * steps_T + outcome",
        "steps_T + credit.scale * outcome",
    ),
    "spans in the order they came": ("credit_spans", "key=lambda span: (span.start, span.end)", "key=lambda span: 0"),
    "progress the wrong way round": ("credit_spans", "last - earlier[-1] if", "earlier[-1] - last if"),
    "bonus lost": ("credit_spans", "credit.bonus * progress", "progress"),
    "first turn always counts": ("credit_spans", "credit.first * value", "value"),
    "turns share one baseline": ("credit_spans", "[list(range(len(one)))", "[[0] * len(one)"),
    "correct up to here": ("credit_spans", "in spans[:index])", "in spans[: index + 1])"),
    "the verdict ignored": ("credit_spans", "if self.passed is None else self.passed", ""),
    "a part's penalty summed": ("credit_spans", "/ max(trained, 1)", ""),
    "whitened by a population": ("credit_step", "ddof=1", "ddof=0"),
    "whitened over observations": ("credit_step", "a[one.train_mask] for a", "a for a"),
    "mean not shifted": ("credit_step", "- mean) * factor", ") * factor"),
    "silent groups counted": ("credit_step", "if np.any(a)}", "}"),
    "gae not whitened": ("credit", "isinstance(credit, Gae) and credit.whiten", "False"),
    "the last of the best": (
        "select",
        "key=lambda index: -reward(group[index])",
        "key=lambda i: (-reward(group[i]), -i)",
    ),
    "the worst": ("select", "key=lambda index: -reward(group[index])", "key=lambda i: reward(group[i])"),
    "above or equal": ("select", "if value > threshold else", "if value >= threshold else"),
    "labels exchanged": ("select", "best: Preference(name, 1.0", "best: Preference(name, 0.0"),
    "chosen and rejected exchanged": ("select", "return best, worst", "return worst, best"),
    "any difference makes a pair": ("select", "difference > max(threshold, 0.0)", "difference > 0.0"),
    "failed before passed": (
        "select",
        "verdicts.index(True), verdicts.index(False)",
        "verdicts.index(False), verdicts.index(True)",
    ),
    "keep ignored": ("select", "ranked[:most])), ", "ranked)), "),
}
"""Fault -> (module, text, what stands there instead)."""


@pytest.fixture
def mutant(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], ModuleType]]:
    """Credit and selection again, under another package name, with one fault in them (or none)."""
    fault = request.param
    with planted(tmp_path, MODULES, str(fault), MUTANTS.get(fault)) as load:
        yield load


def all_agree(load: Callable[[str], ModuleType]) -> None:
    """The verdict on what `load` gives."""
    credit_cases.all_agree(load)
    for case in select_cases.CASES.values():
        select_cases.agrees(load("select"), case)


@pytest.mark.parametrize("mutant", [None], indirect=True)
def test_the_copy_without_a_fault_agrees(mutant: Callable[[str], ModuleType]) -> None:
    all_agree(mutant)


@pytest.mark.parametrize(("mutant", "fault"), [(fault, fault) for fault in MUTANTS], indirect=["mutant"])
def test_every_mutant_dies(mutant: Callable[[str], ModuleType], fault: str) -> None:
    with pytest.raises(AssertionError):
        all_agree(mutant)
