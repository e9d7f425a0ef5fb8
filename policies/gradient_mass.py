"""Gradient mass: the sum of |g|, the measure of pull that is comparable between objectives whose losses are not."""

from torch import Tensor

from policies.trajectory import Origin


def mass(coefficient_N: Tensor) -> Tensor:
    """Sum of |g|."""
    return coefficient_N.detach().abs().sum()


def mass_by_origin(coefficient_BT: Tensor, origin_BT: Tensor) -> dict[str, float]:
    """Sum of |g| over the tokens of each origin, by the origin's name: who pulls on the policy, and how hard."""
    return {origin.name.lower(): float(mass(coefficient_BT[origin_BT == origin])) for origin in Origin}
