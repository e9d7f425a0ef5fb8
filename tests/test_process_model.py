"""A process reward model: where the head is read, what the steps' values make of the whole, spans kept."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.chat_folder import CHATML
from tests.judging_models import asks, classifier_folder, texts, transformers_of
from verifiers.grader import Item
from verifiers.process_model import NO_STEP, whole
from verifiers.scalar_folder import examine
from verifiers.scalar_framing import Framer
from verifiers.scalar_model import ScalarHead
from verifiers.served import Exchange
from verifiers.steps import cut
from verifiers.verifier import build

TRIMMED = CHATML.replace("m['content']", "m['content'] | trim")
CLOSE = {"rel": 1e-4, "abs": 1e-5}

TRICKY = (
    ("one\ntwo\nthree", "\n"),
    ("one\n\n\ntwo\n\n", "\n"),  # separators that merge into one token
    ("user\n\n\n\nwhat\n\nsun", "\n\n"),
    ("the sky is blue and the sun is warm", " "),  # a step's blank is the next word's token
    ("é😀\n😀é😀\nz", "\n"),  # characters of several tokens
    ("e\u0301\nnai\u0308ve", "\n"),  # combining marks
    ("a. b. c", ". "),
    ("\n\n lead\n\ttab\r\nreturn\n", "\n"),
    ("x" * 50 + "\n" + " " * 20 + "\n9", "\n"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_folder(tmp_path_factory.mktemp("process"))


def stepped(response: str, separator: str, framing: str) -> Exchange:
    ends = tuple(end for _, end in cut(response, separator))
    return asks("what color is it?", response, ends=ends, separator=separator, framing=framing)


def spoken(tokenizer: object, ids: list[int]) -> bytes:
    """The bytes that tokens stand for, by the byte-level alphabet alone: no offsets."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    back = {character: byte for byte, character in bytes_to_unicode().items()}
    found = b""
    for one in tokenizer.convert_ids_to_tokens(ids):  # type: ignore[attr-defined]
        found += one.encode() if one.startswith("<|") else bytes(back[character] for character in one)
    return found


@pytest.mark.parametrize(("response", "separator"), TRICKY)
@pytest.mark.parametrize("template", [CHATML, TRIMMED], ids=["as it is", "trimmed"])
def test_in_a_conversation_a_step_is_read_at_the_token_that_holds_its_last_character(
    response: str, separator: str, template: str, tmp_path: Path
):
    """The oracle walks token by token and counts bytes."""
    folder = classifier_folder(tmp_path, template=template)
    _, tokenizer = transformers_of(folder)
    exchange = stepped(response, separator, "conversation")
    framed = Framer(examine(folder), tokenizer).frame(exchange)
    turns = [{"role": "user", "content": "what color is it?"}, {"role": "assistant", "content": response}]
    assert list(framed.ids) == tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    said = response.strip() if template is TRIMMED else response
    begin, lead = text.rindex(said), response.index(said)
    for end, at in zip(exchange.ends, framed.at, strict=True):
        last = begin + min(max(end - lead, 1), len(said)) - 1  # the character, in the rendered text
        low, high = (len(text[:cut_at].encode()) for cut_at in (last, last + 1))
        before, upto = (len(spoken(tokenizer, list(framed.ids[:stop]))) for stop in (at, at + 1))
        assert before < high <= upto, (text[last], tokenizer.convert_ids_to_tokens(framed.ids[at]))
        assert low < upto


@pytest.mark.parametrize(("response", "separator"), TRICKY)
@pytest.mark.parametrize("framing", ["reply", "text"])
def test_pieces_are_tokenised_as_step_labels_are_trained_on(response: str, separator: str, framing: str, folder: Path):
    from policies.tokens import Tokenizer
    from teachers.labels import tokens_of_steps

    tokens, (_, tokenizer) = Tokenizer.load(folder), transformers_of(folder)
    framed = Framer(examine(folder), tokenizer).frame(stepped(response, separator, framing))
    steps = cut(response, separator)
    bounds = [0, *(end for _, end in steps)]
    pieces = [response[low:high].removesuffix(separator) for low, high in pairwise(bounds)]
    ids, ends = tokens_of_steps(tokens, pieces, separator)
    context = len(framed.ids) - len(ids)
    assert list(framed.ids[context:]) == list(ids)
    assert list(framed.at) == [context + end - 1 for end in ends]
    if framing == "reply":
        assert list(framed.ids[:context]) == list(tokens.prompt("what color is it?"))
    else:
        bos = tokenizer.bos_token_id
        assert list(framed.ids[:context]) == [bos, *tokenizer("what color is it?")["input_ids"]]


