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
STYLES = ("page.css", "views.css")
SCRIPTS = (
    *("core.js", "data.js", "charts.js", "app.js", "estimates.js", "tokens.js"),
    *("view_braid.js", "view_support.js", "view_reach.js", "view_handoffs.js", "view_costs.js"),
    *("view_reader.js", "view_curves.js", "view_runs.js", "start.js", "plotly.js"),
)
"""In the order in which they run; plotly's own is the last, for the page is there before it."""
PARTS = (
    "default-src 'none'; {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; {connect}; "
    "base-uri 'none'; form-action 'none'{more}"
)
"""plotly writes styles into the page; scripts are the page's own files and nothing else."""
SERVED_POLICY = PARTS.format(scripts="script-src 'self'", connect="connect-src 'self'", more="; frame-ancestors 'none'")
"""Content-Security-Policy of the page that the server hands out."""


def files() -> dict[str, tuple[bytes, str]]:
    """Every style and script by name: its bytes and its media type."""
    kinds = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
    return {name: (_text(name).encode(), kinds[Path(name).suffix]) for name in (*STYLES, *SCRIPTS)}


def shell(name: str = "braid") -> str:
    """The page without data: it asks `api/` for them. Its scripts and styles are `assets/NAME`, see `files`."""
    return _rendered(name, "server", [], policy="", written="")


def whole(name: str, documents: Mapping[str, Any], written: str) -> str:
    """The page with its data in it: one file that asks nobody for anything. `documents`: JSON values by name."""
    hashes = " ".join(f"'sha256-{_sha256(_text(script))}'" for script in SCRIPTS)
    policy = PARTS.format(scripts=f"script-src {hashes}", connect="connect-src 'none'", more="")
    told = [{"name": key, "text": embedded(value)} for key, value in documents.items()]
    return _rendered(name, "file", told, policy=policy, written=written)


def embedded(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in. ValueError of NaN and infinities: they are null in JSON."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _rendered(name: str, source: str, documents: Sequence[Mapping[str, Any]], *, policy: str, written: str) -> str:
    inner = source == "file"
    return _template().render(
        name=name,
        source=source,
        policy=policy,
        written=written,
        documents=documents,
        colours=embedded(
            {"origins": {o.name.lower(): [COLOURS[o], ON_TERMINAL[o]] for o in Origin}, "darker": dict(ON_DARK)}
        ),
        styles=[{"name": one, "text": Markup(_text(one)) if inner else ""} for one in STYLES],
        scripts=[{"name": one, "text": Markup(_text(one)) if inner else ""} for one in SCRIPTS],
    )


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
