"""What a step amounts to: the row of metrics.jsonl, from the records themselves."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from actors.sharding import StepFacts
from orchestrator import episodes, held_out
from orchestrator.accounting import by_origin, funnel, staleness
from orchestrator.assemble import Assembled
from orchestrator.config import Stage
from orchestrator.decided import in_short
from orchestrator.records import Collected, LabelCosts
from policies.config import Strand
from policies.example import Example
from policies.trajectory import FinishReason, Origin, Producer, Trajectory, reward

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Counters:
    """Where the run stands after a step."""

    step: int
    stage_step: int
    version: int
    """Of the policy that the step trained."""


def mean(values: Sequence[float]) -> float:
    """Their mean; NaN of nothing."""
    return math.fsum(values) / len(values) if values else NAN


def metrics_row(
    stage: Stage,
    strands: Sequence[Strand],
    collected: Collected,
    assembled: Assembled,
    facts: StepFacts | None,
    counters: Counters,
) -> dict[str, Any]:
    """One step's facts. Shares are of trained tokens; rewards and lengths are of the learner's own rollouts."""
    rollouts = own_rollouts(collected.seen)
    row: dict[str, Any] = {
        "kind": "step",
        "stage": stage.name,
        "stage_steps": stage.steps,
        **asdict(counters),
        **_learning(facts),
        **_rewards(rollouts),
        **held_out.facts(rollouts),
        **_provenance(assembled.examples, counters.version),
        **_accounts(strands, collected, assembled, facts, counters.version),
        "decided": in_short(collected.plan, collected.verdicts),
        "tokens_generated": collected.tokens_generated,
        "response_length_mean": mean([float(len(one.tokens)) for one in rollouts]),
        "truncated_share": mean([float(one.finish_reason is FinishReason.LENGTH) for one in rollouts]),
        "groups": len(collected.groups),
        "dropped": sum(len(one.lost) for one in assembled.dropped),
        "replayed": sum(one.trajectory.producer is Producer.REPLAY for one in assembled.examples),
        "missing_demonstrations": collected.missing_demonstrations,
        "seconds_generate": collected.seconds_generate,
        "seconds_score": collected.seconds_score,
        **_labels(collected.labels),
        **episodes.facts(rollouts),
    }
    return row


def _labels(costs: LabelCosts) -> dict[str, Any]:
    """What step labels cost; nothing where none were asked for."""
    if not costs.completions:
        return {}
    told = {"label_completions": costs.completions, "label_tokens": costs.tokens}
    return {**told, "seconds_label": costs.seconds}


def _accounts(
    strands: Sequence[Strand], collected: Collected, assembled: Assembled, facts: StepFacts | None, version: int
) -> dict[str, Any]:
    """Who wrote what trains and what it does to the gradient, and what became of every response."""
    trained = assembled.examples if facts is not None else ()
    return {
        "by_origin": by_origin(trained, facts.by_origin if facts is not None else {}),
        "staleness": staleness(trained, version),
        "interference": dict(facts.interference) if facts is not None else {},
        "funnel": funnel(strands, collected, assembled, trains=facts is not None),
    }


def own_rollouts(seen: Sequence[Trajectory]) -> list[Trajectory]:
    """What the learner wrote in the step on its prompts, drawn at a temperature above 0, each in its last turn.

    A first turn that was answered on is told by the record of both turns; a greedy baseline is no draw.
    """
    rollouts = [one for one in seen if one.producer is Producer.ROLLOUT]
    continued = {one.parent_id for one in rollouts}
    greedy = [one for one in rollouts if one.sampling is not None and one.sampling.temperature == 0]
    drawn = rollouts if len(greedy) == len(rollouts) else [one for one in rollouts if one not in greedy]
    return [one for one in drawn if one.id not in continued]


def _learning(facts: StepFacts | None) -> dict[str, Any]:
    if facts is None:
        nothing = {
            "ess": NAN,
            "loss": NAN,
            "gradient_norm": NAN,
            "learning_rate": NAN,
            "skipped": 0,
            "tokens_trained": 0,
        }
        return {**nothing, "seconds_train": 0.0, "by_strand": {}}
    return {
        "ess": _effective_share(facts),
        "loss": facts.loss,
        "gradient_norm": facts.gradient_norm,
        "learning_rate": facts.learning_rate,
        "skipped": facts.skipped,
        "tokens_trained": facts.tokens,
        "seconds_train": facts.seconds,
        "by_strand": {name: dict(values) for name, values in facts.by_strand.items()},
    }


def _effective_share(facts: StepFacts) -> float:
    """Effective sample size of exp(log p - behavior) as a share of the tokens it is over; NaN where none is known."""
    known = [values for values in facts.by_strand.values() if values.get("behavior_tokens", 0.0) > 0]
    tokens = math.fsum(values["behavior_tokens"] for values in known)
    if not tokens:
        return NAN
    first = math.fsum(values["weight_mean"] * values["behavior_tokens"] for values in known)
    second = math.fsum(values["weight_square_mean"] * values["behavior_tokens"] for values in known)
    return first * first / (tokens * second)


def _rewards(rollouts: Sequence[Trajectory]) -> dict[str, Any]:
    """Unknown rewards are counted, not averaged."""
    rewards = [reward(one) for one in rollouts]
    known = [value for value in rewards if not math.isnan(value)]
    verdicts = [score.passed for one in rollouts for score in one.scores if score.name == "reward"]
    return {
        "reward_mean": mean(known),
        "accuracy": mean([float(passed) for passed in verdicts if passed is not None]),
        "passed": sum(passed is True for passed in verdicts),
        "unknown_rewards": len(rewards) - len(known),
    }


def _provenance(examples: Sequence[Example], version: int) -> dict[str, Any]:
    """Who wrote the tokens that train, by the per-token record; how far behind the learner's own ones are."""
    if not examples:
        return {"share_learner": NAN, "share_demonstration": NAN, "share_teacher": NAN, "share_other": NAN} | {
            "on_policy_share": NAN,
            "staleness_mean": NAN,
        }
    masks = [one.trajectory.train_mask for one in examples]
    origin = np.concatenate([one.trajectory.origin[mask] for one, mask in zip(examples, masks, strict=True)])
    versions = np.concatenate([one.trajectory.token_version[mask] for one, mask in zip(examples, masks, strict=True)])
    total = max(len(origin), 1)

    def share(*origins: Origin) -> float:
        return float(np.isin(origin, origins).sum() / total)

    own = versions[versions >= 0]
    return {
        "share_learner": share(Origin.LEARNER),
        "share_demonstration": share(Origin.DEMONSTRATION),
        "share_teacher": share(Origin.TEACHER),
        "share_other": share(Origin.HINT, Origin.ENVIRONMENT),
        "on_policy_share": float((versions == version).sum() / total),
        "staleness_mean": float((version - own).mean()) if len(own) else NAN,
    }
