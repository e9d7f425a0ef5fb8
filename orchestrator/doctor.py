"""Is this machine fit for a run? Python, packages, names, disk, shared memory, cores, GPUs, Ray's authentication."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.guard import ROOT, strangers

LOCK = ROOT / "requirements" / "cpu.lock"
GIB = 1 << 30
LEAST_DISK = 2 * GIB
"""A small run writes checkpoints of some hundred MiB; below this the first may not fit."""
LEAST_SHARED = 256 << 20
"""Ray keeps objects in shared memory; with less it falls back to the disk, slowly."""
LEAST_MEMORY = 4 * GIB
"""One vLLM replica, one learner and Ray of a tiny model."""
GPU_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    name: str
    status: Literal["ok", "note", "broken"]
    said: str
    fix: str = ""


def examine(folder: Path, environment: Mapping[str, str] = os.environ) -> tuple[Finding, ...]:
    """Every finding; `folder` is where runs are to be written."""
    return (
        _python(),
        *_packages(LOCK),
        _names(),
        _room("disk", folder, LEAST_DISK, "broken"),
        _room("shared memory", Path("/dev/shm"), LEAST_SHARED, "note"),
        _memory(),
        _cores(),
        _gpu(),
        _sandbox(),
        _ray(environment),
    )


def healthy(findings: tuple[Finding, ...]) -> bool:
    """Whether nothing is broken."""
    return all(finding.status != "broken" for finding in findings)


def _python() -> Finding:
    version = platform.python_version()
    if version.startswith("3.11."):
        return Finding("python", "ok", version)
    return Finding("python", "broken", version, "use Python 3.11: make setup")


def _packages(lock: Path) -> Iterator[Finding]:
    """Every package of the lock against what is installed."""
    if not lock.is_file():
        yield Finding("packages", "note", f"no lock at {lock}", "run from a full checkout to compare versions")
        return
    wanted = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", lock.read_text(encoding="utf-8"), flags=re.M))
    wrong = [line for name, version in wanted.items() if (line := _difference(name, version))]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        said = f"{len(wrong)} of {len(wanted)} differ from the lock: {', '.join(wrong[:5])}{more}"
        yield Finding("packages", "broken", said, "make setup")
    else:
        yield Finding("packages", "ok", f"all {len(wanted)} as locked")


def _difference(name: str, version: str) -> str:
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is missing"
    # torch on a GPU machine has another local version (+cu130) than the lock's (+cpu): the same release all the same.
    return "" if found.partition("+")[0] == version.partition("+")[0] else f"{name} {found} instead of {version}"


def _names() -> Finding:
    wrong = strangers()
    return (
        Finding("names", "broken", wrong[0]) if wrong else Finding("names", "ok", f"all packages are those of {ROOT}")
    )


def _room(name: str, folder: Path, least: int, otherwise: Literal["note", "broken"]) -> Finding:
    place = next((one for one in (folder, *folder.absolute().parents) if one.exists()), Path("/"))
    free = shutil.disk_usage(place).free
    said = f"{free / GIB:.1f} GiB free at {place}"
    if free >= least:
        return Finding(name, "ok", said)
    return Finding(name, otherwise, said, f"{least / GIB:.2g} GiB or more is advised")


def _memory() -> Finding:
    free = _meminfo().get("MemAvailable", 0)
    said = f"{free / GIB:.1f} GiB available"
    if free >= LEAST_MEMORY:
        return Finding("memory", "ok", said)
    return Finding(
        "memory", "note", said, f"{LEAST_MEMORY / GIB:.2g} GiB or more is advised; Ray ends actors when it runs out"
    )


def _meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    text = Path("/proc/meminfo").read_text() if Path("/proc/meminfo").is_file() else ""
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, flags=re.M)}


def _cores() -> Finding:
    usable, there = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    said = f"{usable} usable of {there}"
    if usable >= 2:
        return Finding("cores", "ok", said)
    return Finding("cores", "note", said, "rollouts and learner take turns on one core; 2 or more is advised")


def _gpu() -> Finding:
    command = shutil.which("nvidia-smi")
    if command is None:
        return Finding("gpu", "ok", "none found; runs on the CPU")
    query = [command, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=GPU_SECONDS, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        return Finding("gpu", "broken", f"nvidia-smi fails: {error}", "check the driver")
    return Finding("gpu", "ok", "; ".join(done.stdout.strip().splitlines()))


def _sandbox() -> Finding:
    """Whether programs that a model wrote can be run here: tried out, not read off the kernel's settings."""
    from verifiers.sandbox import NoSandboxError
    from verifiers.sandbox_probe import described, sandbox

    try:
        return Finding("sandbox", "ok", described(sandbox()))
    except NoSandboxError as error:
        fix = "only `program` verifiers and interpreters need it; docs/verifiers.md says what a machine must allow"
        return Finding("sandbox", "note", str(error), fix)


def _ray(environment: Mapping[str, str]) -> Finding:
    """Whoever reaches an unauthenticated Ray port runs code on the machine (CVE-2023-48022)."""
    mode, address = environment.get("RAY_AUTH_MODE", ""), environment.get("RAY_ADDRESS", "")
    if mode == "disabled":
        return Finding("ray", "broken", "RAY_AUTH_MODE=disabled", "unset it, or set RAY_AUTH_MODE=token")
    if address and mode != "token":
        return Finding("ray", "broken", f"RAY_ADDRESS={address} without RAY_AUTH_MODE=token", "set RAY_AUTH_MODE=token")
    return _token_file(environment, mode)


def _token_file(environment: Mapping[str, str], mode: str) -> Finding:
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if path.is_file() and path.stat().st_mode & 0o077:
        return Finding("ray", "note", f"others may read the token {path}", f"chmod 600 {path}")
    if mode == "token" and not path.is_file() and "RAY_AUTH_TOKEN" not in environment:
        return Finding(
            "ray", "note", f"no token at {path} yet", "the first local run makes one; a cluster gives you its own"
        )
    return Finding("ray", "ok", "token authentication")
