"""The page itself: one front end, written into report.html whole, or handed out file by file by the server."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from orchestrator.report.origins import COLOURS, ON_DARK, ON_TERMINAL
from policies.trajectory import Origin

FRONT = Path(__file__).parent / "front"
STYLES = ("base.css", "frame.css", "parts.css", "views.css", "reader.css", "narrow.css")
SCRIPTS = (
    *("core.js", "data.js", "file_answers.js", "charts.js", "app.js", "estimates.js"),
    *("strip.js", "support_map.js", "tokens.js", "reader_list.js", "experiment.js"),
    *("view_braid.js", "view_support.js", "view_reach.js", "view_handoffs.js", "view_costs.js"),
    *("view_reader.js", "view_curves.js", "view_runs.js", "start.js", "plotly.js"),
)
"""In the order in which they run; plotly's own is the last, for the page is there before it."""
POLICY = (
    "default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'none'; "
    "base-uri 'none'; form-action 'none'"
)
"""Content-Security-Policy of the file: plotly writes styles into it; scripts are those that it was written with."""


def files() -> dict[str, tuple[bytes, str]]:
    """Every style and script by name: its bytes and its media type."""
    kinds = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
    return {name: (_text(name).encode(), kinds[Path(name).suffix]) for name in (*STYLES, *SCRIPTS)}


def shell(nonce: str = "") -> str:
    """The page without data: it asks `api/` for them. Its scripts and styles are `assets/NAME`, see `files`; the nonce
    is for styles that charts add."""
    return _rendered("braid", "server", [], nonce=nonce)


def whole(name: str, documents: Mapping[str, Any], written: str) -> str:
    """The page with its data in it: one file that asks nobody for anything. `documents`: JSON values by name."""
    policy = POLICY.format(hashes=" ".join(f"'sha256-{_sha256(_text(script))}'" for script in SCRIPTS))
    told = [{"name": key, "text": embedded(value)} for key, value in documents.items()]
    return _rendered(name, "file", told, policy=policy, written=written)


def embedded(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in. ValueError of NaN and infinities: they are null in JSON."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _rendered(
    name: str,
    source: str,
    documents: Sequence[Mapping[str, Any]],
    *,
    policy: str = "",
    written: str = "",
    nonce: str = "",
) -> str:
    def told(names: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {"name": one, "text": Markup(_text(one)) if source == "file" else "", "tag": _tag(one)} for one in names
        ]

    colours = {"origins": {o.name.lower(): [COLOURS[o], ON_TERMINAL[o]] for o in Origin}, "darker": dict(ON_DARK)}
    return _template().render(
        name=name,
        source=source,
        policy=policy,
        written=written,
        nonce=nonce,
        documents=documents,
        colours=embedded(colours),
        styles=told(STYLES),
        scripts=told(SCRIPTS),
    )


@cache
def _tag(name: str) -> str:
    """Changes when the file does, so that a browser may keep it for good."""
    return hashlib.sha256(_text(name).encode()).hexdigest()[:32]


@cache
def _text(name: str) -> str:
    return str(get_plotlyjs()) if name == "plotly.js" else (FRONT / name).read_text(encoding="utf-8")


@cache
def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FRONT), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html.j2")
