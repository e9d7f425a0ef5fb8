"""Prompt sources: what they give, and what they refuse with which words."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator import prompts
from orchestrator.config import ArithmeticPrompts, JsonlPrompts, ParquetPrompts, TaskPrompts
from policies.bad_input import BadInput
from policies.config import TinyModel
from policies.model_folder import materialise
from policies.tokens import Tokenizer
from teachers.draws import draw


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(materialise(TinyModel(), tmp_path_factory.mktemp("tiny")))


def load(source, tokenizer, base=Path(), key="prompts.train", context=128, max_tokens=64):
    return prompts.load(source, tokenizer, base=base, context=context, max_tokens=max_tokens, key=key)


def rows(folder: Path, *records: object, name: str = "data.jsonl") -> JsonlPrompts:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / name).write_text("\n".join(lines) + "\n" if lines else "")
    return JsonlPrompts(path=name)


def refused(*args, **kwargs) -> tuple[str, ...]:
    with pytest.raises(BadInput) as caught:
        load(*args, **kwargs)
    return caught.value.lines


# ---------------------------------------------------------------- arithmetic


def test_arithmetic_references_are_the_answers(tokenizer):
    found = load(ArithmeticPrompts(digits=(1, 2, 3), count=600, seed=3), tokenizer)
    assert len({p.text for p in found}) == len({p.id for p in found}) == 600
    for prompt in found:
        a, sign, b = re.fullmatch(r"(\d+)([+-])(\d+)=", prompt.text).groups()
        answer = int(a) + int(b) if sign == "+" else int(a) - int(b)
        assert json.loads(prompt.reference) == str(answer)
        assert answer >= 0
        assert prompt.family == f"{max(len(a), len(b))}-digit{sign}"
        assert tokenizer.decode(prompt.tokens) == prompt.text
    assert {p.family for p in found} >= {"3-digit+", "3-digit-", "2-digit+"}


def test_arithmetic_is_the_same_again_and_another_with_another_seed(tokenizer):
    def texts(seed):
        return [p.text for p in load(ArithmeticPrompts(count=50, seed=seed), tokenizer)]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_generated_probe_never_shares_a_problem_with_train(tokenizer):
    source = ArithmeticPrompts(digits=(2,), count=900)
    train, probe = load(source, tokenizer), load(source, tokenizer, key="prompts.probe")
    prompts.disjoint(train, probe)
    assert not {p.text for p in train} & {p.text for p in probe}
    assert not {p.id for p in train} & {p.id for p in probe}


def test_an_exhausted_source_says_how_many_there_are(tokenizer):
    (line,) = refused(ArithmeticPrompts(digits=(1,), count=5000), tokenizer)
    assert line.startswith("prompts.train.count: this source gave only ")
    assert "(got 5000); lower count" in line
    held = re.search(r"only (\d+)", line)
    assert 100 < int(held.group(1)) < 155  # 100 sums and 55 differences, less one in eight


# ---------------------------------------------------------------- files


def test_jsonl_keeps_any_json_reference(tmp_path, tokenizer):
    source = rows(tmp_path, {"prompt": "1+1=", "reference": {"cases": [1, None]}}, {"prompt": "2", "reference": "4"})
    first, second = load(source, tokenizer, tmp_path)
    assert json.loads(first.reference) == {"cases": [1, None]}
    assert json.loads(second.reference) == "4"
    assert (first.id, second.id) == ("train-0", "train-1")


def test_jsonl_reads_ids_families_and_a_count(tmp_path, tokenizer):
    records = [{"prompt": f"{i}", "reference": "", "id": f"row{i}", "family": "hard"} for i in range(5)]
    found = load(rows(tmp_path, *records).model_copy(update={"count": 3}), tokenizer, tmp_path)
    assert [p.id for p in found] == ["row0", "row1", "row2"]
    assert {p.family for p in found} == {"hard"}


def test_every_bad_row_is_named_at_once(tmp_path, tokenizer):
    source = rows(tmp_path, '{"prompt": "1+1=",', "[1]", {"prompt": "3", "reference": "3"}, {"promt": "4"})
    first, second, third = refused(source, tokenizer, tmp_path)
    path = tmp_path / "data.jsonl"
    assert first.startswith(f"{path}:1: not JSON: ")
    assert """(got '{"prompt": "1+1=",'); write one JSON object a line""" in first
    assert second.startswith(f"{path}:2: not a JSON object (got '[1]')")
    assert third.startswith(f"{path}:4: no columns 'prompt', 'reference' (got promt); did you mean 'promt'?")


def test_a_prompt_that_is_no_text_and_ids_that_repeat(tmp_path, tokenizer):
    source = rows(
        tmp_path,
        {"prompt": 5, "reference": "5", "id": "a"},
        {"prompt": "", "reference": "5"},
        {"prompt": "6", "reference": "6", "id": "b"},
        {"prompt": "7", "reference": "7", "id": "b"},
        '{"prompt": "\\ud800", "reference": "8"}',
    )
    number, empty, surrogate, twice = refused(source, tokenizer, tmp_path)
    assert "data.jsonl:1: prompt: not a text (got '5')" in number
    assert "data.jsonl:2: prompt: not a text (got '')" in empty
    assert "data.jsonl:4: id: stands already at" in twice and "data.jsonl:3 (got 'b')" in twice
    assert "data.jsonl:5: prompt: holds a lone surrogate at 0" in surrogate


def test_over_long_prompts_are_all_named_with_their_lengths(tmp_path, tokenizer):
    source = rows(tmp_path, *({"prompt": "1+" * n, "reference": "0"} for n in (10, 33, 40)))
    first, second = refused(source, tokenizer, tmp_path)
    assert "data.jsonl:2: prompt of 66 tokens, but only 64 fit (context 128 less max_tokens 64)" in first
    assert "data.jsonl:3: prompt of 80 tokens" in second
    assert "lower sampling.max_tokens, or raise model.context" in first


def test_text_that_the_tokenizer_does_not_know(tmp_path, tokenizer):
    (line,) = refused(rows(tmp_path, {"prompt": "What IS it?", "reference": "0"}), tokenizer, tmp_path)
    assert "data.jsonl:1: the tokenizer has no token for 'ISW'" in line


def test_at_most_twenty_faults_are_printed(tmp_path, tokenizer):
    lines = refused(rows(tmp_path, *["nonsense"] * 50), tokenizer, tmp_path)
    assert len(lines) == 21
    assert lines[-1] == "... and 30 more faults of the same input"


def test_an_empty_and_an_absent_file(tmp_path, tokenizer):
    (line,) = refused(rows(tmp_path), tokenizer, tmp_path)
    assert "data.jsonl: prompts.train.path: the file has no rows" in line
    (line,) = refused(JsonlPrompts(path="dta.jsonl"), tokenizer, tmp_path)
    assert "prompts.train.path: no such file" in line and "did you mean 'data.jsonl'?" in line
    (tmp_path / "empty").mkdir()
    (line,) = refused(JsonlPrompts(path="empty"), tokenizer, tmp_path)
    assert "prompts.train.path: is a folder without *.jsonl, *.jsonl.gz" in line


def test_bytes_that_are_not_utf8(tmp_path, tokenizer):
    (tmp_path / "data.jsonl").write_bytes(b'{"prompt": "\xff", "reference": "1"}\n')
    (line,) = refused(JsonlPrompts(path="data.jsonl"), tokenizer, tmp_path)
    assert "data.jsonl:1: " in line and "not UTF-8 at byte 12" in line


def test_parquet_gives_the_same_prompts_as_jsonl(tmp_path, tokenizer):
    records = [{"prompt": f"{i}+1=", "reference": str(i + 1), "id": f"p{i}"} for i in range(9)]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "data.parquet")
    ours = load(ParquetPrompts(path="data.parquet", count=4), tokenizer, tmp_path)
    theirs = load(rows(tmp_path, *records[:4]), tokenizer, tmp_path)
    assert [(p.id, p.text, p.reference) for p in ours] == [(p.id, p.text, p.reference) for p in theirs]


def test_parquet_faults(tmp_path, tokenizer):
    pq.write_table(pa.table({"question": ["1"], "answer": ["1"]}), tmp_path / "data.parquet")
    (line,) = refused(ParquetPrompts(path="data.parquet", prompt="qestion", reference="answer"), tokenizer, tmp_path)
    assert "no column 'qestion' (got question, answer); did you mean 'question'?" in line
    pq.write_table(pa.table({"prompt": pa.array([], pa.string()), "reference": pa.array([], pa.string())}),
                   tmp_path / "empty.parquet")  # fmt: skip
    (line,) = refused(ParquetPrompts(path="empty.parquet"), tokenizer, tmp_path)
    assert "the file has no rows" in line
    (tmp_path / "text.parquet").write_text("not parquet")
    (line,) = refused(ParquetPrompts(path="text.parquet"), tokenizer, tmp_path)
    assert "not readable as Parquet" in line
    pq.write_table(pa.table({"prompt": [None, "2"], "reference": [b"1", b"2"]}), tmp_path / "odd.parquet")
    first, second = refused(ParquetPrompts(path="odd.parquet"), tokenizer, tmp_path)
    assert "row 1: prompt: not a text (got 'None')" in first
    assert "row 2: reference: bytes has no JSON form" in second


def test_held_out_prompts_that_stand_in_train_are_refused(tmp_path, tokenizer):
    train = load(rows(tmp_path, {"prompt": "1+1=", "reference": "2"}, {"prompt": "5", "reference": ""}),
                 tokenizer, tmp_path)  # fmt: skip
    held = rows(tmp_path, {"prompt": "1+1= ", "reference": "2"}, name="probe.jsonl")
    probe = load(held, tokenizer, tmp_path, key="prompts.probe")
    with pytest.raises(BadInput, match=r"probe-0 also stands in prompts.train as train-0"):
        prompts.disjoint(train, probe)


# ---------------------------------------------------------------- reasoning-gym


def test_reasoning_gym_gives_entries_that_its_scorer_reads(tokenizer):
    import reasoning_gym

    class Bytes:
        """Any text: the tiny model's characters leave out capitals."""

        def prompt(self, text):
            return list(text.encode())

    source = TaskPrompts(dataset="chain_sum", count=20, seed=5, options={"min_terms": 2, "max_terms": 3},
                         instruction="Answer after ####.")  # fmt: skip
    found = load(source, Bytes(), context=400)
    judge = reasoning_gym.create_dataset("chain_sum", size=1)
    for prompt in found:
        entry = json.loads(prompt.reference)
        assert prompt.text == entry["question"] + "\n\nAnswer after ####."
        assert eval(entry["metadata"]["expression"]) == int(entry["answer"])
        assert judge.score_answer(entry["answer"], entry) == 1.0
    probe = load(source, Bytes(), context=400, key="prompts.probe")
    prompts.disjoint(found, probe)


