"""Every example of docs/data.md loads, as JSON lines and as Parquet."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from orchestrator.config import Pipeline
from orchestrator.data import Data, read
from policies.config import Source, Strand
from policies.tokens import Tokenizer
from tests.chat_folder import chat_folder

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "data.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```\n```jsonl\n(.*?)```", PAGE, re.DOTALL)
STRANDS = [
    Strand(name=producer, source=Source(producer=producer, per_step=2), terms=())
    for producer in ("demonstration", "preference", "labelled")
]
STAGES = [{"name": "one", "recipe": {"kind": "sft"}, "steps": 1}]


def loaded(folder: Path, named: dict[str, Any]) -> Data:
    pipeline = Pipeline.model_validate({"name": "docs", "stages": STAGES, "demonstrations": None, **named})
    return read(pipeline, STRANDS, Tokenizer.load(chat_folder(folder / "model")), folder)


def of(data: Data, named: dict[str, Any]) -> list[Any]:
    (key,) = named
    found = data.train if key == "prompts" else getattr(data, "demonstrations" if key == "demonstrations" else key)
    return list(found if key == "prompts" else found.at_step(0, 2, seed=0))


def test_the_page_has_every_form() -> None:
    assert len(EXAMPLES) == PAGE.count("```yaml") == PAGE.count("```jsonl") >= 11
    assert all(len(rows.splitlines()) == 2 for _, rows in EXAMPLES)


@pytest.mark.parametrize(("config", "rows"), EXAMPLES, ids=[rows.splitlines()[0][:30] for _, rows in EXAMPLES])
def test_an_example_of_the_page_loads(tmp_path: Path, config: str, rows: str) -> None:
    named = yaml.safe_load(config)
    source = named["prompts"]["train"] if "prompts" in named else next(iter(named.values()))
    (tmp_path / source["path"]).write_text(rows)
    data = loaded(tmp_path, named)
    report = data.reports[0]
    assert (report.read, report.kept) == (2, 2)
    assert len(of(data, named)) == 2

    records = [json.loads(line) for line in rows.splitlines()]
    for number, record in enumerate(records):  # a Parquet column has one type: each row is a shard of its own
        pq.write_table(pa.Table.from_pylist([record]), tmp_path / f"rows-{number}.parquet")
    source.update(kind="parquet", path="rows-*.parquet")
    again = loaded(tmp_path, named)
    assert again.reports[0].kept == 2
    assert [_tokens(one) for one in of(again, named)] == [_tokens(one) for one in of(data, named)]


def _tokens(drawn: Any) -> list[list[int]]:
    return [one.tokens.tolist() for one in (drawn if isinstance(drawn, tuple) else (drawn,))]
