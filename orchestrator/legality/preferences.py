"""Set kernels: who labels their sets, how many there are, and which head scores them (V13)."""

from collections.abc import Iterator

from orchestrator.legality.sources import group, writer
from orchestrator.legality.verdict import Case, Reading, Verdict
from policies.config import Gae, ProcessCredit, Set, Strand
from policies.reduce import UNARY

TOKENS = ("value", "regression")
"""Links over the outputs of a scalar head at tokens that have a target."""


def preferences(case: Case) -> Iterator[Verdict]:
    """Every term's labels and head, then the selections that make pairs."""
    for reading in case.readings():
        yield from _head(reading)
        if isinstance(reading.term.kernel, Set):
            yield from _labels(case, reading, reading.term.kernel)
            yield from _enough(case, reading, reading.term.kernel)
            yield from _unread(reading, reading.term.kernel)
        if reading.term.only.label != "any" and not labelled(reading.strand):
            text = f"reads {reading.term.only.label} responses alone, and nothing labels this strand's"
            yield Verdict("error", "V13", reading.where, text, _LABELS)
    for strand in case.recipe.strands:
        yield from _pairs(case, strand)


def labelled(strand: Strand) -> bool:
    """Whether its trajectories bear preference labels."""
    return strand.source.producer in ("preference", "labelled") or strand.source.select.kind == "pair"


_LABELS = "take producer preference (or labelled), or make pairs of rollouts with select: {kind: pair}"


# ---------------------------------------------------------------- labels


def _labels(case: Case, reading: Reading, kernel: Set) -> Iterator[Verdict]:
    strand = reading.strand
    if kernel.link == "value":
        read = case.strand(strand.name) or strand
        if not isinstance(read.credit, Gae):
            text = "a value is fitted to returns, and the strand's credit gives none"
            yield Verdict("error", "V13", reading.where, text, "set the strand's credit to gae")
    elif kernel.link == "regression" or kernel.unit == "token":
        read = case.strand(strand.name) or strand
        if strand.source.producer != "labelled" and not isinstance(read.credit, ProcessCredit):
            text = f"link {kernel.link} on tokens needs a target at each step's end, and nothing gives one"
            fix = "take producer labelled (rows with step labels), or credit process"
            yield Verdict("error", "V13", reading.where, text, fix)
    elif kernel.link in UNARY:
        if not labelled(strand):
            text = f"link {kernel.link} reads a label on each response, and nothing labels this strand's"
            yield Verdict("error", "V13", reading.where, text, _LABELS)
    elif not (labelled(strand) or _told_apart(case, reading)) or strand.source.producer == "labelled":
        text = f"link {kernel.link} compares a chosen with a rejected response, and nothing pairs this strand's"
        fix = "take producer preference, or make pairs of rollouts with select: {kind: pair}"
        yield Verdict("error", "V13", reading.where, text, fix)


def _told_apart(case: Case, reading: Reading) -> bool:
    """Whether a reward model reads the policy's responses and somebody else's to the same prompts: its pairs."""
    owner = next((one for one in case.recipe.learners if reading.where.startswith(f"{one.name}/")), None)
    if owner is None or owner.role != "reward":
        return False
    read = [one for one in group(case.recipe) if one.name in {strand.name for strand in owner.strands}]
    own = [writer(one.source) in ("learner", "earlier") for one in read]
    return any(own) and not all(own)


def _enough(case: Case, reading: Reading, kernel: Set) -> Iterator[Verdict]:
    """Links that compare the rows of a step, in a step that has one; and exo, which divides by a doubt."""
    if kernel.link == "exo" and not kernel.smoothing:
        text = "exo's divergence from a label without doubt is infinite: it needs the probability that a label is wrong"
        yield Verdict("error", "V13", reading.where, text, "set smoothing above 0")
    source = reading.strand.source
    units = source.per_step or source.per_prompt * case.stage.prompts_per_step
    rows = units * 2 if source.producer == "preference" else units
    if kernel.link == "kto" and rows < 2:
        text = "kto measures each row against the others' mean divergence, and a step has one row: z is unknown"
        yield Verdict("error", "V13", reading.where, text, "set per_step (or prompts_per_step) to 2 or more")
    if kernel.link == "aot" and rows < 4:
        text = "aot pairs chosen and rejected by rank within the step, and a step has one pair: this is logistic"
        yield Verdict("warning", "V13", reading.where, text, "set per_step (or prompts_per_step) to 2 or more")


