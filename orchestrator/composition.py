"""A recipe in one line: `S[source] → C[credit] → kernel · weights / normaliser ×coefficient ; controls`.

The line is made from the strands, so that it cannot say anything else than what runs. Credit that no term reads is left
out; co-learners, teachers and a restart stand before the controls.
"""

from collections.abc import Iterable, Iterator
from typing import Any, assert_never

from orchestrator.controls.config import Control
from orchestrator.needs import DISTRIBUTIONS, reads_advantage
from orchestrator.recipes import Recipe, RecipeFile, load
from orchestrator.recipes.schema import Parameter, Refresh, Scalar
from policies.config import (
    BoxCox,
    Clip,
    ConstantCredit,
    Credit,
    Div,
    Gae,
    GroupCredit,
    Kernel,
    PartCredit,
    Past,
    Point,
    Prepare,
    ProcessCredit,
    Reduce,
    Saturate,
    Select,
    Set,
    Shape,
    SignCredit,
    SoftGate,
    Source,
    Strand,
    Strict,
    TeacherGap,
    Term,
    TokenWeight,
    TurnCredit,
)


def composition(recipe: Recipe) -> str:
    """The whole recipe."""
    parts = [" + ".join(_strand(strand) for strand in recipe.strands)]
    for learner in recipe.learners:
        own = [f"{_terms(strand)} @ {strand.name}" if strand.terms else strand.name for strand in learner.strands]
        name = learner.name if learner.name == learner.role else f"{learner.name} ({learner.role})"
        parts.append(f"{name}: {', '.join(own)}")
    parts += [said for said in (_teacher(recipe), "restart" if recipe.restart else "") if said]
    return " ; ".join([*parts, *(say_control(control) for control in recipe.controls)])


def of_file(file: RecipeFile) -> str:
    """The recipe as its defaults compose it; a parameter that has no default stands by its name."""
    return composition(with_defaults(file))


def with_defaults(file: RecipeFile) -> Recipe:
    """The recipe at its defaults; where there is none, its smallest value, or its name in capitals for a path."""
    return load(file.name, **{name: _stand_in(name, one) for name, one in file.parameters.items() if one.required})


def _stand_in(name: str, parameter: Parameter) -> Scalar:
    match parameter.type:
        case "int":
            return int(parameter.ge or 1)
        case "float":
            return parameter.ge or parameter.le or 1.0
        case "bool":
            return True
        case "str" | "path":
            return parameter.choices[0] if parameter.choices else name.upper()
        case "paths":
            return {"*": name.upper()}
        case _:
            assert_never(parameter.type)


def _teacher(recipe: Recipe) -> str:
    how = refreshed(recipe.refresh)
    folders = ", ".join(f"{family}: {folder}" for family, folder in recipe.teachers.items()) or recipe.teacher
    who = f"teacher {folders}" if folders else "reference" if how else ""
    return f"{who} {how}".strip()


def refreshed(refresh: Refresh) -> str:
    """`again every 100 steps`; empty for a model that stays as it is."""
    match refresh.kind:
        case "fixed":
            return ""
        case "every":
            return f"again every {refresh.every} steps" if refresh.every > 1 else "again every step"
        case "average":
            return f"averaged with the policy at {refresh.rate:g}"
        case "best":
            return "again at each best probe"
        case _:
            assert_never(refresh.kind)


def _strand(strand: Strand) -> str:
    steps = [f"S[{_listed(say_source(strand.source))}]"]
    if reads_advantage(strand):
        steps.append(f"C[{_listed(say_credit(strand.credit))}]")
    if strand.terms:
        steps.append(_terms(strand))
    return " → ".join(steps)


def _terms(strand: Strand) -> str:
    said = [say_term(term) for term in strand.terms]
    return said[0] if len(said) == 1 else f"({' + '.join(said)})"


def _listed(parts: Iterable[str]) -> str:
    return ", ".join(parts)


# ---------------------------------------------------------------- sources


def say_source(source: Source) -> Iterator[str]:
    """`rollout x8`, `demonstration 64/step`, and what is unusual about it."""
    count = f"x{source.per_prompt}" if source.per_prompt else f"{source.per_step}/step"
    yield f"{source.producer} {count}"
    yield from _written(source)
    yield from _seen(source)
    if source.producer == "replay":
        yield f"{source.refill} of {source.window}"
        yield from _past(source.past)
    if source.select.kind != "all":
        yield say_select(source.select)


