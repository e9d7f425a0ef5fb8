"""The source slot, producer, transform and select: who writes, under which context, and what of it is kept."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from policies.strict import Strict

Template = str
"""A jinja2 text that becomes the user's prompt; empty is the prompt itself. It may read `prompt`, `answer` (the
reference), `demonstration`, `hint`, `parent` (the text revised), `reason` (what the verifier said of it), `sibling` (a
passing response of the group), `attributes` (named scores), `criteria` (the scaffold's share of the rubric)."""


class Select(Strict):
    """Which of the strand's trajectories go on once they are scored; the others have served the group's statistics."""

    kind: Literal["all", "best", "passed", "above", "pair"] = "all"
    """best: the `keep` with the highest reward; passed: those that the verifier passed; above: reward > threshold;
    pair: one chosen and one rejected, labelled as a preference set."""
    keep: Annotated[int, Field(ge=0)] = 0
    """Most kept of a group; 0 is no limit. Required by best."""
    threshold: float = 0.0
    """above: the reward to exceed; pair: the smallest difference that makes a pair."""
    by: Literal["reward", "passed"] = "reward"
    """pair alone: highest against lowest reward (a tie makes no pair), or a passed against a failed one."""
    join: str = ""
    """pair alone: a strand without terms whose responses in the group are candidates too; they train under this one."""


class Prepare(Strict):
    """A data set that is written or chosen once, when the stage begins, by the policy that it begins with."""

    writer: Literal["learner", "teacher", "nobody"] = "learner"
    """nobody: nothing is written, the demonstrations are ranked as they are."""
    attempts: tuple[Template, ...] = ("",)
    """Tried in turn, each on the prompts for which nothing was kept so far; "" asks with the prompt itself."""
    samples: Annotated[int, Field(ge=1)] = 1
    """Responses drawn for each prompt and attempt."""
    keep: Literal["all", "passed", "above"] = "passed"
    """Of what was written: everything, what the verifier passed, or what has a reward above the threshold."""
    threshold: float = 0.0
    """above: the reward to exceed at the stage's first step ..."""
    threshold_end: float | None = None
    """... and at its last (ReST's rising threshold); the same all along by default."""
    cap: Annotated[int, Field(ge=0)] = 0
    """Most kept of one prompt; 0 is no limit."""
    otherwise: Literal["nothing", "demonstration"] = "nothing"
    """What stands in for a prompt for which nothing was kept."""
    rank: Literal["none", "likelihood", "ifd"] = "none"
    """likelihood: per prompt the candidate that the starting policy finds likeliest per token (GRAPE); ifd: the data
    set's share with the highest instruction-following difficulty ppl(y|x)/ppl(y) below 1 (Superfiltering)."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """ifd: the share that is kept."""


Remembered = Literal["rollout", "revision", "correction", "search", "teacher", "demonstration"]
"""Kinds of trajectory that can be asked for once they trained; one that was replayed is not among them."""


class Past(Strict):
    """What a source asks of the past: which trajectories that trained it may bring back. The default is every one that
    the learner wrote. What does not match is not remembered for this source and takes no place in its window."""

    producers: Annotated[tuple[Remembered, ...], Field(min_length=1)] = ("rollout", "revision")
    """By the kind of trajectory, that is by who wrote it. The words of a demonstration or a teacher are held once each;
    of a preference set, only those chosen."""
    passed: bool | None = None
    """true: those that the verifier passed; false: those that it failed; null: both, and those without a verdict."""
    at_least: float | None = None
    """Lowest reward; an unknown one is in no range."""
    at_most: float | None = None
    """Highest reward."""
    versions: Annotated[int, Field(ge=1)] | None = None
    """Most versions that the policy which wrote the first token may lie behind the learner's at the draw; without
    staleness, the step before is 1 behind. What the learner did not write has no version, and is not concerned."""
    age: Annotated[int, Field(ge=1)] | None = None
    """Most steps of the run since it trained; 1 is the step before. Earlier stages' steps count."""

    @model_validator(mode="after")
    def _range(self) -> "Past":
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"past.at_least is above at_most, {self.at_most:g} (got {self.at_least:g}); swap them")
        return self


class Source(Strict):
    """Who writes the strand's trajectories, how many, and under which context."""

    producer: Literal["rollout", "demonstration", "teacher", "reference", "replay", "preference", "labelled"]
    """rollout: the learner, now; demonstration, preference, labelled: the pipeline's data sets of these names; teacher,
    reference: the stage's frozen models, now; replay: what the learner wrote before."""
    per_prompt: Annotated[int, Field(ge=0)] = 0
    """Trajectories for each of the step's prompts: they share the prompt's group."""
    per_step: Annotated[int, Field(ge=0)] = 0
    """Trajectories (or preference sets) drawn for the step as a whole, on prompts of their own."""
    behavior: Template = ""
    """Context that the writer sees."""
    train: Template = ""
    """Context that the loss sees."""
    teacher: Template = ""
    """Context that the teacher sees: privileged text makes the learner its own teacher."""
    context_shift: Literal["keep", "recompute", "importance"] | None = None
    """Where the loss sees another context than the writer saw: keep (it does not: the loss sees the writer's),
    recompute (old is the learner's under the training context; the shift is ignored), importance (the ratio divides by
    what the writer's context gave)."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """Overrides the stage's; 0 is greedy."""
    parent: str = ""
    """Name of a strand: each trajectory revises, criticises or continues one of that strand's, in a second round."""
    parent_is: Literal["any", "failed", "passed"] = "any"
    turn: Template = ""
    """With a parent: this text follows the parent's tokens as environment tokens and the learner answers again; one
    trajectory holds both turns."""
    prefix: bool = False
    """The response starts with a part of the prompt's demonstration, as hint tokens; a control sets how much."""
    hint_trained: bool = False
    """Whether the hint's tokens are among the trained ones (terms choose by origin)."""
    select: Select = Select()
    prepare: Prepare | None = None
    refill: Literal["recent", "random", "best", "variance", "bucket"] = "recent"
    """replay: which of a prompt's past rollouts come back (RePO's recent, random, highest, max variance; ExGRPO's
    buckets by solve rate, lowest entropy first)."""
    past: Past = Past()
    """replay: which trajectories that trained are remembered for the source."""
    window: Annotated[int, Field(ge=1)] = 16
    """replay: the newest of them remembered for each prompt ..."""
    limit: Annotated[int, Field(ge=1)] = 65_536
    """... and in all. Beyond it the oldest goes, whatever its prompt."""
