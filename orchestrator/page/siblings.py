"""The runs of a directory, and runs side by side."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchestrator.history import STATUS
from orchestrator.page.braid import braid, curves
from orchestrator.page.reading import Reading, read_json, read_yaml, stamp
from orchestrator.page.stages import bands, run
from orchestrator.page.tail import row_of
from orchestrator.page.watch import stamps
from orchestrator.run_directory import RunDirectory
from policies.bad_input import BadInput

Document = dict[str, Any]

MOST_RUNS = 500
DEEP = 4
"""Folders below the root that are looked into."""
ENDING = 1 << 16
"""Bytes of the end of a file that tell how a run stands."""
COMPARED = ("reward_mean", "accuracy", "loss", "response_length_mean", "tokens_trained")
POINTS = 300


def runs(root: Path) -> Document:
    """The runs in a directory.

    {"root": its name, "runs": [{"run": path below the root, "." for the root itself: what `?run=` takes,
     "name", "status", "step": newest, "planned": steps, "stages": [names], "changed": seconds since 1970}],
     newest first, "experiments": [{"experiment": path below the root, "document": its experiment.json}],
     "left_out": runs beyond the first 500}
    """
    found = list(_below(root, 0))
    places = [path for path in found if is_run(path)]
    told = sorted((_brief(root, path) for path in places[:MOST_RUNS]), key=lambda one: -one["changed"])
    experiments = [
        {"experiment": _name(root, path), "document": read_json(path / "experiment.json")}
        for path in found
        if (path / "experiment.json").is_file()
    ]
    return {
        "root": root.name,
        "runs": told,
        "experiments": experiments,
        "left_out": max(0, len(places) - MOST_RUNS),
    }


def find(root: Path, name: str) -> Path | None:
    """The run of that name in `runs`; None where the root holds no such run. No name leads out of the root."""
    try:
        top, path = root.resolve(), (root / name).resolve()
        return path if (path == top or top in path.parents) and is_run(path) else None
    except (OSError, ValueError):  # a name too long, or with a zero in it
        return None


def first(root: Path) -> Path | None:
    """The run that was written to last; None where there is none."""
    places = [path for path in _below(root, 0) if is_run(path)]
    return max(places, key=_changed, default=None)


def is_run(path: Path) -> bool:
    """Whether a directory is a run's."""
    return (path / "config.yaml").is_file() and (path / "ledger").is_dir()


def compare(readings: Mapping[str, Reading]) -> Document:
    """Runs side by side, by what `?run=` calls them.

    {"runs": [{"run", "name", "status", "stages": bands, "totals": as `run`,
               "curves": {key: {"steps", "values"}} of reward_mean, accuracy, loss, response_length_mean,
               tokens_trained, "probes": as `curves`, "origins": as `braid`, with the `steps` that they are over,
               "config": {key: value} of the keys in which the runs differ, null where a run has no such key}],
     "differ": [these keys, as `stages.0.steps`]}

    What differs in what they can do, with intervals, takes longer: `comparison`.
    """
    flat = {name: dict(_flat(reading.config)) for name, reading in readings.items()}
    keys = dict.fromkeys(key for config in flat.values() for key in config)
    differ = [key for key in keys if len({repr(config.get(key)) for config in flat.values()}) > 1]
    return {
        "runs": [
            _compared(name, reading, {key: flat[name].get(key) for key in differ}) for name, reading in readings.items()
        ],
        "differ": differ,
    }


def comparison(readings: Mapping[str, Reading], at: Mapping[str, str]) -> Document:
    """`braid compare` of these runs, at their last probes or at the step or stage that `at` names for a run.

    {"runs": [names], "document": orchestrator.comparison.document's, or null, "said": [why there is none]}
    """
    from orchestrator import comparison as measured

    places = {name: str(reading.run.root) for name, reading in readings.items()}
    asked = [f"{place}@{at[name]}" if at.get(name) else place for name, place in places.items()]
    depends = tuple(tuple(stamps(reading).items()) for reading in readings.values())

    def made() -> Document:
        try:
            return {"runs": list(readings), "document": measured.document(asked), "said": []}
        except BadInput as error:
            return {"runs": list(readings), "document": None, "said": list(error.lines)}

    first = next(iter(readings.values()))
    found: Document = first.remembered_apart(f"comparison {asked}", depends, made)
    return found


def _compared(name: str, reading: Reading, config: Document) -> Document:
    about, drawn, stream = run(reading), curves(reading, points=POINTS), braid(reading, points=POINTS)
    return {
        "run": name,
        **{key: about[key] for key in ("name", "status", "totals")},
        "stages": bands(reading),
        "curves": {
            one["key"]: {"steps": drawn["steps"], "values": one["values"]}
            for one in drawn["curves"]
            if one["key"] in COMPARED
        },
        "probes": drawn["probes"],
        "steps": stream["steps"],
        "origins": stream["origins"],
        "config": config,
    }


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """The folder and those in it, but not what lies inside a run; links are not followed."""
    yield folder
    if depth >= DEEP or (is_run(folder) and depth):
        return
    try:
        inside = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for name in inside:
        if not name.startswith(".") and not (is_run(folder) and name in _OF_A_RUN):
            yield from _below(folder / name, depth + 1)


_OF_A_RUN = {"ledger", "checkpoints", "probes", "handoffs", "tensorboard", "model", "prepared"}


def _name(root: Path, path: Path) -> str:
    return str(path.relative_to(root))


def _brief(root: Path, path: Path) -> Document:
    """How a run stands, from the ends of its files; looked at again when they have changed."""
    place = RunDirectory(path)
    return _stands(root, path, tuple(stamp(file) for file in (place.config, place.events, place.metrics)))


@lru_cache(4 * MOST_RUNS)
def _stands(root: Path, path: Path, _: tuple[object, ...]) -> Document:
    place = RunDirectory(path)
    config = read_yaml(place.config)
    kinds = [str(row.get("kind")) for row in _ending(place.events)]
    steps = [row["step"] for row in _ending(place.metrics) if isinstance(row.get("step"), int)]
    stages = [one for one in config.get("stages") or () if isinstance(one, dict)]
    return {
        "run": _name(root, path),
        "name": str(config.get("name") or path.name),
        "status": next(
            (STATUS[kind] for kind in reversed(kinds) if kind in STATUS), "running" if kinds else "not started"
        ),
        "step": max(steps, default=None),
        "planned": sum(int(one.get("steps") or 0) for one in stages),
        "stages": [str(one.get("name")) for one in stages],
        "changed": _changed(path),
    }


def _changed(path: Path) -> float:
    """Seconds since 1970 of the newest line."""
    place = RunDirectory(path)
    return round(max(stamp(file)[2] for file in (place.metrics, place.events, place.config)) / 1e9, 3)


def _ending(path: Path) -> list[Document]:
    """The last whole lines of a file, as far as they lie in its last 64 KiB."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - ENDING))
            lines = file.read(ENDING).split(b"\n")
    except OSError:
        return []
    whole = lines[:-1] if size <= ENDING else lines[1:-1]
    return [row for line in whole if (row := row_of(line)) is not None]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(stages.0.steps, 10) and so on."""
    match value:
        case dict():
            pairs: Sequence[tuple[Any, Any]] = list(value.items())
        case list():
            pairs = list(enumerate(value))
        case _:
            yield key, value
            return
    for inner, below in pairs:
        yield from _flat(below, f"{key}.{inner}" if key else str(inner))
