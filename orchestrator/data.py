"""Everything a run reads beside its model: prompts, and the data sets that its strands ask for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.config import Pipeline, PromptSource
from orchestrator.prompts import MEASURED, Loaded, disjoint
from orchestrator.prompts import read as read_prompts
from policies.bad_input import BadInput
from policies.config import Strand
from policies.credit import needs_views
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from teachers import labels, preferences
from teachers.contexts import reads
from teachers.demonstrations import DemonstrationSet
from teachers.demonstrations import load as load_demonstrations
from teachers.given import Reading
from teachers.labels import LabelSet
from teachers.preferences import PreferenceSet
from teachers.prompt_book import PromptBook
from teachers.streams import Report

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Data:
    """A run's data, checked; None where no strand asks, or where a model writes them later."""

    train: PromptBook
    probe: PromptBook
    demonstrations: DemonstrationSet | None = None
    preferences: PreferenceSet | None = None
    labels: LabelSet | None = None
    reports: tuple[Report, ...] = ()
    """What became of the rows, one report a file."""
    shifted: PromptBook = field(default_factory=lambda: PromptBook.of(()))
    guard: PromptBook = field(default_factory=lambda: PromptBook.of(()))


def read(pipeline: Pipeline, strands: Sequence[Strand], tokenizer: Tokenizer, base: Path) -> Data:
    """Read and check what the strands ask for; `base` is the pipeline file's folder.

    Raises `BadInput` with the faults of every source, one after the other.
    """
    faults: list[str] = []
    reading = Reading(tokenizer, base, pipeline.model.context)
    train = _tried(faults, lambda: _prompts(pipeline, reading, "train"))
    measured = {name: _measured(faults, pipeline, reading, name) for name in MEASURED}
    prompts, *held_out = (one.prompts if one else PromptBook.of(()) for one in (train, *measured.values()))
    for name, own in zip(MEASURED, held_out, strict=True):
        _tried(faults, partial(disjoint, prompts, own, key=f"prompts.{name}"))
    given = _tried(faults, lambda: _demonstrations(pipeline, strands, prompts, reading) if train else None)
    compared = _tried(faults, lambda: _preferences(pipeline, strands, reading))
    judged = _tried(faults, lambda: _labels(pipeline, strands, reading))
    if faults:
        raise BadInput(faults)
    sources = (train, *measured.values(), given, compared, judged)
    reports = tuple(one.report for one in sources if one is not None and one.report is not None)
    probe, shifted, guard = held_out
    return Data(prompts, probe, given, compared, judged, reports, shifted, guard)


def _measured(faults: list[str], pipeline: Pipeline, reading: Reading, name: str) -> Loaded | None:
    return _tried(faults, lambda: _prompts(pipeline, reading, name))


def _tried(faults: list[str], load: Callable[[], T]) -> T | None:
    """What is loaded, or its faults among the others."""
    try:
        return load()
    except BadInput as error:
        faults += error.lines
        return None


def _asked(strands: Sequence[Strand], producer: str) -> bool:
    return any(strand.source.producer == producer for strand in strands)


def _prompts(pipeline: Pipeline, reading: Reading, which: str) -> Loaded | None:
    source: PromptSource | None = getattr(pipeline.prompts, which)
    if source is None:
        return None
    longest = max(stage.sampling.max_tokens for stage in pipeline.stages)
    room: dict[str, Any] = {"base": reading.base, "context": reading.context, "max_tokens": longest}
    return read_prompts(source, reading.tokenizer, key=f"prompts.{which}", **room)


def _demonstrations(
    pipeline: Pipeline, strands: Sequence[Strand], prompts: Sequence[Prompt], reading: Reading
) -> DemonstrationSet | None:
    """The pipeline's demonstrations; where a strand asks by prompt, each must answer one of the training prompts."""
    config = pipeline.demonstrations
    asking = [strand for strand in strands if strand.source.producer == "demonstration" or _by_prompt(strand)]
    if config is None or config.kind == "model" or not asking:
        return None  # a model's are written once the actors are up
    room: dict[str, Any] = {"base": reading.base, "context": reading.context, "environment": pipeline.environment}
    found = load_demonstrations(config, prompts, reading.tokenizer, seed=pipeline.seed, **room)
    if any(_by_prompt(strand) for strand in asking):
        found.refuse_strangers()
    return found


def _by_prompt(strand: Strand) -> bool:
    """Whether the strand finds demonstrations under training prompts: in groups, hints, templates, what is prepared.

    A verdict needs the prompt too, for its reference.
    """
    source = strand.source
    if source.producer == "demonstration":
        judged = bool(strand.terms) and "rewards" in needs_views(strand.credit)
        return not source.per_step or source.prepare is not None or source.select.kind != "all" or judged
    prepared = source.prepare is not None and (
        source.prepare.writer == "nobody" or source.prepare.otherwise == "demonstration"
    )
    templates = (source.behavior, source.train, source.teacher, source.turn)
    return source.prefix or prepared or any({"demonstration", "hint"} & reads(text) for text in templates)


def _preferences(pipeline: Pipeline, strands: Sequence[Strand], reading: Reading) -> PreferenceSet | None:
    asked = _asked(strands, "preference")
    return preferences.load(pipeline.preferences, reading) if asked and pipeline.preferences is not None else None


def _labels(pipeline: Pipeline, strands: Sequence[Strand], reading: Reading) -> LabelSet | None:
    asked = _asked(strands, "labelled")
    return labels.load(pipeline.labels, reading) if asked and pipeline.labels is not None else None
