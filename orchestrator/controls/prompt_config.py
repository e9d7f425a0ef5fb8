"""Config of controls that choose a step's prompts, or which strands each of them is for."""

from typing import Annotated, Literal

from pydantic import Field

from policies.config import Strict

Share = Annotated[float, Field(ge=0, le=1)]
Candidates = Annotated[int, Field(ge=1)]
"""Prompts drawn for each that is chosen."""
Decay = Annotated[float, Field(gt=0, le=1)]
"""Weight of what was counted before, at each further look at a prompt: older verdicts are of an older policy."""


class Shares(Strict):
    """Each of the step's prompts is one strand's: so many of them as the strand's share says.

    What a share leaves over of a prompt is carried to later steps, so that the shares hold exactly in the long run.
    Strands that are not named are asked for every prompt, as ever.
    """

    kind: Literal["shares"] = "shares"
    shares: Annotated[dict[str, Share], Field(min_length=2)]
    """Strand name -> share of the step's prompts; they sum to 1."""


class Curriculum(Strict):
    """The step's prompts are those that `watch`'s responses pass now and then: by solve rate, estimated per prompt.

    From `candidates` times the step's prompts, in the order that they are drawn, those are chosen whose estimated solve
    rate lies between `low` and `high`; prompts without evidence come next, `explore` of the step before all others.
    """

    kind: Literal["curriculum"] = "curriculum"
    watch: str
    low: Share = 0.2
    high: Share = 0.8
    explore: Share = 0.25
    """Of the step's prompts, the share that goes to those least looked at."""
    candidates: Candidates = 4
    decay: Decay = 0.8


class Bottleneck(Strict):
    """Per prompt, what keeps the policy from solving it decides where its training data come from.

    A prompt is *unreached* (its solve rate is below `unreached`, and so is the probability of its known good response):
    `imports` trains it; *unreliable* (solved now and then): `reinforce` does; *mastered* (its solve rate is above
    `mastered`): it rests, or `distil` has it; *lost* (once mastered, now below `lost`): `replay` brings its own past
    successes back beside `reinforce`; unknown: `reinforce` looks. A class is entered and left only when the evidence
    (verdicts on `reinforce`'s responses, each look's weight decaying) says so with probability `confidence`, so that
    it does not flap. An import that its verifier fails does not train, and its prompt, if nobody solves it, rests
    between looks as a mastered one does. The step's prompts are the first `prompts_per_step` that do not rest of
    `candidates` times as many, so that the strands' shares follow the prompts' needs.
    """

    kind: Literal["bottleneck"] = "bottleneck"
    reinforce: str
    """Strand whose fresh responses are the evidence, and which trains what is reached but unreliable."""
    imports: str
    """Strand that brings in what is not reached."""
    replay: str = ""
    """Strand that brings back past successes of what was lost; without one, `imports` does."""
    distil: str = ""
    """Strand for what is mastered, in steps that have room for it; without one it rests."""
    unreached: Share = 0.1
    mastered: Share = 0.9
    lost: Share = 0.5
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.8
    reach: Share = 0.1
    """Probability of the whole known good response, under the policy, from which on the prompt is reached; 0 never
    asks for it."""
    look: Annotated[int, Field(ge=1)] = 3
    """An unreached prompt is tried by `reinforce` at every so many-th import."""
    recheck: Annotated[int, Field(ge=1)] = 20
    """Steps of rest after which a mastered prompt is looked at again."""
    candidates: Candidates = 4
    decay: Decay = 0.6
