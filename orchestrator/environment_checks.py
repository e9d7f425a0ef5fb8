"""Checks of a pipeline's environment that open nothing but its files."""

import ast
from collections.abc import Iterator
from pathlib import Path

from orchestrator.config import Pipeline
from orchestrator.explain import Fault, shown
from teachers.config import ModelDemonstrations, ToolCaller
from verifiers.config import AnyVerifier
from verifiers.environment_config import EnvironmentVerifier
from verifiers.environments.config import CustomEnvironment, RetryEnvironment, Search, ToolsEnvironment
from verifiers.kinds import compares, leaves

KEY = ("environment",)


def environment_faults(pipeline: Pipeline, *, files: bool) -> Iterator[Fault]:
    """Every fault of the environment and of what speaks of it."""
    yield from _callers(pipeline)
    own = pipeline.environment
    asks = any(isinstance(leaf, EnvironmentVerifier) for leaf in leaves(pipeline.verifier))
    if own is None:
        if asks:
            yield Fault(("verifier",), "asks the environment, and there is none (got 'environment')", "add environment")
        return
    yield from _budgets(pipeline)
    if isinstance(pipeline.demonstrations, ModelDemonstrations):
        problem = "are written in one turn, outside of the environment (got 'model')"
        yield Fault(("demonstrations", "kind"), problem, "take them from jsonl, parquet or tool_caller")
    if isinstance(own, RetryEnvironment):
        yield from _judged(pipeline.verifier, asks=asks)
    if asks and isinstance(own, ToolsEnvironment):
        problem = "asks the environment, and tools give no reward (got 'environment')"
        yield Fault(("verifier",), problem, "let a verifier judge the answer, or write an environment of your own")
    if files:
        yield from _files(pipeline)


def _callers(pipeline: Pipeline) -> Iterator[Fault]:
    own = pipeline.environment
    calls = isinstance(own, ToolsEnvironment) and any(one.kind == "calculator" for one in own.tools)
    if isinstance(pipeline.demonstrations, ToolCaller) and not calls:
        problem = "calls the environment's calculator, and there is none (got 'tool_caller')"
        fix = "set environment: {kind: tools, tools: [calculator]}, or take other demonstrations"
        yield Fault(("demonstrations", "kind"), problem, fix)


def _budgets(pipeline: Pipeline) -> Iterator[Fault]:
    own = pipeline.environment
    assert own is not None, "there is one"
    if own.tokens is not None and own.tokens >= pipeline.model.context:
        problem = f"is never reached: model.context is {pipeline.model.context} {shown(own.tokens)}"
        yield Fault((*KEY, "tokens"), problem, "remove it, or set it lower")


def _judged(verifier: AnyVerifier, *, asks: bool) -> Iterator[Fault]:
    """Retry asks the verifier itself, after every answer."""
    if asks:
        problem = "retry asks the verifier, which asks the environment (got 'environment')"
        yield Fault(("verifier",), problem, "let a verifier judge the answers")
    if compares(verifier):
        problem = f"compares responses to one prompt, and retry asks it for one at a time {shown(verifier.kind)}"
        yield Fault(("verifier", "kind"), problem, "choose a verifier that judges a response by itself")


def _files(pipeline: Pipeline) -> Iterator[Fault]:
    own = pipeline.environment
    if isinstance(own, ToolsEnvironment):
        for index, tool in enumerate(own.tools):
            if isinstance(tool, Search) and not Path(tool.path).is_file():
                fix = "give a corpus on this machine; paths are relative to the pipeline file's folder"
                yield Fault((*KEY, "tools", index, "path"), f"no such file (got '{tool.path}')", fix)
    if isinstance(own, CustomEnvironment):
        yield from _class(own)


def _class(own: CustomEnvironment) -> Iterator[Fault]:
    """Whether the file has the class with its methods: read, not run."""
    try:
        tree = ast.parse(Path(own.path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        yield Fault((*KEY, "path"), f"cannot be read: {error} (got '{own.path}')", "give a Python file")
        return
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if own.name not in classes:
        known = f"it has {', '.join(classes)}" if classes else "it has none"
        yield Fault((*KEY, "name"), f"{Path(own.path).name} has no such class {shown(own.name)}", known)
        return
    methods = {node.name for node in classes[own.name].body if isinstance(node, ast.FunctionDef)}
    missing = [name for name in ("start", "step") if name not in methods]
    if missing and not classes[own.name].bases:
        yield Fault((*KEY, "name"), f"the class has no {' and no '.join(missing)} {shown(own.name)}", "write them")
