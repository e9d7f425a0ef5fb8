"""A model's program with this process's rights, for a machine that is itself a sandbox and whose owner said so."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verifiers.sandbox import JOB, PYTHON, Limits, Ran, supervised


@dataclass(frozen=True, slots=True)
class Unsandboxed:
    """Runs commands with time, output and memory limits and an empty environment, and nothing else between."""

    def run(self, command: Sequence[str], folder: Path, stdin: bytes, limits: Limits) -> Ran:
        """Run `command` with `folder` in place of /job."""
        here = [_moved(_moved(part, JOB, str(folder)), PYTHON, sys.base_prefix) for part in command]
        caps = {"c": 0, "t": int(limits.seconds) + 1, "v": limits.memory_bytes >> 10, "f": limits.file_bytes >> 9}
        set_all = " && ".join(f"ulimit -{name} {most}" for name, most in caps.items())
        with tempfile.TemporaryDirectory(prefix="braid-unsandboxed-") as work:
            told = ["/bin/sh", "-c", f'cd "$0" && {set_all} && exec "$@"', work, *here]
            return supervised(lambda _: told, stdin, limits)


def _moved(part: str, place: str, to: str) -> str:
    """A path below `place` as the same path below `to`."""
    return to + part.removeprefix(place) if part.startswith(f"{place}/") else part
