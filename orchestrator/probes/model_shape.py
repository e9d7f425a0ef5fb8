"""A model's size by its config.json: what a token costs. Exact counts, without building the model.

H hidden size, L layers, q query heads, k key and value heads, d head dimension, I inner size, V vocabulary, E experts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """Counts of parameters, and what attention costs."""

    body: int
    """N: parameters that are neither embeddings nor the head's."""
    active: int
    """Those of them that one token uses: all, but for the experts that it is not sent to."""
    embedding: int
    """Of tokens and, where they are learned, of positions: looked up, not multiplied."""
    head: int
    """V x H: the matrix that makes logits; H for a scalar head. A tied one is multiplied all the same."""
    hidden: int
    """H"""
    attention: int
    """L x q x d: products that a position costs for each position that it looks at, once for the scores and once for
    the values."""
    tied: bool
    """Whether the head is the embedding's matrix."""

    @property
    def total(self) -> int:
        """Every parameter once."""
        return self.body + self.embedding + (0 if self.tied else self.head)


class UnknownShapeError(ValueError):
    """The config is of a model whose parameters are not counted here."""


@dataclass(frozen=True, slots=True)
class Family:
    """How a model_type departs from the plainest decoder: no biases, two norms a layer, an untied head."""

    bias: Literal["none", "qkv", "config"] = "none"
    """Of attention's matrices; config: all four where `attention_bias` says so."""
    norms: int = 2
    """Of H weights, in a layer."""
    query_norm: Literal["none", "head", "width"] = "none"
    """Norms of queries and keys: of d weights each, or of q d and k d."""
    tied: bool = False
    """Where the config does not say."""
    head_dim: int | None = None
    """d where the config does not say; None: H / q."""
    experts: str = ""
    """Key of the experts' inner size; empty: the layers are dense."""


FAMILIES = {
    "llama": Family(bias="config"),
    "mistral": Family(),
    "qwen2": Family(bias="qkv"),
    "qwen3": Family(bias="config", query_norm="head", head_dim=128),
    "granite": Family(bias="config"),
    "phi3": Family(),
    "smollm3": Family(bias="config", tied=True),
    "olmo2": Family(bias="config", query_norm="width"),
    "gemma": Family(bias="config", tied=True, head_dim=256),
    "gemma2": Family(bias="config", norms=4, tied=True, head_dim=256),
    "gemma3_text": Family(bias="config", norms=4, query_norm="head", tied=True, head_dim=256),
    "mixtral": Family(experts="intermediate_size"),
    "qwen3_moe": Family(bias="config", query_norm="head", experts="moe_intermediate_size"),
}
"""model_type -> what is its own; `gpt2` is counted apart."""


def shape_of(config: Config) -> Shape:
    """The shape of a causal language model, by its config.json. UnknownShapeError says what is not known of it."""
    kind = str(config.get("model_type") or "missing")
    try:
        if kind == "gpt2":
            return _gpt2(config)
        if kind in FAMILIES:
            return _decoder(config, FAMILIES[kind])
    except KeyError as error:
        raise UnknownShapeError(f"model_type {kind}: config.json has no {error.args[0]}") from None
    known = ", ".join(sorted([*FAMILIES, "gpt2"]))
    raise UnknownShapeError(f"model_type {kind}: its parameters are not counted here; those of {known} are")


def scalar(shape: Shape) -> Shape:
    """The same body under a head of one output, as critics and reward models have it."""
    return replace(shape, head=shape.hidden, tied=False)


def _decoder(config: Config, family: Family) -> Shape:
    hidden, layers, queries = (int(config[key]) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    keys = int(config.get("num_key_value_heads") or queries)
    width = int(config.get("head_dim") or family.head_dim or hidden // queries)
    attention = 2 * hidden * width * (queries + keys)  # q and o; k and v
    if family.bias == "qkv" or (family.bias == "config" and config.get("attention_bias")):
        attention += width * (queries + 2 * keys) + (hidden if family.bias == "config" else 0)
    attention += {"none": 0, "head": 2 * width, "width": width * (queries + keys)}[family.query_norm]
    whole, used = _inner(config, family, hidden, layers)
    rest = layers * (attention + family.norms * hidden) + hidden
    vocabulary = int(config["vocab_size"])
    return Shape(
        body=rest + whole,
        active=rest + used,
        embedding=vocabulary * hidden,
        head=vocabulary * hidden,
        hidden=hidden,
        attention=layers * queries * width,
        tied=bool(config.get("tie_word_embeddings", family.tied)),
    )


def _inner(config: Config, family: Family, hidden: int, layers: int) -> tuple[int, int]:
    """Parameters of all layers' gated inner parts: all of them, and those that one token uses."""
    dense = 3 * hidden * int(config["intermediate_size"])
    if config.get("mlp_bias"):
        dense += 2 * int(config["intermediate_size"]) + hidden
    if not family.experts:
        return layers * dense, layers * dense
    experts = int(config["num_local_experts"] if "num_local_experts" in config else config["num_experts"])
    one, router = 3 * hidden * int(config[family.experts]), hidden * experts
    chosen = int(config["num_experts_per_tok"])
    every, plain = int(config.get("decoder_sparse_step") or 1), set(config.get("mlp_only_layers") or ())
    sparse = sum(at not in plain and (at + 1) % every == 0 for at in range(layers))
    whole = sparse * (router + experts * one) + (layers - sparse) * dense
    return whole, sparse * (router + chosen * one) + (layers - sparse) * dense


def _gpt2(config: Config) -> Shape:
    hidden, layers, vocabulary = int(config["n_embd"]), int(config["n_layer"]), int(config["vocab_size"])
    inner = int(config.get("n_inner") or 4 * hidden)
    layer = 4 * hidden * hidden + 4 * hidden + 2 * hidden * inner + inner + hidden + 4 * hidden
    body = layers * layer + 2 * hidden
    table = vocabulary * hidden
    return Shape(
        body=body,
        active=body,
        embedding=table + int(config["n_positions"]) * hidden,
        head=table,
        hidden=hidden,
        attention=layers * hidden,
        tied=bool(config.get("tie_word_embeddings", True)),
    )
