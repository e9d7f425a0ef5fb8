"""The pipeline that a diagnosis recommends: stages by bottleneck and by what there is, each choice with its reason.

After the survey (arXiv 2604.07941): what is not reached has to be brought in; what is reached but not chosen has to be
lifted where it is not chosen; what is chosen now and then is the business of the policy's own rollouts; what was there
once comes back from who still has it. Nothing is recommended that needs data which are not there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.available import Available
from orchestrator.probes.bottleneck import BOTTLENECKS, Diagnosis, Kind
from orchestrator.probes.intervals import Interval

CLEAR = 0.6
"""Share of the whole headroom from which on one bottleneck decides the pipeline; below it, each prompt's own."""

MANY = 16
"""Rollouts for a prompt where few pass."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A key of the recommended pipeline, its value, and why."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to do next; without a pipeline, `told` says what instead."""

    pipeline: Mapping[str, Any] | None
    choices: tuple[Choice, ...]
    told: str


@dataclass(frozen=True, slots=True)
class _Stage:
    """A stage as it is chosen."""

    name: str
    recipe: Mapping[str, Any]
    reason: str
    trains: str
    """off: on given tokens; on: on rollouts."""
    needs: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the pipeline that the recipe reads."""


def recommend(
    found: Diagnosis, has: Available, *, name: str = "recommended", scaffold_gap: Interval | None = None
) -> Recommendation:
    """Stages that go on from `has.model`. `scaffold_gap`: pass rate under the scaffold less that without it."""
    gap = scaffold_gap if has.scaffold and scaffold_gap is not None and scaffold_gap.low > 0 else None
    if found.bottleneck == "none" and gap is None:
        rate = found.pass_at_1
        told = (
            f"nothing is left to gain here: pass@1 is {rate.value:.3f} ({rate.low:.3f} to {rate.high:.3f}). "
            "Take harder prompts, or prompts from elsewhere, and diagnose again."
        )
        return Recommendation(None, (), told)
    if not found.prompts:
        return Recommendation(None, (), "no prompt was measured; give prompts, and diagnose again")
    stages = [] if gap is None else [_amortise(has, gap)]
    if found.bottleneck != "none":
        stages += _stages(found, has)
    return _pipeline(found, has, stages, name)


# ---------------------------------------------------------------- which stages


def _stages(found: Diagnosis, has: Available) -> list[_Stage]:
    match leading(found):
        case "unreached_prefix":
            return _unreached(found, has)
        case "unavailable_action":
            return _unavailable(found, has)
        case "unreliable":
            return [_sharpen(found)]
        case "lost":
            return _lost(found, has)
        case _:
            return _mixed(found, has)


def leading(found: Diagnosis) -> Kind | None:
    """The one bottleneck that decides the pipeline; None where several share the headroom, or it is undecided."""
    if found.bottleneck not in BOTTLENECKS:
        return None
    whole = math.fsum(one.value for one in found.headroom.values())
    return found.bottleneck if found.headroom[found.bottleneck].value >= CLEAR * whole else None


def _share(found: Diagnosis, kind: Kind) -> str:
    one = found.shares[kind]
    return f"{one.value:.0%} of the prompts ({one.low:.0%} to {one.high:.0%})"


def _unreached(found: Diagnosis, has: Available) -> list[_Stage]:
    whose = f"{_share(found, 'unreached_prefix')} are out of reach: the policy never takes the way of a good response"
    if has.demonstrations is not None:
        why = f"{whose}; imitation brings it in, for rollouts have nothing there to reinforce"
        return [_Stage("import", {"kind": "sft"}, why, "off", _given(has)), _sharpen(found, after="import")]
    if has.teacher:
        why = f"{whose}; there are no demonstrations, but a teacher: it writes them, and what the verifier fails goes"
        recipe = {"kind": "sequence_distillation", "teacher": has.teacher, "samples": 2}
        return [_Stage("import", recipe, why, "off"), _sharpen(found, after="import")]
    why = (
        f"{whose}, and there are neither demonstrations nor a teacher to bring it in. Rollouts on the prompts that "
        "pass now and then are what is left, and may widen what is reached; demonstrations would do more"
    )
    return [_Stage("widen", {"kind": "curriculum_grpo", "rollouts": MANY}, why, "on")]


def _unavailable(found: Diagnosis, has: Available) -> list[_Stage]:
    whose = f"{_share(found, 'unavailable_action')} fail at one or few tokens on a way that the policy does take"
    if has.demonstrations is not None:
        why = f"{whose}; a demonstration in each group competes by its reward, and its unlikely tokens are lifted most"
        recipe = {"kind": "luffy", "rollouts": 7, "length": has.max_tokens}
        return [_Stage("lift", recipe, why, "on", _given(has))]
    if has.teacher:
        why = (
            f"{whose}; the teacher says on the policy's own rollouts what it would have written there. Forward KL, for "
            "a token that is never sampled gets no signal from the reverse one"
        )
        recipe = {"kind": "on_policy_distillation", "teacher": has.teacher, "form": "forward"}
        return [_Stage("lift", recipe, why, "on"), _sharpen(found, after="lift")]
    why = (
        f"{whose}, and nobody is there to show which. Many rollouts and a wide upper clip let unlikely tokens rise "
        "once they are drawn; a demonstration each would be surer"
    )
    return [_Stage("lift", _dapo(has), why, "on")]


def _lost(found: Diagnosis, has: Available) -> list[_Stage]:
    whose = f"{_share(found, 'lost')} were solved before and are not now"
    if has.earlier:
        why = f"{whose}; the checkpoint that still solved them teaches on the policy's own rollouts (same tokenizer)"
        recipe = {"kind": "on_policy_distillation", "teacher": has.earlier}
        return [_Stage("restore", recipe, why, "on")]
    if has.demonstrations is not None:
        why = f"{whose}; their demonstrations come back beside rollouts, per prompt, and past successes are replayed"
        return [_Stage("restore", _routed(found), why, "on", _given(has))]
    if has.teacher:
        why = f"{whose}; the teacher corrects the policy on its own rollouts"
        recipe = {"kind": "on_policy_distillation", "teacher": has.teacher}
        return [_Stage("restore", recipe, why, "on")]
    why = f"{whose}; past successes are replayed beside fresh rollouts as soon as there are some"
    return [_Stage("restore", {"kind": "exgrpo", "start": 0.0}, why, "on")]


def _mixed(found: Diagnosis, has: Available) -> list[_Stage]:
    parts = ", ".join(f"{kind} {_share(found, kind)}" for kind in BOTTLENECKS if found.shares[kind].value >= 0.05)
    whose = f"no single bottleneck holds the model back ({parts or 'the evidence divides none of it'})"
    if has.demonstrations is not None:
        why = f"{whose}; each prompt gets what it needs: import, reinforcement, rest or replay"
        return [_Stage("route", _routed(found), why, "on", _given(has))]
    if has.teacher:
        why = f"{whose}; the teacher writes the demonstrations that each prompt's own routing imports"
        model = {"kind": "hf", "path": has.teacher, "context": has.model["context"], "dtype": has.model["dtype"]}
        needs = {"demonstrations": {"kind": "model", "model": model, "samples": 2}}
        return [_Stage("route", _routed(found), why, "on", needs)]
    why = f"{whose}, and nobody shows good responses: the policy's own, fresh and replayed, are what there is"
    return [_Stage("route", {"kind": "exgrpo"}, why, "on")]


def _sharpen(found: Diagnosis, after: str = "") -> _Stage:
    """Reinforcement of what is solved now and then; more rollouts where that is rare."""
    rare = _unreliable_rate(found) < 0.3
    count = MANY if rare and not after else 8
    why = f"what `{after}` brought into reach is solved now and then at first; rollouts make it reliable"
    if not after:
        whose = f"{_share(found, 'unreliable')} are solved now and then"
        why = f"{whose}: own rollouts tell good from bad there, and {count} of them make most groups mixed"
    return _Stage("sharpen", {"kind": "grpo", "rollouts": count, "zero_variance": "drop"}, why, "on")


def _unreliable_rate(found: Diagnosis) -> float:
    rates = [one.c / one.n for one in found.prompts if one.likeliest == "unreliable" and one.n]
    return math.fsum(rates) / len(rates) if rates else 0.5


def _amortise(has: Available, gap: Interval) -> _Stage:
    why = (
        f"with the scaffold {gap.value:.0%} more pass ({gap.low:.0%} to {gap.high:.0%}): what it helps is trained to "
        "come without it, from the policy's own responses under it that pass"
    )
    recipe = {"kind": "context_distillation", "context": has.scaffold, "samples": 4, "keep": "passed"}
    return _Stage("amortise", recipe, why, "off")


def _routed(found: Diagnosis) -> dict[str, Any]:
    return {"kind": "bottleneck", "rollouts": 8}


def _dapo(has: Available) -> dict[str, Any]:
    spare = max(1, has.max_tokens // 5)
    return {"kind": "dapo", "rollouts": MANY, "length": max(2, has.max_tokens), "cache": spare}


def _given(has: Available) -> dict[str, Any]:
    return {"demonstrations": dict(has.demonstrations or {})}


# ---------------------------------------------------------------- the whole


def _pipeline(found: Diagnosis, has: Available, stages: list[_Stage], name: str) -> Recommendation:
    choices: list[Choice] = []
    written = [_written(one, has, choices) for one in stages]
    content: dict[str, Any] = {"name": name, "model": dict(has.model), "prompts": {"train": dict(has.train)}}
    also = dict(has.also)
    content["prompts"] |= also.pop("prompts", {})
    if has.probe is not None:
        content["prompts"]["probe"] = dict(has.probe)
    given = {key: value for one in stages for key, value in one.needs.items()}
    content |= {"demonstrations": given.get("demonstrations"), "verifier": dict(has.verifier), **also}
    content["stages"] = written
    if has.probe is not None:
        content["handoff"] = _handoff(has, choices)
        content["probe"] = {"samples": 2}
    chosen = ", ".join(f"{one.name} by {one.recipe['kind']}" for one in stages)
    told = f"the bottleneck is {found.bottleneck.replace('_', ' ')}: {chosen}"
    return Recommendation(content, tuple(choices), told)


def _written(one: _Stage, has: Available, choices: list[Choice]) -> dict[str, Any]:
    """The stage in the pipeline's words."""
    prompts = min(32, has.prompts) if has.prompts else 32
    rate, steps = learning_rate(has.parameters, one.trains), _steps(has, one.trains, prompts)
    passes = {"off": "about 5 passes over the prompts" if has.parameters < SMALL else "about 3 passes over the prompts"}
    size = f"{has.parameters / 1e6:.3g} million parameters"
    key = f"stages.{one.name}"
    choices += [
        Choice(f"{key}.recipe", one.recipe["kind"], one.reason),
        Choice(f"{key}.steps", steps, f"{passes.get(one.trains, 'about 2 passes over the prompts')}, within bounds"),
        Choice(f"{key}.optimizer", rate, f"for {size}, trained on {KINDS_OF_TOKENS[one.trains]}; warmed up"),
    ]
    return {
        "name": one.name,
        "recipe": dict(one.recipe),
        "steps": steps,
        "prompts_per_step": prompts,
        "optimizer": {"learning_rate": rate, "schedule": _schedule(one.trains, steps)},
        "sampling": {"max_tokens": has.max_tokens},
    }


