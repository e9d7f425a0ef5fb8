"""A file of prompts becomes two, to train on and to measure on, with the demonstrations of the first."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.subject import Subject
from policies.prompt import Prompt
from teachers.lookup import digest
from teachers.prompt_book import alike, said_by

PART = 8
"""One prompt in so many is held out."""

PARTS = ("train", "probe", "demonstrations")

MOST = 256
"""Held out at most."""


@dataclass(frozen=True, slots=True)
class Apart:
    """The files, as a pipeline beside them names them."""

    train: Mapping[str, Any]
    probe: Mapping[str, Any] | None
    """None of a single prompt."""
    demonstrations: Mapping[str, Any] | None
    count: int
    """Prompts to train on."""


def held_apart(subject: Subject, out: Path) -> Apart:
    """Write `STEM.train.jsonl`, `STEM.probe.jsonl` and `STEM.demonstrations.jsonl` beside the pipeline file `out`.

    Which prompts are held out follows from a hash of their texts, so that the same text is never on both sides; at
    least one on each where there are two texts.
    """
    held = _held(subject)
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "probe": []}
    for at, prompt in enumerate(subject.prompts):
        rows["probe" if at in held else "train"].append(_row(prompt))
    bare = all(row["reference"] is None for part in rows.values() for row in part)
    sources = {}
    for part, own in rows.items():
        if own:
            path = _write(out, part, own)
            sources[part] = {"kind": "jsonl", "path": path.name, **({"reference": None} if bare else {})}
    shown = _demonstrations(subject, held)
    given = {"kind": "jsonl", "path": _write(out, "demonstrations", shown).name} if shown else None
    return Apart(sources["train"], sources.get("probe"), given, len(rows["train"]))


def _held(subject: Subject) -> frozenset[int]:
    digests = [digest(alike(said_by(one))) for one in subject.prompts]
    texts = sorted(set(digests), key=lambda one: (one % PART, one))
    if len(texts) < 2:
        return frozenset()
    few = [one for one in texts if one % PART == 0][: min(MOST, len(texts) - 1)] or texts[:1]
    chosen = set(few)
    return frozenset(at for at, one in enumerate(digests) if one in chosen)


def _row(prompt: Prompt) -> dict[str, Any]:
    return {
        "id": prompt.id,
        "prompt": _asked(prompt),
        "reference": json.loads(prompt.reference),
        **({"family": prompt.family} if prompt.family else {}),
    }


def _asked(prompt: Prompt) -> Any:
    if prompt.messages:
        return [{"role": turn.role, "content": turn.content} for turn in prompt.messages]
    return prompt.text


def _demonstrations(subject: Subject, held: frozenset[int]) -> list[dict[str, Any]]:
    given = subject.demonstrations
    if given is None:
        return []
    found = []
    for at, prompt in enumerate(subject.prompts):
        index = 0
        while at not in held and (one := given.for_prompt(prompt.id, index)) is not None:
            found.append({"prompt": _asked(prompt), "response": one.text})
            index += 1
    return found


def taken(out: Path) -> list[Path]:
    """What stands already where the pipeline file and its data are to be written."""
    return [path for path in (out, *(_beside(out, part) for part in PARTS)) if path.exists()]


def _beside(out: Path, part: str) -> Path:
    return out.with_name(f"{out.stem}.{part}.jsonl")


def _write(out: Path, part: str, rows: Iterable[Mapping[str, Any]]) -> Path:
    path = _beside(out, part)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
