"""What `braid diagnose`, `probe` and `eval` measure: a model folder or a run's checkpoint, its prompts and verifier."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.available import shows
from orchestrator.config import Pipeline, PromptSource
from orchestrator.explain import yaml_line
from orchestrator.here import HERE
from orchestrator.load import read
from orchestrator.notation import parse, write
from orchestrator.prompts import read as read_prompts
from orchestrator.run_directory import RunDirectory
from policies import checkpoint
from policies.bad_input import BadInput, refuse, shown
from policies.model_folder import materialise, read_json
from policies.tokens import Tokenizer
from teachers.config import ModelDemonstrations
from teachers.demonstrations import DemonstrationSet
from teachers.demonstrations import load as load_demonstrations
from teachers.prompt_book import PromptBook

LONGEST = 2048
"""Context of a model that could read more, in tokens; `--set model.context=...` changes it."""

OPTIONS = {
    "model.path": "MODEL",
    "model": "MODEL",
    "prompts.train.path": "--prompts",
    "prompts.train": "--prompts",
    "demonstrations.path": "--demonstrations",
    "demonstrations": "--demonstrations",
    "verifier": "--verifier",
}
"""Key of the pipeline that is made of the options -> the option that brought it."""


WORDS = {
    "name the column in the pipeline file": "name the column with --set prompts.train.prompt=COLUMN and the like",
    "lower sampling.max_tokens": "lower --max-tokens",
    "raise model.context": "raise it with --set model.context=TOKENS",
}
"""What the advice is in options."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The options that these commands share."""

    model: Path
    """A model folder, or a run directory."""
    prompts: Path | None = None
    step: int | None = None
    """Checkpoint of a run; the newest by default."""
    demonstrations: Path | None = None
    verifier: str = ""
    """A kind, or a mapping in YAML."""
    max_tokens: int = 512
    sets: tuple[str, ...] = ()
    in_process: bool = False
    teacher: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """Read and checked; nothing is started."""

    folder: Path
    """Of the weights."""
    pipeline: Pipeline
    tokenizer: Tokenizer
    prompts: PromptBook
    """To measure on."""
    shown: PromptBook
    """Those that the demonstrations answer; the same, or a run's training prompts."""
    demonstrations: DemonstrationSet | None = None
    home: RunDirectory | None = None
    step: int = 0
    plain: Pipeline | None = None
    """The pipeline to go on with: a run's own, or that of the options, with the engines it names."""
    own: bool = False
    """Whether the prompts are the run's own held-out ones, as its probes have them."""

    @property
    def max_tokens(self) -> int:
        """Longest response."""
        return max(stage.sampling.max_tokens for stage in self.pipeline.stages)


def subject(asked: Asked, out: Path | None = None) -> Subject:
    """Of what was asked for, to be written to `out`. BadInput names the option, its value, and what to do."""
    if out is not None and out.exists():
        raise BadInput([f"--out: exists and is not overwritten (got '{out}'); choose another"])
    if (asked.model / "config.yaml").is_file():
        return _of_run(asked)
    if not asked.model.is_dir():
        raise BadInput([f"MODEL: no such folder (got '{asked.model}'); give a model folder or a run directory"])
    if asked.step is not None:
        raise BadInput(
            [f"--step: a model folder has no steps (got {asked.step}); give a run directory, or leave it out"]
        )
    if asked.prompts is None:
        raise BadInput(
            ["--prompts: a model folder has no prompts of its own (got nothing); give a .jsonl or .parquet file"]
        )
    return _of_model(asked)


def teacher_folder(asked: Asked, tokenizer: Tokenizer) -> str:
    """The teacher's folder, once it is known to share the tokenizer."""
    if asked.teacher is None:
        return ""
    folder = asked.teacher.resolve()
    if not (folder / "tokenizer.json").is_file():
        raise BadInput([f"--teacher: holds no tokenizer.json (got '{asked.teacher}'); give a model folder"])
    if Tokenizer.load(folder).fingerprint != tokenizer.fingerprint:
        told = "has another tokenizer than MODEL, and the recipes that learn from a teacher's tokens need the same"
        raise BadInput([f"--teacher: {told} (got '{asked.teacher}'); leave it out, or give one that shares it"])
    return str(folder)


# ---------------------------------------------------------------- a run's checkpoint


