"""Each kernel's loss and gradient beside a hand-written torch version of the same formula on the same tensors.

    python -m benchmarks.objectives [--rows 64] [--longest 512] [--rounds 100] [--no-memory]

One thread. In each round all run once, in turn; a ratio is of one round, and the table gives the median. The first one
is the kernel's: the term's sum over given slots, its normaliser, and the gradient. The next two add what a step does
around it, at a fixed cost for each micro-batch: `pull_of` takes the slots and gives g, `evaluate_logps` measures the
strand as well. Terms over the whole vocabulary start from hidden states; their memory is measured at 8k tokens by 150k
vocabulary.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import by_hand
from benchmarks.allocations import peak_bytes
from benchmarks.by_hand import Drawn
from policies.batch import TrajectoryBatch
from policies.config import Clip, Div, Kernel, Log, Point, Reduce, Saturate, Set, Source, Strand, Term
from policies.full_divergence import whole_divergence
from policies.logprobs import token_logprobs
from policies.objective import evaluate_logps, pull_of, term_sum
from policies.slots import PolicyView, WholeVocabulary, take
from policies.vocabulary_chunks import CHUNK_ELEMENTS

FULL = (1024, 50_000, 64)
"""Tokens, vocabulary, hidden size of the timed divergence over the whole vocabulary."""


MEAN = Reduce()


@dataclass(frozen=True, slots=True, eq=False)
class Rival:
    """A kernel of ours and the same by hand."""

    name: str
    kernel: Kernel
    by_hand: Callable[[Drawn], Tensor]
    reduce: Reduce = MEAN


RIVALS = (
    Rival("point clip, token mean", Point(shape=Clip()), by_hand.clip),
    Rival(
        "point saturate, length",
        Point(denominator="one", shape=Saturate()),
        by_hand.saturate,
        Reduce(kind="length", length=512),
    ),
    Rival("point log, token mean", Point(denominator="current", shape=Log()), by_hand.likelihood),
    Rival("point clip geometric", Point(level="geometric", shape=Clip()), by_hand.geometric, Reduce(kind="sequence")),
    Rival("set logistic", Set(), by_hand.pairs),
    Rival("set kto", Set(link="kto"), by_hand.unary),
    Rival("div k3", Div(form="k3"), by_hand.k3),
    Rival("div forward, top 32, bucket", Div(form="forward", target="teacher"), by_hand.top_k),
)


def batch_of(one: Drawn) -> TrajectoryBatch:
    """The drawn views as the learner's batch: one packed row, every slot trained."""
    rows = len(one.lengths_B)
    return TrajectoryBatch(
        tokens_BT=torch.zeros_like(one.sequence_N)[None],
        mask_BT=torch.ones_like(one.sequence_N, dtype=torch.bool)[None],
        advantages_BT=one.advantages_N[None],
        old_logps_BT=one.old_N[None],
        reference_logps_BT=one.reference_N[None],
        teacher_topk_logps_BTK=one.teacher_topk_NK[None],
        sequence_BT=one.sequence_N[None],
        set_B=one.set_B,
        label_B=one.label_B,
        strand_B=torch.zeros(rows, dtype=torch.int64),
        lengths=tuple(one.lengths_B.tolist()),
    )


