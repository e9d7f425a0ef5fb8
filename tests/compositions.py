"""Made-up compositions for the rules: short to write, so that a test shows what differs and nothing else."""

from orchestrator.config import Stage
from orchestrator.legality import Surroundings, Verdict, judge
from orchestrator.recipes import Citation, Labels, Recipe
from orchestrator.recipes.schema import CoLearner, Refresh
from policies.config import (
    ConstantCredit,
    Div,
    GroupCredit,
    Identity,
    Log,
    Only,
    Point,
    Reduce,
    Set,
    Source,
    Strand,
    Term,
    TokenWeight,
)

PLAIN = Point(denominator="current", shape=Log())
"""Likelihood."""
IMITATE = ConstantCredit()
SCOPED = GroupCredit(scope="all")
BEHAVIOR, ONE, OLD = Point(denominator="behavior"), Point(denominator="one", shape=Identity()), Point()


def strand(name="s", producer="rollout", count=4, credit=None, source=None, **term) -> Strand:
    """One strand with one term; `source` adds to the source, everything else to the term."""
    given = {"producer": producer, "per_prompt": count, **(source or {})}
    term = {"name": "t", "kernel": Point()} | term
    return Strand(name=name, source=Source(**given), credit=credit or GroupCredit(), terms=(Term(**term),))


def idle(name="s", count=4, credit=None, **source) -> Strand:
    """A strand that serves its group alone."""
    given = {"producer": "rollout", "per_prompt": count, **source}
    return Strand(name=name, source=Source(**given), credit=credit or GroupCredit(), terms=())


def critic(reads="s", role="critic", name="critic", **kernel) -> CoLearner:
    """A co-learner whose one strand reads the records of `reads`."""
    kernel = {"link": "value", "score": "head", "unit": "token", "reference": False} | kernel
    term = Term(name="v", kernel=Set(**kernel), reduce=Reduce(kind="token"), only=Only())
    own = Strand(name=reads, source=Source(producer="rollout", per_prompt=1), terms=(term,))
    return CoLearner(name=name, role=role, strands=(own,))


def recipe(*strands, controls=(), learners=(), refresh=None, **more) -> Recipe:
    """A recipe of these strands."""
    return Recipe(
        name="made-up",
        summary="",
        citation=Citation(paper="", arxiv=""),
        labels=Labels(provenance="on", interface=(), role=()),
        parameters={},
        strands=strands,
        controls=controls,
        learners=learners,
        refresh=refresh or Refresh(),
        **more,
    )


def findings(made: Recipe, around: Surroundings | None = None, **stage) -> tuple[Verdict, ...]:
    """What is said of a stage with this recipe."""
    config = Stage.model_validate({"name": "x", "recipe": {"kind": "grpo"}, "steps": 1} | stage)
    return judge(config, made, around)


def keys(made: Recipe, around: Surroundings | None = None, **stage) -> set[tuple[str, str, str]]:
    """(level, rule, where) of every finding."""
    return {(one.level, one.rule, one.where) for one in findings(made, around, **stage)}


def weight(kind) -> tuple[TokenWeight, ...]:
    """A token weight alone."""
    return (TokenWeight(kind=kind),)


def given(**term) -> Strand:
    """Demonstrations, imitated."""
    return strand(producer="demonstration", credit=IMITATE, **term)


def prepared(writer, otherwise="nothing") -> dict:
    """Of a source whose data are written when the stage begins."""
    return {"prepare": {"writer": writer, "otherwise": otherwise}}


def div(form="reverse", target="teacher", **more) -> Div:
    """A divergence."""
    return Div(form=form, target=target, **more)


def told(made, rule, where, around=None, **stage) -> tuple[str, str]:
    """The one error of that rule at that place: its text, then its fix."""
    (found,) = [
        one for one in findings(made, around, **stage) if (one.level, one.rule, one.where) == ("error", rule, where)
    ]
    return found.text, found.fix
