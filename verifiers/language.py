"""Whether a response is in the language asked for: scripts first, then py3langid between languages that share one."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import regex  # type: ignore[import-untyped]  # knows scripts; re does not

from verifiers import answers
from verifiers.grader import Grader, Item, one_by_one
from verifiers.kinds import Tools
from verifiers.prose import prose
from verifiers.score import Score, Status
from verifiers.scripts import WRITTEN_IN
from verifiers.text_config import LanguageVerifier
from verifiers.words import SPACELESS

STRETCH = 48
"""UTF-8 bytes of the shortest text that py3langid is asked about: seven or eight English words, sixteen characters of
Chinese. Of 35,000 English words, between six languages, it gave 0.07 % to another; in stretches of 16 bytes 1 %."""

MOST_WORDS = 40
"""Longest piece of a sentence that is judged at once."""

SENTENCE = regex.compile(r"[.!?;:。！？；：\n]+")
WORD = regex.compile(rf"[{SPACELESS}]\p{{M}}*+|[\w'’--[{SPACELESS}]]++", regex.V1)
SINGLE = regex.compile(r"[\p{Latin}\p{Greek}\p{Cyrillic}]\Z")
ALONE = regex.compile(rf"[{SPACELESS}]")
UNWORDLY = regex.compile(r"[\d_]|\A['’]*\Z")


class Share(NamedTuple):
    """Words that are in a language, that are in another, and that could be in it but are too few to tell."""

    own: int
    foreign: int
    unclear: int

    @property
    def words(self) -> int:
        """All of them."""
        return self.own + self.foreign + self.unclear

    @property
    def value(self) -> float:
        """Share in the language, the unclear ones taken for it; 1 of no words."""
        return (self.own + self.unclear) / self.words if self.words else 1.0


def open_grader(own: LanguageVerifier, _: Tools) -> Grader:
    """A grader of a language; loads py3langid's model now, so that no verdict waits for it."""
    identifier(own.among)
    return one_by_one(lambda item: judge(own, item))


def judge(own: LanguageVerifier, item: Item) -> Score:
    """The share of words in the language asked for."""
    language = _asked(own, item)
    if isinstance(language, Score):
        return language
    sentences = split(item.response)
    targets = own.among if language == "one" else (language,)
    found = {target: share(sentences, target, own.among) for target in targets}
    best = max(found, key=lambda target: found[target].value)
    if found[best].words < own.least:
        return answers.wrong(f"{found[best].words} words; at least {own.least} are asked")
    value = found[best].value
    reason = "" if value == 1.0 else f"{1 - value:.0%} of the words are not {best}"
    return Score(value, value >= own.share, reason=reason)


def _asked(own: LanguageVerifier, item: Item) -> str | Score:
    """The code of the language asked for, `one`, or the score that says why there is none."""
    if own.language == "reference":
        if isinstance(item.reference, str) and item.reference in WRITTEN_IN:
            return item.reference
        return Score.unknown(Status.ERROR, "reference is no language's code, such as 'en'")
    if own.language != "prompt":
        return own.language
    sentences = split(item.prompt)
    found = {target: share(sentences, target, own.among).own for target in own.among}
    best = max(found, key=lambda target: found[target])
    if not found[best] or list(found.values()).count(found[best]) > 1:
        return Score.unknown(Status.ERROR, f"the prompt does not show which of {', '.join(own.among)} it is in")
    return best


def split(text: str) -> list[list[str]]:
    """The words of each sentence, as far as they belong to a language; a long sentence in pieces."""
    sentences = [list(_words(sentence)) for sentence in SENTENCE.split(prose(text))]
    return [words[at : at + MOST_WORDS] for words in sentences for at in range(0, len(words), MOST_WORDS)]


def _words(sentence: str) -> Iterator[str]:
    for word in WORD.findall(sentence):
        if not SINGLE.match(word) and not UNWORDLY.search(word):
            yield word


def share(sentences: Sequence[Sequence[str]], target: str, among: Sequence[str]) -> Share:
    """How many words are in `target`, judged between the languages of `among` that share its scripts."""
    scripts = WRITTEN_IN[target]
    rivals = tuple(one for one in among if one != target and set(scripts) & set(WRITTEN_IN[one]))
    own = foreign = 0
    stretch: list[str] = []
    for sentence in sentences:
        inside = [word for word in sentence if _starts(scripts).match(word)]
        foreign += len(sentence) - len(inside)
        stretch += inside
        text = "".join(word if ALONE.match(word) else word + " " for word in stretch)
        if rivals and len(text.encode("utf-8", "surrogatepass")) < STRETCH:
            continue
        if not rivals or identifier((target, *rivals)).classify(text)[0] == target:
            own += len(stretch)
        else:
            foreign += len(stretch)
        stretch = []
    return Share(own, foreign, len(stretch))


@lru_cache(maxsize=256)
def _starts(scripts: Sequence[str]) -> Any:
    """A pattern of words that start with a letter of the scripts."""
    return regex.compile("['’]*[" + "".join(f"\\p{{{script}}}" for script in scripts) + "]")


@lru_cache(maxsize=64)
def identifier(languages: tuple[str, ...]) -> Any:
    """py3langid's model between these languages."""
    from py3langid.langid import LanguageIdentifier

    whole = _model()
    tables = (whole.nb_ptc, whole.nb_pc, whole.nb_classes, whole.tk_nextmove, whole.tk_output)
    found = LanguageIdentifier(*tables, tk_row=whole.tk_row)
    found.set_languages(languages)
    return found


@lru_cache(maxsize=1)
def _model() -> Any:
    """The model between all its languages; half a second to load."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
