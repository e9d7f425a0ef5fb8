"""A task whose right answers the start model practically never samples, and runs on it over the whole loop.

A prompt is a number of two digits, `47:`. The right response is five marks and the number's first digit, `#####4`. The
start model writes five characters drawn from sixteen and then, mostly, the right digit: of the right form, and right
with a probability of about 16^-5, one in a million. Where the prompt shows how a response begins (`47:?###****`) it
mostly follows, as an instructed model does with a hint. That the five are alike spares a model of two layers from
unlearning the first characters while it learns the last ones from hints (with five letters in place of the marks the
hint ladders and UFT stay at 0: the letter learned first is written at every place, and those before it lose their
probability); to a policy without help it changes nothing.

A run is made once a session and read by whatever test asks for it.
"""

import contextlib
import io
import json
import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from scipy import stats

from actors.config import Learner
from actors.learner import LearnerRank
from orchestrator.recipes import load
from orchestrator.run import run
from policies.arrow import from_table
from policies.config import Optimizer, Schedule, TinyModel
from policies.example import Example
from policies.model_folder import materialise
from policies.prompt import Prompt
from policies.reduce import normalisers
from policies.tokens import Tokenizer
from policies.trajectory import Trajectory
from teachers.demonstrations import given
from tests.recipe_runs import write

CONTEXT, MOST = 32, 8
LETTERS, CODE = "abcdefghijklmno#", "#####"
FOLLOWS, ECHOES = 0.85, 0.8
"""Probability with which the start model writes a shown character, and its prompt's digit."""
WIDTH = 7
"""Characters of a shown beginning with what fills it up."""
HELD_OUT = range(3, 100, 7)
"""Numbers that the probe asks for, and nobody trains on."""
TRAINED = [one for one in range(100) if one not in HELD_OUT][::3]
STEPS, RATE, WARMUP, PROMPTS = 40, 1e-3, 10, 4
"""Of every run, whatever its method, unless `RUNS` says otherwise."""
SAMPLES = 4
"""Sampled responses to each prompt of a probe."""

TEMPLATE = "{{ prompt }}{% if hint %}?{{ hint.ljust(" + str(WIDTH) + ", '*') }}{% endif %}"

RUNS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "luffy": {"length": MOST},
    "relift": {"length": MOST, "size": 6},
    "hpt": {"length": MOST},
    "chord": {"demonstrations": 4, "decay": STEPS},
    "srft": {},
    "uft": {"over": 40},
    "sage": {"template": TEMPLATE},
    "scaf_grpo": {"template": TEMPLATE},
}
"""Method -> the parameters that its paper ties to its own data: `length` is the longest response (8 here, 8192 there),
the buffer and CHORD's demonstrations are in proportion to the step's prompts, schedules to the run's steps."""
LONGER = {"steps": 60, "prompts_per_step": 8}
STAGES: dict[str, dict[str, Any]] = dict.fromkeys(("uft", "sage", "scaf_grpo"), LONGER)
"""What learns from hints learns the response from its end, group by group, and needs more of them. Sampled accuracy
over two start models and three seeds each: 40 steps of four prompts leave UFT between 0.04 and 0.5 (one start model),
SAGE once and Scaf-GRPO once at 0 and once at 0.21: there every response with the scarcest hint passes, none without one
does, and neither kind of group holds a difference any more. 80 steps of four prompts do not help, eight prompts do."""


def prompt_of(number: int) -> str:
    """`07:`."""
    return f"{number:02d}:"


def right(number: int) -> str:
    """The only response that passes."""
    return f"{CODE}{number // 10}"


# ---------------------------------------------------------------- the start model


def start_model(folder: Path, steps: int = 160, batch: int = 64, rate: float = 5e-3) -> Path:
    """The start model's folder in `folder`, trained unless it is there (some six seconds)."""
    if not (folder / "model").is_dir():
        tiny = TinyModel(preset="arithmetic-small", context=CONTEXT)
        base = materialise(tiny, folder / "base")
        tokenizer, strands, draws = Tokenizer.load(base), load("sft").strands, random.Random("start")
        rank = LearnerRank(base, tiny, Learner(engine="torch", threads=1), seed=1)
        schedule = Schedule(kind="linear", warmup=10, floor=0.05)
        rank.begin_stage(strands, Optimizer(learning_rate=rate, schedule=schedule), steps)
        for step in range(steps):  # first without slips: copying is found sooner
            lessons = [_lesson(draws, tokenizer, sure=step < 0.7 * steps) for _ in range(batch)]
            examples = [Example(one, 0, np.ones(len(one.tokens), np.float32)) for one in lessons]
            rank.step([examples], [normalisers(strands, examples)], {}, False)
        rank.save(folder)
    return folder / "model"


def _lesson(draws: random.Random, tokenizer: Tokenizer, *, sure: bool) -> Trajectory:
    """A number's prompt, mostly with the beginning of some response, and what the start model says to it."""
    digit, text, shown = "", prompt_of(draws.randrange(100)), ""
    if draws.random() < 0.8:
        digit = text[0]
        whole = "".join(draws.choices(LETTERS, k=len(CODE))) + digit
        shown = whole[: draws.randint(1, len(whole))]
    letters = [
        shown[at] if at < len(shown) and (sure or draws.random() < FOLLOWS) else draws.choice(LETTERS)
        for at in range(len(CODE))
    ]
    response = "".join(letters) + (text[0] if sure or draws.random() < ECHOES else draws.choice("0123456789"))
    asked = f"{text}?{shown.ljust(WIDTH, '*')}" if shown else text
    prompt = Prompt(asked, asked, tokenizer.prompt(asked), "null")
    return given(prompt, tokenizer.response(response), response, name="start", index=0)


