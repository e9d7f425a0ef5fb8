"""Colours of the writers of tokens, the same in every chart, in the report's samples and on the terminal.

Okabe and Ito's palette (jfly.uni-koeln.de/color): told apart by readers with any common colour vision, and
readable on light and on dark.
"""

from policies.trajectory import Origin

COLOURS = {
    Origin.LEARNER: "#0072b2",
    Origin.DEMONSTRATION: "#e69f00",
    Origin.TEACHER: "#009e73",
    Origin.HINT: "#cc79a7",
    Origin.ENVIRONMENT: "#8c8c8c",
}
ON_TERMINAL = {
    Origin.LEARNER: "#56b4e9",
    Origin.DEMONSTRATION: "#e69f00",
    Origin.TEACHER: "#2bc79a",
    Origin.HINT: "#dd8fbb",
    Origin.ENVIRONMENT: "#9a9a9a",
}
SHARES = {
    "share_learner": Origin.LEARNER,
    "share_demonstration": Origin.DEMONSTRATION,
    "share_teacher": Origin.TEACHER,
    "share_other": Origin.ENVIRONMENT,
}
"""Keys of a metrics row that hold a share of the trained tokens."""


def label(key: str) -> str:
    """`learner` for `share_learner`."""
    return key.removeprefix("share_")
