"""The page of runs that are hostile, long, going on, silent, empty or many: in a browser, with the real server."""

import json
import os
import shutil
import time

import pytest
from build_page_run import build_page_run
from build_run import CONFIG, ENVIRONMENT, HOSTILE, build_run, example, metrics_row
from page_browser import VIEWS, chromium, opened, server

from benchmarks import long_run
from orchestrator.ledger import RunLedger
from orchestrator.report.write import write
from orchestrator.run_directory import RunDirectory

STAGES = (("warm-start", 4), ("braid", 6), ("distil", 3), ("sharpen", 3))
SHORT = [("warm-start", 4), ("braid", 3)]


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


# ---------------------------------------------------------------- what others wrote


def hostile_run(tmp_path) -> RunDirectory:
    planted = build_page_run(tmp_path / "run", SHORT)
    run = planted.run
    with RunLedger(run, {"braid": (HOSTILE,)}) as ledger:
        long = HOSTILE + "x" * 100_000
        texts = [HOSTILE, long, "</script><script>window.broken = 1</script>", "\u202e\u2066abc\u0000\u001b[2J"]
        examples = [example(f"{HOSTILE}-{at}", text=text, length=3) for at, text in enumerate(texts)]
        ledger.add(8, examples, "braid")
        row = metrics_row(8, "braid", 4, 4)
        row |= {"by_strand": {HOSTILE: {"loss": 1.0, "tokens": 10.0, "gradient_mass": 1.0}}}
        ledger.metrics(row)
        plan = {"coefficients": {HOSTILE: 0.5}, "own_prompts": {HOSTILE: 3}, "places": {HOSTILE: 2}}
        ledger.decision({"step": 8, "stage": "braid", "plan": plan, "reason": f"<b onclick=x>{HOSTILE}</b>"})
        ledger.event("failed", step=8, message=HOSTILE, traceback=HOSTILE, **{"<img src=x onerror=alert(1)>": HOSTILE})
    return run


def test_hostile_text_is_shown_and_does_nothing(browser, tmp_path):
    with opened(browser, f"file://{write(hostile_run(tmp_path).root)}", width=360) as seen:
        for view in (*VIEWS, "braid?by=strands", "reader?step=8&row=1", "reader?step=8&row=3"):
            seen.go(view)
            seen.charts()
            assert seen.overflow() == 0, view
            made = "document.querySelectorAll('main img, main script, main b, [onclick], [onerror]').length"
            assert seen.page.evaluate(made) == 0, view
            assert seen.page.evaluate("[window.broken, document.scripts.length]")[0] is None
            assert not any(sign in seen.text() for sign in "\u202e\u2066\x1b\x00\x07"), view
        assert "\\u202e\\u2066abc\\x00\\x1b[2J" in seen.page.locator(".one").inner_text() or "abc" in seen.text()
        seen.go("braid")
        seen.page.locator(".strip").focus()
        seen.page.keyboard.press("End")
        assert "<b onclick=x><script>alert('x')</script>" in seen.text(".decision")
        assert seen.faults == []


def test_a_response_of_ten_thousand_tokens_is_read_at_once(browser, tmp_path):
    run = build_run(tmp_path / "run", SHORT)
    with RunLedger(run, {"braid": ("on-policy",)}) as ledger:
        ledger.add(8, [example("long", length=10_000, text="a word " * 10_000)], "braid")
        ledger.metrics(metrics_row(8, "braid", 4, 4))
    with opened(browser, f"file://{write(run.root)}") as seen:
        began = time.monotonic()
        seen.go("reader?step=8&row=0")
        seen.page.wait_for_selector("#token-9999", state="attached")
        assert time.monotonic() - began < 5
        seen.page.locator(".tokens").focus()
        began = time.monotonic()
        for key in ("End", "ArrowUp", "PageUp", "Home", "ArrowDown", "ArrowRight"):
            seen.page.keyboard.press(key)
        assert "token" in seen.text("#token-said") and time.monotonic() - began < 5


# ---------------------------------------------------------------- runs that go on, and what is missing


def going(tmp_path, until: int = 6) -> RunDirectory:
    return build_page_run(tmp_path / "run", STAGES, until=until).run


def one_more(run: RunDirectory, step: int, stage: str) -> None:
    with RunLedger(run, {stage: ("on-policy",)}) as ledger:
        ledger.add(step, [example(f"late-{step}", version=step - 1, length=8)], stage)
        ledger.metrics(metrics_row(step, stage, step - 4, 6))
        plan = {"coefficients": {"on-policy": 1.0}}
        ledger.decision({"step": step, "stage": stage, "plan": plan, "reason": f"told at step {step}"})


