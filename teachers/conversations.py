"""Text and conversations of a data file, as TRL's standard and conversational forms have them, and their tokens.

A conversation is a list of {role, content}. The model's chat template writes it; its context is what a rollout would
see (the prompt with the opening of the assistant's turn), its tokens what the template writes after that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from policies.bad_input import near, shown
from policies.prompt import Message
from policies.tokens import Tokenizer
from policies.trajectory import Bool, Int32

Text = str | tuple[Message, ...]
"""Plain text, or a conversation."""

ROLES = ("system", "developer", "user", "assistant")
SPOKEN = {"human": "user", "gpt": "assistant", "bot": "assistant"}
"""Roles by the names that ShareGPT gives them."""

NOT_TEXT = ("tool_calls", "function_call", "tool_call_id", "reasoning_content", "images", "audio")
"""Keys of a message that would change what the template writes, and that are not read here."""

CONTINUED = "(the-text-goes-on-here) "
"""Marks where a rendered conversation is to be continued."""


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A response and its context as tokens. C = context tokens, T = response tokens."""

    context: Int32
    """[C]"""
    tokens: Int32
    """[T] the end token included."""
    own: Bool
    """[T] the assistant's words; false where the user speaks between them."""
    text: str
    """What the assistant says."""


# ---------------------------------------------------------------- values


def read_text(value: object, name: str) -> Text:
    """A column's value. ValueError says in words why it is neither a text nor a conversation."""
    if isinstance(value, list | tuple) and value:
        return tuple(_message(one, f"{name}[{index}]") for index, one in enumerate(value))
    return plain(value, name, "a non-empty string, or a list of messages {role, content}")


def plain(value: object, name: str, want: str = "a non-empty string") -> str:
    """A non-empty text that can be encoded. ValueError says in words why it is none."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name}: not a text (got {shown(value)}); it is {want}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: holds a lone surrogate at {error.start} (got {shown(value)}); remove it") from error
    return value


def _message(value: object, name: str) -> Message:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: not a message (got {shown(value)}); it is {{role, content}}")
    role, content = _either(value, "role", "from"), _either(value, "content", "value")
    for key in NOT_TEXT:
        if value.get(key):
            raise ValueError(f"{name}.{key}: only text is read (got {shown(value[key])}); take the row out")
    if not isinstance(role, str):
        raise ValueError(f"{name}.role: missing or no text (got {shown(role)}); it is one of {', '.join(ROLES)}")
    role = SPOKEN.get(role, role)
    if role not in ROLES:
        said = "tool calls are not read" if role in ("tool", "function") else f"unknown role{near(role, ROLES)}"
        raise ValueError(f"{name}.role: {said} (got {shown(role)}); use {', '.join(ROLES)}, or take the row out")
    if isinstance(content, list | tuple):
        raise ValueError(f"{name}.content: only text is read (got {shown(content)}); write the content as one string")
    return Message(role, plain(content, f"{name}.content"))


def _either(value: Mapping[Any, Any], name: str, other: str) -> object:
    found = value.get(name)
    return value.get(other) if found is None else found


def last_said(prompt: Text) -> str:
    """What the user said last; of a plain text, all of it."""
    if isinstance(prompt, str):
        return prompt
    return next((one.content for one in reversed(prompt) if one.role == "user"), prompt[-1].content)


def one_text(prompt: Text) -> Text:
    """A conversation that is one user's text, as that text: both mean the same tokens."""
    alone = not isinstance(prompt, str) and len(prompt) == 1 and prompt[0].role == "user"
    return prompt[0].content if alone and not isinstance(prompt, str) else prompt


def common_prompt(chosen: Text, rejected: Text) -> tuple[Text, Text, Text]:
    """(prompt, chosen, rejected) of a pair without a prompt: what both begin with, and what is left of each.

    The rule is TRL's `extract_prompt`: a blank before the first difference goes with the rest, and where one is the
    beginning of the other, both keep their last common element. ValueError where they have no beginning in common.
    """
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise ValueError("chosen, rejected: one is a text and the other a conversation; write both alike")
    if chosen == rejected:
        raise ValueError(f"chosen, rejected: are the same (got {shown(chosen)}); take the row out")
    shorter = min(len(chosen), len(rejected))
    differ = next((at for at in range(shorter) if chosen[at] != rejected[at]), None)
    cut = shorter - 1 if differ is None else differ
    if differ and chosen[cut - 1] == " ":
        cut -= 1
    if cut <= 0:
        raise ValueError("chosen, rejected: begin with nothing in common that could be the prompt; add a prompt")
    return chosen[:cut], chosen[cut:], rejected[cut:]


# ---------------------------------------------------------------- tokens


def prompt_tokens(tokenizer: Tokenizer, prompt: Text) -> Int32:
    """Context tokens, [C]: the prompt and the opening of the assistant's turn, or the assistant's words to go on with.

    ValueError where the model's template or vocabulary cannot write it.
    """
    single = one_text(prompt)
    if isinstance(single, str):
        return tokenizer.prompt(single)
    match single[-1].role:
        case "assistant":
            return tokenizer.encode(_to_continue(tokenizer, single))
        case "user":
            return tokenizer.encode(tokenizer.rendered(single, reply=True))
        case role:
            raise ValueError(f"the prompt ends with the {role}'s words; the user or the assistant speaks last")


