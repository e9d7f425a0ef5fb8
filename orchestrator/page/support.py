"""The support map: which prompts the policy solves at which checkpoint, and which it gained and lost."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from orchestrator.history import History, StageSpan
from orchestrator.json_lines import plain
from orchestrator.page.asking import ask, quoted
from orchestrator.page.handoffs import documents
from orchestrator.page.reading import Reading, stamp
from orchestrator.page.series import Float64, Int64, listed
from orchestrator.page.stages import bands, probe_steps
from orchestrator.probe_plans import plan_at
from orchestrator.probes import curves
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.sequential import Counts, Plan
from orchestrator.probes.support import change, shown
from policies.bad_input import BadInput

Document = dict[str, Any]

Sort = Literal["given", "gained", "lost", "rate", "-rate", "change", "-change", "family", "id"]
PAGE = 200
MOST_PAGE = 2000
MOST_RESPONSES = 500
"""Of one prompt, that are sent."""
STATES = ("undecided", "solved", "unsolved")
CHANGES = ("undecided", "expanded", "attrited", "retained", "absent")


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What one probe saw of one set's prompts, counted; P prompts."""

    step: int
    stage: str
    prompts: tuple[str, ...]
    families: tuple[str, ...]
    counts: Counts
    greedy_P: Float64
    state_P: Int64
    """Places in STATES."""
    pass_at_1: Interval
    tokens: int


@dataclass(frozen=True, slots=True)
class Asked:
    """Which part of the map is asked for."""

    name: str = "probe"
    """The set."""
    before: int | None = None
    """Steps of the checkpoints that are compared: the first and the last where they are None or not probed."""
    after: int | None = None
    sort: Sort = "gained"
    """gained: expanded prompts first, then by the rise of the rate; lost: the reverse; change: by the rise alone;
    rate: by the rate after; given: the probe's own order."""
    find: str = ""
    """Keeps prompts whose id or family has these characters."""
    offset: int = 0
    limit: int = PAGE


def support(reading: Reading, asked: Asked = Asked()) -> Document:
    """Prompts by checkpoints, a page of prompts at a time.

    {"set": name, "sets": [sets that any probe has], "epsilon", "confidence",
     "checkpoints": [{"step", "stage", "solved", "unsolved", "undecided": prompts, "rate": mean pass rate or null,
                      "pass_at_1": Interval, over prompts, under the plan that drew it, "responses", "tokens"}],
     "before", "after": steps or null, "counts": {"expanded", "retained", "attrited", "undecided", "absent": prompts},
     "total": prompts that `find` keeps, "offset", "next": offset of the next page or null,
     "prompts": [{"id", "family", "change": expanded | retained | attrited | undecided | absent | null,
                  "n": [responses with a verdict at each checkpoint, null where it was not asked], "c": [passed],
                  "rate": [c/n or null], "state": [solved | unsolved | undecided | null], "greedy": [1 | 0 | null]}]}
    """
    if asked.sort not in get_args(Sort):
        raise BadInput([f"sort: one of {', '.join(get_args(Sort))} (got {asked.sort!r})"])
    level = _level(reading)
    probes = _probes(reading, level)
    sets = list(dict.fromkeys(one for found in probes for one in found))
    seen = [found[asked.name] for found in probes if asked.name in found]
    table: _Table = reading.remembered(f"table {asked.name}", (level, *seen), lambda: _Table.of(seen, *level))
    first, last = _place(seen, asked.before, 0), _place(seen, asked.after, len(seen) - 1)
    changes = _changes(reading, table, seen[first], seen[last], asked.name) if seen else np.zeros(0, np.int64)
    order = [at for at in _ordered(table, changes, first, last, asked.sort) if table.has(at, asked.find)]
    offset, limit = max(0, asked.offset), max(1, min(asked.limit, MOST_PAGE))
    shown = order[offset : offset + limit]
    return {
        "set": asked.name,
        "sets": sets,
        "epsilon": table.epsilon,
        "confidence": table.confidence,
        "checkpoints": [table.checkpoint(at, one) for at, one in enumerate(seen)],
        "before": seen[first].step if seen else None,
        "after": seen[last].step if seen else None,
        "counts": {word: int((changes == at).sum()) for at, word in enumerate(CHANGES)},
        "total": len(order),
        "offset": offset,
        "next": offset + limit if offset + limit < len(order) else None,
        "prompts": [table.row(at, int(changes[at])) for at in shown],
    }


