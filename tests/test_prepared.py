"""Preparation: attempts in turn, what is kept, how it is ranked, and that a resumed stage reads it back."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.engine import TokenScores
from orchestrator.collect import Collector, Recipe
from orchestrator.config import RecipeChoice, Stage
from orchestrator.prepared import Prepared, hardest, likeliest
from orchestrator.preparing import forget, furnish, prepare
from orchestrator.records import Dropped
from policies.config import ConstantCredit, Prepare, Source, Strand, TinyModel
from policies.model_folder import materialise
from policies.tokens import Tokenizer
from policies.trajectory import Float32, Int32, Origin, Producer, ScoreEntry, Trajectory
from tests.fakes import FakeSampler, FakeScorer, prompt, trajectory


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(materialise(TinyModel(preset="arithmetic-small"), tmp_path_factory.mktemp("model")))


@dataclass
class Book:
    """Two demonstrations for each prompt."""

    def for_prompt(self, prompt_id: str, index: int) -> Trajectory | None:
        if index > 1:
            return None
        given = {"text": "12", "origin_of": Origin.DEMONSTRATION, "prompt_id": prompt_id}
        return trajectory(f"d{index}-{prompt_id}", 3 + index, **given)

    def at_step(self, step: int, count: int, seed: int) -> list[Trajectory]:
        return []


@dataclass
class Ranker:
    """Finds a response the likelier, the longer it is; remembers the contexts."""

    asked: list[tuple[int, int]] = field(default_factory=list)

    async def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32], top_k: int) -> list[TokenScores]:
        self.asked += [(len(c), len(t)) for c, t in zip(contexts, tokens, strict=True)]
        return [TokenScores(np.full(len(one), -1.0 / len(one), np.float32)) for one in tokens]

    async def hidden(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        raise NotImplementedError


@dataclass
class World:
    tokenizer: Tokenizer
    source: dict[str, Any]
    scorer: FakeScorer = field(default_factory=lambda: FakeScorer(passes=()))
    sampler: FakeSampler = field(default_factory=lambda: FakeSampler(version=4))
    ranker: Ranker = field(default_factory=Ranker)
    lost: list[Dropped] = field(default_factory=list)

    def strand(self) -> Strand:
        source = Source.model_validate({"producer": "demonstration", "per_prompt": 1, **self.source})
        return Strand(name="kept", source=source, credit=ConstantCredit(), terms=())

    def collector(self) -> Collector:
        prompts = tuple(prompt(f"p{at}", text=f"{at}=", tokens=self.tokenizer.prompt(f"{at}=")) for at in range(3))
        by_id = {one.id: one for one in prompts}
        return Collector(self.sampler, self.scorer, prompts, by_id, Book(), 3, self.tokenizer)

    def stage(self) -> Stage:
        return Stage(name="a", recipe=RecipeChoice(kind="star"), steps=5)

    def run(self, folder: Path) -> Prepared:
        made = prepare(
            self.stage(), [self.strand()], self.collector(), folder, ranker=self.ranker, on_drop=self.lost.append
        )
        return asyncio.run(made)["kept"]


def test_an_attempt_is_made_on_the_prompts_that_earlier_ones_left(tokenizer: Tokenizer, tmp_path: Path) -> None:
    attempts = {"attempts": ("", "{{ prompt }}#{{ answer }}"), "samples": 2, "cap": 1}
    scorer = FakeScorer(passes=("p0/0", "p1/1"))
    world = World(tokenizer, {"prepare": attempts, "context_shift": "recompute"}, scorer)
    kept = world.run(tmp_path).kept
    assert [(one.prompt_id, one.id.rsplit("/", 1)[1]) for one in kept] == [("p0", "0-0"), ("p1", "1-0")]
    asked = [one.id.removeprefix("a/prepared/kept/") for one in world.sampler.asked]
    assert asked == [f"p{at}/0-{k}" for at in range(3) for k in range(2)] + [
        f"p{at}/1-{k}" for at in (1, 2) for k in range(2)
    ]
    rationalised = kept[1]
    assert tokenizer.decode(rationalised.behavior_context) == "1=#1"
    assert tokenizer.decode(rationalised.train_context) == "1=", "the answer is erased"
    assert rationalised.version == 4 and (rationalised.behavior_logps == -1.0).all(), "who wrote it stays known"
    written = {one.id for one in world.sampler.asked}
    assert {one.id for one in world.lost} == written - {one.id for one in kept}, "none is lost without a word"
    assert {one.cause for one in world.lost} == {"select"} and "at most 1" in world.lost[0].reason


def test_a_demonstration_stands_in_where_nothing_was_kept(tokenizer: Tokenizer, tmp_path: Path) -> None:
    world = World(tokenizer, {"prepare": {"otherwise": "demonstration"}}, FakeScorer(passes=("p1/",)))
    kept = world.run(tmp_path)
    assert [one.producer for one in kept.for_prompt("p1", 9, 0.0)] == [Producer.ROLLOUT]
    assert [one.id for one in kept.for_prompt("p0", 9, 0.0)] == ["d0-p0", "d1-p0"]


def test_nothing_kept_is_an_error_that_says_what_to_do(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing was kept .* raise prepare.samples"):
        World(tokenizer, {"prepare": {}}).run(tmp_path)


def test_a_context_that_cannot_be_made_is_told(tokenizer: Tokenizer, tmp_path: Path) -> None:
    world = World(tokenizer, {"prepare": {"attempts": ("{{ sibling }}", "")}}, FakeScorer(passes=("/1-",)))
    world.run(tmp_path)
    assert len(world.lost) == 3 and "sibling" in world.lost[0].reason


def test_a_resumed_stage_reads_its_data_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    given = {"prepare": {"keep": "all", "samples": 2}}
    first = World(tokenizer, given)
    whole = first.run(tmp_path)
    again = World(tokenizer, given)
    back = again.run(tmp_path)
    assert again.sampler.asked == [], "nothing is written twice"
    for one, other in zip(whole.kept, back.kept, strict=True):
        assert (one.id, one.version, one.scores, one.text) == (other.id, other.version, other.scores, other.text)
        np.testing.assert_array_equal(one.behavior_logps, other.behavior_logps)
    draws = [[one.id for one in pool.at_step(step, 2, 5, 0.0)] for pool in (whole, back) for step in range(4)]
    assert draws[:4] == draws[4:] and draws[0] != draws[1]


def test_an_earlier_stage_that_trains_again_takes_the_data_with_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    world = World(tokenizer, {"prepare": {"keep": "all"}})
    recipe = Recipe(world.stage(), [world.strand()])
    furnished = asyncio.run(
        furnish(world.collector(), recipe, tmp_path, step=0, ranker=None, on_drop=world.lost.append)
    )
    assert len(furnished.prepared["kept"].kept) == 3 and furnished.replay is None
    forget(tmp_path, ["b"])
    assert list((tmp_path / "prepared").iterdir())
    forget(tmp_path, ["a"])
    assert not list((tmp_path / "prepared").iterdir())


def test_the_threshold_rises_over_the_stage() -> None:
    records = [trajectory(f"t{at}", scores=(ScoreEntry("reward", at / 10, None),)) for at in range(10)]
    config = Prepare(keep="above", threshold=0.2, threshold_end=0.7)
    pool = Prepared.of(config, records)
    counts = [len(pool.for_prompt("p0", 99, progress)) for progress in (0.0, 0.5, 1.0)]
    assert counts == [7, 5, 2]
    assert pool.at_step(0, 2, 1, 1.0) and Prepared.of(config, records[:2]).at_step(0, 2, 1, 1.0) == []


def test_the_likeliest_candidate_of_a_prompt_is_kept(tokenizer: Tokenizer, tmp_path: Path) -> None:
    world = World(tokenizer, {"prepare": {"writer": "nobody", "keep": "all", "rank": "likelihood"}})
    kept = world.run(tmp_path).kept
    assert [one.id for one in kept] == ["d1-p0", "d1-p1", "d1-p2"], "longer ones are likelier to this ranker"
    records = [trajectory(f"t{at}", prompt_id=f"p{at % 2}") for at in range(4)]
    assert [one.id for one in likeliest(records, [-1.0, -3.0, -1.0, -2.0])] == ["t0", "t3"], "a tie keeps the first"


def test_difficulty_is_the_ratio_of_perplexities(tokenizer: Tokenizer, tmp_path: Path) -> None:
    world = World(tokenizer, {"prepare": {"writer": "nobody", "keep": "all", "rank": "ifd", "share": 0.5}})
    kept = world.run(tmp_path).kept
    # exp(mean log p(y) - mean log p(y|x)): exp(-1/2 / 2 ...) by this ranker: longer responses are nearer to 1
    ratio = {size: np.exp(-1.0 / (size - 1) + 1.0 / size) for size in (3, 4)}
    assert ratio[4] > ratio[3] and {len(one.tokens) for one in kept} == {4}
    assert (1, 2) in world.ranker.asked, "without the instruction the first token is the context"
    records = [trajectory(f"t{at}") for at in range(4)]
    assert [one.id for one in hardest(records, [0.9, 1.2, float("nan"), 0.5], 0.25)] == ["t0"]
