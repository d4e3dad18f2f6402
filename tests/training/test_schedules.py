"""The learning rate over a training."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet.training.config import ScheduleSection
from tubelet.training.schedules import factor


def test_cosine_after_a_warm_up():
    schedule = ScheduleSection(warmup_steps=10, start=0.1, end=0.01)
    rates = [factor(schedule, step, 110, 10) for step in range(110)]
    assert rates[0] == pytest.approx(0.1) and rates[5] == pytest.approx(0.55) and rates[10] == 1.0
    assert rates[60] == pytest.approx(0.01 + 0.99 / 2)  # half of the way down
    assert rates[109] == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi * 0.99)) / 2)


def test_steps_down_at_milestones():
    schedule = ScheduleSection(name="steps", milestones=(5, 8), gamma=0.1)
    rates = [factor(schedule, step, 120, 10) for step in range(120)]
    assert rates[49] == 1.0 and rates[50] == pytest.approx(0.1) and rates[80] == pytest.approx(0.01)


def test_by_the_epoch_the_rate_stays_within_one():
    schedule = ScheduleSection(per="epoch", warmup=2)
    rates = [factor(schedule, step, 100, 10) for step in range(100)]
    assert all(len(set(rates[at : at + 10])) == 1 for at in range(0, 100, 10))
    assert rates[0] == 0.0 and rates[10] == 0.5 and rates[20] == 1.0


@given(
    st.sampled_from(["cosine", "constant", "steps"]),
    st.integers(1, 400),
    st.integers(1, 60),
    st.integers(0, 100),
    st.sampled_from(["step", "epoch"]),
)
def test_a_rate_is_never_above_one_nor_below_zero(name, steps, per_epoch, warmup, per):
    schedule = ScheduleSection(name=name, warmup_steps=warmup, milestones=(1, 3), per=per)
    rates = [factor(schedule, step, steps, per_epoch) for step in range(steps)]
    assert all(0 <= rate <= 1 for rate in rates)
    after = rates[-(-warmup // per_epoch) * per_epoch :]
    assert after == sorted(after, reverse=True)
