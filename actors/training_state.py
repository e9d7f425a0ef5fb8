"""A rank's training state on disk, without pickle: tensors in safetensors, everything else in JSON.

`directory/rank-N.safetensors` holds the masters, AdamW's moments and step counts, and torch's random state;
`directory/rank-N.json` the stage, the other random states, and the layout that must match at load. What is restored
is bit for bit what was saved.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from actors.backend import Backend
from policies.config import Optimizer, Strand

FORMAT = 1
_STRANDS: TypeAdapter[tuple[Strand, ...]] = TypeAdapter(tuple[Strand, ...])


@dataclass(frozen=True, slots=True)
class Layout:
    """How the state is cut up; a state is read only by a learner of the same layout."""

    engine: str
    zero_stage: int
    replicas: int
    dtype: str
    lora: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class StageState:
    """The stage in progress: its recipe, its schedule, and how far it is."""

    strands: tuple[Strand, ...]
    optimizer: Optimizer
    updates: int
    """Optimizer updates planned for the stage."""
    done: int
    """Optimizer updates tried, skipped ones included: the schedule's position."""
    skipped: int
    track: float | None = None
    """Decay of the parameters' movement, where a control may freeze what moved most; None: it is not followed."""


def save_state(directory: Path, rank: int, layout: Layout, stage: StageState, backend: Backend) -> None:
    """Write this rank's two files."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = _tensors(backend) | {"rng.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, _tensor_file(directory, rank)
    )
    body = {
        "format": FORMAT,
        "layout": asdict(layout),
        "strands": _STRANDS.dump_python(stage.strands, mode="json"),
        "optimizer": stage.optimizer.model_dump(mode="json"),
        "updates": stage.updates,
        "done": stage.done,
        "skipped": stage.skipped,
        "track": stage.track,
        "rng": _host_rng(),
    }
    _json_file(directory, rank).write_text(json.dumps(body), encoding="utf-8")


def load_state(directory: Path, rank: int, layout: Layout, backend: Backend) -> StageState:
    """Restore what `save_state` wrote; ValueError names what differs from this learner and the fix."""
    body = _read(directory, rank)
    _same_layout(directory, body["layout"], layout)
    stage = StageState(
        strands=_STRANDS.validate_python(body["strands"]),
        optimizer=Optimizer.model_validate(body["optimizer"]),
        updates=body["updates"],
        done=body["done"],
        skipped=body["skipped"],
        track=body.get("track"),
    )
    path = _tensor_file(directory, rank)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); resume from an earlier checkpoint") from error
    backend.begin(stage.optimizer)
    _restore(path, tensors, backend)
    torch.set_rng_state(tensors["rng.torch"])
    if torch.cuda.is_available() and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    _set_host_rng(body["rng"])
    return stage


def _tensors(backend: Backend) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for index, master in enumerate(backend.masters()):
        found[f"master.{index}"] = master
        for key, value in backend.adam.state.get(master, {}).items():
            found[f"{key}.{index}"] = value
    return found


def _restore(path: Path, tensors: Mapping[str, Tensor], backend: Backend) -> None:
    for index, master in enumerate(backend.masters()):
        saved = tensors.get(f"master.{index}")
        if saved is None or saved.shape != master.shape:
            shape = None if saved is None else tuple(saved.shape)
            raise ValueError(
                f"{path}: master.{index} is {shape}, the model's is {tuple(master.shape)}; resume with the same model"
            )
        with torch.no_grad():
            master.copy_(saved)
        moments = {
            key: tensors[f"{key}.{index}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}.{index}" in tensors
        }
        if moments:
            # AdamW keeps its step count where the parameter is only when fused or capturable; both of ours are fused.
            backend.adam.state[master] = {key: value.to(master.device) for key, value in moments.items()}
    backend.refresh()


# ---------------------------------------------------------------- files


def _tensor_file(directory: Path, rank: int) -> Path:
    return directory / f"rank-{rank}.safetensors"


def _json_file(directory: Path, rank: int) -> Path:
    return directory / f"rank-{rank}.json"


def _read(directory: Path, rank: int) -> dict[str, Any]:
    path = _json_file(directory, rank)
    first = _json_file(directory, 0)
    if not first.is_file():
        raise ValueError(f"{first}: missing; this is no checkpoint of a learner")
    source = path if path.is_file() else first  # a missing rank is a layout that differs: say that
    try:
        body: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{source}: is not JSON ({error}); resume from an earlier checkpoint") from error
    if body.get("format") != FORMAT:
        raise ValueError(f"{source}: format {body.get('format')!r}; this version of Braid reads {FORMAT}")
    return body


def _same_layout(directory: Path, saved: dict[str, Any], mine: Layout) -> None:
    wanted = json.loads(json.dumps(asdict(mine)))
    faults = [
        f"{directory}: was saved with {_key(key)}: {saved.get(key)!r}, this learner has {value!r}"
        for key, value in wanted.items()
        if saved.get(key) != value
    ]
    if faults:
        raise ValueError(
            "\n".join(faults) + "\nresume with the saved values; to change them, start a new run from the "
            "checkpoint's model folder (model: {kind: hf, path: .../model})"
        )


def _key(name: str) -> str:
    return "model.dtype" if name == "dtype" else f"resources.learner.{name}"


# ---------------------------------------------------------------- random states of the host


def _host_rng() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    numpy_state: dict[str, Any] = dict(np.random.get_state(legacy=False))
    inner = numpy_state["state"]
    return {
        "python": {"version": version, "words": list(words), "gauss": gauss},
        "numpy": numpy_state | {"state": {"key": inner["key"].tolist(), "pos": int(inner["pos"])}},
    }


def _set_host_rng(saved: dict[str, Any]) -> None:
    python, numpy_state = saved["python"], saved["numpy"]
    random.setstate((python["version"], tuple(python["words"]), python["gauss"]))
    key = np.array(numpy_state["state"]["key"], np.uint32)
    np.random.set_state(numpy_state | {"state": {"key": key, "pos": numpy_state["state"]["pos"]}})
