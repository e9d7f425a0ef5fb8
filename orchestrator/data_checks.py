"""Checks of a pipeline's data that read no more than a first row: whether files are there and have their columns."""

from collections.abc import Iterator

from orchestrator.config import ArithmeticPrompts, JsonlPrompts, ParquetPrompts, Pipeline, PromptSource, TaskPrompts
from orchestrator.explain import Fault, shown
from orchestrator.prompts import table_of as prompt_table
from orchestrator.recipes import Recipe
from policies.bad_input import BadInput
from policies.config import Source
from teachers.config import CarelessTeacher, JsonlDemonstrations, ParquetDemonstrations
from teachers.contexts import reads
from teachers.demonstrations import table_of as demonstration_table
from teachers.labels import table_of as label_table
from teachers.preferences import table_of as preference_table
from teachers.rows import Table, peek

Keys = tuple[str | int, ...]


def files(pipeline: Pipeline) -> Iterator[Fault]:
    """Data files that are not there, hold nothing, or whose first row lacks the columns; paths are absolute by now."""
    for table in _tables(pipeline):
        try:
            missing = peek(table)
        except BadInput as error:
            for line in error.lines:
                said = line.removeprefix(f"{table.path}: ").removeprefix(f"{table.key}.path: ")
                yield Fault((*table.key.split("."), "path"), said)
        else:
            if missing:
                yield Fault(tuple(table.key.split(".")), missing)


def _tables(pipeline: Pipeline) -> Iterator[Table]:
    for name, source in (("train", pipeline.prompts.train), ("probe", pipeline.prompts.probe)):
        if isinstance(source, JsonlPrompts | ParquetPrompts):
            yield prompt_table(source, f"prompts.{name}")
    if isinstance(pipeline.demonstrations, JsonlDemonstrations | ParquetDemonstrations):
        yield demonstration_table(pipeline.demonstrations)
    if pipeline.preferences is not None:
        yield preference_table(pipeline.preferences)
    if pipeline.labels is not None:
        yield label_table(pipeline.labels)


# ---------------------------------------------------------------- what a recipe asks for


def supplies(pipeline: Pipeline, recipe: Recipe, key: Keys) -> Iterator[Fault]:
    """A recipe that learns from data, and nobody who gives them; `key` is the stage's recipe."""
    producers = {strand.source.producer for strand in recipe.strands}
    kind = (*key, "kind")
    if any(_takes_given(strand.source) for strand in recipe.strands):
        yield from _demonstrations(pipeline, recipe, kind)
    if "preference" in producers and pipeline.preferences is None:
        problem = f"needs preferences, but preferences is null {shown(recipe.name)}"
        yield Fault(kind, problem, "add preferences: {kind: jsonl, path: ...}, or choose a recipe without them")
    if "labelled" in producers and pipeline.labels is None:
        problem = f"needs labelled responses, but labels is null {shown(recipe.name)}"
        yield Fault(kind, problem, "add labels: {kind: jsonl, path: ...}, or choose a recipe without them")
    if "teacher" in producers and not (recipe.teacher or recipe.teachers):
        problem = f"a teacher writes its responses, and none is named {shown(recipe.name)}"
        yield Fault(kind, problem, "name the teacher's folder in the recipe")


def _demonstrations(pipeline: Pipeline, recipe: Recipe, key: Keys) -> Iterator[Fault]:
    prompts = pipeline.prompts.train
    if pipeline.demonstrations is None:
        problem = f"needs demonstrations, but demonstrations is null {shown(recipe.name)}"
        yield Fault(key, problem, "add demonstrations, or choose a recipe without them")
    elif isinstance(pipeline.demonstrations, CarelessTeacher) and not isinstance(prompts, ArithmeticPrompts):
        problem = (
            f"the careless teacher solves arithmetic alone, but prompts.train is {called(prompts)}, "
            f"and {recipe.name} needs demonstrations (got 'careless')"
        )
        yield Fault(("demonstrations", "kind"), problem, "take demonstrations from jsonl, parquet or model")


def _takes_given(source: Source) -> bool:
    """Whether the strand trains on the pipeline's demonstrations, not on what a model writes for it alone."""
    prepare = source.prepare
    if source.producer != "demonstration" or prepare is None:
        return source.producer == "demonstration"
    shown = any({"demonstration", "hint"} & reads(one) for one in prepare.attempts)
    return prepare.writer == "nobody" or prepare.otherwise == "demonstration" or shown


def called(prompts: PromptSource) -> str:
    """A prompt source in words."""
    return f"{prompts.kind} {prompts.dataset}" if isinstance(prompts, TaskPrompts) else prompts.kind