def _of_run(asked: Asked) -> Subject:
    home = RunDirectory.open(asked.model)
    given = [*_replaced(asked), *asked.sets, *(HERE if asked.in_process else ())]
    pipeline = read(home.config, given, checked=False)
    found = _checkpoint(home, asked.step)
    folder = found / "model"
    tokenizer = Tokenizer.load(folder)
    source, key = pipeline.prompts.probe, "prompts.probe"
    if asked.prompts is not None:
        source, key = pipeline.prompts.train, "prompts.train"
    if source is None:
        raise BadInput([f"{home.config}: prompts.probe: the run has no held-out prompts (got null); give --prompts"])
    prompts = _book(pipeline, source, key, tokenizer, home.root)
    shown = prompts
    if asked.prompts is None and shows(pipeline) and not _by_rule(pipeline):
        shown = _book(pipeline, pipeline.prompts.train, "prompts.train", tokenizer, home.root)
    given_by = _demonstrations(pipeline, shown, tokenizer, home.root)
    plain = read(home.config, [*_replaced(asked), *asked.sets], checked=False)
    return Subject(
        folder,
        pipeline,
        tokenizer,
        prompts,
        shown,
        given_by,
        home,
        checkpoint.step_of(found),
        plain,
        asked.prompts is None,
    )


def _replaced(asked: Asked) -> list[str]:
    """What the options change in a run's pipeline."""
    found = []
    if asked.prompts is not None:
        found.append(f"prompts={_flow({'train': source_of(asked.prompts, '--prompts')})}")
    if asked.demonstrations is not None:
        found.append(f"demonstrations={_flow(source_of(asked.demonstrations, '--demonstrations'))}")
    if asked.verifier:
        found.append(f"verifier={_flow(_verifier(asked.verifier))}")
    return found


def _checkpoint(home: RunDirectory, step: int | None) -> Path:
    """The newest good one, or that of the step."""
    if step is None:
        newest = checkpoint.newest(home.checkpoints)
        if newest.path is None:
            told = [f"{one.path}: {one.reason}" for one in newest.rejected] or [f"{home.checkpoints}: no checkpoint"]
            raise BadInput([f"{one}; let the run write one, or give a model folder" for one in told])
        return newest.path
    path, known = home.checkpoints / checkpoint.name(step), checkpoint.steps(home.checkpoints)
    if path not in known:
        there = ", ".join(str(checkpoint.step_of(one)) for one in known) or "none"
        raise BadInput([f"--step: {home.root} has no checkpoint of that step (got {step}); it has {there}"])
    try:
        checkpoint.verify(path)
    except (checkpoint.DamagedCheckpointError, OSError) as error:
        raise BadInput([f"--step: {error} (got {step}); take another step"]) from error
    return path


# ---------------------------------------------------------------- a model folder


def _of_model(asked: Asked) -> Subject:
    with tempfile.TemporaryDirectory(prefix="braid-") as scratch:
        path = Path(scratch) / "options.yaml"
        path.write_text(write(_content(asked)), encoding="utf-8")
        try:
            pipeline = read(path, [*asked.sets, *(HERE if asked.in_process else ())], checked=False)
            plain = read(path, asked.sets, checked=False)
            folder = materialise(pipeline.model, Path(scratch))
            tokenizer = Tokenizer.load(folder)
            prompts = _book(pipeline, pipeline.prompts.train, "prompts.train", tokenizer, Path())
            shown = _demonstrations(pipeline, prompts, tokenizer, Path())
        except BadInput as error:
            raise BadInput([_in_options(line, path) for line in error.lines]) from error
        except ValueError as error:
            raise BadInput([_in_options(str(error), path)]) from error
    _references(pipeline, prompts)
    return Subject(folder, pipeline, tokenizer, prompts, prompts, shown, plain=plain)


