"""More than the data hold, and verdicts that no verifier gives: refused by the rules, and by key in a pipeline file."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator import recipes
from orchestrator.checks import check
from orchestrator.config import Pipeline
from orchestrator.controls.config import Buffer, Freeze, Gate, Ladder, Prefix, StartWhen, ZeroVariance
from orchestrator.controls.prompt_config import Bottleneck, Curriculum
from orchestrator.legality import Surroundings, counting
from orchestrator.load import read
from orchestrator.plan import plan
from policies.bad_input import BadInput
from tests.compositions import IMITATE, PLAIN, SCOPED, recipe, strand
from tests.rule_cases import D, R, of, refused
from verifiers.config import AnswerVerifier, FormatVerifier, MathVerifier, RubricVerifier, StepsVerifier

BUFFER = Buffer(watch="r", strand="d", size=9)


def around(**known):
    return Surroundings(**known)


# ---------------------------------------------------------------- sizes


def test_a_buffer_larger_than_the_data_is_refused():
    _, text, fix = refused("data", (R, D), BUFFER, around=around(prompts=8, demonstrated=8))
    assert "larger than the data: 8 prompts can wait (got 9)" in text
    assert "8 or less" in fix
    _, text, fix = refused("data", (R, D), BUFFER, around=around(prompts=20, demonstrated=8))
    assert "8 prompts have a demonstration (got 9)" in text
    assert "8 or less" in fix
    for known in ({"prompts": 9, "demonstrated": 9}, {"prompts": 9}, {}):
        assert not of("data", (R, D), BUFFER, around=around(**known))
    revised = strand("d", credit=SCOPED)
    assert not of("data", (R, revised), BUFFER, around=around(prompts=9, demonstrated=0))


@pytest.mark.parametrize("control", [Curriculum(watch="r"), Bottleneck(reinforce="r", imports="d", candidates=4)])
def test_candidates_beyond_the_data_are_doubted(control):
    (found,) = of("data", (R, D), control, around=around(prompts=31), prompts_per_step=8)
    assert found[0] == "warning"
    assert f"{control.kind}.candidates x prompts_per_step is 32, and there are 31 prompts" in found[2]
    assert "3 or less" in found[3]
    assert not of("data", (R, D), control, around=around(prompts=32), prompts_per_step=8)


def test_a_step_beyond_the_data_is_doubted():
    (found,) = of("data", (R,), around=around(prompts=7), prompts_per_step=8)
    assert (found[0], found[4]) == ("warning", ("prompts_per_step",))
    assert not of("data", (R,), around=around(prompts=8), prompts_per_step=8)
    assert not of("data", (R,), prompts_per_step=8)


def test_replay_beyond_what_can_be_written_is_doubted():
    def past(**source):
        return strand("p", "replay", credit=IMITATE, kernel=PLAIN, source=source)

    own = {"per_prompt": 0, "per_step": 9}
    (found,) = of("data", (R, past(**own)), around=around(prompts=8))
    assert "9 past rollouts a step" in found[2]
    assert not of("data", (R, past(**own)), around=around(prompts=9))
    (found,) = of("data", (R, past(window=21)), around=around(past=frozenset()), steps=5)
    assert found[:2] == ("warning", "p")
    assert "draws 20 are written" in found[2]
    assert not of("data", (R, past(window=20)), around=around(past=frozenset()), steps=5)
    assert not of("data", (R, past(window=21)), steps=5)


def test_cosines_and_masks_need_whole_parameters():
    _, text, fix = refused("data", (R, D), around=around(zero_stage=3), interference=5)
    assert "zero_stage 3" in text
    assert "(got 5)" in text
    assert fix
    assert not of("data", (R, D), around=around(zero_stage=2), interference=5)
    assert not of("data", (R, D), around=around(zero_stage=3))
    (found,) = of("data", (R,), interference=5)
    assert found[0] == "warning"
    assert "r trains alone" in found[2]
    assert found[4] == ("interference",)
    assert "zero_stage 3" in refused("data", (R, D), Freeze(strand="d"), around=around(zero_stage=3))[1]
    assert not of("data", (R, D), Freeze(strand="d"), around=around(zero_stage=2))


# ---------------------------------------------------------------- verdicts

LENIENT = RubricVerifier(parts=(AnswerVerifier(required=False), FormatVerifier(required=False)))
STRICT = RubricVerifier(parts=(AnswerVerifier(required=False), FormatVerifier()))
COUNTING = [
    Gate(strand="r", otherwise="d"),
    BUFFER,
    Ladder(strand="r"),
    Prefix(strand="r", schedule="bisect"),
    Curriculum(watch="r"),
    Bottleneck(reinforce="r", imports="d"),
    StartWhen(strand="d"),
]


@pytest.mark.parametrize("control", COUNTING, ids=lambda control: control.kind)
@pytest.mark.parametrize("verifier", [LENIENT, StepsVerifier(step=AnswerVerifier(), outcome=LENIENT)])
def test_a_verifier_that_passes_everything_tells_no_control_anything(control, verifier):
    _, text, fix = refused("verdicts", (R, D), control, around=around(verifier=verifier))
    assert f"{control.kind} counts how many responses passed" in text
    assert "without a required part (answer, format)" in text
    assert "required" in fix
    gated = RubricVerifier(parts=(FormatVerifier(required=False), AnswerVerifier(role="gate", weight=0)))
    vetoed = RubricVerifier(parts=(AnswerVerifier(required=False), FormatVerifier(role="veto")))
    for left in (STRICT, gated, vetoed, AnswerVerifier(), RubricVerifier(parts=(LENIENT, MathVerifier()))):
        assert not of("verdicts", (R, D), control, around=around(verifier=left))


def test_values_alone_are_enough_for_what_reads_values():
    for control in (ZeroVariance(action="drop"), StartWhen(strand="d", fact="reward_mean")):
        assert not of("verdicts", (R, D), control, around=around(verifier=LENIENT))


@pytest.mark.parametrize("control", [*COUNTING, ZeroVariance(action="redraw")], ids=lambda control: control.kind)
def test_prompts_without_a_reference_leave_a_verifier_silent(control):
    silent = list(of("verdicts", (R, D), control, around=around(verifier=MathVerifier(), referenced=False)))
    assert {one[0] for one in silent} == {"error"}
    assert any(f"{control.kind} reads verdicts; prompts.train.reference is null" in one[2] for one in silent)
    assert any(one[1] == "r" and "reads rewards" in one[2] for one in silent)
    assert all("math compares with it" in one[2] and one[3] for one in silent)
    for known in ({"verifier": FormatVerifier(), "referenced": False}, {"verifier": MathVerifier()}):
        assert not of("verdicts", (R, D), control, around=around(**known))


def test_replay_that_asks_for_verdicts_needs_some():
    copied = strand("r", credit=IMITATE, kernel=PLAIN)
    for past, key in (({"passed": True}, "passed"), ({"at_least": 0.5}, "at_least"), ({"at_most": 0.5}, "at_most")):
        asking = strand("p", "replay", credit=IMITATE, kernel=PLAIN, source={"past": past})
        where, text, fix = refused("verdicts", (copied, asking), around=around(past=frozenset()))
        assert where == "p"
        assert f"source.past.{key} asks for what the verifier said of r" in text
        assert fix
        assert not of("verdicts", (R, asking), around=around(past=frozenset()))
        assert not of("verdicts", (copied, asking), around=around(past=frozenset({"rollout"})))
        assert not of("verdicts", (copied, asking))
        silent = around(verifier=MathVerifier(), referenced=False)
        assert [one[1] for one in of("verdicts", (copied, asking), around=silent)] == ["p"]
    anything = strand("p", "replay", credit=IMITATE, kernel=PLAIN)
    assert not of("verdicts", (copied, anything), around=around(past=frozenset()))


def test_imitation_asks_no_verifier():
    assert not of("verdicts", (D,), around=around(verifier=MathVerifier(), referenced=False))


def test_a_part_of_a_rubric_that_compares_silences_the_whole():
    parts = RubricVerifier(parts=(FormatVerifier(), AnswerVerifier()))
    assert refused("verdicts", (R,), around=around(verifier=parts, referenced=False))
    reported = RubricVerifier(parts=(FormatVerifier(), AnswerVerifier(weight=0)))
    for heard in (reported, RubricVerifier(parts=(FormatVerifier(),))):
        assert not of("verdicts", (R,), around=around(verifier=heard, referenced=False))
    for role in ("gate", "veto"):
        decided = RubricVerifier(parts=(FormatVerifier(), AnswerVerifier(role=role)))
        assert refused("verdicts", (R,), around=around(verifier=decided, referenced=False))


# ---------------------------------------------------------------- how many there are


def rows(count):
    return "".join(json.dumps({"prompt": f"{at}", "reference": "1"}) + "\n" for at in range(count))


def counted(**more):
    return counting.prompts(Pipeline.model_validate(_pipeline(**more)), files=True)


def _pipeline(**prompts):
    return {
        "name": "x",
        "prompts": {"train": prompts},
        "stages": [{"name": "only", "recipe": {"kind": "grpo"}, "steps": 1}],
    }


def test_prompts_are_counted_without_being_read(tmp_path):
    (tmp_path / "a.jsonl").write_text(rows(7))
    (tmp_path / "b.jsonl").write_text(rows(5).rstrip("\n"))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(rows(3).encode()))
    pq.write_table(pa.table({"prompt": ["a"] * 11, "reference": ["1"] * 11}), tmp_path / "d.parquet")
    assert counted(kind="jsonl", path=str(tmp_path / "a.jsonl")) == 7
    assert counted(kind="jsonl", path=str(tmp_path / "a.jsonl"), count=4) == 4
    assert counted(kind="jsonl", path=str(tmp_path / "b.jsonl")) == 5
    assert counted(kind="jsonl", path=str(tmp_path)) == 15
    assert counted(kind="parquet", path=str(tmp_path / "d.parquet")) == 11
    assert counted(kind="arithmetic", count=32) == 32
    assert counted(kind="jsonl", path=str(tmp_path / "none.jsonl")) is None
    assert counted(kind="jsonl", path=str(tmp_path / "none.jsonl"), count=9) == 9


def test_a_file_too_long_to_count_is_unknown(tmp_path):
    with (tmp_path / "long.jsonl").open("wb") as file:
        file.truncate(counting.MOST_BYTES + 2 * counting.PIECE)
    assert counted(kind="jsonl", path=str(tmp_path / "long.jsonl")) is None


def test_the_truncated_and_the_broken_are_unknown(tmp_path):
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(rows(999).encode())[:-20])
    (tmp_path / "no.parquet").write_bytes(b"PAR1 and nothing of the kind")
    assert counted(kind="jsonl", path=str(tmp_path / "cut.jsonl.gz")) is None
    assert counted(kind="parquet", path=str(tmp_path / "no.parquet")) is None


# ---------------------------------------------------------------- by key


def lines(tmp_path, stage, more=""):
    path = tmp_path / "bad.yaml"
    path.write_text(f"name: bad\n{more}stages:\n  - {{name: one, steps: 30, {stage}}}\n")
    with pytest.raises(BadInput) as caught:
        read(path)
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.lines]


@pytest.mark.parametrize(
    ("stage", "more", "expected"),
    [
        (
            "recipe: {kind: relift, size: 33}",
            "prompts: {train: {kind: arithmetic, count: 32}}\n",
            "bad.yaml: stages.one.recipe.size: data of demonstrations: buffer.size is larger than the data: 32 prompts "
            "can wait (got 33): it never fills; set it to 32 or less",
        ),
        (
            "recipe: {kind: curriculum_grpo, low: 0.9}",
            "",
            "bad.yaml: stages.one.recipe.low: controls: curriculum.low 0.9 is not below curriculum.high 0.8: no solve "
            "rate lies between them; set low below high",
        ),
        (
            "recipe: {kind: bottleneck, lost: 0.95}",
            "",
            "bad.yaml: stages.one.recipe.lost: controls: bottleneck.lost 0.95 is not below bottleneck.mastered 0.9: a "
            "prompt would be lost while it is mastered; set lost below mastered",
        ),
        (
            "recipe: {kind: luffy}, interference: 5",
            "resources: {learner: {zero_stage: 3}}\n",
            "bad.yaml: stages.one.interference: data: no rank holds whole parameters at resources.learner.zero_stage 3 "
            "to take the cosine of (got 5); set it to 0, or zero_stage to 2 or less",
        ),
    ],
)
def test_the_key_at_fault_is_named(tmp_path, stage, more, expected):
    assert expected in lines(tmp_path, stage, more)


def test_a_step_and_the_parameter_that_starves_it_are_named(tmp_path):
    """ExPO's explanations alone, whose coefficient ends at 0 after 20 of 30 steps."""
    (tmp_path / "x.yaml").write_text("name: x\nstages: [{name: one, steps: 30, recipe: {kind: expo}}]\n")
    pipeline, whole = read(tmp_path / "x.yaml"), recipes.load("expo", over=20)
    alone = tuple(one for one in whole.strands if one.name == "explanations")
    for over, count in ((20, 1), (30, 0)):
        found = check(pipeline, [recipes.load("expo", over=over).model_copy(update={"strands": alone})])
        said = [one.line("x.yaml") for one in found]
        assert len([one for one in said if "schedule" in one]) == count
        assert not count or said[0].startswith(
            "x.yaml: stages[0].recipe.end: schedule: step 20 trains nothing: explanations has coefficient 0: step 20 "
            "is past the line; it ends at 0; explanations rests, as its coefficient is 0; end the stage after 20 steps"
        )
    assert not check(pipeline, [whole])


