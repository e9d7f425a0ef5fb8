"""Divergence between two policies on each one's own states: exact values of enumerable policies, and when to warn."""

import json
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.json_lines import plain
from orchestrator.probes import divergence, scores
from orchestrator.probes.snapshot import Scored
from tests.enumeration import RESPONSES, kl, probability, states, table, visits
from tests.parity_case import log_softmax

TABLES = {"before": table(1), "after": table(1) + 0.5 * table(2), "teacher": table(3)}


def rows(writer: str, count: int, random, prompts: int = 40, tables=TABLES) -> list[Scored]:
    """Own rollouts of a table, scored by every table."""
    chances = np.array([probability(tables[writer], one) for one in RESPONSES])
    out = []
    for number, at in enumerate(random.choice(len(RESPONSES), size=count, p=chances / chances.sum())):
        response = RESPONSES[at]
        for model, policy in tables.items():
            logs = log_softmax(policy)[states(response)]
            out.append(
                Scored(
                    f"{writer}-{number}",
                    f"p{number % prompts}",
                    "",
                    writer,
                    model,
                    np.array(response, np.int32),
                    logs[np.arange(len(response)), list(response)].astype(np.float32),
                    logs.argmax(1).astype(np.int32),
                    logs.max(1).astype(np.float32),
                    tuple(range(1, len(response) + 1)),
                )
            )
    return out


def exact(writer: str, other: str) -> tuple[float, float]:
    """KL(writer || other) per response and per token."""
    here = visits(TABLES[writer])
    whole = float(here @ kl(TABLES[writer], TABLES[other]))
    return whole, whole / float(here.sum())


@pytest.mark.parametrize("writer,other", [("before", "after"), ("after", "before"), ("after", "teacher")])
def test_estimates_are_of_the_exact_divergence_and_cover_it(writer, other) -> None:
    whole, per_token = exact(writer, other)
    random, hits, values = np.random.default_rng(3), np.zeros(3), []
    for _ in range(60):
        pairs = scores.paired(rows(writer, 120, random, 120), writer, writer, other)
        found = divergence.divergence(pairs, 0.95)
        for at, (one, true) in enumerate(
            [(found.per_token, per_token), (found.per_response, whole), (found.per_token_k1, per_token)]
        ):
            hits[at] += one.low <= true <= one.high
        values.append((found.per_token.value, found.per_token_k1.value, found.per_response.value))
    assert np.mean(values, 0) == pytest.approx([per_token, per_token, whole], rel=0.12)
    assert (hits / 60).min() >= 0.85
    assert min(value for value, _, _ in values) >= 0


@pytest.mark.parametrize("peak,narrower", [(1.0, 1.5), (3.0, 2.0)])
def test_what_is_known_of_the_likeliest_token_narrows(peak: float, narrower: float) -> None:
    """On policies close to each other, as checkpoints of a stage are; the more the surer they are of their tokens."""
    close = {"before": peak * table(1), "after": peak * table(1) + 0.05 * table(2)}
    random = np.random.default_rng(4)
    found = [
        divergence.divergence(scores.paired(rows("before", 60, random, 60, close), "before", "before", "after"), 0.95)
        for _ in range(40)
    ]
    spread = np.std([one.per_token.value for one in found]), np.std([one.per_token_k1.value for one in found])
    assert spread[0] < spread[1] / narrower


def test_the_likeliest_tokens_part_is_exact_without_a_draw_of_the_others() -> None:
    """Responses of one token each: with all tokens weighed by their probabilities the split is the divergence."""
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.9, 0.04, 0.06])

    def one(token: int, chances, model) -> Scored:
        best = np.float32(np.log(chances.max()))
        logs = np.array([np.log(chances[token])], np.float32)
        tokens = np.array([token], np.int32)
        return Scored(f"{token}", "x", "", "after", model, tokens, logs, np.zeros(1, np.int32), np.array([best]))

    pairs = [(one(token, p, "after"), one(token, q, "before")) for token in range(3)]
    sums, _, _ = divergence.apart(pairs)
    assert np.dot(p, sums) == pytest.approx(float((p * np.log(p / q)).sum()), abs=1e-6)
    assert sums[0] == pytest.approx(0.7 * np.log(0.7 / 0.9) + 0.3 * np.log(0.3 / 0.1), abs=1e-6)


