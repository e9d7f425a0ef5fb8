"""Ratios and weights: what stands below the ratio, what that leaves out, what counts twice (V1, V6, V10, V14)."""

from collections.abc import Iterator

from orchestrator.legality.sources import called, reads_hint, recorded, writer
from orchestrator.legality.verdict import Case, Reading, Verdict
from orchestrator.needs import SAMPLER
from policies.config import (
    BoxCox,
    Clip,
    ConstantCredit,
    Div,
    Gae,
    GroupCredit,
    Identity,
    Parabola,
    PartCredit,
    Point,
    SoftGate,
    Strand,
    TeacherGap,
)

IMPORTANCE = ("truncated_importance", "masked_importance")
"""Weights exp(old - behavior)."""

_INSTEAD = "divide by `current`, `one` or `old`, without an importance weight"


def points(case: Case) -> Iterator[Verdict]:
    """Every term's ratio and weights, and every strand's credit that reads the sampler."""
    for reading in case.readings():
        yield from _sampler(reading)
        yield from _twice(reading)
        yield from _level(reading)
        yield from _normaliser(reading)
        if isinstance(reading.term.kernel, Point):
            yield from _denominator(case, reading, reading.term.kernel)
    for strand in case.recipe.strands:
        yield from _credit(strand)
        yield from _temperature(strand)
        yield from _one_update(case, strand)


def weights(reading: Reading) -> tuple[str, ...]:
    """Kinds of the term's weights."""
    return tuple(weight.kind for weight in reading.term.weights)


def corrected(reading: Reading) -> bool:
    """Whether the term divides by the probability of sampling, as its ratio or as a weight."""
    kernel = reading.term.kernel
    ratio = isinstance(kernel, Point) and kernel.denominator == "behavior"
    return (
        ratio or any(kind in SAMPLER for kind in weights(reading)) or (isinstance(kernel, Div) and kernel.form == "rk3")
    )


# ---------------------------------------------------------------- V1: what the tokens were sampled with


def _sampler(reading: Reading) -> Iterator[Verdict]:
    """A term that divides by the sampler's probability, and tokens of which nobody knows it."""
    source = reading.strand.source
    if not corrected(reading):
        return
    if not recorded(source):
        text = f"needs the probability with which each token was sampled, and {called(source)} has none"
        yield Verdict("error", "V1", reading.where, f"{text}: the ratio would be made up", _INSTEAD)
    elif reads_hint(reading.strand, reading.term):
        text = "needs the probability with which each token was sampled, and a hint's tokens were not sampled"
        yield Verdict("error", "V1", reading.where, text, "set only.origins: [learner], or hint_trained: false")


def _credit(strand: Strand) -> Iterator[Verdict]:
    match strand.credit:
        case TeacherGap():
            why = "the gap is the teacher's log-probability less the sampler's"
        case GroupCredit(kl=kl) | Gae(kl=kl) | PartCredit(kl=kl) if kl:
            why = "the k1 penalty in the reward is the sampler's log-probability less the reference's"
        case _:
            return
    if not recorded(strand.source):
        text = f"{why}, and {called(strand.source)} has none"
        fix = "credit it otherwise (constant, group without kl), or sample it with a model: rollout, teacher, reference"
        yield Verdict("error", "V1", strand.name, text, fix)


def _denominator(case: Case, reading: Reading, kernel: Point) -> Iterator[Verdict]:
    """Which probability stands below the ratio, and what that leaves out."""
    who, lag = writer(reading.strand.source), case.stage.max_staleness
    if corrected(reading):
        return
    if who != "learner":
        yield Verdict("declared", "V1", reading.where, _GIVEN[kernel.denominator])
    elif lag and kernel.denominator == "old":
        text = (
            f"rollouts up to {lag} versions old are treated as the learner's own: the ratio is taken against the "
            "learner before the update, not against the sampler"
        )
        yield Verdict("declared", "V1", reading.where, text)
    elif lag and kernel.denominator == "current":
        yield Verdict("declared", "V1", reading.where, "no ratio at all: stale rollouts count as fresh ones")


_GIVEN = {
    "current": "plain likelihood: how likely the given tokens were to be sampled is left out",
    "one": "the sampler's probability is taken as 1: the given tokens are not importance-weighted",
    "old": "the learner's own probability stands in for that of whoever wrote the tokens",
    "behavior": "",
}


def _temperature(strand: Strand) -> Iterator[Verdict]:
    heat = strand.source.temperature
    if heat is not None and heat != 1 and strand.terms:
        text = f"is drawn at temperature {heat:g} and trained on at 1: what is sampled is not what is trained"
        fix = "leave source.temperature out, or give the strand no terms: it then serves its group alone"
        yield Verdict("warning", "V1", strand.name, text, fix)


