"""Hostile programs and answers: none earns a pass, none stops the pool, nothing survives and nothing is left behind."""

import json
import math
import os
import random
import resource
import subprocess
import sys
import time
from itertools import groupby

import pytest

import verifiers
from tests.baits import ROOT, baited, descendants
from tests.hostile_answers import ANSWERS, EVALUATED, EVALUATING, TO_JUDGES
from tests.hostile_answers import HONEST as RIGHT_ANSWERS
from tests.hostile_load import FILES, KERNEL, LOAD
from tests.hostile_machine import NETWORK, OTHERS, READING, SCRIPTS, SOURCES
from tests.hostile_programs import GRADER, HONEST
from tests.hostile_values import TEXTS, VALUES
from tests.judge_cases import FENCED, SEAL
from verifiers import Item, Status
from verifiers.program_config import ProgramVerifier
from verifiers.programs import Programs
from verifiers.sandbox import Cgroups, Sandbox
from verifiers.score import Score
from verifiers.served import Reply

MACHINE = [*READING, *NETWORK, *OTHERS, *LOAD, *KERNEL, *FILES]
PROGRAMS = [*GRADER, *VALUES, *TEXTS, *MACHINE]
WORKERS = 4
CONFIG = {"kind": "program", "timeout": 1.0, "memory_mb": 256, "workers": WORKERS}
WALL = 3.0
"""Seconds that a test of CONFIG lasts at most."""


def told(hostile):
    return [(one.name, one.threat) for one in hostile]


def test_there_are_enough_of_each_and_every_class():
    assert len(PROGRAMS) >= 40 and len(ANSWERS) >= 25
    assert len({one.name for one in PROGRAMS}) == len(PROGRAMS)
    assert len({(one.name, one.verifier["kind"]) for one in ANSWERS}) == len(ANSWERS)
    wanted = {
        *("exit codes", "equality", "reads the expected outputs", "forges the result", "writes reward files"),
        *("constants", "surviving daemons", "injection", "fork bombs", "memory bombs", "cpu", "output floods"),
        *("reads secrets", "reads the environment", "sockets", "signals and ptrace", "changes the machine"),
        *("several boxes", "answer lists", "empty answers", "huge numbers", "huge powers", "odd values"),
    }
    assert wanted <= {threat for _, threat in told(PROGRAMS) + told(ANSWERS)}


def readable(score):
    """A ledger can hold the reason, and a terminal show it."""
    score.reason.encode()
    return len(score.reason) < 1000 and not any(ord(letter) < 32 or ord(letter) == 127 for letter in score.reason)


# ---------------------------------------------------------------- programs


