"""Reach: how probable the policy finds a prompt's known good response as a whole, teacher-forced.

A lower bound on the probability that a fresh response is right, and evidence where samples have none: a prompt of which
every response failed may be out of reach, or within it at one in fifty.
"""

import math
from collections.abc import Sequence

import numpy as np

from orchestrator.ports import Demonstrations, Policy


async def reach(prompt_ids: Sequence[str], demonstrations: Demonstrations | None, policy: Policy | None) -> list[float]:
    """exp(sum of log p over the response's tokens) for each prompt's first demonstration; NaN where there is none.

    The policy is asked as it is now, under the demonstration's training context, once for all prompts.
    """
    found = [math.nan] * len(prompt_ids)
    if demonstrations is None or not prompt_ids:
        return found
    given = [demonstrations.for_prompt(one, 0) for one in prompt_ids]
    known = [(at, one) for at, one in enumerate(given) if one is not None and len(one.tokens)]
    if not known:
        return found
    if policy is None:
        raise ValueError("a control reads reach, and nobody was given to the collector who can say it")
    told = await policy.logprobs([one.train_context for _, one in known], [one.tokens for _, one in known])
    for (at, _), logps in zip(known, told, strict=True):
        found[at] = math.exp(float(np.sum(logps, dtype=np.float64)))
    return found
