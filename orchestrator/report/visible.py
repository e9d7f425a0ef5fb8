"""`visible`: text that somebody else wrote, with everything a terminal or reader would obey made a visible sign."""

import unicodedata

_OBEYED = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode categories: control, format (bidirectional overrides among them), surrogates, private, separators."""
_JOINERS = "\u200c\u200d"
"""Format characters that scripts and emoji are spelt with."""


def visible(text: str, *, keep: str = "\n") -> str:
    """The text with control characters as `\\x1b`, `\\u202e` and so on; those in `keep` stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character, keep) for character in text)


def one_line(text: str, width: int = 200) -> str:
    """The text on one line, cut to `width` characters."""
    line = visible(text.replace("\n", " ⏎ "), keep="")
    return line if len(line) <= width else line[: width - 1] + "…"


def _shown(character: str, keep: str) -> str:
    if character in keep or character in _JOINERS or unicodedata.category(character) not in _OBEYED:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
