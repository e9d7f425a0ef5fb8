"""Asking a judge: every question some times, and again what gave no valid verdict, while attempts and time last."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from jinja2 import TemplateError

from verifiers.judge_templates import conversation, marks
from verifiers.score import Score, Status
from verifiers.served import Chat, Message, Reply
from verifiers.verdicts import Fault, Shape, Verdict, example, read


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, before it has marks."""

    form: str
    template: str
    facts: Mapping[str, str]
    shape: Shape


@dataclass(frozen=True, slots=True)
class Ways:
    """How often, how freely, and how votes become one."""

    samples: int
    attempts: int
    temperature: float
    max_tokens: int
    pool: Literal["mean", "majority"]


@dataclass(slots=True)
class Ballot:
    """The votes on one question, and why those that are missing are."""

    votes: list[Verdict] = field(default_factory=list)
    faults: list[tuple[Status, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the votes say together. `agreement` is the share of votes that say what most say."""

    values: tuple[float, ...]
    agreement: float
    critique: str


@dataclass(frozen=True, slots=True)
class _Open:
    """A vote that is to be asked for."""

    question: int
    vote: int
    seal: str
    messages: tuple[Message, ...]


def poll(chat: Chat, questions: Sequence[Question], ways: Ways, until: float) -> list[Ballot]:
    """A ballot for each question, in order. All of a round is asked at once."""
    ballots = [Ballot() for _ in questions]
    owed = [(at, vote) for at in range(len(questions)) for vote in range(ways.samples)]
    for attempt in range(ways.attempts):
        asked = [one for one in (_open(questions[at], at, vote, attempt, ballots[at]) for at, vote in owed) if one]
        last = attempt + 1 == ways.attempts
        owed = []
        for one, reply in zip(asked, _replies(chat, asked, ways, until), strict=True):
            got = _verdict(reply, one.seal, questions[one.question].shape)
            if isinstance(got, Verdict):
                ballots[one.question].votes.append(got)
            elif last or got[0] == Status.TIMEOUT:
                ballots[one.question].faults.append(got)
            else:
                owed.append((one.question, one.vote))
        if not owed:
            break
    return ballots


def _open(question: Question, at: int, vote: int, attempt: int, ballot: Ballot) -> _Open | None:
    own = marks([*question.facts.values()], question.form, question.template, vote, attempt)
    try:
        messages = conversation(question.form, question.template, question.facts, example(question.shape), own)
    except TemplateError as error:
        ballot.faults.append((Status.ERROR, f"the judge's template cannot be filled: {error.message or error}"))
        return None
    return _Open(at, vote, own.seal, tuple(messages))


def _replies(chat: Chat, asked: Sequence[_Open], ways: Ways, until: float) -> list[Reply]:
    """Replies in order; a judge that breaks gave none."""
    if not asked:
        return []
    seconds = until - time.monotonic()
    if seconds <= 0:
        return [Reply(None, "the time for the batch ran out before the judge was asked", timed_out=True)] * len(asked)
    try:
        found = chat.complete(
            [one.messages for one in asked],
            max_tokens=ways.max_tokens,
            temperature=ways.temperature,
            seconds=seconds,
        )
    except TimeoutError:
        return [Reply(None, "the judge did not answer in time", timed_out=True)] * len(asked)
    except Exception as error:  # noqa: BLE001  (boundary: a judge that breaks has not said 0)
        return [Reply(None, f"the judge broke: {type(error).__name__}")] * len(asked)
    if len(found) != len(asked):
        return [Reply(None, f"the judge gave {len(found)} replies to {len(asked)} questions")] * len(asked)
    return found


def _verdict(reply: Reply, seal: str, shape: Shape) -> Verdict | tuple[Status, str]:
    if reply.text is None:
        status = Status.TIMEOUT if reply.timed_out else Status.REFUSED if reply.refused else Status.ERROR
        return status, reply.reason or "the judge gave no answer"
    found = read(reply.text, seal, shape)
    if isinstance(found, Fault):
        cut = f" ({reply.reason})" if reply.reason else ""
        return (Status.REFUSED if found.refused else Status.ERROR), found.reason + cut
    return found


# ---------------------------------------------------------------- counting


def counted(ballot: Ballot, ways: Ways) -> Outcome | Score:
    """The votes as one, or an unknown score where half of them or more are missing, or where they are split."""
    votes = ballot.votes
    if 2 * len(votes) <= ways.samples:
        return _missing(ballot, ways)
    entries = list(zip(*(vote.values for vote in votes), strict=True))
    most = [_most(column) for column in entries]
    agreement = fmean(Counter(column).most_common(1)[0][1] / len(column) for column in entries)
    if ways.pool == "mean":
        values = tuple(fmean(column) for column in entries)
    elif split := [column for column, top in zip(entries, most, strict=True) if top is None]:
        return Score.unknown(Status.ERROR, f"{len(votes)} votes are split: {', '.join(f'{one:g}' for one in split[0])}")
    else:
        values = tuple(top for top in most if top is not None)
    nearest = min(votes, key=lambda vote: sum(abs(a - b) for a, b in zip(vote.values, values, strict=True)))
    return Outcome(values, agreement, nearest.critique)


def _most(column: Sequence[float]) -> float | None:
    """What most say, or None where two values have as many."""
    first, *others = Counter(column).most_common(2)
    return None if others and others[0][1] == first[1] else first[0]


def _missing(ballot: Ballot, ways: Ways) -> Score:
    """No verdict: what is missing most often says of which kind."""
    status = Counter(status for status, _ in ballot.faults).most_common(1)[0][0]
    reason = next(reason for kind, reason in ballot.faults if kind == status)
    votes = f"{len(ballot.votes)} of {ways.samples} votes: " if ways.samples > 1 else ""
    return Score.unknown(status, votes + reason)
