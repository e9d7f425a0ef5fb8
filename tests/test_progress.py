"""Progress: a panel on a terminal, parseable lines elsewhere; and TensorBoard reads what was written."""

import io
import math
import re
import time

import pytest
from build_run import HOSTILE, STAGES, metrics_row
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from orchestrator.config import Pipeline
from orchestrator.progress import Progress, clock, shares
from orchestrator.scalars import Scalars

PIPELINE = Pipeline(name="synthetic", stages=[{"name": n, "recipe": {"kind": "sft"}, "steps": k} for n, k in STAGES])
PROBE = {"kind": "probe", "step": 4, "stage": "warm-start", "greedy_accuracy": 0.25, "sampled_accuracy": None, "n": 32}
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def rows():
    step = 0
    for stage, steps in STAGES:
        for stage_step in range(1, steps + 1):
            step += 1
            yield metrics_row(step, stage, stage_step, steps)


def run(*, terminal: bool, line_seconds: float = 0.0) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, highlight=False)
    with Progress(PIPELINE, console, line_seconds) as progress:
        progress.phase("starting Ray")
        for row in rows():
            progress.step(row)
        progress.probe(PROBE)
        progress.event(f"a replica died: {HOSTILE}\nsecond line")
    return console.file.getvalue()


def test_lines_without_a_terminal_hold_no_control_codes_and_parse():
    text = run(terminal=False)
    assert not CONTROL.search(text)
    lines = text.splitlines()
    assert lines[0] == "phase starting Ray"
    steps = [dict(pair.split("=") for pair in line.split()) for line in lines if line.startswith("step=")]
    assert [row["step"] for row in steps] == [f"{i}/16" for i in range(1, 17)]
    assert steps[4]["stage_step"] == "1/6"
    assert float(steps[4]["loss"]) == pytest.approx(metrics_row(5, "braid", 1, 6)["loss"], rel=1e-3)
    assert steps[4]["rollout_tokens_per_second"] == "1800"
    assert "rollout_tokens_per_second" not in steps[0], "a rate that is unknown is left out, not 0"
    assert "probe step=4 stage=warm-start greedy_accuracy=0.25 sampled_accuracy=– n=32" in lines
    assert lines[-1].startswith("event a replica died: <script>")
    assert "\\x1b[31m\\x07" in lines[-1]
    assert lines[-1].endswith("second line")


def test_a_decision_is_told_when_it_is_another_one():
    told = [line for line in run(terminal=False).splitlines() if line.startswith("decided")]
    changes = [f"decided step={step} stage=braid imitate {0.4 - 0.05 * (step - 4):.3g}" for step in range(5, 11)]
    assert told == [*changes, "decided step=11 stage=sharpen as the recipe says"]
    thinned = [line.split()[1] for line in run(terminal=False, line_seconds=3600.0).splitlines() if "decided" in line]
    assert thinned == ["step=5", "step=10", "step=11"], "no more lines than steps have"


def test_the_panel_says_what_was_decided():
    console = Console(file=io.StringIO(), force_terminal=True, width=120, highlight=False)
    with Progress(PIPELINE, console) as progress:
        progress.step(next(rows()) | {"decided": "imitate step: 8 waited"})
    assert "decided imitate step: 8 waited" in console.file.getvalue()


def test_a_decision_that_holds_is_told_once():
    console = Console(file=io.StringIO(), force_terminal=False, width=120, highlight=False)
    with Progress(PIPELINE, console, 0.0) as progress:
        for row in rows():
            progress.step(row | {"decided": HOSTILE})
    told = [line for line in console.file.getvalue().splitlines() if line.startswith("decided")]
    assert [line.split()[1] for line in told] == ["step=1", "step=5", "step=11"], "once a stage"
    assert not CONTROL.search("".join(told))


def test_lines_are_thinned_but_never_the_edges_of_a_stage():
    steps = [line.split()[0] for line in run(terminal=False, line_seconds=3600.0).splitlines() if "stage_step" in line]
    assert steps == [f"step={i}/16" for i in (1, 4, 5, 10, 11, 16)]


def test_a_terminal_shows_stages_figures_and_provenance():
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", run(terminal=True))
    for piece in (
        "✓ warm-start",
        "▶ sharpen 6/6",
        "step 16/16",
        "probe 0.25",
        "rollout tok/s 1800",
        "learner 100%",
    ):
        assert piece in text
    assert "\\x1b[31m" in text


def test_time_left_is_the_steps_left_times_what_recent_steps_took():
    progress = Progress(PIPELINE, Console(file=io.StringIO()))
    assert math.isnan(progress.seconds_left())
    for seconds, row in zip((1.0, 3.0), rows(), strict=False):
        progress.step(row | {"seconds": seconds})
    assert progress.seconds_left() == pytest.approx(2 * 2.0 + 12 * 2.0)
    for row in list(rows())[4:6]:
        progress.step(row | {"seconds": 8.0, "stage": "braid"})
    assert progress.seconds_left() == pytest.approx(4 * 8.0 + 6 * (1 + 3 + 8 + 8) / 4)


def test_the_bar_has_each_writers_share_of_its_width():
    bar = shares({"share_learner": 0.75, "share_demonstration": 0.25, "share_teacher": 0.0}, width=40)
    assert [span.end - span.start for span in bar.spans if "█" in bar.plain[span.start : span.end]] == [30, 10]
    assert "teacher" not in bar.plain


def test_clock():
    assert [clock(x) for x in (0, 59.6, 61, 3661, math.nan)] == ["0:00", "1:00", "1:01", "1:01:01", "–"]


def test_a_row_without_any_figure_is_shown_all_the_same():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Progress(PIPELINE, console) as progress:
        progress.step({"step": 1, "stage": "warm-start", "stage_step": 1, "stage_steps": 4, "loss": None})
    assert "step 1/16" in console.file.getvalue()


# ---------------------------------------------------------------- TensorBoard


def scalars_of(directory) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(directory))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_every_figure_back(tmp_path):
    with Scalars(tmp_path) as scalars:
        for row in rows():
            scalars.step(row)
        scalars.probe(PROBE)
    read = scalars_of(tmp_path)
    assert read["step/loss"] == [(row["step"], pytest.approx(row["loss"], rel=1e-6)) for row in rows()]
    assert [step for step, _ in read["step/gradient_norm"]] == [i for i in range(1, 17) if i != 9]
    assert [step for step, _ in read["strand/imitate/gradient_mass"]] == list(range(1, 11))
    assert read["probe/greedy_accuracy"] == [(4, 0.25)]
    assert read["origin/demonstration/tokens"][4] == (5, pytest.approx(0.35 * 2000))
    assert [step for step, _ in read["origin/learner/gradient_mass"]] == list(range(5, 17))
    assert read["interference/on-policy|imitate"] == [(step, pytest.approx(0.1 * step - 0.5)) for step in (5, 7, 9)]
    assert read["funnel/written"][0] == (1, 0.0) and read["dropped/control"][0] == (1, 0.0)
    assert "probe/sampled_accuracy" not in read
    assert not [tag for tag in read if "stage" in tag]


def test_after_a_resume_tensorboard_forgets_what_the_run_forgot(tmp_path):
    with Scalars(tmp_path) as scalars:
        for row in rows():
            scalars.step(row)
    time.sleep(1.1)  # the writer names its files by the second
    with Scalars(tmp_path) as scalars:
        for row in list(rows())[8:10]:
            scalars.step(row | {"loss": 77.0})
    losses = dict(scalars_of(tmp_path)["step/loss"])
    assert sorted(losses) == list(range(1, 11))
    assert losses[9] == losses[10] == 77.0
