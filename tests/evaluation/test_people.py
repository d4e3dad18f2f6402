"""Judging detectors: which frames, that the truth is found again, the same rows however they come, and the table."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.people import LABELS, people_model, videos
from tubelet.data import open_video
from tubelet.data.datasets.keyframes import KeyframeClips
from tubelet.errors import SelectionError, TubeletError, VideoError
from tubelet.evaluation import people as judging
from tubelet.evaluation.boxes import bootstrap
from tubelet.evaluation.people import clips_of, detections_of, key_frames, look, measured, open_people, truth_of
from tubelet.evaluation.people_report import Detector, people_table
from tubelet.evaluation.tubes import evaluate_tubes
from tubelet.models.evad import EVAD

SPEC = "keyframe:keep=0.7@2"


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    return videos(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def model():
    return people_model()


@pytest.fixture(scope="module")
def dataset(model, boxes):
    return open_people(model, boxes)


@pytest.fixture(scope="module")
def looked(model, dataset):
    return look(model, dataset, ["none", SPEC])


@given(st.lists(st.integers(0, 99), min_size=1, unique=True).map(sorted), st.integers(1, 20))
def test_every_nth_annotated_frame(annotated, every):
    found = key_frames(annotated, every)
    assert found == annotated[annotated.index(found[0]) :: every] and len(found) >= max(len(annotated) // every, 1)
    assert key_frames(annotated, 1) == annotated


def test_clips_around_key_frames_are_those_of_training(dataset):
    found = list(clips_of(dataset, 1, 5))
    assert [frame for frame, _, _ in found] == [3, 8, 13, 18] and all(size == (48, 64) for *_, size in found)
    with open_video(dataset.videos[1][0].path) as reader:
        for frame, clip, _ in found:
            expected = judging.keyframe.resized(reader.read([min(max(frame + i, 0), 19) for i in range(-4, 4)]), 32)
            assert torch.equal(clip, expected)


def perfect(row, dataset, proposals=3):
    """The row of a detector that finds the person, and nobody with its other proposals."""
    tube = dataset.videos[row.index][1][0]
    whole = dict(
        pair
        for one in dataset.videos[row.index][1]
        for pair in zip(one.frames.tolist(), one.boxes.tolist(), strict=True)
    )
    box = [whole[frame] for frame in row.frames]
    frames = len(row.frames)
    nobody = [[0.0, 0.0, 9.0, 9.0]] * (proposals - 1)
    action = [float(label == tube.label) for label in range(len(LABELS))]
    return replace(
        row,
        boxes=[[one, *nobody] for one in box],
        people=[[1.0] + [0.0] * (proposals - 1)] * frames,
        actions=[[action] * proposals] * frames,
    )


@pytest.mark.parametrize("every", [1, 4, 30])
@pytest.mark.parametrize("rule", judging.RULES)
def test_a_detector_that_is_right_reaches_one(model, dataset, every, rule):
    rows = [perfect(row, dataset) for row in look(model, dataset, ["none"], every=every).rows["none"].values()]
    result = measured(dataset, rows, every=every, rule=rule)
    assert (result.frame.values == 1).all() and (result.video.values == 1).all()
    assert sum(r.positives.sum() for r in result.frame.rankings) == sum(len(row.frames) for row in rows)
    late = [replace(row, boxes=row.boxes[-1:] * len(row.boxes)) for row in rows]  # where the person is at the end
    if every == 1:
        assert measured(dataset, late, every=every, rule=rule).frame.at(0.5) < 0.9


def without(boxes, name, kept, person=lambda frame: ""):
    """The csv of boxes with the frames that are `kept` alone; person: who it is on each."""
    header, *lines = boxes.read_text().splitlines()
    frames = [int(line.split(",")[1]) for line in lines]
    rows = [f"{line},{person(frame)}" for line, frame in zip(lines, frames, strict=True) if kept(frame)]
    path = boxes.with_name(name)
    path.write_text("\n".join([f"{header},person", *rows]) + "\n")
    return path


def test_every_frame_gives_the_published_numbers(model, dataset, looked):
    """With every=1, what evaluate_tubes says of the same boxes under their own frame numbers."""
    rows = list(look(model, dataset, ["none"], every=1).rows["none"].values())
    found = detections_of(rows, dataset=dataset)
    first = np.array([row.frames[0] for row in rows])[found.video]
    expected = evaluate_tubes(dataset.tubes, replace(found, frame=found.frame + first), rules=judging.EDGES)
    result = measured(dataset, rows, every=1)
    for one, other in ((result.frame, expected.frame), (result.video, expected.video)):
        np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize(
    "kept", [lambda t: t % 2 == 0, lambda t: t % 7 == 1, lambda t: t != 9, lambda t: t not in range(6, 13)]
)
@pytest.mark.parametrize("every", [1, 2])
def test_spaced_or_torn_annotation_of_one_tube_can_be_found_whole(model, boxes, kept, every):
    dataset = open_people(model, without(boxes, "kept.csv", kept))
    rows = [perfect(row, dataset) for row in look(model, dataset, ["none"], every=every).rows["none"].values()]
    rules = replace(judging.EDGES, shortest=1, link=0.01)
    result = evaluate_tubes(truth_of(dataset, rows), detections_of(rows, dataset=dataset), rules=rules)
    assert (result.video.values == 1).all()


def test_nobody_is_followed_from_one_stretch_of_annotation_to_the_next(model, boxes):
    """Two tubes at one place, one after the other with nobody between: one tube would be neither."""
    path = without(boxes, "two.csv", lambda t: t not in range(9, 11), lambda t: "a" if t < 9 else "b")
    dataset = open_people(model, path)
    rows = [perfect(row, dataset) for row in look(model, dataset, ["none"], every=1).rows["none"].values()]
    rules = replace(judging.EDGES, shortest=4)
    result = evaluate_tubes(truth_of(dataset, rows), detections_of(rows, dataset=dataset), rules=rules)
    assert (result.video.values == 1).all() and sum(map(len, result.tubes.values())) == 8


def test_false_alarms_where_nobody_is_count_over_all_frames(model, boxes):
    """Half of each video has no box; a detector that is right about the others sees somebody there too."""
    dataset = open_people(model, without(boxes, "half.csv", lambda t: t > 9))
    found = look(model, dataset, ["none"], every=1, all_frames=True).rows["none"].values()
    assert all(row.frames == list(range(20)) for row in found)
    whole = open_people(model, boxes)
    tubes = [whole.videos[row.index][1][0] for row in found]
    where = [dict(zip(tube.frames.tolist(), tube.boxes.tolist(), strict=True)) for tube in tubes]
    alarmed = [
        replace(
            row,
            boxes=[[of.get(frame, [0.0, 0.0, 9.0, 9.0])] for frame in row.frames],
            people=[[1.0 if frame in of else 0.0] for frame in row.frames],
            actions=[[[float(label == dataset.videos[row.index][1][0].label) for label in range(2)]]] * 20,
        )
        for row, of in zip(found, where, strict=True)
    ]
    quiet = [replace(row, people=[[float(frame > 9 and frame < 19)] for frame in row.frames]) for row in alarmed]
    assert measured(dataset, quiet, every=1, all_frames=True).frame.at(0.5) == 1
    assert measured(dataset, alarmed, every=1, all_frames=True).frame.at(0.5) < 0.8
    seen = look(model, dataset, ["none"], every=1).rows["none"].values()
    assert all(row.frames == list(range(10, 19)) for row in seen)
    # the published numbers, of detections under their own numbers of frames
    rows = list(found)
    expected = evaluate_tubes(dataset.tubes, detections_of(rows), rules=judging.EDGES)
    result = measured(dataset, rows, every=1, all_frames=True)
    np.testing.assert_array_equal(result.frame.values, expected.frame.values)
    np.testing.assert_array_equal(result.video.values, expected.video.values)


def test_rows_of_all_frames_are_kept_apart(model, dataset, tmp_path):
    look(model, dataset, ["none"], out=tmp_path, limit=1, every=6)
    with pytest.raises(TubeletError, match="rows of another evaluation: protocol"):
        look(model, dataset, ["none"], out=tmp_path, limit=1, every=6, all_frames=True)
    again = look(model, dataset, ["none"], out=tmp_path, limit=1, every=6, all_frames=True, renew=True)
    assert [row.frames for row in again.rows["none"].values()] == [[3, 9, 15]] and again.all_frames


def test_scores_are_joint_or_as_published(looked):
    row = looked.rows["none"][0]
    frames, proposals = np.array(row.people).shape
    one = replace(row, people=[[0.8] * proposals, *[[0.4] * (proposals - 1) + [0.9]] * (frames - 1)])
    joint, published = (detections_of([one], rule) for rule in judging.RULES)
    assert len(joint) == frames * proposals * len(LABELS)
    product = np.array(one.people)[..., None] * np.array(one.actions)
    np.testing.assert_allclose(joint.scores, product.reshape(-1), rtol=1e-5)
    assert len(published) == (proposals + frames - 1) * len(LABELS)
    np.testing.assert_allclose(published.scores[-len(LABELS) :], one.actions[-1][-1], rtol=1e-5)
    none_passes = replace(one, people=[[0.1] * proposals] * frames)
    assert len(detections_of([none_passes], "published")) == frames * proposals * len(LABELS)
    with pytest.raises(TubeletError, match="rule 'best'; there are joint, published"):
        detections_of([row], "best")


def test_batches_and_selections_change_nothing(model, dataset, looked):
    alone = look(people_model(select=SPEC), dataset, [SPEC], batch=3).rows[SPEC]
    for index, row in looked.rows[SPEC].items():
        np.testing.assert_allclose(alone[index].boxes, row.boxes, atol=0.02)
        np.testing.assert_allclose(alone[index].people, row.people, atol=1e-4)
    assert looked.rows["none"][0].people != looked.rows[SPEC][0].people


def test_rows_on_disk_are_gone_on_from(model, dataset, looked, tmp_path, monkeypatch):
    first = look(model, dataset, ["none", SPEC], out=tmp_path, limit=2, data="boxes")
    assert all(len(rows) == 2 for rows in first.rows.values())
    with open(tmp_path / "none.jsonl", "a") as file:
        file.write('{"index": 3, "na')  # killed while it wrote
    ran, forward = [], EVAD.forward
    monkeypatch.setattr(EVAD, "forward", lambda self, *given: ran.append(1) or forward(self, *given))
    again = look(model, dataset, ["none", SPEC], out=tmp_path, data="boxes")
    assert again.rows == looked.rows and len(ran) == 4
    with pytest.raises(TubeletError, match="rows of another evaluation: protocol"):
        look(model, dataset, ["none"], out=tmp_path, data="boxes", every=2)
    tubes = {name: [replace(one, frames=one.frames + 1) for one in of] for name, of in dataset.tubes.videos.items()}
    moved = KeyframeClips(dataset.listing, replace(dataset.tubes, videos=tubes), frames=8, stride=1, short=32)
    with pytest.raises(TubeletError, match="rows of another evaluation: protocol"):
        look(model, moved, ["none"], out=tmp_path, data="boxes")


def test_key_frames_a_video_are_those_of_training_alone(model, boxes, dataset):
    assert len(open_people(model, boxes, per_video=3)) == len(dataset)


def test_a_file_that_cannot_be_read_is_named_and_left_out(model, tmp_path):
    data = open_people(model, videos(tmp_path, count=2))
    data.videos[0][0].path.write_bytes(b"no video")
    said = []
    found = look(model, data, ["none"], note=said.append)
    assert list(found.rows["none"]) == [1] and list(found.bad) == [data.name(0)] and data.name(0) in said[0]
    with pytest.raises(VideoError, match=data.name(0)):
        look(model, data, ["none"], strict=True)
    assert list(truth_of(data, found.rows["none"].values()).videos) == [data.name(1)]


def better_and_worse(dataset, looked):
    """The rows of a detector that is right but for one video, and of one that is wrong in two more."""
    right = {index: perfect(row, dataset) for index, row in looked.rows["none"].items()}
    wrong = {index: replace(row, boxes=row.boxes[::-1]) for index, row in right.items()}
    return judging.Looked({"none": {**right, 0: wrong[0]}, SPEC: {**wrong, 3: right[3]}})


def test_the_table(model, dataset, looked):
    looked = better_and_worse(dataset, looked)
    rows = people_table([Detector("mine", model, dataset, looked)], "boxes", timing=False, draws=50)
    dense, pruned = rows
    results = [measured(dataset, looked.rows[select].values()) for select in ("none", SPEC)]
    assert 0 < pruned["frame_map@0.5"] < dense["frame_map@0.5"] < 1
    for row, result in zip(rows, results, strict=True):
        assert row["frame_map@0.5"] == pytest.approx(result.frame.at(0.5))
        assert row["video_map@0.2"] == pytest.approx(result.video.at(0.2))
        assert row["video_map@0.5:0.95"] == pytest.approx(result.video.over())
        assert row["videos"] == 4 and row["key_frames"] == 16 and row["size"] == "32x43"
    assert dense["frame_difference@0.5"] is None
    difference = pruned["frame_map@0.5"] - dense["frame_map@0.5"]
    assert pruned["frame_difference@0.5"] == pytest.approx(difference)
    low, high = pruned["frame_difference@0.5_95"]
    assert low <= difference + 1e-9 and difference - 1e-9 <= high
    assert pruned["gmacs"] < dense["gmacs"] and pruned["ratio"] > 1
    with pytest.raises(TubeletError, match="other key frames than mine"):
        fewer = look(model, dataset, ["none"], limit=2)
        both = [Detector("mine", model, dataset, looked), Detector("other", model, dataset, fewer)]
        people_table(both, "boxes", timing=False, draws=10)


def test_films_are_drawn_whole(dataset, looked):
    result = measured(dataset, better_and_worse(dataset, looked).rows["none"].values())
    film = {row.name: row.source for row in looked.rows["none"].values()}
    assert sorted(film.values()) == ["film0_walk", "film0_walk", "film1_walk", "film1_walk"]
    by_film = bootstrap(result.frame, clusters=film, draws=200)["0.5"]
    alone = bootstrap(result.frame, clusters={name: name for name in film}, draws=200)
    assert alone == bootstrap(result.frame, draws=200) and by_film != alone["0.5"]
    assert alone["0.5"].low < alone["0.5"].high
    one = bootstrap(result.frame, clusters=dict.fromkeys(film, "one"), draws=20)["0.5"]
    assert one.low == one.high == one.value


def test_what_cannot_be(model, dataset, boxes):
    with pytest.raises(TubeletError, match="every must be at least 1, got 0"):
        look(model, dataset, ["none"], every=0)
    with pytest.raises(SelectionError, match="every token of its key frame"):
        look(model, dataset, ["sta:r=1,groups=4/4/2"])
    other = people_model()
    other.config.id2label = {0: "sit", 1: "run"}
    with pytest.raises(TubeletError, match="walk"):
        open_people(other, boxes)
    with pytest.raises(TubeletError, match=r"jhmdb:SPLIT, ucf24:SPLIT or a csv"):
        open_people(model, "scenes:test")
