"""Frame-mAP and video-mAP of tubes: the rules told slowly, and what real annotations give when they are given back."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.evaluation import slowly
from tubelet.data.datasets.tubes import Tube, Tubes, read_jhmdb_tubes, read_ucf24_tubes, write_boxes_csv
from tubelet.data.datasets.ucf24 import tubes_file
from tubelet.errors import TubeletError
from tubelet.evaluation.boxes import overlaps
from tubelet.evaluation.detections import as_detections, of_tubes
from tubelet.evaluation.linking import LinkRules, suppress_softly
from tubelet.evaluation.tubes import EDGES, TubeRules, evaluate_tubes, link_tubes

SHORT = {"shortest": 3, "keep": 3}


def same(values, expected):
    found = [None if np.isnan(value) else value for value in values]
    assert found == [None if one is None else pytest.approx(one, abs=1e-9) for one in expected]


@settings(max_examples=40)
@given(
    st.integers(0, 10**6), st.sampled_from([1, 2, 3]), st.sampled_from(["all", "annotated"]), st.sampled_from([0, 1])
)
def test_equals_the_rules_told_slowly(seed, length, frames, pixel):
    truth, detections = slowly.scene(seed, length)
    rules = TubeRules(**SHORT, frames=frames, pixel=pixel, link=0.4)
    levels = (0.2, 0.5, 0.75)
    result = evaluate_tubes(truth, detections, rules=rules, thresholds=levels, video_thresholds=levels)
    scores = [(label, tube.score) for (_, label), tubes in result.tubes.items() for tube in tubes]
    assume(len(set(scores)) == len(scores))  # no rule says which of two equally good tubes comes first
    for threshold in levels:
        same(result.frame.per_class_array(threshold), slowly.frame_precision(truth, detections, rules, threshold))
        expected = slowly.video_precision(truth, detections, rules, threshold, last_frame=9)
        same(result.video.per_class_array(threshold), expected)


@given(st.integers(0, 10**6), st.sampled_from([1, 2, 4]))
def test_tubes_equal_those_linked_slowly(seed, length):
    truth, detections = slowly.scene(seed, length, videos=2)
    rules = LinkRules(**SHORT, link=0.4)
    tubes = link_tubes(detections, rules)
    for video in truth.videos:
        for label in range(len(truth.labels)):
            found = sorted(tubes.get((video, label), []), key=lambda tube: (tube.score, tube.frames.tolist()))
            expected = sorted(
                slowly.linked(detections, video, label, rules, 9), key=lambda tube: (tube[0], sorted(tube[1]))
            )
            assert [tube.score for tube in found] == pytest.approx([score for score, _ in expected])
            for tube, (_, boxes) in zip(found, expected, strict=True):
                assert tube.frames.tolist() == sorted(boxes)
                np.testing.assert_allclose(tube.boxes, [boxes[frame] for frame in sorted(boxes)], rtol=1e-6)


def test_a_duplicate_of_a_tubelet_falls_below_zero_and_of_a_box_to_zero():
    box = np.array([[0, 0, 9, 9]], np.float32)
    for length, expected in ((1, 0.0), (3, -2.0)):
        tubelets = np.repeat(box[None].repeat(length, 1), 2, 0)
        scores, order = suppress_softly(np.zeros(2, int), tubelets, np.array([0.5, 1.0], np.float32), 0.6, 1.0)
        assert scores.tolist() == [0.5 * expected, 1.0] and order.tolist() == [1, 0]


def test_a_tube_waits_k_frames_for_the_next_tubelet():
    """The second tubelet begins right after the last frame of the first, or one frame later."""
    for gap, tubes in ((3, 1), (4, 2)):
        boxes = np.tile([0, 0, 9, 9], (2, 3, 1))
        detections = as_detections(["a", "a"], [0, gap], [0, 0], boxes, [0.9, 0.8])
        assert len(link_tubes(detections, LinkRules(shortest=1))["a", 0]) == tubes


def test_nothing_that_is_given_is_changed_and_order_of_videos_is_no_matter():
    truth, detections = slowly.scene(3)
    before = copy.deepcopy((truth, detections))
    result = evaluate_tubes(truth, detections, rules=TubeRules(**SHORT))
    for column in ("video", "frame", "label", "boxes", "scores"):
        assert np.array_equal(getattr(detections, column), getattr(before[1], column))
    for name, tubes in truth.videos.items():
        for one, other in zip(tubes, before[0].videos[name], strict=True):
            assert torch.equal(one.boxes, other.boxes) and torch.equal(one.frames, other.frames)
    turned = Tubes(truth.labels, None, dict(reversed(truth.videos.items())))
    again = evaluate_tubes(turned, detections, rules=TubeRules(**SHORT))
    assert np.array_equal(again.frame.values, result.frame.values, equal_nan=True)
    assert np.array_equal(again.video.values, result.video.values, equal_nan=True)


def test_no_detection_and_no_ground_truth():
    truth = slowly.scene(3)[0]
    nothing = as_detections([], [], [], [], [])
    result = evaluate_tubes(truth, nothing)
    assert (
        result.frame.at(0.5) == result.video.at(0.5) == 0 and result.tubes == {} and result.notes == ("no detection",)
    )
    empty = Tubes(truth.labels, None, {name: [] for name in truth.videos})
    for detections in (nothing, slowly.scene(3)[1]):
        result = evaluate_tubes(empty, detections)
        assert np.isnan(result.frame.at(0.5)) and result.to_json()["video"]["mAP"]["0.5"] is None


def test_a_class_without_ground_truth_and_frames_without():
    boxes = torch.tensor([[0.0, 0, 9, 9]]).repeat(20, 1)
    truth = Tubes(["a", "b"], None, {"v": [Tube(0, torch.arange(20), boxes)]})
    given = of_tubes(truth)
    extra = as_detections(["v"] * 2, [3, 30], [1, 0], boxes[:2], [1, 2])
    both = as_detections(
        ["v"] * 22,
        np.concatenate([given.frame, extra.frame]),
        np.concatenate([given.label, extra.label]),
        np.concatenate([given.boxes, extra.boxes]),
        np.concatenate([given.scores, extra.scores]),
    )
    result = evaluate_tubes(truth, both)
    assert result.frame.per_class(0.5)["b"] is None and result.frame.at(0.5) == result.frame.per_class(0.5)["a"] < 1
    assert result.video.at(0.95) == 1  # one box alone is no tube
    skipped = evaluate_tubes(truth, both, rules=TubeRules(frames="annotated"))
    assert skipped.frame.at(0.5) == 1
    told = json.loads(json.dumps(result.to_json()))
    assert told["frame"]["AP"]["b"] == [None] * 10 and told["video"]["mAP"]["0.2"] == 1
    assert told["rules"]["frames"] == "all" and "video-mAP 0.2 1.0000" in str(result)


def test_frames_that_the_truth_skips_are_judged_as_they_are():
    """A tube annotated in every second frame, found in exactly these: as tubes need all frames, it is not linked."""
    frames = torch.arange(0, 60, 2)
    truth = Tubes(["a"], None, {"v": [Tube(0, frames, torch.tensor([[0.0, 0, 9, 9]]).repeat(30, 1))]})
    dense = as_detections(["v"] * 60, range(60), [0] * 60, [[0, 0, 9, 9]] * 60, [1] * 60)
    assert evaluate_tubes(truth, dense, rules=TubeRules(frames="annotated")).frame.at(0.95) == 1
    result = evaluate_tubes(truth, dense, video_thresholds=[0.5, 0.55])
    assert (result.video.at(0.5), result.video.at(0.55)) == (1, 0)  # 30 frames of 60


def linkable(tubes):
    """Videos whose tubes are 15 frames long, move slowly, and are alone: what can be had back exactly."""
    return [
        name
        for name, some in tubes.videos.items()
        if len(some) == 1
        and len(some[0].frames) >= 15
        and (np.diff(some[0].frames.numpy()) == 1).all()
        and (overlaps(some[0].boxes[1:].numpy(), some[0].boxes[:-1].numpy(), 0.0) >= 0.5).all()
    ]


@pytest.mark.parametrize("name", ["jhmdb", "ucf24"])
def test_real_annotations_given_back_as_detections(data_root, name):
    folder = data_root / name
    truth = read_jhmdb_tubes(folder / "tubes.json") if name == "jhmdb" else read_ucf24_tubes(tubes_file(folder))
    videos = sorted(truth.videos)[:: 2 if name == "jhmdb" else 16]
    rules = EDGES if name == "jhmdb" else TubeRules()
    given = of_tubes(truth)
    result = evaluate_tubes(truth, given, rules=rules, videos=videos)
    judged = ~np.isnan(result.frame.values[0])
    assert judged.sum() == len({tube.label for video in videos for tube in truth.videos[video]})
    assert (result.frame.values[:, judged] == 1).all() and result.frame.over() == 1
    alone = linkable(replace(truth, videos={video: truth.videos[video] for video in videos}))
    assert len(alone) > 0.5 * len(videos)
    result = evaluate_tubes(truth, given, rules=rules, videos=alone)
    assert result.frame.at(0.95) == 1 and result.video.at(0.95) == 1 and result.video.over(0.2) == 1


def test_mistakes_are_named():
    truth, detections = slowly.scene(5)

    def changed(**columns):
        return replace(detections, **columns)

    with pytest.raises(TubeletError, match=r"in 3 videos that the ground truth does not have \('x0' here, 'v0' there"):
        evaluate_tubes(truth, changed(videos=("x0", "x1", "x2")))
    with pytest.raises(TubeletError, match=r"labels 1 to 3; the 3 classes are numbered from 0"):
        evaluate_tubes(truth, changed(label=detections.label + 1))
    with pytest.raises(TubeletError, match="shares of the picture"):
        evaluate_tubes(truth, changed(boxes=detections.boxes / 100))
    with pytest.raises(TubeletError, match=r"'some'; there are all, annotated"):
        TubeRules(frames="some")
    with pytest.raises(TubeletError, match="overlaps are from 0 to 1"):
        TubeRules(link=50)
    with pytest.raises(TubeletError, match="1 videos to judge have no ground truth, such as 'w'"):
        evaluate_tubes(truth, detections, videos=["w"])
    with pytest.raises(TubeletError, match=r"above 0 and at most 1"):
        evaluate_tubes(truth, detections, thresholds=[50])
    with pytest.raises(TubeletError, match="no threshold 0.3 here"):
        evaluate_tubes(truth, detections).frame.at(0.3)


def test_frames_that_count_from_1_are_noted():
    truth = Tubes(["a"], None, {"v": [Tube(0, torch.arange(20), torch.tensor([[0.0, 0, 9, 9]]).repeat(20, 1))]})
    given_ = of_tubes(truth)
    assert evaluate_tubes(truth, given_).notes == ()
    late = evaluate_tubes(truth, replace(given_, frame=given_.frame + 1))
    assert "do they count from 1?" in late.notes[0] and late.frame.at(0.5) < 1


def test_from_files(tmp_path):
    truth, detections = slowly.scene(11)
    write_boxes_csv(tmp_path / "truth.csv", truth)
    labels = sorted({truth.labels[tube.label] for some in truth.videos.values() for tube in some})
    rows = ["path,frame,x1,y1,x2,y2,label,score"]
    for video, frame, label, boxes, score in slowly.rows(detections):
        if truth.labels[label] in labels and truth.videos[video]:
            rows.append(f"{video},{frame},{','.join(map(str, boxes[0]))},{truth.labels[label]},{score}")
    (tmp_path / "found.csv").write_text("\n".join(rows) + "\n")
    result = evaluate_tubes(tmp_path / "truth.csv", tmp_path / "found.csv", rules=TubeRules(**SHORT))
    seen = [name for name, tubes in truth.videos.items() if tubes]
    direct = evaluate_tubes(truth, detections, rules=TubeRules(**SHORT), videos=seen)
    assert result.frame.at(0.5) == pytest.approx(direct.frame.at(0.5)) and result.frame.at(0.5) > 0
    assert result.video.at(0.2) == pytest.approx(direct.video.at(0.2))
