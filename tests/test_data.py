"""What a run reads: only what its strands ask for, every source's faults at once, and a report of each file."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import Pipeline
from orchestrator.data import Data, read
from policies.bad_input import BadInput
from policies.config import ConstantCredit, GroupCredit, Point, Prepare, Select, Source, Strand, Term, TinyModel
from policies.model_folder import materialise
from policies.tokens import Tokenizer

FILES = {
    "prompts": [{"prompt": "1+1=", "reference": "2"}, {"prompt": "2+2=", "reference": "4"}],
    "worked": [{"prompt": "1+1=", "response": "#2"}, {"prompt": "9+9=", "response": "#18"}],
    "pairs": [{"prompt": "1+1=", "chosen": "#2", "rejected": "#3"}],
    "judged": [{"prompt": "1+1=", "completion": "#2", "label": True}],
}
STAGES = [{"name": "one", "recipe": {"kind": "sft"}, "steps": 1, "sampling": {"max_tokens": 8}}]
DRAWN = Source(producer="demonstration", per_step=1)
TERMS = (Term(name="term", kernel=Point()),)


def strand(source: Source, credit: Any = None) -> Strand:
    return Strand(name="one", source=source, credit=credit or ConstantCredit(), terms=TERMS)


def loaded(folder: Path, *strands: Strand, **changes: Any) -> Data:
    for name, records in FILES.items():
        path = folder / f"{name}.jsonl"
        if not path.exists():
            path.write_text("".join(f"{json.dumps(one)}\n" for one in records))
    content: dict[str, Any] = {
        "name": "data",
        "stages": STAGES,
        "prompts": {"train": {"kind": "jsonl", "path": "prompts.jsonl"}},
        "demonstrations": {"kind": "jsonl", "path": "worked.jsonl"},
        "preferences": {"kind": "jsonl", "path": "pairs.jsonl"},
        "labels": {"kind": "jsonl", "path": "judged.jsonl"},
    }
    pipeline = Pipeline.model_validate(content | changes)
    return read(pipeline, strands, Tokenizer.load(materialise(TinyModel(), folder / "model")), folder)


def test_only_what_a_strand_asks_for_is_read(tmp_path: Path) -> None:
    rollout = loaded(tmp_path, strand(Source(producer="rollout", per_prompt=2)))
    assert (rollout.demonstrations, rollout.preferences, rollout.labels) == (None, None, None)
    assert [prompt.text for prompt in rollout.train] == ["1+1=", "2+2="]
    every = loaded(tmp_path, *(strand(Source(producer=one, per_step=1)) for one in ("demonstration", "preference",
                                                                                    "labelled")))  # fmt: skip
    assert every.demonstrations is not None and every.preferences is not None and every.labels is not None
    assert [(Path(one.path).name, one.read, one.kept) for one in every.reports] == [
        ("prompts.jsonl", 2, 2),
        ("worked.jsonl", 2, 2),
        ("pairs.jsonl", 1, 1),
        ("judged.jsonl", 1, 1),
    ]


@pytest.mark.parametrize(
    "asking",
    [
        strand(Source(producer="demonstration", per_prompt=1)),
        strand(Source(producer="demonstration")),
        strand(DRAWN.model_copy(update={"select": Select(kind="best", keep=1)})),
        strand(DRAWN.model_copy(update={"prepare": Prepare(writer="nobody")})),
        strand(DRAWN, GroupCredit()),
        strand(Source(producer="rollout", per_prompt=1, prefix=True)),
        strand(Source(producer="rollout", per_prompt=1, teacher="{{ prompt }} {{ demonstration }}")),
    ],
)
def test_where_a_strand_asks_by_prompt_each_demonstration_answers_one(tmp_path: Path, asking: Strand) -> None:
    assert loaded(tmp_path, strand(DRAWN)).demonstrations is not None
    with pytest.raises(BadInput, match=r"worked\.jsonl:2: prompt: no such prompt among prompts\.train"):
        loaded(tmp_path, asking)


def test_the_faults_of_every_source_come_at_once(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / f"{name}.jsonl").write_text('{"prompt": 5, "x": 1}\n')
    with pytest.raises(BadInput) as caught:
        loaded(tmp_path, *(strand(Source(producer=one, per_step=1)) for one in ("preference", "labelled")))
    assert [line.replace(f"{tmp_path}/", "").split(": ")[0] for line in caught.value.lines] == [
        "prompts.jsonl:1",
        "pairs.jsonl:1",
        "judged.jsonl:1",
    ]


def test_skipped_rows_are_in_the_report_that_the_ledger_gets(tmp_path: Path) -> None:
    rows = [*FILES["prompts"], {"prompt": None, "reference": "x"}, {"prompt": "1+" * 70, "reference": "0"}]
    (tmp_path / "prompts.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    source = {"kind": "jsonl", "path": "prompts.jsonl", "on_bad_row": "skip"}
    found = loaded(tmp_path, strand(Source(producer="rollout", per_prompt=1)), prompts={"train": source})
    (report,) = found.reports
    assert (len(found.train), report.read, report.kept, report.lost) == (2, 4, 2, 2)
    told = json.loads(json.dumps(report.bad))
    assert [place.rpartition(":")[2] for place, _ in told] == ["3", "4"]
    assert "not a text (got 'None')" in told[0][1] and "prompt of 140 tokens" in told[1][1]
