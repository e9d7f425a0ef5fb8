"""Models come from folders and go back to folders that transformers loads with equal logits."""

from pathlib import Path

import pytest
import torch

from policies.config import HfModel, Lora, TinyModel
from policies.model_folder import materialise
from policies.models import attach_lora, backbone_and_head, build, merged_state, plain, save_hf

INPUTS = torch.tensor([[5, 6, 8, 12, 9, 9, 14, 3]])
TINY = TinyModel(preset="arithmetic-small", context=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(TINY, tmp_path_factory.mktemp("tiny") / "model")


def _logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(INPUTS).logits


def _state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in merged_state(model)}


def test_weights_are_the_seeds_alone(folder: Path):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = build(folder, TINY, seed=3), build(folder, TINY, seed=3), build(folder, TINY, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(_logits(first), _logits(again))
    assert not torch.equal(_logits(first), _logits(other))


def test_a_bfloat16_model_is_the_float32_one_rounded(folder: Path):
    exact = _state(build(folder, TINY, seed=3))
    rounded = _state(build(folder, TINY.model_copy(update={"dtype": "bfloat16"}), seed=3))
    assert all(torch.equal(exact[name].bfloat16(), tensor) for name, tensor in rounded.items())


def test_a_saved_folder_loads_in_transformers_with_equal_logits(folder: Path, tmp_path: Path):
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = build(folder, TINY, seed=3)
    save_hf(model, folder, tmp_path / "saved")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert loaded.dtype == torch.float32
    assert torch.equal(_logits(loaded), _logits(model))
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").encode("1+1=") == [3, 12, 3, 14]
    stored = load_file(tmp_path / "saved" / "model.safetensors")
    assert "lm_head.weight" not in stored and set(stored) == set(_state(model))
    again = build(tmp_path / "saved", HfModel(path="", context=64, dtype="float32"), seed=99)
    assert torch.equal(_logits(again), _logits(model))


def test_adapters_start_as_the_identity_and_alone_have_gradients(folder: Path):
    base = build(folder, TINY, seed=3)
    before, names = _logits(base), set(_state(base))
    adapted = attach_lora(base, Lora(rank=4), seed=5)
    assert torch.equal(_logits(adapted), before)
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained and all(".lora_" in name for name in trained)
    assert set(_state(adapted)) == names


def test_merged_weights_give_the_adapted_models_logits(folder: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    adapted = attach_lora(build(folder, TINY, seed=3), Lora(rank=4, targets=("q_proj", "down_proj")), seed=5)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.2)
    save_hf(adapted, folder, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(_logits(merged), _logits(adapted), atol=2e-5, rtol=1e-4)
    assert (_logits(merged) - _logits(build(folder, TINY, seed=3))).abs().max() > 1e-2


def test_a_target_that_is_no_layer_is_named(folder: Path):
    with pytest.raises(ValueError, match=r"learner\.lora\.targets: .* 'c_attn'; it has .*'q_proj'"):
        attach_lora(build(folder, TINY, seed=3), Lora(targets=("q_proj", "c_attn")), seed=5)


def test_a_model_that_bends_its_logits_is_refused(folder: Path):
    model = build(folder, TINY, seed=3)
    backbone, head = backbone_and_head(attach_lora(model, Lora(), seed=0))
    with torch.no_grad():
        hidden = backbone(INPUTS).last_hidden_state
    torch.testing.assert_close(hidden @ head.T, _logits(model))
    plain(model).config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match="final_logit_softcapping"):
        backbone_and_head(model)
