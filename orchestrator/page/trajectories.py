"""The trajectories of a run: a page of the list, whatever the run's size.

A step's trajectories are one file, named after the step. A page of the list opens the files that it needs, newest
first, and no more than `MOST_FILES`; where to go on stands in its `next`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import duckdb

from orchestrator.json_lines import plain
from orchestrator.page.asking import ask, quoted
from orchestrator.page.index import FACTS, SOURCE, Index
from orchestrator.page.reading import Reading
from orchestrator.page.stages import trajectory_steps
from policies.bad_input import BadInput
from policies.trajectory import Origin

Document = dict[str, Any]

Sort = Literal["written", "reward", "-reward", "length", "-length", "advantage", "-advantage"]
Over = Literal["newest", "all"]
Verdict = Literal["any", "passed", "failed", "unknown"]
PAGE = 50
MOST_PAGE = 500
MOST_FILES = 64
"""Files that one page of the list may open."""
TOGETHER = 8
"""Files that are read at once."""
PREVIEW = 200
"""Characters of a response that the list shows."""

INDEX_SECONDS = 1.0
"""How long a question about all trajectories may read on."""

_ORIGINS = ", ".join(f"{one.name.lower()} := len(list_filter(origin, lambda o: o = {one.value}))" for one in Origin)
_ROWS = f"""
    SELECT {FACTS}, id, group_id, parent_id, model, version, coalesce(outcome.status, 'unscored') AS status,
        finish_reason, struct_pack({_ORIGINS}) AS origins, left(text, {PREVIEW}) AS preview, text FROM {SOURCE}
"""
"""A row of the list for each trajectory of some files."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which trajectories a list shows; an empty word wants all."""

    strand: str = ""
    producer: str = ""
    stage: str = ""
    prompt: str = ""
    text: str = ""
    """The response holds these characters, whatever their case."""
    verdict: Verdict = "any"
    least: float | None = None
    """Smallest reward."""
    most: float | None = None
    """Greatest reward."""
    shortest: int | None = None
    """Tokens."""
    longest: int | None = None

    def condition(self) -> tuple[str, list[Any]]:
        """The WHERE clause and its values."""
        asked: list[tuple[str, Any]] = [
            *((f"{key} = ?", value) for key in ("strand", "producer", "stage") if (value := getattr(self, key))),
            *([("prompt_id = ?", self.prompt)] if self.prompt else []),
            *([("contains(lower(text), ?)", self.text.lower())] if self.text else []),
            *([("reward >= ?", self.least)] if self.least is not None else []),
            *([("reward <= ?", self.most)] if self.most is not None else []),
            *([("length >= ?", self.shortest)] if self.shortest is not None else []),
            *([("length <= ?", self.longest)] if self.longest is not None else []),
        ]
        by_verdict = {"any": [], "passed": ["passed"], "failed": ["NOT passed"], "unknown": ["passed IS NULL"]}
        clauses = [clause for clause, _ in asked] + by_verdict[self.verdict]
        return " AND ".join(clauses) or "true", [value for _, value in asked]


@dataclass(frozen=True, slots=True)
class Page:
    """Which page of the list. With `step`, that step's alone. Without, from the newest step below `before` on."""

    step: int | None = None
    before: int | None = None
    sort: Sort = "written"
    """The rows of each step; written is the ledger's order, a minus puts the largest first, unknown ones come last."""
    offset: int = 0
    """Rows that are wanted and were shown already."""
    over: Over = "newest"
    """all: every trajectory of the run, sorted as one, as far as the index knows them; not with `step` or a text."""
    limit: int = PAGE


def trajectories(reading: Reading, wanted: Wanted = Wanted(), page: Page = Page()) -> Document:
    """A page of the list: of one step, of all, or from the newest on until it is full or 64 steps were looked through.

    {"rows": [{"step", "row": place in the step's file, "id", "prompt_id", "group_id", "parent_id", "stage", "strand",
               "producer", "model", "version", "reward": number or null, "passed": true | false | null, "status",
               "length": tokens, "advantage": mean over tokens or null, "finish_reason",
               "origins": {name: tokens, where there are any}, "preview": the first 200 characters}],
     "total": with `step` or over all, the rows that are wanted, else null,
     "next": parameters of the next page, to be given beside `sort` and what is wanted, or null at the end,
     "indexed": over all, [steps that the index knows, steps of the ledger]: ask again while they differ; else null,
     "looked": [oldest, newest step that was looked through] or null, "files": how many were opened,
     "steps": [oldest, newest step of the ledger] or null, "unread": steps whose files were gone or damaged}
    """
    for key, value, words in (
        ("sort", page.sort, get_args(Sort)),
        ("verdict", wanted.verdict, get_args(Verdict)),
        ("over", page.over, get_args(Over)),
    ):
        if value not in words:
            raise BadInput([f"{key}: one of {', '.join(words)} (got {value!r})"])
    limit, offset = max(1, min(page.limit, MOST_PAGE)), max(0, page.offset)
    known = trajectory_steps(reading)
    looking = _Looking(reading, wanted.condition(), _order(page.sort))
    if page.step is None and page.over == "all" and not wanted.text:
        found = _of_all(looking, page.sort, offset, limit)
    elif page.step is not None:
        found = _of_step(looking, page.step, offset, limit) if page.step in known else _NOTHING
    else:
        below = [at for at in reversed(known) if page.before is None or at < page.before]
        found = _newest_first(looking, below, offset, limit)
    looked = looking.looked
    return {
        "indexed": None,
        **found,
        "looked": [min(looked), max(looked)] if looked else None,
        "files": len(looked),
        "steps": [known[0], known[-1]] if known else None,
        "unread": looking.unread,
    }


