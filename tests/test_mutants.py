"""The oracles can fail: each planted fault in the maths is caught by one of them."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import policies
from policies.config import GroupCredit
from policies.trajectory import ScoreEntry
from tests import oracles
from tests.loss_cases import RECIPES, agree, parts_agree
from tests.test_trajectory import trajectory

MODULES = (
    "slots", "logprobs", "ratios", "shapes", "token_weights", "kernels", "reduce", "gradient_mass", "strand_facts",
    "objective", "credit",
)  # fmt: skip

MUTANTS = {
    "clip takes the optimist's side": ("shapes", "torch.minimum(ratio_N", "torch.maximum(ratio_N"),
    "clip bounds swapped": ("shapes", "clamp(1.0 - low, 1.0 + high)", "clamp(1.0 - high, 1.0 + low)"),
    "dual bound on positive advantages": ("shapes", "torch.where(advantages_N < 0,", "torch.where(advantages_N > 0,"),
    "dual bound lost": ("shapes", "if dual is None:", "if True:"),
    "gamma lost": ("shapes", "math.log(shape.gamma)", "math.log(1.0)"),
    "gamma inverted": ("shapes", "log_ratio_N - math.log(shape.gamma)", "log_ratio_N + math.log(shape.gamma)"),
    "sign of a point kernel": ("kernels", "return -shapes.value", "return shapes.value"),
    "entropy as a penalty": ("kernels", 'return -slots.known("entropy_N"', 'return slots.known("entropy_N"'),
    "k3 the wrong way round": ("kernels", "gap_N.exp() - gap_N - 1.0", "(-gap_N).exp() + gap_N - 1.0"),
    "k2 without its half": ("kernels", "0.5 * gap_N**2", "gap_N**2"),
    "forward and reverse exchanged": ("kernels", "kl(target_NK, policy_NK)", "kl(policy_NK, target_NK)"),
    "jsd weights exchanged": (
        "kernels",
        "return kernel.beta * kl(target_NK",
        "return (1 - kernel.beta) * kl(target_NK",
    ),
    "tail bucket lost": ("kernels", "return torch.cat([logps_NK, rest", "return logps_NK + 0 * torch.cat([rest"),
    "chosen and rejected exchanged": (
        "kernels",
        "score_B[chosen_P] - score_B[rejected_P]",
        "score_B[rejected_P] - score_B[chosen_P]",
    ),
    "margin added": ("kernels", "- kernel.margin", "+ kernel.margin"),
    "reference forgotten": ("kernels", "if kernel.reference:", "if False:"),
    "pairs not shared out within a set": ("kernels", "link(kernel, z_P) / pairs_P", "link(kernel, z_P)"),
    "ipo aims elsewhere": ("kernels", "z_P - 0.5", "z_P - 1.0"),
    "ratio inverted": (
        "ratios",
        "slots.logps_N - denominator(point, slots)",
        "denominator(point, slots) - slots.logps_N",
    ),
    "detach missing": ("ratios", "return slots.logps_N.detach()\n", "return slots.logps_N\n"),
    "geometric mean is a sum": ("ratios", "mean_by_trajectory", "sum_by_trajectory"),
    "denominator one is old": ("ratios", "slots.logps_N.detach() * 0.0", "slots.logps_N.detach()"),
    "weight not detached": ("token_weights", "slots.logps_N.detach().exp()", "slots.logps_N.exp()"),
    "importance inverted": (
        "token_weights",
        '(slots.known("old_logps_N", reader) - slots.known("behavior_logps_N", reader))',
        '(slots.known("behavior_logps_N", reader) - slots.known("old_logps_N", reader))',
    ),
    "truncation is a floor": ("token_weights", "clamp(max=one.cap)", "clamp(min=one.cap)"),
    "mask keeps what is below": ("token_weights", "(ratio_N >= 1.0 / one.cap) & ", ""),
    "phi is not phi": ("token_weights", "p_N * (1.0 - p_N)", "p_N * (1.0 + p_N)"),
    "weights not multiplied": ("token_weights", "total_N * weight(one, slots)", "weight(one, slots) * 0 + total_N"),
    "sequences of unlike length count by token": ("objective", 'if reduce.kind == "sequence":', "if False:"),
    "term coefficient lost": ("objective", "term.coefficient * term_sum", "term_sum"),
    "sign of g": ("objective", "coefficient_BT = -gradient_BT", "coefficient_BT = gradient_BT"),
    "tokens of every strand": (
        "slots",
        "trained_BT = trained_BT & (strand_BT == index)",
        "trained_BT = trained_BT & (strand_BT >= 0)",
    ),
    "masked tokens trained": ("slots", "trained_BT = batch.mask_BT", "trained_BT = batch.mask_BT | True"),
    "token normaliser counts sequences": ("reduce", "else counts.tokens", "else counts.sequences"),
    "length without its sequences": ("reduce", "count = units * _length(term)", "count = _length(term)"),
    "pairs counted as tokens": (
        "reduce",
        "counts.sets if isinstance(term.kernel, Set) else counts.tokens",
        "counts.tokens",
    ),
    "normalisers of the micro-batch": ("objective", "if normalisers is None:", "if True:"),
    "deviation of a population": ("credit", "ddof=1", "ddof=0"),
    "own reward in its baseline": (
        "credit",
        "- np.where(counted_G, rewards_G, 0.0)) / (len(counted) - counted_G)",
        ") / len(counted)",
    ),
    "baseline added": ("credit", "(rewards_G - _baseline", "(rewards_G + _baseline"),
    "eps lost": ("credit", " + credit.eps", ""),
}
"""Fault -> (module, text, what stands there instead)."""


@pytest.fixture
def mutant(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], ModuleType]]:
    """The maths again, under another package name, with one fault in it (or none)."""
    fault = request.param
    package = f"mutant_{abs(hash(fault))}"
    home = tmp_path / package
    home.mkdir()
    (home / "__init__.py").touch()
    source = Path(policies.__path__[0])
    for name in MODULES:
        text = (source / f"{name}.py").read_text()
        if fault is not None and MUTANTS[fault][0] == name:
            _, before, after = MUTANTS[fault]
            assert text.count(before) == 1, f"{name}.py holds {before!r} {text.count(before)} times; renew the mutant"
            text = text.replace(before, after)
        for other in MODULES:
            text = text.replace(f"from policies.{other} import", f"from {package}.{other} import")
        (home / f"{name}.py").write_text(text.replace("from policies import", f"from {package} import"))
    sys.path.insert(0, str(tmp_path))
    yield lambda name: importlib.import_module(f"{package}.{name}")
    sys.path.remove(str(tmp_path))
    for name in [one for one in sys.modules if one.startswith(package)]:
        del sys.modules[name]


def credit_agrees(under_test: ModuleType) -> None:
    """Advantages of the credit module under test equal the oracle's."""
    rewards = [1.0, 0.0, 0.25, 1.0]
    group = [trajectory(2, scores=(ScoreEntry("reward", value),)) for value in rewards]
    for credit, want in (
        (GroupCredit(scale="std", eps=0.1), oracles.grpo_advantages(rewards, 0.1)),
        (GroupCredit(baseline="leave_one_out"), oracles.rloo_advantages(rewards)),
    ):
        found = [float(one[0]) for one in under_test.assign(credit, group).advantages]
        np.testing.assert_allclose(found, want, rtol=1e-5)


def all_agree(load: Callable[[str], ModuleType], fault: str | None) -> None:
    """The oracles' verdict on the maths that `load` gives."""
    if fault is None or MUTANTS[fault][0] == "credit":
        credit_agrees(load("credit"))
    if fault is None or MUTANTS[fault][0] != "credit":
        for recipe in RECIPES:
            agree(load("objective"), recipe)
            parts_agree(load("objective"), recipe)


@pytest.mark.parametrize("mutant", [None], indirect=True)
def test_the_copy_without_a_fault_agrees(mutant: Callable[[str], ModuleType]) -> None:
    all_agree(mutant, None)


@pytest.mark.parametrize(("mutant", "fault"), [(fault, fault) for fault in MUTANTS], indirect=["mutant"])
def test_every_mutant_dies(mutant: Callable[[str], ModuleType], fault: str) -> None:
    with pytest.raises(AssertionError):
        all_agree(mutant, fault)
