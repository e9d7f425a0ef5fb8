"""A vocabulary of three tokens and responses of at most three, all of them: expectations without sampling.

Token 2 ends a response, and so does the third token. A policy is a table of logits [S, V], one row for each prefix that
can be continued; 15 responses can be written. Everything exact is numpy and knows nothing of the code under test.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from policies.batch import TrajectoryBatch
from policies.config import Strand
from policies.objective import evaluate
from tests.parity_case import Floats, log_softmax, slope

VOCABULARY, LONGEST, END = 3, 3, 2
Response = tuple[int, ...]

PREFIXES: tuple[Response, ...] = tuple(
    one for size in range(LONGEST) for one in itertools.product(range(END), repeat=size)
)
STATE = {prefix: index for index, prefix in enumerate(PREFIXES)}
RESPONSES: tuple[Response, ...] = tuple(
    (*prefix, token) for prefix in PREFIXES for token in range(VOCABULARY) if token == END or len(prefix) == LONGEST - 1
)


def table(seed: int) -> Floats:
    """A policy [S, V]."""
    return np.random.default_rng(seed).normal(size=(len(PREFIXES), VOCABULARY))


def states(response: Response) -> list[int]:
    """The prefix before each of its tokens."""
    return [STATE[response[:t]] for t in range(len(response))]


def logps(policy: Floats, response: Response) -> Floats:
    """Log-probability of each token [T]."""
    return log_softmax(policy)[states(response), list(response)]


def probability(policy: Floats, response: Response) -> float:
    return float(np.exp(logps(policy, response).sum()))


def expected(policy: Floats, value: Callable[[Response], float]) -> float:
    """Exact expectation over the policy's responses."""
    return sum(probability(policy, one) * value(one) for one in RESPONSES)


def visits(policy: Floats) -> Floats:
    """[S]: probability that a response passes through the prefix."""
    out = np.zeros(len(PREFIXES))
    for prefix in PREFIXES:
        out[STATE[prefix]] = np.exp(sum(log_softmax(policy)[STATE[prefix[:t]], prefix[t]] for t in range(len(prefix))))
    return out


def kl(left: Floats, right: Floats) -> Floats:
    """[S]: KL(left || right) after each prefix."""
    a, b = log_softmax(left), log_softmax(right)
    return (np.exp(a) * (a - b)).sum(-1)


def local_slope(policy: Floats, weights: Floats, divergence: Callable[[Floats], Floats]) -> Floats:
    """[S, V]: gradient of sum over prefixes of weight x divergence, the weights held."""
    return slope(lambda x: float(weights @ divergence(x)), policy)


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Whose log-probabilities the batch brings: tables; and each response's advantages [T]."""

    reference: Floats
    teacher: Floats
    behavior: Floats
    advantages: Callable[[Response], Floats] = lambda response: np.zeros(len(response))


def batch(response: Response, views: Views) -> TrajectoryBatch:
    """The response alone, in float64; the teacher's and the reference's top two tokens with it."""
    at = states(response)

    def row(values: Floats) -> torch.Tensor:
        return torch.tensor(np.asarray(values, np.float64))[None]

    def best(of: Floats) -> tuple[torch.Tensor, torch.Tensor]:
        keep = np.argsort(-of[at], axis=1)[:, :2]
        return torch.tensor(keep)[None], row(np.take_along_axis(log_softmax(of)[at], keep, 1))

    teacher_ids, teacher_logps = best(views.teacher)
    return TrajectoryBatch(
        tokens_BT=torch.tensor([response]),
        mask_BT=torch.ones(1, len(response), dtype=torch.bool),
        advantages_BT=row(views.advantages(response)),
        behavior_logps_BT=row(logps(views.behavior, response)),
        old_logps_BT=row(logps(views.behavior, response)),
        reference_logps_BT=row(logps(views.reference, response)),
        teacher_logps_BT=row(logps(views.teacher, response)),
        teacher_topk_ids_BTK=teacher_ids,
        teacher_topk_logps_BTK=teacher_logps,
    )


def gradient(strand: Strand, policy: Floats, response: Response, views: Views) -> Floats:
    """[S, V]: gradient of `evaluate`'s loss of this response, by the policy's table."""
    live = torch.tensor(policy, requires_grad=True)
    loss = evaluate([strand], batch(response, views), live[states(response)][None]).loss
    found: Floats = torch.autograd.grad(loss, [live])[0].numpy()
    return found


def expected_gradient(strand: Strand, policy: Floats, sampler: Floats, views: Views) -> Floats:
    """[S, V]: the expectation, over the sampler's responses, of the gradient of the loss."""
    views = replace(views, behavior=sampler)
    parts: Sequence[Floats] = [probability(sampler, one) * gradient(strand, policy, one, views) for one in RESPONSES]
    return np.sum(parts, axis=0)
