"""What counts as a word, in scripts with and without spaces. Linear in the text."""

import regex  # type: ignore[import-untyped]  # knows scripts; re does not

SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
"""Scripts in which no space ends a word: there, a character with its marks is one."""

WORDS = regex.compile(rf"[{SPACELESS}]\p{{M}}*+|[^\s{SPACELESS}]++")
MARKED = regex.compile(r"[^\W_]")
PIECES = regex.compile(rf"[{SPACELESS}]\p{{M}}*+|[^\W{SPACELESS}]++|\S")


def words(text: str) -> int:
    """How many words a reader counts: `3.14`, `don't` and `well-known` are one each, a lone dash is none."""
    return sum(1 for found in WORDS.finditer(text) if MARKED.search(found.group()))


def pieces(text: str) -> list[tuple[int, int]]:
    """[start, end) of each word and each punctuation mark."""
    return [found.span() for found in PIECES.finditer(text)]
