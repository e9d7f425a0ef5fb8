"""Groups and credit: whose rewards are compared, and whether there is anything to compare (V3, V9), and critics."""

from collections.abc import Iterator

from orchestrator.legality.sources import group, provenance
from orchestrator.legality.verdict import Case, Verdict
from orchestrator.needs import reads_advantage
from policies.config import Credit, Gae, GroupCredit, PartCredit, ProcessCredit, Strand, TeacherGap, TurnCredit


def groups(case: Case) -> Iterator[Verdict]:
    """Sizes of groups, their scope, and what a baseline asks of its group."""
    for strand in case.recipe.strands:
        if strand.terms and reads_advantage(strand):
            yield from _alone(case, strand)
        if isinstance(strand.credit, GroupCredit):
            yield from _greedy(case, strand, strand.credit)
            yield from _children(case, strand, strand.credit)
    yield from _equal(case)
    yield from _scope(case)
    yield from _critic(case)


def members(case: Case) -> tuple[Strand, ...]:
    """Strands that share a prompt's group and compare rewards within it."""
    return tuple(strand for strand in group(case.recipe) if isinstance(strand.credit, GroupCredit))


# ---------------------------------------------------------------- V3: groups of one, groups without spread


def _alone(case: Case, strand: Strand) -> Iterator[Verdict]:
    compared = _compared(strand.credit)
    if not compared or strand.source.producer == "preference" or _size(case, strand) != 1:
        return
    lone = strand.credit.lone if isinstance(strand.credit, GroupCredit) else "zero"
    if lone == "reward":
        yield Verdict("declared", "V3", strand.name, "a group of one: the advantage is the reward, without a baseline")
        return
    whose = (
        "per_step draws each response on a prompt of its own, a group of one"
        if strand.source.per_step
        else ("a group of one")
    )
    text = f"{whose}: {compared} has nobody to compare it with, every advantage is 0 and nothing is learned"
    fix = "ask for 2 or more responses a prompt (per_prompt), or write baseline: zero"
    yield Verdict("error", "V3", strand.name, text, fix)


def _compared(credit: Credit) -> str:
    """What compares a response with its group; empty where nothing does."""
    match credit:
        case GroupCredit(baseline="mean" | "leave_one_out" | "length_mean" as baseline):
            return f"baseline {baseline}"
        case TurnCredit(baseline="mean"):
            return "the turn's group mean"
        case PartCredit():
            return "the mean over the group's parts"
        case TeacherGap(outcome=outcome) | ProcessCredit(outcome=outcome) if outcome:
            return "the outcome's group mean"
        case _:
            return ""


def _size(case: Case, strand: Strand) -> int:
    """Members of the strand's group whose rewards form its statistics."""
    if strand.source.per_step:
        return 1
    scope = strand.credit.scope if isinstance(strand.credit, GroupCredit) else "all"
    if scope == "strand":
        return strand.source.per_prompt
    own = scope == "on_policy"
    counted = [one for one in group(case.recipe) if not own or one.source.producer == "rollout"]
    return sum(one.source.per_prompt for one in counted)


def _equal(case: Case) -> Iterator[Verdict]:
    """What becomes of groups whose rewards are all equal."""
    compared = [strand for strand in members(case) if _compared(strand.credit) and _size(case, strand) > 1]
    if not compared:
        return
    actions = {control.action for control in case.recipe.controls if control.kind == "zero_variance"}
    if actions & {"drop", "redraw"}:
        text = "groups whose rewards are all equal never train: prompts that always or never pass leave the step's mix"
    else:
        text = "groups whose rewards are all equal are kept: their advantages are 0 and their tokens count"
    yield Verdict("declared", "V3", "", text)


# ---------------------------------------------------------------- V9: whose rewards


def _scope(case: Case) -> Iterator[Verdict]:
    if len({provenance(strand) for strand in group(case.recipe)}) < 2:
        return
    compared = members(case)
    for strand in compared:
        if strand.terms and _compared(strand.credit) and "scope" not in strand.credit.model_fields_set:
            text = "the group mixes who wrote it, and the credit does not say whose rewards form the baseline"
            yield Verdict("error", "V9", strand.name, text, "set credit.scope to all, on_policy or strand")
    scopes = {strand.credit.scope for strand in compared if isinstance(strand.credit, GroupCredit)}
    if scopes:
        said = {"all": "everybody's rewards", "on_policy": "the learner's own rewards alone"}
        whose = "; ".join(said.get(scope, "each strand's own rewards") for scope in sorted(scopes))
        yield Verdict("declared", "V9", "", f"{whose} form the group's baseline")


# ---------------------------------------------------------------- baselines that need somebody


def _greedy(case: Case, strand: Strand, credit: GroupCredit) -> Iterator[Verdict]:
    if credit.baseline != "greedy" or any(one.source.temperature == 0 for one in group(case.recipe)):
        return
    text = "the baseline is the reward of the group's greedy response, and no strand of the group draws one"
    fix = "add a strand with {producer: rollout, per_prompt: 1, temperature: 0} and terms: []"
    yield Verdict("error", "V3", strand.name, text, fix)


def _children(case: Case, strand: Strand, credit: GroupCredit) -> Iterator[Verdict]:
    if credit.value != "children" or any(one.source.parent == strand.name for one in case.recipe.strands):
        return
    text = "is worth what its children earn, and no strand has it as parent: every reward would be unknown"
    yield Verdict("error", "lineage", strand.name, text, f"add a strand with source.parent: {strand.name}")


def _critic(case: Case) -> Iterator[Verdict]:
    critics = [learner for learner in case.recipe.learners if learner.role == "critic"]
    valued = {strand.name for learner in critics for strand in learner.strands}
    readers = {strand.name for strand in case.recipe.strands if isinstance(strand.credit, Gae)}
    for name in sorted(readers - valued):
        text = "gae reads a value at every token, and no critic trains on this strand"
        fix = f"add a learner with role: critic whose strand {name} has a set kernel, link value, score head"
        yield Verdict("error", "views", name, text, fix)
    for learner in critics:
        if not readers & {strand.name for strand in learner.strands}:
            text = "a critic whose values no credit reads: it costs a model and changes nothing"
            yield Verdict("warning", "views", learner.name, text, "set a strand's credit to gae, or drop the critic")
