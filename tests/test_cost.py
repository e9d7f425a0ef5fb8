"""FLOPs against torch's own counter, and what a sample, a point and an answer without help cost, in closed form."""

import math
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from orchestrator.probes.cost import (
    Passes,
    break_even,
    by_kind,
    each,
    exactly,
    flops,
    gain_in_words,
    per_passed,
    per_point,
    priced,
)
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.model_shape import Shape, shape_of

SHAPE = Shape(body=1000, active=900, embedding=70, head=70, hidden=7, attention=20, tied=True)


def _work(kind: str, *lengths: int, tokens: int = 0, model: str = "policy") -> dict[str, Any]:
    pairs = sum(n * (n + 1) // 2 for n in lengths)
    return {"model": model, "kind": kind, "positions": sum(lengths), "tokens": tokens, "pairs": pairs}


MODELS: list[tuple[str, dict[str, Any]]] = [
    ("qwen3", {"num_key_value_heads": 2, "head_dim": 16}),
    ("qwen3", {"num_key_value_heads": 1, "head_dim": 32, "tie_word_embeddings": True}),
    ("llama", {"num_key_value_heads": 8, "attention_bias": True}),
]


@pytest.mark.parametrize(("kind", "changes"), MODELS, ids=["gqa", "tied", "biased"])
@pytest.mark.parametrize("recomputes", [False, True])
def test_passes_cost_what_torch_counts(kind: str, changes: dict[str, Any], recomputes: bool) -> None:
    """Torch counts products alone, and full attention: norms and biases are taken off, and pairs are n squared."""
    config = AutoConfig.for_model(
        kind,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=8,
        vocab_size=101,
        attn_implementation="eager",
        pad_token_id=0,
        **changes,
    )
    model = AutoModelForCausalLM.from_config(config)
    if recomputes:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    shape = shape_of(config.to_dict())
    vectors = sum(one.numel() for one in model.parameters() if one.dim() == 1)
    products = Shape(
        **{name: getattr(shape, name) for name in shape.__dataclass_fields__} | {"active": shape.body - vectors}
    )
    n = 24
    work = {"positions": n, "tokens": n, "pairs": n * n}
    ids = torch.arange(n)[None]
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(ids, use_cache=False)
    assert forward.get_total_flops() == flops(work | {"kind": "generate"}, products)
    # whether the last product of a layer is made again is a switch of the process, which others may have thrown
    with FlopCounterMode(display=False) as both, set_checkpoint_early_stop(True):
        model(ids, use_cache=False).logits.sum().backward()
    expected = flops(work | {"kind": "train"}, products, Passes(recomputes=recomputes))
    last = 2 * n * 3 * 64 * 96 if recomputes else 0  # each layer's last product need not be made again
    assert both.get_total_flops() + last == expected


def test_a_token_costs_two_six_or_eight_times_the_parameters() -> None:
    for kind, passes, times in (
        ("generate", Passes(), 2),
        ("score", Passes(recomputes=True, adapters=True), 2),
        ("train", Passes(), 6),
        ("interference", Passes(), 6),
        ("train", Passes(recomputes=True), 8),
        ("train", Passes(adapters=True), 4),
        ("train", Passes(adapters=True, recomputes=True), 6),
    ):
        many = {"kind": kind, "positions": 1000, "tokens": 0, "pairs": 0}
        assert flops(many, SHAPE, passes) == times * 900 * 1000


def test_attention_costs_twice_two_products_for_each_position_before() -> None:
    body = 2 * 900 * 3 + 4 * 20 * (1 + 2 + 3)
    assert flops(_work("generate", 3, tokens=2), SHAPE) == body + 2 * 70 * 2
    assert flops(_work("train", 3, tokens=2), SHAPE) == 3 * (body + 2 * 70 * 2)
    two = flops(_work("score", 3, 5, tokens=4), SHAPE)
    assert two == flops(_work("score", 3, tokens=2), SHAPE) + flops(_work("score", 5, tokens=2), SHAPE)


def test_kaplan_s_formula_is_the_average_of_long_sequences() -> None:
    n = 4096
    per_token = flops(_work("generate", n), SHAPE) / n
    assert per_token == pytest.approx(2 * 900 + 2 * n * 20, rel=1e-3)


def test_what_an_unknown_model_computed_is_unknown_and_the_rest_is_not() -> None:
    found = by_kind([_work("generate", 3), _work("score", 4, model="/teacher")], {"policy": SHAPE})
    assert found["generate"] > 0 and math.isnan(found["score"])
    assert (found["train"], found["interference"]) == (0.0, 0.0)
    assert by_kind([], {}) == dict.fromkeys(("generate", "score", "train", "interference"), 0.0)


def test_prices_are_by_the_hour() -> None:
    assert priced({"rollout": 1800.0, "learner": 900.0, "scorer": 5.0}, {"rollout": 2.0, "learner": 8.0}) == 3.0
    assert math.isnan(priced({"rollout": 1800.0}, {}))
    assert each(12.0, 4) == 3.0 and math.isnan(each(12.0, 0))


# ---------------------------------------------------------------- a point


def test_a_point_costs_the_gain_turned_round() -> None:
    point = per_point(1000.0, Interval(0.20, 0.10, 0.40))
    assert (point.value, point.low, point.high) == pytest.approx((50.0, 25.0, 100.0))
    assert gain_in_words(Interval(0.20, 0.10, 0.40)) == "+20.0 points [+10.0, +40.0]"


@pytest.mark.parametrize(
    ("gain", "word"),
    [
        (Interval(0.1, -0.02, 0.2), "holds 0"),
        (Interval(0.1, 0.0, 0.2), "holds 0"),
        (Interval(-0.2, -0.3, -0.1), "a loss"),
        (UNKNOWN, "not measured"),
        (Interval(0.0, 0.0, 0.0), "holds 0"),
    ],
)
def test_a_gain_that_may_be_none_has_no_cost_of_a_point(gain: Interval, word: str) -> None:
    assert not per_point(1000.0, gain).known
    assert word in gain_in_words(gain)


def test_an_unknown_cost_gives_no_point() -> None:
    assert not per_point(math.nan, Interval(0.2, 0.1, 0.4)).known


# ---------------------------------------------------------------- without the scaffold


def test_an_answer_that_passes_costs_the_tries() -> None:
    found = per_passed(10.0, Interval(0.5, 0.25, 0.8))
    assert (found.value, found.low, found.high) == pytest.approx((20.0, 12.5, 40.0))
    assert per_passed(10.0, Interval(0.5, 0.0, 0.8)).high == math.inf
    assert not per_passed(10.0, Interval(0.0, 0.0, 0.3)).known
    assert not per_passed(10.0, UNKNOWN).known


def test_training_pays_after_its_cost_over_the_saving() -> None:
    assert break_even(900.0, exactly(10.0), exactly(7.0)) == exactly(300.0)
    wide = break_even(900.0, Interval(10.0, 9.0, 12.0), Interval(7.0, 6.0, 8.0))
    assert (wide.value, wide.low, wide.high) == pytest.approx((300.0, 150.0, 900.0))
    assert break_even(900.0, Interval(10.0, 7.0, 12.0), Interval(7.0, 6.0, 8.0)).high == math.inf
    assert not break_even(900.0, exactly(7.0), exactly(7.0)).known, "nothing is saved"
    assert not break_even(900.0, exactly(6.0), exactly(7.0)).known, "it costs more"
    assert not break_even(math.nan, exactly(9.0), exactly(7.0)).known


def test_break_even_is_where_the_two_totals_meet() -> None:
    training, helped, bare = 12_345.0, 17.0, 4.0
    at = break_even(training, exactly(helped), exactly(bare)).value
    assert training + at * bare == pytest.approx(at * helped)
