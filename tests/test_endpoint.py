"""A judge's endpoint that is slow, broken, silent, wrong or full: bounded, told in words, and never the key."""

import json
import math
import time
from typing import Any

import pytest

from benchmarks.judge_server import Raw, Request, completion, serving
from tests.judge_cases import judge, score, scores, verdict
from verifiers import Item, Score, Status
from verifiers.endpoint import EndpointChat
from verifiers.judge_config import Endpoint
from verifiers.served import Message
from verifiers.verifier import build

RUBRIC = {"kind": "rubric"}
SECRET = "sk-very-secret-0123456789"
SOON = {"retry-after-ms": "10"}
"""What a server may ask: the client waits no longer, and the test neither."""

BUSY = Raw(status=429, headers=SOON, body=b'{"error": {"message": "slow down"}}')
DOWN = Raw(status=503, headers=SOON, body=b"<html>down</html>")


def failing(times: int, answer: Raw) -> Any:
    """The answer so many times, and then a verdict."""
    return lambda request: answer if request.number < times else verdict(request, score=5)


@pytest.mark.parametrize("answer", [BUSY, DOWN, Raw(status=500, headers=SOON), Raw(status=408, headers=SOON)])
def test_what_passes_is_asked_again(answer: Raw) -> None:
    with serving(failing(2, answer)) as server:
        found = score(judge(server, RUBRIC, attempts=1, endpoint={"retries": 2}), "4")
    assert found.value == 1 and len(server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "asked", "words"),
    [
        (BUSY, 2, "answered 429"),
        (DOWN, 2, "answered 503"),
        (Raw(status=400, body=b'{"error": "too long"}'), 1, "answered 400"),
        (Raw(status=404, body=b'{"error": {"message": "no such model"}}'), 1, "model 'judge'"),
        (Raw(status=401, body=b"{}"), 1, "refuses a request without a key"),
        (Raw(body=b"\xff\xfenonsense"), 1, "no chat completion"),
        (Raw(body=b"<html></html>", headers={"Content-Type": "text/html"}), 1, "no chat completion"),
        (Raw(body=completion("x")[:-20]), 1, "no chat completion"),
        (Raw(body=b"[]"), 1, "no chat completion"),
        (Raw(body=b'{"choices": []}'), 1, "no chat completion"),
        (Raw(body=b'{"choices": [{"message": null, "finish_reason": "stop"}]}'), 1, "no chat completion"),
        (Raw(body=completion("")), 1, "empty"),
        (Raw(body=completion(None)), 1, "empty"),
    ],
)
def test_what_does_not_pass_is_an_error_in_words(answer: Raw, asked: int, words: str) -> None:
    with serving(lambda _: answer) as server:
        found = score(judge(server, RUBRIC, attempts=1, endpoint={"retries": 1}), "4")
    assert (found.status, len(server.requests)) == (Status.ERROR, asked), found
    assert math.isnan(found.value) and words in found.reason


def test_a_server_that_is_not_there() -> None:
    with serving(lambda _: "") as server:
        pass
    found = score(judge(server, RUBRIC, attempts=1), "4")
    assert found.status == Status.ERROR and "cannot be reached" in found.reason


def test_a_request_has_its_own_limit() -> None:
    with serving(lambda _: Raw(seconds=30)) as server:
        found = score(judge(server, RUBRIC, attempts=1, endpoint={"timeout": 0.2}), "4")
    assert found.status == Status.TIMEOUT and "0.2 s" in found.reason


@pytest.mark.parametrize("answer", [Raw(seconds=60), Raw(body=completion("x" * 2000), drip=0.5)])
def test_a_batch_ends_in_time_whatever_the_server_does(answer: Raw) -> None:
    def some(request: Request) -> str | Raw:
        return answer if "| stall" in request.user else verdict(request, score=5)

    items = [Item("p", text, None) for text in ("quick", "stall", "quick too", "stall again")]
    with serving(some) as server:
        began = time.monotonic()
        found = scores(judge(server, RUBRIC, endpoint={"retries": 5, "timeout": 30}), items, seconds=2.0)
        assert time.monotonic() - began < 15
    assert [one.status for one in found] == [Status.OK, Status.TIMEOUT, Status.OK, Status.TIMEOUT]


