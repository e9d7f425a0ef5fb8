"""Who may ask the page's server and what it answers: in process, and once as the process that a user starts."""

import gzip
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient

from orchestrator.json_lines import JsonLines
from orchestrator.page import documents
from orchestrator.page.documents import Asked, Reading
from orchestrator.page.gate import Gate, hosts, name_of, new_token
from orchestrator.page.server import Front, Server
from orchestrator.ui import is_loopback, serve
from policies.bad_input import BadInput
from tests.build_page_run import Planted, build_page_run, short_page_run
from tests.build_run import build_run

TOKEN = new_token()
PAGE = "<!doctype html><title>page</title><style nonce='{}'></style>"
FRONT = Front(PAGE.format, {"app.js": (b"let page = 1;", "text/javascript; charset=utf-8")})
HERE = {"host": "127.0.0.1:8000"}
SECONDS = 60.0


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return short_page_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def root(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two runs, and a secret outside of it."""
    base = tmp_path_factory.mktemp("served")
    build_run(base / "runs" / "first", probes=False)
    build_run(base / "runs" / "deeper" / "second", probes=False, until=9)
    build_run(base / "outside", probes=False)
    return base / "runs"


def asking(directory: Path, *, cookie: bool = True) -> TestClient:
    gate = Gate(Server(directory, FRONT).app(), TOKEN, hosts("127.0.0.1"), "braid-8000")
    cookies = {"braid-8000": TOKEN} if cookie else {}
    return TestClient(gate, base_url="http://127.0.0.1:8000", cookies=cookies, raise_server_exceptions=False)


# ---------------------------------------------------------------- who may ask


@pytest.mark.parametrize("path", ["/", "/api/run", "/api/runs", "/api/stream", "/assets/app.js", "/nothing"])
@pytest.mark.parametrize(
    "token",
    [None, "", "wrong", TOKEN[:-1], TOKEN + "x", "ü"],
    ids=["none", "empty", "wrong", "short", "long", "strange"],
)
def test_without_the_token_nothing_is_told(planted: Planted, path: str, token: str | None) -> None:
    client = asking(planted.run.root, cookie=False)
    in_address = client.get(path, params={} if token is None else {"token": token})
    assert in_address.status_code == 403 and set(in_address.json()) == {"said", "fix"}
    assert "page-run" not in in_address.text
    if token and token.isascii():
        assert client.get(path, headers={"cookie": f"braid-8000={token}"}).status_code == 403
        assert client.get(path, headers={"cookie": f"braid-9000={TOKEN}"}).status_code == 403


def test_the_first_load_leaves_a_cookie_and_an_address_without_the_token(planted: Planted) -> None:
    client = asking(planted.run.root, cookie=False)
    first = client.get("/", params={"token": TOKEN})
    cookie = first.headers["set-cookie"]
    assert all(word in cookie.lower() for word in ("httponly", "samesite=strict", "path=/"))
    assert 'content="0;url=./"' in first.text and TOKEN not in first.text
    page = client.get("/")
    assert page.status_code == 200 and "<title>page" in page.text and TOKEN not in page.text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1:8000", ""])
def test_another_hosts_name_is_refused_token_or_not(planted: Planted, host: str) -> None:
    answer = asking(planted.run.root).get("/api/run", params={"token": TOKEN}, headers={"host": host})
    assert answer.status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:1234", "LOCALHOST", "[::1]:8000"])
def test_loopbacks_names_are_answered_at_any_port(planted: Planted, host: str) -> None:
    assert asking(planted.run.root).get("/api/run", headers={"host": host}).status_code == 200


def test_names_and_ports_are_told_apart() -> None:
    assert [name_of(one) for one in ("a:1", "A", "[::1]:80", "[::1]", "a:b")] == ["a", "a", "[::1]", "[::1]", "a:b"]
    assert "[fe80::1]" in hosts("fe80::1") and "box.lan" in hosts("Box.lan")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/api/run", "/assets/app.js"])
def test_nothing_can_be_written(planted: Planted, method: str, path: str) -> None:
    answer = asking(planted.run.root).request(method, path, params={"token": TOKEN})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("site", "status"), [("same-origin", 200), ("none", 200), ("cross-site", 403), ("same-site", 403)]
)
def test_a_cookie_counts_for_our_own_page_alone(planted: Planted, site: str, status: int) -> None:
    assert asking(planted.run.root).get("/api/run", headers={"sec-fetch-site": site}).status_code == status


def test_every_answer_tells_the_browser_to_be_strict(planted: Planted) -> None:
    client = asking(planted.run.root)
    for path in ("/", "/api/run", "/api/nothing", "/assets/app.js", "/nothing", f"/?token={TOKEN}"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer" and "access-control-allow-origin" not in headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe-eval" not in headers["content-security-policy"]
    policies = {client.get("/").headers["content-security-policy"] for _ in range(2)}
    assert len(policies) == 2, "each page has its own nonce"
    rules = dict(rule.strip().partition(" ")[::2] for rule in policies.pop().split(";"))
    assert rules["script-src"] == "'self'" and "unsafe-inline" not in rules["style-src"]
    page = client.get("/")
    nonce = page.headers["content-security-policy"].partition("'nonce-")[2].partition("'")[0]
    assert f"nonce='{nonce}'" in page.text


# ---------------------------------------------------------------- what is answered


def test_documents_are_the_functions_own(planted: Planted) -> None:
    client, reading = asking(planted.run.root), Reading.open(planted.run.root)
    asked = {
        "run": documents.run(reading),
        "braid?from=5&to=20&points=3": documents.braid(reading, 5, 20, 3),
        "curves?points=4": documents.curves(reading, points=4),
        "decided?from=7": documents.decided(reading, 7),
        "decisions?before=9&limit=2": documents.decisions(reading, before=9, limit=2),
        "support?set=guard&sort=lost&limit=3": documents.support(reading, Asked("guard", sort="lost", limit=3)),
        "prompt?id=q005&step=6": documents.prompt(reading, "q005", step=6),
        "handoffs": documents.handoffs(reading),
        "handoff?stage=braid": documents.handoff(reading, "braid"),
        "reach": documents.reach(reading),
        "costs": documents.costs(reading),
        "trajectories?strand=hinted&limit=3&before=12": documents.trajectories(
            reading, documents.Wanted(strand="hinted"), documents.Page(before=12, limit=3)
        ),
        "trajectory?step=8&row=1&most=20": documents.trajectory(reading, 8, 1, most=20),
        "runs": documents.runs(planted.run.root),
        "compare?runs=.": documents.compare({".": reading}),
    }
    for path, expected in asked.items():
        answer = client.get(f"/api/{path}")
        assert answer.status_code == 200, (path, answer.text)
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == expected, path
    assert client.get("/api/report").status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        ("nothing", 404, "nothing"),
        ("run?step=1", 400, "step"),
        ("braid?points=many", 400, "points"),
        ("braid?pionts=3", 400, "points"),
        ("braid?from=99999999999999999999", 400, "from"),
        ("trajectory", 400, "step"),
        ("trajectory?step=8&row=999", 400, "row"),
        ("trajectories?sort=nothing", 400, "sort"),
        ("trajectories?least=x", 400, "least"),
        ("support?sort=x", 400, "sort"),
        ("handoff?stage=..%2F..%2Fsummary", 400, "stage"),
        ("handoff", 400, "stage"),
        ("prompt", 400, "id"),
        ("run?run=nobody", 400, "nobody"),
        ("compare?runs=", 400, "runs"),
        (f"trajectories?text={'x' * 2000}", 400, "text"),
    ],
)
def test_what_is_wrong_with_a_question_is_said(planted: Planted, path: str, status: int, word: str) -> None:
    answer = asking(planted.run.root).get(f"/api/{path}")
    assert answer.status_code == status and word in answer.json()["said"]


def test_an_answer_that_is_known_already_is_not_sent_again(planted: Planted, tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", probes=False, until=9)
    client = asking(run.root)
    for name in ("run", "braid", "decisions", "trajectories", "costs", "support", "runs"):
        first = client.get(f"/api/{name}")
        again = client.get(f"/api/{name}", headers={"if-none-match": f'W/"x", {first.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
    tags = {name: client.get(f"/api/{name}").headers["etag"] for name in ("run", "braid", "trajectories")}
    row = json.loads(run.metrics.read_text().splitlines()[-1]) | {"step": 10}
    lines = JsonLines(run.metrics)
    lines.append(row)
    lines.close()
    now = {name: client.get(f"/api/{name}", headers={"if-none-match": tag}) for name, tag in tags.items()}
    assert {name: answer.status_code for name, answer in now.items()} == {"run": 200, "braid": 200, "trajectories": 304}
    assert now["braid"].json()["last"] == 10
    assert client.get("/api/braid?points=2").headers["etag"] != client.get("/api/braid?points=3").headers["etag"]


def test_large_answers_are_compressed_for_who_can_read_that(planted: Planted) -> None:
    client = asking(planted.run.root)
    packed = client.get("/api/trajectories", headers={"accept-encoding": "gzip"})
    plain = client.get("/api/trajectories", headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    assert packed.json() == plain.json() and len(gzip.compress(plain.content)) < len(plain.content)


def test_assets_are_kept_while_they_are_the_same(planted: Planted) -> None:
    client = asking(planted.run.root)
    first = client.get("/assets/app.js")
    assert first.text == "let page = 1;" and first.headers["cache-control"] == "private, no-cache"
    tag = first.headers["etag"]
    assert client.get("/assets/app.js", headers={"if-none-match": tag}).status_code == 304
    named = client.get("/assets/app.js", params={"v": tag.strip('"')})
    assert "immutable" in named.headers["cache-control"]
    assert client.get("/assets/other.js").status_code == 404


def test_text_that_a_model_wrote_is_sent_as_json_alone(planted: Planted) -> None:
    client = asking(planted.run.root)
    answer = client.get("/api/prompt?id=q005")
    assert "<script>" in answer.text and answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


# ---------------------------------------------------------------- several runs


@pytest.mark.parametrize(
    "name",
    ["../outside", "first/../../outside", "/etc", "..", "first/..%00", "deeper", "first/ledger", "x" * 5000, "\x00"],
)
def test_no_name_leads_out_of_the_directory(root: Path, name: str) -> None:
    answer = asking(root).get("/api/run", params={"run": name})
    assert answer.status_code == 400 and "no run" in answer.json()["said"]


def test_a_link_out_of_the_directory_is_not_followed(root: Path) -> None:
    link = root / "link"
    link.symlink_to(root.parent / "outside")
    try:
        assert asking(root).get("/api/run", params={"run": "link"}).status_code == 400
        assert "link" not in {one["run"] for one in asking(root).get("/api/runs").json()["runs"]}
    finally:
        link.unlink()


def test_runs_of_a_directory_are_asked_by_name(root: Path) -> None:
    client = asking(root)
    told = client.get("/api/runs").json()
    assert {one["run"] for one in told["runs"]} == {"first", "deeper/second"}
    assert client.get("/api/braid", params={"run": "deeper/second"}).json()["last"] == 9
    assert client.get("/api/run").json()["fresh"]["step"] == next(
        one["step"] for one in told["runs"] if one["run"] == told["runs"][0]["run"]
    )
    both = client.get("/api/compare", params={"runs": "first,deeper/second"}).json()
    assert [one["run"] for one in both["runs"]] == ["first", "deeper/second"]


def test_a_directory_without_runs_says_so(tmp_path: Path) -> None:
    client = asking(tmp_path)
    assert client.get("/api/runs").json()["runs"] == []
    assert client.get("/api/run").status_code == 400


# ---------------------------------------------------------------- the process


def test_other_machines_are_let_in_only_when_that_is_spelt_out(planted: Planted, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--expose"):
        serve(planted.run.root, host="192.0.2.1")
    with pytest.raises(BadInput, match="--host"):
        serve(planted.run.root, host="0.0.0.0", expose=True)
    with pytest.raises(BadInput, match="no such directory"):
        serve(tmp_path / "nothing")
    assert [is_loopback(one) for one in ("127.0.0.1", "127.8.8.8", "::1", "localhost", "10.0.0.1", "example.org")] == [
        *(True,) * 4,
        *(False,) * 2,
    ]


class Process:
    """`braid ui` as a user starts it."""

    def __init__(self, directory: Path) -> None:
        command = [sys.executable, "-m", "orchestrator", "ui", str(directory), "--no-open"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        self.port = urlsplit(self.address).port
        self.token = parse_qs(urlsplit(self.address).query)["token"][0]

    def get(self, path: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        connection.request("GET", path, headers={"Cookie": f"braid-{self.port}={self.token}"})
        return connection.getresponse()

    def end(self, how: signal.Signals) -> tuple[int, str]:
        """Exit code, and everything that it wrote besides the address."""
        os.killpg(self.process.pid, how)
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out + err


@pytest.fixture
def going_on(tmp_path: Path) -> Iterator[tuple[Planted, Process]]:
    planted = build_page_run(tmp_path / "run", (("warm-start", 3), ("braid", 4)), until=4)
    process = Process(planted.run.root)
    try:
        yield planted, process
    finally:
        process.process.kill()
        process.process.wait(SECONDS)


def read_event(answer: http.client.HTTPResponse) -> dict[str, object]:
    while True:
        line = answer.readline().decode()
        assert line, "the stream ended"
        if line.startswith("data: "):
            return dict(json.loads(line.removeprefix("data: ")))


def test_a_run_that_goes_on_is_seen_live_and_the_process_ends_when_told(going_on: tuple[Planted, Process]) -> None:
    planted, process = going_on
    assert urlsplit(process.address).hostname == "127.0.0.1"
    stream = process.get("/api/stream")
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert read_event(stream) == {"step": 4, "status": "running", "documents": []}

    lines = JsonLines(planted.run.metrics)
    lines.append(json.loads(planted.run.metrics.read_text().splitlines()[-1]) | {"step": 5})
    lines.close()
    told = read_event(stream)
    assert told["step"] == 5 and {"run", "braid", "curves"} <= set(told["documents"])  # type: ignore[call-overload]
    assert "trajectories" not in told["documents"]  # type: ignore[operator]
    assert json.load(process.get("/api/braid"))["last"] == 5

    shutil.copy(planted.run.trajectory_file(4), planted.run.trajectories / "step=000005.parquet.tmp")
    (planted.run.trajectories / "step=000005.parquet.tmp").rename(planted.run.trajectory_file(5))
    while "trajectories" not in told["documents"]:  # type: ignore[operator]
        told = read_event(stream)
    assert json.load(process.get("/api/trajectories?limit=1"))["steps"] == [1, 5]

    began = time.monotonic()
    code, told_too = process.end(signal.SIGINT)
    assert time.monotonic() - began < 30, "an open stream does not hold the process"
    assert code in (0, 130, -signal.SIGINT)
    assert told_too.strip() == "" and process.token not in told_too


def test_the_page_itself_comes_with_its_assets(going_on: tuple[Planted, Process]) -> None:
    _, process = going_on
    page = process.get("/").read().decode()
    names = [part.partition('"')[0] for part in page.split('src="assets/')[1:]]
    assert any("plotly" in name for name in names)
    for name in names:
        answer = process.get(f"/assets/{name}")
        assert answer.status == 200 and "immutable" in answer.headers["cache-control"]
        answer.read()
    assert process.get("/assets/..%2f..%2fassets.py").status == 404
    code, told = process.end(signal.SIGTERM)
    assert told == "" and code in (0, -signal.SIGTERM)
