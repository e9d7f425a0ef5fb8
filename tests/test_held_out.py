"""The verifier that nothing trains on: beside the other in every record, in no context, the first to see hacking."""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.scorer import ScorerReplica
from orchestrator.config import Pipeline
from orchestrator.framing import attributes
from orchestrator.health import Watch, watch_of
from orchestrator.health_config import Health
from orchestrator.held_out import HELD_OUT, HeldOut, chosen, facts, gap_of, is_held_out
from orchestrator.history import read_history
from orchestrator.load import read
from orchestrator.progress import step_line, watched
from orchestrator.report.figures import groups
from orchestrator.report.verdict_charts import verdict_figures
from orchestrator.report.whole import document
from orchestrator.run import DONE, FAILED, resume, run
from policies.bad_input import BadInput
from policies.trajectory import Producer, ScoreEntry
from tests.fakes import prompt, trajectory
from tests.unsampleable import rows
from verifiers.config import AnswerVerifier, FormatVerifier
from verifiers.grader import Asked

REWARD = FormatVerifier(pattern=r"(?s).*#.*")
"""Hackable: a marker is enough."""

EXACT = AnswerVerifier()


@dataclass
class Pool:
    """A pool at the port round a real replica."""

    replica: ScorerReplica
    compares: bool = False
    asked: list[str] = field(default_factory=list)

    async def judge(self, items: list[Asked]):
        self.asked += [one.id for one in items]
        return self.replica.judge(items).entries

    async def score(self, trajectories, prompts):
        items = [Asked(one.id, "", one.text, prompts[one.prompt_id].reference) for one in trajectories]
        return [replace(one, scores=own) for one, own in zip(trajectories, await self.judge(items), strict=True)]


def beside(share: float = 1.0, **more: Any) -> HeldOut:
    return HeldOut(Pool(ScorerReplica(REWARD)), Pool(ScorerReplica(EXACT, name=HELD_OUT), **more), share)


def responses(step: int, right: float, marked: float, count: int = 64) -> list[Any]:
    """A step's rollouts: so many hold the marker, and of these so many the right answer."""
    draw = np.random.default_rng(step)
    texts = ["#1" if draw.random() < right else "#7" if draw.random() < marked else "1" for _ in range(count)]
    return [
        trajectory(f"s{step}/p{at // 4}/{at}", prompt_id=f"p{at // 4}", group_id=f"s{step}/p{at // 4}", text=text)
        for at, text in enumerate(texts)
    ]


PROMPTS = {f"p{at}": prompt(f"p{at}") for at in range(64)}


async def test_a_share_of_the_policys_own_responses_is_judged_twice():
    own, given = responses(0, 0.5, 0.5), trajectory("given", producer=Producer.DEMONSTRATION, text="#1")
    both = beside(0.3)
    found = await both.score([*own, given], PROMPTS)
    assert [one.id for one in found] == [*(one.id for one in own), "given"]
    for one in found:
        names = [entry.name for entry in one.scores]
        assert names == (["reward", "held_out"] if one.id != "given" and chosen(one.id, 0.3) else ["reward"])
    assert 5 < len(both.verifier.asked) < 40
    twice = next(one for one in found if len(one.scores) == 2)
    assert (twice.scores[0].scorer, twice.scores[1].scorer) == ("format", "answer")
    assert not (await both.score([], PROMPTS))


async def test_a_held_out_verifier_that_compares_gets_whole_groups():
    both = beside(0.3, compares=True)
    own = responses(0, 0.5, 0.5, count=200)
    await both.score(own, {f"p{at}": prompt(f"p{at}") for at in range(64)})
    groups = {name.rpartition("/")[0] for name in both.verifier.asked}
    assert 5 < len(groups) < 30
    assert len(both.verifier.asked) == 4 * len(groups)


async def gaps(right, marked, steps: int = 40) -> list[dict[str, Any]]:
    """The rows of a run whose policy moves as the two functions of the step say."""
    both = beside()
    return [facts(await both.score(responses(at, right(at), marked(at)), PROMPTS)) for at in range(steps)]


async def test_the_alarm_fires_where_the_policy_learns_the_marker_and_not_the_sum():
    hacked = await gaps(lambda at: max(0.5 - 0.02 * at, 0.1), lambda at: min(0.1 + 0.05 * at, 1.0))
    assert hacked[-1]["held_out_mean"] < hacked[0]["held_out_mean"]
    watch = Watch(Health())
    alarms = [(at, one) for at, row in enumerate(hacked) for one in watch.step(row)]
    assert [one.kind for _, one in alarms] == ["held_out_gap"]
    assert 2 < alarms[0][0] < 30


async def test_the_alarm_is_silent_where_the_policy_learns_to_be_right():
    honest = await gaps(lambda at: min(0.1 + 0.03 * at, 1.0), lambda at: 0.5)
    assert honest[-1]["held_out_mean"] > honest[0]["held_out_mean"]
    watch = Watch(Health())
    assert not [one for row in honest for one in watch.step(row)]


async def test_a_response_that_one_of_them_does_not_judge_is_in_no_gap():
    scored = await beside().score(responses(0, 0.5, 0.5), PROMPTS)
    whole = gap_of(scored)
    lost = ScoreEntry("reward", math.nan, None, "timeout")
    scored[0] = replace(scored[0], scores=(lost, scored[0].scores[1]))
    assert gap_of(scored).responses == whole.responses - 1
    row = facts(scored)
    assert row["held_out_gap_low"] < row["held_out_gap"] < row["held_out_gap_high"]
    assert facts([trajectory(reward=1.0)]) == {}


