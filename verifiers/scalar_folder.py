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

TRAINED = "give a sequence or token classifier of one label, such as the recipe reward_model_training leaves"


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


def examine(path: str | Path, key: str = "path") -> ScalarFolder:
    """What the folder holds. ValueError names file, key and fix where it holds no model with a scalar head."""
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"{key}: no such folder (got '{path}'); give a Hugging Face folder on this machine")
    config = _config(folder, key)
    kind = _kind(folder, config, key)
    labels = _labels(config)
    if labels != 1 and not (kind == "token" and labels == 2):
        problem = f"{folder / 'config.json'}: id2label: {labels} labels are no scalar head"
        raise ValueError(f"{key}: {problem} (got '{path}'); {TRAINED}")
    if not any(name.startswith(HEADS) for name in tensors(folder)):
        where = "holds no weights of a head (no tensor score.* or classifier.*)"
        raise ValueError(f"{key}: {folder} {where} (got '{path}'); {TRAINED}")
    said = config.get(MARK)
    framing: Any = (
        said if said in ("reply", "conversation", "text") else "conversation" if kind == "sequence" else "text"
    )
    nested = config.get("text_config")
    text: dict[str, Any] = nested if isinstance(nested, dict) else config
    return ScalarFolder(folder, kind, labels, framing, _longest(folder, text), _whole(text.get("pad_token_id")))


def _config(folder: Path, key: str) -> dict[str, Any]:
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        inner = [one for one in (folder / "model", *sorted(folder.glob("checkpoints/*/model"))[-1:]) if one.is_dir()]
        fix = (
            f"give {inner[0]}"
            if inner
            else "give the folder that transformers' save_pretrained wrote (no .bin, no .pt)"
        )
        raise ValueError(f"{key}: holds no {', '.join(missing)} (got '{folder}'); {fix}")
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{key}: {folder / 'config.json'} is no JSON ({error}); copy the folder again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{key}: {folder / 'config.json'} holds no object; copy the folder again")
    return found


def _kind(folder: Path, config: dict[str, Any], key: str) -> Literal["sequence", "token"]:
    architecture = str((config.get("architectures") or [""])[0])
    if architecture.endswith(SEQUENCE):
        return "sequence"
    if architecture.endswith(TOKEN):
        return "token"
    what = f"{folder / 'config.json'}: architectures: no classifier"
    raise ValueError(f"{key}: {what} (got '{architecture}'); {TRAINED}")


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
    """A file's header and where its data begin. ValueError for a damaged file."""
    try:
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            if size > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            found = json.loads(stream.read(size))
    except (struct.error, ValueError) as error:
        raise ValueError(f"{file}: is no whole safetensors file ({error}); copy it again") from error
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
