"""`write`: report.html, one file that needs neither network nor server, of a run that may still be going on."""

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from orchestrator.history import History, read_history
from orchestrator.progress import UNKNOWN, clock, shown
from orchestrator.report.charts import figures
from orchestrator.report.decision_charts import decision_figures
from orchestrator.report.gradient_charts import gradient_figures
from orchestrator.report.origins import COLOURS
from orchestrator.report.samples import Sample, load, ordered, steps_of, told_of
from orchestrator.report.traces import Figure
from orchestrator.report.verdict_charts import verdict_figures
from orchestrator.report.visible import visible
from orchestrator.summary import PARTS, responses_by_strand, summarise
from policies.trajectory import Origin

MOST_ROWS = 500
"""Decisions, and events, of a long run: the newest so many are in the report; the ledger has them all."""
MOST_SAMPLES_A_STRAND = 2
TEXT_CHARACTERS = 4000


def write(directory: Path) -> Path:
    """Writes report.html into the run directory, whole or not at all; returns its path."""
    history = read_history(directory)
    page = _environment().get_template("template.html.j2").render(**context(history))
    path = history.run.report
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)
    return path


def context(history: History) -> dict[str, Any]:
    """Everything that the template shows. Text stays text: the template escapes it."""
    return {
        "name": str(history.config.get("name", history.run.root.name)),
        "status": history.status,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "model": _model(history),
        "environment": _flat(history.environment),
        "config": yaml.safe_dump(dict(history.config), sort_keys=False, allow_unicode=True),
        "summary": summarise(history.run.root),
        "figures": figures(history),
        "decision_figures": decision_figures(history),
        "gradient_figures": gradient_figures(history),
        "verdict_figures": verdict_figures(history),
        "ways": [(stage, strand, way) for (stage, strand), way in responses_by_strand(history.steps).items()],
        "parts": (*PARTS, "other"),
        "decisions": history.decisions[-MOST_ROWS:],
        "decisions_total": len(history.decisions),
        "events": history.events[-MOST_ROWS:],
        "events_total": len(history.events),
        "samples": chosen(history),
        "origins": {origin.name.lower(): colour for origin, colour in COLOURS.items()},
        "plotly": Markup(get_plotlyjs()),
    }


def chosen(history: History) -> list[Sample]:
    """Of each stage's first and last step, for each strand: the best and the worst, and one without a verdict."""
    kept = set(steps_of(history.run))
    edges = dict.fromkeys(step for span in history.stages for step in (span.first, span.last) if step in kept)
    return [sample for step in edges if told_of(history.run, step) for sample in _telling(load(history.run, step))]


def _telling(samples: list[Sample]) -> Iterable[Sample]:
    for strand in dict.fromkeys(sample.strand for sample in samples):
        known = ordered([one for one in samples if one.strand == strand and one.reward == one.reward], "-reward")
        unknown = [one for one in samples if one.strand == strand and one.reward != one.reward]
        ends = known if len(known) <= MOST_SAMPLES_A_STRAND else [known[0], known[-1]]
        yield from ends + unknown[:1]


def _model(history: History) -> str:
    model = history.config.get("model")
    if not isinstance(model, dict):
        return UNKNOWN
    return " ".join(str(value) for value in model.values() if value is not None)


def _flat(environment: Any) -> dict[str, str]:
    """Nested facts as `packages.torch`."""
    flat: dict[str, str] = {}
    for key, value in environment.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": text for inner, text in _flat(value).items()}
        else:
            flat[str(key)] = UNKNOWN if value is None else str(value)
    return flat


# ---------------------------------------------------------------- template


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: visible(value, keep="\n\t") if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": _number,
        "percent": lambda value: UNKNOWN if value is None else f"{value:.1%}",
        "clock": lambda value: UNKNOWN if value is None else clock(value),
        "embed": _embed,
        "text": _text,
        "origin": lambda origin: "mixed" if origin is None else Origin(origin).name.lower(),
        "moment": lambda seconds: datetime.fromtimestamp(seconds or 0, UTC).strftime("%H:%M:%S"),
        "brief": _brief,
    }
    return environment


def _number(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return UNKNOWN if value is None else shown(float(value))


def _embed(figure: Figure) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(figure, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(text)  # no character of markup is left


def _text(text: str) -> str:
    """Model text: control characters made visible, cut to a length that a page bears."""
    cut = text if len(text) <= TEXT_CHARACTERS else text[:TEXT_CHARACTERS] + f"… ({len(text)} characters)"
    return visible(cut, keep="\n\t")


def _brief(value: Any) -> str:
    """A value of a row as short text; maps as `key value, key value`."""
    match value:
        case None:
            return UNKNOWN
        case float():
            return shown(value)
        case dict():
            told = {key: inner for key, inner in value.items() if inner not in ({}, [], "")}
            return ", ".join(f"{visible(str(key))} {_brief(inner)}" for key, inner in told.items())
        case list():
            return ", ".join(_brief(inner) for inner in value)
        case _:
            return visible(str(value))
