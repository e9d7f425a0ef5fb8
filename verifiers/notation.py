r"""How people write one answer: marks round it, styles, units, currencies, percents. Pure text.

`read` gives the mathematics without them, so that `3`, `$3$.`, `\left(3\right)` and `3\text{ cm}` are one text.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from verifiers import units

WRAPPING = ("$$", "$", "**", r"\(", r"\)", r"\[", r"\]")

REWRITTEN = (
    ("\u2212", "-"), ("\u2013", "-"), ("\u00d7", r"\times "), ("\u00b7", r"\cdot "), ("\u00f7", "/"),
    ("\u03c0", r"\pi "), ("\u221e", r"\infty "), ("\u2264", r"\le "), ("\u2265", r"\ge "), ("\u2260", r"\neq "),
    ("\u2248", r"\approx "), ("\u222a", r"\cup "), ("\u2229", r"\cap "), ("\u2205", r"\emptyset "),
    ("\u2208", r"\in "), ("\u00b1", r"\pm "), ("\u211d", r"\mathbb{R}"), ("\u00b0", r"^\circ"),
    ("<=", r"\le "), (">=", r"\ge "), ("!=", r"\neq "), (r"\langle", "("), (r"\rangle", ")"),
    (r"\dfrac", r"\frac"), (r"\tfrac", r"\frac"), (r"\cfrac", r"\frac"), (r"\displaystyle", ""),
    (r"\lbrace", r"\{"), (r"\rbrace", r"\}"),
)  # fmt: skip
"""One sign for what has several."""

SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}

PATTERNS = tuple(
    (re.compile(pattern), to)
    for pattern, to in (
        (r"(?<![A-Za-z])m\u00b2", r"\\text{m}^2"),
        (r"(?<![A-Za-z])m\u00b3", r"\\text{m}^3"),
        ("\u00b2", "^2"),
        ("\u00b3", "^3"),
        (r"^\$([^$\n]+)\$(?=\s*[^\s$])", r"\1 "),
        (r"(?<=\d)[ \t]*[\r\n]\s*(?=\d)", ", "),
        (r"\{\s*,\s*\}|,\s*\\!\s*", "{,}"),
        (r"(?<=\d)\s*(?:\\[,:; ]|~)\s*(?=\d{3}(?!\d))", "{,}"),
        (r"(?<!\\)\\!", ""),
        (r"(?<!\\)\\[,:; ]|~|\\q?quad\b|\s", " "),
        (r" +", " "),
        (r"(?:\\left|\\right|\\[bB]igg?[lr]?)(?![A-Za-z])", ""),
        (r"\\(?:mathrm|text|operatorname)\{([A-Za-z])\}(?!\s*\^)", r"\1"),
        (r"\^\s*\{\s*\\circ\s*\}", r"^\\circ"),
        (
            r"\s*,?\s*(?:\\(?:text|mbox|mathrm)\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))\s*",
            ", ",
        ),
        (r"\\p?mod\s*\{[^{}]*\}\s*$", ""),
        (r"^\s*(?:[A-Za-z]\s*\\in|\\approx)(?![A-Za-z])", ""),
        *(
            (rf"(?<=\d) ?(?:{word}\b|\\(?:text|mbox|mathrm) ?\{{ ?{word} ?\}})", rf"\\times 10^{{{power}}}")
            for word, power in SCALES.items()
        ),
        *(
            (rf"(?<=\d) ?\\(?:text|mbox|mathrm) ?\{{ ?{word}\b", rf"\\times 10^{{{power}}} \\text{{")
            for word, power in SCALES.items()
        ),
        (r" +", " "),
    )
)

STYLE = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox|bf)\s*\{([^{}]*)\}")
CLOSED = re.compile(r"[({]([^(){},\[\]]*)[)}]")
INEQUALITY = re.compile(r"[<>]|\\(?:l|g)(?:t|e|eq)(?![a-z])|\\neq?(?![a-z])")
AND = re.compile(r"\\(?:text|mbox|mathrm)\s*\{\s*and\s*\}|(?<![A-Za-z\\])and(?![A-Za-z])")
"""Between inequalities it is no comma: that is read as `or`."""
ENDING = re.compile(r"(?<!\.)[.,;]$")
PERCENT = re.compile(r"\s*(?:\\?%|(?:\\text\s*\{)?\s*(?:percentage|percent|per cent|pct)\s*\}?)$", re.IGNORECASE)

SAYINGS = {
    r"\emptyset": ("no solution", "no solutions", "no real solution", "no real solutions", "none", "empty set",
                   "the empty set", r"\varnothing", r"\{\}", r"\{ \}", r"\emptyset"),
    "DNE": ("dne", "does not exist", "doesn't exist"),
    r"\infty": ("infinity", "+infinity", r"+\infty", r"\infty"),
    r"-\infty": ("-infinity", "negative infinity", r"- \infty", r"-\infty"),
    r"\mathbb{R}": ("all real numbers", "all reals", "all real", r"\mathbb{R}", r"\mathbf{R}", r"\Re",
                    r"(-\infty,\infty)", r"(-\infty, \infty)", r"(-\infty,+\infty)", r"(-\infty, +\infty)"),
}  # fmt: skip
"""Answers that are said in several ways."""

SAID = {way: meaning for meaning, ways in SAYINGS.items() for way in ways}


@dataclass(frozen=True, slots=True)
class Written:
    """One answer: its mathematics, the unit after or before it, and whether it is in percent."""

    text: str
    unit: str = ""
    percent: bool = False

    @property
    def latex(self) -> str:
        """The mathematics with its percent sign."""
        return self.text + r"\%" if self.percent else self.text


def bare(text: str) -> str:
    """The answer without the dollar signs, bold marks and full stop that people write round it."""
    text = text.strip()
    for mark in WRAPPING:
        text = text.removeprefix(mark).removesuffix(mark)
    return ENDING.sub("", text.strip()).strip()


@lru_cache(maxsize=4096)
def read(text: str) -> Written:
    """The answer in its plainest form. Of an answer that is too long, read nothing: this is for short texts."""
    text = bare(text)
    for sign, to in REWRITTEN:
        text = text.replace(sign, to)
    if INEQUALITY.search(text):
        text = AND.sub(r" \\land ", text)
    for pattern, to in PATTERNS:
        text = pattern.sub(to, text)
    text = _unstyled(bare(text))
    if text.lower() in SAID or text in SAID:
        return Written(SAID.get(text) or SAID[text.lower()])
    without = PERCENT.sub("", text)
    if without != text:
        return Written(_unstyled(bare(without)), percent=True)
    text, unit = units.split(text)
    return Written(_unstyled(bare(text)), unit)


def _unstyled(text: str) -> str:
    """Without a style, a pair of brackets or braces that holds one whole value."""
    for _ in range(4):
        found = STYLE.fullmatch(text) or CLOSED.fullmatch(text)
        if not found:
            return text
        text = found[1].strip()
    return text
