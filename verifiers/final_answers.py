"""What a response answers, as a text that two responses can be compared by. Linear in the text, runs nothing."""

import unicodedata

from verifiers import config
from verifiers.answers import after_marker, final
from verifiers.kinds import leaves

LONGEST = 200
"""Characters of an answer that are kept: what differs later counts as the same."""


def final_answer(verifier: config.AnyVerifier, response: str) -> str | None:
    """The final answer as the verifier finds it, without white space; None where it looks for none, or finds none.

    Two notations of one value (0.5, 1/2) are two answers: to tell them equal is a verdict, which takes a process.
    """
    for leaf in leaves(verifier):
        match leaf:
            case config.AnswerVerifier() | config.TaskVerifier():
                found = after_marker(response, leaf.marker)
            case config.MathVerifier():
                found, _ = final(response, leaf.marker, leaf.boxes)
            case _:
                continue
        return _same(found) if found else None
    return None


def _same(answer: str) -> str:
    return "".join(unicodedata.normalize("NFKC", answer).split())[:LONGEST]
