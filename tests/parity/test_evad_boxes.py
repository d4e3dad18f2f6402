"""The evaluators of boxes against the numbers of the published ones: AVA frame-mAP; frame- and video-mAP of tubes.

Cases are found by name in the folder TUBELET_PARITY; without it, in the small set that comes with the repository.
"""

import csv
import json
import re

import numpy as np
import pytest
import torch

from tests.parity.cases import parity_cases
from tubelet.data.datasets.ava import read_label_map
from tubelet.data.datasets.tubes import Tube, Tubes
from tubelet.evaluation.ava import evaluate_ava
from tubelet.evaluation.boxes import average_precision
from tubelet.evaluation.detections import as_detections
from tubelet.evaluation.tubes import TubeRules, evaluate_tubes

SAME = 1e-7  # of AVA's shares, float64
CLOSE = 1e-4  # of percent, scores and pixels, which are float32 there


@pytest.mark.parametrize("case", parity_cases("evad", "ava_*_expected.json"), ids=lambda path: path.stem)
def test_ava(case):
    expected = json.loads(case.read_text())

    def file(what):
        return case.with_name(case.name.replace("_expected.json", what))

    excluded = file("_excluded.csv")
    files = [file("_groundtruth.csv"), file("_detections.csv"), file("_labelmap.pbtxt")]
    given = {"excluded": excluded if excluded.exists() else (), "thresholds": [float(key) for key in expected["mAP"]]}
    result = evaluate_ava(*files, **given)
    for threshold, value in expected["mAP"].items():
        assert result.frame.at(float(threshold)) == pytest.approx(value, abs=SAME)
    for name, value in expected.items():
        if name.startswith("mAP_") and "_to_" in name:
            low, high = map(float, name.removeprefix("mAP_").split("_to_"))
            assert result.frame.over(low, high) == pytest.approx(value, abs=SAME)
        elif name.startswith("per_class_AP_"):
            values = result.frame.per_class(float(name.rpartition("_")[2])).values()
            found = {str(number): value for number, value in zip(result.ids, values, strict=True)}
            assert found == pytest.approx(value, abs=SAME)
    by_score = expected["mAP_0.50_if_file_sorted_by_descending_score"]
    ranked = evaluate_ava(*files, **given, order="score")
    assert ranked.frame.at(0.5) == pytest.approx(by_score, abs=SAME)
    assert ranked.order == "score" and "sorted by score" in str(ranked) and "sorted by score" not in str(result)
    with open(files[1], newline="") as table:
        assert len(list(csv.reader(table))) == expected["counts"]["detection_rows"]
    assert list(result.ids) == sorted(read_label_map(files[2]))


@pytest.mark.parametrize("case", parity_cases("evad", "tubes_*.json"), ids=lambda path: path.stem)
def test_tubes(case):
    about = json.loads(case.read_text())
    truth, detections = _read(about)
    expected = about["expected"]
    steps = len(expected["video_mAP_at_each"])
    each = [round(0.5 + 0.05 * step, 2) for step in range(steps)]
    levels = sorted({*each, *(_threshold(name) for name in expected if _threshold(name))})
    rules = _rules(about["rules"])
    result = evaluate_tubes(truth, detections, rules=rules, thresholds=levels, video_thresholds=levels)
    for name, value in expected.items():
        table = result.frame if name.startswith("frame") else result.video
        if name == "video_mAP_at_each":
            assert [100 * table.at(one) for one in each] == pytest.approx(value, abs=CLOSE)
        elif "_to_" in name:
            assert 100 * table.over(*map(float, name.rpartition("mAP_")[2].split("_to_"))) == pytest.approx(
                value, abs=CLOSE
            )
        elif name.startswith("video"):
            found = table.per_class(_threshold(name)).values() if "per_class" in name else [table.at(_threshold(name))]
            assert [100 * one for one in found] == pytest.approx(np.atleast_1d(value).tolist(), abs=CLOSE)
        else:
            _check_frames(table, _threshold(name), np.atleast_1d(value), "per_class" in name)
    _check_tubes(result.tubes, about)