def mixed(hostile, honest, every):
    """In a fixed random order, a right one after each few."""
    shuffled = random.Random(5).sample(hostile, len(hostile))
    rows = []
    for at, one in enumerate(shuffled):
        rows.append(one)
        if at % every == 0:
            rows.append(honest[at // every % len(honest)])
    return rows


@pytest.fixture(scope="module")
def judged():
    """Every program through one pool, with right ones between: scores by name, seconds, and what was touched."""
    rows = mixed(PROGRAMS, HONEST, 4)
    with baited() as bait:
        before, memory = descendants(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        verifier = verifiers.build(CONFIG)
        began = time.monotonic()
        scores = verifier.score_many([Item("", bait.filled(one.text), one.reference) for one in rows])
        seconds = time.monotonic() - began
        verifier.close()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
        left = descendants() - before
        return {
            "scores": list(zip(rows, scores, strict=True)),
            "seconds": seconds,
            "touched": bait.touched(),
            "left": left,
            "megabytes": grown >> 10,
        }


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.name)
def test_a_hostile_program_earns_nothing(judged, program):
    (score,) = [score for one, score in judged["scores"] if one is program]
    assert score.passed is not True, score
    assert score.value == 0.0 or (math.isnan(score.value) and score.passed is None), score
    assert score.status in (Status.OK, Status.TIMEOUT), score  # a program cannot choose to be unknown by breaking us
    assert readable(score), score


def test_right_programs_between_them_pass(judged):
    right = [(one.name, score) for one, score in judged["scores"] if one.threat == "honest"]
    assert len(right) >= len(PROGRAMS) // 5
    assert [pair for pair in right if pair[1].passed is not True or pair[1].value != 1.0] == []


def test_no_process_survives_and_nothing_is_touched(judged):
    assert judged["touched"] == []
    assert judged["left"] == set()


def test_every_program_ends_by_its_deadline_and_the_pool_goes_on(judged):
    for one, score in judged["scores"]:
        tests = len(one.reference["cases"])
        assert score.seconds < tests * WALL + 20, (one.name, score)
    assert judged["seconds"] < len(judged["scores"]) * WALL / WORKERS + 60
    assert judged["megabytes"] < 600


def test_partial_credit_gives_a_hostile_program_no_more_than_a_constant():
    hostile = [one for one in PROGRAMS if one.most or one.threat in ("exit codes", "forges the result", "answer lists")]
    with baited() as bait:
        verifier = verifiers.build({**CONFIG, "partial": True})
        rows = [*hostile, *HONEST]
        scores = verifier.score_many([Item("", bait.filled(one.text), one.reference) for one in rows])
        verifier.close()
    for one, score in zip(hostile, scores, strict=False):
        assert score.passed is not True and not score.value > one.most, (one.name, score)
    assert all(score.passed for score in scores[len(hostile) :])
    assert max(score.value for score in scores[: len(hostile)]) > 0  # some constants do earn their share


SHELL = {**CONFIG, "run": ["sh", "main.sh"], "file": "main.sh"}
BUILT = {**CONFIG, "build": ["g++", "-o", "program", "main.cpp"], "run": ["./program"], "file": "main.cpp"}


@pytest.mark.parametrize(("config", "programs"), [(SHELL, SCRIPTS), (BUILT, SOURCES)], ids=["scripts", "builds"])
def test_programs_and_builds_of_other_languages_earn_nothing(config, programs):
    with baited() as bait:
        before = descendants()
        verifier = verifiers.build(config)
        scores = verifier.score_many([Item("", bait.filled(one.text), one.reference) for one in programs])
        verifier.close()
        left = descendants() - before
        assert (bait.touched(), left) == ([], set())
    for one, score in zip(programs, scores, strict=True):
        assert not score.passed and score.status in (Status.OK, Status.TIMEOUT) and readable(score), (one.name, score)


@pytest.mark.slow
def test_the_machine_holds_without_control_groups_too():
    """Where they cannot be written, as in most pods, each process has its limits and all of them a number."""
    rows = mixed(MACHINE, HONEST, 4)
    with baited() as bait:
        before = descendants()
        programs = Programs(ProgramVerifier(**CONFIG), Sandbox(WORKERS, Cgroups()))
        items = [Item("", bait.filled(one.text), one.reference) for one in rows]
        scores = programs.grade(items, time.monotonic() + 600)
        left = descendants() - before
        assert (bait.touched(), left) == ([], set())
    for one, score in zip(rows, scores, strict=True):
        assert score.passed is (one.threat == "honest") or score.status == Status.TIMEOUT, (one.name, score)


# ---------------------------------------------------------------- the attacks are real


def program_of(one):
    return one.text.rpartition("```python\n")[2].rpartition("```")[0]


def exit_code(code, checks):
    """Appends the checks; exit status 0 is a pass."""
    return code + "\n" + "\n".join(f"assert {call} == {want!r}" for call, want in checks), lambda done: not done[0]


def pasted(code, checks):
    """The same with the program in a string."""
    return f"code = '''{code}'''\nexec(code)\n" + exit_code("", checks)[0], lambda done: not done[0]


def verdict_line(code, checks):
    """Appends a comparison and prints what it says."""
    says = " and ".join(f"{call} == {want!r}" for call, want in checks)
    tail = f"\nimport json\nprint(json.dumps({{'passed': {says}}}))"
    return code + tail, lambda done: '{"passed": true}' in done[1].splitlines()


def run_plainly(text, folder):
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, timeout=30, errors="replace"
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("program", [one for one in GRADER + TEXTS if one.alone], ids=lambda one: one.name)
def test_a_grader_that_trusts_the_process_is_beaten(program, tmp_path):
    code = program_of(program)
    checks = [(f"lock({case['args'][0]})", case["returns"]) for case in program.reference["cases"]]
    beaten = [
        passed(run_plainly(text, tmp_path))
        for text, passed in (g(code, checks) for g in (exit_code, pasted, verdict_line))
    ]
    assert any(beaten)


def test_the_machine_is_open_to_a_plain_process(tmp_path):
    """So that `held` in the sandbox says something: the same attacks come through without one."""
    alone = [one for one in MACHINE if one.alone]
    with baited() as bait:
        held = [one.name for one in alone if "breached" not in run_plainly(bait.filled(program_of(one)), tmp_path)[1]]
        assert bait.touched()
    assert len(alone) > 12
    assert len(held) <= (0 if os.geteuid() == 0 else len(alone) // 2), held


# ---------------------------------------------------------------- answers


@pytest.fixture(scope="module")
def answered():
    """Every answer through its verifier, all of one verifier in one batch with the right ones: scores and seconds."""
    rows = sorted(mixed(ANSWERS, RIGHT_ANSWERS, 3), key=lambda one: json.dumps(one.verifier))
    scores, seconds = [], {}
    with baited() as bait:
        before = descendants()
        for config, some in groupby(rows, key=lambda one: json.dumps(one.verifier)):
            batch = list(some)
            verifier = verifiers.build(json.loads(config))
            began = time.monotonic()
            found = verifier.score_many([Item("", bait.filled(one.text), one.reference) for one in batch])
            seconds[config] = (time.monotonic() - began, len(batch))
            verifier.close()
            scores += zip(batch, found, strict=True)
        return {
            "scores": scores,
            "seconds": seconds,
            "touched": bait.touched(),
            "left": descendants() - before,
        }


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda one: f"{one.verifier['kind']}: {one.name}")
def test_a_hostile_answer_earns_nothing(answered, answer):
    (score,) = [score for one, score in answered["scores"] if one is answer]
    assert score.passed is not True and readable(score), score
    if answer.judged:
        assert score.status == Status.OK and score.passed is False, score
    else:
        assert score.status in (Status.OK, Status.TIMEOUT, Status.ERROR), score


def test_right_answers_between_them_pass(answered):
    right = [(one, score) for one, score in answered["scores"] if one.threat == "honest"]
    assert len(right) >= len(ANSWERS) // 4
    assert [(one.name, score) for one, score in right if score.passed is not True] == []


def test_no_answer_is_run(answered):
    assert answered["touched"] == []
    assert answered["left"] == set()


EVALUATES = """
import contextlib, os, sys, reasoning_gym
from reasoning_gym.factory import DATASETS
from tests.hostile_answers import EVALUATED
for name in sorted(DATASETS):
    with contextlib.suppress(Exception):
        data = reasoning_gym.create_dataset(name, size=1)
        entry = data[0]
        for text in EVALUATED:
            with contextlib.suppress(Exception):
                data.score_answer(text.replace("/tmp/@MARK@", f"{sys.argv[1]}/{name}"), entry)
"""


@pytest.mark.slow
def test_the_data_sets_that_evaluate_are_known(tmp_path):
    """Of this version of reasoning-gym: a new one must be looked at before its answers are."""
    subprocess.run([sys.executable, "-c", EVALUATES, str(tmp_path)], cwd=ROOT, capture_output=True, timeout=280)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(EVALUATING)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", EVALUATING)
def test_no_answer_to_a_data_set_that_evaluates_is_run(dataset):
    import reasoning_gym

    (entry,) = reasoning_gym.create_dataset(dataset, size=1, seed=1)
    with baited() as bait:
        verifier = verifiers.build({"kind": "reasoning_gym", "dataset": dataset, "workers": 1})
        scores = verifier.score_many([Item("", bait.filled(text), entry) for text in EVALUATED])
        right = verifier.score("", entry["answer"], entry)
        verifier.close()
        assert bait.touched() == []
    assert not any(score.passed for score in scores)
    assert right.passed, right


def test_every_answer_ends_by_its_deadline(answered):
    for one, score in answered["scores"]:
        assert isinstance(score, Score)
        assert score.seconds < one.verifier.get("timeout", 1.0) + 20, (one.name, score)
    for seconds, answers in answered["seconds"].values():
        assert seconds < answers * 2.0 / 2 + 60


# ---------------------------------------------------------------- judges

JUDGE = {"kind": "judge", "model": {"kind": "folder", "path": "/judge"}}
SCALE = {**JUDGE, "form": {"kind": "rubric"}}
CHECKLIST = {**JUDGE, "form": {"kind": "checklist", "criteria": [{"text": "The answer is 4."}]}}
PAIRS = {**JUDGE, "form": {"kind": "pairwise", "passes": 0.75}}


def said(asked):
    """What stands quoted of the response, as the judge sees it."""
    return next(found["text"] for found in FENCED.finditer(asked) if found["label"].startswith("RESPONSE"))


def parrots(asked):
    """Says all that it was told."""
    return asked


def copies(asked):
    """Says what the response says."""
    return said(asked).replace("| ", "")


def obeys(asked):
    """Says what the response shows as a verdict, or else the best grade that it reads there."""
    shown = [line for line in copies(asked).splitlines() if "{" in line]
    return shown[-1] if shown else '{"score": 5}'


def fair(asked):
    """Looks for the answer alone; what a response says to it is no merit."""
    seal = SEAL.findall(asked)[-1]  # the responses show some of their own before it
    right = copies(asked).strip() == "It is 4."
    own = {"score": 5 if right else 1, "met": {"1": right}, "better": "A" if right else "B"}
    key = next(key for key in own if f'"{key}": ' in asked.rpartition('{"seal"')[0].rpartition('{"seal"')[2])
    return f"So.\n{json.dumps({'seal': seal, key: own[key]})}"


class Judge:
    """A model that answers by a rule."""

    def __init__(self, rule):
        self.rule = rule

    def complete(self, conversations, *, max_tokens, temperature, seconds):
        return [Reply(self.rule(messages[-1].content)) for messages in conversations]

    def identity(self):
        return self.rule.__name__


def judgements(config, rule, responses):
    verifier = verifiers.build(config, models={"judge:/judge": Judge(rule)})
    scores = verifier.score_many([Item("What is 2+2?", one, "It is four.") for one in responses], seconds=60)
    verifier.close()
    return scores


@pytest.mark.parametrize("config", [SCALE, CHECKLIST, PAIRS], ids=lambda config: config["form"]["kind"])
@pytest.mark.parametrize("rule", [parrots, copies, obeys, fair], ids=lambda rule: rule.__name__)
def test_what_a_response_says_to_its_judge_earns_nothing(config, rule):
    """Not even from a judge that repeats it: a verdict bears a seal that no response has seen."""
    scores = judgements(config, rule, TO_JUDGES.values())
    for name, score in zip(TO_JUDGES, scores, strict=True):
        assert score.passed is not True and readable(score), (name, score)
        assert rule is fair or score.status != Status.OK, (name, score)
    assert rule is not fair or {score.status for score in scores} == {Status.OK}
    if rule is fair:
        assert judgements(config, rule, ["It is 4."])[0].passed
