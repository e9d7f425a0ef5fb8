"""One trajectory as it is read: its tokens with their writers, versions, probabilities, credit and g."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from orchestrator.json_lines import plain
from orchestrator.page.asking import ask, quoted
from orchestrator.page.reading import Reading, stamp
from orchestrator.page.series import listed
from orchestrator.page.stages import trajectory_steps
from orchestrator.report.origins import COLOURS
from orchestrator.report.samples import tokenizer_of
from policies.bad_input import BadInput
from policies.tokens import Tokenizer
from policies.trajectory import Origin

Document = dict[str, Any]

MOST_TOKENS = 4000
"""Tokens of a response that are sent unless more are asked for."""
BATCH = 64
"""Rows that are decoded at once on the way to the one that is wanted."""
_COLUMNS = (
    *("id", "prompt_id", "group_id", "parent_id", "producer", "model", "version", "train_context", "behavior_context"),
    *("teacher_context", "tokens", "origin", "token_version", "train_mask", "behavior_logps", "scores", "preference"),
    *("finish_reason", "sampling", "seed", "text", "created_at", "seconds", "tokens_generated"),
    *("stage", "step", "strand", "advantage"),
)
_GROUP = """
    SELECT file_row_number AS "row", id, strand, len(tokens) AS length,
        list_filter(scores, lambda s: s.name = 'reward' AND s.status = 'ok' AND NOT isnan(s.value))[1].value AS reward
    FROM read_parquet({file}, file_row_number = true, hive_partitioning = false) WHERE group_id = ? ORDER BY "row"
