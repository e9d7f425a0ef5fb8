"""What Markov's inequality rules out at once is what the whole distribution says."""

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.controls.evidence import Evidence

count_st = st.floats(0, 50)


@settings(deadline=None)
@given(count_st, count_st, st.floats(0, 1), st.floats(0.5, 1, exclude_min=True, exclude_max=True))
def test_a_bound_never_changes_what_is_sure(passed, failed, rate, sure):
    evidence = Evidence(passed, failed)
    assert evidence.surely_above(rate, sure) is (evidence.above(rate) >= sure)
    assert evidence.surely_below(rate, sure) is (evidence.below(rate) >= sure)
