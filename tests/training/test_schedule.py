import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.schedule import Schedule


def test_warm_up_flat_and_linear_decay():
    schedule = Schedule(warmup_steps=10, decay_share=0.5)
    factors = [schedule.factor(step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[9:51] == [1.0] * 42
    assert factors[50:] == pytest.approx([(100 - step) / 50 for step in range(50, 100)])
    assert schedule.factor(100, 100) == 0.0


@given(st.integers(0, 50), st.floats(0, 1), st.integers(1, 500))
def test_factors_lie_in_zero_to_one_and_every_update_moves(warmup, share, steps):
    schedule = Schedule(warmup, share)
    assert all(0 < schedule.factor(step, steps) <= 1 for step in range(steps))


def test_nothing_decays_while_the_end_is_unknown():
    assert [Schedule(2, 0.5).factor(step, None) for step in (0, 1, 500)] == [0.5, 1.0, 1.0]


@pytest.mark.parametrize(("warmup", "share"), [(-1, 0.5), (1, 1.5), (1, -0.1)])
def test_settings_out_of_range_are_refused(warmup, share):
    with pytest.raises(ValueError, match="schedule"):
        Schedule(warmup, share)
