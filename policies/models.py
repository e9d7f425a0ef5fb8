"""Models as torch modules: built from a folder, fitted with adapters, and written back as a Hugging Face folder.

What leaves this module is always the plain model: adapters merged, tied weights once, Hugging Face names.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from policies.config import HfModel, Lora, TinyModel
from policies.model_folder import read_json

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)
BENT_LOGITS = ("final_logit_softcapping", "logits_scaling", "logit_scale")
"""Config keys of models that do more than multiply to get logits."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def build(folder: Path, model: TinyModel | HfModel, seed: int, *, attention: str = "sdpa") -> nn.Module:
    """The causal language model of a folder, in evaluation mode, in the config's dtype.

    Weights come from the folder's safetensors; where it has none they are drawn from `seed`, in float32 and on the
    CPU, so that every rank and every dtype starts at the same values. `attention` is transformers' name of it.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype, given = DTYPES[model.dtype], {"attn_implementation": attention}
    if any(folder.glob("*.safetensors")):
        return _settled(
            AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, local_files_only=True, use_safetensors=True, **given
            )
        )
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **given)
    return _settled(drawn.to(dtype))


def _settled(model: Any) -> nn.Module:
    model.config.use_cache = False
    module: nn.Module = model.eval()
    return module


# ---------------------------------------------------------------- adapters


def attach_lora(model: nn.Module, lora: Lora, seed: int) -> nn.Module:
    """The model with trainable low-rank adapters (arXiv 2106.09685) and everything else frozen.

    ValueError when a target names no layer. Adapters start as the identity: the logits do not change.
    """
    import peft

    names = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    strange = [target for target in lora.targets if target not in names]
    if strange:
        raise ValueError(
            f"resources.learner.lora.targets: the model has no linear layer {strange[0]!r}; it has {sorted(names)}"
        )
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), lora_dropout=0.0, bias="none"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted: nn.Module = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    return adapted.eval()


def plain(model: nn.Module) -> nn.Module:
    """The Hugging Face model inside, adapters in place: what to call `config`, `model` and `lm_head` on."""
    get_base_model = getattr(model, "get_base_model", None)
    inner: nn.Module = model if get_base_model is None else get_base_model()
    return inner


def backbone_and_head(model: nn.Module) -> tuple[nn.Module, nn.Parameter]:
    """The decoder that gives hidden states, and the (V, H) matrix that makes logits of them.

    ValueError for a model whose logits are not that product alone.
    """
    inner: Any = plain(model)
    head = inner.get_output_embeddings()
    bent = [key for key in BENT_LOGITS if getattr(inner.config, key, None) not in (None, 1, 1.0)]
    if bent or getattr(head, "bias", None) is not None:
        why = bent[0] if bent else "a bias in the output head"
        raise ValueError(f"model.path: {type(inner).__name__} has {why}, which the learner does not know; use another")
    return inner.get_decoder(), head.weight


# ---------------------------------------------------------------- out


def merged_state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face name, tensor) of every weight: adapters merged, tied weights once, in the model's order.

    The tensors may be the model's own: copy before the next step.
    """
    inner = plain(model)
    deltas = dict(_deltas(inner))
    for name, parameter in inner.named_parameters():  # a tied weight comes once, under its first name
        if ".lora_" in name:
            continue
        tensor = parameter.detach()
        delta = deltas.get(name)
        yield name.replace(".base_layer.", "."), tensor if delta is None else _sum(tensor, delta)
    own = dict(inner.named_parameters(remove_duplicate=False))
    for name, tensor in inner.state_dict().items():
        if name not in own:
            yield name, tensor


def _deltas(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name of each adapted weight and scale x B A in float32."""
    for name, module in model.named_modules():
        adapters = getattr(module, "lora_A", None)
        if not isinstance(adapters, nn.ModuleDict):
            continue
        for key in adapters:
            down, up = adapters[key].weight, module.lora_B[key].weight
            delta = (up.detach().float() @ down.detach().float()) * module.scaling[key]  # type: ignore[operator]
            yield f"{name}.base_layer.weight", delta


def _sum(weight: Tensor, delta: Tensor) -> Tensor:
    return (weight.float() + delta).to(weight.dtype)


def save_hf(model: nn.Module, source: Path, directory: Path) -> None:
    """Write `directory` as transformers and vLLM load it: config and tokenizer of `source`, weights of `model`."""
    write_folder(merged_state(model), read_json(source / "config.json"), directory)
    copy_tokenizer(source, directory)


def copy_tokenizer(source: Path, directory: Path) -> None:
    """Every tokenizer and generation file that `source` has."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)


def write_folder(state: Iterator[tuple[str, Tensor]], config: dict[str, Any], directory: Path) -> None:
    """config.json and model.safetensors, the config's dtype being that of the first tensor."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in state}
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    config = {key: value for key, value in config.items() if key not in ("torch_dtype", "quantization_config")}
    (directory / "config.json").write_text(json.dumps(config | {"dtype": dtype}, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