DOUBTING = ("logistic", "aot", "aot_unpaired", "robust", "exo")
"""Links that read `smoothing`."""


def _unread(reading: Reading, kernel: Set) -> Iterator[Verdict]:
    """Options that the link does not read, or not as they are meant."""
    if kernel.smoothing and kernel.link not in DOUBTING:
        text = f"link {kernel.link} reads no smoothing (got {kernel.smoothing:g}): labels count as certain"
        yield Verdict(
            "warning", "V13", reading.where, text, f"set it to 0, or the link to one of {', '.join(DOUBTING)}"
        )
    if kernel.link == "aot" and kernel.divergence != "reverse_kl":
        text = f"aot compares log-ratios by rank and reads no divergence (got {kernel.divergence})"
        yield Verdict("warning", "V13", reading.where, text, "set divergence: reverse_kl")
    if kernel.link in ("aot", "aot_unpaired") and kernel.weighted:
        text = f"{kernel.link} sorts the pairs, and the weights are those of the pairs before they are sorted"
        yield Verdict("warning", "V13", reading.where, text, "set weighted: false")


def _pairs(case: Case, strand: Strand) -> Iterator[Verdict]:
    """A selection that makes pairs: of two or more, for somebody who reads them."""
    if strand.source.select.kind != "pair":
        return
    name = strand.source.select.join
    beside = case.strand(name) if name else None
    if name and (beside is None or beside.terms or not beside.source.per_prompt):
        what = "there is no such strand" if beside is None else "it has terms, or is not of the prompts' groups"
        fix = "name a strand with per_prompt and without terms: its responses train under this one"
        yield Verdict("error", "lineage", strand.name, f"joins '{name}' to its pairs, and {what}", fix)
    asked = strand.source.per_prompt + (beside.source.per_prompt if beside else 0)
    if asked < 2:
        text = f"makes a pair of a prompt's responses, and asks for {asked or 'none'}"
        yield Verdict("error", "V13", strand.name, text, "set per_prompt to 2 or more, or join another strand")
    mine = [one for one in case.readings() if one.strand.name == strand.name]
    if strand.terms and not any(isinstance(one.term.kernel, Set) or one.term.only.label != "any" for one in mine):
        text = "selects pairs, and no term tells chosen from rejected: both would train alike"
        fix = "write a set kernel, or only: {label: chosen}; or select best, passed or above"
        yield Verdict("error", "V13", strand.name, text, fix)


# ---------------------------------------------------------------- heads


def _head(reading: Reading) -> Iterator[Verdict]:
    kernel, where = reading.term.kernel, reading.where
    scores_head = isinstance(kernel, Set) and kernel.score == "head"
    if reading.scalar and not scores_head:
        text = f"a {kernel.kind} kernel reads log-probabilities, and this learner's head gives one number"
        yield Verdict("error", "heads", where, text, "write a set kernel with score: head, or head: language")
    if not reading.scalar and scores_head:
        text = "score head reads a scalar head, and this learner has a language head"
        yield Verdict("error", "heads", where, text, "set the recipe's head: scalar, or move the term to a co-learner")
    if isinstance(kernel, Set) and kernel.score == "likelihood" and (kernel.link in TOKENS or kernel.unit == "token"):
        text = f"link {kernel.link} on tokens fits a number, and score likelihood gives a probability's logarithm"
        yield Verdict("error", "heads", where, text, "set score: head, on a recipe or co-learner with a scalar head")