def _one_update(case: Case, strand: Strand) -> Iterator[Verdict]:
    """A clipped imitation ratio that has no update in which to leave 1."""
    if case.stage.updates > 1:
        return
    constant = isinstance(strand.credit, ConstantCredit)
    for term in strand.terms:
        match term.kernel:
            case Point(denominator="old", shape=Clip(), advantage=worth) if constant or worth == "one":
                text = "with one update a step the ratio to `old` is 1 and no clip acts: this is plain likelihood"
                yield Verdict("declared", "V1", f"{strand.name}.{term.name}", text, "set updates to 2 or more")


# ---------------------------------------------------------------- V10, V14: factors that count twice


def _twice(reading: Reading) -> Iterator[Verdict]:
    kinds = weights(reading)
    for factor, first, second in _ratios(reading.term.kernel, kinds):
        text = f"{first} and {second} hold the same factor, {factor}: it counts twice"
        yield Verdict("error", "V10", reading.where, text, _V10)
    match reading.term.kernel:
        case Point(denominator="one", shape=shape):
            yield from _squared(reading.where, shape, kinds)


_V10 = "drop the weight, or divide by `old` under an importance weight, by `current` under clipped_ratio or tapered"


def _ratios(kernel: object, kinds: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """(the factor, who holds it, who holds it again)."""
    importance = [kind for kind in kinds if kind in IMPORTANCE]
    over_sampler = [*importance, *(kind for kind in kinds if kind == "tapered")]
    match kernel:
        case Point(denominator="behavior"):
            yield from (("1 / behavior", "denominator behavior", kind) for kind in over_sampler)
            yield from (
                ("the policy's ratio", "denominator behavior", kind) for kind in kinds if kind == "clipped_ratio"
            )
        case Point(denominator="old"):
            repeated = [kind for kind in kinds if kind in ("clipped_ratio", "tapered")]
            yield from (("the policy's ratio", "denominator old", kind) for kind in repeated)
        case Div(form="rk3"):
            yield from (("1 / behavior", "form rk3", kind) for kind in over_sampler)
    if len(over_sampler) > 1:
        yield ("1 / behavior", over_sampler[0], over_sampler[1])


def _squared(where: str, shape: object, kinds: tuple[str, ...]) -> Iterator[Verdict]:
    """With denominator one the ratio is the probability, so that these shapes already weigh by what the weight is."""
    match shape:
        case Identity() | BoxCox(alpha=1):
            own, held = "p", ("probability", "chord_phi")
        case Parabola():
            own, held = "p (1 - p)", ("chord_phi", "probability")
        case _:
            return
    for kind in kinds:
        if kind in held:
            text = f"shape {shape.kind} over denominator one has coefficient {own}; weight {kind} squares the p in it"
            fix = "write the weight with denominator current and shape log, or drop the weight"
            yield Verdict("error", "V14", where, text, fix)


# ---------------------------------------------------------------- V6: levels and normalisers


def _level(reading: Reading) -> Iterator[Verdict]:
    kernel, reduce = reading.term.kernel, reading.term.reduce.kind
    if not isinstance(kernel, Point) or reduce == "sequence":
        return
    if kernel.level in ("geometric", "sequence"):
        text = f"a {kernel.level}-level ratio is one number a response; under reduce {reduce} the long ones weigh more"
        yield Verdict(
            "error", "V6", reading.where, f"{text}: another gradient than the one meant", "reduce by sequence"
        )
    elif kernel.level == "part":
        text = f"a part's ratio is one number for its tokens; under reduce {reduce} long parts weigh more"
        yield Verdict("declared", "V6", reading.where, text)
    elif isinstance(kernel.shape, SoftGate):
        text = f"the soft gate is stated for the mean over each response's tokens; reduce {reduce} has another gradient"
        yield Verdict("error", "V6", reading.where, text, "reduce by sequence")


def _normaliser(reading: Reading) -> Iterator[Verdict]:
    reduce = reading.term.reduce
    if reduce.kind == "length":
        text = (
            f"the sum is divided by {reduce.length} alone, not by the number of responses (no 1/B): more of them, more "
            "loss"
        )
        yield Verdict("declared", "V6", reading.where, text)
    if reduce.kind == "batch_length":
        text = f"the sum is divided by responses x {reduce.length}, whatever their lengths: 1/B is included"
        yield Verdict("declared", "V6", reading.where, text)
