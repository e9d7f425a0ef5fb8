"""The oracles can fail: each planted fault in the maths is caught by one of them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.loss_cases import RECIPES, agree, logits_agree, parts_agree
from tests.planted import planted

MODULES = (
    "reduce", "statistics", "segments", "slots", "logprobs", "ratios", "shapes", "token_weights", "kernels", "links",
    "set_kernels", "step_statistics", "gradient_mass", "strand_facts", "whole_views", "objective",
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
        "set_kernels",
        "score_B.index_select(0, chosen_P), score_B.index_select(0, rejected_P)",
        "score_B.index_select(0, rejected_P), score_B.index_select(0, chosen_P)",
    ),
    "margin added": ("links", "(won_P - lost_P) - margin_P", "(won_P - lost_P) + margin_P"),
    "reference forgotten": ("set_kernels", "if kernel.reference:", "if False:"),
    "pairs not shared out within a set": ("set_kernels", "lost_P, margin_P) / pairs_P", "lost_P, margin_P)"),
    "ipo aims elsewhere": ("links", "z_P - 0.5", "z_P - 1.0"),
    "ratio inverted": (
        "ratios",
        "else slots.logps_N - base_N",
        "else base_N - slots.logps_N",
    ),
    "detach missing": ("ratios", "return slots.logps_N.detach()\n", "return slots.logps_N\n"),
    "geometric mean is a sum": ("ratios", "mean_by_trajectory", "sum_by_trajectory"),
    "denominator one is old": ("ratios", "return None", "return slots.logps_N.detach()"),
    "weight not detached": (
        "token_weights",
        "_of_probability(slots.logps_N.detach(), one)",
        "_of_probability(slots.logps_N, one)",
    ),
    "importance inverted": (
        "token_weights",
        'slots.known("old_logps_N", reader) - slots.known("behavior_logps_N", reader)',
        'slots.known("behavior_logps_N", reader) - slots.known("old_logps_N", reader)',
    ),
    "truncation is a floor": ("token_weights", "clamp(max=one.cap)", "clamp(min=one.cap)"),
    "mask keeps what is below": ("token_weights", "(ratio_N >= 1.0 / one.cap) & ", "(ratio_N > 0) & "),
    "phi is not phi": ("token_weights", "p_N * (1.0 - p_N)", "p_N * (1.0 + p_N)"),
    "weights not multiplied": ("token_weights", "total_N = total_N * weight", "total_N * weight"),
    "sequences of unlike length count by token": ("objective", 'if term.reduce.kind == "sequence"', "if False"),
    "a sum is not pulled back": (
        "segments",
        "gradient_B.index_select(0, ctx.saved_tensors[0])",
        "torch.ones_like(ctx.saved_tensors[0], dtype=gradient_B.dtype)",
    ),
    "a spread value is pulled by one token": (
        "segments",
        "_sum(gradient_N, ctx.saved_tensors[0], ctx.trajectories)",
        "gradient_N[: ctx.trajectories]",
    ),
    "term coefficient lost": ("objective", "term.coefficient * term_sum", "term_sum"),
    "sign of g": ("objective", "coefficient_BT = -gradient_BT", "coefficient_BT = gradient_BT"),
    "tokens of every strand": (
        "slots",
        "own_B = batch.strand_B == index",
        "own_B = batch.strand_B >= 0",
    ),
    "masked tokens trained": ("slots", "trained_BT = batch.mask_BT", "trained_BT = batch.mask_BT | True"),
    "token normaliser counts sequences": ("reduce", "else counts.tokens", "else counts.sequences"),
    "length without its sequences": ("reduce", "count = units * _length(term)", "count = _length(term)"),
    "pairs counted as tokens": (
        "reduce",
        "counts.sets if isinstance(term.kernel, Set) else counts.tokens",
        "counts.tokens",
    ),
    "box-cox without its alpha": (
        "shapes",
        "torch.expm1(alpha * log_ratio_N) / alpha",
        "torch.expm1(alpha * log_ratio_N)",
    ),
    "parabola without its half": ("shapes", "ratio_N - 0.5 * ratio_N**2", "ratio_N - ratio_N**2"),
    "one temperature for both signs": (
        "shapes",
        "(1.0 - above_N) * shape.tau_negative",
        "(1.0 - above_N) * shape.tau_positive",
    ),
    "soft gate not scaled back": ("shapes", " * (4.0 / tau_N)", ""),
    "ratio held on the wrong side": ("ratios", "log_ratio_N.clamp(max=bound)", "log_ratio_N.clamp(min=-bound)"),
    "ratio not held": ("ratios", "if point.log_clip is not None:", "if False:"),
    "parts of all responses are one": ("ratios", "slots.trajectory_N * (int(part_N.max()) + 2) + part_N", "part_N"),
    "sequence ratio is a mean": (
        "ratios",
        "slots.sum_by_trajectory(log_ratio_N)",
        "slots.mean_by_trajectory(log_ratio_N)",
    ),
    "power lost": ("token_weights", "(one.power * logps_N).exp()", "logps_N.exp()"),
    "window without its lower edge": ("token_weights", "inside_N = p_N >= one.low", "inside_N = p_N >= 0"),
    "entropy weight not detached": ("token_weights", '"weight entropy").detach()', '"weight entropy")'),
    "clipped ratio follows": (
        "token_weights",
        '(slots.logps_N.detach() - slots.known("old',
        '(slots.logps_N - slots.known("old',
    ),
    "taper on the winners": (
        "token_weights",
        'torch.where(slots.known("advantages_N", reader) > 0',
        'torch.where(slots.known("advantages_N", reader) < 0',
    ),
    "positive is negative": ("token_weights", 'if one.kind == "positive" else ~', 'if one.kind == "negative" else ~'),
    "importance of a sequence is a token's": (
        "token_weights",
        "slots.spread(slots.sum_by_trajectory(gap_N).exp())",
        "gap_N.exp()",
    ),
    "band keeps no ratio": (
        "token_weights",
        "ratio_N * inside_N if one.keep_ratio",
        "ratio_N * inside_N if not one.keep_ratio",
    ),
    "imitation by credit": ("kernels", 'if kernel.advantage == "one":', "if False:"),
    "k1 the other way": ("kernels", "return -gap_N", "return gap_N"),
    "rk3 with a detached ratio": (
        "kernels",
        '(slots.logps_N - slots.known("behavior',
        '(slots.logps_N.detach() - slots.known("behavior',
    ),
    "the teacher's tokens for the reference's": ("kernels", '"reference_ids_logps_NK")', '"topk_logps_NK")'),
    "not renormalised": ("kernels", "policy_NK.log_softmax(-1), target_NK.log_softmax(-1)", "policy_NK, target_NK"),
    "smoothing on the wrong side": (
        "links",
        "(1.0 - kernel.smoothing) * softplus(-z_P), kernel.smoothing * softplus(z_P)",
        "kernel.smoothing * softplus(-z_P), (1.0 - kernel.smoothing) * softplus(z_P)",
    ),
    "robust not debiased": ("links", " / (1.0 - 2.0 * kernel.smoothing)", ""),
    "nca forgets the loser": ("links", " + 0.5 * softplus(lost_P)", ""),
    "sppo pulls the loser up": ("links", "(lost_P + 0.5)", "(lost_P - 0.5)"),
    "apo of the wrong direction": (
        "links",
        "torch.sigmoid(won_P) + torch.sigmoid(-(won_P - lost_P))",
        "torch.sigmoid(-won_P) + torch.sigmoid(-(won_P - lost_P))",
    ),
    "odds without their odds": ("links", "return logp_P - torch.log(-torch.expm1(logp_P))", "return logp_P"),
    "kto weights exchanged": (
        "links",
        "desirable_U * (kernel.desirable - kernel.undesirable) + kernel.undesirable",
        "desirable_U * (kernel.undesirable - kernel.desirable) + kernel.desirable",
    ),
    "kto of one side": ("links", "(1.0 - 2.0 * desirable_U) * kernel.beta", "-kernel.beta"),
    "kto without its baseline": ("links", "(score_U - baseline)", "score_U"),
    "kto counts its baseline rows": ("objective", "(member_B & slots.label_B.isfinite())", "member_B"),
    "kto's baseline may be negative": (
        "statistics",
        "max(math.fsum(values) / len(values), 0.0)",
        "math.fsum(values) / len(values)",
    ),
    "transport unsorted": ("set_kernels", "policy_P.sort().values", "policy_P"),
    "tail not discounted": ("set_kernels", "if kernel.tail < 1:", "if False:"),
    "f-divergence without its transform": (
        "set_kernels",
        "transformed(kernel, slots.sum_by_trajectory(gain_N))",
        "slots.sum_by_trajectory(gain_N)",
    ),
    "margins of the data forgotten": ("set_kernels", "if kernel.row_margin else", "if False else"),
    "pair weight follows": ("set_kernels", "aligned_N = slots.logps_N.detach()", "aligned_N = slots.logps_N"),
    "hint tokens read as answers": ("slots", "keep_N &= torch.isin(", "keep_N &= ~torch.isin("),
    "part ignored": ("slots", '"only.part") == only.part', '"only.part") >= 0'),
    "rejected read as chosen": ("slots", 'chosen_N if only.label == "chosen" else rejected_N', "chosen_N"),
    "term counts its whole strand": ("objective", "slots = slots.read_by(term.only)\n", "slots = slots\n"),
    "normalisers of the micro-batch": ("objective", "if normalisers is None:", "if True:"),
}
"""Fault -> (module, text, what stands there instead)."""


@pytest.fixture
def mutant(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], ModuleType]]:
    """The maths again, under another package name, with one fault in it (or none)."""
    fault = request.param
    with planted(tmp_path, MODULES, str(fault), MUTANTS.get(fault)) as load:
        yield load


def all_agree(load: Callable[[str], ModuleType]) -> None:
    """The oracles' verdict on the maths that `load` gives."""
    for recipe in RECIPES:
        agree(load("objective"), recipe)
        parts_agree(load("objective"), recipe)
    agree(load("objective"), "kto", seed=2)  # a baseline above 0
    logits_agree(load("objective"), "surprised")  # what the entropy's own gradient would add


@pytest.mark.parametrize("mutant", [None], indirect=True)
def test_the_copy_without_a_fault_agrees(mutant: Callable[[str], ModuleType]) -> None:
    all_agree(mutant)


@pytest.mark.parametrize(("mutant", "fault"), [(fault, fault) for fault in MUTANTS], indirect=["mutant"])
def test_every_mutant_dies(mutant: Callable[[str], ModuleType], fault: str) -> None:
    with pytest.raises(AssertionError):
        all_agree(mutant)
