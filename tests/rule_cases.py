"""Findings of one rule about a stage of a few strands: fresh rollouts, demonstrations, replay."""

from orchestrator.legality import Surroundings
from tests.compositions import IMITATE, PLAIN, SCOPED, findings, recipe, strand

R, D = strand("r", credit=SCOPED), strand("d", "demonstration", credit=IMITATE, kernel=PLAIN)
P = strand("p", "replay", credit=IMITATE, kernel=PLAIN)
FIRST = Surroundings(first=True, past=frozenset())


def of(rule, strands, *controls, around=None, **stage):
    """(level, where, text, fix, key) of every finding of a rule."""
    made = recipe(*strands, controls=controls)
    stage = {"steps": 50, "prompts_per_step": 4} | stage
    return [
        (one.level, one.where, one.text, one.fix, one.key)
        for one in findings(made, around, **stage)
        if one.rule == rule
    ]


def refused(rule, strands, *controls, **more):
    """The one error of a rule: where, text and fix."""
    (found,) = [one for one in of(rule, strands, *controls, **more) if one[0] == "error"]
    return found[1:4]