def test_replay_reads_what_earlier_stages_wrote(tmp_path):
    """Steps of replay first: in the first stage, or after one of imitation, there is nothing to replay."""
    past = "recipe: {kind: repo, rollouts: 2, replayed: 2}, steps: 1"
    for before, doubted in (("grpo", False), ("sft", True)):
        path = tmp_path / "two.yaml"
        path.write_text(
            f"name: two\nstages:\n  - {{name: a, steps: 9, recipe: {{kind: {before}}}}}\n  - {{name: b, {past}}}\n"
        )
        verdicts = plan(read(path)).stages[1].verdicts
        assert any(one.rule == "schedule" and one.where == "replayed" for one in verdicts) == doubted


def test_the_neighbours_are_read(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text(
        "name: good\nprompts: {train: {kind: arithmetic, count: 64}}\nresources: {learner: {zero_stage: 2}}\nstages:\n"
        "  - {name: a, steps: 30, recipe: {kind: relift, size: 64}}\n"
        "  - {name: b, steps: 30, recipe: {kind: curriculum_grpo, low: 0.7}}\n"
        "  - {name: c, steps: 30, recipe: {kind: bottleneck, lost: 0.9}}\n"
        "  - {name: d, steps: 30, recipe: {kind: luffy}, interference: 5}\n"
        "  - {name: e, steps: 30, recipe: {kind: mix, imitated: 0.3}}\n"
        "  - {name: f, steps: 30, recipe: {kind: alternate, sft_steps: 2}}\n"
    )
    assert len(read(path).stages) == 6


def test_a_recipe_without_a_file_names_no_parameter():
    assert recipe(R).name == "made-up"
    (found,) = of("data", (R, D), BUFFER, around=around(prompts=8))
    assert found[4] == ("recipe",)
