"""Start-up guard: Braid's packages have plain names, and a stranger's `verifiers` must not answer to ours.

Standard library alone: it runs before anything of ours is imported.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

NAMES = ("policies", "verifiers", "teachers", "actors", "orchestrator", "deploy")

ROOT = Path(__file__).resolve().parents[1]


def strangers(names: Sequence[str] = NAMES, root: Path = ROOT) -> list[str]:
    """One line for each name that does not resolve to this checkout."""
    return [line for name in names if (line := _stranger(name, root))]


def _stranger(name: str, root: Path) -> str:
    spec = find_spec(name)
    if spec is None:
        return f"'{name}' is not found; run `python -m orchestrator` from {root}, or add it to PYTHONPATH"
    found = _folder(spec)
    if found == root:
        return ""
    return (
        f"'{name}' is imported from {found}, not from {root}; run `python -m orchestrator` from {root}, "
        f"or take {found} off the path (pip uninstall {name}, or PYTHONPATH)"
    )


def _folder(spec: ModuleSpec) -> Path | str:
    """The folder that holds the package."""
    if spec.origin is not None:
        return Path(spec.origin).resolve().parents[1]
    places = list(spec.submodule_search_locations or ())
    return Path(places[0]).resolve().parent if places else "an unknown place"


def check() -> None:
    """Exit with code 2 and every shadowed name, if there is one."""
    lines = strangers()
    if lines:
        print("\n".join(lines), file=sys.stderr)
        sys.exit(2)
