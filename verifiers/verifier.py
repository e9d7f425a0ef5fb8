"""`Verifier`: a config, ready to judge. `build` makes one; it starts no process until a verdict needs one."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2s
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, assert_never

from pydantic import TypeAdapter

from verifiers import answers, config, equivalence, steps, tasks
from verifiers.judges import Judges
from verifiers.score import Score, Status

LONGEST_RESPONSE = 100_000
"""Characters of a response that a task's scorer is given; a longer one is wrong."""


@dataclass(frozen=True, slots=True)
class Item:
    """One response to judge. `reference` is what the verifier's page says, as a Python value."""

    prompt: str
    response: str
    reference: Any


@dataclass(frozen=True, slots=True)
class Verifier:
    """Judges responses. What a model wrote never makes it raise; what it cannot judge has a status, not a value."""

    config: config.AnyVerifier
    judges: Judges | None
    """Killable processes, where a verdict may hang."""

    @property
    def identity(self) -> tuple[str, str]:
        """Name, and a version that changes with the config, this code and the libraries that judge."""
        return self.config.kind, _version(self.config.model_dump_json())

    def score(self, prompt: str, response: str, reference: Any) -> Score:
        """The verdict on one response."""
        return self._verdict(Item(prompt, response, reference), math.inf)

    def score_many(self, items: Sequence[Item], seconds: float = math.inf) -> list[Score]:
        """Verdicts in the order asked; what is not begun within `seconds` is judged `timeout`."""
        until = time.monotonic() + seconds
        if self.judges is None:
            return [self._verdict(item, until) for item in items]
        with ThreadPoolExecutor(self.judges.workers) as threads:
            return list(threads.map(lambda item: self._verdict(item, until), items))

    def _verdict(self, item: Item, until: float) -> Score:
        if time.monotonic() > until:
            return Score.unknown(Status.TIMEOUT, "the time for the batch ran out before this response")
        try:
            return _finite(_judge(self.config, item, self.judges))
        except Exception as error:  # noqa: BLE001  (boundary: a verifier that breaks has not said 0)
            return Score.unknown(Status.ERROR, type(error).__name__)

    def close(self) -> None:
        """End the judging processes, if any were started."""
        if self.judges is not None:
            self.judges.close()


def build(config_: Mapping[str, Any] | config.AnyVerifier) -> Verifier:
    """The verifier of a config or of its plain form, such as {"kind": "math"}. ValueError names a bad key."""
    parsed: config.AnyVerifier = TypeAdapter(config.Verifier).validate_python(
        dict(config_) if isinstance(config_, Mapping) else config_
    )
    slow = [leaf for leaf in _leaves(parsed) if isinstance(leaf, config.MathVerifier | config.TaskVerifier)]
    if not slow:
        return Verifier(parsed, None)
    for leaf in slow:
        if isinstance(leaf, config.TaskVerifier):
            tasks.check(leaf.dataset)
    return Verifier(parsed, Judges(sorted({_task(leaf) for leaf in slow}), max(leaf.workers for leaf in slow)))


def _leaves(verifier: config.AnyVerifier) -> Iterator[config.AnyVerifier]:
    if isinstance(verifier, config.RubricVerifier):
        for part in verifier.parts:
            yield from _leaves(part)
    elif isinstance(verifier, config.StepsVerifier):
        yield from _leaves(verifier.step)
        yield from _leaves(verifier.outcome)
    else:
        yield verifier


def _task(leaf: config.MathVerifier | config.TaskVerifier) -> str:
    return "math" if isinstance(leaf, config.MathVerifier) else f"reasoning_gym:{leaf.dataset}"


# ---------------------------------------------------------------- one verdict


