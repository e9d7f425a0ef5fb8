"""report.html: one file, offline, true to the ledger, and inert whatever the model wrote."""

import json
import re
from collections import Counter
from html.parser import HTMLParser

import plotly.graph_objects as go
import pytest
from build_run import CONFIG, ENVIRONMENT, HOSTILE, STAGES, build_run
from plotly.offline import get_plotlyjs

from orchestrator.history import History, read_history
from orchestrator.ledger import RunLedger
from orchestrator.report.charts import figures
from orchestrator.report.decision_charts import decision_figures
from orchestrator.report.gradient_charts import gradient_figures
from orchestrator.report.origins import COLOURS
from orchestrator.report.write import write
from orchestrator.run_directory import RunDirectory
from orchestrator.summary import wilson
from policies.trajectory import Origin


class Page(HTMLParser):
    """Tags with their attributes, text outside scripts, and the scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.scripts[-1] += data
        else:
            self.text += data


def page_of(run: RunDirectory) -> Page:
    return Page(write(run.root).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return build_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def page(run):
    return page_of(run)


def test_the_page_stands_alone(page):
    assert not [attributes for _, attributes in page.tags if {"src", "href"} & set(attributes)]
    assert get_plotlyjs() in page.scripts
    assert not (page.text.count("{{") or page.text.count("undefined"))


def test_every_figure_is_one_that_plotly_takes(page):
    embedded = [json.loads(script) for script in page.scripts if script.startswith("{")]
    assert len(embedded) == 8 + 4 + 7
    for figure in embedded:
        go.Figure(figure, skip_invalid=False)


def test_provenance_and_probes_are_those_of_the_ledger(run):
    made = figures(read_history(run.root))
    shares = {trace["name"]: trace for trace in made["provenance"]["data"]}
    assert set(shares) == {"learner", "demonstration"}
    assert shares["demonstration"]["y"][:5] == pytest.approx([1.0, 1.0, 1.0, 1.0, 0.35])
    assert shares["demonstration"]["marker"]["color"] == COLOURS[Origin.DEMONSTRATION]
    probe = made["outcome"]["data"][-1]
    assert (probe["x"], probe["y"]) == ([0, 4, 10, 16], [2 / 32, 10 / 32, 18 / 32, 26 / 32])
    low, high = wilson(10 / 32, 32)
    assert probe["error_y"]["array"][1] == pytest.approx(high - 10 / 32)
    assert probe["error_y"]["arrayminus"][1] == pytest.approx(10 / 32 - low)
    assert probe["text"][1] == "warm-start, n = 32"
    assert made["gradient norm"]["data"][0]["y"][8] is None
    bands = made["loss"]["layout"]["shapes"]
    assert [(band["x0"], band["x1"]) for band in bands] == [(0.5, 4.5), (4.5, 10.5), (10.5, 16.5)]


def test_decisions_are_drawn_as_the_ledger_has_them(run):
    made = decision_figures(read_history(run.root))
    assert list(made) == ["strand shares", "places", "coefficients", "verdicts"]
    shares = {trace["name"]: trace for trace in made["strand shares"]["data"]}
    assert shares["imitate"]["y"] == [1.0] * 4 + [0.5] * 6 + [0.0] * 6
    assert shares["why"]["text"][4] == "share of demonstrations 0.35: linear from 0.4 to 0.1"
    curves = {trace["name"]: trace for trace in made["coefficients"]["data"]}
    assert curves["imitate"]["y"][4:6] == pytest.approx([0.35, 0.3])
    fired = curves["imitate's buffer fires"]
    assert (fired["x"], fired["text"]) == ([8], ["2 prompts that waited"])
    groups = {trace["name"]: trace["y"] for trace in made["verdicts"]["data"]}
    assert groups["dropped"] == [0.0] * 4 + [1.0] * 6 + [0.0] * 6
    assert groups["without imitate"][4:10] == [3.0] * 6
    prompts = {trace["name"]: trace["y"] for trace in made["places"]["data"]}
    assert prompts["imitate"][3:5] == [0.0, 2.0] and prompts["on-policy"][4] == 6.0


def test_the_gradients_sources_are_those_of_the_ledger(run):
    history = read_history(run.root)
    made = gradient_figures(history)
    mass = {trace["name"]: trace["y"] for trace in made["origin mass"]["data"]}
    assert mass["demonstration"][4] == pytest.approx(0.35**2 / (0.35**2 + 0.65**2))
    assert {trace["name"]: trace["x"] for trace in made["interference"]["data"]} == {"on-policy and imitate": [5, 7, 9]}
    behind = {trace["name"]: (trace["x"], trace["y"]) for trace in made["staleness"]["data"]}
    assert behind == {"braid": ([0, 2], [0.75, 0.25]), "sharpen": ([0, 2], [0.75, 0.25])}


def test_the_funnels_bars_are_equally_long_and_tell_the_causes(run):
    made = gradient_figures(read_history(run.root))["funnel"]["data"]
    lengths: Counter = Counter()
    for trace in made:
        lengths.update(dict(zip(trace["y"], trace["x"], strict=True)))
    came = 12 * 8 + 10 * 4
    assert lengths == dict.fromkeys(("written and given", "scored", "admitted", "trained"), came)
    causes = {trace["name"]: trace["x"][0] for trace in made if trace["name"].startswith("dropped")}
    assert causes == {"dropped: control": 6, "dropped: select": 12}


def test_others_text_in_a_hover_is_no_markup():
    rows = [{"step": 1, "stage": "a", "reason": f"<a href='x'>{HOSTILE}", "plan": {"places": {"<b>": 1}}}]
    (why,) = [one for one in decision_figures(history_of(rows))["places"]["data"] if one["name"] == "why"]
    assert "<a" not in why["text"][0] and "&lt;a href" in why["text"][0] and "<script" not in why["text"][0]


def history_of(decisions) -> History:
    return History(None, {}, {}, (), (), tuple(decisions), (), ())


def test_decisions_events_config_and_environment_are_in_the_page(page):
    for piece in (
        "share of demonstrations 0.35: linear from 0.4 to 0.1",
        "coefficients on-policy 0.65, imitate 0.35, places imitate 2, on-policy 6",
        "kept 5, dropped 1, without imitate 3",
        "g1: <b>dropped</b>",
        "ok 48",
        "nonfinite_step",
        "16 decisions",
        "preset: arithmetic",
        "packages.torch",
        "6.2% → 81.2%",
    ):
        assert piece in page.text


def hostile_run(tmp_path) -> RunDirectory:
    run = build_run(tmp_path / "run", [("warm-start", 4), ("braid", 3)])
    with RunLedger(run) as ledger:
        ledger.decision({"step": 7, "stage": HOSTILE, "plan": {HOSTILE: HOSTILE}, "reason": HOSTILE, "facts": {}})
        ledger.event("failed", step=7, message=HOSTILE, traceback=HOSTILE, **{"<img src=x onerror=alert(1)>": HOSTILE})
        ledger.metrics(
            {"step": 8, "stage": HOSTILE, "stage_steps": 1, "loss": 1.0, "by_strand": {HOSTILE: {"loss": 1}}}
        )
        ledger.metrics({"kind": "probe", "step": 8, "stage": HOSTILE, "greedy_accuracy": 0.5, "n": 4})
    run.environment.write_text(json.dumps({HOSTILE: HOSTILE}))
    return run


def test_text_of_others_is_shown_and_never_run(tmp_path):
    page = page_of(hostile_run(tmp_path))
    assert page.text.count("<script>alert('x')</script>\\x1b[31m\\x07") >= 5
    assert "img" not in {tag for tag, _ in page.tags}
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    raw = write(tmp_path / "run").read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    assert "<script>alert" not in raw
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", raw)
    assert len(re.findall("<script", raw)) == len(page.scripts)


@pytest.mark.parametrize(
    ("stages", "more"),
    [
        (STAGES, {"until": 7}),
        (STAGES, {"probes": False}),
        ([("warm-start", 4)], {}),
        ([("sharpen", 2)], {"probes": False, "until": 1}),
    ],
    ids=["unfinished", "no probes", "imitation alone", "one step"],
)
def test_a_run_of_any_state_has_a_report(tmp_path, stages, more):
    run = build_run(tmp_path / "run", stages, **more)
    page = page_of(run)
    assert ("running" if "until" in more else "finished") in page.text
    history = read_history(run.root)
    for figure in (figures(history) | decision_figures(history) | gradient_figures(history)).values():
        go.Figure(figure, skip_invalid=False)


def test_a_run_that_has_done_nothing_has_a_report(tmp_path):
    run = RunDirectory.create(tmp_path / "run", CONFIG, ENVIRONMENT)
    page = page_of(run)
    assert "No step is done yet." in page.text
    assert "No trajectories yet." in page.text


def test_a_resumed_run_shows_its_events_as_undone(tmp_path):
    run = build_run(tmp_path / "run", until=12)
    with RunLedger(run) as ledger:
        ledger.truncate_after(4)
    assert "undone by a resume" in page_of(run).text


def test_orchestrator_eyes_load_neither_torch_nor_ray():
    import subprocess
    import sys
    from pathlib import Path

    code = (
        "import orchestrator.report.write, orchestrator.report.show, orchestrator.query, orchestrator.summary\n"
        "import orchestrator.progress, orchestrator.scalars, orchestrator.ledger, sys\n"
        "assert not {'torch', 'ray', 'vllm', 'tensorflow', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=True, timeout=60)
