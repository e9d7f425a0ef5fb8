r"""Solutions said as inequalities or as sets: `x < 1 \text{ or } x > 2` is `(-\infty, 1) \cup (2, \infty)`.

math-verify compares one inequality with one interval; here several of one unknown become the set that they leave.
May hang, as all algebra may: only for a worker.
"""

from typing import Any


def same(found: Any, gold: Any) -> bool:
    """Whether both say one set of reals, and at least one of them as several inequalities."""
    if not (_several(found) or _several(gold)):
        return False
    left, right = _set(found), _set(gold)
    if left is None or right is None:
        return False
    return bool(left == right or left.symmetric_difference(right).is_empty)


def _several(value: Any) -> bool:
    from sympy import FiniteSet  # type: ignore[import-untyped]

    return isinstance(value, FiniteSet) and bool(value.args) and all(_is_relation(one) for one in value.args)


def _is_relation(value: Any) -> bool:
    from sympy import And, Ne
    from sympy.core.relational import Relational  # type: ignore[import-untyped]

    if isinstance(value, And):
        return all(_is_relation(one) for one in value.args)
    return isinstance(value, Relational) and (isinstance(value, Ne) or value.rel_op in ("<", "<=", ">", ">="))


def _set(value: Any) -> Any:
    """The set of reals that a set, an inequality or several inequalities leave; None for anything else."""
    from sympy import Intersection, Ne, Set, Union

    if _several(value):
        if len(value.free_symbols) != 1:
            return None
        excluding = [isinstance(one, Ne) for one in value.args]
        if any(excluding) and not all(excluding):
            return None  # `x < 3, x != 1`: and, or or?
        together = Intersection if all(excluding) else Union
        return together(*(one.as_set() for one in value.args))
    if isinstance(value, Set):
        return value if not value.free_symbols else None
    if _is_relation(value) and len(value.free_symbols) == 1:
        return value.as_set()
    return None
