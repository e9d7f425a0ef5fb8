"""Draw a run's reward and held-out accuracy as one SVG: `PYTHONPATH=. python docs/curves.py RUN OUT.svg`."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from orchestrator.summary import wilson


def draw(run: Path, out: Path) -> None:
    """Rollout accuracy by step; probes with their 95 % intervals; the stages as bands."""
    rows = [json.loads(line) for line in (run / "ledger/metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "step"]
    probes = [row for row in rows if row["kind"] == "probe"]
    figure, axis = plt.subplots(figsize=(8, 3.6))
    for index, stage in enumerate(dict.fromkeys(row["stage"] for row in steps)):
        own = [row["step"] for row in steps if row["stage"] == stage]
        axis.axvspan(own[0] - 1, own[-1], color=f"C{index + 3}", alpha=0.08)
        axis.text(own[0] - 0.5, 1.01, stage, fontsize=9)
    drawn = [row for row in steps if row["accuracy"] is not None]
    axis.plot([r["step"] for r in drawn], [r["accuracy"] for r in drawn], "C7-", lw=1, label="rollouts of the step")
    for key, count, colour in (("greedy_accuracy", "n", "C0"), ("sampled_accuracy", "n_sampled", "C1")):
        bounds = [wilson(row[key], row[count]) for row in probes]
        axis.errorbar(
            [row["step"] for row in probes],
            [row[key] for row in probes],
            yerr=[
                [row[key] - low for row, (low, _) in zip(probes, bounds, strict=True)],
                [high - row[key] for row, (_, high) in zip(probes, bounds, strict=True)],
            ],
            fmt=f"{colour}o-",
            capsize=3,
            label=f"held out, {key.split('_')[0]} (n = {probes[-1][count]})",
        )
    axis.set(xlabel="step", ylabel="accuracy", ylim=(0, 1), xlim=(0, steps[-1]["step"]))
    axis.legend(fontsize=8)
    figure.savefig(out, bbox_inches="tight")


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
