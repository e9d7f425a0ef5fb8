"""Models as torch modules: built from a folder, fitted with adapters, and written back as a Hugging Face folder.

What leaves this module is always the plain model: adapters merged, tied weights once, Hugging Face names.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

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

Head = Literal["language", "scalar"]
"""What stands on the backbone: next-token logits, or one number for each token that was read."""


def build(
    folder: Path, model: TinyModel | HfModel, seed: int, *, attention: str = "sdpa", head: Head = "language"
) -> nn.Module:
    """The model of a folder, in evaluation mode, in the config's dtype: a causal one, or with a scalar head.

    Weights come from the folder's safetensors; where it has none they are drawn from `seed`, in float32 and on the
    CPU, so that every rank and every dtype starts at the same values. `attention` is transformers' name of it. A scalar
    head is the folder's own where that holds a sequence classifier of one label, else it is drawn from the seed.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if head == "scalar":
        return _build_scalar(folder, model, seed, attention)
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


def _build_scalar(folder: Path, model: TinyModel | HfModel, seed: int, attention: str) -> nn.Module:
    """The folder's backbone, as `build` gives it, under a (1, H) head: a sequence classifier of one label."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    dtype, given = DTYPES[model.dtype], {"attn_implementation": attention}
    if classifies(folder):
        return _settled(
            AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=dtype, local_files_only=True, use_safetensors=True, **given
            )
        )
    causal: Any = build(folder, model, seed, attention=attention)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    config.num_labels = 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn: Any = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32, **given)
        # small beside hidden states of size 1 each: the first scores are near 0, and the backbone has a gradient
        nn.init.normal_(_scalar_head(drawn).weight, std=1.0 / (drawn.config.hidden_size + 1))
    drawn = drawn.to(dtype)
    drawn.base_model.load_state_dict(causal.base_model.state_dict())
    return _settled(drawn)


def classifies(folder: Path) -> bool:
    """Whether the folder holds a sequence classifier; ValueError where that has more than one label."""
    config = read_json(folder / "config.json")
    kinds = config.get("architectures") or [""]
    if not str(kinds[0]).endswith("ForSequenceClassification") or not any(folder.glob("*.safetensors")):
        return False
    labels = len(config.get("id2label", {0: "", 1: ""}))  # transformers' default is two
    if labels != 1:
        raise ValueError(f"model.path: {folder} classifies into {labels} labels; a scalar head has num_labels 1")
    return True


def is_scalar(model: nn.Module) -> bool:
    """Whether the model has a scalar head in place of the next token's logits."""
    return _scalar_head(plain(model)) is not None


def _scalar_head(inner: nn.Module) -> Any:
    """The layer of a sequence classifier that gives its score; None for a language model."""
    return getattr(inner, "score", None)


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
    if is_scalar(adapted):  # a new head has nothing to adapt
        _scalar_head(plain(adapted)).weight.requires_grad_()
    return adapted.eval()


def plain(model: nn.Module) -> nn.Module:
    """The Hugging Face model inside, adapters in place: what to call `config`, `model` and `lm_head` on."""
    get_base_model = getattr(model, "get_base_model", None)
    inner: nn.Module = model if get_base_model is None else get_base_model()
    return inner


def backbone_and_head(model: nn.Module) -> tuple[nn.Module, nn.Parameter]:
    """The decoder that gives hidden states, and the (V, H) matrix that makes logits of them; (1, H) for a scalar head.

    ValueError for a model whose logits are not that product alone.
    """
    inner: Any = plain(model)
    head = _scalar_head(inner) if is_scalar(model) else inner.get_output_embeddings()
    bent = [key for key in BENT_LOGITS if getattr(inner.config, key, None) not in (None, 1, 1.0)]
    if bent or getattr(head, "bias", None) is not None:
        why = bent[0] if bent else "a bias in the output head"
        raise ValueError(f"model.path: {type(inner).__name__} has {why}, which the learner does not know; use another")
    return inner.base_model if is_scalar(model) else inner.get_decoder(), head.weight


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
    config = read_json(source / "config.json")
    if is_scalar(model):  # transformers counts a config's labels by their names
        names = {"id2label": {"0": "score"}, "label2id": {"score": 0}}
        config |= {"architectures": [type(plain(model)).__name__], **names, "braid_framing": "reply"}
    write_folder(merged_state(model), config, directory)
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
