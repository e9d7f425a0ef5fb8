"""Write docs/config.md and docs/recipes.md from the config's docstrings and the recipes' files; check the links.

`make docs` runs it. `--check` writes nothing and fails where the page is stale or a link leads nowhere.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from orchestrator import recipes  # noqa: E402 - the checkout is on the path only now
from orchestrator.composition import of_file  # noqa: E402
from orchestrator.config import Pipeline  # noqa: E402

CONFIG = """# The pipeline file

Written by `make docs` from the docstrings in `*/config.py`; edit those. `braid check FILE` expands a file and names
what is wrong with it. An unknown key is an error. The recipes' own parameters: [recipes.md](recipes.md).
"""
RECIPES = """# Recipes

Written by `make docs` from the files in `orchestrator/recipes/`; edit those. `braid recipes NAME` shows one with its
strands, `braid recipes --provenance mixed` lists some. Labels are the survey's (arXiv 2604.07941). S is the source,
C the credit, then the kernel, its weights and its normaliser; the slots are explained in
[adding-a-method.md](adding-a-method.md). What is not verified of a method stands under it.
"""


def config() -> str:
    """Every key of the pipeline file."""
    schema = Pipeline.model_json_schema()
    records = {"Pipeline": schema, **dict(sorted(schema["$defs"].items()))}
    sections = [_section(name, record) for name, record in records.items() if record.get("properties")]
    return "\n".join([CONFIG, *sections])


def catalogue() -> str:
    """Every recipe: a line each, then its parameters and notes."""
    rows = []
    for name in recipes.names():
        one = recipes.file(name)
        labels = f"{one.labels.provenance} | {', '.join(one.labels.interface)} | {', '.join(one.labels.role)}"
        rows.append(f"| [{name}](#{name}) | {labels} | {_cell(one.summary)} |")
    table = ["| recipe | provenance | interface | role | |", "|---|---|---|---|---|", *rows, ""]
    return "\n".join([RECIPES, *table, *map(_recipe, recipes.names())])


PAGES = {"config.md": config, "recipes.md": catalogue}
"""File -> what it should hold."""


def _section(name: str, record: Mapping[str, Any]) -> str:
    required = record.get("required", ())
    rows = [
        f"| `{key}` | {_type(value)} | {_default(value, key in required)} | {_cell(value.get('description', ''))} |"
        for key, value in record["properties"].items()
    ]
    about = " ".join(record.get("description", "").split())
    return "\n".join(
        [f"## {name}\n", f"{about}\n", "| key | type | default | meaning |", "|---|---|---|---|", *rows, ""]
    )


def _type(value: Mapping[str, Any]) -> str:
    """A JSON schema's type in words; records link to their section."""
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    for key in ("oneOf", "anyOf"):
        if key in value:
            return " or ".join(_type(one) for one in value[key])
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    if value.get("type") == "array":
        inner = value.get("items") or (value.get("prefixItems") or [{}])[0]
        return f"list of {_type(inner)}"
    if value.get("additionalProperties"):
        inner = value["additionalProperties"]
        told = _type(inner) if isinstance(inner, dict) else ""
        return f"mapping to {told}" if told and "JsonValue" not in told else "mapping"
    return f"{value.get('type', 'any')}{_bounds(value)}"


def _bounds(value: Mapping[str, Any]) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    found = [f"{sign} {value[key]:g}" for key, sign in signs.items() if key in value]
    return f" {', '.join(found)}" if found else ""


def _default(value: Mapping[str, Any], required: bool) -> str:
    """The default; a record's defaults stand in its own section."""
    if required:
        return "required"
    default = value.get("default")
    if isinstance(default, dict):
        return f"`{default['kind']}`" if "kind" in default else "its own"
    return "" if default is None else f"`{json.dumps(default)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _recipe(name: str) -> str:
    """A recipe's summary, citation and parameters."""
    source = recipes.file(name)
    rows = [
        f"| `{key}` | {one.type} | {_default({'default': one.default}, one.required)} | {_cell(one.doc)} |"
        for key, one in source.parameters.items()
    ]
    table = ["| parameter | type | default | meaning |", "|---|---|---|---|", *rows, ""]
    notes = [f"* {_cell(note)}" for note in source.notes]
    about = f"{source.summary} {source.citation}.\n\n    {of_file(source)}\n"
    return "\n".join([f"## {name}\n", about, *table, *notes, *([""] if notes else [])])


def dead_links() -> Iterator[str]:
    """Links of our documents to files that do not exist."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
    for document in sorted(documents):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            if "://" not in target and not (document.parent / target).exists():
                yield f"{document.relative_to(ROOT)}: {target} does not exist"


def main() -> int:
    """Write or check; the exit code says whether all is well."""
    faults = []
    for name, text in ((name, write()) for name, write in PAGES.items()):
        path = ROOT / "docs" / name
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            faults.append(f"docs/{name} is not what the code says; run `make docs`")
    faults += dead_links()
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
