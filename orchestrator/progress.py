"""`Progress`: what a run is doing now and how long it will take; a live panel on a terminal, plain lines elsewhere."""

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.config import Pipeline
from orchestrator.report.origins import ON_TERMINAL, SHARES, label
from orchestrator.report.visible import one_line

Row = Mapping[str, Any]

LINE_SECONDS = 2.0
"""Plain lines come no closer than this, but for the first and the last step of a stage."""
RECENT_STEPS = 20
BAR_WIDTH = 40
UNKNOWN = "–"


class Progress:
    """Eyes of one run. Rows are those of metrics.jsonl; a key that is absent or NaN is shown as unknown."""

    def __init__(self, pipeline: Pipeline, console: Console | None = None, line_seconds: float = LINE_SECONDS) -> None:
        self.name = pipeline.name
        self.stages = [(stage.name, stage.steps) for stage in pipeline.stages]
        self._console = console or Console(highlight=False)
        self._line_seconds = line_seconds
        self._last_line = self._last_decision = -math.inf
        self._decided: tuple[object, str] = (None, "")
        self._row: Row = {}
        self._probe: Row = {}
        self._phase = "starting"
        self._began = time.monotonic()
        self._seconds: deque[tuple[str, float]] = deque(maxlen=RECENT_STEPS)
        self._live = Live(console=self._console, get_renderable=self._panel, refresh_per_second=4)

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def total(self) -> int:
        """Steps of all stages."""
        return sum(steps for _, steps in self.stages)

    def course(self, stages: Sequence[tuple[str, int]]) -> None:
        """(name, steps) of the stages that ran and will: a repair adds one."""
        self.stages = list(stages)

    def phase(self, text: str) -> None:
        """What is being done between steps: `starting Ray`."""
        self._phase = text
        self._plain(f"phase {one_line(text)}")

    def step(self, row: Row) -> None:
        """A step is done."""
        self._row, self._phase = row, ""
        self._seconds.append((str(row.get("stage")), number(row, "seconds")))
        edge = row.get("stage_step") in (1, row.get("stage_steps"))
        now = time.monotonic()
        if edge or now - self._last_line >= self._line_seconds:
            self._last_line = now
            self._plain(step_line(row, self.total, self.seconds_left()))
        self._decision(row, now, told=edge)

    def _decision(self, row: Row, now: float, *, told: bool) -> None:
        """What was decided, when it is not what was told last; no closer together than lines are, but at edges."""
        decided = (row.get("stage"), str(row.get("decided") or ""))
        if decided != self._decided and (told or now - self._last_decision >= self._line_seconds):
            if decided[1] or self._decided[1]:
                self._plain(decision_line(row))
                self._last_decision = now
            self._decided = decided

    def probe(self, row: Row) -> None:
        """A probe is done."""
        self._probe = row
        self._tell(probe_line(row))

    def event(self, text: str) -> None:
        """Something that a person at the screen should read once."""
        self._tell(f"event {one_line(text, 2000)}")

    def close(self) -> None:
        """Leaves the terminal as it was; the last panel stays to be read."""
        self._live.stop()

    def seconds_left(self) -> float:
        """Steps left times the mean of recent steps: this stage's own for this stage, all stages' for later ones."""
        stage = str(self._row.get("stage"))
        recent = list(self._seconds)  # a copy: the panel is drawn by another thread
        everywhere = [seconds for _, seconds in recent if not math.isnan(seconds)]
        here = [seconds for name, seconds in recent if name == stage and not math.isnan(seconds)]
        if not everywhere:
            return math.nan
        left_here = int(number(self._row, "stage_steps", 0)) - int(number(self._row, "stage_step", 0))
        left = self.total - int(number(self._row, "step", 0))
        mean = sum(everywhere) / len(everywhere)
        return left_here * (sum(here) / len(here) if here else mean) + max(left - left_here, 0) * mean

    def _plain(self, line: str) -> None:
        if not self._console.is_terminal:
            self._console.print(line, markup=False, soft_wrap=True)

    def _tell(self, line: str) -> None:
        """Above the panel, or as a line."""
        if self._console.is_terminal:
            kind, _, rest = line.partition(" ")
            self._console.print(Text.assemble((f"{kind:>6} ", "bold cyan" if kind == "probe" else "bold yellow"), rest))
        else:
            self._plain(line)

    def _panel(self) -> Group:
        row = self._row
        elapsed, left = time.monotonic() - self._began, self.seconds_left()
        head = Text.assemble(("braid ", "bold"), self.name, (f"   {clock(elapsed)} elapsed, {clock(left)} left", "dim"))
        if self._phase:
            head.append(f"   {one_line(self._phase)} ...", style="yellow")
        bar = Table.grid(padding=(0, 1))
        step = int(number(row, "step", 0))
        bar.add_row(f"step {step}/{self.total}", ProgressBar(total=self.total, completed=step, width=BAR_WIDTH))
        lines: list[RenderableType] = [head, stage_line(self.stages, row), bar]
        if row:
            lines += [figures(LEARNING, {**row, "probe": self._probe.get("greedy_accuracy")}), speeds(row), shares(row)]
            lines += [figures(watched(row), row)] if watched(row) else []
            lines += [Text(f"decided {one_line(str(row['decided']))}", "dim")] if row.get("decided") else []
        return Group(*lines)


