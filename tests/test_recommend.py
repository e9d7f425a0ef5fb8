"""Recommended pipelines: they run as they are, for every bottleneck and whatever there is, and say why."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.available import Available, available_of, brief, parameters_of
from orchestrator.load import read
from orchestrator.notation import parse
from orchestrator.probes.bottleneck import BOTTLENECKS
from orchestrator.recommend import Recommendation, learning_rate, recommend
from orchestrator.recommended_text import text
from orchestrator.run import run
from policies.config import TinyModel
from policies.models import build, save_hf
from tests.diagnosed_cases import RESOURCES, available, combinations, diagnosis, sure
from tests.recipe_runs import MODEL, teacher_folder, write_data
from verifiers.config import RubricVerifier

CASES = (*BOTTLENECKS, "undecided")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Available]:
    folder = tmp_path_factory.mktemp("available")
    write_data(folder)
    held = [{"prompt": f"{a}+{a} =", "reference": str(2 * a)} for a in range(6)]
    (folder / "probe.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    model, other = teacher_folder(folder), folder / "other"
    save_hf(build(folder / "source", TinyModel(**MODEL), seed=23), folder / "source", other)
    yield available(folder, model, other)


def recipes_of(found: Recommendation) -> list[str]:
    assert found.pipeline is not None
    return [stage["recipe"]["kind"] for stage in found.pipeline["stages"]]


@pytest.mark.parametrize("case", CASES)
def test_what_is_recommended_is_legal_whatever_there_is(case: str, everything: Available, tmp_path: Path) -> None:
    seen: set[str] = set()
    for named, has in combinations(everything):
        found = recommend(diagnosis(case), has)
        assert found.pipeline is not None
        written = json.dumps(found.pipeline)
        for name, thing in (("teacher", everything.teacher), ("demonstrations", "demonstrations.jsonl")):
            assert getattr(has, name) or has.earlier or thing not in written, "nothing is asked for that is not there"
        assert ("probe" in found.pipeline["prompts"]) == ("handoff" in found.pipeline)
        if written not in seen:
            path = tmp_path / f"{named}.yaml"
            path.write_text(text(found))
            assert read(path).name == "recommended", "read refuses anything that could not run"
            seen.add(written)


def test_each_bottleneck_has_the_recipes_that_remove_it(everything: Available) -> None:
    bare = replace(everything, demonstrations=None, teacher="", earlier="")
    shown = replace(bare, demonstrations=everything.demonstrations)
    taught = replace(bare, teacher=everything.teacher)
    expected = {
        ("unreached_prefix", "shown"): ["sft", "grpo"],
        ("unreached_prefix", "taught"): ["sequence_distillation", "grpo"],
        ("unreached_prefix", "bare"): ["curriculum_grpo"],
        ("unavailable_action", "shown"): ["luffy"],
        ("unavailable_action", "taught"): ["on_policy_distillation", "grpo"],
        ("unavailable_action", "bare"): ["dapo"],
        ("unreliable", "shown"): ["grpo"],
        ("unreliable", "taught"): ["grpo"],
        ("unreliable", "bare"): ["grpo"],
        ("lost", "shown"): ["bottleneck"],
        ("lost", "taught"): ["on_policy_distillation"],
        ("lost", "bare"): ["exgrpo"],
        ("undecided", "shown"): ["bottleneck"],
        ("undecided", "taught"): ["bottleneck"],
        ("undecided", "bare"): ["exgrpo"],
    }
    there = {"shown": shown, "taught": taught, "bare": bare}
    found = {(case, has): recipes_of(recommend(diagnosis(case), there[has])) for case, has in expected}
    assert found == expected
    restored = recommend(diagnosis("lost"), replace(shown, earlier=everything.earlier))
    assert restored.pipeline is not None
    assert restored.pipeline["stages"][0]["recipe"] == {
        "kind": "on_policy_distillation",
        "teacher": everything.earlier,
    }


def test_nothing_left_to_gain_recommends_harder_prompts_and_no_pipeline(everything: Available) -> None:
    found = recommend(diagnosis("none"), everything)
    assert found.pipeline is None and "harder prompts" in found.told and not found.choices
    assert all(line.startswith("#") for line in text(found).splitlines())


def test_a_scaffold_that_helps_is_trained_in_first(everything: Available) -> None:
    helped = recommend(diagnosis("unreliable"), everything, scaffold_gap=sure(0.3))
    assert recipes_of(helped) == ["context_distillation", "grpo"]
    assert recipes_of(recommend(diagnosis("unreliable"), everything, scaffold_gap=sure(0.02))) == ["grpo"]
    assert recipes_of(recommend(diagnosis("none"), everything, scaffold_gap=sure(0.3))) == ["context_distillation"]


def test_every_choice_stands_under_its_reason(everything: Available) -> None:
    found = recommend(diagnosis("unreached_prefix"), everything)
    lines = text(found).splitlines()
    assert parse(text(found)) == json.loads(json.dumps(found.pipeline)), "the comments change nothing"
    said = " ".join(line.strip().removeprefix("# ") for line in lines if line.strip().startswith("#"))
    for one in found.choices:
        assert one.reason in said, one.key
    assert max(map(len, lines)) <= 120 or everything.train["path"] in max(lines, key=len)


def test_settings_go_with_the_size_of_model_and_data(everything: Available) -> None:
    tiny, large = (learning_rate(size, "off") for size in (10**6, 7 * 10**9))
    assert 5e-4 <= tiny <= 2e-3 and large == pytest.approx(1e-5)
    assert learning_rate(10**6, "on") < 1e-4 and learning_rate(7 * 10**9, "on") == pytest.approx(1e-6)
    found = recommend(diagnosis("unreached_prefix"), replace(everything, prompts=3))
    assert found.pipeline is not None
    assert all(stage["prompts_per_step"] == 3 for stage in found.pipeline["stages"])
    many = recommend(diagnosis("unreached_prefix"), replace(everything, prompts=10**6))
    assert many.pipeline is not None and many.pipeline["stages"][0]["steps"] == 500


def test_a_folders_parameters_are_counted_from_its_headers(everything: Available, tmp_path: Path) -> None:
    folder = Path(everything.teacher)
    model = build(folder, TinyModel(**MODEL), seed=1)
    assert parameters_of(folder) == sum(one.numel() for one in {id(p): p for p in model.parameters()}.values())
    assert parameters_of(tmp_path) == 1_000_000_000, "nobody can tell"


def test_what_a_pipeline_has_is_what_the_next_one_can_draw_on(everything: Available, tmp_path: Path) -> None:
    content = {**dict(recommend(diagnosis("lost"), everything).pipeline or {}), "resources": RESOURCES}
    (tmp_path / "one.yaml").write_text(json.dumps(content))
    pipeline = read(tmp_path / "one.yaml")
    again = available_of(pipeline, Path(everything.teacher), prompts=40)
    assert again.teacher == everything.earlier and again.demonstrations is None
    assert again.train["path"] == everything.train["path"] and again.max_tokens == everything.max_tokens
    assert again.also["resources"] == RESOURCES
    default = read(tmp_path / "one.yaml", ["demonstrations={kind: careless}"], checked=False)
    assert available_of(default, Path(everything.teacher)).demonstrations is None, "it solves arithmetic alone"


def test_a_config_is_written_briefly_with_the_kinds_of_its_parts() -> None:
    rubric = RubricVerifier.model_validate(
        {"kind": "rubric", "parts": [{"kind": "answer"}, {"kind": "format", "pattern": "a+", "name": "shape"}]}
    )
    assert brief(rubric) == {
        "kind": "rubric",
        "parts": [{"kind": "answer"}, {"kind": "format", "pattern": "a+", "name": "shape"}],
    }
    assert RubricVerifier.model_validate(brief(rubric)) == rubric


def started(found: Recommendation, folder: Path, name: str) -> int:
    """The exit code of the recommended pipeline, which is run as it is, for two steps of four prompts a stage."""
    path = folder / f"{name}.yaml"
    path.write_text(text(found))
    assert found.pipeline is not None
    short = [
        f"stages.{one['name']}.{key}" for one in found.pipeline["stages"] for key in ("steps=2", "prompts_per_step=4")
    ]
    return run(path, folder / name, short, in_process=True)


@pytest.mark.parametrize("case", ["unreached_prefix", "undecided"])
def test_what_is_recommended_runs(case: str, everything: Available, tmp_path: Path) -> None:
    assert started(recommend(diagnosis(case), replace(everything, demonstrations=None)), tmp_path, "only") == 0


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_what_is_recommended_runs_whatever_there_is(case: str, everything: Available, tmp_path: Path) -> None:
    ran: dict[str, Any] = {}
    for named, has in combinations(everything):
        found = recommend(diagnosis(case), has, scaffold_gap=sure(0.3) if named == "nothing" else None)
        assert found.pipeline is not None
        key = json.dumps({name: found.pipeline[name] for name in ("stages", "demonstrations", "prompts")})
        if key not in ran:
            ran[key] = started(found, tmp_path, named)
            assert ran[key] == 0, named