def test_time_that_is_over_before_it_is_asked() -> None:
    with serving(lambda _: "never asked") as server:
        found = score(judge(server, RUBRIC), "4", seconds=-1.0)
    assert found.status == Status.TIMEOUT and not server.requests


def test_no_more_than_so_many_at_once() -> None:
    running: list[int] = []
    most: list[int] = []

    def answer(request: Request) -> str:
        running.append(1)
        most.append(len(running))
        time.sleep(0.03)
        running.pop()
        return verdict(request, score=5)

    with serving(answer) as server:
        scores(judge(server, RUBRIC, endpoint={"concurrency": 3}), [Item("p", str(at), None) for at in range(12)])
    assert 2 <= max(most) <= 3


def test_further_fields_go_into_the_body() -> None:
    extra = {"extra": {"reasoning_effort": "low", "max_tokens": None, "max_completion_tokens": 9}}
    with serving(lambda request: verdict(request, score=5)) as server:
        assert score(judge(server, RUBRIC, endpoint=extra), "4").value == 1
    body = server.requests[0].body
    assert (body["reasoning_effort"], body["max_completion_tokens"]) == ("low", 9) and "max_tokens" not in body


# ---------------------------------------------------------------- the key


def test_the_key_goes_to_the_server_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    caplog.set_level("DEBUG")
    told: list[Score] = []
    echo = json.dumps({"error": {"message": f"Incorrect API key provided: {SECRET}"}}).encode()
    for status in (200, 401, 403, 404, 400, 429, 500):
        answer = Raw(status=status, body=echo, headers=SOON)
        with serving(lambda _, answer=answer: answer) as server:
            config = judge(server, RUBRIC, attempts=1, endpoint={"key_variable": "JUDGE_KEY"})
            verifier = build(config)
            told.append(verifier.score("p", "r", None))
            verifier.close()
            assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"
            assert SECRET not in verifier.config.model_dump_json() + repr(verifier.config) + str(verifier.identity)
    assert all(one.status == Status.ERROR for one in told)
    assert "JUDGE_KEY" in told[1].reason and "JUDGE_KEY" in told[2].reason
    written = capfd.readouterr()
    everything = repr(told) + caplog.text + written.out + written.err
    assert SECRET not in everything and SECRET[3:] not in everything


def test_a_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    endpoint = {"kind": "endpoint", "base_url": "http://h/v1", "model": "m", "key_variable": "JUDGE_KEY"}
    with pytest.raises(ValueError, match="JUDGE_KEY is not set; export it"):
        build({"kind": "judge", "model": endpoint, "form": RUBRIC})


def test_a_key_in_the_place_of_its_name_is_not_repeated() -> None:
    endpoint = {"kind": "endpoint", "base_url": "http://h/v1", "model": "m", "key_variable": SECRET}
    with pytest.raises(ValueError, match="NAME of an environment variable") as caught:
        build({"kind": "judge", "model": endpoint, "form": RUBRIC})
    assert SECRET not in str(caught.value)


# ---------------------------------------------------------------- as a port


def test_the_port_by_itself_from_inside_a_running_loop() -> None:
    import asyncio

    with serving(lambda request: request.user[::-1]) as server:
        chat = EndpointChat(Endpoint(base_url=server.url, model="m"))
        ask = [[Message("user", "ab")], [Message("system", "s"), Message("user", "cd")]]

        async def inside() -> list[str | None]:
            return [one.text for one in chat.complete(ask, max_tokens=8, temperature=0.0, seconds=math.inf)]

        assert asyncio.run(inside()) == ["ba", "dc"]
        assert chat.identity() == f"{server.url}#m"
        chat.close()
        chat.close()
