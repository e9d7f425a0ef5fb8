"""`show`, `query` and the summary: what the ledger holds is what a person, a program and a reader get."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from build_run import CONFIG, ENVIRONMENT, HOSTILE, STRANDS, build_run, example
from rich.console import Console
from scipy.stats import binomtest

from orchestrator.ledger import RunLedger
from orchestrator.probes.intervals import wilson
from orchestrator.query import ask, print_answer, query
from orchestrator.report.samples import load, ordered
from orchestrator.report.show import body, show
from orchestrator.report.visible import one_line, visible
from orchestrator.run_directory import RunDirectory
from orchestrator.summary import print_summary, summarise, token_shares
from policies.bad_input import BadInput
from policies.config import TinyModel
from policies.model_folder import materialise
from policies.tokens import Tokenizer
from policies.trajectory import Origin


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return build_run(tmp_path_factory.mktemp("runs") / "run").root


# ---------------------------------------------------------------- show


def test_show_prints_verdicts_and_obeys_no_model_text(root, capsys):
    show(root, 7, limit=9)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "<script>alert('x')</script>\\x1b[31m\\x07 & \\u202ereversed" in text
    assert "reward = timeout (answer): no verdict within 5 s" in text
    assert "step 7, stage braid, 7 trajectories" in text
    assert "■ learner ■ demonstration" in text


def test_show_as_json_is_one_document(root, capsys):
    show(root, 7, limit=99, as_json=True)
    rows = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert len(rows) == 7
    hostile = rows[-1]
    assert hostile["text"] == HOSTILE
    assert hostile["reward"] is None
    assert hostile["scores"][0]["status"] == "timeout"
    assert hostile["segments"] == [{"origin": "learner", "text": HOSTILE, "tokens": 6}]


def test_show_takes_the_newest_step_a_strand_and_an_order(root):
    run = RunDirectory.open(root)
    assert {one.step for one in load(run)} == {16}
    assert {one.strand for one in load(run, 6, "imitate")} == {"imitate"}
    rewards = [one.reward for one in ordered(load(run, 7), "-reward")]
    assert rewards[:-1] == sorted(rewards[:-1], reverse=True)
    assert math.isnan(rewards[-1])
    assert [one.advantage for one in ordered(load(run, 7), "advantage")][:2] == [-1.0, -1.0]


def test_show_says_which_steps_and_strands_there_are(root, tmp_path):
    with pytest.raises(BadInput, match="steps 1 to 16"):
        show(root, 99)
    with pytest.raises(BadInput, match="it has imitate, on-policy"):
        show(root, 6, strand="onpolicy")
    with pytest.raises(BadInput, match="no trajectories yet"):
        show(RunDirectory.create(tmp_path / "new", CONFIG, ENVIRONMENT).root)


def mixed_run(tmp_path, *, tokenizer: bool):
    """A run with one response: `12=` is a hint, `34` the learner's."""
    run = RunDirectory.create(tmp_path / "mixed", CONFIG, ENVIRONMENT)
    folder = materialise(TinyModel(), tmp_path / "model")
    ids = Tokenizer.load(folder).encode("12=34")
    given = example("mixed", length=len(ids), text="12=34", version=4)
    origin = np.array([Origin.HINT] * 3 + [Origin.LEARNER] * 2, np.int8)
    version = np.array([-1, -1, -1, 4, 5], np.int32)
    logps = np.array([np.nan] * 3 + [-0.5, -1.5], np.float32)
    one = replace(given.trajectory, tokens=ids, origin=origin, token_version=version, behavior_logps=logps)
    with RunLedger(run, STRANDS) as ledger:
        ledger.add(1, [replace(given, trajectory=one)], "braid")
    if tokenizer:
        folder.rename(run.root / "model")
    return run


def test_mixed_tokens_are_cut_by_writer(tmp_path):
    (one,) = load(mixed_run(tmp_path, tokenizer=True))
    assert [(segment.origin, segment.text) for segment in one.segments] == [
        (Origin.HINT, "12="),
        (Origin.LEARNER, "34"),
    ]
    assert one.segments[1].note == "learner, 2 tokens, versions 4 to 5, mean log-probability -1.00"
    assert len({str(span.style) for span in body(one).spans}) == 2


def test_without_a_tokenizer_mixed_text_is_not_coloured_by_guess(tmp_path):
    (one,) = load(mixed_run(tmp_path, tokenizer=False))
    assert [(segment.origin, segment.text) for segment in one.segments] == [(None, "12=34")]
    assert "hint, 3 tokens; learner, 2 tokens" in body(one).plain


def test_visible_shows_what_a_terminal_would_obey_and_keeps_what_people_write():
    assert visible("\x1b]0;title\x07\x9b2J\r\b") == "\\x1b]0;title\\x07\\x9b2J\\x0d\\x08"
    assert visible("a\u202eb\u2066c\ufeff") == "a\\u202eb\\u2066c\\ufeff"
    assert visible("naïve 数学 👩‍🔬\nline") == "naïve 数学 👩‍🔬\nline"
    assert one_line("a\nb" + "c" * 300, 10) == "a ⏎ bcccc…"