def test_entropy_is_that_of_the_policys_own_states() -> None:
    policy = TABLES["after"]
    logs, here = log_softmax(policy), visits(policy)
    true = float(here @ -(np.exp(logs) * logs).sum(1) / here.sum())
    random, hits = np.random.default_rng(5), 0
    for _ in range(60):
        own = [one for one in rows("after", 100, random, 100) if one.model == "after"]
        found = divergence.entropy(own, 0.95)
        hits += found.low <= true <= found.high
    assert hits / 60 >= 0.88 and found.value == pytest.approx(true, rel=0.25)


def test_agreement_counts_positions_with_the_same_greedy_choice() -> None:
    pairs = scores.paired(rows("after", 30, np.random.default_rng(6)), "after", "after", "teacher")
    a, b = (log_softmax(TABLES[name]).argmax(1) for name in ("after", "teacher"))
    places = [state for one, _ in pairs for state in states(tuple(one.tokens.tolist()))]
    assert divergence.agreement(pairs, 0.95).value == pytest.approx(np.mean(a[places] == b[places]))
    unknown = [(replace(one, best_ids=np.full(len(one.tokens), -1, np.int32)), other) for one, other in pairs]
    assert not divergence.agreement(unknown, 0.95).known


def test_the_document_of_what_there_is() -> None:
    random = np.random.default_rng(7)
    everything = [*rows("before", 120, random), *rows("after", 120, random)]
    told = json.loads(json.dumps(plain(divergence.document(everything, confidence=0.95)), allow_nan=False))
    for name in ("from_before", "to_after"):
        assert 0 <= told[name]["low"] <= told[name]["value"] <= told[name]["high"]
    change = told["entropy"]["after"]["value"] - told["entropy"]["before"]["value"]
    assert told["entropy"]["change"]["value"] == pytest.approx(change)
    assert told["steps"]["at"] == [1, 2, 3] and told["warnings"] == []
    one = divergence.divergence(scores.paired(everything, "after", "after", "before"), 0.95)
    lengths = np.array([len(r.tokens) for r in everything if (r.writer, r.model) == ("after", "after")])
    sizes = [int((lengths > t).sum()) for t in range(3)]
    assert np.dot(told["steps"]["after_own"]["value"], sizes) / sum(sizes) == pytest.approx(one.per_token.value)
    half = json.loads(json.dumps(plain(divergence.document(rows("after", 5, random)[::3], confidence=0.95))))
    assert half["from_before"]["value"] is None and half["entropy"]["before"]["value"] is None
    nothing = divergence.document((), confidence=0.95)
    assert np.isnan(nothing["from_before"]["value"]) and nothing["steps"] is None and nothing["warnings"] == []


def test_the_same_policy_twice_is_no_distance() -> None:
    same = {"before": table(1), "after": table(1), "teacher": table(1)}
    own = rows("after", 50, np.random.default_rng(8), 50, same)
    found = divergence.divergence(scores.paired(own, "after", "after", "before"), 0.95)
    assert (
        abs(found.per_token.value) < 1e-6
        and found.per_response.high < 1e-6
        and found.effective_share == pytest.approx(1)
    )
    assert found.warnings == ()


def test_it_warns_where_the_sample_says_little() -> None:
    four = rows("after", 4, np.random.default_rng(9))
    few = divergence.divergence(scores.paired(four, "after", "after", "before"), 0.95)
    assert any("too few" in text for text in few.warnings)
    tokens = np.zeros(200, np.int32)
    alike = np.full(200, -0.1, np.float32)
    told = Scored("a", "x", "", "after", "after", tokens, alike, tokens, alike)
    torn = alike.copy()
    torn[7] = -12.0
    doubt = replace(told, model="before", logps=torn, best_ids=np.ones(200, np.int32))
    carried = divergence.divergence([(told, doubt)], 0.95)
    assert any("about 1 of 200 tokens" in text for text in carried.warnings)
    apart = alike.copy()
    apart[3], told_low = -0.1, replace(told, logps=np.where(np.arange(200) == 3, -9.0, alike).astype(np.float32))
    heavy = divergence.divergence([(told_low, replace(told, model="before", logps=apart))], 0.95)
    assert any("effective sample" in text for text in heavy.warnings)


def test_what_one_model_does_not_know_is_left_out() -> None:
    one = rows("after", 1, np.random.default_rng(10))
    first, last = one[1], one[0]
    torn = replace(last, logps=np.append(np.float32("nan"), last.logps[1:]).astype(np.float32))
    found = divergence.divergence([(first, torn)], 0.95)
    assert found.tokens == len(first.tokens) - 1
