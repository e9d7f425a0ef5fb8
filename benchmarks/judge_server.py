"""A local server in the shape of OpenAI's chat completions, whose answers are a function of what it was asked."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """One call: its body, its headers by their names in small letters, and how many came before it."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    number: int

    @property
    def system(self) -> str:
        """The system message."""
        return "\n".join(one["content"] for one in self.body["messages"] if one["role"] == "system")

    @property
    def user(self) -> str:
        """The user's message."""
        return "\n".join(one["content"] for one in self.body["messages"] if one["role"] == "user")


@dataclass(frozen=True, slots=True)
class Raw:
    """An answer as it goes over the wire. `seconds`: how long it waits first; `drip`: it then sends byte by byte."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    drip: float = 0.0


Answer = Callable[[Request], "str | Raw"]
"""A text becomes the assistant's message."""


def completion(text: str | None, finish: str = "stop", refusal: str | None = None) -> bytes:
    """A chat completion of one choice."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps(
        {"id": "1", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice]}
    ).encode()


@dataclass(slots=True)
class Server:
    """A running one: where it is, and what it was asked so far."""

    url: str
    requests: list[Request]


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    """The server on a free port, until the block ends; what still waits then is cut off."""
    requests: list[Request] = []
    lock, over = threading.Lock(), threading.Event()

    def handle(handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers["Content-Length"]))
        with lock:
            headers = {name.lower(): value for name, value in handler.headers.items()}
            request = Request(json.loads(raw), headers, len(requests))
            requests.append(request)
        said = answer(request)
        _send(handler, said if isinstance(said, Raw) else Raw(body=completion(said)), over)

    kind = type("Handler", (BaseHTTPRequestHandler,), {"do_POST": handle, "log_message": lambda *_: None})
    patient = type("Patient", (ThreadingHTTPServer,), {"request_queue_size": 128, "daemon_threads": True})
    server = patient(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_address[1]}/v1", requests)
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def _send(handler: BaseHTTPRequestHandler, answer: Raw, over: threading.Event) -> None:
    over.wait(answer.seconds)
    try:
        handler.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(answer.body)))
        handler.end_headers()
        for at in range(len(answer.body)) if answer.drip else ():
            handler.wfile.write(answer.body[at : at + 1])
            handler.wfile.flush()
            if over.is_set():
                return
            time.sleep(answer.drip)
        if not answer.drip:
            handler.wfile.write(answer.body)
    except OSError:
        return  # the asker went away