def contestants(rival: Rival, one: Drawn) -> tuple[list[Callable[[], Tensor]], list[Tensor]]:
    """By hand, the kernel, with g, and with facts, each up to the loss; and the leaves that get a gradient."""
    kernel = rival.kernel
    strand = Strand(
        name="s",
        source=Source(producer="rollout"),
        terms=(Term(name="t", kernel=kernel, reduce=rival.reduce),),
    )
    rows = len(one.lengths_B)
    sets = (rows if kernel.link == "kto" else rows // 2) if isinstance(kernel, Set) else 0
    tokens = float(len(one.logps_N))
    counts = {"sequence": float(rows), "length": 512.0}
    batch, normalisers = batch_of(one), ((float(sets) or counts.get(rival.reduce.kind, tokens),),)
    figures = {"s/t/kto": 0.5}
    wide = isinstance(kernel, Div) and kernel.form == "forward"
    leaf = one.topk_logps_NK if wide else one.logps_N

    live = PolicyView(one.logps_N[None], topk_logps_BTK=one.topk_logps_NK[None] if wide else None)
    slots = take((0, "s"), batch, live, only=True, old_is_current=False)
    here = {"topk_logps_NK": leaf} if wide else {"logps_N": leaf}
    slots = replace(slots, **here)  # type: ignore[arg-type]

    def alone() -> Tensor:
        return term_sum(strand.terms[0], slots, figures) / normalisers[0][0]

    def view() -> PolicyView:
        return PolicyView(one.logps_N[None], topk_logps_BTK=one.topk_logps_NK[None] if wide else None)

    def pulled() -> Tensor:
        return pull_of([strand], batch, view(), normalisers=normalisers, statistics=figures).loss

    def measured() -> Tensor:
        return evaluate_logps([strand], batch, view(), normalisers=normalisers, statistics=figures).loss

    return [lambda: rival.by_hand(one), alone, pulled, measured], [leaf]


def whole_contestants() -> tuple[list[Callable[[], Tensor]], list[Tensor]]:
    """The reverse KL over the whole vocabulary: dense by hand, and ours in one chunk budget."""
    tokens, vocabulary, size = FULL
    torch.manual_seed(0)
    hidden, target = torch.randn(tokens, size), torch.randn(tokens, size)
    head, target_head = (0.3 * torch.randn(vocabulary, size) for _ in range(2))
    leaves = [hidden.requires_grad_(), head.requires_grad_()]
    key = WholeVocabulary.of(Div(form="reverse", support="full"))

    def ours() -> Tensor:
        return whole_divergence(hidden, head, target, target_head, [key])[key].mean()

    return [lambda: by_hand.reverse(hidden, head, target, target_head), ours], leaves


def race(runs: Sequence[Callable[[], Tensor]], leaves: Sequence[Tensor], rounds: int) -> list[list[float]]:
    """Seconds [round][contestant] of loss and gradient, after all of them gave the same."""
    for leaf in leaves:
        leaf.grad = None
    first = [_gradients(run, leaves) for run in runs]
    for other in first[1:]:
        torch.testing.assert_close(other, first[0], rtol=1e-3, atol=1e-6)
    return [[_seconds(run, leaves) for run in runs] for _ in range(rounds)]


def _gradients(run: Callable[[], Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    loss = run()
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def _seconds(run: Callable[[], Tensor], leaves: Sequence[Tensor]) -> float:
    for leaf in leaves:
        leaf.grad = None
    began = time.perf_counter()
    run().backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - began


def memory(tokens: int = 8192, vocabulary: int = 150_000, size: int = 8) -> dict[str, int]:
    """Peak bytes beyond inputs, results and gradients of what holds logits; H is small, so that the logits rule."""
    hidden, target = torch.randn(tokens, size), torch.randn(tokens, size)
    head, target_head = (0.3 * torch.randn(vocabulary, size) for _ in range(2))
    targets = torch.randint(0, vocabulary, (tokens,))
    leaves = [hidden.requires_grad_(), head.requires_grad_()]

    def logprobs() -> object:
        found = token_logprobs(hidden, head, targets)
        (found.logps_N + found.entropy_N).sum().backward()
        return found

    def divergence(form: str) -> Callable[[], object]:
        key = WholeVocabulary.of(Div(form=form, support="full"))  # type: ignore[arg-type]

        def run() -> object:
            found = whole_divergence(hidden, head, target, target_head, [key])[key]
            found.sum().backward()
            return found

        return run

    found = {}
    for name, run in [("log-probabilities", logprobs), *((form, divergence(form)) for form in ("reverse", "jsd"))]:
        for leaf in leaves:
            leaf.grad = None
        found[name] = peak_bytes(run) - sum(leaf.numel() * leaf.element_size() for leaf in leaves)
    return found


def _show(results: Sequence[tuple[str, list[list[float]]]]) -> Table:
    table = Table("kernel", "by hand ms", "ours ms", "ratio", "quartiles", "with g", "with facts")
    for column in table.columns:
        column.no_wrap = True
    for name, rounds in results:
        columns = list(zip(*rounds, strict=True))
        hand, ours = (1e3 * statistics.median(column) for column in columns[:2])
        ratios = [row[1] / row[0] for row in rounds]
        around = [f"{statistics.median(row[at] / row[0] for row in rounds):.2f}" for at in range(2, len(columns))]
        low, _, high = statistics.quantiles(ratios, n=4)
        spread = f"{low:.2f} - {high:.2f}"
        table.add_row(name, f"{hand:.2f}", f"{ours:.2f}", f"{statistics.median(ratios):.2f}", spread, *around)
    return table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--longest", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--no-memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    one = Drawn.make(options.rows, options.longest, top_k=32)
    results = [(rival.name, race(*contestants(rival, one), options.rounds)) for rival in RIVALS]
    results.append((f"div reverse, full, {FULL}", race(*whole_contestants(), max(5, options.rounds // 10))))
    console = Console()
    console.print(f"{len(one.logps_N)} tokens of {options.rows} responses, {options.rounds} rounds, one thread")
    console.print(_show(results))
    if not options.no_memory:
        table = Table("8k x 150k", "peak MiB", "of the chunk's logits")
        for name, peak in memory().items():
            table.add_row(name, f"{peak / 2**20:.0f}", f"{peak / (4 * CHUNK_ELEMENTS):.2f}")
        console.print(table)


if __name__ == "__main__":
    main()
