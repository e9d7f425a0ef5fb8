"""What the estimators estimate, by enumerating every response of a small policy: identities in expectation."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from policies.batch import TrajectoryBatch
from policies.config import Div, GroupCredit, Identity, Log, Point, Reduce, Source, Strand, Term
from policies.credit import group_advantages
from policies.objective import evaluate
from tests.enumeration import (
    END,
    PREFIXES,
    RESPONSES,
    Response,
    Views,
    expected,
    expected_gradient,
    gradient,
    kl,
    local_slope,
    logps,
    probability,
    table,
    visits,
)
from tests.parity_case import Floats, log_softmax, slope

POLICY, REFERENCE, TEACHER, SAMPLER = table(0), table(1), table(2), table(3)
VIEWS = Views(reference=REFERENCE, teacher=TEACHER, behavior=POLICY)
LIKELIHOOD = Point(denominator="current", shape=Log())


def strand(kernel: Point | Div) -> Strand:
    """One term, a sum over tokens."""
    term = Term(name="t", kernel=kernel, reduce=Reduce(kind="length", length=1))
    return Strand(name="s", source=Source(producer="rollout"), terms=(term,))


def close(found: Floats, want: Floats, scale: float = 1.0) -> bool:
    """To 1e-7 of the scale; what is wanted is not itself nothing, unless it is said to be."""
    return bool(np.abs(found - want).max() < 1e-7 * scale)


def test_every_response_is_there_once() -> None:
    assert len(RESPONSES) == len(set(RESPONSES)) == 15
    assert sum(probability(POLICY, one) for one in RESPONSES) == pytest.approx(1)
    passing = [
        sum(probability(POLICY, one) for one in RESPONSES if one[: len(p)] == p and len(one) > len(p)) for p in PREFIXES
    ]
    assert visits(POLICY) == pytest.approx(passing)


# ---------------------------------------------------------------- sampled divergences


def test_pitfall_06_k1_as_a_loss_has_no_gradient_in_expectation() -> None:
    assert close(expected_gradient(strand(Div(form="k1")), POLICY, POLICY, VIEWS), np.zeros(POLICY.shape))
    # of one response it has one, and from another's samples it keeps it
    assert not close(gradient(strand(Div(form="k1")), POLICY, RESPONSES[-1], VIEWS), np.zeros(POLICY.shape))
    assert not close(expected_gradient(strand(Div(form="k1")), POLICY, SAMPLER, VIEWS), np.zeros(POLICY.shape))


FORWARD: Callable[[Floats], Floats] = lambda x: kl(REFERENCE, x)  # noqa: E731
REVERSE: Callable[[Floats], Floats] = lambda x: kl(x, REFERENCE)  # noqa: E731


def test_pitfall_06_k2_pulls_as_the_reverse_kl_and_k3_as_the_forward_one() -> None:
    reverse, forward = (local_slope(POLICY, visits(POLICY), one) for one in (REVERSE, FORWARD))
    k2, k3 = (expected_gradient(strand(Div(form=form)), POLICY, POLICY, VIEWS) for form in ("k2", "k3"))
    assert close(k2, reverse)
    assert close(k3, forward)
    assert not close(k2, forward, scale=1e5)
    assert not close(k3, reverse, scale=1e5)


def test_rk3_is_the_reverse_kl_from_anybodys_samples() -> None:
    at_sampler = local_slope(POLICY, visits(SAMPLER), REVERSE)
    assert close(expected_gradient(strand(Div(form="rk3")), POLICY, SAMPLER, VIEWS), at_sampler)
    for form in ("k2", "k3"):
        assert not close(expected_gradient(strand(Div(form=form)), POLICY, SAMPLER, VIEWS), at_sampler, scale=1e5)


def test_rk3_of_the_policys_own_samples_is_the_reverse_kl() -> None:
    """The ratio is 1 there, and still has to be differentiated."""
    found = expected_gradient(strand(Div(form="rk3")), POLICY, POLICY, VIEWS)
    assert close(found, local_slope(POLICY, visits(POLICY), REVERSE))


def penalty(response: Response) -> Floats:
    """-(log p - log p_reference) of each token and those after it."""
    gap = logps(POLICY, response) - logps(REFERENCE, response)
    return -np.cumsum(gap[::-1])[::-1]


def test_k1_in_the_reward_is_the_reverse_kl_of_whole_responses() -> None:
    def whole(x: Floats) -> float:
        return expected(x, lambda one: float((logps(x, one) - logps(REFERENCE, one)).sum()))

    want = slope(whole, POLICY)
    suffix = replace(VIEWS, advantages=penalty)
    assert close(expected_gradient(strand(LIKELIHOOD), POLICY, POLICY, suffix), want)
    # the whole response's penalty on every token has the same expectation; its own gap on each token has not
    total = replace(VIEWS, advantages=lambda one: np.full(len(one), penalty(one)[0]))
    assert close(expected_gradient(strand(LIKELIHOOD), POLICY, POLICY, total), want)
    own = replace(VIEWS, advantages=lambda one: logps(REFERENCE, one) - logps(POLICY, one))
    found = expected_gradient(strand(LIKELIHOOD), POLICY, POLICY, own)
    assert not close(found, want, scale=1e5)
    assert close(found, local_slope(POLICY, visits(POLICY), REVERSE))


# ---------------------------------------------------------------- on-policy distillation


def test_distillation_on_sampled_tokens_is_the_reverse_kl_after_each_prefix() -> None:
    gap = replace(VIEWS, advantages=lambda one: logps(TEACHER, one) - logps(POLICY, one))
    want = local_slope(POLICY, visits(POLICY), lambda x: kl(x, TEACHER))
    for kernel in (Point(denominator="behavior", shape=Identity()), LIKELIHOOD):
        assert close(expected_gradient(strand(kernel), POLICY, POLICY, gap), want)


def test_an_importance_ratio_corrects_each_tokens_sampler_but_not_its_prefix() -> None:
    gap = replace(VIEWS, advantages=lambda one: logps(TEACHER, one) - logps(POLICY, one))
    corrected = expected_gradient(strand(Point(denominator="behavior", shape=Identity())), POLICY, SAMPLER, gap)
    assert close(corrected, local_slope(POLICY, visits(SAMPLER), lambda x: kl(x, TEACHER)))
    plain = expected_gradient(strand(LIKELIHOOD), POLICY, SAMPLER, gap)
    assert not close(plain, corrected, scale=1e5)


def test_extrapolated_distillation_is_the_reverse_kl_to_the_extrapolated_teacher() -> None:
    """ExOPD (arXiv 2602.12125): lambda (T - base) - (c - base) pulls to base^(1 - lambda) T^lambda, normalised."""
    strength = 1.25
    tilted = (1 - strength) * log_softmax(REFERENCE) + strength * log_softmax(TEACHER)

    def gap(one: Response) -> Floats:
        base = logps(REFERENCE, one)
        return strength * (logps(TEACHER, one) - base) - (logps(POLICY, one) - base)

    found = expected_gradient(strand(LIKELIHOOD), POLICY, POLICY, replace(VIEWS, advantages=gap))
    assert close(found, local_slope(POLICY, visits(POLICY), lambda x: kl(x, tilted)))


# ---------------------------------------------------------------- baselines


def reward(response: Response) -> float:
    """Not a function of the length alone."""
    return float(response.count(1)) - 0.5 * (response[-1] == END)


@pytest.mark.parametrize("size", [2, 3])
def test_leaving_one_out_is_unbiased_and_the_mean_shrinks_by_its_share(size: int) -> None:
    want = -slope(lambda x: expected(x, reward), POLICY)
    likelihood = replace(VIEWS, advantages=lambda one: np.ones(len(one)))
    pulls = [gradient(strand(LIKELIHOOD), POLICY, one, likelihood) for one in RESPONSES]
    for baseline, share in (("leave_one_out", 1.0), ("mean", (size - 1) / size), ("zero", 1.0)):
        credit, found = GroupCredit(baseline=baseline), np.zeros(POLICY.shape)  # type: ignore[arg-type]
        for group in itertools.product(range(len(RESPONSES)), repeat=size):
            weight = math.prod(probability(POLICY, RESPONSES[i]) for i in group) / size
            advantages = _advantages(credit, tuple(reward(RESPONSES[i]) for i in group))
            for i, advantage in zip(group, advantages, strict=True):
                found += weight * advantage * pulls[i]
        assert close(found, share * want, scale=10.0), baseline
    assert not close(0.5 * want, want, scale=1e4)


SEEN: dict[tuple[GroupCredit, tuple[float, ...]], list[float]] = {}


def _advantages(credit: GroupCredit, rewards: tuple[float, ...]) -> list[float]:
    if (credit, rewards) not in SEEN:
        everybody = np.ones(len(rewards), np.bool_)
        SEEN[credit, rewards] = [float(x) for x in group_advantages(credit, np.array(rewards), everybody)]
    return SEEN[credit, rewards]


# ---------------------------------------------------------------- distributions


def one_slot(policy: Floats, teacher: Floats, kernel: Div) -> float:
    """The divergence of one next-token distribution (log-probabilities [V]) from another, as `evaluate` has it."""
    keep = np.argsort(-teacher)[: kernel.top_k]
    batch = TrajectoryBatch(
        tokens_BT=torch.tensor([[0]]),
        mask_BT=torch.tensor([[True]]),
        teacher_topk_ids_BTK=torch.tensor(keep)[None, None],
        teacher_topk_logps_BTK=torch.tensor(teacher[keep])[None, None],
    )
    return float(evaluate([strand(kernel)], batch, torch.tensor(policy)[None, None]).loss)


def top_two(form: str, tail: str) -> Div:
    return Div(form=form, target="teacher", top_k=2, tail=tail)  # type: ignore[arg-type]


def whole(form: str, policy: Floats, teacher: Floats) -> float:
    return float(kl(teacher[None], policy[None])[0] if form == "forward" else kl(policy[None], teacher[None])[0])


@pytest.mark.parametrize("form", ["forward", "reverse"])
def test_a_tail_bucket_never_says_more_than_the_whole_vocabulary(form: str) -> None:
    rng, slack = np.random.default_rng(0), []
    for _ in range(200):
        policy, teacher = (log_softmax(2 * rng.normal(size=6)) for _ in range(2))
        slack.append(whole(form, policy, teacher) - one_slot(policy, teacher, top_two(form, "bucket")))
    assert min(slack) > -1e-9
    assert max(slack) > 0.1


@pytest.mark.parametrize("form", ["forward", "reverse"])
def test_renormalised_and_raw_top_k_bound_nothing(form: str) -> None:
    teacher = np.log([0.40, 0.35, 0.25])
    skewed = np.log([0.70, 0.05, 0.25])  # as much outside the top two as the teacher has
    assert one_slot(skewed, teacher, top_two(form, "renormalise")) > whole(form, skewed, teacher)
    outside = np.log([0.40 * 0.2 / 0.75, 0.35 * 0.2 / 0.75, 0.80])  # the same shape within the top two
    assert one_slot(outside, teacher, top_two(form, "renormalise")) == pytest.approx(0, abs=1e-12)
    assert whole(form, outside, teacher) > 0.5
    # a partial sum leaves out what the tail would add or take away: here more than everything, there less than nothing
    above, below = (outside, np.log([0.45, 0.45, 0.10])) if form == "forward" else (np.log([0.45, 0.45, 0.10]), outside)
    assert one_slot(above, teacher, top_two(form, "raw")) > whole(form, above, teacher)
    assert one_slot(below, teacher, top_two(form, "raw")) < 0 < whole(form, below, teacher)


def test_gkd_is_discontinuous_at_its_ends() -> None:
    policy, teacher = np.log([0.05, 0.15, 0.80]), np.log([0.60, 0.30, 0.10])

    def jsd(beta: float) -> float:
        return one_slot(policy, teacher, Div(form="jsd", target="teacher", beta=beta, top_k=2))

    assert jsd(0.0) == pytest.approx(whole("forward", policy, teacher))
    assert jsd(1.0) == pytest.approx(whole("reverse", policy, teacher))
    # near an end the divergence is about beta times the KL of that end: a hundredth, not the KL
    assert jsd(0.01) == pytest.approx(0.01 * jsd(0.0), rel=0.1)
    assert jsd(0.99) == pytest.approx(0.01 * jsd(1.0), rel=0.1)
    assert jsd(1e-4) < 1e-3 * jsd(0.0)
