"""A language model as judge: a response becomes questions, questions become votes, votes become a score.

Every question of a batch is asked at once. What the judge says before its verdict is the score's reason, so that a
recipe whose template reads `reason` revises after a critique. Figures of the votes stand among the score's parts.
"""

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple, assert_never

from verifiers import answers
from verifiers.endpoint import EndpointChat
from verifiers.grader import Grader, Item
from verifiers.judge_config import (
    Checklist,
    Criterion,
    Endpoint,
    Folder,
    Grades,
    JudgeVerifier,
    Pairs,
    Principles,
    called,
)
from verifiers.judge_templates import neutral
from verifiers.kinds import Tools
from verifiers.polling import Outcome, Question, Ways, counted, poll
from verifiers.score import Score, Status
from verifiers.served import Chat
from verifiers.verdicts import Checks, Choice, Scale

Single = Grades | Checklist | Principles


def open_grader(own: JudgeVerifier, tools: Tools) -> Grader:
    """A grader that asks the config's model. ValueError where nobody serves it, or its key is not set."""
    match own.model:
        case Endpoint():
            return _Judge(own, chat := EndpointChat(own.model), chat)
        case Folder(path=path):
            served = tools.models.get(own.wanted()[0].name)
            if served is None:
                raise ValueError(
                    f"nobody serves the judge {path}; hand over models={{'judge:{path}': "
                    "actors.judge_replica.JudgeReplica(...)}, or ask an endpoint"
                )
            if not isinstance(served, Chat):
                raise ValueError(f"what is handed over as the judge {path} answers no conversations")
            return _Judge(own, served, None)
        case _:
            assert_never(own.model)


@dataclass(frozen=True, slots=True)
class _Judge:
    """The grader."""

    config: JudgeVerifier
    chat: Chat
    closes: EndpointChat | None

    def grade(self, items: Sequence[Item], until: float) -> list[Score]:
        """A score for each item."""
        form = self.config.form
        if isinstance(form, Pairs):
            return self._pairwise(items, form, until)
        asked = [single(self.config, form, item) for item in items]
        outcomes = iter(self._ask([one for one in asked if isinstance(one, Asked)], until))
        return [one if isinstance(one, Score) else self._scored(form, one, next(outcomes)) for one in asked]

    def close(self) -> None:
        """Close what was opened here."""
        if self.closes is not None:
            self.closes.close()

    @property
    def _ways(self) -> Ways:
        own = self.config
        pool = "majority" if isinstance(own.form, Pairs) else own.pool
        return Ways(own.samples, own.attempts, own.temperature, own.max_tokens, pool)

    def _ask(self, asked: Sequence["Asked"], until: float) -> list[Outcome | Score]:
        ballots = poll(self.chat, [one.question for one in asked], self._ways, until)
        return [counted(ballot, self._ways) for ballot in ballots]

    def _scored(self, form: Single, asked: "Asked", outcome: Outcome | Score) -> Score:
        if isinstance(outcome, Score):
            return outcome
        value, parts = weighed(asked.criteria, outcome.values)
        if self.config.samples > 1:
            parts["agreement"] = Score(outcome.agreement, None)
        return Score(value, value >= form.passes - 1e-9, reason=outcome.critique, parts=parts)

    # ------------------------------------------------------------ pairs

    def _pairwise(self, items: Sequence[Item], form: Pairs, until: float) -> list[Score]:
        bouts = list(_bouts(items, form.against))
        unknown = {at: bout for at, bout in bouts if isinstance(bout, Score)}
        met = [bout for _, bout in bouts if isinstance(bout, Bout)]
        asked = [bout for bout in met if bout.left.strip() != bout.right.strip()]
        orders = [Asked(question) for bout in asked for question in _orders(self.config, form, items, bout)]
        found = iter(self._ask(orders, until))
        held = {id(bout): (next(found), next(found)) for bout in asked}
        results: dict[int, list[Result | Score]] = defaultdict(list)
        for bout in met:
            result = _result(*held[id(bout)]) if id(bout) in held else Result(0.5, False, 1.0, "the two are the same")
            for at, own in ((bout.item, result), (bout.other, _turned(result))):
                if at is not None:
                    results[at].append(own)
        return [unknown.get(at) or self._standing(form, results[at]) for at in range(len(items))]

    def _standing(self, form: Pairs, results: Sequence["Result | Score"]) -> Score:
        """The mean over a response's comparisons; unknown where half of them or more are."""
        known = [one for one in results if isinstance(one, Result)]
        if 2 * len(known) <= len(results):
            return next(one for one in results if isinstance(one, Score))
        value = fmean(one.value for one in known)
        parts = {"position_bias": Score(fmean(one.turned for one in known), None)}
        if self.config.samples > 1:
            parts["agreement"] = Score(fmean(one.agreement for one in known), None)
        reason = next((one.critique for one in known if one.critique), "")
        return Score(value, value >= form.passes - 1e-9, reason=reason, parts=parts)


# ---------------------------------------------------------------- one response


class Asked(NamedTuple):
    """A question, and what its entries count."""

    question: Question
    criteria: tuple[Criterion, ...] = ()


def single(own: JudgeVerifier, form: Single, item: Item) -> Asked | Score:
    """The question about one response, or why there is none."""
    facts = facts_of(item)
    match form:
        case Grades():
            words = [f"{at}: {form.anchors[at]}" for at in range(form.low, form.high + 1) if at in form.anchors]
            return Asked(_question(own, facts, words, Scale(form.low, form.high)))
        case Checklist():
            found = form.criteria or criteria_of(item.reference)
            if isinstance(found, Score):
                return found
            facts.pop("reference", None)
            return Asked(_question(own, facts, _numbered([one.text for one in found]), Checks(len(found))), found)
        case Principles():
            kept = tuple(Criterion(text=text, name=f"principle-{at + 1}") for at, text in enumerate(form.principles))
            return Asked(_question(own, facts, _numbered(form.principles), Checks(len(kept))), kept)
        case _:
            assert_never(form)


