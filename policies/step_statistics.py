"""The statistics of a batch that is the whole step, from its own slots: what `evaluate` uses when none are given."""

from collections.abc import Sequence

from torch import Tensor

from policies import set_kernels
from policies.config import Set, Strand, Term
from policies.slots import Slots
from policies.statistics import Statistics, figure, key


def of_slots(strands: Sequence[Strand], parts: Sequence[Slots]) -> Statistics:
    """Name -> value, as `policies.statistics.finish` gives them for a step of several batches."""
    found: dict[str, float] = {}
    for strand, slots in zip(strands, parts, strict=True):
        for term in strand.terms:
            read = slots.read_by(term.only)
            if isinstance(term.kernel, Set) and term.kernel.link == "kto":
                found[key(strand.name, term.name, "kto")] = figure(None, _gaps(term.kernel, read))
            for weight in term.weights:
                if weight.kind == "top_entropy":
                    found[key(strand.name, term.name, "top_entropy")] = figure(weight, _entropies(term, read))
    return found


def _gaps(kernel: Set, slots: Slots) -> list[float]:
    """Scores of the rows that nobody labelled."""
    if slots.label_B is None:
        return []
    baseline_B = (slots.counts_B() > 0) & ~slots.label_B.isfinite()
    return _listed(set_kernels.scores(kernel, slots)[baseline_B])


def _entropies(term: Term, slots: Slots) -> list[float]:
    given = "old_entropy_N" if slots.old_entropy_N is not None else "entropy_N"
    return _listed(slots.known(given, f"term {term.name!r}, weight top_entropy"))


def _listed(values: Tensor) -> list[float]:
    found: list[float] = values.detach().double().tolist()
    return found
