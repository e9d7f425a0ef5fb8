"""Teachers: what they write is recomputed here from the prompt's text, and judged by the verifier."""

import json
import math
import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import verifiers
from policies.bad_input import BadInput
from policies.config import TinyModel
from policies.model_folder import CHARACTERS, materialise
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import FinishReason, Origin, Producer, ScoreEntry
from teachers import careless, chain_solver
from teachers.config import (
    CarelessTeacher,
    ChainSolver,
    JsonlDemonstrations,
    ModelDemonstrations,
    ParquetDemonstrations,
)
from teachers.demonstrations import load
from teachers.from_model import write

NUMBERS = st.integers(1, 5).flatmap(lambda digits: st.integers(0, 10**digits - 1))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(materialise(TinyModel(), tmp_path_factory.mktemp("tiny")))


def problem(a: int, b: int, sign: str) -> tuple[str, int]:
    if sign == "-" and a < b:
        a, b = b, a
    return f"{a}{sign}{b}=", a + b if sign == "+" else a - b


def prompts_of(tokenizer: Tokenizer, *texts: str) -> tuple[Prompt, ...]:
    return tuple(Prompt(f"p{i}", text, tokenizer.prompt(text), json.dumps("0")) for i, text in enumerate(texts))


def carries(text: str) -> int:
    """Carries or borrows of the right working, counted by comparing tails: independent of the teacher."""
    a, sign, b = re.fullmatch(r"(\d+)([+-])(\d+)=", text).groups()
    places = range(1, max(len(a), len(b)) + 1)
    if sign == "+":
        return sum(int(a) % 10**p + int(b) % 10**p >= 10**p for p in places)
    return sum(int(a) % 10**p < int(b) % 10**p for p in places)


# ---------------------------------------------------------------- careless


def test_the_scratchpad_as_documented():
    assert careless.work("346+77=", 0.0, random.Random(0)) == "670=13;471=12;301=04;#423"
    assert careless.work("423-77=", 0.0, random.Random(0)) == "370=16;271=14;401=03;#346"
    assert careless.work("999+1=", 0.0, random.Random(0)).endswith("#1000")
    assert careless.work("346+77=", 1.0, random.Random(0)) == "670=13;470=11;300=03;#313"


@given(NUMBERS, NUMBERS, st.sampled_from("+-"), st.integers())
def test_a_careful_teacher_is_always_right(a, b, sign, seed):
    text, answer = problem(a, b, sign)
    response = careless.work(text, 0.0, random.Random(seed))
    assert (
        verifiers.build({"kind": "rubric", "parts": [{"kind": "answer"}, {"kind": "format"}]})
        .score(text, response, str(answer))
        .passed
    )
    assert set(response) <= set(CHARACTERS)


@given(NUMBERS, NUMBERS, st.sampled_from("+-"), st.floats(0, 1), st.integers())
def test_every_column_is_right_given_what_it_reads(a, b, sign, carelessness, seed):
    """Careless or not, a step follows from its own line, and the answer from the steps: only a carry is ever lost."""
    text, answer = problem(a, b, sign)
    response = careless.work(text, carelessness, random.Random(seed))
    *steps, final = response.split(";")
    digits, before = "", 0
    for step in steps:
        above, below, carry, out, digit = map(int, re.fullmatch(r"(\d)(\d)(\d)=(\d)(\d)", step).groups())
        value = above + below + carry if sign == "+" else above - below - carry
        assert value == (10 * out + digit if sign == "+" else digit - 10 * out)
        assert carry in (before, 0)
        digits, before = f"{digit}{digits}", out
    assert int(final[1:]) in (int(f"{before}{digits}"), int(digits))
    wrong = int(final[1:]) != answer
    assert not wrong or carries(text) > 0
    if carelessness == 1.0:
        assert wrong == (carries(text) > 0)


@pytest.mark.parametrize("carelessness", [0.15, 0.3])
def test_the_share_of_wrong_answers_is_the_expected_one(carelessness):
    draws = random.Random(5)
    wrong, expected, variance, total = 0, 0.0, 0.0, 6000
    for _ in range(total):
        text, answer = problem(draws.randrange(100, 1000), draws.randrange(100, 1000), draws.choice("+-"))
        wrong += not careless.work(text, carelessness, draws).endswith(f"#{answer}")
        chance = 1 - (1 - carelessness) ** carries(text)
        expected += chance
        variance += chance * (1 - chance)
    assert abs(wrong - expected) < 4 * math.sqrt(variance)
    assert 0.1 < wrong / total < 0.5


def test_a_demonstration_knows_who_wrote_it(tokenizer):
    prompts = prompts_of(tokenizer, "346+77=", "5-4=")
    found = load(CarelessTeacher(carelessness=0), prompts, tokenizer, base=Path(), seed=1, context=128)
    one = found.for_prompt("p0")
    assert one is not None and found.for_prompt("p0", 1) is None and found.for_prompt("p9") is None
    assert tokenizer.decode(one.tokens) == one.text == "670=13;471=12;301=04;#423"
    assert one.tokens[-1] == tokenizer.eos_id and len(one.tokens) == 26
    assert tokenizer.decode(one.train_context) == "346+77="
    assert (one.producer, one.model, one.version) == (Producer.DEMONSTRATION, "careless", -1)
    assert one.finish_reason == FinishReason.GIVEN
    assert set(one.origin) == {Origin.DEMONSTRATION} and set(one.token_version) == {-1}
    assert one.train_mask.all() and np.isnan(one.behavior_logps).all()