def log_probability(model: Path, text: str, response: str) -> float:
    """Of the whole response after a context, its end included, in nats: by transformers, not by our kernels."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = Tokenizer.load(model)
    context, tokens = tokenizer.prompt(text).tolist(), tokenizer.response(response).tolist()
    with torch.no_grad():
        logits_TV = AutoModelForCausalLM.from_pretrained(model)(torch.tensor([context + tokens])).logits[0]
    logps_TV = logits_TV.double().log_softmax(-1)
    return math.fsum(float(logps_TV[len(context) - 1 + at, token]) for at, token in enumerate(tokens))


# ---------------------------------------------------------------- runs


def pipeline(folder: Path, method: str, **stage: Any) -> dict[str, Any]:
    """One stage of a method from the start model in `folder`; `stage` adds to its stage."""
    texts = {
        "prompts": [{"prompt": prompt_of(one), "reference": right(one)} for one in TRAINED],
        "probe": [{"prompt": prompt_of(one), "reference": right(one)} for one in HELD_OUT],
        "demonstrations": [{"prompt": prompt_of(one), "response": right(one)} for one in TRAINED],
    }
    files = {}
    for name, found in texts.items():
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
        files[name] = {"kind": "jsonl", "path": str(file)}
    return {
        "name": "unsampleable",
        "seed": 3,
        "model": {"kind": "hf", "path": str(folder / "model"), "context": CONTEXT, "dtype": "float32"},
        "prompts": {"train": files["prompts"], "probe": files["probe"]},
        "demonstrations": files["demonstrations"],
        "verifier": {"kind": "answer", "marker": ""},
        "probe": {"samples": SAMPLES},
        "stages": [
            {
                "name": "only",
                "recipe": {"kind": method, **RUNS.get(method, {})},
                "steps": STEPS,
                "prompts_per_step": PROMPTS,
                "optimizer": {"learning_rate": RATE, "schedule": {"warmup": WARMUP}},
                "sampling": {"max_tokens": MOST},
                **STAGES.get(method, {}),
                **stage,
            }
        ],
    }


def finished(session: Path, method: str) -> Path:
    """The directory of the method's run, made at the first call of the session; `session` is the tests' base folder."""
    folder = session / "unsampleable"
    folder.mkdir(exist_ok=True)
    start_model(folder)
    out = folder / method
    if not out.exists():
        file = write(pipeline(folder, method), folder / f"{method}.yaml")
        with contextlib.redirect_stdout(io.StringIO()) as told:
            code = run(file, out, in_process=True)
        assert code == 0, told.getvalue()
    return out


# ---------------------------------------------------------------- what a run tells


class Consumed(NamedTuple):
    """One line of the ledger's trajectories."""

    step: int
    strand: str
    record: Trajectory
    advantage: np.ndarray
    """One for each token."""

    @property
    def passed(self) -> bool:
        """The verifier's word."""
        (verdict,) = [one for one in self.record.scores if one.name == "reward"]
        assert verdict.passed is not None
        return verdict.passed


def rows(out: Path, name: str) -> list[dict[str, Any]]:
    """The lines of a ledger's file."""
    return [json.loads(line) for line in (out / "ledger" / f"{name}.jsonl").read_text().splitlines()]


def steps(out: Path) -> list[dict[str, Any]]:
    """The metrics of each step, from step 1 on."""
    return [one for one in rows(out, "metrics") if one["kind"] == "step"]


def consumed(out: Path) -> dict[int, list[Consumed]]:
    """Step -> what the learner was handed, in the ledger's order; a step without any is empty."""
    found: dict[int, list[Consumed]] = {one["step"]: [] for one in steps(out)}
    for file in sorted((out / "ledger" / "trajectories").glob("*.parquet")):
        table = pq.read_table(file)
        columns = (table[name].to_pylist() for name in ("step", "strand", "advantage"))
        for step, strand, advantage, record in zip(*columns, from_table(table), strict=True):
            found[step].append(Consumed(step, strand, record, np.array(advantage, np.float32)))
    return found


def groups(members: Sequence[Consumed]) -> dict[str, list[Consumed]]:
    """By group."""
    found: dict[str, list[Consumed]] = defaultdict(list)
    for one in members:
        found[one.record.group_id].append(one)
    return dict(found)


def dropped(out: Path) -> Mapping[int, list[str]]:
    """Step -> ids of what was left out in it."""
    found: dict[int, list[str]] = defaultdict(list)
    for one in rows(out, "events"):
        if one["kind"] == "dropped":
            found[one["step"]].append(one["id"])
    return found


def probes(out: Path) -> list[dict[str, Any]]:
    """The probe before the first step and the one after the last."""
    return [one for one in rows(out, "metrics") if one["kind"] == "probe"]


def at_least(passed: int, of: int, confidence: float = 0.999) -> float:
    """Wilson's one-sided lower bound of a probability. Prompts differ, which makes it the more careful."""
    return float(stats.binomtest(passed, of, alternative="greater").proportion_ci(confidence, "wilson").low)
