"""The credit slot: supervision to advantages."""

from typing import Annotated, Literal

from pydantic import Field

from policies.strict import Strict


class Overlong(Strict):
    """DAPO's soft punishment (arXiv 2503.14476, eq. 13): 0 up to length - cache, then linear down to -1 at length."""

    length: Annotated[int, Field(ge=1)]
    cache: Annotated[int, Field(ge=1)]


class GroupCredit(Strict):
    """Advantage of a trajectory = (reward - baseline) / scale, spread over its tokens."""

    kind: Literal["group"] = "group"
    baseline: Literal["zero", "mean", "leave_one_out", "length_mean", "greedy"] = "mean"
    """zero: the reward itself; mean: group mean (GRPO); leave_one_out: mean of the others (RLOO); length_mean: mean
    weighed by response length (OPO); greedy: reward of the group's greedy response (ReMax)."""
    scale: Literal["none", "std", "mean"] = "none"
    """std: unbiased (ddof 1) group deviation + eps (GRPO); mean: group mean reward (MaxRL)."""
    batch: Literal["none", "whiten", "nonzero"] = "none"
    """Over the whole step, afterwards: whiten: (A - mean) / std over trained tokens (REINFORCE++); nonzero: x groups /
    groups whose advantages are not all 0 (GPG)."""
    kl: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the k1 penalty log p - log p_reference, taken off the reward, never differentiated."""
    kl_spread: Literal["sequence", "suffix"] = "sequence"
    """sequence: summed into the response's reward before the baseline (RLOO); suffix: each token bears its own and
    those after it (REINFORCE++)."""
    eps: Annotated[float, Field(gt=0)] = 1e-4
    scope: Literal["all", "on_policy", "strand"] = "all"
    """Whose rewards form the group's statistics: every member, the learner's own rollouts alone, or the members of this
    strand alone (RePO's split)."""
    lone: Literal["zero", "reward"] = "zero"
    """Advantage of a group of one: 0 (as TRL), or the reward itself (as verl and LUFFY)."""
    overlong: Overlong | None = None
    truncated: Literal["count", "mask"] = "count"
    """mask: a response cut at the token budget serves the statistics, but its tokens do not train."""
    value: Literal["own", "children"] = "own"
    """children: the reward is the mean reward of the trajectories that have this one as parent (SCOP)."""


class ConstantCredit(Strict):
    """The same advantage on every token: imitation."""

    kind: Literal["constant"] = "constant"
    value: float = 1.0


class SignCredit(Strict):
    """Advantage 1 where the reward is above the threshold, -1 elsewhere (SRFT's self-rollout term)."""

    kind: Literal["sign"] = "sign"
    threshold: float = 0.5


class TeacherGap(Strict):
    """Per token: scale x (target - behavior), detached, where log target = base + extrapolation x (teacher - base).

    On-policy distillation has extrapolation 1 and reads no base; ExOPD (arXiv 2602.12125) 1.25, the reference its base.
    """

    kind: Literal["teacher_gap"] = "teacher_gap"
    scale: float = 1.0
    extrapolation: Annotated[float, Field(gt=0)] = 1.0
    spread: Literal["token", "suffix_mean"] = "token"
    """token: each token its own gap; suffix_mean: the sum of the later tokens' gaps over their number (MiniLLM)."""
    outcome: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the group's reward advantage (reward - group mean) that is added."""


class Gae(Strict):
    """Generalised advantage estimation over a critic's values (arXiv 1506.02438); observations are skipped."""

    kind: Literal["gae"] = "gae"
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    lam: Annotated[float, Field(ge=0, le=1)] = 0.95
    kl: Annotated[float, Field(ge=0)] = 0.05
    """Weight of the per-token k1 penalty in the reward."""
    whiten: bool = True
    """(A - mean) / std over the step's trained tokens."""


class ProcessCredit(Strict):
    """Step scores (entries with a span, named `score`) to token advantages."""

    kind: Literal["process"] = "process"
    score: str = "step"
    spread: Literal["suffix_sum", "step", "min"] = "suffix_sum"
    """suffix_sum: a token is worth its step and the later ones; step: its own step alone; min: the worst step."""
    normalise: Literal["none", "group"] = "group"
    """group: step scores less their mean over the group's steps, over their deviation (DeepSeekMath 4.1.3)."""
    outcome: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the group advantage of the outcome reward that is added on every token."""
    scale: float = 1.0
    """Weight of the step part (PAV's alpha)."""
    eps: Annotated[float, Field(gt=0)] = 1e-4


class TurnCredit(Strict):
    """Rewards of turns (entries named `turn` with spans): each turn its own, the last one bonus x its progress too.

    SCoRe (arXiv 2409.12917): turn 2 is worth r2 + bonus (r2 - r1); stage I trains turn 2 alone.
    """

    kind: Literal["turn"] = "turn"
    bonus: float = 10.0
    first: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the earlier turns' own rewards; 0 is SCoRe's stage I."""
    baseline: Literal["zero", "mean"] = "mean"
    """mean: less the group's mean for the same turn."""


class PartCredit(Strict):
    """Parts of a response (entries named `part`, a span and a value each) as actions of their own (S2R, 2502.12853).

    The baseline of a part is the mean value of the group's parts at the same number of correct parts before it.
    """

    kind: Literal["part"] = "part"
    kl: Annotated[float, Field(ge=0)] = 0.05


Credit = Annotated[
    GroupCredit | ConstantCredit | SignCredit | TeacherGap | Gae | ProcessCredit | TurnCredit | PartCredit,
    Field(discriminator="kind"),
]
