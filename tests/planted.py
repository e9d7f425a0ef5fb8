"""A copy of some modules of `policies` under another package name, with one fault planted in it (or none)."""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import policies

Fault = tuple[str, str, str]
"""Module, text, what stands there instead."""


@contextmanager
def planted(
    folder: Path, modules: Sequence[str], name: str, fault: Fault | None
) -> Iterator[Callable[[str], ModuleType]]:
    """Gives a function from a module's name to the copy; `name` makes the package's name."""
    package = f"mutant_{abs(hash(name))}"
    home = folder / package
    home.mkdir()
    (home / "__init__.py").touch()
    for module in modules:
        (home / f"{module}.py").write_text(_text(module, modules, package, fault))
    sys.path.insert(0, str(folder))
    try:
        yield lambda module: importlib.import_module(f"{package}.{module}")
    finally:
        sys.path.remove(str(folder))
        for loaded in [one for one in sys.modules if one.startswith(package)]:
            del sys.modules[loaded]


def _text(module: str, modules: Sequence[str], package: str, fault: Fault | None) -> str:
    text = (Path(policies.__path__[0]) / f"{module}.py").read_text()
    if fault is not None and fault[0] == module:
        _, before, after = fault
        assert text.count(before) == 1, f"{module}.py holds {before!r} {text.count(before)} times; renew the mutant"
        text = text.replace(before, after)
    for other in modules:
        text = text.replace(f"from policies.{other} import", f"from {package}.{other} import")
    return text.replace("from policies import", f"from {package} import")
