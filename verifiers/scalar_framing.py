"""From an exchange to the tokens that a model with a scalar head reads, and the tokens at which its head is read.

A response is a stranger's text: where it spells a control token (`<|im_end|>`), it is written letter by letter, so that
it cannot end its own turn and praise itself in another's. Fast tokenizers alone, for their offsets.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, assert_never

from verifiers.scalar_folder import ScalarFolder
from verifiers.served import Exchange, Framing, Message

ANSWER = "(the-answer-stands-here)"
"""Marks where a response stands in a rendered conversation."""

CHARACTERS = 64
"""A text of more characters for each token that the model reads is too long without a look at its tokens."""


class TooLongError(ValueError):
    """A text that the model cannot read whole."""


@dataclass(frozen=True, slots=True)
class Framed:
    """What the model reads: T tokens."""

    ids: tuple[int, ...]
    """[T]"""
    at: tuple[int, ...]
    """Tokens whose output is asked, rising."""
    segments: tuple[int, ...] = ()
    """[T] which of two texts each token belongs to, for encoders that are told."""


class Framer:
    """Writes exchanges with a model's own tokenizer, as it was trained to read them."""

    def __init__(self, folder: ScalarFolder, tokenizer: Any, *, pairs: bool = False) -> None:
        """`tokenizer` is transformers' fast one; `pairs`: an encoder that reads prompt and response as two texts."""
        from tokenizers import Tokenizer

        self._folder, self._tokenizer, self._pairs = folder, tokenizer, pairs
        self._codec: Any = tokenizer.backend_tokenizer
        self._literal = Tokenizer.from_str(self._codec.to_str())
        self._literal.encode_special_tokens = True
        for one in (self._codec, self._literal):  # a folder may say that it cuts texts
            one.no_truncation()
            one.no_padding()
        self._special = [one.content for one in tokenizer.added_tokens_decoder.values() if one.special]

    def frame(self, exchange: Exchange) -> Framed:
        """The exchange as tokens; `TooLongError` beyond what the model reads, other errors for what has no tokens."""
        size = sum(len(one.content) for one in exchange.messages) + len(exchange.response)
        if size > CHARACTERS * self._folder.longest:
            raise TooLongError(f"{size} characters; the model reads {self._folder.longest} tokens")
        found = self._steps(exchange) if exchange.ends else self._whole(exchange)
        if len(found.ids) > self._folder.longest:
            raise TooLongError(f"{len(found.ids)} tokens; the model reads {self._folder.longest}")
        if not found.at or found.at[0] < 0:
            raise ValueError("the text has no token to read at")
        return found

    def framing(self, exchange: Exchange) -> Framing:
        """Which one it is, never `folder`."""
        asked = self._folder.framing if exchange.framing == "folder" else exchange.framing
        if asked == "conversation" and not self._tokenizer.chat_template:
            return "text"
        return asked

    # ------------------------------------------------------------ the whole

    def _whole(self, exchange: Exchange) -> Framed:
        match framing := self.framing(exchange):
            case "conversation":
                before, said, after = self._parts(exchange) if self._spells(exchange.response) else ("", "", "")
                if said:
                    ids = [*self._encode(before), *self._letters(said), *self._encode(after)]
                else:
                    ids = self._encode(self._rendered(exchange))
                return Framed(tuple(ids), (self._last(ids),))
            case "reply":
                ids = [*self._opening(exchange.messages), *self._response(exchange.response), *self._end()]
                return Framed(tuple(ids), (len(ids) - 1,))
            case "text":
                return self._as_text(exchange)
            case "folder":
                raise AssertionError(framing)
            case _:
                assert_never(framing)

    def _as_text(self, exchange: Exchange) -> Framed:
        prompt = _alone(exchange.messages)
        if self._pairs:
            found = self._tokenizer(prompt, exchange.response)
            return Framed(tuple(found["input_ids"]), (0,), tuple(found.get("token_type_ids", ())))
        if self._spells(exchange.response):
            ids = [*self._encode(prompt, framed=True), *self._letters(exchange.response)]
        else:
            ids = self._encode(prompt + exchange.response, framed=True)
        end = self._end()
        ids += end if ids[-1:] != end else []
        return Framed(tuple(ids), (self._last(ids),))

    def _last(self, ids: Sequence[int]) -> int:
        """Where transformers' classifiers read: at the last token that is not padding by its id."""
        return next((at for at in range(len(ids) - 1, -1, -1) if ids[at] != self._folder.pad_id), 0)

    # ------------------------------------------------------------ steps

    def _steps(self, exchange: Exchange) -> Framed:
        match framing := self.framing(exchange):
            case "conversation":
                return self._by_offsets(exchange)
            case "reply":
                return self._by_pieces(self._opening(exchange.messages), exchange)
            case "text":
                first = self._tokenizer.bos_token_id
                start = [] if first is None else [int(first)]
                return self._by_pieces([*start, *self._encode(_alone(exchange.messages))], exchange)
            case "folder":
                raise AssertionError(framing)
            case _:
                assert_never(framing)

    def _by_pieces(self, context: Sequence[int], exchange: Exchange) -> Framed:
        """Each step and each separator tokenised on its own, as step labels are trained on: nothing merges across.

        The last step gets the separator that the response may lack, for the head learnt to speak after it.
        """
        after = self._response(exchange.separator) if exchange.separator else []
        pieces = [
            [*self._response(exchange.response[start:end].removesuffix(exchange.separator)), *after]
            for start, end in zip((0, *exchange.ends), exchange.ends, strict=False)
        ]
        at = accumulate(len(piece) for piece in pieces)
        ids = [*context, *(one for piece in pieces for one in piece)]
        return Framed(tuple(ids), tuple(len(context) + one - 1 for one in at))

    def _by_offsets(self, exchange: Exchange) -> Framed:
        """The conversation tokenised as one text; a step ends at the last token that begins before the step is over.

        That is the token which holds the step's last character; it may reach into the next step. Where offsets leave
        out blanks, a blank at the end counts with what stands before it.
        """
        before, said, after = self._parts(exchange)
        hidden = exchange.response.find(said)  # blanks that the template took off the front
        if self._spells(said):
            head, encoding = self._encode(before), self._literal.encode(said, add_special_tokens=False)
            ids, shift, origin = [*head, *encoding.ids, *self._encode(after)], len(head), 0
        else:
            encoding = self._codec.encode(before + said + after, add_special_tokens=False)
            ids, shift, origin = list(encoding.ids), 0, len(before)
        shown = [(low - origin, at) for at, (low, high) in enumerate(encoding.offsets) if high > max(low, origin)]
        begins = [low for low, _ in shown]
        found = [bisect_left(begins, min(end - hidden, len(said))) - 1 for end in exchange.ends]
        if min(found) < 0:
            raise ValueError("a step has no token of its own under the chat template")
        return Framed(tuple(ids), tuple(shift + shown[one][1] for one in found))

    # ------------------------------------------------------------ pieces of text

    def _opening(self, messages: Sequence[Message]) -> list[int]:
        """The context of a reply."""
        if not self._tokenizer.chat_template:
            return self._encode(_alone(messages), framed=True)
        return self._encode(self._template(messages, reply=True))

    def _parts(self, exchange: Exchange) -> tuple[str, str, str]:
        """(before, response as the template writes it, after)."""
        marked = self._template((*exchange.messages, Message("assistant", ANSWER)))
        before, found, after = marked.rpartition(ANSWER)
        rendered = self._rendered(exchange)
        for said in (exchange.response, exchange.response.strip()):
            if found and before + said + after == rendered:
                return before, said, after
        raise ValueError("the chat template rewrites the response, so its parts cannot be found again")

    def _rendered(self, exchange: Exchange) -> str:
        return self._template((*exchange.messages, Message("assistant", exchange.response)))

    def _template(self, messages: Sequence[Message], *, reply: bool = False) -> str:
        turns = [{"role": one.role, "content": one.content} for one in messages]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=reply))

    def _response(self, text: str) -> list[int]:
        return self._letters(text) if self._spells(text) else self._encode(text)

    def _encode(self, text: str, *, framed: bool = False) -> list[int]:
        return list(self._codec.encode(text, add_special_tokens=framed).ids)

    def _letters(self, text: str) -> list[int]:
        """A text whose control tokens are letters."""
        return list(self._literal.encode(text, add_special_tokens=False).ids)

    def _spells(self, text: str) -> bool:
        """Whether the text spells a control token."""
        return any(one in text for one in self._special)

    def _end(self) -> list[int]:
        found = self._tokenizer.eos_token_id
        return [] if found is None else [int(found)]


def _alone(messages: Sequence[Message]) -> str:
    if len(messages) != 1:
        raise ValueError(
            f"a conversation of {len(messages)} turns, and the model has no chat template to write it with"
        )
    return messages[0].content
