"""docs/adding-a-method.md, followed to the letter in a copy of the tree: its blocks are files, diffs and a test."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "adding-a-method.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PACKAGES = ("policies", "verifiers", "teachers", "actors", "orchestrator", "deploy", "tests")


def blocks(kind: str) -> list[str]:
    return [text for language, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if language == kind]


def apply_diff(folder: Path, diff: str) -> None:
    """A diff of the page: context and removed lines must stand in the file, once, as one piece."""
    lines = diff.splitlines()
    path = folder / lines[1].removeprefix("+++ b/")
    body = [line for line in lines[2:] if not line.startswith("@@")]
    before = "\n".join(line[1:] for line in body if line[:1] != "+")
    after = "\n".join(line[1:] for line in body if line[:1] != "-")
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{PAGE.name}: {path.name} holds the diff's context {text.count(before)} times"
    path.write_text(text.replace(before, after), encoding="utf-8")


def write(folder: Path, text: str) -> Path:
    """A block whose first line is a comment with its path."""
    head, _, body = text.partition("\n")
    path = folder / head.removeprefix("# ")
    path.write_text(body, encoding="utf-8")
    return path


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    return done


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree after the page was followed."""
    folder = tmp_path_factory.mktemp("page")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    diffs, recipes = blocks("diff"), blocks("yaml")
    assert len(diffs) == 2 and len(recipes) == 2, "the page holds two diffs and two recipes"
    for diff in diffs:
        apply_diff(folder, diff)
    for text in [*recipes, *blocks("python")]:
        write(folder, text)
    return folder


def test_the_recipes_of_the_page_are_listed_with_their_parameters(followed: Path) -> None:
    done = python(followed, "-m", "orchestrator", "recipes", "dppo")
    assert done.returncode == 0, done.stderr
    assert "margin" in done.stdout
    assert "better_half" in python(followed, "-m", "orchestrator", "recipes").stdout


@pytest.mark.parametrize("recipe", ["better_half", "dppo"])
def test_a_pipeline_of_the_page_is_legal(followed: Path, recipe: str) -> None:
    file = followed / f"{recipe}-pipeline.yaml"
    file.write_text(f"name: page\nstages:\n  - {{name: only, recipe: {{kind: {recipe}}}, steps: 2}}\n")
    done = python(followed, "-m", "orchestrator", "check", str(file))
    assert done.returncode == 0, done.stderr
    assert "legal" in done.stdout


def test_the_test_of_the_page_passes_and_can_fail(followed: Path) -> None:
    quick = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_dppo.py")
    done = python(followed, *quick)
    assert done.returncode == 0, done.stdout
    weights = followed / "policies" / "token_weights.py"
    text = weights.read_text()
    weights.write_text(text.replace("toward_N <= margin", "toward_N <= 1.0"))
    try:
        assert python(followed, *quick).returncode == 1
    finally:
        weights.write_text(text)