# ---------------------------------------------------------------- query


def test_query_counts_what_was_written(root):
    sql = "select strand, count(*) from trajectories where step = 6 group by 1 order by 1"
    assert ask(root, sql).rows == (("imitate", 2), ("on-policy", 4))
    sql = "select (by_strand->'imitate'->>'loss')::double from metrics where step = 5 and kind is null"
    assert ask(root, sql).rows == ((0.2,),)
    assert ask(root, "select count(*) from decisions").rows == ((16,),)
    assert ask(root, "select kind from events order by time").rows == (
        ("started",),
        ("nonfinite_step",),
        ("finished",),
    )
    assert ask(root, "select step, count(*) from probes where passed group by 1 order by 1").rows == (
        *((0, 4), (4, 20), (10, 36), (16, 52)),
    )


def test_query_prints_a_table_or_one_json_document(root):
    sql = "select id, text, scores[1].value as value from trajectories where id = 'hostile'"
    answer = ask(root, sql)
    console = Console(file=io.StringIO(), width=120)
    print_answer(answer, console=console)
    assert "\x1b" not in console.file.getvalue()
    assert "\\x1b[31m" in console.file.getvalue()
    console = Console(file=io.StringIO())
    query(root, sql, as_json=True, console=console)
    assert json.loads(console.file.getvalue()) == [{"id": "hostile", "text": HOSTILE, "value": None}]


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to 'x.csv'",
        "create table x as select 1",
        "delete from metrics",
        "select 1; select 2",
        "attach 'x.db'",
        "select * from read_csv('/etc/passwd')",
        "select * from nothing",
        "selec",
        "",
    ],
)
def test_query_only_reads_and_only_the_ledger(root, sql):
    with pytest.raises(BadInput):
        ask(root, sql)


def test_query_of_a_run_that_has_just_begun_answers_nothing(tmp_path):
    root = RunDirectory.create(tmp_path / "new", CONFIG, ENVIRONMENT).root
    for table in ("trajectories", "probes", "metrics", "decisions", "events"):
        assert ask(root, f"select step from {table}").rows == ()
    assert ask(root, "select strand, advantage, tokens from trajectories").rows == ()


# ---------------------------------------------------------------- summary


@pytest.mark.parametrize(("passed", "n"), [(0, 10), (3, 10), (10, 10), (97, 128), (1, 1)])
def test_wilson_is_scipys(passed, n):
    expected = binomtest(passed, n).proportion_ci(0.95, method="wilson")
    assert wilson(passed / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_is_unknown():
    assert all(math.isnan(bound) for bound in wilson(math.nan, 0))


def test_summary_tells_each_stage_before_and_after(root):
    summary = summarise(root)
    assert summary["status"] == "finished"
    stages = {stage["name"]: stage for stage in summary["stages"]}
    assert [(s["before"]["greedy"], s["after"]["greedy"], s["after"]["n"]) for s in stages.values()] == [
        (2 / 32, 10 / 32, 32),
        (10 / 32, 18 / 32, 32),
        (18 / 32, 26 / 32, 32),
    ]
    demonstrated = np.mean([0.4 - 0.05 * i for i in range(1, 7)])
    assert stages["braid"]["shares"]["demonstration"] == pytest.approx(demonstrated)
    assert stages["warm-start"]["shares"]["demonstration"] == 1.0
    assert summary["seconds"]["train"] == pytest.approx(16 * 0.8)
    assert summary["seconds"]["total"] == pytest.approx(4 * 1.0 + 12 * 2.0)
    assert summary["tokens_trained"] == 32000
    json.dumps(summary, allow_nan=False)


def test_shares_weigh_steps_by_their_tokens():
    rows = [
        {"tokens_trained": 300, "share_learner": 1.0, "share_demonstration": 0.0},
        {"tokens_trained": 100, "share_learner": 0.0, "share_demonstration": 1.0},
        {"tokens_trained": 0, "share_learner": None, "share_demonstration": None},
    ]
    assert token_shares(rows)["demonstration"] == 0.25


def test_the_printed_summary_names_the_report_and_writes_json(root):
    console = Console(file=io.StringIO(), width=80)
    print_summary(root, console)
    text = console.file.getvalue()
    assert "31.2% ± 15.3%" in text
    assert str(root / "report.html") in text
    assert "96 responses written and 40 given: 118 trained, 18 dropped (6 control, 12 select)" in text
    assert json.loads((root / "summary.json").read_text())["steps"] == 16


def test_a_stage_that_ended_before_its_probe_has_no_accuracy_after(tmp_path):
    summary = summarise(build_run(tmp_path / "run", until=8).root)
    assert summary["status"] == "running"
    assert [stage["steps"] for stage in summary["stages"]] == [4, 4]
    assert summary["stages"][1]["after"] is None
    bare = summarise(RunDirectory.create(tmp_path / "new", CONFIG, ENVIRONMENT).root)
    assert (bare["status"], bare["stages"], bare["steps"]) == ("not started", [], 0)
