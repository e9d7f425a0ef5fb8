"""One attempt of a cluster job at a run: `python -m deploy.attempt PIPELINE RUN_DIRECTORY`.

KubeRay answers a failed job with a new cluster and the same command. The run directory on shared storage outlives both,
so the first attempt starts the run and every later one resumes it.
"""

import os
import sys
from pathlib import Path


def command(pipeline: Path, run: Path) -> list[str]:
    """`run` where nothing was started yet, `resume` where a run directory stands."""
    braid = [sys.executable, "-m", "orchestrator"]
    if (run / "config.yaml").is_file():
        return [*braid, "resume", str(run)]
    return [*braid, "run", str(pipeline), "--out", str(run)]


def main(arguments: list[str]) -> None:
    """Become the command, so that the job's signals reach the run itself."""
    if len(arguments) != 2:
        sys.exit("usage: python -m deploy.attempt PIPELINE RUN_DIRECTORY")
    chosen = command(Path(arguments[0]), Path(arguments[1]))
    print("attempt:", *chosen[1:], flush=True)
    os.execv(chosen[0], chosen)


if __name__ == "__main__":
    main(sys.argv[1:])
