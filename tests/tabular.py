"""A policy that is a table, as a sampler; a verifier of its texts; and what each prefix is worth under it, exactly.

Tokens 0, 1 and 2 are written `a`, `b` and the end token; responses have at most three (`tests.enumeration`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Codec

from actors.engine import SampleRequest
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import FinishReason, ScoreEntry, Trajectory
from tests.enumeration import END, LONGEST, RESPONSES, STATE, Response
from tests.fakes import CONTEXT, trajectory
from tests.parity_case import Floats, log_softmax

Good = Callable[[Response], bool]
"""Whether a response is right."""


def tokenizer(folder: Path) -> Tokenizer:
    """Three tokens; the prompt's ids stand beyond them, for nobody reads them."""
    codec = Codec(models.WordLevel({"a": 0, "b": 1, "<end>": END}, unk_token="<unk>"))
    codec.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    codec.decoder = decoders.Fuse()
    codec.add_special_tokens(["<end>"])
    folder.mkdir(parents=True, exist_ok=True)
    codec.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    return Tokenizer.load(folder)


def words(response: Response) -> str:
    """What the verifier reads."""
    return "".join("ab"[token] for token in response if token != END)


def q_value(policy: Floats, prefix: Response, good: Good) -> float:
    """Probability that a response that begins so ends well, by enumeration."""
    chances = np.exp(log_softmax(policy))
    total = 0.0
    for one in RESPONSES:
        if one[: len(prefix)] == prefix:
            steps = range(len(prefix), len(one))
            total += good(one) * float(np.prod([chances[STATE[one[:t]], one[t]] for t in steps]))
    return total


@dataclass
class TableSampler:
    """Draws from the table with the request's seed; remembers what it was asked, call by call."""

    policy: Floats
    version: int = 3
    calls: list[list[SampleRequest]] = field(default_factory=list)
    lost: frozenset[str] = frozenset()
    """Requests whose id has one of these parts come back without tokens."""

    @property
    def asked(self) -> list[SampleRequest]:
        return [one for call in self.calls for one in call]

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Trajectory]:
        self.calls.append(list(requests))
        return [self._drawn(one) for one in requests]

    def _drawn(self, request: SampleRequest) -> Trajectory:
        random, chances = np.random.default_rng(request.seed), np.exp(log_softmax(self.policy))
        assert request.context[: len(CONTEXT)].tolist() == CONTEXT.tolist()
        prefix = tuple(request.context[len(CONTEXT) :].tolist())
        drawn: list[int] = []
        while not any(part in request.id for part in self.lost) and len(drawn) < request.sampling.max_tokens:
            drawn.append(int(random.choice(3, p=chances[STATE[(*prefix, *drawn)]])))
            if drawn[-1] == END or len(prefix) + len(drawn) == LONGEST:
                break
        own = trajectory(
            request.id,
            len(drawn),
            version=self.version,
            tokens=np.asarray(drawn, np.int32),
            prompt_id=request.prompt_id,
            group_id=request.group_id,
            sampling=request.sampling,
            seed=request.seed,
            behavior_context=request.context,
            text=words(tuple(drawn)),
        )
        return own if drawn else replace(own, finish_reason=FinishReason.ERROR)


@dataclass
class TextScorer:
    """Passes the texts of good responses; the ids with a part in `silent` get no verdict."""

    good: Callable[[str], bool]
    silent: tuple[str, ...] = ()
    judged: list[Trajectory] = field(default_factory=list)

    async def score(self, trajectories: Sequence[Trajectory], prompts: Mapping[str, Prompt]) -> list[Trajectory]:
        assert all(one.prompt_id in prompts for one in trajectories)
        self.judged += trajectories
        return [replace(one, scores=(self._entry(one),)) for one in trajectories]

    def _entry(self, one: Trajectory) -> ScoreEntry:
        if any(part in one.id for part in self.silent):
            return ScoreEntry("reward", float("nan"), None, "timeout", "too slow")
        right = self.good(one.text)
        return ScoreEntry("reward", float(right), right)