def test_careless_demonstrations_depend_on_seed_and_prompt_alone(tokenizer):
    texts = [problem(*random.Random(i).sample(range(100, 1000), 2), "+")[0] for i in range(40)]
    every = prompts_of(tokenizer, *texts)

    def written(prompts, seed):
        found = load(CarelessTeacher(carelessness=0.5), prompts, tokenizer, base=Path(), seed=seed, context=128)
        return {t.prompt_id: t.text for t in found.flat}

    assert written(every, 1) == written(every, 1)
    assert written(every, 1) != written(every, 2)
    assert written(every[20:], 1).items() <= written(every, 1).items()


def test_demonstrations_of_a_step(tokenizer):
    prompts = prompts_of(tokenizer, *(f"{i}+1=" for i in range(10)))
    found = load(CarelessTeacher(), prompts, tokenizer, base=Path(), seed=1, context=128)
    epoch = [t.id for step in range(2) for t in found.at_step(step, 5, seed=3)]
    assert len(set(epoch)) == len(found) == 10
    assert [t.id for t in found.at_step(1, 5, seed=3)] == epoch[5:]


def test_what_a_careless_teacher_cannot_work_is_refused_all_at_once(tokenizer):
    prompts = prompts_of(tokenizer, "1*2=", "3-5=", "1+1=")
    with pytest.raises(BadInput) as caught:
        load(CarelessTeacher(), prompts, tokenizer, base=Path(), seed=1, context=128)
    first, second = caught.value.lines
    assert "demonstrations: prompt p0: the careless teacher works a+b= and a-b= alone (got '1*2=')" in first
    assert "subtracts only the smaller from the larger (got '3-5=')" in second


# ---------------------------------------------------------------- chain solver


def test_chain_sums_are_right_and_pass_reasoning_gym():
    import reasoning_gym

    tasks = reasoning_gym.create_dataset(
        "chain_sum", size=60, seed=2, min_terms=1, max_terms=4, max_digits=2, allow_negation=True
    )
    verifier = verifiers.build({"kind": "reasoning_gym", "dataset": "chain_sum", "marker": "####", "workers": 1})
    for entry in tasks:
        response = chain_solver.work(entry["question"], json.dumps(entry), "####")
        assert response == chain_solver.work(entry["question"], "{}", "####"), "the text alone gives the same"
        *steps, final = response.split("\n")
        assert int(final.removeprefix("#### ")) == eval(entry["metadata"]["expression"])
        for step in steps:
            left, right = step.split(" = ")
            assert eval(left) == int(right)
        assert len(steps) == entry["metadata"]["num_terms"] - 1
        assert verifier.score("", response, entry).value == 1.0
    verifier.close()


def test_a_chain_is_found_in_a_question_with_an_instruction():
    assert (
        chain_solver.work("What is 4 - 1 + 6 =\n\nAnswer after ####.", "null", "####") == "4 - 1 = 3\n3 + 6 = 9\n#### 9"
    )
    for text in ("Tell a joke.", "3 * 4 + 5 ="):
        with pytest.raises(ValueError, match="finds no sum"):
            chain_solver.work(text, "null", "####")


def test_the_chain_solver_loads_as_demonstrations(tokenizer):
    found = load(ChainSolver(marker="#"), prompts_of(tokenizer, "4 - 1 + 6 ="), tokenizer,
                 base=Path(), seed=0, context=128)  # fmt: skip
    assert [t.text for t in found.flat] == ["4 - 1 = 3\n3 + 6 = 9\n# 9"]


# ---------------------------------------------------------------- files


def jsonl(folder: Path, *records: object) -> JsonlDemonstrations:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / "demos.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return JsonlDemonstrations(path="demos.jsonl")


def test_files_give_responses_by_prompt(tmp_path, tokenizer):
    prompts = prompts_of(tokenizer, "1+1=", "2+2=")
    records = [
        {"prompt": "2+2=", "response": "#4", "id": "two"},
        {"prompt": "1+1=", "response": "#2", "id": "one"},
        {"prompt": "2+2=", "response": "so #4", "id": "two"},
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "demos.parquet")
    for config in (jsonl(tmp_path, *records), ParquetDemonstrations(path="demos.parquet")):
        found = load(config, prompts, tokenizer, base=tmp_path, seed=0, context=128)
        assert [found.for_prompt("p1", i).text for i in range(2)] == ["#4", "so #4"]
        assert found.for_prompt("p1", 2) is None
        assert len({t.id for t in found.flat}) == len(found) == 3
        assert {t.model for t in found.flat} == {"demos"}