def weighed(criteria: Sequence[Criterion], values: Sequence[float]) -> tuple[float, dict[str, Score]]:
    """Value and parts: the weights met over those above 0, within [0, 1]; of a grade, itself."""
    if not criteria:
        return values[0], {}
    got = math.fsum(one.weight * value for one, value in zip(criteria, values, strict=True))
    parts = {
        called(one, at): Score(value, (value > 0.5) == (one.weight > 0), reason=one.text)
        for at, (one, value) in enumerate(zip(criteria, values, strict=True))
    }
    return min(1.0, max(0.0, got / math.fsum(one.weight for one in criteria if one.weight > 0))), parts


def facts_of(item: Item) -> dict[str, str]:
    """What the template may quote of an item."""
    reference = text_of(item.reference)
    return {"prompt": item.prompt, "response": item.response, **({"reference": reference} if reference else {})}


def text_of(reference: Any) -> str | None:
    """A reference answer as text: itself, or its entry `answer`."""
    return answers.plain(reference.get("answer") if isinstance(reference, Mapping) else reference)


def criteria_of(reference: Any) -> tuple[Criterion, ...] | Score:
    """The criteria of a prompt's own reference: a list, or its entry `criteria`."""
    rows = reference.get("criteria") if isinstance(reference, Mapping) else reference
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        return Score.unknown(Status.ERROR, "the reference holds no list of criteria")
    try:
        found = tuple(_criterion(row) for row in rows)
        return Checklist(criteria=found).criteria
    except (TypeError, ValueError):
        return Score.unknown(
            Status.ERROR, f"a criterion of the reference is no text and no {{criterion, weight}}: {_short(rows)}"
        )


def _criterion(row: Any) -> Criterion:
    """A row as data sets have it: a text, or its text with what it counts (weight, or points)."""
    if isinstance(row, str):
        return Criterion(text=row)
    text = next((row[key] for key in ("criterion", "description", "text") if key in row), None)
    weight = next((row[key] for key in ("weight", "points") if key in row), 1.0)
    return Criterion.model_validate({"text": text, "weight": weight})


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _question(own: JudgeVerifier, facts: Mapping[str, str], lines: Sequence[str], shape: Scale | Checks) -> Question:
    said = "\n".join(neutral(" ".join(line.split())) for line in lines)
    return Question(own.form.kind, own.template, {**facts, "criteria": said}, shape)


def _numbered(texts: Sequence[str]) -> list[str]:
    return [f"{at}. {text}" for at, text in enumerate(texts, start=1)]


# ---------------------------------------------------------------- pairs


@dataclass(frozen=True, slots=True)
class Bout:
    """Two texts to compare: of item `item`, and of item `other` or of the reference."""

    item: int
    other: int | None
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a comparison is worth to its first side, and whether it turned with the order."""

    value: float
    turned: bool
    agreement: float
    critique: str


def _bouts(items: Sequence[Item], against: str) -> Iterator[tuple[int, Bout | Score]]:
    """(item, comparison) for all that are due; an item that has nobody to compare with gets its unknown score."""
    if against == "reference":
        for at, item in enumerate(items):
            reference = text_of(item.reference)
            lone = Score.unknown(Status.ERROR, "the prompt has no reference answer to compare with")
            yield at, Bout(at, None, item.response, reference) if reference else lone
        return
    for members in _groups(items):
        if len(members) < 2:
            lone = Score.unknown(Status.ERROR, "the response has no other of its group to compare with")
            yield from ((at, lone) for at in members)
        pairs = itertools.combinations(members, 2) if against == "all" else ((members[0], at) for at in members[1:])
        for one, other in pairs:
            yield one, Bout(one, other, items[one].response, items[other].response)


def _groups(items: Sequence[Item]) -> list[list[int]]:
    """Indices of the items, by group; one without a group stands alone."""
    found: dict[tuple[str, int], list[int]] = defaultdict(list)
    for at, item in enumerate(items):
        found[(item.group, -1) if item.group else ("", at)].append(at)
    return list(found.values())


def _orders(own: JudgeVerifier, form: Pairs, items: Sequence[Item], bout: Bout) -> Iterator[Question]:
    facts = facts_of(items[bout.item]) | {"criteria": form.better}
    if bout.other is None:
        facts.pop("reference")  # it is one of the two
    for left, right in ((bout.left, bout.right), (bout.right, bout.left)):
        yield Question(form.kind, own.template, {**facts, "response": left, "other": right}, Choice())


def _result(straight: Outcome | Score, swapped: Outcome | Score) -> Result | Score:
    """A win only where both orders say so (arXiv 2306.05685); a preference for a place is a tie, and is told."""
    for one in (straight, swapped):
        if isinstance(one, Score):
            return one
    assert isinstance(straight, Outcome) and isinstance(swapped, Outcome)
    first, second = straight.values[0], 1.0 - swapped.values[0]
    value = first if first == second else 0.5
    turned = {first, second} == {0.0, 1.0}
    return Result(value, turned, (straight.agreement + swapped.agreement) / 2, straight.critique)


def _turned(result: Result | Score) -> Result | Score:
    """The same comparison, from the other side; its words were about the first."""
    if isinstance(result, Score):
        return result
    return Result(1.0 - result.value, result.turned, result.agreement, "")
