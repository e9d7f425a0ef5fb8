"""The response as a whole matches a regular expression, within a time limit."""

from verifiers import answers, config
from verifiers.grader import Grader, Item, one_by_one
from verifiers.kinds import Tools
from verifiers.score import Score, Status


def open_grader(own: config.FormatVerifier, _: Tools) -> Grader:
    """A grader of a pattern."""
    return one_by_one(lambda item: judge(own, item))


def judge(own: config.FormatVerifier, item: Item) -> Score:
    """1 if the whole response matches."""
    import regex  # type: ignore[import-untyped]  # its matcher stops at a deadline; re's does not

    try:
        matched = regex.fullmatch(own.pattern, item.response, timeout=own.timeout)
    except TimeoutError:
        return Score.unknown(Status.TIMEOUT, f"the pattern took longer than {own.timeout:g} s")
    return answers.right() if matched else answers.wrong("the pattern does not match")