def test_reasoning_gym_faults(tokenizer):
    (line,) = refused(TaskPrompts(dataset="chain_sums"), tokenizer)
    assert line.startswith("prompts.train.dataset: reasoning-gym has no such data set (got 'chain_sums')")
    assert "did you mean 'chain_sum'?" in line
    (line,) = refused(TaskPrompts(dataset="chain_sum", options={"min_trms": 2}), tokenizer)
    assert "prompts.train.options: reasoning-gym refuses them" in line and "min_trms" in line


# ---------------------------------------------------------------- draws


@pytest.mark.parametrize(("total", "count"), [(10, 3), (7, 7), (64, 32), (5, 1)])
def test_an_epoch_draws_nothing_twice(total, count):
    steps = total // count
    for epoch in range(3):
        drawn = [i for step in range(epoch * steps, (epoch + 1) * steps) for i in draw(total, step, count, seed=4)]
        assert len(drawn) == len(set(drawn)) == steps * count
        assert set(drawn) <= set(range(total))


def test_a_step_that_wants_more_than_there_is_repeats_evenly():
    drawn = draw(5, 3, 12, seed=0)
    assert sorted(drawn.count(i) for i in range(5)) == [2, 2, 2, 3, 3]


def test_draws_depend_on_seed_and_epoch_alone():
    assert draw(50, 11, 8, seed=-3) == draw(50, 11, 8, seed=-3)
    assert draw(50, 11, 8, seed=1) != draw(50, 11, 8, seed=2)
    assert draw(8, 0, 8, seed=1) != draw(8, 1, 8, seed=1)


def test_at_step_gives_the_prompts_drawn(tokenizer):
    found = load(ArithmeticPrompts(count=10), tokenizer)
    assert [p.id for p in prompts.at_step(found, 2, 4, seed=9)] == [found[i].id for i in draw(10, 2, 4, 9)]
