"""Every recipe of the catalogue is held to an independent implementation: a parity test applies it by its name."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator import recipes


def texts(source: str) -> set[str]:
    """Strings of a test file, but for its docstrings: names of recipes among them."""
    tree = ast.parse(source)
    prose = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    }


def untried(names: Iterable[str], files: Mapping[str, str]) -> list[str]:
    """Recipes that no file names in a call or a table."""
    named = set[str]().union(*map(texts, files.values())) if files else set()
    return sorted(set(names) - named)


def parity_files() -> dict[str, str]:
    """The parity tests' texts, by name; this file is none of them."""
    here = Path(__file__)
    return {
        path.name: path.read_text(encoding="utf-8") for path in here.parent.glob("test_parity_*.py") if path != here
    }


def test_every_recipe_has_a_parity_test() -> None:
    assert untried(recipes.names(), parity_files()) == []


def test_a_recipe_that_is_only_spoken_of_is_untried() -> None:
    named = {"a": 'def test_it():\n    """Not grpo."""\n    apply("dpo", case)\n'}
    assert untried(["dpo", "grpo"], named) == ["grpo"]
    assert untried(["dpo"], {}) == ["dpo"]