def prompt(reading: Reading, prompt_id: str, *, name: str = "probe", step: int | None = None) -> Document:
    """One prompt on demand: its text and the responses of one probe (the newest that asked it by default).

    {"id", "family", "text": or null where the probe does not tell it, "step": or null,
     "steps": [probes of the run],
     "total": responses that were drawn, "responses": the first 500 of them, as
        [{"greedy", "draw", "passed", "sound", "value", "status", "answer", "tokens", "text"}]}
    """
    steps = probe_steps(reading)
    for at in reversed(steps) if step is None else [step]:
        if rows := _responses(reading, at, prompt_id, name):
            keys = ("greedy", "draw", "passed", "sound", "value", "status", "answer", "tokens", "text")
            told: list[Document] = plain([{key: row.get(key) for key in keys} for row in rows[:MOST_RESPONSES]])
            about = {"id": prompt_id, "family": rows[0]["family"], "text": rows[0].get("prompt"), "step": at}
            return {**about, "steps": steps, "total": len(rows), "responses": told}
    nothing = dict.fromkeys(("family", "text", "step"))
    return {"id": prompt_id, **nothing, "steps": steps, "total": 0, "responses": []}


# ---------------------------------------------------------------- files


def _probes(reading: Reading, level: tuple[float, float]) -> list[dict[str, Seen]]:
    """Each probe's sets, in the order of steps; a file is counted once. One that cannot be read is passed over."""
    files = {step: reading.run.probe_file(step) for step in probe_steps(reading)}
    plans = _plans(reading, list(files))
    depends = {step: (stamp(path), level, plans[step]) for step, path in files.items()}
    fresh = [step for step in files if not reading.holds(_named(step), depends[step])]
    counted = _counted([files[step] for step in fresh]) if fresh else {}
    found = []
    for step in files:
        rows = counted.get(step, [])
        if rows or step not in fresh:
            found.append(reading.remembered(_named(step), depends[step], lambda: _sets(step, rows, level, plans[step])))  # noqa: B023
    return found


def _named(step: int) -> str:
    return f"probe {step}"


def _counted(files: Sequence[Path]) -> dict[int, list[Document]]:
    """Step -> verdicts by set and prompt, without the texts; of all files at once, or one by one if one is damaged."""
    try:
        columns = pq.read_schema(files[0]).names
        names = {"set": "coalesce(\"set\", 'probe')" if "set" in columns else "'probe'", "files": quoted(*files)}
        found = ask(_COUNTS.format(**names))
    except (OSError, ValueError, duckdb.Error):
        return {} if len(files) == 1 else {step: rows for one in files for step, rows in _counted([one]).items()}
    rows: dict[int, list[Document]] = {}
    for one in found:
        rows.setdefault(int(one["step"]), []).append(one)
    return rows


_COUNTS = """
    SELECT step, {set} AS name, prompt_id, any_value(family) AS family, any_value(stage) AS stage,
        count(*) FILTER (NOT greedy AND passed IS NOT NULL) AS n, count(*) FILTER (NOT greedy AND passed) AS c,
        max(passed::INT) FILTER (greedy) AS greedy, sum(tokens) AS tokens
    FROM read_parquet({files}, file_row_number = true, hive_partitioning = false, union_by_name = true)
    GROUP BY ALL ORDER BY step, min(file_row_number)
"""