def _past(past: Past) -> Iterator[str]:
    """What it asks for beside all that the learner wrote: `passed`, `age up to 4`."""
    if past.producers != Past().producers:
        yield f"by {'/'.join(past.producers)}"
    if past.passed is not None:
        yield "passed" if past.passed else "failed"
    bounds = {"reward from": past.at_least, "reward up to": past.at_most}
    bounds |= {"versions up to": past.versions, "age up to": past.age}
    yield from (f"{name} {value:g}" for name, value in bounds.items() if value is not None)


def _written(source: Source) -> Iterator[str]:
    """On what, and how."""
    if source.parent:
        which = "" if source.parent_is == "any" else f"{source.parent_is} "
        yield f"{'after' if source.turn else 'on'} {which}{source.parent}"
    if source.prepare is not None:
        yield say_prepare(source.prepare)
    if source.temperature is not None:
        yield "greedy" if source.temperature == 0 else f"temperature {source.temperature:g}"
    if source.prefix:
        yield "from a hint" + (", trained" if source.hint_trained else "")


def _seen(source: Source) -> Iterator[str]:
    """Who sees another context than the prompt."""
    whose = {"behavior": "writer's", "train": "loss's", "teacher": "teacher's"}
    yield from (f"{owner} context" for key, owner in whose.items() if getattr(source, key))
    if source.context_shift is not None:
        yield f"shift {source.context_shift}"


def say_select(select: Select) -> str:
    """`best 1`, `above 0.5`, `pair by passed`."""
    said = f"above {select.threshold:g}" if select.kind == "above" else select.kind
    said += f" by {select.by}" if select.kind == "pair" and select.by != "reward" else ""
    said += f" with {select.join}" if select.join else ""
    return said + (f" {select.keep}" if select.keep else "")


def say_prepare(prepare: Prepare) -> str:
    """`prepared by learner x4, passed kept`."""
    if prepare.writer == "nobody":
        return f"ranked by {prepare.rank}" + (f", {prepare.share:g} kept" if prepare.share < 1 else "")
    count = f" x{prepare.samples}" if prepare.samples > 1 else ""
    kept = f"above {prepare.threshold:g}" if prepare.keep == "above" else prepare.keep
    ranked = "" if prepare.rank == "none" else f", ranked by {prepare.rank}"
    otherwise = "" if prepare.otherwise == "nothing" else f", else the {prepare.otherwise}"
    return f"prepared by {prepare.writer}{count}, {kept} kept{ranked}{otherwise}"


# ---------------------------------------------------------------- credit


def say_credit(credit: Credit) -> Iterator[str]:
    """`reward - mean`, `over std`, and what is unusual about it."""
    match credit:
        case ConstantCredit():
            yield f"{credit.value:g}"
        case SignCredit():
            yield f"sign(reward > {credit.threshold:g})"
        case GroupCredit():
            yield from _group(credit)
        case TeacherGap():
            yield from _gap(credit)
        case Gae():
            yield f"gae {credit.gamma:g}/{credit.lam:g}"
            yield from [*_penalty(credit.kl), *(["whitened"] if credit.whiten else [])]
        case ProcessCredit() | TurnCredit() | PartCredit():
            yield from _spans(credit)
        case _:
            assert_never(credit)


def _group(credit: GroupCredit) -> Iterator[str]:
    baselines = {"zero": "", "leave_one_out": "mean of the others", "length_mean": "length-weighed mean"}
    baseline = baselines.get(credit.baseline, credit.baseline)
    yield ("children's reward" if credit.value == "children" else "reward") + (f" - {baseline}" if baseline else "")
    if credit.scale != "none":
        yield f"over {credit.scale}"
    if credit.batch != "none":
        yield {"whiten": "whitened", "nonzero": "x groups / unequal groups"}[credit.batch]
    yield from _penalty(credit.kl)
    if "scope" in credit.model_fields_set:
        yield f"scope {credit.scope}"
    if credit.overlong is not None:
        yield f"overlong {credit.overlong.length}/{credit.overlong.cache}"
    if credit.truncated == "mask":
        yield "truncated masked"


def _gap(credit: TeacherGap) -> Iterator[str]:
    factor = "" if credit.scale == 1 else f"{credit.scale:g} x "
    target = "teacher" if credit.extrapolation == 1 else f"base + {credit.extrapolation:g} (teacher - base)"
    yield f"{factor}({target} - behavior)" if factor else f"{target} - behavior"
    if credit.spread != "token":
        yield credit.spread
    if credit.outcome:
        yield f"+ {credit.outcome:g} (reward - mean)"


def _penalty(weight: float) -> list[str]:
    return [f"- {weight:g} k1"] if weight else []


