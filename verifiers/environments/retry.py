"""Self-correction: the model answers, is asked to look at its answer again, and answers again."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from verifiers.environments.config import RetryEnvironment
from verifiers.environments.protocol import Task, Turn
from verifiers.score import Score, Status

VERDICT = "{verdict}"


class Judge(Protocol):
    """Whoever says what an answer is worth: a verifier."""

    def score(self, prompt: str, response: str, reference: Any) -> Score:
        """The verdict on one answer."""
        ...


@dataclass(slots=True)
class RetryEpisode:
    """One prompt's answers. An answer that cannot be judged has no reward; the episode goes on."""

    own: RetryEnvironment
    judge: Judge
    answers: int = 0
    task: Task = field(default_factory=lambda: Task(""))

    def start(self, task: Task) -> None:
        """Remember what the answers are judged by."""
        self.task = task

    def step(self, text: str) -> Turn:
        """The answer's verdict as the turn's reward, and the request to look again."""
        self.answers += 1
        score = self.judge.score(self.task.prompt, text, self.task.reference)
        known = score.status == Status.OK
        done = self.answers == self.own.turns or (self.own.until == "passed" and bool(score.passed))
        said = {True: "right", False: "wrong", None: "unknown"}[score.passed]
        return Turn(
            observation=self.own.request.replace(VERDICT, said),
            reward=score.value if known else None,
            done=done,
            passed=score.passed,
            reason=score.reason,
            status=score.status,
        )
