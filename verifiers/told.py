"""The reward that an environment gave, as a verdict; so that it can be a part of a rubric beside other verifiers."""

import math

from verifiers.environment_config import TOLD, EnvironmentVerifier
from verifiers.grader import Grader, Item, one_by_one
from verifiers.kinds import Tools
from verifiers.score import Score, Status


def open_grader(own: EnvironmentVerifier, _: Tools) -> Grader:
    """A grader of what is known already."""
    return one_by_one(lambda item: judge(own, item))


def judge(own: EnvironmentVerifier, item: Item) -> Score:
    """The environment's own words; without an environment nobody knows."""
    said = item.told.get(TOLD)
    if said is None:
        return Score.unknown(Status.ERROR, "no environment played this response")
    reason = str(said["reason"])
    if said["status"] != Status.OK:
        known = said["status"] in set(Status)
        return Score.unknown(Status(said["status"]) if known else Status.ERROR, reason or "no reward")
    value = said["value"] if own.of == "sum" else said["last"]
    if value is None or not math.isfinite(value):
        return Score.unknown(Status.ERROR, "the environment gave no reward")
    passed = said["passed"]
    return Score(float(value), value >= own.passes if passed is None else bool(passed), reason=reason)
