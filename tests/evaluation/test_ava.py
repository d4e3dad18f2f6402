"""AVA frame-mAP: the rules told slowly, and mistakes that are named instead of an mAP of 0."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation import slowly
from tubelet.data.datasets.ava import ava_boxes, write_ava_csv
from tubelet.errors import TubeletError
from tubelet.evaluation.ava import evaluate_ava
from tubelet.evaluation.boxes import THRESHOLDS

LABELS = {1: "stand", 3: "walk", 7: "talk to", 12: "fly"}


def scene(seed):
    """Rows of ground truth and detections: boxes that overlap, some empty, some labels that are not in the map."""
    rng = np.random.default_rng(seed)

    def box(x, y):
        return tuple(float(side) for side in (x, y, x + rng.integers(-1, 7), y + rng.integers(0, 7)))

    truth, found = [("a", 902, (0.0, 0.0, 4.0, 4.0), 1)], [("a", 902, (0.0, 0.0, 4.0, 4.0), 1)]
    for _ in range(rng.integers(1, 12)):
        here = (("a", "b")[rng.integers(2)], int(rng.integers(902, 905)))
        x, y = rng.integers(0, 4, 2)
        truth.append((*here, box(x, y), int(rng.choice([1, 2, 3, 7]))))
        for _ in range(rng.integers(0, 4)):
            found.append((*here, box(x, y), int(rng.choice([1, 3, truth[-1][3], 12]))))
    for _ in range(rng.integers(0, 8)):
        found.append(("ab"[rng.integers(2)], int(rng.integers(902, 906)), box(*rng.integers(0, 4, 2)), 1))
    order = rng.permutation(len(found))
    scores = (rng.permutation(len(found)) + 1) / 1024
    return truth, [(*found[at], score) for at, score in zip(order, scores.tolist(), strict=True)]


def columns(rows, source="the boxes"):
    """Pixels of an 8 x 8 picture there, shares here: exact in binary."""
    video, second, boxes, label, *scores = ([row[at] for row in rows] for at in range(len(rows[0])))
    return ava_boxes(video, second, np.array(boxes) / 8, label, *scores, source=source)


@given(st.integers(0, 10**6), st.sampled_from(["file", "score"]), st.booleans())
def test_equals_the_rules_told_slowly(seed, order, some_excluded):
    truth, found = scene(seed)
    excluded = {("a", 903), ("b", 902), ("c", 902)} if some_excluded else set()
    result = evaluate_ava(columns(truth), columns(found), LABELS, excluded=excluded, order=order)
    for threshold in THRESHOLDS:
        expected = slowly.ava(truth, found, list(LABELS), excluded, threshold, order)
        values = dict(zip(result.ids, result.frame.per_class(threshold).values(), strict=True))
        assert values == pytest.approx(expected, abs=1e-12)
        known = [value for value in expected.values() if value is not None]
        assert result.frame.at(threshold) == pytest.approx(np.mean(known) if known else np.nan, nan_ok=True)


@given(st.integers(0, 10**6))
def test_ground_truth_given_back_is_1_and_nothing_is_changed(seed):
    truth = [row for row in scene(seed)[0] if row[2][0] < row[2][2] and row[2][1] < row[2][3] and row[3] in LABELS]
    truth = list({(row[0], row[1], row[3]): row for row in truth}.values())  # one a frame and class
    given_ = columns(truth)
    before = [column.copy() for column in (given_.video, given_.second, given_.boxes, given_.label, given_.scores)]
    result = evaluate_ava(given_, given_, LABELS)
    values = result.frame.values[:, [label in set(given_.label) for label in result.ids]]
    assert (values == 1).all() and result.frame.over() == 1
    after = (given_.video, given_.second, given_.boxes, given_.label, given_.scores)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_first_in_the_file_takes_the_person_whatever_its_score():
    truth = [("a", 902, (0, 0, 8, 8), 1), ("a", 903, (0, 0, 8, 8), 1)]
    found = [
        ("a", 902, (0, 0, 8, 8), 1, 0.1),
        ("a", 902, (0, 0, 8, 8), 1, 0.9),
        ("a", 903, (0, 0, 8, 8), 1, 0.5),
    ]
    by_file, by_score = (evaluate_ava(columns(truth), columns(found), LABELS, order=o) for o in ("file", "score"))
    assert by_file.frame.at(0.5) == pytest.approx(2 / 3)  # false, true, true
    assert by_score.frame.at(0.5) == pytest.approx(1)  # true, true, false
    assert "sorted by score" in str(by_score) and by_score.to_json()["order"] == "score"


def test_from_files_and_to_json(tmp_path):
    truth, found = scene(1)
    write_ava_csv(tmp_path / "truth.csv", columns(truth))
    write_ava_csv(tmp_path / "found.csv", columns(found), scored=True)
    (tmp_path / "map.pbtxt").write_text("".join(f'item {{ name: "{n}" id: {k} }}\n' for k, n in LABELS.items()))
    (tmp_path / "excluded.csv").write_text("a,0903\n")
    files = [tmp_path / name for name in ("truth.csv", "found.csv", "map.pbtxt")]
    result = evaluate_ava(*files, excluded=tmp_path / "excluded.csv")
    direct = evaluate_ava(columns(truth), columns(found), LABELS, excluded={("a", 903)})
    np.testing.assert_array_equal(result.frame.values, direct.frame.values)  # eighths are exact in three decimals
    told = json.loads(json.dumps(result.to_json()))
    assert told["AP"]["fly"] == [None] * 10 and told["ids"] == [1, 3, 7, 12] and set(told["mAP"]) > {"0.5", "0.5:0.95"}


def changed(rows, at, change):
    return [(*row[:at], change(row[at]), *row[at + 1 :]) for row in rows]


@pytest.mark.parametrize(
    ("at", "change", "sentence"),
    [
        (
            0,
            lambda name: f"clips/{name}.mp4",
            "no video id is in both ('clips/a.mp4' here, 'a' there); without folders",
        ),
        (0, lambda name: "x", "no video id is in both ('x' here, 'a' there)"),
        (
            1,
            lambda second: second - 900,
            "no second is in both (a has 2 here, a has 902 there); they count from the 900th",
        ),
        (1, lambda second: (second - 900) * 30, "they are frames, 30 a second, from the 900th second, it seems"),
        (1, lambda second: second * 1000, "they are milliseconds, it seems"),
        (2, lambda box: [side * 320 for side in box], "boxes seem to be pixels"),
        (3, lambda label: 70, "has labels 70 to 70, none of the 4 of the map (1, 3, 7, ...)"),
    ],
)
def test_mistakes_are_named_instead_of_an_map_of_0(at, change, sentence):
    truth, found = scene(2)
    with pytest.raises(TubeletError) as error:
        evaluate_ava(columns(truth, "gt.csv"), columns(changed(found, at, change), "found.csv"), LABELS)
    assert sentence in str(error.value) and "found.csv" in str(error.value)


def test_what_is_odd_is_noted():
    truth, found = scene(2)
    zero_based = evaluate_ava(columns(truth), columns(changed(found, 3, lambda label: label - 1)), LABELS)
    assert any("count from 0" in note for note in zero_based.notes)
    persons = evaluate_ava(columns(truth), columns(changed(found, 4, lambda score: round(score * 1024))), LABELS)
    assert any("the number of a person?" in note for note in persons.notes)
    corner = changed(truth, 2, lambda box: (4.0, 4.0, 3.0, 3.0))
    sizes = evaluate_ava(columns([*truth, *corner]), columns(found), LABELS)
    assert any("x, y, width, height" in note for note in sizes.notes)
    more = evaluate_ava(columns(truth), columns([*found, ("z", 902, (0, 0, 8, 8), 1, 1.0)]), LABELS)
    assert any("1 videos without ground truth (z)" in note for note in more.notes)
    assert more.frame.at(0.5) < evaluate_ava(columns(truth), columns(found), LABELS).frame.at(0.5)
    nothing = evaluate_ava(columns(truth), columns(found).rows(np.zeros(len(found), bool)), LABELS)
    assert nothing.frame.at(0.5) == 0 and "no detection" in nothing.notes[-1]
    with pytest.raises(TubeletError, match="order 'best'; there are file, score"):
        evaluate_ava(columns(truth), columns(found), LABELS, order="best")
    ones = evaluate_ava(columns(truth), columns(changed(found, 4, lambda score: 1.0)), LABELS)
    assert any("every score is 1; is the last column, the scores, missing?" in note for note in ones.notes)
    assert not any("every score" in note for note in evaluate_ava(columns(truth), columns(found), LABELS).notes)


def test_boxes_that_are_all_empty_are_refused():
    truth, found = scene(2)
    for mirrored in (
        (truth, changed(found, 2, lambda box: (8, 0, 0, 8))),
        (changed(truth, 2, lambda box: (8, 0, 0, 8)), found),
    ):
        with pytest.raises(TubeletError, match="x1 < x2 and y1 < y2 are needed"):
            evaluate_ava(*(columns(rows) for rows in mirrored), LABELS)


def test_excluded_seconds_as_files_write_them():
    truth, found = scene(1)
    tables = [
        evaluate_ava(columns(truth), columns(found), LABELS, excluded=given).frame.values
        for given in ({("a", "0903")}, {("a", 903)}, ())
    ]
    np.testing.assert_array_equal(tables[0], tables[1])
    assert not np.array_equal(tables[0], tables[2], equal_nan=True)
    for wrong in (("a", "x"), ("a", 902.5), "a", ("a",)):
        with pytest.raises(TubeletError, match=r"excluded are \(video, second\)"):
            evaluate_ava(columns(truth), columns(found), LABELS, excluded=[wrong])
