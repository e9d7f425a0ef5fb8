"""From a config to episodes: what all of them share is opened once."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, assert_never

from verifiers.environments.config import AnyEnvironment, CustomEnvironment, RetryEnvironment, ToolsEnvironment
from verifiers.environments.protocol import Environment
from verifiers.environments.retry import Judge, RetryEpisode
from verifiers.environments.tools import ToolsEpisode, open_kit, syntax_of

Opener = Callable[[], Environment]
"""Makes an episode that has not begun."""


def open_environment(own: AnyEnvironment, judge: Judge | None = None) -> Opener:
    """What makes the environment's episodes. `judge`: the verifier, which only `retry` asks.

    ValueError says what cannot be opened: a corpus, a class, a sandbox.
    """
    match own:
        case ToolsEnvironment():
            kit = open_kit(own)
            return lambda: ToolsEpisode(kit)
        case RetryEnvironment():
            if judge is None:
                raise ValueError("retry needs a verifier, which says what each answer is worth")
            asked = judge
            return lambda: RetryEpisode(own, asked)
        case CustomEnvironment():
            made = _class_of(own)
            return lambda: made(**own.options)
        case _:
            assert_never(own)


def stops(own: AnyEnvironment) -> tuple[str, ...]:
    """Texts that end the model's turn."""
    match own:
        case ToolsEnvironment():
            return syntax_of(own).stops
        case RetryEnvironment():
            return ()
        case CustomEnvironment():
            return own.stop
        case _:
            assert_never(own)


def marks(own: AnyEnvironment) -> tuple[str, str]:
    """What stands round an observation, however much of it is cut."""
    return (own.calls.before, own.calls.after) if isinstance(own, ToolsEnvironment) else ("", "")


def _class_of(own: CustomEnvironment) -> Callable[..., Any]:
    module = _module(Path(own.path))
    made = getattr(module, own.name, None)
    if not callable(made) or not all(hasattr(made, method) for method in ("start", "step")):
        raise ValueError(f"{own.path}: has no class {own.name} with the methods start and step")
    return made  # type: ignore[no-any-return]


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"braid_environment_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"{path}: no such Python file; paths are relative to the pipeline file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
