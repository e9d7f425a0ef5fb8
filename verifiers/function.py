"""A user's own verifier: one function in one file, called in a judging process."""

import ast
import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import blake2s
from pathlib import Path
from typing import Any

from verifiers.grader import Grader, Item, in_threads
from verifiers.kinds import Tools, task_of
from verifiers.score import Score
from verifiers.text_config import FunctionVerifier
from verifiers.workers import Workers

LONGEST_REASON = 300
"""Characters of a reason that are kept."""

KEYS = {"value", "passed", "reason", "parts"}
"""What a verdict may say when it is a mapping."""

Rule = Callable[[str, str, Any], Any]


def open_grader(own: FunctionVerifier, tools: Tools) -> Grader:
    """A grader that asks killable workers; ValueError where the file or the function is missing."""
    if found := fault(own.path, own.function):
        raise ValueError(f"verifier.{found[0]}: {found[1]}")
    workers, digest = tools.killable(), digest_of(own.path)
    return in_threads(lambda item: judge(own, item, digest, workers), own.workers)


def judge(own: FunctionVerifier, item: Item, digest: str, workers: Workers) -> Score:
    """The function's verdict on one response."""
    said = {"prompt": item.prompt, "response": item.response, "reference": item.reference}
    verdict = workers.ask({"task": task_of(own), "digest": digest, **said}, own.timeout)
    return verdict if isinstance(verdict, Score) else Score(verdict, verdict >= 1.0)


def fault(path: str, name: str) -> tuple[str, str] | None:
    """The key that is wrong and why; None where the file defines the name. Reads the file and runs nothing."""
    try:
        tree = ast.parse(Path(path).read_bytes(), path)
    except OSError as error:
        return "path", f"{str(error.strerror or error).lower()} (got '{path}')"
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        return "path", f"not Python{f': line {line}' if line else ''}: {getattr(error, 'msg', error)} (got '{path}')"
    known = {one for node in tree.body for one in _defined(node)}
    if name in known or "*" in known:
        return None
    return "function", f"{path} defines no {name!r}; it has {', '.join(sorted(known)) or 'nothing'}"


def _defined(node: ast.stmt) -> set[str]:
    """Names that a statement at the file's top level brings."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {(alias.asname or alias.name).split(".")[0] for alias in names}
        case ast.AsyncFunctionDef():
            return set()  # nobody would await it
        case ast.If() | ast.Try() | ast.With():
            inner = (one for one in ast.iter_child_nodes(node) if isinstance(one, ast.stmt))
            return {name for one in inner for name in _defined(one)}
        case _:
            return {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}


def digest_of(path: str) -> str:
    """A fingerprint of the file; empty where there is none."""
    try:
        return blake2s(Path(path).read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return ""


# ---------------------------------------------------------------- in a worker


class UnusableFileError(Exception):
    """The user's file cannot be imported; the message says why."""


@lru_cache(maxsize=16)
def rule(about: str) -> tuple[Rule, str]:
    """The function that `name@path` names, and the fingerprint of the file it came from."""
    name, _, path = about.partition("@")
    digest = digest_of(path)
    spec = importlib.util.spec_from_file_location(f"braid_function_{digest}", path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses and pickles look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UnusableFileError(f"importing it: {_where(error, path)}") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise UnusableFileError(f"{path} has no function {name!r}")
    return found, digest


def preload(about: str) -> None:
    """Import the file, in a worker. One that fails to import says so at each verdict."""
    try:
        rule(about)
    except UnusableFileError:
        return


def work(about: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The worker's task `function`: the verdict as a mapping, or `error` with why there is none."""
    path = about.partition("@")[2]
    try:
        function, digest = rule(about)
    except UnusableFileError as error:
        return {"error": str(error)[:LONGEST_REASON]}
    if digest != request["digest"]:
        return {"error": f"{path} changed since the verifier was built; start the run again"}
    try:
        return verdict(function(request["prompt"], request["response"], request["reference"]))
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  (boundary: a user's function)
        return {"error": _where(error, path)[:LONGEST_REASON]}


def verdict(found: Any) -> dict[str, Any]:
    """What the function gave, as value, passed, reason and parts. TypeError or ValueError says what it may give."""
    told = dict(found) if isinstance(found, Mapping) else {"value": found}
    if unknown := set(map(str, told)) - KEYS:
        raise ValueError(f"a verdict has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(KEYS))}")
    if "value" not in told:
        raise ValueError("a verdict that is a mapping needs `value`")
    value = number(told["value"])
    passed = told.get("passed")
    parts = {str(name): number(part) for name, part in (told.get("parts") or {}).items()}
    passed = value >= 1.0 if passed is None else bool(passed)
    return {"value": value, "passed": passed, "reason": str(told.get("reason") or "")[:LONGEST_REASON], "parts": parts}


def number(found: Any) -> float:
    """A finite number of a bool, an int, a float, or the one entry of an array or a tensor."""
    one = found.item() if hasattr(found, "item") else found
    if not isinstance(one, bool | int | float):
        raise TypeError(f"the function gave {type(found).__name__}, not a number, a bool or a mapping with `value`")
    if not math.isfinite(one):
        raise ValueError(f"the function gave {one}, which is no number to learn from")
    return float(one)


def _where(error: BaseException, path: str) -> str:
    """The error with the last line of the user's file that it passed."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    if isinstance(error, SyntaxError):
        lines.append(error.lineno)
    place = f" ({Path(path).name} line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error}{place}"
