"""Judges that tests script: what a judge can see of its task, and configs that ask it."""

import json
import re
from typing import Any

from benchmarks.judge_server import Request, Server
from verifiers import Item, Score
from verifiers.verifier import build

SEAL = re.compile(r'\{"seal": "([0-9a-f]{12})", (?!"refuse")')
FENCED = re.compile(r"<<<(?P<label>[A-Z ]+) (?P<mark>[0-9a-f]{16})\n(?P<text>.*?)\n(?P=mark) (?P=label)>>>", re.DOTALL)


def seal(request: Request) -> str:
    """The seal that the verdict must bear."""
    found = SEAL.findall(request.user)
    assert len(found) == 1, request.user
    return str(found[0])


def quoted(request: Request) -> dict[str, str]:
    """What stands quoted, by its label, without the bars."""
    return {
        found["label"]: "\n".join(line.removeprefix("| ") for line in found["text"].split("\n"))
        for found in FENCED.finditer(request.user)
    }


def verdict(request: Request, critique: str = "Fine.", **own: Any) -> str:
    """A valid answer."""
    return f"{critique}\n{json.dumps({'seal': seal(request), **own})}"


def judge(server: Server, form: dict[str, Any], **own: Any) -> dict[str, Any]:
    """The config of a judge at a server."""
    model = {"kind": "endpoint", "base_url": server.url, "model": "judge", "retries": 0, **own.pop("endpoint", {})}
    return {"kind": "judge", "model": model, "form": form, **own}


def scores(config: dict[str, Any], items: list[Item], seconds: float = 20.0) -> list[Score]:
    """The verdicts of a verifier that is built and closed."""
    verifier = build(config)
    try:
        return verifier.score_many(items, seconds)
    finally:
        verifier.close()


def score(config: dict[str, Any], response: str, reference: Any = None, seconds: float = 20.0) -> Score:
    """The verdict on one response to one prompt."""
    return scores(config, [Item("What is 2+2?", response, reference)], seconds)[0]
