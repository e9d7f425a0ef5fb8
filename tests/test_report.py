"""report.html: one file, offline, true to the ledger, and inert whatever the model wrote."""

import base64
import hashlib
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import plotly.graph_objects as go
import pytest
from build_run import CONFIG, ENVIRONMENT, HOSTILE, STAGES, build_run
from plotly.offline import get_plotlyjs

from orchestrator.history import History, read_history
from orchestrator.ledger import RunLedger
from orchestrator.page import assets
from orchestrator.report.charts import figures
from orchestrator.report.decision_charts import decision_figures
from orchestrator.report.figures import groups, thinned
from orchestrator.report.gradient_charts import gradient_figures
from orchestrator.report.origins import COLOURS, ON_DARK, ON_TERMINAL
from orchestrator.report.write import write
from orchestrator.run_directory import RunDirectory
from orchestrator.summary import wilson
from policies.trajectory import Origin


class Page(HTMLParser):
    """Tags with their attributes, the scripts that run, and the documents that the page draws."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.documents: dict[str, str] = {}
        self._into = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        self._into = ""
        if tag == "script":
            self._into = found.get("id") or "script"
            if self._into == "script":
                self.scripts.append("")
            else:
                self.documents[self._into] = ""

    def handle_endtag(self, tag):
        self._into = ""

    def handle_data(self, data):
        if self._into == "script":
            self.scripts[-1] += data
        elif self._into:
            self.documents[self._into] += data
        else:
            self.text += data

    def document(self, name: str):
        return json.loads(self.documents[f"document-{name}"])

    @property
    def figures(self):
        return [made["figure"] for group in self.document("report")["groups"] for made in group["figures"]]


def page_of(run: RunDirectory) -> Page:
    return Page(write(run.root).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return build_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def page(run):
    return page_of(run)


def test_the_page_stands_alone(page):
    links = [attributes.get(key) for _, attributes in page.tags for key in ("src", "href") if key in attributes]
    assert [link.partition(",")[0] for link in links] == ["data:image/svg+xml", "#main"]
    assert get_plotlyjs() in page.scripts
    assert not (page.text.count("{{") or page.text.count("undefined"))


def test_its_policy_lets_its_own_scripts_run_and_nothing_else(page):
    (policy,) = [attributes["content"] for tag, attributes in page.tags if tag == "meta" and "http-equiv" in attributes]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in page.scripts}
    assert set(rules["script-src"].split()) == hashes
    assert (rules["default-src"], rules["connect-src"]) == ("'none'", "'none'")


def test_every_figure_is_one_that_plotly_takes(page):
    assert len(page.figures) == 8 + 4 + 7
    for figure in page.figures:
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
    report = page.document("report")
    fifth = report["decisions"][4]
    assert fifth["reason"] == "share of demonstrations 0.35: linear from 0.4 to 0.1"
    assert fifth["plan"]["coefficients"] == pytest.approx({"on-policy": 0.65, "imitate": 0.35})
    assert fifth["verdicts"] == {"kept": 5, "dropped": 1, "without imitate": 3}
    assert fifth["routed"] == ["g1: <b>dropped</b>"]
    assert (report["decisions_total"], len(report["decisions"])) == (16, 16)
    assert report["ways"][0]["scored"] == {"none": 16}
    assert "nonfinite_step" in [event["kind"] for event in report["events"]]
    assert "preset: arithmetic" in report["config"]
    assert report["environment"]["packages.torch"] == "2.13"
    probes = [one["greedy"]["value"] for one in page.document("curves")["probes"]]
    assert (probes[0], probes[-1]) == (2 / 32, 26 / 32)


def test_of_each_stages_ends_the_best_the_worst_and_the_unknown_are_in_the_page(page):
    told = page.document("trajectories")
    assert {one["step"] for one in told.values()} >= {1, 4, 5, 10, 11, 16}
    for one in told.values():
        assert len(one["tokens"]["ids"]) == one["length"]
    assert {one["strand"] for one in told.values() if one["step"] == 5} == {"on-policy", "imitate"}


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


def test_text_of_others_is_data_and_never_markup(tmp_path):
    page = page_of(hostile_run(tmp_path))
    report = page.document("report")
    assert report["decisions"][-1]["reason"] == HOSTILE
    assert report["events"][-1]["traceback"] == HOSTILE
    assert HOSTILE in [one["text"] for one in page.document("trajectories").values()]
    assert "img" not in {tag for tag, _ in page.tags}
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    raw = write(tmp_path / "run").read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    assert "<script>alert" not in raw
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", raw)
    assert len(re.findall("<script", raw)) == len(page.scripts) + len(page.documents)


def test_no_script_of_the_page_makes_markup_of_text():
    front = Path(assets.__file__).parent / "front"
    makers = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|DOMParser"
    )
    for path in front.glob("*.js"):
        assert not makers.search(path.read_text(encoding="utf-8")), path.name
    assert makers.search("node.innerHTML = text")


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
    assert page.document("run")["status"] == ("running" if "until" in more else "finished")
    history = read_history(run.root)
    for figure in (figures(history) | decision_figures(history) | gradient_figures(history)).values():
        go.Figure(figure, skip_invalid=False)


def test_a_run_that_has_done_nothing_has_a_report(tmp_path):
    run = RunDirectory.create(tmp_path / "run", CONFIG, ENVIRONMENT)
    page = page_of(run)
    assert (page.document("run")["totals"]["steps"], page.document("report")["groups"]) == (0, [])
    assert page.document("trajectories") == {}


def test_a_resumed_run_shows_its_events_as_undone(tmp_path):
    run = build_run(tmp_path / "run", until=12)
    with RunLedger(run) as ledger:
        ledger.truncate_after(4)
    assert [event["kind"] for event in page_of(run).document("report")["events"] if event.get("undone")]


def test_a_long_runs_curves_are_means_of_neighbours_and_its_totals_are_whole(run):
    history = read_history(run.root)
    short, size = thinned(history, 6)
    assert (size, [row["step"] for row in short.steps]) == (3, [3, 4, 7, 10, 13, 16])
    for key in ("loss", "share_demonstration"):
        expected = [sum(row[key] for row in history.steps[4:7]) / 3, sum(row[key] for row in history.steps[7:10]) / 3]
        assert [row[key] for row in short.steps[2:4]] == pytest.approx(expected)
    known = [row["gradient_norm"] for row in history.steps[7:10] if row["gradient_norm"] is not None]
    assert (len(known), short.steps[3]["gradient_norm"]) == (2, pytest.approx(sum(known) / 2))
    made = {one["name"]: one["figure"] for group in groups(history, 6) for one in group["figures"]}
    assert made["funnel"] == gradient_figures(history)["funnel"]
    assert thinned(history, 16) == (history, 1)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two colours."""
    lights = sorted((luminance(one), luminance(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def grounds(theme: str) -> list[str]:
    """The colours that the page's stylesheet puts behind its charts and tokens in a theme."""
    text = (Path(assets.__file__).parent / "front" / "base.css").read_text(encoding="utf-8")
    block = text.split(':root[data-theme="dark"] {')[1] if theme == "dark" else text.split(":root {")[1]
    return [re.search(rf"--{name}: (#[0-9a-f]{{6}})", block)[1] for name in ("ground", "paper")]


def test_origins_and_charts_stand_out_from_the_page_in_both_themes(run):
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert set(COLOURS) == set(ON_TERMINAL) == set(Origin)
    light = set(COLOURS.values()) | set(ON_DARK)
    for theme, colours in (("light", light), ("dark", {ON_DARK[colour] for colour in light})):
        low = {(one, ground) for one in colours for ground in grounds(theme) if contrast(one, ground) < 3}
        assert low == set()


def test_text_is_read_on_every_ground_in_both_themes():
    text = (Path(assets.__file__).parent / "front" / "base.css").read_text(encoding="utf-8")
    for start in (":root {", ':root[data-theme="dark"] {'):
        own = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", text.split(start)[1].split("}")[0]))
        pairs = [
            (ink, ground) for ink in ("ink", "dim", "good", "bad", "odd") for ground in ("ground", "paper", "faint")
        ]
        pairs += [("good", "held"), ("bad", "broken"), ("odd", "unsure"), ("ink", "raised"), ("paper", "ink")]
        low = {pair: round(found, 2) for pair in pairs if (found := contrast(own[pair[0]], own[pair[1]])) < 4.5}
        assert low == {}, start
        assert contrast(own["edge"], own["paper"]) >= 3


def test_every_colour_of_a_chart_has_one_on_dark(run):
    used = {found.lower() for found in re.findall(r"#[0-9a-fA-F]{6}", json.dumps(groups(read_history(run.root))))}
    front = Path(assets.__file__).parent / "front"
    used |= {found for path in front.glob("*.js") for found in re.findall(r"#[0-9a-f]{6}", path.read_text())}
    assert used - set(ON_DARK) == set()


def test_orchestrator_eyes_load_neither_torch_nor_ray():
    import subprocess
    import sys

    code = (
        "import orchestrator.report.write, orchestrator.report.show, orchestrator.query, orchestrator.summary\n"
        "import orchestrator.progress, orchestrator.scalars, orchestrator.ledger, sys\n"
        "assert not {'torch', 'ray', 'vllm', 'tensorflow', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=True, timeout=60)
