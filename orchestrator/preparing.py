"""A stage's preparations: written once, kept in the run directory, read back when the stage goes on after a resume."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.collect import Collector, Recipe
from orchestrator.config import Stage
from orchestrator.ports import FrozenModel
from orchestrator.prepared import Prepared, Preparing
from orchestrator.records import Dropped
from orchestrator.replay import read_back
from policies.config import Prepare, Strand
from policies.trajectory import Sampling


async def furnish(
    collector: Collector,
    recipe: Recipe,
    folder: Path,
    *,
    step: int,
    ranker: FrozenModel | None,
    on_drop: Callable[[Dropped], None],
) -> Collector:
    """The collector with all that a stage finds when it begins or goes on after `step`: prepared data, the past.

    `folder` is the run directory. The engines must serve the policy that the stage begins with, unless everything is
    prepared already; the ledger must be flushed.
    """
    stage, strands = recipe.stage, recipe.strands
    prepared = await prepare(stage, strands, collector, folder / "prepared", ranker=ranker, on_drop=on_drop)
    replay = read_back(folder / "ledger" / "trajectories", step, strands, collector.version)
    return replace(collector, prepared=prepared, replay=replay)


def forget(folder: Path, stages: Sequence[str]) -> None:
    """Take away what was prepared for these stages: an earlier one is to be trained again."""
    for stage in stages:
        for path in (folder / "prepared").glob(f"{stage}~*.parquet"):
            path.unlink()


async def prepare(
    stage: Stage,
    strands: Sequence[Strand],
    collector: Collector,
    folder: Path,
    *,
    ranker: FrozenModel | None,
    on_drop: Callable[[Dropped], None],
) -> dict[str, Prepared]:
    """Strand name -> its data. The engines must serve the policy that the stage begins with, and `ranker` hold it.

    `folder` is the run directory's `prepared`; a strand's file that exists already is what the strand draws from.
    """
    import pyarrow.parquet as pq

    from orchestrator.ledger import write_parquet
    from policies.arrow import from_table, to_table

    found: dict[str, Prepared] = {}
    for strand in strands:
        config = strand.source.prepare
        if config is None:
            continue
        path = folder / f"{stage.name}~{strand.name}.parquet"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            work = _work(stage, strand, config, collector, ranker, on_drop)
            write_parquet(path, to_table(await work.run()))
        found[strand.name] = Prepared.of(config, from_table(pq.read_table(path)))
    return found


def _work(
    stage: Stage,
    strand: Strand,
    config: Prepare,
    collector: Collector,
    ranker: FrozenModel | None,
    on_drop: Callable[[Dropped], None],
) -> Preparing:
    writer = {"learner": collector.sampler, "teacher": collector.writers.get("teacher"), "nobody": None}[config.writer]
    if writer is None and config.writer != "nobody":
        raise ValueError(f"strand {strand.name}: prepare.writer is {config.writer}, and no {config.writer} was started")
    if collector.tokenizer is None:
        raise ValueError(f"strand {strand.name}: a preparation needs a tokenizer, and the collector has none")
    sampling, temperature = stage.sampling, strand.source.temperature
    return Preparing(
        stage=stage,
        strand=strand,
        prompts=collector.prompts,
        demonstrations=collector.demonstrations,
        writer=writer,
        scorer=collector.scorer,
        ranker=ranker,
        tokenizer=collector.tokenizer,
        sampling=Sampling(
            sampling.temperature if temperature is None else temperature,
            sampling.top_p,
            sampling.top_k,
            sampling.max_tokens,
            sampling.stop,
        ),
        seed=collector.seed,
        on_drop=on_drop,
    )