def _content(asked: Asked) -> dict[str, Any]:
    """The options as a pipeline, which is measured and never run."""
    said = read_json(asked.model / "config.json")
    longest = said.get("max_position_embeddings")
    context = min(longest, LONGEST) if isinstance(longest, int) else LONGEST
    exact = "float32" in (said.get("dtype"), said.get("torch_dtype"))
    assert asked.prompts is not None
    given = None if asked.demonstrations is None else source_of(asked.demonstrations, "--demonstrations")
    return {
        "name": "measured",
        "model": {
            "kind": "hf",
            "path": str(asked.model.resolve()),
            "context": context,
            "dtype": "float32" if exact else "bfloat16",
        },
        "prompts": {"train": source_of(asked.prompts, "--prompts")},
        "demonstrations": given,
        "verifier": _verifier(asked.verifier or "math"),
        "stages": [
            {
                "name": "measured",
                "recipe": {"kind": "grpo"},
                "steps": 1,
                "sampling": {"max_tokens": min(asked.max_tokens, max(1, context // 2))},
            }
        ],
    }


def _in_options(line: str, path: Path) -> str:
    """An error about the pipeline that was made of the options, in their words."""
    said = line.removeprefix(f"{path}: ").removeprefix(f"{path} with --set: ")
    key, colon, rest = said.partition(":")
    first, dot, inner = key.partition(".")
    option = OPTIONS.get(key) or (f"{OPTIONS[first]}: {inner}" if dot and first == "verifier" else key)
    for words, ours in WORDS.items():
        rest = rest.replace(words, ours)
    return f"{option}{colon}{rest}"


def _references(pipeline: Pipeline, prompts: PromptBook) -> None:
    """Whether there is anything for a verifier that compares with a reference."""
    if (
        pipeline.verifier.kind in ("math", "answer")
        and len(prompts)
        and all(one.reference == "null" for one in prompts)
    ):
        kind = pipeline.verifier.kind
        fix = "name their column with --set prompts.train.reference=COLUMN, or give a --verifier that reads none"
        raise BadInput(
            [f"--verifier: {kind} compares with a reference, and no row of --prompts has one (got null); {fix}"]
        )


# ---------------------------------------------------------------- parts


def source_of(path: Path, option: str) -> dict[str, Any]:
    """A file of prompts or demonstrations as a pipeline names it; its kind by its name."""
    if not path.exists() and not any(mark in str(path) for mark in "*?["):
        raise BadInput([f"{option}: no such file (got '{path}'); check the path"])
    names = [path.name] if not path.is_dir() else [one.name for one in path.iterdir()]
    kind = "parquet" if any(name.endswith(".parquet") for name in names) else "jsonl"
    return {"kind": kind, "path": str(path.resolve())}


def _verifier(said: str) -> Mapping[str, Any]:
    """A kind alone, or a mapping."""
    try:
        found = parse(said)
    except yaml.YAMLError as error:
        raise BadInput([f"--verifier: (got {shown(said)}) {yaml_line(error, 'not YAML')}"]) from error
    if isinstance(found, str):
        return {"kind": found}
    if isinstance(found, dict):
        return found
    raise BadInput(
        [f"--verifier: neither a kind nor a mapping (got '{said}'); such as math, or '{{kind: answer, marker: \"#\"}}'"]
    )


def _flow(content: Mapping[str, Any]) -> str:
    import json

    return json.dumps(content)


def _book(pipeline: Pipeline, source: PromptSource, key: str, tokenizer: Tokenizer, base: Path) -> PromptBook:
    longest = max(stage.sampling.max_tokens for stage in pipeline.stages)
    room: dict[str, Any] = {"base": base, "context": pipeline.model.context, "max_tokens": longest}
    found = read_prompts(source, tokenizer, key=key, **room).prompts
    if not len(found):
        refuse([f"{key}: no prompt (got none); give at least one"])
    return found


def _by_rule(pipeline: Pipeline) -> bool:
    return pipeline.demonstrations is not None and pipeline.demonstrations.kind not in ("jsonl", "parquet", "model")


def _demonstrations(
    pipeline: Pipeline, prompts: PromptBook, tokenizer: Tokenizer, base: Path
) -> DemonstrationSet | None:
    config = pipeline.demonstrations
    if config is None or isinstance(config, ModelDemonstrations) or not shows(pipeline) or _by_rule(pipeline):
        return None
    room: dict[str, Any] = {"base": base, "seed": pipeline.seed, "context": pipeline.model.context}
    found = load_demonstrations(config, prompts, tokenizer, environment=pipeline.environment, **room)
    if not found.by_prompt:
        where = getattr(config, "path", config.kind)
        raise BadInput(
            [f"demonstrations: no row answers any of the prompts (got '{where}'); give those of the prompts"]
        )
    return found


def chosen(prompts: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, evenly through their order, so that a sorted file is not cut at its easy end."""
    count = len(prompts)
    return [prompts[at * count // most] for at in range(most)] if count > most else list(prompts)
