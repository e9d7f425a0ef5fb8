"""Facts by origin: an independent count over the tokens, sums that are the whole's, and merges that are exact."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from orchestrator import recipes
from policies import origin_facts
from policies.batch import TrajectoryBatch
from policies.config import Only, Strand, Term
from policies.objective import Evaluation, evaluate
from policies.trajectory import Origin
from tests import paper_oracles as paper
from tests.mixed_cases import mixed, of
from tests.parity_case import Case
from tests.recipe_bridge import batch_of, credited, trajectory, views

RECIPES = ("luffy", "hpt", "srft", "chord", "mix", "dpo", "uft")


def batch(case: Case, strands: tuple[Strand, ...]) -> TrajectoryBatch:
    strand_B = [min(one, len(strands) - 1) for one in of(case)]
    rows = [trajectory(case, i) for i in range(len(case.off_B))]
    seen = [views(case, i) for i in range(len(rows))]
    advantages_BT, _ = credited(strands, rows, strand_B, seen, case.tokens_BT.shape[1])
    pairs = {"set_B": np.arange(len(rows)) // 2, "label_B": (np.arange(len(rows)) % 2 == 0).astype(np.float64)}
    return batch_of(case, strand_B, advantages_BT, **pairs)


def said(name: str, seed: int) -> tuple[Evaluation, TrajectoryBatch, Case]:
    case = mixed(seed)
    strands = recipes.load(name).strands
    made = batch(case, strands)
    return evaluate(strands, made, torch.from_numpy(case.logits_BTV), old_is_current=True), made, case


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", RECIPES)
def test_tokens_and_pull_are_counted_token_by_token(name: str, seed: int) -> None:
    found, made, case = said(name, seed)
    g_BT = found.coefficient_BT.detach().numpy()
    for number, origin in ((Origin.LEARNER, "learner"), (Origin.DEMONSTRATION, "demonstration")):
        places = [
            (b, t) for b, t in np.ndindex(*case.mask_BT.shape) if case.mask_BT[b, t] and made.origin_BT[b, t] == number
        ]
        facts = found.by_origin[origin]
        assert facts["tokens"] == len(places)
        assert facts["gradient_mass"] == pytest.approx(sum(abs(g_BT[place]) for place in places), rel=1e-9)
        known = [place for place in places if not math.isnan(float(made.behavior_logps_BT[place]))]
        weights = [math.exp(case.logps_BT[place] - float(made.behavior_logps_BT[place])) for place in known]
        assert facts["behavior_tokens"] == len(known)
        if known:
            want = sum(weights) ** 2 / (len(weights) * sum(one**2 for one in weights))
            assert facts["ess"] == pytest.approx(want, rel=1e-9)
        else:
            assert math.isnan(facts["ess"])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", RECIPES)
def test_the_origins_sum_to_the_whole(name: str, seed: int) -> None:
    found, _, _ = said(name, seed)
    total = {fact: math.fsum(one[fact] for one in found.by_origin.values()) for fact in origin_facts.SUMS}
    strands = found.by_strand.values()
    assert total["loss"] == pytest.approx(float(found.loss), rel=1e-9)
    assert total["gradient_mass"] == pytest.approx(math.fsum(one["gradient_mass"] for one in strands), rel=1e-9)
    assert total["tokens"] == sum(one["tokens"] for one in strands)


def test_a_strand_of_one_writer_gives_its_whole_loss_to_it() -> None:
    found, _, _ = said("chord", 0)
    assert found.by_origin["demonstration"]["loss"] == pytest.approx(found.by_strand["demonstrations"]["loss"])
    assert found.by_origin["learner"]["loss"] == pytest.approx(found.by_strand["rollouts"]["loss"])


def test_what_nothing_pulls_on_has_no_loss_of_a_strand_that_pulls_elsewhere() -> None:
    case = mixed(0)
    strand = recipes.load("sft").strands[0]
    term = strand.terms[0].model_copy(update={"only": Only(origins=("demonstration",))})
    alone = strand.model_copy(update={"terms": (Term.model_validate(term.model_dump()),)})
    made = batch_of(case, [0] * len(case.off_B), np.ones(case.tokens_BT.shape))
    found = evaluate((alone,), made, torch.from_numpy(case.logits_BTV))
    assert found.by_origin["learner"]["loss"] == 0.0 and found.by_origin["learner"]["tokens"] > 0
    assert found.by_origin["demonstration"]["loss"] == pytest.approx(float(found.loss))


def test_merged_parts_are_the_whole() -> None:
    found, made, case = said("luffy", 1)
    strands = recipes.load("luffy").strands
    half = len(case.off_B) // 2
    parts = []
    for rows in (slice(0, half), slice(half, None)):
        columns = {name: getattr(made, name) for name in TrajectoryBatch.__slots__}
        by_row = [name for name, value in columns.items() if value is not None and name.endswith(("_BT", "_BTK", "_B"))]
        part = replace(made, **{name: columns[name][rows] for name in by_row})
        g_BT = found.coefficient_BT.detach()[rows]
        logps_BT = torch.from_numpy(case.logps_BT)[rows]
        parts.append(origin_facts.by_origin(strands, part, logps_BT, g_BT, [0.0, 0.0]))
    merged = origin_facts.merge(parts)
    for origin, facts in merged.items():
        for fact in ("tokens", "gradient_mass", "behavior_tokens", "weight_sum", "weight_square_sum"):
            assert facts[fact] == pytest.approx(found.by_origin[origin][fact], rel=1e-9)
        assert facts["ess"] == pytest.approx(found.by_origin[origin]["ess"], rel=1e-9, nan_ok=True)


def test_nobody_knows_who_wrote_tokens_without_origins() -> None:
    case = paper.random_case(0)
    made = replace(batch_of(case, [0] * len(case.off_B), np.ones(case.tokens_BT.shape)), origin_BT=None)
    assert origin_facts.by_origin((recipes.load("sft").strands[0],), made, None, made.advantages_BT, [1.0]) == {}
