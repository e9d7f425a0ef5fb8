"""A headless Chromium for tests of the page, a page that notes what goes wrong in it, and the real server beside it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 60_000
"""Milliseconds that anything may take: a machine under load is no failure."""
VIEWS = ("braid", "support", "reach", "handoffs", "costs", "reader", "curves", "record", "runs")


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine (`apt-get install chromium`)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass(slots=True)
class Seen:
    """A page, and what it asked for and complained of."""

    page: Any
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def go(self, view: str) -> None:
        """To another view, until it is drawn."""
        self.page.evaluate("hash => { location.hash = hash }", f"#{view}")
        name = view.partition("?")[0]
        self.page.wait_for_function(
            "name => document.documentElement.dataset.view === name"
            " && document.getElementById('main').getAttribute('aria-busy') === 'false'",
            arg=name,
            timeout=SECONDS,
        )

    def charts(self) -> int:
        """Waits until the charts in sight are drawn; how many there are."""
        self.page.wait_for_function(
            "() => ![...document.querySelectorAll('.plot.waiting')]"
            ".some(one => one.getBoundingClientRect().top < innerHeight)",
            timeout=SECONDS,
        )
        return int(self.page.locator(".js-plotly-plot").count())

    def overflow(self) -> int:
        """Pixels that the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def text(self, selector: str = "main") -> str:
        """The words that stand there."""
        return str(self.page.locator(selector).first.inner_text())


@contextmanager
def opened(browser: Any, address: str, *, theme: str = "light", width: int = 1280, height: int = 900) -> Iterator[Seen]:
    """The page at an address, in a browser profile of its own."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
    )
    context.set_default_timeout(SECONDS)
    seen = Seen(context.new_page())
    seen.page.on("console", lambda told: seen.faults.append(told.text) if told.type in ("error", "warning") else None)
    seen.page.on("pageerror", lambda error: seen.faults.append(str(error)))
    seen.page.on("dialog", lambda dialog: (seen.faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    try:
        seen.page.goto(address)
        seen.page.wait_for_selector("main[aria-busy=false]")
        yield seen
    finally:
        context.close()


@contextmanager
def server(directory: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`braid ui DIRECTORY` as people start it: its address, with the token, and its process."""
    started = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "ui", str(directory), "--no-open"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert started.stdout is not None
        address = started.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), address
        yield address, started
    finally:
        started.terminate()
        started.wait(30)
