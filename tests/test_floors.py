"""What may import what is a table, and the code keeps to it: read from the syntax tree, so lazy imports count too."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MAY_IMPORT = {
    "policies": ("policies",),
    "verifiers": ("verifiers",),
    "teachers": ("teachers", "verifiers", "policies"),
    "actors": ("actors", "teachers", "verifiers", "policies"),
    "orchestrator": ("orchestrator", "actors", "teachers", "verifiers", "policies"),
    "deploy": ("deploy", "orchestrator.config", "actors.config"),
}
"""Package -> the packages or modules of ours that it may import."""

HOMES = {
    "ray": ("actors/cluster.py", "deploy/submit.py"),
    "vllm": ("actors/vllm_*.py",),
    "torch": ("policies/*", "teachers/*", "actors/*", "verifiers/scalar_model.py"),
    "transformers": ("policies/*", "teachers/*", "actors/*", "verifiers/scalar_model.py"),
    "deepspeed": ("actors/*", "policies/*"),
}
"""Library -> the files that may import it."""


def sources() -> dict[str, str]:
    """Path relative to the root -> source text, of every module in the six packages."""
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for package in MAY_IMPORT
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def module_name(path: str) -> str:
    """`orchestrator/probes/__init__.py` -> `orchestrator.probes`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: str, tree: ast.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(module, names taken from it) for every import in the file; relative ones are made absolute."""
    parents = path.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            yield module, tuple(alias.name for alias in node.names)


def targets(files: Mapping[str, str]) -> dict[str, set[str]]:
    """Module -> what it imports; `from package import module` counts as the module."""
    known = {module_name(path) for path in files}
    graph: dict[str, set[str]] = {}
    for path, text in files.items():
        edges: set[str] = set()
        for module, names in imports(path, ast.parse(text)):
            submodules = {f"{module}.{name}" for name in names} & known
            edges |= submodules
            if not names or len(submodules) < len(names):
                edges.add(module)
        graph[module_name(path)] = edges
    return graph


def arrows(files: Mapping[str, str]) -> list[str]:
    """Imports that the table does not allow, and libraries away from home."""
    paths = {module_name(path): path for path in files}
    faults = []
    for module, edges in targets(files).items():
        package = module.split(".")[0]
        for edge in sorted(edges):
            top = edge.split(".")[0]
            if top in MAY_IMPORT and not any(edge == one or edge.startswith(f"{one}.") for one in MAY_IMPORT[package]):
                faults.append(f"{paths[module]} imports {edge}; {package} may import {', '.join(MAY_IMPORT[package])}")
            if top in HOMES and not any(fnmatch(paths[module], home) for home in HOMES[top]):
                faults.append(f"{paths[module]} imports {edge}; it lives in {', '.join(HOMES[top])}")
    return faults


def cycle(files: Mapping[str, str]) -> list[str]:
    """One cycle of imports among our modules, or nothing."""
    graph = targets(files)
    ours = {module: edges & graph.keys() - {module} for module, edges in graph.items()}
    try:
        TopologicalSorter(ours).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_import_is_one_that_the_table_allows() -> None:
    assert arrows(sources()) == []


def test_no_modules_import_each_other_in_a_ring() -> None:
    assert cycle(sources()) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("policies/planted.py", "import actors.engine"),
        ("verifiers/planted.py", "from policies.config import Strict"),
        ("verifiers/planted.py", "from policies import config"),
        ("teachers/planted.py", "def f():\n    from actors import engine"),
        ("orchestrator/planted.py", "import torch.nn as nn"),
        ("orchestrator/planted.py", "from vllm import LLM"),
        ("orchestrator/probes/planted.py", "import ray"),
        ("actors/planted.py", "import ray"),
        ("actors/planted.py", "from orchestrator.config import Pipeline"),
        ("deploy/planted.py", "from orchestrator import load"),
        ("deploy/planted.py", "import policies.config"),
        ("deploy/planted.py", "from ..actors import cluster"),
    ],
)
def test_a_planted_arrow_is_found(path: str, text: str) -> None:
    assert len(arrows({**dict.fromkeys(sources(), ""), path: text})) == 1


def test_a_planted_ring_is_found() -> None:
    planted = {"policies/one.py": "import policies.two", "policies/two.py": "def f():\n    from policies import one"}
    assert set(cycle(planted)) == {"policies.one", "policies.two"}


def test_what_is_allowed_is_not_reported() -> None:
    allowed = {
        "deploy/fine.py": "from orchestrator.config import Pipeline\nfrom actors import config",
        "actors/vllm_fine.py": "import vllm\nfrom policies.config import Strict",
        "orchestrator/config.py": "",
        "actors/config.py": "",
        "policies/config.py": "",
    }
    assert arrows(allowed) == []


def test_configs_load_without_the_heavy_libraries() -> None:
    modules = sorted(module_name(path) for path in sources() if path.endswith("/config.py"))
    heavy = ("torch", "ray", "vllm", "transformers", "deepspeed", "pyarrow", "math_verify", "reasoning_gym")
    code = f"import sys, {', '.join(modules)}\nprint(*sorted(set({heavy!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []
