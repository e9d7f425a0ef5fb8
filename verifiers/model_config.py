"""Config of verifiers that ask a model with a scalar head: reward models, process reward models, preference models."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from verifiers.part_config import Part
from verifiers.served import Framing, Wanted


class RewardModelVerifier(Part):
    """A reward model: the value is what its scalar head says at the last token of the response.

    The folder is Hugging Face's sequence classifier of one label, such as TRL or Braid's `reward_model_training` leave.
    A text that is longer than the model reads is `refused`, never cut.
    """

    kind: Literal["reward_model"] = "reward_model"
    path: str
    """Folder of the model; of a run of Braid, `checkpoints/step-N/model`."""
    framing: Framing = "folder"
    mean: float = 0.0
    """Taken off the head's output, ..."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """... which is then divided by this, ..."""
    squash: bool = False
    """... and then, if set, goes through the logistic function: a value between 0 and 1."""
    threshold: float | None = None
    """A response passes from this value up. null: the model says how good it is, not whether it passes."""

    def wanted(self) -> tuple[Wanted, ...]:
        """The model."""
        return (Wanted("reward", self.path),)


class PreferenceModelVerifier(Part):
    """A preference model: the value is the mean probability that the response wins against the others.

    A model that scores one response at a time makes it of two scores: logistic(one - other) (Bradley-Terry). One that
    reads two responses at once (`pair`) is asked in both orders, so that being first is worth nothing.
    """

    kind: Literal["preference_model"] = "preference_model"
    path: str
    framing: Framing = "folder"
    against: Literal["group", "reference"] = "group"
    """The other responses to the same prompt, or the reference: a text, or a list of texts."""
    pair: str = ""
    """How two responses stand in the text that the model judges, with `{first}` and `{second}`; its output is then the
    log-odds that the first is better. Empty: it scores one response at a time."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """A response passes from this value up. null: it says nothing of passing."""

    @model_validator(mode="after")
    def _pair_names_both(self) -> Self:
        if self.pair and not ("{first}" in self.pair and "{second}" in self.pair):
            raise ValueError(f"pair: does not hold both {{first}} and {{second}} (got {self.pair!r}); write both")
        return self

    @property
    def compares(self) -> bool:
        """Whether the responses of a group must come together."""
        return self.against == "group"

    def wanted(self) -> tuple[Wanted, ...]:
        """The model."""
        return (Wanted("preference", self.path),)


class ProcessModelVerifier(Part):
    """A process reward model: it judges each step at its last token; the value is made of the steps' (`whole`).

    A step's value is logistic(output), the probability that it is right. The folder is a sequence or token classifier
    of one label (Braid's `prm_training`), or a token classifier of two whose second is "right" (TRL's). A response
    without a step is worth 0.
    """

    kind: Literal["prm"] = "prm"
    path: str
    framing: Framing = "folder"
    separator: Annotated[str, Field(min_length=1)] = "\n"
    """Ends a step, and belongs to it: the one that the model was trained with."""
    whole: Literal["min", "product", "last", "mean"] = "min"
    """Of the steps' values."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """A response passes from this value up. null: it says nothing of passing."""

    def wanted(self) -> tuple[Wanted, ...]:
        """The model."""
        return (Wanted("process", self.path),)
