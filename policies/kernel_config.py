"""The weight, kernel and reduce slots (methods: 13.4), and the term that joins them."""

from typing import Annotated, Literal

from pydantic import Field

from policies.strict import Strict

# ---------------------------------------------------------------- shapes of the point kernel


class Identity(Strict):
    """f = r A."""

    kind: Literal["identity"] = "identity"


class Log(Strict):
    """f = log(r) A: with denominator `current` this is plain weighted likelihood."""

    kind: Literal["log"] = "log"


class Clip(Strict):
    """f = min(r A, clip(r, 1-low, 1+high) A); for A < 0 never below dual x A (PPO, arXiv 1707.06347 eq. 7)."""

    kind: Literal["clip"] = "clip"
    low: Annotated[float, Field(gt=0, le=1)] = 0.2
    high: Annotated[float, Field(gt=0)] = 0.2
    dual: Annotated[float, Field(gt=1)] | None = None


class Saturate(Strict):
    """f = r/(r+gamma) A: LUFFY's policy shaping (arXiv 2504.14945)."""

    kind: Literal["saturate"] = "saturate"
    gamma: Annotated[float, Field(gt=0)] = 0.1


class BoxCox(Strict):
    """f = (r^alpha - 1) / alpha A; alpha to 0 is the logarithm, 1 is r - 1 (arXiv 2510.00526)."""

    kind: Literal["box_cox"] = "box_cox"
    alpha: Annotated[float, Field(ge=0)] = 1.0


class Parabola(Strict):
    """f = (r - r^2/2) A: with denominator `one` its coefficient is p (1 - p), CHORD's phi as a shape."""

    kind: Literal["parabola"] = "parabola"


class SoftGate(Strict):
    """f = sigmoid(tau (r - 1)) 4 / tau A, tau by the sign of A (SAPO, arXiv 2511.20347)."""

    kind: Literal["soft_gate"] = "soft_gate"
    tau_positive: Annotated[float, Field(gt=0)] = 1.0
    tau_negative: Annotated[float, Field(gt=0)] = 1.05


Shape = Annotated[Identity | Log | Clip | Saturate | BoxCox | Parabola | SoftGate, Field(discriminator="kind")]


# ---------------------------------------------------------------- kernels


class Point(Strict):
    """-f(r, A) for each sampled token, r = exp(log p - log p_denominator)."""

    kind: Literal["point"] = "point"
    denominator: Literal["current", "one", "old", "behavior"] = "old"
    """current: exp(c - sg c), the pure likelihood gradient; one: the probability itself; old; behavior: importance."""
    level: Literal["token", "geometric", "sequence", "part"] = "token"
    """geometric: the sequence's mean log-ratio (GSPO); sequence: its sum (RLOO); part: the mean over the token's part
    (S2R)."""
    log_clip: Annotated[float, Field(gt=0)] | None = None
    """Before the level: each token's log-ratio is held at log_clip in the direction of its advantage (GMPO)."""
    shape: Shape = Clip()
    advantage: Literal["credit", "one"] = "credit"
    """one: 1 on every token, whatever the strand's credit says: imitation beside reinforcement."""