def _spans(credit: ProcessCredit | TurnCredit | PartCredit) -> Iterator[str]:
    match credit:
        case ProcessCredit():
            yield f"{'' if credit.scale == 1 else f'{credit.scale:g} x '}{credit.score} scores, {credit.spread}"
            if credit.normalise != "none":
                yield f"over {credit.normalise}"
            if credit.outcome:
                yield f"+ {credit.outcome:g} (reward - mean)"
        case TurnCredit():
            yield f"turns, bonus {credit.bonus:g}" + ("" if credit.first == 1 else f", first {credit.first:g}")
        case PartCredit():
            yield from ["parts", *_penalty(credit.kl)]
        case _:
            assert_never(credit)


# ---------------------------------------------------------------- terms


def say_term(term: Term) -> str:
    """`point(old, clip 0.2/0.2) · truncated_importance 2 / sequence ×0.5`."""
    weights = "".join(f" · {_weight(weight)}" for weight in term.weights)
    coefficient = "" if term.coefficient == 1 else f" ×{term.coefficient:g}"
    return f"{say_kernel(term.kernel)}{_only(term)}{weights} / {_reduce(term.reduce)}{coefficient}"


def _only(term: Term) -> str:
    only = term.only
    said: list[str] = [*only.origins, *([] if only.label == "any" else [only.label])]
    said += [] if only.part is None else [f"part {only.part}"]
    return f" @ {' '.join(said)}" if said else ""


def _reduce(reduce: Reduce) -> str:
    return f"{reduce.kind} {reduce.length or ''}".strip()


def _weight(weight: TokenWeight) -> str:
    return " ".join([weight.kind, *_changed(weight, ("power", "low", "high", "share", "cap", "level", "keep_ratio"))])


def say_kernel(kernel: Kernel) -> str:
    """`point(...)`, `set(...)` or `div(...)`, with what differs from the defaults."""
    match kernel:
        case Point():
            level = [] if kernel.level == "token" else [kernel.level]
            clip = [] if kernel.log_clip is None else [f"log_clip {kernel.log_clip:g}"]
            worth = [] if kernel.advantage == "credit" else [f"A {kernel.advantage}"]
            return f"point({_listed([kernel.denominator, *level, *clip, _shape(kernel.shape), *worth])})"
        case Set():
            return f"set({_listed([kernel.link, f'beta {kernel.beta:g}', *_set(kernel)])})"
        case Div():
            return f"div({_listed(_div(kernel))})"
        case _:
            assert_never(kernel)


def _shape(shape: Shape) -> str:
    match shape:
        case Clip():
            return f"clip {shape.low:g}/{shape.high:g}" + (f", dual {shape.dual:g}" if shape.dual else "")
        case Saturate(gamma=number) | BoxCox(alpha=number):
            return f"{shape.kind} {number:g}"
        case SoftGate():
            return f"soft_gate {shape.tau_positive:g}/{shape.tau_negative:g}"
        case _:
            return shape.kind


def _set(kernel: Set) -> Iterator[str]:
    if not kernel.reference and kernel.score == "likelihood":
        yield "no reference"
    for key in ("score", "unit", "aggregate", "divergence"):
        if key in kernel.model_fields_set and getattr(kernel, key) != type(kernel).model_fields[key].default:
            yield str(getattr(kernel, key))
    yield from _changed(kernel, ("margin", "row_margin", "smoothing", "tail", "weighted", "clip"))
    if kernel.link == "kto":
        yield f"weights {kernel.desirable:g}/{kernel.undesirable:g}"


def _div(kernel: Div) -> Iterator[str]:
    yield f"jsd {kernel.beta:g}" if kernel.form == "jsd" else kernel.form
    if kernel.form == "entropy":
        return
    yield kernel.target
    if kernel.form in DISTRIBUTIONS:
        yield "full" if kernel.support == "full" else f"top {kernel.top_k} {kernel.tail}"
        if kernel.temperature != 1:
            yield f"temperature {kernel.temperature:g}"


def _changed(variant: Strict, keys: Iterable[str]) -> Iterator[str]:
    """`key value` where the value is not the default; a switch by its name alone."""
    for key in keys:
        value = getattr(variant, key)
        if value != type(variant).model_fields[key].default:
            yield _value(key, value)


def _value(key: str, value: Any) -> str:
    """`key value`; a switch by its name alone."""
    if isinstance(value, bool):
        return key if value else f"no {key}"
    return f"{key} {value:g}" if isinstance(value, int | float) else f"{key} {value}"


# ---------------------------------------------------------------- controls


def say_control(control: Control) -> str:
    """`mixture(strand demonstrations, against rollouts, warmup 0, ...)`."""
    values = control.model_dump(exclude={"kind"})
    return f"{control.kind}({_listed(_value(key, value) for key, value in values.items())})"
