"""`braid ui DIR`: the page of the runs in a directory, served on this machine."""

import html
import ipaddress
import os
import socket
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib import import_module
from pathlib import Path

import uvicorn

from orchestrator.page.gate import Gate, hosts, new_token
from orchestrator.page.server import Front, Server
from policies.bad_input import BadInput

GRACE_SECONDS = 3
"""For answers that are on their way when the server is told to end."""
LOAD_SECONDS = 2.0
"""The first view is drawn first."""
WARNING = (
    "warning: the page is open to other machines, without encryption: whoever reads the traffic has the token. "
    "On loopback, `ssh -L PORT:127.0.0.1:PORT` reaches it as well."
)


def serve(
    directory: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    expose: bool = False,
    open_browser: bool = True,
    say: Callable[[str], None] = print,
) -> None:
    """Serves until Ctrl-C. Says one line: the address, with the token that every request must bring.

    BadInput: no such directory, an address that is not loopback without `expose`, or a port that is taken.
    """
    root = Path(directory).absolute()
    if not root.is_dir():
        raise BadInput([f"{root}: no such directory; give a run's, or one that holds runs"])
    _refuse_others(host, expose=expose)
    with closing(_bound(host, port)) as listening:
        port = listening.getsockname()[1]
        token = new_token()
        server = Server(root, front())
        gate = Gate(server.app(), token, hosts(host), f"braid-{port}")
        running = uvicorn.Server(
            uvicorn.Config(
                gate,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                ws="none",
                limit_concurrency=256,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        server.closing = lambda: running.should_exit
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/?token={token}"
        if expose and not is_loopback(host):
            print(WARNING, file=sys.stderr)
        say(address)
        threading.Thread(target=_load, args=(server,), name="load", daemon=True).start()
        with _opened(address, open_browser), suppress(KeyboardInterrupt):
            running.run(sockets=[listening])


def _load(server: Server) -> None:
    """What is asked for first is read while the browser starts, and what other views need while it draws."""
    with suppress(BadInput):
        server.reading("").refresh()
    time.sleep(LOAD_SECONDS)
    import_module("orchestrator.page.documents")
    import_module("orchestrator.summary")


def front() -> Front:
    """The page and its assets."""
    from orchestrator.page import assets

    return Front(assets.shell, assets.files())


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_others(host: str, *, expose: bool) -> None:
    if is_loopback(host):
        return
    if not expose:
        raise BadInput(
            [
                f"--host: other machines reach {host}, and the page shows all that the runs hold; use 127.0.0.1 and "
                "`ssh -L`, or add --expose if that is meant"
            ]
        )
    try:
        anywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        anywhere = False
    if anywhere:
        raise BadInput([f"--host: give the address that others will type (got {host}); no other is answered to"])


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, number)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(128)
        except OSError:
            made.close()
            raise
        return made
    except (OSError, OverflowError) as error:
        raise BadInput([f"--port: cannot listen on {host}:{port} ({error}); choose another, or leave it out"]) from None


@contextmanager
def _opened(address: str, wanted: bool) -> Iterator[None]:
    """Opens the browser, where there is a screen. The token goes through a file that others cannot read, for a
    process's arguments are for all to see."""
    if not wanted or not _has_screen():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="braid-ui-") as folder:
        page = Path(folder, "open.html")
        page.touch(0o600)
        to = html.escape(address, quote=True)
        page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0;url={to}"><a href="{to}">braid</a>')
        threading.Thread(target=webbrowser.open, args=(page.as_uri(),), daemon=True).start()
        yield


def _has_screen() -> bool:
    if not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or any(os.environ.get(key) for key in ("DISPLAY", "WAYLAND_DISPLAY"))
