"""Occupancy: closed forms, another enumeration, a tiny transformer; estimates against them; what is refused."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from orchestrator.probes import occupancy
from policies.config import TinyModel
from policies.model_folder import materialise
from tests.enumeration import END, LONGEST, RESPONSES, STATE, probability, table
from tests.parity_case import log_softmax


def policy_of(tables):
    """Prompt -> table [S, V], as the enumerator asks for it."""
    return lambda prompt, prefix: np.exp(log_softmax(tables[prompt])[STATE[prefix]])


def drawn(tables, counts, random):
    """Prompt -> responses of that policy."""
    out = {}
    for prompt, count in counts.items():
        chances = np.array([probability(tables[prompt], one) for one in RESPONSES])
        out[prompt] = [RESPONSES[at] for at in random.choice(len(RESPONSES), size=count, p=chances / chances.sum())]
    return out


def by_hand(tables, weights, eta):
    """d(s, a) summed over the fifteen responses that another file lists."""
    out: dict = {}
    for prompt, weight in weights.items():
        for response in RESPONSES:
            for t, share in enumerate(eta(response)):
                key = (prompt, response[:t], response[t])
                out[key] = out.get(key, 0.0) + weight * share * probability(tables[prompt], response)
    return out


@pytest.mark.parametrize("stop,horizon", [(0.3, 5), (0.9, 3), (0.05, 8)])
def test_a_coin_has_its_closed_form(stop: float, horizon: int) -> None:
    """Each token ends the response with probability `stop`: T is geometric, cut at the horizon."""
    found = occupancy.exact(lambda prompt, prefix: [1 - stop, stop], ["x"], horizon, end=1)
    lasts = [(1 - stop) ** (t - 1) * stop for t in range(1, horizon)] + [(1 - stop) ** (horizon - 1)]
    for t in range(horizon):
        state = ("x", (0,) * t)
        expected = sum(lasts[n - 1] / n for n in range(t + 1, horizon + 1))
        assert found.state[state] == pytest.approx(expected)
        ended = (1 - stop) ** t * stop / (t + 1)
        assert found.state_action[*state, 1] == pytest.approx(ended)
        assert found.state_action[*state, 0] == pytest.approx(expected - ended)


def first(response):
    return [1.0] + [0.0] * (len(response) - 1)


def rising(response):
    return np.arange(1, len(response) + 1) / (len(response) * (len(response) + 1) / 2)


@pytest.mark.parametrize("eta", [occupancy.uniform, occupancy.last, first, rising])
def test_every_weighting_is_another_enumerations(eta) -> None:
    tables, weights = {"x": table(1), "y": 3 * table(2)}, {"x": 3.0, "y": 1.0}
    found = occupancy.exact(policy_of(tables), weights, LONGEST, end=END, eta=eta)
    expected = by_hand(tables, {"x": 0.75, "y": 0.25}, eta)
    assert {key for key, mass in expected.items() if mass > 0} == set(found.state_action)
    for key, mass in found.state_action.items():
        assert mass == pytest.approx(expected[key], abs=1e-12)
    for whole in (found.state_action, found.state, found.trajectories):
        assert math.fsum(whole.values()) == pytest.approx(1.0)
    for (prompt, prefix), mass in found.state.items():
        actions = [found.state_action.get((prompt, prefix, token), 0.0) for token in range(3)]
        assert mass == pytest.approx(math.fsum(actions))


def test_the_last_tokens_weighting_is_the_responses_probability() -> None:
    found = occupancy.exact(policy_of({"x": table(4)}), ["x"], LONGEST, end=END, eta=occupancy.last)
    for response in RESPONSES:
        expected = probability(table(4), response)
        assert found.trajectories["x", response] == pytest.approx(expected)
        assert found.state_action["x", response[:-1], response[-1]] == pytest.approx(expected)


def test_all_ways_to_give_a_policy_say_the_same() -> None:
    ask = policy_of({"x": table(5), "y": table(5)})
    prefixes = list(STATE)
    ways = [
        ask,
        {(prompt, prefix): ask(prompt, prefix) for prompt in "xy" for prefix in prefixes},
        {prefix: ask("x", prefix) for prefix in prefixes},
        {prompt: {prefix: ask(prompt, prefix) for prefix in prefixes} for prompt in "xy"},
        lambda prompt, prefix: dict(enumerate(ask(prompt, prefix))),
        lambda prompt, prefix: None if END in prefix else ask(prompt, prefix).tolist(),
    ]
    found = [occupancy.exact(way, ["x", "y"], LONGEST, end=END) for way in ways]
    assert all(dict(one.state_action) == pytest.approx(dict(found[0].state_action)) for one in found[1:])
    told = occupancy.exact(ways[-1], ["x", "y"], LONGEST)  # the policy says itself where a response is over
    assert dict(told.state_action) == pytest.approx(dict(found[0].state_action))


def test_a_prompt_that_stands_twice_counts_twice_and_the_horizon_cuts() -> None:
    ask = policy_of({"x": table(6), "y": table(7)})
    twice = occupancy.exact(ask, ["x", "y", "x"], LONGEST, end=END)
    weighed = occupancy.exact(ask, {"x": 2, "y": 1, "z": 0}, LONGEST, end=END)
    assert dict(twice.state_action) == pytest.approx(dict(weighed.state_action))
    cut = occupancy.exact(ask, ["x"], 1, end=END)
    assert dict(cut.state) == {("x", ()): pytest.approx(1.0)}
    assert [cut.state_action["x", (), token] for token in range(3)] == pytest.approx(list(ask("x", ())))


@pytest.mark.parametrize(
    "policy,prompts,options,said",
    [
        (lambda x, y: [0.5, 0.5], ["x"], {"horizon": 40}, "more than 1000000 tokens"),
        (lambda x, y: [0.5, 0.6], ["x"], {"horizon": 2}, "sum to 1.1"),
        (lambda x, y: [1.5, -0.5], ["x"], {"horizon": 2}, "at least 0"),
        (lambda x, y: [math.nan, 1.0], ["x"], {"horizon": 2}, "sum to nan"),
        (lambda x, y: [1.0], [], {"horizon": 2}, "at least one"),
        (lambda x, y: [1.0], {"x": -1.0}, {"horizon": 2}, "weight of prompt 'x'"),
        (lambda x, y: [1.0], ["x"], {"horizon": 0}, "horizon is 0"),
        ({"y": {(): [1.0]}}, ["x"], {"horizon": 2}, "writes nothing at prompt 'x'"),
        (lambda x, y: [1.0], ["x"], {"horizon": 2, "eta": lambda y: [1.0]}, "one each"),
        (lambda x, y: [1.0], ["x"], {"horizon": 2, "eta": lambda y: [0.7, 0.7]}, "sum to 1"),
    ],
)
def test_what_cannot_be_enumerated_is_refused(policy, prompts, options, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        occupancy.exact(policy, prompts, **options)


def test_regions_of_a_planted_change() -> None:
    """After `a`, the good token becomes selectable: what lies behind it becomes effective, and the rest makes room."""
    before = {(): [0.5, 0.5], (0,): [0.98, 0.02], (1,): [0.5, 0.5], (0, 1): [1.0, 0.0], (0, 0): [1.0, 0.0]}
    after = before | {(0,): [0.02, 0.98]}
    sides = [occupancy.exact(one, ["x"], 3) for one in (before, after)]
    found = occupancy.change(*sides, 0.05)
    assert found.expanded == {("x", (0,), 1), ("x", (0, 1), 0)}
    assert found.attrited == {("x", (0,), 0), ("x", (0, 0), 0)}
    assert ("x", (1,), 1) in found.core and not found.undecided
    assert sides[0].effective(0.05) == found.core | found.attrited
    random = np.random.default_rng(3)

    def responses(policy, count):
        paths = list(occupancy.exact(policy, ["x"], 3).trajectories.items())
        picks = random.choice(len(paths), size=count, p=[chance for _, chance in paths])
        return occupancy.estimate({"x": [paths[at][0][1] for at in picks]})

    told = occupancy.change(responses(before, 2000), responses(after, 2000), 0.05)
    assert told.expanded == found.expanded and told.attrited == found.attrited
    few = occupancy.change(responses(before, 5), responses(after, 5), 0.05)
    assert few.expanded <= found.expanded and few.attrited <= found.attrited and few.undecided


def test_estimates_converge() -> None:
    tables = {"x": table(8), "y": 2 * table(9)}
    exact = occupancy.exact(policy_of(tables), ["x", "y"], LONGEST, end=END)
    found = occupancy.estimate(drawn(tables, {"x": 40_000, "y": 20_000}, np.random.default_rng(1)))
    for name in ("state_action", "state"):
        truth, told = getattr(exact, name), getattr(found, name)
        assert max(abs(told[key].value - mass) for key, mass in truth.items() if mass > 1e-3) < 0.006
        assert all(one.high - one.low < 0.02 for one in told.values())


def test_intervals_cover_what_they_say() -> None:
    """1,000 draws of unequal numbers of responses; each (s, a) that is not rare is covered 93 to 97 times in 100."""
    tables, counts, random = {"x": table(10), "y": table(11)}, {"x": 60, "y": 35}, np.random.default_rng(2)
    exact = occupancy.exact(policy_of(tables), ["x", "y"], LONGEST, end=END)
    wanted = [key for key, mass in exact.state_action.items() if mass > 0.02]
    hits, rare = np.zeros(len(wanted)), 0
    for _ in range(1000):
        found = occupancy.estimate(drawn(tables, counts, random), confidence=0.95)
        for at, key in enumerate(wanted):
            mass = exact.state_action[key]
            one = found.state_action.get(key)
            hits[at] += mass <= found.unseen[key[0]] if one is None else one.low <= mass <= one.high
        missed = [key for key in exact.state_action if key not in found.state_action]
        rare += all(found.unseen[key[0]] >= exact.state_action[key] for key in missed)
    assert 0.93 <= (hits / 1000).mean() <= 0.97
    assert (hits / 1000).min() > 0.9
    assert rare / 1000 > 0.9  # many at once, each at 0.975


def test_no_change_is_seldom_called_one() -> None:
    tables, random = {"x": table(12)}, np.random.default_rng(4)
    keys = [key for key, mass in occupancy.exact(policy_of(tables), ["x"], LONGEST, end=END).state_action.items()]
    expanded = attrited = 0
    for _ in range(300):
        sides = [occupancy.estimate(drawn(tables, {"x": 40}, random)) for _ in range(2)]
        found = occupancy.change(*sides, 0.05)
        expanded, attrited = expanded + len(found.expanded), attrited + len(found.attrited)
    assert expanded / (300 * len(keys)) <= 0.025 and attrited / (300 * len(keys)) <= 0.025


def test_prompts_without_responses_are_unknown_not_zero() -> None:
    found = occupancy.estimate({"x": [(0, 2)], "y": []})
    assert found.unseen["y"] == 0.5 and not [key for key in found.state if key[0] == "y"]
    both = occupancy.change(found, occupancy.estimate({"x": [], "y": [(1,)]}), 0.1)
    assert not both.expanded and not both.attrited


def test_a_tiny_transformer_is_enumerated_as_it_samples(tmp_path) -> None:
    folder = materialise(TinyModel(preset="arithmetic-small"), tmp_path)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).float().eval()
    horizon, sharper = 2, 12.0
    contexts = {"x": [5, 6], "y": [7]}

    @torch.no_grad()
    def following(rows):
        return torch.softmax(sharper * model(torch.tensor(rows)).logits[:, -1].double(), -1)

    exact = occupancy.exact(lambda x, y: following([[*contexts[x], *y]])[0].numpy(), ["x", "y"], horizon, end=1)
    responses = {}
    for prompt, context in contexts.items():
        rows = [[*context] for _ in range(800)]
        for _ in range(horizon):
            tokens = following(rows).multinomial(1)[:, 0].tolist()
            rows = [[*row, token] for row, token in zip(rows, tokens, strict=True)]
        written = [tuple(row[len(context) :]) for row in rows]
        responses[prompt] = [one[: one.index(1) + 1] if 1 in one else one for one in written]
    told = occupancy.estimate(responses, confidence=0.99)
    sure = [key for key, mass in exact.state_action.items() if mass > 0.01]
    assert len(sure) >= 10 and math.fsum(exact.state_action.values()) == pytest.approx(1.0)
    inside = [told.state_action[key].low <= exact.state_action[key] <= told.state_action[key].high for key in sure]
    assert np.mean(inside) > 0.9