class Set(Strict):
    """A link over scores of sets of sequences; S = sum or mean of (log p - reference), or a scalar head's output.

    With z = beta (S chosen - S rejected) - margin, w = beta S chosen, l = beta S rejected.
    """

    kind: Literal["set"] = "set"
    link: Literal[
        "logistic", "hinge", "square", "exponential", "robust", "nca", "sppo", "apo_zero", "apo_down", "exo",
        "discopop", "aot", "aot_unpaired", "bco", "odds", "kto", "bce", "value", "regression",
    ] = "logistic"  # fmt: skip
    """Pairs: logistic -log sigmoid(z) (smoothed: smoothing); hinge; square (IPO, in score units); exponential (GPO);
    robust (smoothed and debiased); nca; sppo (hard); apo_zero; apo_down; exo; discopop; bco; aot and aot_unpaired
    (by rank within the whole step); odds: log-odds ratio of the two (ORPO, mean). Unary: kto; bce (label 1 or 0
    against beta x score). Tokens (score head): bce, value (clipped square error to the token's target), regression
    (square error)."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    margin: float = 0.0
    row_margin: bool = False
    """Also take off the margin that the data state for the pair."""
    aggregate: Literal["sum", "mean"] = "sum"
    reference: bool = True
    score: Literal["likelihood", "head"] = "likelihood"
    """head: the scalar head's output at the response's last token; for the token links at each token with a target."""
    unit: Literal["sequence", "token"] = "sequence"
    """token: each token that has a target is a set of its own (step labels, returns)."""
    divergence: Literal["reverse_kl", "forward_kl", "jensen_shannon", "alpha"] = "reverse_kl"
    """f-DPO (arXiv 2309.16240): the transform of each sequence's ratio that stands for S."""
    divergence_alpha: Annotated[float, Field(ge=0, lt=1)] = 0.5
    smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Probability that a label is wrong (cDPO, robust, exo)."""
    tail: Annotated[float, Field(ge=0, le=1)] = 1.0
    """LD-DPO: weight of a response's tokens past the shorter one's length; 1 is no discount."""
    weighted: bool = False
    """WPO (arXiv 2406.11827, eq. 2): each pair x how likely the policy was to write both responses, detached."""
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """discopop alone."""
    desirable: Annotated[float, Field(gt=0)] = 1.0
    """kto alone: weight of desirable rows."""
    undesirable: Annotated[float, Field(gt=0)] = 1.0
    clip: Annotated[float, Field(gt=0)] | None = None
    """value alone: how far the value may move from the old one before its error stops counting (PPO)."""


class Div(Strict):
    """A divergence between the policy and a target next-token distribution.

    `k1`, `k2`, `k3` are sampled-token estimators against `target`, `rk3` is k3 times the importance ratio against the
    sampler; `forward`, `reverse`, `jsd` compare distributions; `entropy` is the negative entropy of the policy (a bonus
    when its coefficient is positive).
    """

    kind: Literal["div"] = "div"
    form: Literal["k1", "k2", "k3", "rk3", "forward", "reverse", "jsd", "entropy"] = "k3"
    target: Literal["reference", "teacher", "uniform"] = "reference"
    beta: Annotated[float, Field(ge=0, le=1)] = 0.5
    """jsd alone: weight of the teacher in the mixture."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    support: Literal["top_k", "full"] = "top_k"
    """forward, reverse, jsd: over the target's `top_k` likeliest tokens, or over the whole vocabulary (by chunks)."""
    top_k: Annotated[int, Field(ge=1)] = 32
    tail: Literal["bucket", "renormalise", "raw"] = "bucket"
    """top_k alone. bucket: all other tokens are one more outcome (never above the whole divergence); renormalise: both
    distributions over the top-k alone; raw: a partial sum, biased."""


Kernel = Annotated[Point | Set | Div, Field(discriminator="kind")]


# ---------------------------------------------------------------- weight and reduce


class TokenWeight(Strict):
    """A detached factor >= 0 on each token of a term."""

    kind: Literal[
        "probability", "chord_phi", "probability_window", "entropy", "top_entropy", "truncated_importance",
        "masked_importance", "clipped_ratio", "tapered", "positive", "negative",
    ]  # fmt: skip
    """probability: p^power (DFT has power 1); chord_phi: p(1-p); probability_window: 1 where low <= p <= high;
    entropy: exp(power x H) (SRFT has power -1 and +1); top_entropy: 1 on the step's `share` of tokens with the highest
    entropy (80/20); truncated_importance: min(exp(old - behavior), cap) (TIS); masked_importance: the ratio where it
    lies in [1/cap, cap], else 0 (IcePop, MIS); clipped_ratio: clip(exp(c - old), low, high) (CISPO); tapered: 1 where
    A > 0, else min(exp(c - behavior), 1) (TOPR); positive, negative: 1 where A > 0, A <= 0."""
    power: float = 1.0
    low: Annotated[float, Field(ge=0)] = 0.0
    high: Annotated[float, Field(gt=0)] | None = None
    """No upper bound by default."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    cap: Annotated[float, Field(gt=0)] = 2.0
    level: Literal["token", "sequence", "geometric"] = "token"
    """truncated and masked importance, tapered: the token's ratio, its product or geometric mean over the response."""
    keep_ratio: bool = True
    """masked_importance: weigh by the ratio inside the band (IcePop), or by 1 (a plain mask)."""


class Reduce(Strict):
    """The one normaliser of a term: a global count of the whole optimizer step, fixed before the first backward."""

    kind: Literal["token", "sequence", "sequence_sum", "batch_length", "length"] = "token"
    """token: / tokens; sequence: mean over sequences of the mean over tokens; sequence_sum: mean over sequences of the
    sum; batch_length: / (sequences x length); length: / length alone (LUFFY)."""
    length: Annotated[int, Field(ge=1)] | None = None
    """For batch_length and length: the constant; required there and refused elsewhere."""


OriginName = Literal["learner", "demonstration", "teacher", "hint", "environment"]


class Only(Strict):
    """The part of the strand's trained tokens that a term reads, and that its normaliser counts."""

    origins: tuple[OriginName, ...] = ()
    """Tokens that these wrote; empty is everybody."""
    label: Literal["any", "chosen", "rejected"] = "any"
    """Trajectories with this label in their preference set."""
    part: Annotated[int, Field(ge=0)] | None = None
    """Tokens of this part (turn) of their response."""


class Term(Strict):
    """kernel x weights / reduce x coefficient, over the trainable tokens of its strand that it reads."""

    name: str
    kernel: Kernel
    weights: tuple[TokenWeight, ...] = ()
    reduce: Reduce = Reduce()
    only: Only = Only()
    coefficient: float = 1.0
