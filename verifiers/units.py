r"""Units and currencies of an answer: found at its end or before it, and compared by meaning, never converted."""

import re

SAME = (
    ("mm", "millimeter", "millimetre"),
    ("cm", "centimeter", "centimetre"),
    ("m", "meter", "metre"),
    ("km", "kilometer", "kilometre"),
    ("in", "inch", "inche"),
    ("ft", "foot", "feet"),
    ("yd", "yard"),
    ("mi", "mile"),
    ("mg", "milligram"),
    ("g", "gram"),
    ("kg", "kilogram"),
    ("lb", "pound"),
    ("oz", "ounce"),
    ("ml", "milliliter", "millilitre"),
    ("l", "liter", "litre"),
    ("s", "sec", "second"),
    ("min", "minute"),
    ("h", "hr", "hour"),
    ("day",),
    ("week",),
    ("month",),
    ("yr", "year"),
    ("mph", "miles per hour", "mile per hour"),
    ("km/h", "kph", "kilometers per hour", "kilometer per hour"),
    ("m/s", "meters per second", "meter per second"),
    ("degree", "^\\circ", "\\degree", "deg"),
    ("radian", "rad"),
    ("$", "\\$", "dollar", "usd"),
    ("cent", "¢"),
    ("€", "euro", "eur"),
    ("£", "gbp"),
    ("¥", "yen"),
    ("unit",),
    *((word,) for word in ("north", "south", "east", "west", "left", "right", "up", "down", "profit", "loss")),
    ("am", "a.m"),
    ("pm", "p.m"),
)
"""Names of one unit, in the singular; and words after a number that turn its meaning round."""

CANONICAL = {name: names[0] for names in SAME for name in names}
LETTER = re.compile(r"(?P<value>[-+]?[\d.,/]*\d)(?P<space>\s*)(?P<letter>[mgshl])\s*(?:\^\s*\{?(?P<power>[123])\}?)?")
SHORT = "mm|cm|km|ft|mg|kg|lb|oz|ml|mph|hrs?|mins?|secs?|kph|rad|deg"

FUNCTIONS = "sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|mod|arcsin|arccos|arctan|and|or|if|where|for|times|plus|minus"

POWER = r"(?:\s*\^\s*\{?\s*(?P<power>[123])\s*\}?)?"
STYLE = r"\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf)|mbox|operatorname|rm|bf)"
STYLED = rf"{STYLE}\s*\{{\s*(?P<styled>[^{{}}\d]+?)\s*\}}{POWER}"
WORDS = rf"\s+(?!(?:{FUNCTIONS})\b)(?P<words>[A-Za-z]{{2,}}(?:[ /.-]+[A-Za-z]+)*)"
AFTER = re.compile(
    rf"(?<=[\d)}}.])\s*(?:{STYLED}|(?P<sign>\^\\circ|\\degree|\\?\$|[€£¥¢])|(?P<short>{SHORT})\.?|{WORDS})"
    rf"(?(styled)|{POWER.replace('power', 'power2')})\s*\.?$"
)
BEFORE = re.compile(r"(?P<sign>\\?\$|[€£¥]|(?:USD|EUR|GBP)\s)\s*(?=[-+.\d\\(])")
SQUARE = re.compile(r"\b(?P<power>square|sq\.?|cubic|cu\.?)\s+")


def split(text: str) -> tuple[str, str]:
    r"""The value and its unit as `named` says it: `3\text{ cm}^2` is ("3", "cm^2"); no unit is ""."""
    before = BEFORE.match(text)
    if before:
        return text[before.end() :], named(before["sign"], "")
    after = AFTER.search(text[-80:])
    if not after:
        return text, ""
    start = max(len(text) - 80, 0) + after.start()
    if start == 0:
        return text, ""
    word = after["styled"] or after["sign"] or after["short"] or after["words"]
    return text[:start].strip(), named(word, after["power"] or after["power2"] or "")


def letter(text: str, sure: bool) -> tuple[str, str] | None:
    """`5 m` as ("5", "m"). `5m` is a variable unless one is `sure` that a unit stands there."""
    found = LETTER.fullmatch(text)
    if not found or not (sure or found["space"]):
        return None
    return found["value"], named(found["letter"], found["power"] or "")


def named(word: str, power: str) -> str:
    """One name for a unit: `square meters` and `m` to the power 2 are `m^2`; what is no known unit keeps its words."""
    word = word.strip().strip(".").lower()
    if found := SQUARE.match(word):
        power = "2" if found["power"].startswith("sq") else "3"
        word = word[found.end() :]
    single = word if word in CANONICAL else word.removesuffix("s")
    name = CANONICAL.get(single, single)
    return f"{name}^{power}" if power not in ("", "1") else name


def known(unit: str) -> bool:
    """Whether it is a unit of the table, not some words after a number."""
    return unit.partition("^")[0] in CANONICAL


def fault(answer: str, expected: str, rule: str) -> str:
    """Why the answer's unit is wrong under the rule `ignored`, `optional` or `required`; or nothing."""
    if rule == "ignored" or answer == expected:
        return ""
    if rule == "required":
        return f"the unit is {answer or 'missing'!r}, not {expected!r}" if expected else ""
    if known(answer) and known(expected):
        return f"the unit is {answer!r}, not {expected!r}"
    return ""
