"""How long the page of a long run takes: `python -m benchmarks.page`, 10,000 steps and 1,000,000 trajectories.

Makes the run once (about two minutes, 2 GB, kept for the next time), starts `braid ui` on it as a user would, and asks
for each view's data: first (cold: nothing of the run was read by the server), again (warm), and with the ETag of the
answer (same). With `--browser` headless Chromium opens the address, and waits until the first view is drawn.
"""

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil

from benchmarks.long_run import Length, write

SECONDS = 120.0


def views(steps: int) -> tuple[str, ...]:
    """What is asked for, of a run of so many steps."""
    middle = steps // 2
    return (
        *("runs", "run", "braid", "curves", "decided", "decisions", "support", "support?sort=lost&offset=200"),
        *("prompt?id=q00017", "handoffs", "reach", "costs", "trajectories", f"trajectories?before={middle}"),
        f"trajectories?step={middle}&sort=-reward",
        *("trajectories?strand=imitate&verdict=failed", "trajectories?text=nowhere"),
        *(f"trajectory?step={middle}&row=99", "compare?runs=.", "report"),
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """One view's data, by the clock of whoever asked."""

    view: str
    cold: float
    warm: float
    same: float
    kilobytes: float


@contextmanager
def served(directory: Path) -> Iterator[tuple[str, float, psutil.Process]]:
    """`braid ui` on the directory: its address, the seconds from its start to the address, and the process."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "orchestrator", "ui", str(directory), "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            yield address, time.perf_counter() - began, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(SECONDS)


def ask(address: str, view: str, tag: str = "") -> tuple[float, int, bytes, str]:
    """Seconds, status, bytes and ETag of one answer."""
    place = urlsplit(address)
    token = parse_qs(place.query)["token"][0]
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=SECONDS)
    began = time.perf_counter()
    connection.request("GET", f"/api/{view}", headers={"Cookie": f"braid-{place.port}={token}", "If-None-Match": tag})
    answer = connection.getresponse()
    body = answer.read()
    spent = time.perf_counter() - began
    connection.close()
    return spent, answer.status, body, answer.headers.get("ETag", "")


def measure(directory: Path) -> tuple[float, list[Asked]]:
    """Median seconds to the address, and every view, each cold one of a server that was asked for nothing before."""
    found, starts = [], []
    for view in views(len(list((directory / "ledger" / "trajectories").iterdir()))):
        with served(directory) as (address, start, _):
            starts.append(start)
            cold, status, body, tag = ask(address, view)
            if status != 200:
                raise RuntimeError(f"{view}: {status} {body[:200]!r}")
            warm = min(ask(address, view)[0] for _ in range(3))
            same = min(ask(address, view, tag)[0] for _ in range(3))
            found.append(Asked(view, cold, warm, same, len(body) / 1024))
    return statistics.median(starts), found


def drawn(directory: Path) -> dict[str, float]:
    """Seconds in headless Chromium until the first view is drawn, from the browser's going to the address, and with
    the server's start."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        with served(directory) as (address, start, process):
            began = time.perf_counter()
            page.goto(address)
            page.wait_for_selector("main[aria-busy=false]", timeout=SECONDS * 1000)
            data = time.perf_counter() - began
            page.wait_for_selector("main .js-plotly-plot .main-svg, main svg.main-svg", timeout=SECONDS * 1000)
            charts = time.perf_counter() - began
            spent = sum(process.cpu_times()[:2])
        browser.close()
    told = {"server starts": start, "first view is there": data, "first chart is drawn": charts, "all": start + charts}
    return told | {"of that the server's processor": spent}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--each", type=int, default=100, help="trajectories a step")
    parser.add_argument("--at", type=Path, default=Path("runs/long"))
    parser.add_argument("--browser", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if not asked.at.exists():
        write(asked.at, Length(steps=asked.steps, each=asked.each))
    start, found = measure(asked.at)
    browser = drawn(asked.at) if asked.browser else {}
    if asked.json:
        print(json.dumps({"start": start, "views": [[o.view, o.cold, o.warm, o.same] for o in found], **browser}))
        return
    print(f"address after {start:.2f} s\n{'view':<48}{'cold s':>9}{'warm s':>9}{'same s':>9}{'KiB':>9}")
    for one in found:
        print(f"{one.view:<48}{one.cold:>9.3f}{one.warm:>9.3f}{one.same:>9.3f}{one.kilobytes:>9.1f}")
    for name, seconds in browser.items():
        print(f"{name}: {seconds:.2f} s")


if __name__ == "__main__":
    main()
