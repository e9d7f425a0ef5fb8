"""Colours: of the writers of tokens, the same in charts, reader and terminal; and what charts become on dark.

After Okabe and Ito's palette (jfly.uni-koeln.de/color): told apart by readers with any common colour vision. On light
paper the yellow and the green are darker than theirs, so that each stands out from the paper by 3:1 (WCAG 2.2, 1.4.11).
"""

from collections.abc import Mapping
from typing import Final

from policies.trajectory import Origin

COLOURS: Final = {
    Origin.LEARNER: "#0072b2",
    Origin.DEMONSTRATION: "#b87700",
    Origin.TEACHER: "#00855f",
    Origin.HINT: "#b85a8e",
    Origin.ENVIRONMENT: "#7d7d7d",
}
"""On light paper."""
ON_TERMINAL: Final = {
    Origin.LEARNER: "#56b4e9",
    Origin.DEMONSTRATION: "#e69f00",
    Origin.TEACHER: "#2bc79a",
    Origin.HINT: "#dd8fbb",
    Origin.ENVIRONMENT: "#9a9a9a",
}
"""On dark: the terminal's, and the page's in its dark theme."""
ON_DARK: Final[Mapping[str, str]] = {
    **{COLOURS[origin]: ON_TERMINAL[origin] for origin in Origin},
    "#168aad": "#5cc6e0",
    "#c8452f": "#ff8f75",
    "#8468bd": "#b09ae0",
    "#8f7e00": "#cfbb2e",
    "#5c6b7a": "#a3b1c0",
    "#b0506c": "#d98aa0",
    "#6b7785": "#8f9bab",
    "#868e97": "#b0b7bf",
    "#6f7d92": "#9fb0c8",
    "#3a8f70": "#5dbd9a",
    "#187a4b": "#4cc38a",
    "#4f9a70": "#8cc7a5",
    "#8a6d3b": "#c4a46c",
}
"""A chart's colour on light paper -> the same on dark."""
SHARES: Final = {
    "share_learner": Origin.LEARNER,
    "share_demonstration": Origin.DEMONSTRATION,
    "share_teacher": Origin.TEACHER,
    "share_other": Origin.ENVIRONMENT,
}
"""Keys of a metrics row that hold a share of the trained tokens."""


def label(key: str) -> str:
    """`learner` for `share_learner`."""
    return key.removeprefix("share_")
