"""`Gate`: who may ask the page's server, and what every answer tells the browser.

A run's files hold text that models wrote and prompts that may be private; any page open in the same browser, and any
user of the same machine, can reach a port of loopback. So: a secret in the address, the Host header as given, reading
only, and a policy under which nothing that a model wrote can run.
"""

import hmac
import secrets
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_BYTES = 32
READING = ("GET", "HEAD")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
CLOSED = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""The policy of what is no page."""


def new_token() -> str:
    """A secret that nobody guesses."""
    return secrets.token_urlsafe(TOKEN_BYTES)


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """An ASGI app before another one. Asked without the token, under another host's name, or to write, it refuses.

    The first load brings the token in the address, gets a cookie for the session, and goes on without the token in the
    address. `hosts` are the names that the Host header may have.
    """

    app: ASGIApp
    token: str
    hosts: frozenset[str]
    cookie: str
    """Its name: browsers share cookies between the ports of a host, so the port is part of it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets through what may pass."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        refused = self._refused(scope) or self._welcomed(scope)
        told = _guarded(send, scope)
        await (refused or self.app)(scope, receive, told)

    def _refused(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if name_of(headers.get("host", "")) not in self.hosts:
            return _no(403, "this server answers under its own address only", "open the address that braid ui printed")
        if scope["method"] not in READING:
            return _no(405, "this server only reads", "use GET", {"Allow": ", ".join(READING)})
        if not (self._in_address(scope) or self._in_cookie(headers)):
            return _no(403, "the token is missing or wrong", "open the address that braid ui printed, token and all")
        return None

    def _welcomed(self, scope: Scope) -> Response | None:
        """The first load: the browser keeps the token as a cookie, and goes to the address without it."""
        if scope["path"] != "/" or not self._in_address(scope):
            return None
        page = HTMLResponse(
            '<!doctype html><meta charset="utf-8"><title>braid</title><meta http-equiv="refresh" content="0;url=./">',
            headers={"Cache-Control": "no-store"},
        )
        page.set_cookie(self.cookie, self.token, path="/", httponly=True, samesite="strict")
        return page

    def _in_address(self, scope: Scope) -> bool:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
        return self._right(given[0])

    def _in_cookie(self, headers: Headers) -> bool:
        """A cookie counts for what the page itself asks, not for what another page makes the browser ask."""
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return False
        jar: SimpleCookie = SimpleCookie()
        try:
            jar.load(headers.get("cookie", ""))
        except CookieError:
            return False
        return self.cookie in jar and self._right(jar[self.cookie].value)

    def _right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


def hosts(host: str) -> frozenset[str]:
    """Names that the Host header may have: loopback's, and the address that is listened on.

    Any port will do (a tunnel has its own): who makes a browser ask us under a name of theirs cannot choose these.
    """
    return frozenset({"127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host.lower()})


def name_of(host: str) -> str:
    """The Host header without its port."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdecimal() else host.lower()


def _no(status: int, said: str, fix: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"said": said, "fix": fix}, status, headers)


def _guarded(send: Send, scope: Scope) -> Send:
    """The headers that every answer has; a page brings its own policy."""

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Content-Security-Policy", CLOSED)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return told
