"""A scorer that finds 1 in a response that says `right`, and whose process a response can end or stop."""

import os
import signal
from collections.abc import Sequence

from actors.scorer import Judged
from policies.trajectory import ScoreEntry
from verifiers.grader import Asked
from verifiers.health import tallied
from verifiers.score import Score


def verdicts(items: Sequence[Asked]) -> Judged:
    """What a scorer hands back of a batch."""
    scores = [Score(float(one.response == "right"), one.response == "right", scorer="fake") for one in items]
    entries = [(ScoreEntry("reward", one.value, one.passed, scorer="fake"),) for one in scores]
    return Judged(entries, tallied("reward", items, scores))


class Mortal:
    """At the port of `ScorerReplica`."""

    def judge(self, items: Sequence[Asked], _seconds: float) -> Judged:
        """The verdicts, unless a response says SIGKILL or SIGSTOP: that happens to this process."""
        for one in items:
            if one.response in ("SIGKILL", "SIGSTOP"):
                os.kill(os.getpid(), getattr(signal, one.response))
        return verdicts(items)
