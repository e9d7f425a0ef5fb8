"""A recommended pipeline as a file: YAML in which each choice stands under its reason."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from orchestrator.notation import Writer, write
from orchestrator.recommend import Recommendation

WIDTH = 116


def text(found: Recommendation, heading: Sequence[str] = ()) -> str:
    """The file's text. Without a pipeline it is comments alone, which `braid check` refuses as it should."""
    lines = [line for said in (*heading, found.told) for line in _comment(said[:1].upper() + said[1:], 0)]
    if found.pipeline is not None:
        reasons = {one.key: one.reason for one in found.choices}
        lines += _mapping(found.pipeline, "", 0, reasons)
    return "\n".join(lines) + "\n"


def _mapping(content: Mapping[str, Any], path: str, depth: int, reasons: Mapping[str, str]) -> Iterator[str]:
    for key, value in content.items():
        place = f"{path}.{key}" if path else key
        if depth == 0:
            yield ""
        if place in reasons:
            yield from _comment(reasons[place], depth)
        if key == "stages":
            yield "stages:"
            yield from _stages(value, reasons)
        elif isinstance(value, Mapping) and any(one.startswith(f"{place}.") for one in reasons):
            yield f"{'  ' * depth}{key}:"
            yield from _mapping(value, place, depth + 1, reasons)
        else:
            yield from _plain({key: value}, depth)


def _stages(stages: Sequence[Mapping[str, Any]], reasons: Mapping[str, str]) -> Iterator[str]:
    for stage in stages:
        inner = list(_mapping({**stage}, f"stages.{stage['name']}", 2, reasons))
        yield f"  - {inner[0].strip()}"
        yield from inner[1:]


def _plain(content: Mapping[str, Any], depth: int) -> Iterator[str]:
    """On one line where it fits, as the examples have it."""
    ((key, value),) = content.items()
    flow = yaml.dump(value, Dumper=Writer, default_flow_style=True, width=1 << 20, sort_keys=False, allow_unicode=True)
    line = f"{'  ' * depth}{key}: {flow.removesuffix(chr(10)).removesuffix('...').strip()}"
    if isinstance(value, Mapping) and len(line) <= WIDTH:
        yield line
    else:
        yield from (f"{'  ' * depth}{line}" for line in write(content).splitlines())


def _comment(reason: str, depth: int) -> Iterator[str]:
    lead = "  " * depth + "# "
    yield from (lead + line for line in textwrap.wrap(reason, WIDTH - len(lead)))
