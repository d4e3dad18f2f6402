"""Who claims what, areas under curves, and intervals over videos."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation import slowly
from tests.evaluation.test_ava import LABELS, columns, scene
from tubelet.data.datasets.tubes import Tubes
from tubelet.errors import TubeletError
from tubelet.evaluation.ava import evaluate_ava
from tubelet.evaluation.boxes import average_precision, bootstrap, number_rows, overlaps, pairs
from tubelet.evaluation.detections import as_detections
from tubelet.evaluation.tubes import TubeRules, evaluate_tubes

SHORT = TubeRules(shortest=3)


@given(st.lists(st.integers(-5, 5), max_size=12), st.lists(st.integers(-5, 5), max_size=12))
def test_pairs_are_all_of_one_group(detections, truths):
    found = pairs(np.array(detections, int), np.array(truths, int))
    expected = [(a, b) for a, x in enumerate(detections) for b, y in enumerate(truths) if x == y]
    assert list(zip(*(side.tolist() for side in found), strict=True)) == expected


@given(st.lists(st.tuples(*[st.integers(-9, 9)] * 3), max_size=9), st.lists(st.tuples(*[st.integers(5, 30)] * 3)))
def test_numbers_of_rows_are_equal_where_rows_are_and_keep_their_order(a, b):
    tables = [list(np.array(rows, int).reshape(-1, 3).T) for rows in (a, b)]
    numbers = np.concatenate(number_rows(*tables)).tolist()
    assert [[x < y for y in numbers] for x in numbers] == [[x < y for y in a + b] for x in a + b]


def test_overlaps():
    box = np.array([0, 0, 9, 9.0])
    for pixel, expected in ((0, 1 / 3), (1, 60 / 140)):  # 4.5 x 9 of 121.5; 6 x 10 of 140
        other = box + np.array([4.5 if pixel == 0 else 4, 0, 4.5 if pixel == 0 else 4, 0])
        assert overlaps(box, other, pixel) == pytest.approx(expected)
    assert overlaps(box, box + 20) == 0 and overlaps(box * 0, box * 0) == 0 and overlaps(box * 0, box * 0, 1) == 1


def copies(truth, detections, times):
    """Each video so many times, under other names."""
    names = {name: [f"{name}.{copy}" for copy in range(n)] for name, n in times.items()}
    tubes = {new: truth.videos[name] for name in names for new in names[name]}
    found = [row for row in slowly.rows(detections) for _ in range(times[row[0]])]
    video = [new for row in slowly.rows(detections) for new in names[row[0]]]
    _, frame, label, boxes, scores = ([row[at] for row in found] for at in range(5))
    return Tubes(truth.labels, None, tubes), as_detections(video, frame, label, boxes, scores)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 3), min_size=3, max_size=3), st.sampled_from([1, 2]))
def test_a_draw_is_judged_as_if_its_videos_were_there_so_often(seed, times, length):
    truth, detections = slowly.scene(seed, length)
    if not any(times):
        return
    drawn = evaluate_tubes(*copies(truth, detections, dict(zip(sorted(truth.videos), times, strict=True))), rules=SHORT)
    whole = evaluate_tubes(truth, detections, rules=SHORT)
    for table, expected in ((whole.frame, drawn.frame), (whole.video, drawn.video)):
        for ranking, column in zip(table.rankings, expected.values.T, strict=True):
            if len(np.unique(ranking.scores)) == len(ranking.scores):  # of equal scores another may come first
                found = average_precision(ranking, table.area, np.array([times]))[0]
                np.testing.assert_allclose(found, column, atol=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(0, 3), st.integers(0, 3))
def test_a_draw_of_ava(seed, a, b):
    truth, found = scene(seed)
    whole = evaluate_ava(columns(truth), columns(found), LABELS).frame
    times = {"a": a, "b": b}
    rows = [[(f"{row[0]}{copy}", *row[1:]) for row in some for copy in range(times[row[0]])] for some in (truth, found)]
    if not all(rows) or not {row[0] for row in rows[0]} & {row[0] for row in rows[1]}:
        return
    try:
        drawn = evaluate_ava(columns(rows[0]), columns(rows[1]), LABELS).frame
    except TubeletError:  # no second, or no label of the map, is in both
        return
    draw = np.array([[times[name] for name in whole.videos]])
    for ranking, expected in zip(whole.rankings, drawn.values.T, strict=True):
        np.testing.assert_allclose(average_precision(ranking, whole.area, draw)[0], expected, atol=1e-12)


def big(seed, worse=0.0):
    """Many videos, and a second detector that finds less in each."""
    truth, detections = slowly.scene(seed, videos=40)
    keep = np.random.default_rng(seed).random(len(detections)) >= worse
    return truth, detections.rows(keep)


def test_intervals_hold_the_value_are_repeatable_and_shrink_with_confidence():
    result = evaluate_tubes(*big(1), rules=SHORT)
    for table in (result.frame, result.video):
        found = bootstrap(table, draws=200, seed=3)
        assert set(found) == {f"{t:g}" for t in table.thresholds} | {"0.5:0.95"}
        assert found["0.5"].value == pytest.approx(table.at(0.5)) and found["0.5:0.95"].value == pytest.approx(
            table.over()
        )
        assert found["0.5"].low < found["0.5"].value < found["0.5"].high
        assert found == bootstrap(table, draws=200, seed=3) != bootstrap(table, draws=200, seed=4)
        narrow = bootstrap(table, draws=200, seed=3, confidence=0.5)["0.5"]
        assert narrow.high - narrow.low < found["0.5"].high - found["0.5"].low


def test_the_paired_interval_is_narrower_than_those_of_the_two():
    good, worse = (evaluate_tubes(*big(1, share), rules=SHORT).frame for share in (0.0, 0.1))
    paired = bootstrap(good, worse, draws=300)["0.5"]
    assert paired.value == pytest.approx(worse.at(0.5) - good.at(0.5)) and paired.high < 0
    single = bootstrap(good, draws=300)["0.5"]
    assert paired.high - paired.low < single.high - single.low
    same = bootstrap(good, good, draws=50)
    assert all((one.value, one.low, one.high) == (0, 0, 0) for one in same.values())


def test_what_cannot_be_compared_is_refused():
    result, other = (evaluate_tubes(*big(seed), rules=SHORT).frame for seed in (1, 2))
    with pytest.raises(TubeletError, match="different ground truth"):
        bootstrap(result, other)
    with pytest.raises(TubeletError, match="different thresholds"):
        bootstrap(result, evaluate_tubes(*big(1), rules=SHORT, thresholds=[0.5]).frame)
    with pytest.raises(TubeletError, match="1 draws"):
        bootstrap(result, draws=1)
    with pytest.raises(TubeletError, match="different labels"):
        bootstrap(result, replace(result, labels=("x", "y", "z")))
