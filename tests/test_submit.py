"""Submission against a real `ray start --head` with token authentication, on free ports, in a private folder."""

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from deploy import submit as submission
from deploy.submit import Dashboard, NotSubmittedError, connect, entrypoint, start, submit, watch

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 60.0


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


def status(url: str, token: str = "") -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def processes_of(folder: Path) -> list[int]:
    """Ids of processes whose command line names the cluster's private folder: that cluster's own."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


def end(head: subprocess.Popen[bytes], folder: Path) -> None:
    """End the cluster by the ids of its own processes; never `ray stop`, which ends every Ray of the machine."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in {head.pid, *processes_of(folder)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(timeout=5)
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Head:
    address: str
    token: str


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="braid-test-"))
    gcs, dashboard, client, agent = free_ports(4)
    token = secrets.token_hex(32)
    binaries = Path(sys.executable).parent
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTEST_"))}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PATH"] = f"{binaries}{os.pathsep}{environment['PATH']}"
    command = [str(binaries / "ray"), "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2"]
    command += [f"--port={gcs}", f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    command += [f"--temp-dir={folder}", f"--object-store-memory={100 << 20}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{dashboard}"
        deadline = time.monotonic() + START_SECONDS
        while status(f"{address}/api/jobs/", token) != 200:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the cluster did not start:\n{(folder / 'log').read_text()}")
            time.sleep(0.3)
        yield Head(address, token)
    finally:
        end(process, folder)
        assert processes_of(folder) == []


@pytest.fixture
def token(head: Head, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
    return head.token


@pytest.mark.ray
def test_the_cluster_refuses_who_has_no_token_or_a_wrong_one(head: Head) -> None:
    assert status(f"{head.address}/api/jobs/") == 401
    assert status(f"{head.address}/api/jobs/", "0" * 64) == 403
    assert status(f"{head.address}/api/jobs/", head.token) == 200


@pytest.mark.ray
def test_a_job_runs_in_the_checkout_and_its_log_is_followed(
    head: Head, token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import os, deploy.attempt as a; print(a.__file__, os.path.exists('.git'), 'RAY_ADDRESS' in os.environ)"
    dashboard = connect(head.address)
    job = start(dashboard, f'python -c "{code}"')
    assert asyncio.run(watch(dashboard, job)) == 0
    printed = capsys.readouterr().out
    assert re.search(r"working_dir_files/\S+/deploy/attempt.py False True", printed)


@pytest.mark.ray
def test_a_failed_job_exits_as_the_run_did(head: Head, token: str, capsys: pytest.CaptureFixture[str]) -> None:
    dashboard = connect(head.address)
    job = start(dashboard, "python -c 'print(\"so far\"); raise SystemExit(3)'")
    assert asyncio.run(watch(dashboard, job)) == 3
    printed = capsys.readouterr()
    assert "so far" in printed.out
    assert f"{job} failed" in printed.err
    assert token not in printed.out + printed.err


@pytest.mark.ray
def test_a_wrong_token_and_no_token_are_told_apart(head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    with pytest.raises(NotSubmittedError, match=r"refused the token \(403\)"):
        connect(head.address)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(NotSubmittedError, match="wants a token; set RAY_AUTH_TOKEN"):
        connect(head.address)
    (tmp_path / "none").write_text(f"{head.token}\n")
    assert connect(head.address) == Dashboard(head.address, {"Authorization": f"Bearer {head.token}"})


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_pipeline_runs_as_a_job(head: Head, token: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    sets = ("stages.0.steps=2", "stages.1.steps=2", "stages.2.steps=2")
    assert submit(ROOT / "examples" / "quickstart.yaml", head.address, out=out, sets=sets, follow=True) == 0
    assert (out / "report.html").is_file()
    assert list((out / "checkpoints").glob("step-*"))


@pytest.fixture
def open_dashboard() -> Iterator[tuple[int, list[str]]]:
    """The port of a server that asks nobody for a token, and the Authorization headers that it was sent."""
    sent: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(self.headers.get("Authorization", ""))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], sent
        server.shutdown()


def test_an_open_cluster_is_refused_unless_allowed_and_never_sent_the_token(
    open_dashboard: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, sent = open_dashboard
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    elsewhere = f"http://0.0.0.0:{port}"  # reaches this machine, but by a name that is not loopback
    with pytest.raises(NotSubmittedError, match="takes jobs from anyone"):
        connect(elsewhere)
    assert connect(elsewhere, allow_unauthenticated=True) == Dashboard(elsewhere, {})
    assert connect(f"127.0.0.1:{port}") == Dashboard(f"http://127.0.0.1:{port}", {})
    assert sent == ["", "", ""]


def test_bad_input_ends_before_anything_is_contacted(capsys: pytest.CaptureFixture[str]) -> None:
    nobody = "http://127.0.0.1:1"
    example = ROOT / "pyproject.toml"
    assert submit("missing.yaml", nobody, out="/runs/a") == 2
    assert submit("/etc/hostname", nobody, out="/runs/a") == 2
    assert submit(example, nobody, out="runs/a") == 2
    assert submit(example, "ray://127.0.0.1:10001", out="/runs/a") == 2
    assert submit(example, nobody, out="/runs/a") == 2
    lines = capsys.readouterr().err.splitlines()
    assert [
        fix in line
        for fix, line in zip(
            ("no such file", "outside", "relative", "no dashboard", "does not answer"), lines, strict=True
        )
    ] == [True] * 5


def test_the_entrypoint_keeps_awkward_values_whole() -> None:
    command = entrypoint(ROOT / "pyproject.toml", "/runs/a b", ("model.path=/data/x; rm -rf y", "seed=3"))
    assert command == (
        "python -m orchestrator run pyproject.toml --out '/runs/a b' --set 'model.path=/data/x; rm -rf y' --set seed=3"
    )


@pytest.mark.parametrize(
    ("base", "loopback"),
    [
        ("http://127.0.0.1:8265", True),
        ("http://127.9.9.9:1", True),
        ("http://[::1]:8265", True),
        ("http://localhost:8265", True),
        ("http://localhost.example:8265", False),
        ("http://192.0.2.7:8265", False),
        ("http://0.0.0.0:8265", False),
    ],
)
def test_only_this_machine_is_loopback(base: str, loopback: bool) -> None:
    assert submission._is_loopback(base) is loopback