def _judge(verifier: config.AnyVerifier, item: Item, judges: Judges | None) -> Score:
    match verifier:
        case config.AnswerVerifier():
            return answers.exact(item.response, item.reference, verifier.marker)
        case config.FormatVerifier():
            return _format(verifier, item.response)
        case config.MathVerifier():
            assert judges is not None
            return _math(verifier, item, judges)
        case config.TaskVerifier():
            assert judges is not None
            return _reasoning_gym(verifier, item, judges)
        case config.StepsVerifier():
            outcome = _finite(_judge(verifier.outcome, item, judges))
            return steps.judge(
                item.response,
                verifier.separator,
                lambda text: _finite(_judge(verifier.step, replace(item, response=text), judges)),
                outcome,
            )
        case config.RubricVerifier():
            return weigh(verifier, {config.part_name(p): _finite(_judge(p, item, judges)) for p in verifier.parts})
        case _:
            assert_never(verifier)


def _format(verifier: config.FormatVerifier, response: str) -> Score:
    import regex  # type: ignore[import-untyped]  # its matcher stops at a deadline; re's does not

    try:
        matched = regex.fullmatch(verifier.pattern, response, timeout=verifier.timeout)
    except TimeoutError:
        return Score.unknown(Status.TIMEOUT, f"the pattern took longer than {verifier.timeout:g} s")
    return answers.right() if matched else answers.wrong("the pattern does not match")


def _math(verifier: config.MathVerifier, item: Item, judges: Judges) -> Score:
    screened = equivalence.screen(item.response, item.reference, verifier.marker)
    if isinstance(screened, Score):
        return screened
    reference = equivalence.bare(answers.plain(item.reference) or "")
    value = judges.ask({"task": "math", "answer": screened, "reference": reference}, verifier.timeout)
    if isinstance(value, Score):
        return value
    return answers.right() if value == 1.0 else answers.wrong("not equivalent")


def _reasoning_gym(verifier: config.TaskVerifier, item: Item, judges: Judges) -> Score:
    entry = json.loads(item.reference) if isinstance(item.reference, str) else item.reference
    if not isinstance(entry, Mapping) or "answer" not in entry:
        return Score.unknown(Status.ERROR, "reference is not a reasoning-gym entry: it needs `answer` and `metadata`")
    answer = answers.after_marker(item.response, verifier.marker)
    if not answer:
        return answers.wrong(f"no marker {verifier.marker!r}" if answer is None else "no answer")
    if len(answer) > LONGEST_RESPONSE:
        return answers.wrong(f"the answer is longer than {LONGEST_RESPONSE} characters")
    request = {"task": _task(verifier), "answer": answer, "reference": dict(entry)}
    value = judges.ask(request, verifier.timeout)
    if isinstance(value, Score):
        return value
    return Score(value=value, passed=value >= 1.0, reason="" if value >= 1.0 else "the task's scorer says so")


def weigh(rubric: config.RubricVerifier, parts: Mapping[str, Score]) -> Score:
    """Weighted mean of the parts' values; passed if every required part passed; unknown if any part is."""
    for name, part in parts.items():
        if part.status != Status.OK:
            unknown = Score.unknown(part.status, f"{name}: {part.reason}")
            return Score(unknown.value, None, unknown.status, unknown.reason, parts=dict(parts))
    total = sum(part.weight for part in rubric.parts)
    value = sum(part.weight * parts[config.part_name(part)].value for part in rubric.parts) / total
    failed = [name for part in rubric.parts if part.required and not parts[name := config.part_name(part)].passed]
    reason = "; ".join(f"{name}: {parts[name].reason}" for name in failed)
    return Score(value=value, passed=not failed, reason=reason, parts=dict(parts))


def _finite(score: Score) -> Score:
    """The score, or an error in its place: a reward that is not finite never leaves a verifier."""
    if score.status == Status.OK and not math.isfinite(score.value):
        return Score.unknown(Status.ERROR, f"the verifier's value is {score.value}")
    return score


@lru_cache(maxsize=64)
def _version(config_json: str) -> str:
    digest = blake2s(config_json.encode(), digest_size=6)
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    for package in ("math-verify", "reasoning-gym", "regex", "sympy"):
        digest.update(_installed(package).encode())
    return digest.hexdigest()


def _installed(package: str) -> str:
    try:
        return f"{package}=={version(package)}"
    except PackageNotFoundError:
        return package
