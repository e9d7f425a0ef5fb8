"""Parameters by config.json alone are those of the model that transformers builds from it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from orchestrator.probes.model_shape import FAMILIES, Shape, UnknownShapeError, scalar, shape_of
from policies.config import TinyModel
from policies.model_folder import materialise
from policies.models import build

SMALL = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 97,
    "pad_token_id": 0,
    "max_position_embeddings": 64,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
CASES: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in FAMILIES if not FAMILIES[kind].experts),
    *((kind, {"tie_word_embeddings": True}) for kind in ("llama", "qwen2", "qwen3")),
    *((kind, {"tie_word_embeddings": False}) for kind in ("gemma2", "smollm3")),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"num_key_value_heads": 6, "head_dim": 16}),
    ("qwen3", {"head_dim": 32, "attention_bias": True}),
    ("mistral", {"num_key_value_heads": 1}),
    ("mixtral", EXPERTS),
    ("qwen3_moe", EXPERTS | {"num_experts": 4, "moe_intermediate_size": 24, "head_dim": 8}),
    ("qwen3_moe", EXPERTS | {"num_experts": 4, "moe_intermediate_size": 24, "mlp_only_layers": [1]}),
    ("gpt2", {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 32}),
    ("gpt2", {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_inner": 60, "tie_word_embeddings": False}),
]


def _saved(kind: str, changes: dict[str, Any], folder: Path) -> tuple[dict[str, Any], torch.nn.Module]:
    """The config.json that transformers writes, and the model without weights."""
    config = AutoConfig.for_model(kind, **(SMALL | changes))
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return json.loads((folder / "config.json").read_text()), model


@pytest.mark.parametrize(("kind", "changes"), CASES, ids=lambda one: one if isinstance(one, str) else ",".join(one))
def test_every_parameter_is_counted_once(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    config, model = _saved(kind, changes, tmp_path)
    shape = shape_of(config)
    assert shape.total == sum(one.numel() for one in model.parameters())
    head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert shape.head == head.numel()
    assert shape.tied == (head is table)
    assert shape.hidden == table.shape[1]
    tables = {"wte", "wpe", "embed_tokens", "lm_head"}
    body = [one for name, one in model.named_parameters() if not tables & set(name.split("."))]
    assert shape.body == sum(one.numel() for one in body)


@pytest.mark.parametrize("preset", ["arithmetic", "arithmetic-small"])
def test_the_tiny_models_are_counted(preset: Any, tmp_path: Path) -> None:
    folder = materialise(TinyModel(preset=preset), tmp_path / "model")
    shape = shape_of(json.loads((folder / "config.json").read_text()))
    model = build(folder, TinyModel(preset=preset), seed=0)
    assert shape.total == sum(one.numel() for one in model.parameters())
    config = model.config
    assert shape.attention == config.num_hidden_layers * config.num_attention_heads * config.head_dim


def test_a_token_uses_the_experts_that_it_is_sent_to(tmp_path: Path) -> None:
    config, _ = _saved("mixtral", EXPERTS, tmp_path)
    shape, expert = shape_of(config), 3 * 48 * 80
    assert shape.body - shape.active == 3 * (4 - 2) * expert
    every_one = shape_of(config | {"num_experts_per_tok": 4})
    assert every_one.active == every_one.body == shape.body


def test_a_scalar_head_has_one_output() -> None:
    shape = Shape(body=10, active=10, embedding=21, head=21, hidden=3, attention=3, tied=True)
    assert (scalar(shape).head, scalar(shape).total) == (3, 10 + 21 + 3)


def test_what_is_not_counted_is_said() -> None:
    with pytest.raises(UnknownShapeError, match="model_type mamba"):
        shape_of({"model_type": "mamba"})
    with pytest.raises(UnknownShapeError, match="model_type missing"):
        shape_of({})
    with pytest.raises(UnknownShapeError, match="has no hidden_size"):
        shape_of({"model_type": "llama"})
