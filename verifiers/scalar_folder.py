"""What a Hugging Face folder says of the scalar head in it, without torch: config and tensor names, no weights.

Only safetensors are looked at: a pickle is code, and a model folder may come from a stranger.
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2s
from pathlib import Path
from typing import Any, Literal

HEADS = ("score.", "classifier.", "classification_head.", "pre_classifier.")
"""How the tensors of transformers' classification heads begin."""

SEQUENCE, TOKEN = "ForSequenceClassification", "ForTokenClassification"

MARK = "braid_framing"
"""Key of config.json by which a folder says how its head was trained to read: Braid writes `reply`."""

LONGEST = 1 << 17
"""Tokens read by a model that does not say how many it reads."""

SAMPLED = 1 << 16
"""Bytes of each tensor that enter the fingerprint."""

FRAMINGS = ("reply", "conversation", "text")

TRAINED = "give a sequence or token classifier of one label, such as the recipe reward_model_training leaves"


class NoScalarHeadError(ValueError):
    """A folder that holds no model with a scalar head, and what to do about it."""

    def __init__(self, path: str | Path, problem: str, fix: str = TRAINED) -> None:
        super().__init__(f"{problem} (got '{path}'); {fix}")
        self.problem, self.fix = f"{problem} (got '{path}')", fix


@dataclass(frozen=True, slots=True)
class ScalarFolder:
    """A folder that holds a model with a scalar head."""

    path: Path
    kind: Literal["sequence", "token"]
    labels: int
    """1, or 2 of a token classifier: wrong and right."""
    framing: Literal["reply", "conversation", "text"]
    longest: int
    """Tokens that the model reads."""
    pad_id: int | None
    """Which token transformers takes for padding when it looks for a text's last one; None: no token."""
    every_token: bool
    """Whether the head can be read at any token, not only once for a text."""


def examine(path: str | Path) -> ScalarFolder:
    """What the folder holds. `NoScalarHeadError` names file, key and fix where that is no model with a scalar head."""
    folder = Path(path)
    config = _config(folder)
    kind, labels = _kind(folder, config), _labels(config)
    if labels != 1 and not (kind == "token" and labels == 2):
        raise NoScalarHeadError(path, f"config.json: id2label: {labels} labels are no scalar head")
    heads = [name for name in tensors(folder) if name.startswith(HEADS)]
    if not heads:
        raise NoScalarHeadError(path, "holds no weights of a head (no tensor score.* or classifier.*)")
    said = config.get(MARK)
    framing: Any = said if said in FRAMINGS else "conversation" if kind == "sequence" else "text"
    nested = config.get("text_config")
    text: dict[str, Any] = nested if isinstance(nested, dict) else config
    every_token = kind == "token" or any(name.startswith("score.") for name in heads)
    longest, pad_id = _longest(folder, text), _whole(text.get("pad_token_id"))
    return ScalarFolder(folder, kind, labels, framing, longest, pad_id, every_token)


def _config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise NoScalarHeadError(folder, "no such folder", "give a Hugging Face folder on this machine")
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        inside = [one for one in (folder / "model", *sorted(folder.glob("checkpoints/*/model"))[-1:]) if one.is_dir()]
        fix = f"give {inside[0]}" if inside else "give what save_pretrained wrote (safetensors; no .bin and no .pt)"
        raise NoScalarHeadError(folder, f"holds no {', '.join(missing)}", fix)
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise NoScalarHeadError(folder, f"config.json is no JSON ({error})", "copy the folder again") from error
    if not isinstance(found, dict):
        raise NoScalarHeadError(folder, "config.json holds no object", "copy the folder again")
    return found


def _kind(folder: Path, config: dict[str, Any]) -> Literal["sequence", "token"]:
    architecture = str((config.get("architectures") or [""])[0])
    if architecture.endswith(SEQUENCE):
        return "sequence"
    if architecture.endswith(TOKEN):
        return "token"
    raise NoScalarHeadError(folder, f"config.json: architectures: {architecture or 'nothing'} has no scalar head")


def _labels(config: dict[str, Any]) -> int:
    """As transformers counts them: by their names, two where none are given."""
    named = config.get("id2label")
    if isinstance(named, dict):
        return len(named)
    counted = config.get("num_labels")
    return counted if isinstance(counted, int) else 2


def _longest(folder: Path, config: dict[str, Any]) -> int:
    found = _whole(config.get("max_position_embeddings"))
    if found is None:
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text()) if _has_tokenizer(folder) else {}
        said = tokenizer.get("model_max_length")
        found = int(said) if isinstance(said, int | float) and math.isfinite(said) else None
    return min(found, LONGEST) if found else LONGEST


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer_config.json").is_file()


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


# ---------------------------------------------------------------- tensors


def tensors(folder: Path) -> Iterator[str]:
    """Names of the tensors in the folder's safetensors."""
    for file in sorted(folder.glob("*.safetensors")):
        yield from (name for name in _header(file)[0] if name != "__metadata__")


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """A file's header and where its data begin; `NoScalarHeadError` for a damaged file."""
    try:
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            if size > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            found = json.loads(stream.read(size))
    except (struct.error, ValueError) as error:
        raise NoScalarHeadError(file, f"is no whole safetensors file ({error})", "copy it again") from error
    return found, 8 + size


def fingerprint(folder: Path) -> str:
    """Changes with the config, the tokenizer and every tensor: of each, its place and its first 64 KiB."""
    digest = blake2s(digest_size=6)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (folder / name).is_file():
            digest.update((folder / name).read_bytes())
    for file in sorted(folder.glob("*.safetensors")):
        header, start = _header(file)
        digest.update(json.dumps(header, sort_keys=True).encode())
        with file.open("rb") as stream:
            for entry in header.values():
                low, high = entry.get("data_offsets", (0, 0))
                stream.seek(start + low)
                digest.update(stream.read(min(high - low, SAMPLED)))
    return digest.hexdigest()