def _check_frames(table, threshold, value, per_class):
    """Equal, up to the order of equal scores, which the published sort leaves open.

    That matters for tubelets, all of whose frames have one score. The least and the most that any order gives are those
    of false ones first and of true ones first; where they are the same the value is that.
    """
    bounds = np.stack([_with_ties(table, threshold, first) for first in (False, True)])
    low, high = bounds if per_class else bounds.mean(1, keepdims=True)
    assert len(value) == len(low) and (low - CLOSE <= value).all() and (value <= high + CLOSE).all()
    ours = 100 * table.values[table.thresholds.index(threshold)]
    ours = ours if per_class else ours.mean(keepdims=True)
    tied = high - low > CLOSE
    np.testing.assert_allclose(ours[~tied], value[~tied], rtol=0, atol=CLOSE)


def _with_ties(table, threshold, true_first):
    number = table.thresholds.index(threshold)
    found = []
    for ranking in table.rankings:
        hits = ranking.hits[number]
        order = np.lexsort((hits != true_first, -ranking.scores))
        one = type(ranking)(ranking.video[order], ranking.scores[order], hits[None, order], ranking.positives)
        found.append(100 * average_precision(one, table.area, np.ones((1, len(table.videos)), int))[0, 0])
    return np.array(found)


def _check_tubes(tubes, about):
    """The linked tubes, in any order."""
    compared = 0
    for video, by_label in about["expected_tubes"].items():
        for label, expected in by_label.items():
            found = sorted(tubes.get((video, int(label)), []), key=lambda tube: (-tube.score, tube.frames[0]))
            expected = sorted(expected, key=lambda tube: (-tube["score"], tube["first_frame"]))
            assert len(found) == len(expected)
            for one, other in zip(found, expected, strict=True):
                compared += 1
                assert one.score == pytest.approx(other["score"], abs=CLOSE)
                assert [one.frames[0] + 1, one.frames[-1] + 1] == [other["first_frame"], other["last_frame"]]
                np.testing.assert_allclose(one.boxes[0], other["boxes_first"], rtol=0, atol=1e-3)
                np.testing.assert_allclose(one.boxes[-1], other["boxes_last"], rtol=0, atol=1e-3)
    assert compared == sum(map(len, tubes.values()))


def _rules(told):
    """The numbers in the sentences that say how a case was judged."""

    def number(key, pattern):
        return float(re.search(pattern, told[key])[1])

    return TubeRules(
        pixel=number("box_iou", r"\+(\d+) pixel"),
        suppress=number("frame_nms", r"by > ([\d.]+\d)"),
        keep=int(number("tube_linking", r"keep the (\d+) best")),
        link=number("tube_linking", r"overlap >= ([\d.]+\d)"),
        shortest=int(number("tube_linking", r"shorter than (\d+) frames")),
        weakest=number("tube_linking", r"score < ([\d.]+\d)"),
        apart=told["video_nms"],
    )


def _threshold(name):
    """Of "video_AP_0.5_per_class"; None where there is no single one."""
    words = name.replace("_per_class", "").rpartition("AP_")[2]
    return None if "_to_" in words or words == "at_each" else float(words)


def _read(about):
    """Frames count from 1 there."""
    videos = {name: [] for name in about["videos"]}
    for one in about["ground_truth"]:
        rows = torch.tensor(one["tube_frame_x1_y1_x2_y2"])
        videos[one["video"]].append(Tube(one["label"], rows[:, 0].long() - 1, rows[:, 1:]))
    rows = about["detections"]
    detections = as_detections(
        [row[0] for row in rows],
        [row[1] - 1 for row in rows],
        [row[2] for row in rows],
        np.array([row[3:-1] for row in rows]).reshape(len(rows), 4 * about["tubelet_length"]),
        [row[-1] for row in rows],
    )
    return Tubes(about["labels"], None, videos), detections
