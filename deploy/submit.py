"""`braid submit`: run a pipeline as a Ray job on a cluster that stands already, and follow it to its outcome.

The checkout travels as the job's working directory, so the cluster needs the packages of the lock and nothing of Braid.
Nothing is sent before the file, the address and the cluster's authentication have been looked at. The token is never
printed, and never sent to a cluster that does not ask for one.
"""

import asyncio
import ipaddress
import json
import logging
import os
import shlex
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from ray.job_submission import JobSubmissionClient

ROOT = Path(__file__).resolve().parents[1]
EXCLUDES = (
    ".git",
    ".venv",
    "runs",
    "models",
    "tests",
    "docs",
    "benchmarks",
    ".mypy_cache",
    ".ruff_cache",
    "__pycache__",
)
QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 4
ANSWER_SECONDS = 15.0
"""Longest wait for one answer of the cluster's dashboard."""
LOST_SECONDS = 120.0
"""A dashboard silent for so long while a job is followed is given up; the job itself goes on."""
POLL_SECONDS = 1.0


class NotSubmittedError(Exception):
    """Nothing was submitted, for a reason that the caller can mend."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A cluster's dashboard that answers, and the headers that it wants."""

    address: str
    headers: Mapping[str, str]

    def job(self, job: str) -> dict[str, Any]:
        """What the cluster knows of a job: `status`, `message`, `driver_exit_code`, ..."""
        status, body = _get(f"{self.address}/api/jobs/{job}", self.headers)
        if status != 200:
            raise ConnectionError(f"{self.address} answered {status} when asked for {job}")
        found: dict[str, Any] = json.loads(body)
        return found


def submit(
    path: Path | str,
    address: str,
    *,
    out: Path | str,
    sets: Sequence[str] = (),
    follow: bool = False,
    allow_unauthenticated: bool = False,
) -> int:
    """Submit a pipeline file; returns 0, or 2 when nothing was submitted. With `follow`: the run's own exit code.

    `out` is the run directory on the cluster, absolute. `sets` are `key=value` overrides, as for `braid run`.
    """
    try:
        command = entrypoint(path, out, sets)
        dashboard = connect(address, allow_unauthenticated=allow_unauthenticated)
        job = start(dashboard, command)
    except NotSubmittedError as error:
        print(f"submit: {error}", file=sys.stderr)
        return REFUSED
    print(f"submitted {job} to {dashboard.address}; the run directory on the cluster is {out}")
    return asyncio.run(watch(dashboard, job)) if follow else DONE


def entrypoint(path: Path | str, out: Path | str, sets: Sequence[str] = ()) -> str:
    """The job's command line: `python` is the one on the cluster's own path."""
    file = Path(path).resolve()
    if not file.is_file():
        raise NotSubmittedError(f"{path}: no such file; give a pipeline file")
    if not file.is_relative_to(ROOT):
        raise NotSubmittedError(f"{path}: lies outside the checkout {ROOT}, which is all that travels; put it inside")
    if not Path(out).is_absolute():
        raise NotSubmittedError(f"--out: '{out}' is relative, and would go with the job; give a path on the cluster")
    overrides = [word for override in sets for word in ("--set", override)]
    words = ["python", "-m", "orchestrator", "run", str(file.relative_to(ROOT)), "--out", str(out), *overrides]
    return shlex.join(words)


def connect(address: str, *, allow_unauthenticated: bool = False) -> Dashboard:
    """A dashboard that answers and lets us in; NotSubmittedError says why not, and what would help."""
    base = _base(address)
    status, _ = _asked(base, {})
    if status == 200:
        if not allow_unauthenticated and not _is_loopback(base):
            raise NotSubmittedError(
                f"{base} takes jobs from anyone who reaches it; start the cluster with RAY_AUTH_MODE=token, "
                "or say --allow-unauthenticated"
            )
        return Dashboard(base, {})
    if status not in (401, 403):
        raise NotSubmittedError(f"{base} answered {status} to a request for its jobs; is it a Ray dashboard?")
    token = _token()
    if not token:
        raise NotSubmittedError(f"{base} wants a token; set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file with it")
    headers = {"Authorization": f"Bearer {token}"}
    status, _ = _asked(base, headers)
    if status != 200:
        raise NotSubmittedError(f"{base} refused the token ({status}); RAY_AUTH_TOKEN must be the cluster's own")
    return Dashboard(base, headers)


def start(dashboard: Dashboard, command: str) -> str:
    """Send the checkout and start `command` in it; returns the job's id."""
    logging.getLogger("ray").setLevel(logging.ERROR)  # it would list every file that it leaves out
    client = JobSubmissionClient(dashboard.address, headers=dict(dashboard.headers))
    environment = {"working_dir": str(ROOT), "excludes": list(EXCLUDES), "env_vars": dict(QUIET)}
    try:
        return str(client.submit_job(entrypoint=command, runtime_env=environment))
    except RuntimeError as error:
        raise NotSubmittedError(f"{dashboard.address} refused the job: {error}") from error


async def watch(dashboard: Dashboard, job: str) -> int:
    """Print the job's log as it grows; returns what the run itself exited with."""
    client = JobSubmissionClient(dashboard.address, headers=dict(dashboard.headers))
    try:
        async for lines in client.tail_job_logs(job):
            print(lines, end="", flush=True)
    except (RuntimeError, aiohttp.ClientError) as error:
        print(f"submit: the log of {job} broke off ({error}); waiting for its outcome", file=sys.stderr)
    except asyncio.CancelledError:
        print(f"submit: no longer following; {job} goes on", file=sys.stderr)
        return INTERRUPTED
    try:
        return await _outcome(dashboard, job)
    except (ConnectionError, TimeoutError) as error:
        print(f"submit: {dashboard.address} has been silent for {LOST_SECONDS:g} s ({error})", file=sys.stderr)
        return FAILED


async def _outcome(dashboard: Dashboard, job: str) -> int:
    """Wait for the job's end; ConnectionError when the dashboard is silent for LOST_SECONDS."""
    heard = time.monotonic()
    while True:
        try:
            found = await asyncio.to_thread(dashboard.job, job)
            heard = time.monotonic()
        except ConnectionError:
            if time.monotonic() - heard > LOST_SECONDS:
                raise
            found = {}
        match found.get("status"):
            case "SUCCEEDED":
                return DONE
            case "STOPPED":
                print(f"submit: {job} was stopped", file=sys.stderr)
                return INTERRUPTED
            case "FAILED":
                print(f"submit: {job} failed: {found.get('message')}", file=sys.stderr)
                return found.get("driver_exit_code") or FAILED
            case _:
                await asyncio.sleep(POLL_SECONDS)


def _base(address: str) -> str:
    """`host:port` or an http(s) URL -> a URL without a path; anything else is refused."""
    url = address if "://" in address else f"http://{address}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise NotSubmittedError(f"--address: '{address}' is no dashboard; give one like http://127.0.0.1:8265")
    return f"{parts.scheme}://{parts.netloc}"


def _is_loopback(base: str) -> bool:
    host = urlsplit(base).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _asked(base: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    try:
        return _get(f"{base}/api/jobs/", headers)
    except ConnectionError as error:
        raise NotSubmittedError(f"{base} does not answer ({error}); is the cluster up, and its port open?") from error


def _get(url: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """Status and body; ConnectionError when nothing answers within ANSWER_SECONDS."""
    request = urllib.request.Request(url, headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""
    except (urllib.error.URLError, TimeoutError) as error:
        raise ConnectionError(str(getattr(error, "reason", error))) from error


def _token() -> str:
    """The cluster's token, from where Ray itself looks for it; empty when there is none."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""