def _plans(reading: Reading, steps: Sequence[int]) -> dict[int, Plan | None]:
    """Step -> how its probe's draws could end."""
    spans = tuple(StageSpan(one["name"], one["first"], one["last"], one["planned"] or 0) for one in bands(reading))
    told = History(reading.run, reading.config, {}, (), (), (), tuple(reading.events), spans)
    depends = (stamp(reading.run.config), spans, told.status, tuple(steps))
    found: dict[int, Plan | None] = reading.remembered(
        "plans", depends, lambda: {step: plan_at(told, step) for step in steps}
    )
    return found


def _sets(step: int, rows: Sequence[Document], level: tuple[float, float], plan: Plan | None) -> dict[str, Seen]:
    sets: dict[str, list[Document]] = {}
    for row in rows:
        sets.setdefault(row["name"], []).append(row)
    return {name: _seen(step, found, level, plan) for name, found in sets.items()}


def _seen(step: int, rows: Sequence[Document], level: tuple[float, float], plan: Plan | None) -> Seen:
    n, c = (np.array([row[key] for row in rows], np.int64) for key in ("n", "c"))
    counts = Counts(n, c, plan)
    state = shown(counts, *level).astype(np.int64)
    return Seen(
        step,
        str(rows[0]["stage"]),
        tuple(str(row["prompt_id"]) for row in rows),
        tuple(str(row["family"] or "") for row in rows),
        counts,
        np.array([np.nan if row["greedy"] is None else row["greedy"] for row in rows], np.float64),
        np.where(state < 0, STATES.index("unsolved"), state),
        curves.curve(counts, (1,), confidence=level[1])[0] if counts.n_P.any() else UNKNOWN,
        sum(int(row["tokens"] or 0) for row in rows),
    )


def _responses(reading: Reading, step: int, prompt_id: str, name: str) -> list[Document]:
    path = reading.run.probe_file(step)
    try:
        rows = pq.read_table(path, filters=[("prompt_id", "=", prompt_id)]).to_pylist()
    except (OSError, ValueError):
        return []
    return [row for row in rows if (row.get("set") or "probe") == name]


def _level(reading: Reading) -> tuple[float, float]:
    """epsilon and confidence of the pipeline."""
    handoff = reading.config.get("handoff")
    asked = handoff if isinstance(handoff, dict) else {}
    return float(asked.get("epsilon") or 0.05), float(asked.get("confidence") or 0.95)


# ---------------------------------------------------------------- the table


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """P prompts (in the order of the first probe that asked them) by K checkpoints; -1 where a prompt was not asked."""

    prompts: list[str]
    families: list[str]
    n_PK: Int64
    c_PK: Int64
    greedy_PK: Float64
    epsilon: float
    confidence: float
    state_PK: npt.NDArray[np.int64]
    """Places in STATES; -1 where a prompt was not asked."""

    @classmethod
    def of(cls, seen: Sequence[Seen], epsilon: float, confidence: float) -> "_Table":
        families = {name: family for one in seen for name, family in zip(one.prompts, one.families, strict=True)}
        place = {name: at for at, name in enumerate(families)}
        shape = (len(place), len(seen))
        n, c, state = (np.full(shape, -1, np.int64) for _ in range(3))
        greedy = np.full(shape, np.nan)
        for k, one in enumerate(seen):
            rows = [place[name] for name in one.prompts]
            n[rows, k], c[rows, k], greedy[rows, k], state[rows, k] = (
                one.counts.n_P,
                one.counts.c_P,
                one.greedy_P,
                one.state_P,
            )
        return cls(list(place), list(families.values()), n, c, greedy, epsilon, confidence, state)

    @property
    def rate_PK(self) -> Float64:
        """c/n; NaN of none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.n_PK > 0, self.c_PK / self.n_PK, np.nan)

    def checkpoint(self, at: int, one: Seen) -> Document:
        states = self.state_PK[:, at]
        rates = self.rate_PK[:, at]
        known = rates[~np.isnan(rates)]
        counts = {word: int((states == place).sum()) for place, word in enumerate(STATES)}
        mean = listed([float(known.mean())])[0] if len(known) else None
        return {"step": one.step, "stage": one.stage, **counts, "rate": mean} | {
            "pass_at_1": plain(asdict(one.pass_at_1)),
            "responses": int(one.counts.n_P.sum()),
            "tokens": one.tokens,
        }

    def row(self, at: int, change: int) -> Document:
        asked = self.n_PK[at] >= 0

        def shown(values: Int64) -> list[int | None]:
            return [int(value) if there else None for value, there in zip(values, asked, strict=True)]

        return {
            "id": self.prompts[at],
            "family": self.families[at],
            "change": CHANGES[change],
            "n": shown(self.n_PK[at]),
            "c": shown(self.c_PK[at]),
            "rate": listed(self.rate_PK[at], 4),
            "state": [STATES[state] if state >= 0 else None for state in self.state_PK[at]],
            "greedy": [None if np.isnan(one) else int(one) for one in self.greedy_PK[at]],
        }

    def has(self, at: int, find: str) -> bool:
        """Whether the prompt's id or family has these characters."""
        return not find or find.lower() in f"{self.prompts[at]}\n{self.families[at]}".lower()


