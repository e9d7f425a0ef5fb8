"""Exact arithmetic, bounded before it is done: an expression is parsed by Python's grammar and walked, never run.

Numbers are fractions, so that 0.1 + 0.2 is 0.3. What would have more digits than are allowed is refused from the
sizes of its operands alone.
"""

import ast
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NoReturn

LONGEST = 1000
"""Characters of an expression."""

PLACES = 12
"""Decimal places that are shown of a fraction without an end."""

SIGNS = {"×": "*", "÷": "/", "−": "-", "·": "*", "⋅": "*", "^": "**"}
"""Signs that people write, and Python's."""

NUMBER = re.compile(r"(?P<whole>[0-9_]*)\.?[0-9_]*(?:[eE](?P<exponent>[+-]?[0-9]+))?")


class RefusedError(ValueError):
    """An expression that is not worked out; the message tells the model why."""


def work(expression: str, digits: int) -> str:
    """The value as text. `RefusedError` says in words why there is none; nothing else is raised."""
    for sign, own in SIGNS.items():
        expression = expression.replace(sign, own)
    expression = expression.strip()
    if not expression:
        raise RefusedError("the expression is empty")
    if len(expression) > LONGEST:
        raise RefusedError(f"the expression is longer than {LONGEST} characters")
    try:
        tree = ast.parse(expression, mode="eval")
        return shown(_Walk(expression, digits).value(tree.body))
    except RefusedError:
        raise
    except ZeroDivisionError as error:
        raise RefusedError("division by zero") from error
    except (RecursionError, MemoryError) as error:
        raise RefusedError("the expression is nested too deeply") from error
    except (SyntaxError, ValueError) as error:
        raise RefusedError("not an arithmetic expression") from error


def shown(value: Fraction) -> str:
    """A whole number, a decimal that ends, or the rounded decimal with the fraction itself."""
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    twos = fives = 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    if rest == 1 and places <= PLACES:
        return _decimal(value, places)
    return f"{_decimal(value, PLACES)} ({value.numerator}/{value.denominator})"


def _decimal(value: Fraction, places: int) -> str:
    scaled = round(abs(value) * 10**places)
    whole, part = divmod(scaled, 10**places)
    sign = "-" if value < 0 and scaled else ""
    return f"{sign}{whole}.{part:0{places}d}"


class _Walk:
    """The value of a syntax tree. Every operation looks at its operands' sizes first."""

    def __init__(self, source: str, digits: int) -> None:
        self._source = source
        self._bits = math.ceil(digits * math.log2(10))
        self._digits = digits

    def value(self, node: ast.expr) -> Fraction:
        """Of a node and all below it."""
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return self._number(ast.get_source_segment(self._source, node) or "")
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.value(operand)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.value(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
                return self._fitting(OPERATIONS[type(op)](self, self.value(left), self.value(right)))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
                return self._fitting(FUNCTIONS[name](self, *(self.value(one) for one in args)))
            case _:
                raise RefusedError("only numbers, + - * / // % **, and " + ", ".join(FUNCTIONS))

    def _number(self, text: str) -> Fraction:
        """Read from the source, so that a decimal is exact."""
        match = NUMBER.fullmatch(text)
        if match is None:
            raise RefusedError("numbers are decimal")
        exponent = match["exponent"] or "0"
        if len(text) > self._digits or len(exponent) > 6 or abs(int(exponent)) > self._digits:
            self.refuse()
        return self._fitting(Fraction(text))

    def _fitting(self, value: Fraction) -> Fraction:
        if max(abs(value.numerator), value.denominator) >= 10**self._digits:
            self.refuse()
        return value

    def refuse(self) -> NoReturn:
        """Too large a number."""
        raise RefusedError(f"a number of more than {self._digits} digits")

    def times(self, a: Fraction, b: Fraction) -> Fraction:
        if size(a) + size(b) > 2 * self._bits + 2:
            self.refuse()
        return a * b

    def power(self, a: Fraction, b: Fraction) -> Fraction:
        if b.denominator != 1:
            raise RefusedError("the exponent is no whole number")
        if abs(b) * (size(a) - 1) > self._bits or abs(b) > 10**9:
            if abs(a) == 1:
                return a if b % 2 else Fraction(1)
            if a != 0:
                self.refuse()
        return a**b.numerator if a or b >= 0 else Fraction(1) / a

    def factorial(self, a: Fraction) -> Fraction:
        count = _whole(a)
        if count < 0:
            raise RefusedError("factorial of a negative number")
        if count > 1 and math.lgamma(count + 1) / math.log(2) > self._bits:
            self.refuse()
        return Fraction(math.factorial(count))

    def root(self, a: Fraction) -> Fraction:
        if a < 0:
            raise RefusedError("square root of a negative number")
        top, bottom = math.isqrt(a.numerator), math.isqrt(a.denominator)
        if top * top == a.numerator and bottom * bottom == a.denominator:
            return Fraction(top, bottom)
        scale = 10**PLACES
        return Fraction(math.isqrt(a.numerator * scale * scale // a.denominator), scale)


def size(value: Fraction) -> int:
    """Bits of the longer of numerator and denominator."""
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _whole(value: Fraction) -> int:
    if value.denominator != 1:
        raise RefusedError("not a whole number")
    return value.numerator


def _alone(function: Callable[["_Walk", Fraction], Fraction]) -> Callable[..., Fraction]:
    """A function of one number."""

    def checked(walk: _Walk, *args: Fraction) -> Fraction:
        if len(args) != 1:
            raise RefusedError("the function takes one number")
        return function(walk, *args)

    return checked


def _some(function: Callable[..., Fraction]) -> Callable[..., Fraction]:
    """A function of one number or more."""

    def checked(_: _Walk, *args: Fraction) -> Fraction:
        if not args:
            raise RefusedError("the function takes a number")
        return function(args)

    return checked


OPERATIONS: Mapping[type[ast.operator], Callable[[_Walk, Fraction, Fraction], Fraction]] = {
    ast.Add: lambda _, a, b: a + b,
    ast.Sub: lambda _, a, b: a - b,
    ast.Mult: _Walk.times,
    ast.Div: lambda _, a, b: a / b,
    ast.FloorDiv: lambda _, a, b: Fraction(a // b),
    ast.Mod: lambda _, a, b: a % b,
    ast.Pow: _Walk.power,
}

FUNCTIONS: Mapping[str, Callable[..., Fraction]] = {
    "abs": _alone(lambda _, a: abs(a)),
    "round": _alone(lambda _, a: Fraction(round(a))),
    "floor": _alone(lambda _, a: Fraction(math.floor(a))),
    "ceil": _alone(lambda _, a: Fraction(math.ceil(a))),
    "sqrt": _alone(_Walk.root),
    "factorial": _alone(_Walk.factorial),
    "min": _some(min),
    "max": _some(max),
    "gcd": _some(lambda numbers: Fraction(math.gcd(*map(_whole, numbers)))),
    "lcm": _some(lambda numbers: Fraction(math.lcm(*map(_whole, numbers)))),
}
