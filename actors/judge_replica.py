"""A model of our own as a judge: an engine that answers conversations under its folder's chat template.

What stands in a message is text and stays text: no special token ever comes of it. Each special token's spelling
inside a message is escaped first, and a conversation that still holds one more than its template writes is refused.
"""

import asyncio
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.config import Judge, Rollout
from actors.engine import Completion, SampleRequest
from actors.sampler import open_engine
from policies.config import HfModel
from policies.model_folder import read_json
from policies.prompt import Message as Turn
from policies.tokens import Tokenizer
from policies.trajectory import FinishReason, Int32, Sampling
from verifiers.background import Background
from verifiers.scalar_folder import fingerprint
from verifiers.served import Message, Reply

AT_ONCE = 32
"""Conversations that one replica answers at once."""

LEAST_CACHE = 256 << 20
"""Bytes of keys and values that an engine has at least."""

BY_HAND = {"system": "", "user": "", "assistant": "Answer: "}
"""How turns are told apart where a folder has no chat template."""


class JudgeReplica:
    """Answers conversations: as an actor by `answer`, in the asker's own process by `complete`."""

    def __init__(self, path: str, config: Judge) -> None:
        """Loads the folder's model and tokenizer; ValueError for a folder that is none."""
        folder = Path(path)
        self._speech = Speech.of(folder)
        self._identity = f"{folder.name}@{fingerprint(folder)}"
        said = read_json(folder / "config.json")
        longest = said.get("max_position_embeddings")
        context = min(config.context, longest) if isinstance(longest, int) else config.context
        model = HfModel(path=path, context=context, dtype="bfloat16" if config.gpus else "float32")
        holds = Rollout(
            engine=config.engine,
            threads=config.threads,
            gpus=config.gpus,
            max_concurrent=AT_ONCE,
            kv_cache_bytes=cache_bytes(said, context, 2 if config.gpus else 4),
        )
        self._engine = open_engine(folder, model, holds, context, "folder")
        self._background = Background("judge")
        self._asked = 0

    async def ping(self) -> str:
        """Answers once the model is up."""
        return "ok"

    def complete(
        self, conversations: Sequence[Sequence[Message]], *, max_tokens: int, temperature: float, seconds: float
    ) -> list[Reply]:
        """One reply to each conversation, for a caller of the same process."""
        return self._background.run(self.answer(conversations, max_tokens, temperature, seconds))

    async def answer(
        self, conversations: Sequence[Sequence[Message]], max_tokens: int, temperature: float, seconds: float
    ) -> list[Reply]:
        """One reply to each conversation, in order; what is not written within `seconds` is timed out.

        What is drawn is a function of the conversation and its place, so that a run repeats itself.
        """
        self._asked += 1
        sampling = Sampling(temperature, 1.0, -1, max_tokens, ())
        replies: dict[int, Reply] = {}
        requests: dict[int, SampleRequest] = {}
        for at, one in enumerate(conversations):
            try:
                tokens = self._speech.tokens(one)
            except ValueError as error:
                replies[at] = Reply(None, f"the judge cannot read the question: {error}")
            else:
                requests[at] = SampleRequest(f"judge/{self._asked}/{at}", tokens, sampling, seed_of(one, at))
        drawn = await self._drawn(list(requests.values()), seconds)
        replies |= {at: reply_of(one) for at, one in zip(requests, drawn, strict=True)}
        return [replies[at] for at in range(len(conversations))]

    def identity(self) -> str:
        """Which model: its folder's name, and a fingerprint of what is in it."""
        return self._identity

    def close(self) -> None:
        """Free the model."""
        self._background.run(self._engine.close())
        self._background.close()

    async def _drawn(self, requests: Sequence[SampleRequest], seconds: float) -> list[Completion]:
        """All of them; after `seconds` those that go on are ended with what they have."""
        if not requests:
            return []
        work = asyncio.ensure_future(self._engine.generate(requests))
        done, _ = await asyncio.wait([work], timeout=None if math.isinf(seconds) else max(0.0, seconds))
        if not done:
            await self._engine.abort([one.id for one in requests])
        return await work


