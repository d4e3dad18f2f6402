"""How sure a number is: accuracies, their intervals over videos, and whether two models differ on the same videos.

Plain numpy. `rank` (n,) is the place of the true class in each video's answer, 0 for right; `label` (n,) the class.
Intervals are percentiles of the bootstrap (Efron, 1979), 95 %. What is drawn again are clusters: videos, or the source
videos that several clips were cut from, since those are alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
CHUNK = 100  # draws at a time: bounds memory at 100 x n

Interval = tuple[float, float]
Statistic = Callable[[np.ndarray], np.ndarray]  # weights (draws, n) -> values (draws,)


def resample(clusters: Sequence[Hashable], draws: int = DRAWS, seed: int = 0) -> Iterator[np.ndarray]:
    """Weights (CHUNK, n): how often each video stands in each draw of as many clusters as there are, with return."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    cluster = np.array([numbers[name] for name in clusters])  # (n,)
    rng = np.random.default_rng(seed)
    for start in range(0, draws, CHUNK):
        drawn = rng.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), min(CHUNK, draws - start))
        yield drawn[:, cluster].astype(np.float64)


def bootstrap(
    statistics: Sequence[Statistic], clusters: Sequence[Hashable], *, draws: int = DRAWS, seed: int = 0
) -> list[Interval]:
    """The interval of each statistic, all on the same draws."""
    values = [[statistic(weights) for statistic in statistics] for weights in resample(clusters, draws, seed)]
    joined = [np.concatenate(column) for column in zip(*values, strict=True)]
    return [_percentiles(column) for column in joined]


def mean_of(values: np.ndarray) -> Statistic:
    """The mean of one number a video (n,)."""
    return lambda weights: weights @ values / weights.sum(axis=1)


def class_mean_of(values: np.ndarray, label: np.ndarray) -> Statistic:
    """The mean over classes of the mean in each class, of the classes that were drawn."""
    member = (label[:, None] == np.unique(label)).astype(np.float64)  # (n, classes)

    def statistic(weights: np.ndarray) -> np.ndarray:
        counts = weights @ member  # (draws, classes)
        sums = weights @ (member * values[:, None])
        shares = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
        return shares.sum(axis=1) / (counts > 0).sum(axis=1)

    return statistic


def once(statistic: Statistic, count: int) -> float:
    """The statistic of the videos as they are."""
    return float(statistic(np.ones((1, count)))[0])


@dataclass(frozen=True)
class Accuracy:
    """Shares of videos, each with its interval. top5 is top-5, mean_class the mean over classes of top-1."""

    top1: float
    top1_95: Interval
    top5: float
    top5_95: Interval
    mean_class: float
    mean_class_95: Interval


def accuracy(
    rank: np.ndarray, label: np.ndarray, clusters: Sequence[Hashable], *, draws: int = DRAWS, seed: int = 0
) -> Accuracy:
    """Raises ValueError if there is no video."""
    if not len(rank):
        raise ValueError("no video to take an accuracy of")
    right = (rank == 0).astype(np.float64)
    statistics = [mean_of(right), mean_of((rank < 5).astype(np.float64)), class_mean_of(right, label)]
    intervals = bootstrap(statistics, clusters, draws=draws, seed=seed)
    figures = [part for pair in zip((once(s, len(rank)) for s in statistics), intervals, strict=True) for part in pair]
    return Accuracy(*figures)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Paired:
    """A second model beside a first on the same videos.

    difference:  second - first, of the share of videos named right, with its interval
    only_first, only_second:  videos that one of them alone names right
    p:  McNemar's exact test: how likely so uneven a split would be if neither were better and clips were independent
    """

    difference: float
    difference_95: Interval
    only_first: int
    only_second: int
    p: float


def paired(
    first: np.ndarray, second: np.ndarray, clusters: Sequence[Hashable], *, draws: int = DRAWS, seed: int = 0
) -> Paired:
    """Of the ranks (n,) of two models on the same videos. Raises ValueError if those are not as many, or none."""
    if len(first) != len(second) or not len(first):
        raise ValueError(f"a pair is of the same videos, at least one; got {len(first)} and {len(second)}")
    a, b = first == 0, second == 0
    difference = mean_of(b.astype(np.float64) - a)
    (interval,) = bootstrap([difference], clusters, draws=draws, seed=seed)
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    return Paired(once(difference, len(a)), interval, only_first, only_second, mcnemar(only_first, only_second))


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact p, two-sided: twice the tail of a fair coin thrown for each video on which the two differ."""
    total, fewer = only_first + only_second, min(only_first, only_second)
    tail, ways = 0, 1  # ways: total over k, in whole numbers
    for k in range(fewer + 1):
        tail += ways
        ways = ways * (total - k) // (k + 1)
    return min(1.0, 2 * tail / 2**total) if total < 1000 else min(1.0, _ratio(2 * tail, total))


def wilson(right: int, total: int, z: float = 1.959963984540054) -> Interval:
    """Interval of a share (Wilson, 1927), as if videos were independent."""
    p, n = right / total, total
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def _percentiles(values: np.ndarray) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _ratio(numerator: int, power: int) -> float:
    """numerator / 2^power where both are too large for floats."""
    shift = max(numerator.bit_length() - 64, 0)
    return math.ldexp(float(numerator >> shift), shift - power)
