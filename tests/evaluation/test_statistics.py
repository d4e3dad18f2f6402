"""Statistics against sums done by hand, and against scipy."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tubelet.evaluation.statistics import (
    accuracy,
    bootstrap,
    class_mean_of,
    mcnemar,
    mean_of,
    once,
    paired,
    resample,
    wilson,
)

RANK = np.array([0, 0, 3, 7, 0, 1])
LABEL = np.array([0, 0, 0, 0, 2, 2])


def test_accuracies_by_hand():
    found = accuracy(RANK, LABEL, range(6))
    assert found.top1 == 3 / 6 and found.top5 == 5 / 6
    assert found.mean_class == pytest.approx((2 / 4 + 1 / 2) / 2)
    assert found.top1_95[0] < 0.5 < found.top1_95[1] <= 1


def test_mean_class_leaves_out_what_was_not_drawn():
    weights = np.array([[1, 0, 0, 1, 0, 0], [0, 0, 2, 0, 1, 3]], dtype=float)
    values = class_mean_of((RANK == 0).astype(float), LABEL)(weights)
    np.testing.assert_allclose(values, [1 / 2, (0 / 2 + 1 / 4) / 2])


def test_draws_are_of_whole_clusters_as_many_as_there_are():
    clusters = ["a", "b", "a", "c"]
    weights = np.concatenate(list(resample(clusters, draws=250, seed=3)))
    assert weights.shape == (250, 4)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all() and weights.std() > 0
    again = np.concatenate(list(resample(clusters, draws=250, seed=3)))
    assert (weights == again).all()


def test_bootstrap_of_a_mean_has_its_width():
    values = np.random.default_rng(0).normal(size=400)
    (low, high) = bootstrap([mean_of(values)], range(400), draws=4000)[0]
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_clusters_widen_the_interval():
    """Ten sources of 40 equal clips each tell as much as ten clips."""
    values = np.repeat(np.arange(10) % 2, 40).astype(float)
    (narrow,) = bootstrap([mean_of(values)], range(400))
    (wide,) = bootstrap([mean_of(values)], list(np.repeat(np.arange(10), 40)))
    assert wide[1] - wide[0] > 4 * (narrow[1] - narrow[0])


def test_paired_by_hand():
    first, second = np.array([0, 0, 0, 1, 2, 0]), np.array([0, 1, 0, 0, 5, 2])
    found = paired(first, second, range(6))
    assert (found.only_first, found.only_second) == (2, 1)
    assert found.difference == pytest.approx(-1 / 6)
    assert found.p == 1.0
    assert found.difference_95[0] <= -1 / 6 <= found.difference_95[1]


def test_a_pair_with_itself_does_not_differ():
    found = paired(RANK, RANK, range(6))
    assert found.difference == 0 and found.difference_95 == (0, 0) and found.p == 1


def test_a_paired_interval_is_narrower_than_two_of_one():
    rng = np.random.default_rng(1)
    first = (rng.random(500) > 0.6).astype(int)
    second = np.where(rng.random(500) < 0.05, 1 - first, first)
    pair = paired(first, second, range(500))
    alone = accuracy(first, first * 0, range(500))
    assert pair.difference_95[1] - pair.difference_95[0] < 0.6 * (alone.top1_95[1] - alone.top1_95[0])


def test_mcnemar_by_hand():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == mcnemar(0, 5) == 2 / 32
    assert mcnemar(1, 5) == 2 * (1 + 6) / 64


@example(a=900, b=1000)
@given(a=st.integers(0, 300), b=st.integers(0, 300))
def test_mcnemar_is_the_binomial_test(a, b):
    from scipy.stats import binomtest

    expected = binomtest(a, a + b, 0.5).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)


@given(total=st.integers(1, 500), share=st.floats(0, 1))
def test_wilson_is_scipys(total, share):
    from scipy.stats import binomtest

    right = round(total * share)
    expected = binomtest(right, total).proportion_ci(method="wilson")
    assert wilson(right, total) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_once_is_the_plain_mean():
    assert once(mean_of(np.array([1.0, 2.0, 6.0])), 3) == 3


def test_nothing_to_judge():
    with pytest.raises(ValueError, match="no video"):
        accuracy(np.array([]), np.array([]), [])
    with pytest.raises(ValueError, match="3 and 2"):
        paired(np.zeros(3), np.zeros(2), range(3))
