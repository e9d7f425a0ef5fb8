"""Where two resolved pipelines differ, key by key; stages go by their names, so that another order is another order."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ABSENT = "absent"
"""Stands for a key that one of the pipelines does not have."""


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Key path -> each pipeline's value, of the keys whose values are not all equal.

    `stages` as a whole holds the names in their order; a stage that one pipeline lacks is absent in each of its keys.
    """
    flat = [dict(leaves(config)) for config in configs]
    keys = dict.fromkeys(key for one in flat for key in one)
    found = {key: [one.get(key, ABSENT) for one in flat] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values[1:])}


def leaves(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything that is no mapping; lists but `stages` are one value."""
    for key, value in config.items():
        path = f"{above}.{key}" if above else str(key)
        if path == "stages" and isinstance(value, list | tuple):
            yield from _stages(value)
        elif isinstance(value, Mapping) and value:
            yield from leaves(value, path)
        else:
            yield path, value


def _stages(stages: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    names = [str(stage.get("name")) for stage in stages if isinstance(stage, Mapping)]
    yield "stages", names
    for name, stage in zip(names, stages, strict=False):
        if isinstance(stage, Mapping):
            yield from leaves({key: value for key, value in stage.items() if key != "name"}, f"stages.{name}")
