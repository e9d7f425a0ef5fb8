"""Scores of steps and parts: who gives those that a credit reads, and whether who is to label can (views)."""

from collections.abc import Iterator

from orchestrator.label_config import StepLabels
from orchestrator.legality.verdict import Case, Verdict
from orchestrator.needs import STEP, reads_steps
from policies.config import PartCredit, ProcessCredit, Strand
from verifiers.config import AnyVerifier, RubricVerifier, StepsVerifier, part_name
from verifiers.model_config import ProcessModelVerifier

RULE = "views"
SAMPLED = "step_labels: {kind: monte_carlo}"


def steps(case: Case) -> Iterator[Verdict]:
    """Every credit that reads scores with spans, then the labels of the pipeline where the stage reads them."""
    for strand in case.recipe.strands:
        yield from _given(case, strand)
    reading = [strand for strand in case.recipe.strands if reads_steps(strand)]
    if case.around.step_labels is not None and reading:
        yield from _labelled(case, case.around.step_labels, ", ".join(one.name for one in reading))


def _given(case: Case, strand: Strand) -> Iterator[Verdict]:
    """Scores that nobody gives leave every response without an advantage."""
    name, verifier = _read(strand), case.around.verifier
    if not name or not strand.terms or verifier is None or strand.source.producer == "replay":
        return
    said = set(speaks(verifier))
    if name in said or (name == STEP and case.around.step_labels is not None):
        return
    text = f"credit {strand.credit.kind} reads scores named {name}, and the verifier {verifier.kind} gives "
    text += f"spans named {', '.join(sorted(said))}" if said else "no spans"
    own = f"a rubric's part named {name} of kind steps" if name != STEP else "verifier kind steps or prm"
    yield Verdict("error", RULE, strand.name, text, f"write {SAMPLED}, or {own}" if name == STEP else f"write {own}")


def _read(strand: Strand) -> str:
    match strand.credit:
        case ProcessCredit(score=name):
            return name
        case PartCredit():
            return "part"
        case _:
            return ""


def speaks(verifier: AnyVerifier, name: str = STEP) -> Iterator[str]:
    """Names of the scores with spans that the verifier gives."""
    if isinstance(verifier, StepsVerifier | ProcessModelVerifier):
        yield name
    elif isinstance(verifier, RubricVerifier):
        prefix = "" if name == STEP else f"{name}/"
        for part in verifier.parts:
            yield from speaks(part, prefix + part_name(part))


def _labelled(case: Case, labels: StepLabels, where: str) -> Iterator[Verdict]:
    """Whether the writer is there, and fit to judge; and nobody else labels the same."""
    if case.around.verifier is not None and STEP in set(speaks(case.around.verifier)):
        text = f"step_labels and the verifier {case.around.verifier.kind} both give scores named {STEP}"
        yield Verdict("error", RULE, where, text, "remove one: judge wholes alone, or drop step_labels")
    if labels.writer == "teacher" and not (case.recipe.teacher or "*" in case.recipe.teachers):
        text = "step_labels.writer is teacher, and the recipe has none that answers every prompt"
        fix = "give the recipe's teacher where it takes one, or set the writer to reference"
        yield Verdict("error", RULE, where, text, fix)
    if case.around.environment is not None:
        text = "step_labels complete a response, and what acts in an environment is no response but an episode"
        yield Verdict("error", RULE, where, text, "remove step_labels or environment")
    if labels.kind == "progress" and labels.writer == "learner":
        text = "progress under the policy itself adds nothing to its expected gradient: the prover is to be another"
        yield Verdict("warning", RULE, where, text, "set step_labels.writer: reference, or teacher")
    most = labels.completions * case.stage.sampling.max_tokens
    if labels.tokens is not None and labels.tokens < most:
        text = f"step_labels.tokens is {labels.tokens}, and the completions of one prefix may take {most}: a response "
        text += "whose steps may not all fit gets no labels"
        yield Verdict("warning", RULE, where, text, f"set it well above {most}, or lower completions")
