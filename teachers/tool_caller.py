"""The tool caller: asks a tool what it needs and answers with what the tool said. It plays the run's own environment.

A demonstration is an episode: the call is the teacher's, the tool's answer the environment's, framed as a rollout would
read it. It teaches the form of a call; what to ask is the prompt's expression.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from policies.prompt import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import Int32
from teachers.conversations import Written
from teachers.observations import Framing
from verifiers.environments.config import ToolsEnvironment
from verifiers.environments.opening import Opener, open_environment
from verifiers.environments.protocol import Task
from verifiers.environments.tools import syntax_of

EXPRESSION = re.compile(r"\(*\d[\d.\s()+\-*/]*[\d)]")
"""A run of numbers, signs and parentheses."""

TOOL = "calculator"


@dataclass(frozen=True, slots=True, eq=False)
class ToolCaller:
    """Works prompts by calling the calculator of an environment."""

    framing: Framing
    environment: ToolsEnvironment
    open: Opener
    marker: str
    """Stands before the final answer."""

    @classmethod
    def of(cls, environment: Any, tokenizer: Tokenizer, marker: str) -> "ToolCaller":
        """ValueError where the pipeline has no environment with a calculator."""
        if not isinstance(environment, ToolsEnvironment) or all(one.kind != TOOL for one in environment.tools):
            raise ValueError("the tool caller calls a calculator; set environment: {kind: tools, tools: [calculator]}")
        return cls(Framing(tokenizer, environment), environment, open_environment(environment), marker)

    def work(self, prompt: Prompt) -> Written:
        """The call, the tool's answer, the final answer. ValueError where the prompt holds no expression."""
        call = syntax_of(self.environment).written(TOOL, expression(prompt.text))
        episode = self.open()
        episode.start(Task(prompt.text, json.loads(prompt.reference)))
        turn = episode.step(call)
        if turn.done or turn.observation.startswith("error"):
            raise ValueError(f"the calculator says {turn.observation!r} to {call!r}")
        return joined(self.framing, prompt.tokens, [call, f"{self.marker}{turn.observation}"], [turn.observation])


def expression(text: str) -> str:
    """The longest arithmetic expression in a text. ValueError where there is none."""
    found = max(EXPRESSION.findall(text), key=len, default="")
    if not found:
        raise ValueError(f"there is no arithmetic in {text[:80]!r}")
    return found.strip()


def joined(framing: Framing, context: Int32, turns: Sequence[str], observations: Sequence[str]) -> Written:
    """An episode's tokens: each turn as the model would end it, and between them what the environment says.

    A turn that calls a tool ends with its stop string, the last one with the end token.
    """
    tokenizer = framing.tokenizer
    parts: list[tuple[Int32, bool]] = []
    for said, heard in zip(turns, observations, strict=False):
        parts += [(tokenizer.encode(said), True), (framing.tokens(heard, ended=False), False)]
    parts.append((tokenizer.response(turns[-1]), True))
    return Written(
        context,
        np.concatenate([ids for ids, _ in parts]).astype(np.int32),
        np.concatenate([np.full(len(ids), own, np.bool_) for ids, own in parts]),
        turns[-1],
    )
