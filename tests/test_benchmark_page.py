"""The run that the benchmark of the page measures is whole, and every view that is timed answers."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from benchmarks.long_run import Length, write
from benchmarks.page import views
from orchestrator.page import documents
from orchestrator.page.documents import Page, Reading
from orchestrator.page.gate import Gate, hosts
from orchestrator.page.server import Front, Server


def test_a_long_run_is_whole_and_every_view_that_is_timed_is_answered(tmp_path: Path) -> None:
    run = write(tmp_path / "run", Length(steps=8, each=101, tokens=6, probes=2, prompts=20, samples=4))
    reading = Reading.open(run.root)
    told = documents.run(reading)
    assert (told["status"], told["totals"]["steps"], told["totals"]["probes"]) == ("finished", 8, 3)
    assert documents.trajectories(reading, page=Page(over="all"))["total"] == 8 * 101
    one = documents.trajectory(reading, 5, 100)
    assert len(one["tokens"]["g"]) == one["length"]
    shares = [sum(origin["shares"][at] for origin in documents.braid(reading)["origins"]) for at in range(8)]
    assert shares == pytest.approx([1.0] * 8, abs=1e-3)
    gate = Gate(Server(run.root, Front(str, {})).app(), "token", hosts("127.0.0.1"), "braid")
    client = TestClient(gate, base_url="http://127.0.0.1", cookies={"braid": "token"})
    assert {view: client.get(f"/api/{view}").status_code for view in views(8)} == dict.fromkeys(views(8), 200)