def test_new_steps_appear_without_losing_the_place(browser, tmp_path):
    run = going(tmp_path)
    with server(run.root) as (address, _), opened(browser, address, height=600) as seen:
        assert "live" in seen.text(".head") and "step 6 of 16" in seen.text(".head")
        seen.charts()
        strip = seen.page.locator(".strip")
        strip.focus()
        seen.page.keyboard.press("Home")
        told = strip.get_attribute("aria-valuetext")
        seen.page.evaluate("scrollTo(0, 120)")
        place = seen.page.evaluate("scrollY")
        one_more(run, 7, "braid")
        seen.page.wait_for_function("() => document.getElementById('facts').innerText.includes('step 7 of 16')")
        assert strip.get_attribute("aria-valuetext") == told
        assert strip.get_attribute("aria-valuemax") == "7"
        assert seen.page.evaluate("document.activeElement.getAttribute('class')") == "strip"
        assert seen.page.evaluate("scrollY") == place
        seen.page.keyboard.press("End")
        assert "told at step 7" in seen.text(".decision")
        seen.go("reader?step=3&row=0")
        seen.page.locator(".tokens").focus()
        seen.page.keyboard.press("ArrowRight")
        here = seen.page.locator(".tokens").get_attribute("aria-activedescendant")
        one_more(run, 8, "braid")
        seen.page.wait_for_function("() => document.querySelector('.items').innerText.includes('step 8')")
        assert seen.page.locator(".tokens").get_attribute("aria-activedescendant") == here
        assert seen.page.evaluate("document.activeElement.className") == "tokens"
        with RunLedger(run) as ledger:
            ledger.event("finished", step=8)
        seen.page.wait_for_function("() => document.getElementById('facts').innerText.includes('finished')")
        assert seen.faults == []


def test_a_run_that_writes_nothing_is_stale_and_a_server_that_is_gone_is_said(browser, tmp_path):
    run = going(tmp_path)
    past = time.time() - 3600
    for path in (run.metrics, run.events, run.config):
        os.utime(path, (past, past))
    with server(run.root) as (address, process), opened(browser, address) as seen:
        assert "stale: nothing written for 1 h" in seen.text(".head")
        process.terminate()
        process.wait(30)
        seen.page.wait_for_function("() => document.getElementById('facts').innerText.includes('no answer')")
        seen.page.evaluate("location.hash = '#reach'")
        seen.page.wait_for_selector(".said.wrong")
        assert "the server does not answer" in seen.text(".said.wrong") and "braid ui" in seen.text(".said.wrong")


def test_an_empty_run_says_what_is_missing_and_how_to_get_it(browser, tmp_path):
    run = RunDirectory.create(tmp_path / "run", CONFIG, ENVIRONMENT)
    words = {
        "braid": "No step is done yet",
        "support": "No probe has been drawn yet",
        "reach": "Reach has not been measured yet",
        "handoffs": "No handoff has been measured yet",
        "costs": "Nothing was spent yet",
        "reader": "No trajectories yet",
        "curves": "No step is done yet",
        "record": "None.",
        "runs": "one run",
    }
    with opened(browser, f"file://{write(run.root)}") as seen:
        for view, said in words.items():
            seen.go(view)
            assert said in seen.text(), view
        assert "not started" in seen.text(".head")
        assert seen.faults == []


VARIANT = {"value": {"value": 0.6, "low": 0.5, "high": 0.7}, "seeds": 2, "prompts": 96, "between_seeds": 0.1}
EXPERIMENT = {
    "name": "swap",
    "measure": "pass_at_1",
    "confidence": 0.95,
    "comparisons": 1,
    "variants": [
        {"name": "one", "changes": {}, "difference": None, "verdict": "baseline", "runs": [], **VARIANT},
        {"name": "two", "changes": {"seed": [1, 2]}, "verdict": "better", **VARIANT}
        | {"difference": {"value": 0.2, "low": 0.1, "high": 0.3}, "runs": [{"seed": 2, "value": 0.6, "missing": ""}]},
    ],
    "notes": ["two seeds"],
}


def test_runs_stand_side_by_side_and_an_experiment_has_its_table(browser, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(build_page_run(folder / "one", SHORT).run.root, folder / "two")
    config = folder / "two" / "config.yaml"
    config.write_text(config.read_text().replace("name: one", "name: two"))
    (folder / "experiment.json").write_text(json.dumps(EXPERIMENT))
    with server(folder) as (address, _), opened(browser, address) as seen:
        seen.go("runs")
        table = seen.page.get_by_role("region", name="Experiment swap")
        assert "20.0 % [10.0, 30.0 %]" in table.inner_text() and "better" in table.inner_text()
        assert "seed 1 → 2" in table.inner_text()
        boxes = seen.page.locator("input[type=checkbox]")
        assert boxes.count() == 2
        boxes.nth(0).check()
        boxes.nth(1).check()
        seen.page.wait_for_selector("text=What differs in the pipelines")
        seen.charts()
        assert "learner, mean share of a step" in seen.text() and seen.overflow() == 0
        assert "pass@64" in seen.text() and str(tmp_path) not in seen.text()
        seen.page.keyboard.press("?")
        assert seen.page.evaluate("document.getElementById('keys').open")
        seen.page.keyboard.press("Escape")
        seen.page.locator("tbody th a").first.click()
        seen.page.wait_for_function("() => document.documentElement.dataset.view === 'braid'")
        assert "run=" in seen.page.evaluate("location.hash")
        assert seen.faults == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_of_ten_thousand_steps_and_a_million_trajectories_opens_at_once(browser, tmp_path):
    run = long_run.write(tmp_path / "long", long_run.Length())
    with server(run.root) as (address, _):
        began = time.monotonic()
        with opened(browser, address) as seen:
            seen.charts()
            spent = time.monotonic() - began
            assert "step 10,000 of 10,000" in seen.text(".head")
            assert seen.page.evaluate("document.querySelector('.js-plotly-plot').data[0].x.length") <= 600
            for view in VIEWS:
                seen.go(view)
                seen.charts()
                assert seen.overflow() == 0, view
            assert seen.page.locator(".line").count() <= 60 and seen.faults == []
    assert spent < 15, "3 seconds on an idle machine: `python -m benchmarks.page --browser`"
    size = write(run.root).stat().st_size
    shutil.rmtree(run.root)
    assert size < 10_000_000
