r"""Plain numbers, exactly: integers, decimals, fractions, mixed numbers, scientific notation, repeating decimals.

These are most answers, and they need no algebra: `read` makes a fraction of one, `same` compares two without rounding.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

DECIMALS = 12
"""Decimal places from which a decimal may stand for a value that never ends, such as 1/3 or the square root of 17."""

LARGEST = 400
"""Largest power of ten in scientific notation."""

WHOLE = r"(?:\d{1,3}(?:(?:,|\{,\}| )\d{3})+|\d+)"
DECIMAL = rf"(?:{WHOLE}(?:\.\d*)?|\.\d+)"
PART = r"\s*(-?\s*\d+(?:\.\d+)?)\s*"
CLOSE = DECIMAL.replace(r"|\{,\}| )", r"|\{,\})")
"""Without a space for a separator: `2 101/102` is a mixed number."""
SLASH = rf"({CLOSE})\s*/\s*({CLOSE})"
FRACTION = rf"\\frac\s*(?:\{{{PART}\}}|(\d))\s*(?:\{{{PART}\}}|(\d))"
TEN = r"10\s*\^\s*(?:\{\s*([-+]?\s*\d{1,4})\s*\}|(\d))"

FORMS = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("decimal", rf"({DECIMAL})"),
        ("slash", SLASH),
        ("fraction", FRACTION),
        (
            "mixed",
            rf"({WHOLE})\s*(?:(?<=\d)\s+(0|[1-9]\d*)\s*/\s*(\d+)|\\frac\s*\{{\s*(\d+)\s*\}}\s*\{{\s*(\d+)\s*\}}|\\frac\s*(\d)(\d))",
        ),
        ("repeating", r"(\d*)\.(\d*)\\(?:overline|bar)\s*\{(\d+)\}"),
        ("exponent", r"(\d+(?:\.\d*)?)[eE]([-+]?\d{1,4})"),
        ("scientific", rf"({DECIMAL})\s*(?:\\times|\\cdot|\*)\s*{TEN}"),
        ("ten", TEN),
    )
)
SIGN = re.compile(r"\s*([-+]?)\s*")
COMMA = re.compile(r"[-+]?\d+,\d+")
SEPARATOR = re.compile(r"\{,\}|[, ]")


@dataclass(frozen=True, slots=True)
class Number:
    """An exact value. `places`: decimal places as written, None without a point. `digits`: significant ones."""

    value: Fraction
    places: int | None = None
    digits: int = 0

    @property
    def approximate(self) -> bool:
        """Whether it is written so long that it may stand for a value that never ends."""
        return (self.places or 0) >= DECIMALS and self.digits >= DECIMALS

    @property
    def ends(self) -> bool:
        """Whether its decimals end."""
        below = self.value.denominator
        for prime in (2, 5):
            while below % prime == 0:
                below //= prime
        return below == 1


@lru_cache(maxsize=4096)
def read(text: str) -> Number | None:
    """The number that the whole text is, or None. A division by zero is no number, nor is a mixed number like 1 7/6."""
    sign = SIGN.match(text)
    rest = text[sign.end() :].strip() if sign else text
    for name, form in FORMS:
        if found := form.fullmatch(rest):
            number = _number(name, [group for group in found.groups() if group is not None])
            if number is None or not (sign and sign[1] == "-"):
                return number
            return Number(-number.value, number.places, number.digits)
    return None


def _number(form: str, parts: list[str]) -> Number | None:
    match form:
        case "decimal":
            return _decimal(parts[0])
        case "slash" | "fraction":
            above, below = (_decimal(part.replace(" ", "")) for part in parts)
            return Number(above.value / below.value) if below.value else None
        case "mixed":
            whole, top, bottom = (int(SEPARATOR.sub("", part)) for part in parts)
            return Number(whole + Fraction(top, bottom)) if top < bottom else None
        case "repeating":
            return _repeating(*parts)
        case "ten":
            return _scaled(Number(Fraction(1)), parts[0])
        case _:
            return _scaled(_decimal(parts[0]), parts[1])


def _decimal(text: str) -> Number:
    text = SEPARATOR.sub("", text)
    _, point, after = text.partition(".")
    digits = len(text.replace(".", "").lstrip("-0"))
    return Number(Fraction(text.rstrip(".")), len(after) if point else None, digits)


def _repeating(whole: str, fixed: str, again: str) -> Number:
    """0.1666... is 1/10 + 6/90."""
    scale = 10 ** len(fixed)
    value = Fraction(int((whole + fixed) or "0"), scale) + Fraction(int(again), (10 ** len(again) - 1) * scale)
    return Number(value)


def _scaled(number: Number, power: str) -> Number | None:
    exponent = int(power.replace(" ", ""))
    if abs(exponent) > LARGEST:
        return None
    places = None if number.places is None and exponent >= 0 else max((number.places or 0) - exponent, 0)
    return Number(number.value * Fraction(10) ** exponent, places, number.digits)


def same(answer: Number, expected: Number, tolerance: float) -> bool:
    """Exactly the same; or within `tolerance` of the expected value; or a value that never ends, to all its places."""
    apart = abs(answer.value - expected.value)
    if apart == 0:
        return True
    if tolerance and apart <= Fraction(tolerance) * abs(expected.value):
        return True
    if expected.approximate:  # a float's own digits
        return apart <= Fraction(1, 10**DECIMALS) * min(Fraction(1), abs(expected.value))
    if answer.approximate and answer.places is not None and not expected.ends:
        return apart <= Fraction(1, 10**answer.places)
    return False


def same_with_percent(answer: tuple[Number, bool], expected: tuple[Number, bool], tolerance: float) -> bool:
    """The same where one of both may be in percent.

    A reference in percent may be answered without the sign, as 28 or as 0.28; a whole reference above 1 with the
    sign, for the prompt may have asked for percents. Otherwise a percent is a hundredth.
    """
    (found, found_percent), (wanted, wanted_percent) = answer, expected
    if found_percent == wanted_percent:
        return same(found, wanted, tolerance)
    hundredth = Number(wanted.value / 100) if wanted_percent else Number(wanted.value * 100)
    if same(found, hundredth, tolerance):
        return True
    whole = wanted.value.denominator == 1 and abs(wanted.value) > 1
    return (wanted_percent or whole) and same(found, wanted, tolerance)


def latex(number: Number) -> str:
    """The number as algebra reads it."""
    value = number.value
    return str(value) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def decimal_comma(text: str) -> str | None:
    """`2,74` as `2.74`; None for another text."""
    return text.replace(",", ".") if COMMA.fullmatch(text) else None
