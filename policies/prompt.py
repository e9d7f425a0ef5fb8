"""`Prompt`: a task the policy is asked to solve, tokenised once."""

from dataclasses import dataclass

from policies.trajectory import Int32


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    """system, user or assistant; developer where the chat template knows it."""
    content: str


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One task. `reference` is JSON that the verifier understands; it never enters the context."""

    id: str
    text: str
    """The user's text, before the chat template; of a conversation, what the user said last."""
    tokens: Int32
    """Context tokens, chat template applied where the model has one."""
    reference: str
    """JSON: the answer's text, or what the verifier's page says."""
    family: str = ""
    """A label for reports: difficulty, data set, domain."""
    messages: tuple[Message, ...] = ()
    """The conversation, where the prompt is more than one user's text."""