def faults(config, tokenizer, folder, context=128):
    prompts = prompts_of(tokenizer, "1+1=", "2+2=")
    with pytest.raises(BadInput) as caught:
        load(config, prompts, tokenizer, base=folder, seed=0, context=context)
    return caught.value.lines


def test_bad_demonstrations_are_named_with_their_rows(tmp_path, tokenizer):
    first, second = faults(
        jsonl(
            tmp_path,
            {"prompt": "1+1=", "response": 2},
            {"prompt": "1+1=", "response": "#2"},
            {"prompt": "2+2=", "response": ""},
        ),
        tokenizer,
        tmp_path,
    )
    assert "demos.jsonl:1: response: not a text (got '2')" in first
    assert "demos.jsonl:3: response: not a text (got '')" in second


def test_a_row_of_another_prompt_is_drawn_for_steps_and_refused_where_a_strand_asks_by_prompt(tmp_path, tokenizer):
    records = [{"prompt": "9+9=", "response": "#18"}, {"prompt": "1+1=", "response": "#2"}]
    prompts = prompts_of(tokenizer, "1+1=", "2+2=")
    found = load(jsonl(tmp_path, *records), prompts, tokenizer, base=tmp_path, seed=0, context=128)
    assert {t.text for t in found.at_step(0, 2, seed=0)} == {"#18", "#2"}
    assert [t.prompt_id for t in found.flat] == ["demos-0", "p0"]
    assert found.for_prompt("p0").text == "#2"
    with pytest.raises(BadInput) as caught:
        found.refuse_strangers()
    (line,) = caught.value.lines
    assert "demos.jsonl:1: prompt: no such prompt among prompts.train (got '9+9='), and a strand asks by prompt" in line


def test_responses_that_do_not_fit_or_cannot_be_written(tmp_path, tokenizer):
    first, second = faults(
        jsonl(tmp_path, {"prompt": "1+1=", "response": "1" * 60}, {"prompt": "1+1=", "response": "ZWEI"}),
        tokenizer,
        tmp_path,
        context=64,
    )
    assert "demos.jsonl:1: response of 61 tokens, but only 60 fit (context 64 less the prompt's 4)" in first
    assert "demos.jsonl:2: the tokenizer has no token for 'EIWZ'" in second


def test_a_broken_row_a_missing_column_and_an_empty_file(tmp_path, tokenizer):
    (line,) = faults(jsonl(tmp_path, '{"prompt"'), tokenizer, tmp_path)
    assert "demos.jsonl:1: not JSON" in line
    (line,) = faults(jsonl(tmp_path, {"prompt": "1+1=", "respones": "#2"}), tokenizer, tmp_path)
    assert "no column 'response' (got prompt, respones); did you mean 'respones'?" in line
    (line,) = faults(jsonl(tmp_path), tokenizer, tmp_path)
    assert "demos.jsonl: demonstrations.path: the file has no rows" in line


# ---------------------------------------------------------------- a model


@dataclass
class Answer:
    tokens: np.ndarray
    logps: np.ndarray
    text: str
    finish_reason: FinishReason = FinishReason.STOP
    seconds: float = 0.1


async def written(tokenizer, texts, values, **options):
    """Two prompts, len(texts) / 2 samples each, judged `values` (None: no verdict)."""
    prompts = prompts_of(tokenizer, "1+1=", "2+2=")
    config = ModelDemonstrations(model=TinyModel(), samples=len(texts) // 2, **options)
    asked = []

    async def generate(wanted):
        asked.extend(wanted)
        return [Answer(tokenizer.response(t), np.full(len(t) + 1, -0.5, np.float32), t) for t in texts]

    async def judge(items):
        assert [item[2] for item in items] == texts
        return [
            (ScoreEntry("reward", math.nan if v is None else v, None if v is None else v == 1.0,
                        "timeout" if v is None else "ok"),)
            for v in values
        ]  # fmt: skip

    return await write(config, prompts, generate, judge, seed=3), asked


async def test_a_model_s_best_passing_responses_are_kept(tokenizer):
    found, asked = await written(tokenizer, ["#1", "#2", "x", "#5", "#6", "#7"], [0.2, 1.0, 1.0, 0.0, 0.5, None])
    assert [(t.prompt_id, t.text) for t in found] == [("p0", "#2")]
    one = found[0]
    assert (one.producer, one.model, one.version) == (Producer.TEACHER, "tiny-arithmetic", -1)
    assert set(one.origin) == {Origin.TEACHER}
    assert one.behavior_logps.tolist() == [-0.5] * 3
    assert one.scores[0].value == 1.0
    assert len({w.seed for w in asked}) == len({w.id for w in asked}) == 6
    assert {w.temperature for w in asked} == {0.7}
    assert one.seed in {w.seed for w in asked}


async def test_without_only_passed_the_best_scored_stays_and_unknown_ranks_last(tokenizer):
    found, _ = await written(tokenizer, ["#1", "#2", "#3", "#4"], [None, 0.0, 0.5, 0.2], only_passed=False)
    assert [t.text for t in found] == ["#2", "#3"]