"""


def trajectory(reading: Reading, step: int, row: int, *, most: int = MOST_TOKENS) -> Document:
    """One trajectory with its tokens. BadInput where there is none.

    {"step", "row", "id", "prompt_id", "group_id", "parent_id", "stage", "strand", "producer", "model", "version",
     "reward": number or null, "passed", "status", "finish_reason", "length": tokens, "advantage": mean or null,
     "prompt": text of the context it trains under, or null without the tokenizer, "prompt_tokens": count,
     "behavior_prompt", "teacher_prompt": the writer's and the teacher's context where it is another one, else null,
     "text": the response,
     "tokens": columns of equal length: {"ids", "pieces": text that each token completes ("" within a character;
               special tokens by their names), or null without the tokenizer, "origins": places in "origin_names",
               "versions": -1 where the learner did not write, "trained": booleans, "logps": behavior log-probability
               or null, "advantages", "g": coefficient or null, or null as a whole where the ledger has none},
     "special": places of special tokens, "cut": tokens beyond the first `most`, which are left out,
     "origin_names": ["learner", ...], "colours": {name: colour},
     "scores": [{"name", "value", "passed", "status", "reason", "start", "end": token span or null, "scorer",
                 "scorer_version"}],
     "sampling": {...} | null, "preference": {...} | null, "seed", "seconds", "created_at", "tokens_generated",
     "group": [{"row", "id", "strand", "reward", "length"}: members of its group in this step, itself among them],
     "previous", "following": {"step", "row"} or null, in the ledger's order}
    """
    found = _found(reading, step, row)
    tokenizer = tokenizer_for(reading)
    outcome: Document = next((one for one in found["scores"] if one["name"] == "reward"), {})
    known = outcome.get("status") == "ok" and not math.isnan(outcome["value"])
    words = ("id", "prompt_id", "group_id", "parent_id", "stage", "strand", "producer", "model", "version", "text")
    facts = ("finish_reason", "sampling", "preference", "seed", "seconds", "created_at", "tokens_generated", "scores")
    told: Document = plain(
        {
            **{key: found[key] for key in (*words, *facts)},
            "step": step,
            "row": row,
            "reward": outcome["value"] if known else None,
            "passed": outcome.get("passed"),
            "status": outcome.get("status", "unscored"),
            "length": len(found["tokens"]),
            "advantage": float(np.mean(found["advantage"])) if found["advantage"] else None,
        }
    )
    return {
        **told,
        **_prompts(found, tokenizer),
        **_tokens(found, tokenizer, _coefficients(reading, step, row, found["id"]), most),
        "origin_names": [origin.name.lower() for origin in Origin],
        "colours": {origin.name.lower(): colour for origin, colour in COLOURS.items()},
        "group": _group(reading, step, found["group_id"]),
        "previous": _beside(reading, step, row, -1),
        "following": _beside(reading, step, row, 1),
    }


def tokenizer_for(reading: Reading) -> Tokenizer | None:
    """The run's tokenizer, read once; None where it has none yet, or it cannot be read."""
    depends = (stamp(reading.run.root / "model"), stamp(reading.run.checkpoints))
    found: Tokenizer | None = reading.remembered("tokenizer", depends, lambda: _tokenizer(reading))
    return found


def _tokenizer(reading: Reading) -> Tokenizer | None:
    held = reading.memo.get("tokenizer")
    if held is not None and held[1] is not None:
        return held[1]  # type: ignore[no-any-return]  # a run's tokenizer does not change with its checkpoints
    try:
        return tokenizer_of(reading.run)
    except (OSError, ValueError):
        return None


def _found(reading: Reading, step: int, row: int) -> Document:
    path = reading.run.trajectory_file(step)
    try:
        return _nth(path, row, list(_COLUMNS))
    except FileNotFoundError:
        raise BadInput([f"step: the ledger has no trajectories of step {step}"]) from None
    except (OSError, ValueError) as error:
        raise BadInput([f"{path.name}: cannot be read ({error})"]) from error


def _nth(path: Path, row: int, columns: list[str]) -> Document:
    """The row of the file as Python values; no more of the file is held than a batch."""
    with pq.ParquetFile(path) as file:
        if not 0 <= row < file.metadata.num_rows:
            raise BadInput([f"row: {path.name} has {file.metadata.num_rows} (got {row})"])
        before = 0
        for batch in file.iter_batches(BATCH, columns=columns):
            if row < before + batch.num_rows:
                found: Document = batch.slice(row - before, 1).to_pylist()[0]
                return found
            before += batch.num_rows
    raise ValueError(f"{path.name} ends before the row that its footer promises")


def _prompts(found: Document, tokenizer: Tokenizer | None) -> Document:
    shown, contexts = None, {}
    if tokenizer is not None:
        shown = tokenizer.decode(found["train_context"])
    for who in ("behavior", "teacher"):
        context = found[f"{who}_context"]
        other = tokenizer is not None and bool(context) and context != found["train_context"]
        contexts[f"{who}_prompt"] = tokenizer.decode(context) if other and tokenizer else None
    return {"prompt": shown, "prompt_tokens": len(found["train_context"]), **contexts}


def _tokens(found: Document, tokenizer: Tokenizer | None, g: Sequence[float] | None, most: int) -> Document:
    ids = found["tokens"][:most]
    columns: Document = {
        "ids": ids,
        "pieces": None,
        "origins": found["origin"][:most],
        "versions": found["token_version"][:most],
        "trained": found["train_mask"][:most],
        "logps": listed(found["behavior_logps"][:most], 5),
        "advantages": listed(found["advantage"][:most], 5),
        "g": None if g is None else listed(g[:most], 5),
    }
    special: list[int] = []
    if tokenizer is not None:
        names = {
            place: token.content for place, token in tokenizer.codec.get_added_tokens_decoder().items() if token.special
        }
        special = [at for at, number in enumerate(ids) if number in names]
        pieces = tokenizer.pieces(ids)
        columns["pieces"] = [names.get(number, piece) for number, piece in zip(ids, pieces, strict=True)]
    return {"tokens": columns, "special": special, "cut": len(found["tokens"]) - len(ids)}


def _coefficients(reading: Reading, step: int, row: int, name: str) -> Sequence[float] | None:
    """g of each token, where the ledger has it: its rows are those of the step's trajectories."""
    path = reading.run.coefficient_file(step)
    try:
        found = _nth(path, row, ["id", "g"])
    except (OSError, ValueError, BadInput):
        return None
    if found["id"] != name:
        return None
    return [math.nan if value is None else float(value) for value in found["g"]]


def _group(reading: Reading, step: int, group: str) -> list[Document]:
    if not group:
        return []
    found: list[Document] = plain(ask(_GROUP.format(file=quoted(reading.run.trajectory_file(step))), [group]))
    return found


def _beside(reading: Reading, step: int, row: int, way: int) -> Document | None:
    """The neighbour in the ledger's order; steps that trained on nothing are passed over."""
    if way < 0 and row > 0:
        return {"step": step, "row": row - 1}
    if way > 0 and row + 1 < _rows(reading, step):
        return {"step": step, "row": row + 1}
    steps = trajectory_steps(reading)
    others = [at for at in steps if at > step] if way > 0 else [at for at in reversed(steps) if at < step]
    for at in others[:10]:
        if count := _rows(reading, at):
            return {"step": at, "row": 0 if way > 0 else count - 1}
    return None


def _rows(reading: Reading, step: int) -> int:
    try:
        return int(pq.read_metadata(reading.run.trajectory_file(step)).num_rows)
    except (OSError, ValueError):
        return 0
