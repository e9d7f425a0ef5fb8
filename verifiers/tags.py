"""The response is made of tags, in order and each once."""

from verifiers import answers
from verifiers.grader import Grader, Item, one_by_one
from verifiers.kinds import Tools
from verifiers.score import Score
from verifiers.text_config import TagsVerifier


def open_grader(own: TagsVerifier, _: Tools) -> Grader:
    """A grader of tags."""
    return one_by_one(lambda item: judge(own, item))


def judge(own: TagsVerifier, item: Item) -> Score:
    """1 if the tags are there, in order, and nothing else where they stand alone."""
    fault = _fault(item.response, own)
    return answers.wrong(fault) if fault else answers.right()


def _fault(response: str, own: TagsVerifier) -> str:
    """What is wrong with the tags, or nothing."""
    marks = [mark for tag in own.tags for mark in (f"<{tag}>", f"</{tag}>")]
    if own.opened and marks[0] in response:
        return f"{marks[0]} is there again; the prompt has it"
    text = marks[0] + response if own.opened else response
    for mark in marks:
        if (times := text.count(mark)) != 1:
            return f"{mark} is there {times} times" if times else f"{mark} is missing"
    places = [text.index(mark) for mark in marks]
    if places != sorted(places):
        return "the tags are out of order"
    return _misplaced(text, marks, places, own.alone)


def _misplaced(text: str, marks: list[str], places: list[int], alone: bool) -> str:
    """A tag that is empty or, where they stand alone, text outside them."""
    ends = [place + len(mark) for mark, place in zip(marks, places, strict=True)]
    for mark, start, close in zip(marks[::2], ends[::2], places[1::2], strict=True):
        if not text[start:close].strip():
            return f"{mark} is empty"
    outside = zip([0, *ends[1::2]], [*places[::2], len(text)], strict=True)
    if alone and any(text[start:end].strip() for start, end in outside):
        return "there is text outside the tags"
    return ""
