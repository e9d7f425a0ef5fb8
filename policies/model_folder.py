"""Model folders: a tiny model's config and tokenizer are written, a Hugging Face folder is checked. No torch.

Every part of a run (learner, engines, tokenizer) reads the folder that `materialise` returns. A tiny folder holds no
weights: the learner makes them from its seed, the engines receive them.
"""

import json
from pathlib import Path
from typing import Any, assert_never

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from policies.config import HfModel, TinyModel

PAD, EOS = "<pad>", "<eos>"
CHARACTERS = "0123456789+-=#,;:.*/()? abcdefghijklmnopqrstuvwxyz\n"
SHAPES = {
    "arithmetic": {"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 384},
    "arithmetic-small": {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 192},
}


def materialise(model: TinyModel | HfModel, directory: Path, base: Path = Path()) -> Path:
    """The folder that transformers and vLLM load: written into `directory` for a tiny model, else the user's own.

    `base` is what a relative `model.path` is relative to. Raises ValueError with the key and the fix.
    """
    match model:
        case TinyModel():
            return _write_tiny(model, directory)
        case HfModel():
            return _checked(model, base)
        case _:
            assert_never(model)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or an empty one when there is no such file. ValueError names a broken file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({error}); fetch or export the model again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: should hold a JSON object (got {type(value).__name__})")
    return value


# ---------------------------------------------------------------- tiny


def _write_tiny(model: TinyModel, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    files = {
        "config.json": tiny_config(model),
        "generation_config.json": {"eos_token_id": [1], "pad_token_id": 0, "do_sample": True},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": PAD,
            "eos_token": EOS,
            "model_max_length": model.context,
            "clean_up_tokenization_spaces": False,
        },
    }
    for name, value in files.items():
        (directory / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    character_tokenizer().save(str(directory / "tokenizer.json"))
    return directory


def tiny_config(model: TinyModel) -> dict[str, Any]:
    """The Qwen3 config of a tiny preset."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **SHAPES[model.preset],
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "rope_theta": 10000.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "max_position_embeddings": model.context,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": len(CHARACTERS) + 2,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
        "dtype": model.dtype,
    }


def character_tokenizer() -> Tokenizer:
    """One token a character, with `<pad>` 0 and `<eos>` 1. It has no unknown token: a strange character is an error."""
    vocabulary = {token: index for index, token in enumerate([PAD, EOS, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([PAD, EOS])
    return tokenizer


# ---------------------------------------------------------------- hf


def _checked(model: HfModel, base: Path) -> Path:
    folder = (base / Path(model.path).expanduser()).resolve()
    if not folder.is_dir():
        raise ValueError(f"model.path: no such folder: {folder} (from {model.path!r}); paths are relative to the file")
    for name, fix in (
        ("config.json", "point it at a Hugging Face model folder"),
        ("tokenizer.json", "save the fast tokenizer there: AutoTokenizer.from_pretrained(...).save_pretrained(folder)"),
    ):
        if not (folder / name).is_file():
            raise ValueError(f"model.path: {folder} has no {name}; {fix}")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"model.path: {folder} has no *.safetensors; save the model with save_pretrained(..., "
            "safe_serialization=True), or turn a .gguf into a folder with `braid import-model`"
        )
    longest = read_json(folder / "config.json").get("max_position_embeddings")
    if isinstance(longest, int) and model.context > longest:
        raise ValueError(f"model.context: {model.context} is more than the model's {longest} positions; lower it")
    return folder
