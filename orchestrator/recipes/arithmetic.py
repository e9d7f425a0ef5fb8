"""`$(1 / (1 + tau))` in a recipe file: arithmetic and comparisons over its parameters, and nothing else of Python."""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

_BINARY: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_COMPARED: Final[dict[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def arithmetic(text: str, values: Mapping[str, Any]) -> Any:
    """The value of `$(...)`, whose names are parameters; ValueError for anything but arithmetic on them."""
    if not (text.startswith("$(") and text.endswith(")")):
        raise ValueError(f"{text!r}: write $(...), with the bracket closed at the end")
    try:
        return _value(ast.parse(text[2:-1].strip(), mode="eval").body, values)
    except (SyntaxError, KeyError, ZeroDivisionError, TypeError) as error:
        raise ValueError(f"{text!r}: {type(error).__name__}: {error}; the names here are {sorted(values)}") from error


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return value
        case ast.Name(id=name):
            return values[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, values)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left, values), _value(right, values))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARED:
            return _COMPARED[type(op)](_value(left, values), _value(right, values))
        case _:
            raise ValueError(f"{ast.unparse(node)!r} is not arithmetic on parameters")