_NOTHING: Document = {"rows": [], "total": 0, "next": None}


def _of_step(looking: "_Looking", step: int, offset: int, limit: int) -> Document:
    total = looking.count(step)
    rows = looking.rows([step], offset + limit)[offset:]
    following = {"step": step, "offset": offset + limit} if offset + limit < total else None
    return {"rows": rows, "total": total, "next": following}


def _of_all(looking: "_Looking", sort: Sort, offset: int, limit: int) -> Document:
    """A page of every trajectory of the run: its places from the index, its rows from their files."""
    reading = looking.reading
    index: Index = reading.remembered("index", None, Index)
    files = index.advance(reading, INDEX_SECONDS)
    order = 'step DESC, "row"' if sort == "written" else f'{_key(sort)}, step DESC, "row"'
    total, places = index.places(looking.where, order, offset, limit)
    rows = _at(looking, places)
    looking.unread += [step for step in index.unread if step not in looking.unread]
    following = {"over": "all", "offset": offset + limit} if offset + limit < total else None
    return {"rows": rows, "total": total, "next": following, "indexed": [len(index.known), files]}


def _at(looking: "_Looking", places: Sequence[tuple[int, int]]) -> list[Document]:
    """The rows at these places (step, row), in their order; those that are gone are left out."""
    steps = sorted({step for step, _ in places})
    looking.where = (f'(step, "row") IN ({", ".join(f"({step}, {row})" for step, row in places)})', [])
    found: dict[tuple[int, int], Document] = {}
    for at in range(0, len(steps), MOST_FILES):
        for row in looking.rows(steps[at : at + MOST_FILES], len(places)):
            found[row["step"], row["row"]] = row
    return [found[place] for place in places if place in found]


def _newest_first(looking: "_Looking", steps: Sequence[int], offset: int, limit: int) -> Document:
    """Rows of these steps until the page is full, or enough was looked through."""
    found: list[Document] = []
    end = offset + limit
    upto = steps[:MOST_FILES]
    for at in range(0, len(upto), TOGETHER):
        found += looking.rows(upto[at : at + TOGETHER], end + 1 - len(found))
        if len(found) > end:
            step = found[end]["step"]
            shown = sum(row["step"] == step for row in found[:end])
            return {"rows": found[offset:end], "total": None, "next": {"before": step + 1, "offset": shown}}
    following = {"before": upto[-1], "offset": 0} if len(steps) > len(upto) else None
    return {"rows": found[offset:], "total": None, "next": following}


@dataclass(slots=True)
class _Looking:
    """Reads files for one page, and remembers which."""

    reading: Reading
    where: tuple[str, list[Any]]
    """What is wanted: a condition and its values."""
    order: str
    looked: list[int] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)

    def rows(self, steps: Sequence[int], most: int) -> list[Document]:
        """The first of what is wanted of these steps, from the newest; singly if they cannot be read together."""
        self.looked += steps
        try:
            return self._asked(steps, most)
        except (duckdb.Error, OSError):
            return [row for step in steps for row in self._alone(step, most)][:most]

    def count(self, step: int) -> int:
        """How many of a step are wanted; 0 where its file cannot be read."""
        try:
            return int(ask(f"SELECT count(*) AS n {self._where([step])}", self.where[1])[0]["n"])
        except (duckdb.Error, OSError):
            return 0

    def _alone(self, step: int, most: int) -> Iterator[Document]:
        try:
            yield from self._asked([step], most)
        except (duckdb.Error, OSError):
            self.unread.append(step)

    def _asked(self, steps: Sequence[int], most: int) -> list[Document]:
        sql = f"SELECT * EXCLUDE (text) {self._where(steps)} ORDER BY step DESC, {self.order} LIMIT {most}"
        return [_row(one) for one in ask(sql, self.where[1])]

    def _where(self, steps: Sequence[int]) -> str:
        files = quoted(*(self.reading.run.trajectory_file(step) for step in steps))
        return f"FROM ({_ROWS.format(files=files)}) WHERE {self.where[0]}"


def _order(sort: Sort) -> str:
    return '"row"' if sort == "written" else f'{_key(sort)}, "row"'


def _key(sort: Sort) -> str:
    key = sort.removeprefix("-")
    return f"{key} {'DESC' if sort != key else 'ASC'} NULLS LAST"


def _row(found: Document) -> Document:
    told: Document = plain(found)
    told["origins"] = {name: count for name, count in told["origins"].items() if count}
    return told
