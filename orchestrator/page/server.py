"""The page's server: documents as JSON, the page and its assets, the live stream; an ASGI app over a directory."""

import gzip
import hashlib
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from orchestrator.page import answers, siblings, watch
from orchestrator.page.reading import Reading
from policies.bad_input import BadInput

MOST_READINGS = 16
"""Runs whose figures are held; the one that was not asked for longest is forgotten."""
MOST_STREAMS = 64
SMALL = 1400
"""Bytes that are not worth compressing."""
YEAR = 31_536_000
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; "
    "style-src-attr 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of the page. Charts write a style element, which bears the nonce, and set style attributes; no script runs but the
page's own files, whatever a model wrote."""

Asset = tuple[bytes, str]


@dataclass(frozen=True, slots=True, eq=False)
class Front:
    """What the browser is given."""

    shell: Callable[[str], str]
    """The page, for a nonce that its inline styles bear."""
    files: Mapping[str, Asset]
    """Name -> (bytes, media type)."""


@dataclass(slots=True, eq=False)
class Server:
    """A directory with runs, served. `closing` says that the process is about to end: streams end with it."""

    root: Path
    front: Front
    closing: Callable[[], bool] = lambda: False
    _readings: "OrderedDict[Path, Reading]" = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _streams: int = 0
    _salt: str = field(default_factory=secrets.token_hex)
    """Another server's copies are not taken for this one's: the code may be another."""

    def app(self) -> Starlette:
        """The routes; whoever serves them puts a `Gate` before."""
        return Starlette(
            routes=[
                Route("/", self.page),
                Route("/assets/{name}", self.asset),
                Route("/api/stream", self.stream),
                Route("/api/{name}", self.document),
            ],
            exception_handlers={404: _missing, 405: _missing, BadInput: _bad, Exception: _broken},
        )

    async def page(self, request: Request) -> Response:
        """The page, with a nonce of its own."""
        nonce = secrets.token_urlsafe(16)
        policy = POLICY.format(nonce=nonce)
        return HTMLResponse(self.front.shell(nonce), headers={"Content-Security-Policy": policy})

    async def asset(self, request: Request) -> Response:
        """A script, style or font; kept by the browser for as long as it is the same."""
        found = self.front.files.get(request.path_params["name"])
        if found is None:
            return _said(404, "no such asset", "")
        body, media = found
        tag = _tag(body)
        known = request.query_params.get("v", "") == tag.strip('"')
        kept = f"private, max-age={YEAR}, immutable" if known else "private, no-cache"
        headers = {"ETag": tag, "Cache-Control": kept}
        if _same(request, tag):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=media, headers=headers)

    def document(self, request: Request) -> Response:
        """One of `answers.NAMES` as JSON; 304 where the files have not changed since the browser's copy."""
        name, query = request.path_params["name"], dict(request.query_params)
        query.pop("token", None)
        if name not in answers.NAMES:
            return _said(404, f"no document {name[:40]!r}", f"there are {', '.join(answers.NAMES)}")
        if name in answers.OF_MANY:
            made = answers.of_many(name, self.root, self.reading, query)
            return _json(request, made, _tag(_dumped(made)))
        reading = self.reading(query.pop("run", ""))
        if name in watch.OF_LINES:
            reading.refresh()
        tag = watch.etag(name, watch.stamps(reading), f"{self._salt}{reading.run.root}?{sorted(query.items())}")
        if query.get("over") == "all":  # the index reads on with each question
            made = answers.of_one(name, reading, query)
            return _json(request, made, _tag(_dumped(made)))
        if _same(request, tag):
            return Response(status_code=304, headers={"ETag": tag, "Cache-Control": "private, no-cache"})
        return _json(request, answers.of_one(name, reading, query), tag)

    async def stream(self, request: Request) -> Response:
        """Server-sent events of one run."""
        if self._streams >= MOST_STREAMS:
            return _said(503, f"{MOST_STREAMS} pages are open already", "close one")
        reading = await anyio.to_thread.run_sync(self.reading, request.query_params.get("run", ""))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._told(reading), media_type="text/event-stream", headers=headers)

    async def _told(self, reading: Reading) -> Any:
        self._streams += 1
        try:
            async for event in watch.events(reading, self.closing):
                yield event
        finally:
            self._streams -= 1

    def reading(self, name: str) -> Reading:
        """The run of that name below the root; BadInput where there is none. Whoever needs its lines refreshes it."""
        path = siblings.find(self.root, name or ".") or (siblings.first(self.root) if not name else None)
        if path is None:
            raise BadInput([f"run: no run {name[:80]!r} in this directory; `runs` lists them"])
        with self._lock:
            found = self._readings.get(path) or Reading.open(path, now=False)
            self._readings[path] = found
            self._readings.move_to_end(path)
            while len(self._readings) > MOST_READINGS:
                self._readings.popitem(last=False)
        return found


@lru_cache(256)
def _tag(body: bytes) -> str:
    """What is the same as long as the bytes are."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _dumped(made: Any) -> bytes:
    return json.dumps(made, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")


def _json(request: Request, made: Any, tag: str) -> Response:
    if _same(request, tag):
        return Response(status_code=304, headers={"ETag": tag, "Cache-Control": "private, no-cache"})
    body = _dumped(made)
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"}
    if len(body) > SMALL and "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, compresslevel=1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(body, media_type="application/json", headers=headers)


def _same(request: Request, tag: str) -> bool:
    """Whether the browser has this already."""
    given = request.headers.get("if-none-match", "")
    return tag in (one.strip().removeprefix("W/") for one in given.split(","))


def _said(status: int, said: str, fix: str) -> Response:
    return Response(json.dumps({"said": said, "fix": fix}), status, media_type="application/json")


async def _missing(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return _said(status, "nothing here" if status == 404 else "this server only reads", "")


async def _bad(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadInput)
    return _said(400, "\n".join(error.lines), "")


async def _broken(request: Request, error: Exception) -> Response:
    return _said(500, f"{type(error).__name__}: {error}"[:400], "the terminal of braid ui has the traceback")
