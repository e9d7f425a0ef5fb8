"""The first recipes through the bridge: the pattern that the families' parity tests follow."""

import numpy as np
import pytest

from tests import paper_oracles as paper
from tests import trl_oracles as trl
from tests.recipe_bridge import agrees, apply, own, pairs


@pytest.mark.parametrize("seed", [0, 1])
def test_sft_is_trls(seed: int) -> None:
    case = own(paper.random_case(seed))
    want = trl.sft(case)
    agrees(apply("sft", case), want.loss, want.gradient_BTV, case)


@pytest.mark.parametrize("seed", [0, 1])
def test_dpo_is_trls(seed: int) -> None:
    case = own(paper.random_case(seed))
    want = trl.dpo(case, "sigmoid", beta=0.1)
    agrees(apply("dpo", case, columns=pairs(case)), want.loss, want.gradient_BTV, case)


@pytest.mark.parametrize("seed", [0, 1])
def test_luffy_is_the_papers(seed: int) -> None:
    case = paper.random_case(seed)
    strand_B = case.off_B.astype(int)
    said = apply("luffy", case, strand_B, rollouts=2, length=9, entropy=0.0)
    g = paper.g_of(lambda c: paper.mixed.luffy(case, c), case)
    agrees(said, paper.mixed.luffy(case, case.logps_BT), paper.through_softmax(g, case), case)
    np.testing.assert_allclose(said.coefficient_BT, g, atol=1e-6 * np.abs(g).max())