KINDS_OF_TOKENS = {"off": "given tokens", "on": "own rollouts, whose rewards are noisier"}
SMALL = 10_000_000


def learning_rate(parameters: int, trains: str) -> float:
    """Peak of AdamW, falling with size: given tokens 1e-5 at 7e9 parameters and 1e-3 at 1e6, rollouts 1e-6 and 5e-5.

    Two significant digits. Between the ends as a power of the size, which is how published settings lie.
    """
    relative = 7e9 / max(parameters, 1)
    rate = 1e-5 * relative**0.5 if trains == "off" else 1e-6 * relative**0.43
    low, high = (5e-6, 2e-3) if trains == "off" else (5e-7, 1e-4)
    return float(f"{min(max(rate, low), high):.1e}")


def _steps(has: Available, trains: str, prompts_per_step: int) -> int:
    passes = (5 if has.parameters < SMALL else 3) if trains == "off" else 2
    count = has.prompts or 32 * prompts_per_step
    low, high = (20, 500) if trains == "off" else (20, 200)
    return min(max(math.ceil(passes * count / prompts_per_step), low), high)


def _schedule(trains: str, steps: int) -> dict[str, Any]:
    warm = max(1, min(20, steps // 10))
    return {"kind": "cosine", "warmup": warm, "floor": 0.1} if trains == "off" else {"kind": "constant", "warmup": warm}


def _handoff(has: Available, choices: list[Choice]) -> dict[str, Any]:
    contract = {
        "retained_support": {"at_least": 0.9, "otherwise": "repair"},
        "pass_at_1": {"no_worse_than": -0.02, "otherwise": "stop"},
    }
    choices += [
        Choice(
            "handoff.contract.retained_support",
            0.9,
            "what was solved before a stage is to be solved after it; if it is shown not to be, the policy as the "
            "stage found it teaches it back",
        ),
        Choice(
            "handoff.contract.pass_at_1",
            -0.02,
            "a stage that is shown to make the model worse ends the run with exit code 3",
        ),
    ]
    scaffold = {"scaffold": has.scaffold} if has.scaffold else {}
    return {**scaffold, "contract": contract}