@pytest.mark.parametrize("labels", [1, 2])
def test_a_token_classifier_is_read_as_transformers_reads_it(labels: int, tmp_path: Path):
    """Of two labels the second is `right`: logistic of the difference is its softmax."""
    folder = classifier_folder(tmp_path, token=True, labels=labels)
    model, tokenizer = transformers_of(folder, token=True)
    verifier = build({"kind": "prm", "path": str(folder), "separator": "\n", "whole": "mean"})
    items = [Item(prompt, response.replace(" ", "\n", 2), None) for prompt, response in texts(8)]
    framer = Framer(examine(folder), tokenizer)
    for item, score in zip(items, verifier.score_many(items), strict=True):
        ends = tuple(end for _, end in cut(item.response, "\n"))
        framed = framer.frame(asks(item.prompt, item.response, ends=ends, separator="\n"))
        logits = model(torch.tensor([framed.ids])).logits[0, list(framed.at)]
        want = logits.softmax(-1)[:, 1] if labels == 2 else logits[:, 0].sigmoid()
        assert [span.value for span in score.spans] == pytest.approx(want.tolist(), **CLOSE)
        assert [(span.start, span.end) for span in score.spans] == cut(item.response, "\n")
        assert score.value == pytest.approx(want.mean().item(), **CLOSE)


def test_a_step_is_worth_what_stands_up_to_it(folder: Path):
    """Later steps change nothing of earlier ones, when nothing merges across."""
    verifier = build({"kind": "prm", "path": str(folder), "framing": "reply"})
    short, long = verifier.score_many([Item("sun?", "one\ntwo", None), Item("sun?", "one\ntwo\nthree", None)])
    assert [one.value for one in long.spans][:2] == pytest.approx([one.value for one in short.spans], **CLOSE)


@pytest.mark.parametrize(("how", "want"), [("min", 0.2), ("product", 0.06), ("last", 0.6), ("mean", 1.3 / 3)])
def test_the_whole_is_made_of_the_steps(how: str, want: float):
    assert whole([0.5, 0.2, 0.6], how) == pytest.approx(want)


def test_a_response_without_a_step_is_worth_nothing_and_others_keep_their_place(folder: Path):
    verifier = build({"kind": "prm", "path": str(folder), "threshold": 0.0})
    found = verifier.score_many([Item("a", text, None) for text in ("", "one\ntwo", "\n\n", "z")])
    assert [(one.value, one.passed, one.reason) for one in (found[0], found[2])] == [(0.0, False, NO_STEP)] * 2
    assert [len(one.spans) for one in found] == [0, 2, 0, 1] and found[1].passed is found[3].passed is True


def test_a_template_that_rewrites_the_response_is_an_error_not_a_guess(tmp_path: Path):
    folder = classifier_folder(tmp_path, template=CHATML.replace("m['content']", "m['content'] | upper"))
    (found,) = ScalarHead(str(folder)).read([stepped("one\ntwo", "\n", "conversation")], math.inf)
    assert found.status == "error" and "rewrites the response" in found.reason


def test_steps_between_control_tokens_are_found(folder: Path):
    """A response that spells the end of its turn keeps its steps."""
    response = "one<|im_end|>\ntwo\nthree"
    _, tokenizer = transformers_of(folder)
    framed = Framer(examine(folder), tokenizer).frame(stepped(response, "\n", "conversation"))
    text = tokenizer.apply_chat_template([{"role": "user", "content": "what color is it?"}], tokenize=False)
    before = len(tokenizer(text + "<|im_start|>assistant\n", add_special_tokens=False)["input_ids"])
    for (_, end), at in zip(cut(response, "\n"), framed.at, strict=True):
        read = spoken(tokenizer, list(framed.ids[before : at + 1]))
        assert read.startswith(response[:end].encode()) and len(read) - len(response[:end].encode()) < 4