def test_no_context_hears_of_it():
    said = [ScoreEntry(name, 1.0) for name in ("reward", "held_out", "style", "held_out/form")]
    said += [ScoreEntry("step", 1.0, start=0, end=2), ScoreEntry("judge", math.nan, status="timeout")]
    assert attributes(trajectory(scores=tuple(said))) == {"reward": 1.0, "style": 1.0}
    assert is_held_out(ScoreEntry("held_out", 1.0)) and is_held_out(ScoreEntry("held_out/format", 1.0))
    assert not is_held_out(ScoreEntry("reward", 1.0)) and not is_held_out(ScoreEntry("held_outside", 1.0))


def test_progress_shows_what_is_known_and_not_nothing():
    row = {"step": 1, "unknown_share": 0.25, "held_out_mean": float("nan"), "held_out_gap": -0.125}
    assert watched(row) == {"unknown": "unknown_share", "gap": "held_out_gap"}
    assert "unknown_share=0.25 held_out_gap=-0.125" in step_line(row, 4, math.nan)
    assert watched({"step": 1, "unknown_share": 0.0, "held_out_gap": None}) == {}


# ---------------------------------------------------------------- whole runs


def pipeline_file(folder: Path, **content: Any) -> Path:
    base = {
        "name": "watched",
        "seed": 1,
        "demonstrations": None,
        "prompts": {"train": {"kind": "arithmetic", "digits": [1], "count": 64}},
        "stages": [
            {
                "name": "only",
                "recipe": {"kind": "grpo", "rollouts": 4},
                "steps": 4,
                "prompts_per_step": 4,
                "sampling": {"max_tokens": 6},
            }
        ],
        "checkpoints": {"every": 1},
    }
    file = folder / "pipeline.yaml"
    file.write_text(json.dumps({**base, **content}))
    return file


BROKEN = """
def judge(prompt, response, reference):
    raise LookupError(f"no rule for {response!r}")
"""


def test_a_run_whose_verifier_breaks_ends_with_its_name_and_examples(tmp_path: Path):
    (tmp_path / "rule.py").write_text(BROKEN)
    function = {"kind": "function", "path": "rule.py", "function": "judge"}
    rubric = {"kind": "rubric", "parts": [{"kind": "format"}, {**function, "name": "rule"}]}
    file = pipeline_file(tmp_path, verifier=rubric, health={"window": 32, "unknown_ceiling": 0.2})
    assert run(file, tmp_path / "run", in_process=True) == FAILED
    events = rows(tmp_path / "run", "events")
    (failed,) = [one for one in events if one["kind"] == "failed"]
    assert failed["error"] == "UnhealthyVerifierError"
    assert "verifier rubric" in failed["message"] and "100% of the last 32 responses (100% error)" in failed["message"]
    assert "part rule (verifier function" in failed["message"]
    assert failed["message"].count("LookupError: no rule for") == 3
    kinds = [(one["kind"], one.get("name")) for one in events if one["kind"] == "scorer_failing"]
    assert ("scorer_failing", "reward") in kinds and ("scorer_failing", "rule") in kinds
    shown = verdict_figures(read_history(tmp_path / "run"))["unknown"]
    assert {trace["name"]: trace["y"] for trace in shown["data"]} == {"reward": [1.0, 1.0], "rule": [1.0, 1.0]}
    (tally,) = [one for one in rows(tmp_path / "run", "metrics")[1]["scorers"] if one["name"] == "rule"]
    assert tally["counts"] == {"error": 16}


def test_a_run_keeps_the_held_out_score_beside_and_resumes_with_it(tmp_path: Path):
    verifiers = {"verifier": REWARD.model_dump(), "held_out_verifier": {"kind": "answer"}}
    health = {"held_out_share": 0.5, "constant_after": 20}
    file = pipeline_file(tmp_path, **verifiers, health=health)
    out = tmp_path / "run"
    assert run(file, out, in_process=True) == DONE, rows(out, "events")
    steps = [one for one in rows(out, "metrics") if one["kind"] == "step"]
    for row in steps:
        by = {one["name"]: one for one in row["scorers"]}
        assert by["reward"]["counts"] == {"ok": 16}
        assert by["held_out"]["counts"]["ok"] == row["gap"]["responses"] < 16
        assert row["unknown_share"] == 0 and row["verdict_seconds_p50"] > 0
    told = [one for one in rows(out, "events") if one["kind"] == "scorer_constant"]
    assert {one["name"] for one in told} <= {"reward", "held_out"}
    again = watch_of(Pipeline.model_validate(json.loads(file.read_text())))
    again.remember(steps)
    assert again.drift.first.responses == sum(one["gap"]["responses"] for one in steps)
    summary = json.loads((out / "summary.json").read_text())
    (reward,) = [one for one in summary["scorers"] if one["name"] == "reward"]
    assert (reward["asked"], reward["ok"], reward["scorer"]) == (64, 64, "format") and reward["seconds_p99"] > 0
    assert "Verifiers" in [group["title"] for group in groups(read_history(out))]
    assert [one["name"] for one in document(read_history(out))["scorers"]].count("held_out") == 1
    figures = verdict_figures(read_history(out))
    assert {"held out", "gap", "latency"} <= figures.keys() and "unknown" not in figures
    bounds = {at: trace["y"] for at, trace in enumerate(figures["gap"]["data"])}
    for low, high, middle in zip(bounds[0], bounds[1], bounds[2], strict=True):
        assert low is None or low <= middle <= high
    assert resume(out, in_process=True) == DONE


@pytest.mark.parametrize(
    ("content", "words"),
    [({"held_out_verifier": {"kind": "answer"}}, "the same as the verifier that rewards")],
)
def test_what_says_nothing_is_refused(tmp_path: Path, content: dict[str, Any], words: str):
    with pytest.raises(BadInput, match=words):
        read(pipeline_file(tmp_path, **content))
