"""The page in a browser: every view, in both themes, wide and at phone width, by pointer and from the keyboard."""

import io

import numpy as np
import pytest
from build_page_run import build_page_run
from page_browser import VIEWS, chromium, opened, server
from page_handoffs import RECOMMENDED
from PIL import Image

from orchestrator.page.reading import Reading
from orchestrator.report.write import write

STAGES = (("warm-start", 4), ("braid", 6), ("distil", 3), ("sharpen", 3))


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def planted(tmp_path_factory, browser):
    return build_page_run(tmp_path_factory.mktemp("runs") / "planted", STAGES)


@pytest.fixture(scope="module")
def report(planted):
    return f"file://{write(planted.run.root)}"


@pytest.fixture(scope="module")
def served(planted):
    with server(planted.run.root) as (address, _):
        yield address


def variance(picture: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(picture)).convert("L"), np.float64).var())


@pytest.fixture(scope="module")
def wide(browser, report):
    """The report in a wide, light window, which several tests walk through."""
    with opened(browser, report) as seen:
        yield seen


USED = "button, a, input, select, [role=slider], [role=grid], [tabindex='0']"
NAMELESS = f"""() => [...document.querySelectorAll("{USED}")]
    .filter(one => one.offsetParent && !one.closest('.js-plotly-plot'))
    .filter(one => !(one.innerText || one.getAttribute('aria-label') || one.labels?.length || one.title))
    .map(one => one.outerHTML.slice(0, 120))"""
IDS = "[...document.querySelectorAll('[id]')].filter(one => !one.closest('svg')).map(one => one.id)"
OFFLINE = ("file://", "data:", "blob:")


@pytest.mark.parametrize(
    ("source", "theme", "width"),
    [
        ("report", "light", 1280),
        ("report", "dark", 360),
        pytest.param("served", "dark", 1280, marks=pytest.mark.slow),
        pytest.param("served", "light", 360, marks=pytest.mark.slow),
    ],
)
def test_every_view_draws_in_both_themes_and_at_both_widths(browser, request, tmp_path, source, theme, width):
    address = request.getfixturevalue(source)
    with opened(browser, address, theme=theme, width=width) as seen:
        for view in VIEWS:
            seen.go(view)
            drawn = seen.charts()
            assert seen.overflow() == 0, view
            assert drawn or view in ("support", "reader", "record", "runs", "costs"), view
            assert variance(seen.page.screenshot(path=tmp_path / f"{view}.png")) > 100, view
            assert seen.page.evaluate(NAMELESS) == [], view
            ids = seen.page.evaluate(IDS)
            assert len(ids) == len(set(ids)), view
        assert seen.page.evaluate("document.documentElement.dataset.theme") == theme
        assert seen.faults == []
        if source == "report":
            assert [url for url in seen.requests if not url.startswith(OFFLINE)] == []
            assert len([url for url in seen.requests if url.startswith("file://")]) == 1


def test_the_views_say_what_was_planted(planted, wide):
    seen = wide
    seen.go("braid")
    rows = seen.page.locator("tbody tr").all_inner_texts()
    assert [row.split()[0] for row in rows] == [name for name, _ in STAGES]
    assert "16" in seen.text(".tiles") and "finished" in seen.text(".head")
    seen.go("support")
    assert seen.page.locator(".grid").get_attribute("aria-rowcount") == str(96 + 1)
    assert len(seen.page.locator(".head-cell").all()) == len(planted.probes)
    ids = seen.page.locator(".line .who").all_inner_texts()[:5]
    assert {one[-4:] for one in ids} <= set(planted.gained)
    seen.go("handoffs")
    for word in ("Contract", "Speaks for the role", "Where the gain comes from", "What holds the model back now"):
        assert word in seen.text(), word
    assert seen.page.locator(".code pre").first.inner_text() == RECOMMENDED
    seen.page.locator(".code button").first.click()
    seen.page.wait_for_selector("#toast:not([hidden])")
    seen.go("costs")
    for word in ("generated a second", "For each point gained", "With the scaffold, and amortised", "no prices are in"):
        assert word in seen.text(), word
    seen.go("record")
    assert "update skipped" in seen.text() or "actor restarted" in seen.text() or "started" in seen.text()


# ---------------------------------------------------------------- pointer and keyboard


def test_a_decisions_reason_is_told_on_hover_and_on_focus(planted, wide):
    reasons = {step: Reading.open(planted.run.root).decision(step)["reason"] for step in (5, 16)}
    seen = wide
    seen.go("braid")
    seen.charts()
    strip = seen.page.locator(".strip")
    box = strip.bounding_box()
    seen.page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 18)
    assert reasons[16] in seen.text(".decision")
    strip.focus()
    seen.page.keyboard.press("Home")
    for _ in range(4):
        seen.page.keyboard.press("ArrowRight")
    assert strip.get_attribute("aria-valuenow") == "5"
    assert reasons[5] in strip.get_attribute("aria-valuetext")
    assert reasons[5] in seen.text(".decision")
    plot = seen.page.locator(".braid .nsewdrag").first.bounding_box()
    seen.page.mouse.move(plot["x"] + plot["width"] * 0.5, plot["y"] + plot["height"] / 2)
    seen.page.mouse.move(plot["x"] + plot["width"] * 0.5 + 2, plot["y"] + plot["height"] / 2)
    seen.page.wait_for_selector(".hoverlayer .legend text, .hoverlayer .hovertext text")
    said = seen.page.locator(".hoverlayer").first.text_content()
    assert "learner" in said and "%" in said and "step" in said
    assert seen.page.locator(".modebar-btn").count() and "cloud" not in seen.page.locator(".modebar").first.inner_html()