# ---------------------------------------------------------------- pure: rows to text

LEARNING = {
    "loss": "loss",
    "reward": "reward_mean",
    "accuracy": "accuracy",
    "probe": "probe",
    "on-policy": "on_policy_share",
    "staleness": "staleness_mean",
}


VERIFIERS = {"unknown": "unknown_share", "held-out": "held_out_mean", "gap": "held_out_gap"}
"""Share of responses without a verdict, mean held-out score, and the reward less it."""


def watched(row: Row) -> dict[str, str]:
    """Of the verifiers' figures those that are known and not 0."""
    known = {name: number(row, key, 0.0) for name, key in VERIFIERS.items()}
    return {name: VERIFIERS[name] for name, value in known.items() if value and not math.isnan(value)}


def number(row: Row, key: str, default: float = math.nan) -> float:
    """A figure of the row; `default` where it is absent or null."""
    value = row.get(key)
    return default if value is None else float(value)


def shown(value: float) -> str:
    """Four significant digits, or a dash for what is unknown."""
    return UNKNOWN if math.isnan(value) else f"{value:.4g}"


def rate(row: Row, tokens: str, seconds: str) -> float:
    """Tokens a second; NaN where no time was spent."""
    spent = number(row, seconds)
    return number(row, tokens) / spent if spent > 0 else math.nan


def clock(seconds: float) -> str:
    """1:02:03, or a dash for what is unknown."""
    if math.isnan(seconds):
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def step_line(row: Row, total: int, seconds_left: float) -> str:
    """A step as one line of key=value pairs, without blanks in values."""
    facts = {
        "step": f"{row.get('step')}/{total}",
        "stage": row.get("stage"),
        "stage_step": f"{row.get('stage_step')}/{row.get('stage_steps')}",
        **{key: shown(number(row, key)) for key in ("loss", "reward_mean", "accuracy", "staleness_mean")},
        **{key: shown(number(row, key)) for key in SHARES if number(row, key, 0.0) > 0},
        **{key: shown(number(row, key)) for key in watched(row).values()},
        "rollout_tokens_per_second": shown(round(rate(row, "tokens_generated", "seconds_generate"), 0)),
        "train_tokens_per_second": shown(round(rate(row, "tokens_trained", "seconds_train"), 0)),
        "seconds": shown(number(row, "seconds")),
        "left": clock(seconds_left),
    }
    return " ".join(f"{key}={value}" for key, value in facts.items() if value != UNKNOWN)


def decision_line(row: Row) -> str:
    """What was decided for a step, in a few words; `as the recipe says` where no control departs from it."""
    decided = one_line(str(row.get("decided") or "as the recipe says"))
    return f"decided step={row.get('step')} stage={row.get('stage')} {decided}"


def probe_line(row: Row) -> str:
    """A probe as one line."""
    keys = ("greedy_accuracy", "sampled_accuracy")
    told = " ".join(f"{key}={shown(number(row, key))}" for key in keys)
    return f"probe step={row.get('step')} stage={row.get('stage')} {told} n={row.get('n')}"


def stage_line(stages: list[tuple[str, int]], row: Row) -> Text:
    """Stages in order: those done, the one at work with its count, those to come."""
    now = [name for name, _ in stages].index(row["stage"]) if row else 0
    text = Text()
    for index, (name, steps) in enumerate(stages):
        at = row.get("stage_step", 0) if index == now else 0
        style = {-1: "green", 0: "bold", 1: "dim"}[(index > now) - (index < now)]
        mark = {-1: "✓ ", 0: "▶ ", 1: "  "}[(index > now) - (index < now)]
        text.append(f"{mark}{name} ", style=style).append(f"{at}/{steps}   " if index == now else f"{steps}   ", "dim")
    return text


def figures(keys: Mapping[str, str], row: Row) -> Text:
    """Names and figures side by side."""
    text = Text()
    for name, key in keys.items():
        text.append(f"{name} ", "dim").append(f"{shown(number(row, key)):<10}")
    return text


def speeds(row: Row) -> Text:
    """Tokens a second of rollout and training, and the step's length."""
    return figures(
        {"rollout tok/s": "r", "train tok/s": "t", "step s": "s"},
        {
            "r": round(rate(row, "tokens_generated", "seconds_generate"), 0),
            "t": round(rate(row, "tokens_trained", "seconds_train"), 0),
            "s": number(row, "seconds"),
        },
    )


def shares(row: Row, width: int = BAR_WIDTH) -> Text:
    """A bar of who wrote the trained tokens, and its legend."""
    known = {key: share for key in SHARES if (share := number(row, key, 0.0)) > 0}
    text = Text().append("tokens from ", "dim")
    edges = [0.0]
    for share in known.values():
        edges.append(edges[-1] + share)
    for key, (start, end) in zip(known, pairwise(edges), strict=True):
        text.append("█" * (round(end * width) - round(start * width)), style=ON_TERMINAL[SHARES[key]])
    for key, share in known.items():
        text.append(f"  {label(key)} {share:.0%}", style=ON_TERMINAL[SHARES[key]])
    return text
