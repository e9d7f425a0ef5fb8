"""Parts for tests of episodes: a sampler that writes from a script, an environment in a file, a pool of its actors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from actors import in_process
from actors.cluster import Actor
from actors.engine import SampleRequest
from actors.environments import EnvironmentPool, EnvironmentReplica
from orchestrator.turns import Playing
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import FinishReason, Origin, Producer, Sampling, ScoreEntry, Trajectory
from teachers.observations import Framing
from verifiers.config import AnyVerifier
from verifiers.environments.config import AnyEnvironment, CustomEnvironment

GAME = '''
"""A game whose moves the model's own words choose."""
import time
from verifiers.environments.protocol import Turn
from verifiers.score import Status

class Game:
    def __init__(self, **options):
        self.options = options

    def start(self, task):
        self.task, self.turns = task, 0
        if task.prompt == "refuse=":
            raise RuntimeError("no such board")

    def step(self, text):
        self.turns += 1
        if "raise" in text:
            raise ValueError("the board fell over")
        if "hang" in text:
            time.sleep(self.options.get("hang", 30))
        if "strange" in text:
            return {"observation": "x"}
        if "nan" in text:
            return Turn("x", reward=float("nan"))
        if "unknown" in text:
            return Turn("? ", status=Status.TIMEOUT, reason="the judge slept")
        if "flood" in text:
            return Turn("9" * 500_000, reward=0.0)
        if "seed" in text:
            return Turn(f"{self.task.seed};", reward=0.0)
        done = "done" in text
        return Turn(f"{self.turns};", reward=float(self.turns), done=done, passed=done, reason="over" if done else "")
'''


def game(folder: Path, **more: Any) -> CustomEnvironment:
    """The game as a pipeline names it."""
    path = folder / "game.py"
    path.write_text(GAME, encoding="utf-8")
    return CustomEnvironment(path=str(path), name="Game", **more)


@dataclass
class Scripted:
    """At the loop's `Sampler` port: prompt id -> what it writes turn by turn, `|` for the end token, `^` for a cut."""

    tokenizer: Tokenizer
    scripts: Mapping[str, Sequence[str]]
    asked: list[list[SampleRequest]] = field(default_factory=list)

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Trajectory]:
        self.asked.append(list(requests))
        return [self._written(one) for one in requests]

    def _written(self, one: SampleRequest) -> Trajectory:
        number = int(one.id.rpartition("/turn-")[2]) if "/turn-" in one.id else 0
        text = self.scripts[one.prompt_id][number]
        broken = {"!abort": FinishReason.ABORT, "!error": FinishReason.ERROR}.get(text)
        ids = list(self.tokenizer.encode("" if broken else text.rstrip("|^")))
        ids += [self.tokenizer.eos_id] if text.endswith("|") else []
        cut = text.endswith("^")
        size = len(ids)
        return Trajectory(
            id=one.id,
            prompt_id=one.prompt_id,
            group_id=one.group_id,
            producer=Producer.ROLLOUT,
            model="script",
            version=number,
            train_context=one.context,
            behavior_context=one.context,
            teacher_context=one.context,
            tokens=np.asarray(ids, np.int32),
            origin=np.full(size, Origin.LEARNER, np.int8),
            token_version=np.full(size, number, np.int32),
            train_mask=np.ones(size, np.bool_),
            behavior_logps=np.full(size, -1.0 - number, np.float32),
            scores=(ScoreEntry("rollout", float("nan"), None, "error", "no room"),) if broken else (),
            finish_reason=broken or (FinishReason.LENGTH if cut else FinishReason.STOP),
            sampling=one.sampling,
            seed=one.seed,
            text=text.rstrip("|^") if not broken else "",
            tokens_generated=size,
        )


@dataclass
class Stage:
    """An environment's pool in this process, and what happened to it."""

    own: AnyEnvironment
    verifier: AnyVerifier | None = None
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    replicas: list[EnvironmentReplica] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hold = in_process.start("turns")
        self.pool = EnvironmentPool(
            self.spawn,
            [self.spawn(index) for index in range(self.own.replicas)],
            self.own.seconds,
            30.0,
            lambda kind, **facts: self.events.append((kind, facts)),
            self.hold.kill,
        )

    def spawn(self, index: int) -> Actor:
        actor = self.hold.spawn(EnvironmentReplica, self.own, self.verifier, role="environment", index=index)
        self.replicas.append(actor.handle.target)
        return actor

    def playing(self, sampler: Any, tokenizer: Tokenizer, prompts: Sequence[Prompt], longest: int = 96) -> Playing:
        """The sampler of episodes."""
        known = {one.id: one for one in prompts}
        return Playing(sampler, self.pool, Framing(tokenizer, self.own), known, longest, "environment:custom", "v")

    def close(self) -> None:
        self.hold.stop()


Open = Callable[[AnyEnvironment], Stage]


def prompts(tokenizer: Tokenizer, *texts: str) -> list[Prompt]:
    return [Prompt(text, text, tokenizer.encode(text), '"1"') for text in texts]


def requests(known: Sequence[Prompt], seed: int = 5, **sampling: Any) -> list[SampleRequest]:
    decoding = Sampling(**{"max_tokens": 8, **sampling})
    return [
        SampleRequest(f"step/{at}", one.tokens, decoding, seed + at, one.id, f"group-{at}")
        for at, one in enumerate(known)
    ]


def entries(one: Trajectory, name: str) -> list[ScoreEntry]:
    return [entry for entry in one.scores if entry.name == name]


def whole(one: Trajectory) -> ScoreEntry:
    (found,) = entries(one, "environment")
    return found


async def played(
    stage: Stage, tokenizer: Tokenizer, script: dict[str, Sequence[str]], **more: Any
) -> tuple[list[Trajectory], Scripted]:
    sampler = Scripted(tokenizer, script)
    known = prompts(tokenizer, *script)
    return await stage.playing(sampler, tokenizer, known, **more).generate(requests(known)), sampler