@dataclass(frozen=True, slots=True, eq=False)
class Speech:
    """Conversations as tokens under a folder's chat template, with no special token that its template did not write."""

    tokenizer: Tokenizer
    added: Mapping[str, int]
    """Spelling -> id of the tokens that are found in a text before it is read."""

    @classmethod
    def of(cls, folder: Path) -> "Speech":
        """That of a model folder."""
        tokenizer = Tokenizer.load(folder)
        return cls(tokenizer, added_tokens(tokenizer))

    def tokens(self, conversation: Sequence[Message]) -> Int32:
        """The conversation, its messages' spellings of special tokens escaped. ValueError where that does not do."""
        safe = [Turn(one.role, escaped(one.content, self.added)) for one in conversation]
        found, frame = self._rendered(safe), self._rendered([Turn(one.role, "?") for one in conversation])
        if self._special(found) != self._special(frame):
            raise ValueError("a message holds special tokens of the judge's own")
        return found

    def _special(self, tokens: Int32) -> Counter[int]:
        special = frozenset(self.added.values())
        return Counter(one for one in tokens.tolist() if one in special)

    def _rendered(self, turns: Sequence[Turn]) -> Int32:
        if self.tokenizer.template is None:
            lines = [f"{BY_HAND[one.role]}{one.content}" for one in turns]
            return self.tokenizer.prompt("\n\n".join([*lines, BY_HAND["assistant"]]))
        try:
            return self.tokenizer.encode(self.tokenizer.rendered(turns, reply=True))
        except ValueError:
            if turns[0].role != "system" or len(turns) < 2:
                raise
        first, second, *rest = turns  # a template without a system turn: its words go before the user's
        together = Turn(second.role, f"{first.content}\n\n{second.content}")
        return self.tokenizer.encode(self.tokenizer.rendered([together, *rest], reply=True))


def added_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Spelling -> id of the tokens that a tokenizer finds in a text before it reads it, but for mere spaces."""
    found = tokenizer.codec.get_added_tokens_decoder()
    return {token.content: at for at, token in found.items() if token.content.strip()}


def escaped(text: str, added: Mapping[str, int]) -> str:
    """The text with a backslash after the first character of each added token's spelling, until none is left."""
    for spelling in sorted(added, key=len, reverse=True):
        if len(spelling) > 1:
            text = text.replace(spelling, f"{spelling[0]}\\{spelling[1:]}")
    return text


def seed_of(conversation: Sequence[Message], at: int) -> int:
    """A 31-bit seed of what is asked, and where in its batch."""
    digest = hashlib.blake2s(digest_size=4)
    for one in conversation:
        digest.update(f"{one.role}\n{one.content}\n".encode("utf-8", "surrogatepass"))
    digest.update(str(at).encode())
    return int.from_bytes(digest.digest(), "big") >> 1


def reply_of(completion: Completion) -> Reply:
    """A completion as a reply; one that was ended half-way is timed out, one that ran out of tokens says so."""
    match completion.finish_reason:
        case FinishReason.ERROR:
            return Reply(None, f"the judge cannot read the question: {completion.reason}")
        case FinishReason.ABORT:
            return Reply(None, "the judge did not finish in time", timed_out=True)
        case FinishReason.LENGTH:
            return Reply(completion.text, "the judge was cut off at max_tokens")
        case _:
            return Reply(completion.text)


def cache_bytes(said: Mapping[str, object], context: int, width: int) -> int:
    """Keys and values of a quarter of the conversations at their full length; `said` is the model's config."""

    def number(key: str, otherwise: int) -> int:
        value = said.get(key)
        return value if isinstance(value, int) else otherwise

    heads = number("num_attention_heads", 1)
    size = number("head_dim", number("hidden_size", 0) // heads)
    token = 2 * number("num_hidden_layers", 0) * number("num_key_value_heads", heads) * size * width
    return max(LEAST_CACHE, token * context * AT_ONCE // 4)