def _to_continue(tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    """The conversation up to its last word, without what ends a turn."""
    last = Message(messages[-1].role, messages[-1].content + CONTINUED)
    rendered = tokenizer.rendered((*messages[:-1], last))
    before, found, after = rendered.rpartition(CONTINUED.strip())
    if not found:
        raise ValueError("the chat template does not write the last message as it is; it cannot be continued")
    return before if after.startswith(" ") else before.rstrip()


def written(tokenizer: Tokenizer, prompt: Text, completion: Text) -> Written:
    """A response after its prompt. ValueError says in words why it cannot be written."""
    single, said = one_text(prompt), _said(completion)
    if isinstance(single, str) and isinstance(said, str) and (isinstance(completion, str) or not tokenizer.template):
        tokens = tokenizer.response(said)
        return Written(tokenizer.prompt(single), tokens, np.ones(len(tokens), np.bool_), said)
    asked = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    answer = (Message("assistant", completion),) if isinstance(completion, str) else completion
    return conversation(tokenizer, (*asked, *answer), len(asked))


def _said(completion: Text) -> Text:
    """A conversation that is one assistant's text, as that text."""
    if not isinstance(completion, str) and len(completion) == 1 and completion[0].role == "assistant":
        return completion[0].content
    return completion


def whole(tokenizer: Tokenizer, messages: Sequence[Message]) -> Written:
    """A conversation whose response begins with the assistant's first turn."""
    first = next((index for index, one in enumerate(messages) if one.role == "assistant"), 0)
    if not first:
        raise ValueError("messages: no assistant who answers somebody; there is nothing to learn from")
    return written(tokenizer, tuple(messages[:first]), tuple(messages[first:]))


def conversation(tokenizer: Tokenizer, messages: Sequence[Message], asked: int) -> Written:
    """The tokens of messages[asked:] after messages[:asked]; of several turns, only the assistant's are `own`."""
    if messages[asked].role != "assistant" or messages[asked - 1].role == "assistant":
        raise ValueError("the completion does not begin with an assistant's answer; the prompt ends with the user's")
    if messages[-1].role != "assistant":
        raise ValueError("the completion does not end with the assistant's words; leave out what follows them")
    rendered = tokenizer.rendered(messages)
    cuts: list[int] = []
    for index in range(asked, len(messages)):
        if messages[index].role == "assistant":
            cuts += [_opened(tokenizer, messages, index, rendered), _closed(tokenizer, messages, index, rendered)]
    context, *parts = _pieces(tokenizer, rendered, cuts)
    tokens, own = _turns(tokenizer, parts)
    text = "\n".join(one.content for one in messages[asked:] if one.role == "assistant")
    return Written(context, tokens, own, text)


def _opened(tokenizer: Tokenizer, messages: Sequence[Message], index: int, rendered: str) -> int:
    """Where in the rendered conversation the answer begins."""
    opening = tokenizer.rendered(messages[:index], reply=True)
    if not rendered.startswith(opening):
        raise ValueError(
            "the chat template writes the prompt alone otherwise than before its completion, so that training would "
            f"see another context than generation (got {shown(opening[-30:])}); use a template that writes both alike"
        )
    return len(opening)


def _closed(tokenizer: Tokenizer, messages: Sequence[Message], index: int, rendered: str) -> int:
    """Where the answer and what ends it are over."""
    if index == len(messages) - 1:
        return len(rendered)
    closing = tokenizer.rendered(messages[: index + 1])
    if rendered.startswith(closing):
        return len(closing)
    # Templates that leave out an earlier turn's thoughts write it otherwise when it is the last; its end token remains.
    begun = _opened(tokenizer, messages, index, rendered)
    end = str(tokenizer.codec.id_to_token(tokenizer.eos_id))
    found = rendered.find(end, begun)
    if found < 0:
        raise ValueError("the chat template rewrites earlier turns and has no end token; give one turn a row")
    return found + len(end)


def _pieces(tokenizer: Tokenizer, text: str, cuts: Sequence[int]) -> list[Int32]:
    """Tokens of the text's parts: those of the whole text, where they can be parted there, else of each part alone."""
    ids = tokenizer.encode(text)
    heads = [tokenizer.encode(text[:cut]) for cut in cuts]
    if all(np.array_equal(ids[: len(head)], head) for head in heads):
        return np.split(ids, [len(head) for head in heads])[: len(cuts) + 1]
    # Tokens merge over a boundary: generation sees the prompt's own tokens, so training does too.
    bounds = [0, *cuts, len(text)]
    return [tokenizer.encode(text[start:end]) for start, end in pairwise(bounds)]


def _turns(tokenizer: Tokenizer, parts: Sequence[Int32]) -> tuple[Int32, Bool]:
    """Tokens and whose they are; `parts` are answers and, between them, the others' words.

    What a template puts after an answer's end token (a line break) is nobody's answer: generation stops before it.
    """
    tokens: list[Int32] = []
    own: list[Bool] = []
    for index, part in enumerate(parts[:-1]):
        ends = np.flatnonzero(np.isin(part, tokenizer.eos_ids))
        answers = (0 if index % 2 else len(part)) if index % 2 or not len(ends) else int(ends[-1]) + 1
        tokens.append(part)
        own.append(np.arange(len(part)) < answers)
    joined, mask = np.concatenate(tokens), np.concatenate(own)
    last = int(np.flatnonzero(mask)[-1]) + 1
    joined, mask = joined[:last], mask[:last]
    if joined[-1] not in tokenizer.eos_ids:
        joined, mask = np.append(joined, tokenizer.eos_id), np.append(mask, True)
    return joined.astype(np.int32), mask.astype(np.bool_)