def test_the_page_is_driven_from_the_keyboard(browser, report):
    with opened(browser, report) as seen:
        keys = seen.page.keyboard
        keys.press("Tab")
        assert seen.page.evaluate("document.activeElement.className") == "skip"
        keys.press("Enter")
        assert seen.page.evaluate("document.activeElement.id") == "main"
        keys.press("2")
        seen.page.wait_for_function("() => document.documentElement.dataset.view === 'support'")
        keys.press("?")
        assert seen.page.evaluate("document.getElementById('keys').open")
        keys.press("Escape")
        assert not seen.page.evaluate("document.getElementById('keys').open")
        keys.press("t")
        assert seen.page.evaluate("document.documentElement.dataset.theme") == "dark"
        keys.press("/")
        assert seen.page.evaluate("document.activeElement.type") == "search"
        assert seen.faults == []


def test_the_map_is_walked_and_opened_with_the_keys(wide):
    seen = wide
    seen.go("support?sort=id")
    grid, keys = seen.page.locator(".grid"), seen.page.keyboard
    grid.focus()
    keys.press("Home")
    assert grid.get_attribute("aria-activedescendant") == "cell-0-0"
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        keys.press(key)
    assert seen.text("#map-said").startswith("q002, step")
    keys.press("Control+End")
    assert seen.text("#map-said").startswith("q095, step 16")
    assert seen.page.locator(".cell.here").is_visible()
    seen.go("support?sort=gained")
    grid.focus()
    keys.press("Enter")
    seen.page.wait_for_function("() => document.activeElement.id === 'responses'")
    assert "passed" in seen.text("#responses") and "Prompt" in seen.text("#responses")
    keys.press("Escape")
    seen.page.wait_for_function("() => document.activeElement.className === 'grid'")
    assert seen.page.locator("#responses").count() == 0


def test_the_map_is_sorted_and_searched(planted, wide):
    seen = wide
    for sort, wanted in (("gained", planted.gained), ("lost", planted.lost)):
        seen.go(f"support?sort={sort}")
        first = seen.page.locator("#cell-0-0").locator("xpath=..").locator(".who").inner_text()
        assert first[-4:] in wanted
    seen.go("support?find=q01")
    assert seen.page.locator(".grid").get_attribute("aria-rowcount") == str(10 + 1)
    seen.go("support?find=nothing")
    assert "No prompt has these characters" in seen.text()


def test_the_reader_tells_each_token_and_goes_on_with_the_keys(planted, wide):
    seen = wide
    seen.go("reader")
    seen.page.wait_for_selector(".token")
    keys, first = seen.page.keyboard, seen.text(".one h3")
    keys.press("j")
    seen.page.wait_for_function("first => document.querySelector('.one h3').innerText !== first", arg=first)
    keys.press("k")
    seen.page.wait_for_function("first => document.querySelector('.one h3').innerText === first", arg=first)
    step, row = seen.page.evaluate("Object.values(braid.place().params)")[:2]
    one = planted.examples[int(step)][int(row)]
    tokens = seen.page.locator(".token[role=option]")
    assert tokens.count() == len(one.trajectory.tokens)
    seen.page.locator(".tokens").focus()
    keys.press("Home")
    keys.press("ArrowRight")
    told = seen.text("#token-said")
    assert f"token 2 of {tokens.count()}" in told
    assert str(one.trajectory.tokens[1]) in told and "learner" in told and "log p" in told
    assert seen.page.locator(".token.now").count() == 1
    keys.press("End")
    assert f"token {tokens.count()} of" in seen.text("#token-said")
    tokens.nth(3).hover()
    assert "token 4 of" in seen.text("#token-said")


def test_g_has_a_shade_for_its_size_and_a_pattern_for_its_sign(planted, wide):
    seen = wide
    seen.go("reader?sort=-advantage")
    seen.page.wait_for_selector(".token")
    step, row = (int(seen.page.evaluate(f"braid.place().params.{key}")) for key in ("step", "row"))
    g = planted.coefficients[step][row]
    classes = [one.get_attribute("class") for one in seen.page.locator(".token[role=option]").element_handles()]
    for value, named in zip(g, classes, strict=True):
        assert (" up" in named, " down" in named) == (value > 0, value < 0)
    deep = [int(named.split("up")[1][0]) for named in classes if " up" in named]
    large = [value for value in g if value > 0]
    assert deep[large.index(max(large))] == 5
    styles = seen.page.evaluate(
        "() => ['up3', 'down3'].map(name => { const one = document.createElement('span');"
        " one.className = `token ${name}`; document.body.append(one);"
        " const style = getComputedStyle(one); return [style.backgroundImage, style.backgroundColor] })"
    )
    assert styles[0][0] == "none" and "repeating-linear-gradient" in styles[1][0]


def test_charts_have_names_a_table_and_the_themes_colours(wide):
    seen = wide
    seen.go("curves")
    seen.charts()
    names = seen.page.locator(".plot").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    assert len(names) >= 15 and all("Chart with" in name for name in names)
    figure = seen.page.locator("figure.chart").first
    figure.locator("summary").click()
    figure.locator("tbody tr").nth(3).wait_for()
    colour = "document.querySelector('.js-plotly-plot').data[0].line.color"
    before = seen.page.evaluate(colour)
    seen.page.keyboard.press("t")
    seen.page.wait_for_function(f"before => {colour} !== before", arg=before)
    seen.page.keyboard.press("t")
    seen.page.wait_for_function(f"before => {colour} === before", arg=before)
