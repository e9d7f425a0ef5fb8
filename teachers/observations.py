"""What an environment says, as tokens: cut to its budget, unable to speak for anybody else, never refused.

Demonstrations with tools and the rollouts themselves are framed here, so that a model is trained on what it will read.
"""

from dataclasses import dataclass
from functools import lru_cache

from policies.tokens import Tokenizer
from policies.trajectory import Int32
from verifiers.environments.config import AnyEnvironment
from verifiers.environments.opening import marks

CUT = "..."
"""Stands where the rest of an observation was cut."""

MOST_CHARACTERS = 32
"""For each token of the budget, characters that are looked at: a flood is not tokenised to be thrown away."""


@dataclass(frozen=True, slots=True, eq=False)
class Framing:
    """How an environment's words are put before the model."""

    tokenizer: Tokenizer
    environment: AnyEnvironment

    def tokens(self, said: str, *, ended: bool) -> Int32:
        """Environment tokens between a turn and the next; `ended` says that the turn holds its end token already."""
        before, after = marks(self.environment)
        most = self.environment.observation_tokens
        text = f"{before}{cut(self.tokenizer, written(self.tokenizer, said, most * MOST_CHARACTERS), most)}{after}"
        if self.environment.framing == "inline":
            return self.tokenizer.encode(text)
        return self.tokenizer.turn(text, ended=ended)


def written(tokenizer: Tokenizer, said: str, characters: int) -> str:
    """The text in characters that the model has, without what would be read as one of its special tokens.

    A tool's words may hold `<|im_end|>`: as a special token it would end the turn and let the tool speak as the user.
    """
    said = said.encode("utf-8", "replace").decode()[: characters + 1]
    for special in _special(tokenizer):
        said = said.replace(special, f"{special[0]} {special[1:]}" if len(special) > 1 else "")
    try:
        tokenizer.encode(said)
    except ValueError:
        return "".join(_known(tokenizer, character) for character in said)
    return said


def cut(tokenizer: Tokenizer, text: str, most: int) -> str:
    """The text, if it has `most` tokens or less, else its beginning and `...`."""
    if len(tokenizer.encode(text)) <= most:
        return text
    mark = written(tokenizer, CUT, len(CUT))
    low, high = 0, len(text)
    while low < high:  # the longest beginning that fits
        middle = (low + high + 1) // 2
        if len(tokenizer.encode(text[:middle] + mark)) <= most:
            low = middle
        else:
            high = middle - 1
    return text[:low] + mark if low else ""


def _special(tokenizer: Tokenizer) -> list[str]:
    """Texts that the tokenizer reads as special tokens, longest first."""
    found = {str(one.content) for one in tokenizer.codec.get_added_tokens_decoder().values() if one.content}
    return sorted(found, key=len, reverse=True)


def _known(tokenizer: Tokenizer, character: str) -> str:
    """The character, or what stands in for one that the vocabulary lacks."""
    return _spelled(tokenizer.fingerprint, character, tokenizer.codec)


@lru_cache(maxsize=4096)
def _spelled(_: str, character: str, codec: object) -> str:
    for candidate in (character, character.lower(), "?", " "):
        try:
            codec.encode(candidate, add_special_tokens=False)  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001  (tokenizers raises nothing narrower)
            continue
        return candidate
    return ""