def _changes(reading: Reading, table: _Table, first: Seen, last: Seen, name: str) -> Int64:
    """[P] places in CHANGES; a prompt that one of the checkpoints was not asked is undecided.

    Between the checkpoints of a handoff it is what the handoff says.
    """
    words = _told(reading, first.step, last.step) if name == "probe" else None
    if words is None:
        depends = (id(first), id(last))
        words = reading.remembered(
            f"change {name} {first.step} {last.step}", depends, lambda: _found(table, first, last)
        )
    return np.array([CHANGES.index(words.get(one, "undecided")) for one in table.prompts], np.int64)


def _found(table: _Table, first: Seen, last: Seen) -> dict[str, str]:
    """Prompt -> what became of it, by the tests of `probes.support`."""
    place = {name: at for at, name in enumerate(last.prompts)}
    both = [(at, place[name]) for at, name in enumerate(first.prompts) if name in place]
    mine, theirs = (
        (np.array(column, np.int64) for column in zip(*both, strict=True)) if both else [np.zeros(0, int)] * 2
    )
    told = change(first.counts.rows(mine), last.counts.rows(theirs), epsilon=table.epsilon, confidence=table.confidence)
    return {first.prompts[mine[at]]: word for word in CHANGES for at in getattr(told, word)}


def _told(reading: Reading, before: int, after: int) -> dict[str, str] | None:
    """Prompt -> what the handoff between these steps says became of it; None where there is none."""
    for one in documents(reading):
        if one.get("measured") == {"before": before, "after": after}:
            found = (one.get("completion") or {}).get("support") or {}
            return {str(name): word for word in CHANGES if isinstance(found.get(word), list) for name in found[word]}
    return None


def _place(seen: Sequence[Seen], step: int | None, otherwise: int) -> int:
    return next((at for at, one in enumerate(seen) if one.step == step), otherwise)


def _ordered(table: _Table, changes: Int64, first: int, last: int, sort: Sort) -> list[int]:
    """Places of the prompts; of equals the given order."""
    count = len(table.prompts)
    if not count:
        return []
    rates = table.rate_PK
    rise = np.nan_to_num(rates[:, last] - rates[:, first], nan=0.0)
    rate = np.nan_to_num(rates[:, last], nan=-1.0)
    gained, lost = changes == CHANGES.index("expanded"), changes == CHANGES.index("attrited")
    keys: dict[Sort, tuple[npt.NDArray[Any], ...]] = {
        "given": (np.arange(count),),
        "gained": (-rise, ~gained),
        "lost": (rise, ~lost),
        "rate": (rate,),
        "-rate": (-rate,),
        "change": (rise,),
        "-change": (-rise,),
        "family": (np.array(table.families),),
        "id": (np.array(table.prompts),),
    }
    return [int(at) for at in np.lexsort(keys[sort])]
