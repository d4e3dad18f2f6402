"""Judging detectors on AVA: which seconds, the published rule of testing, its csv, and rows that are gone on from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.evaluation.people import ava_model, box, films
from tubelet.data.datasets.ava import read_ava_csv
from tubelet.data.datasets.keyframes import open_keyframes
from tubelet.errors import TubeletError, VideoError
from tubelet.evaluation import ava_people as judging
from tubelet.evaluation import people_report
from tubelet.evaluation.ava import evaluate_ava
from tubelet.evaluation.ava_people import look_ava, measured_ava, open_ava, write_detections
from tubelet.evaluation.people import open_people
from tubelet.evaluation.people_report import AvaDetector, people_table
from tubelet.models.evad import EVAD

SPEC = "keyframe:keep=0.7@2"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return films(tmp_path_factory.mktemp("ava"))


@pytest.fixture(scope="module")
def model():
    return ava_model()


@pytest.fixture(scope="module")
def data(model, path):
    return open_ava(model, path, rate=5)


@pytest.fixture(scope="module")
def looked(model, data):
    return look_ava(model, data, ["none", SPEC])


def test_seconds_with_a_box_that_are_not_excluded(data, looked):
    for rows in looked.rows.values():
        seen = [(index, row.name, row.second) for index, row in rows.items()]
        assert seen == [(0, "abc", 901), (1, "abc", 903), (2, "def", 901)]
    assert 7 not in data.names and len(data.names) == 79
    assert looked.notes == ()


def test_films_of_another_rate_are_named(model, path):
    (note,) = look_ava(model, open_ava(model, path, rate=6), ["none"]).notes
    assert "2 films have other than 6 frames a second, such as abc with 5" in note


def test_what_is_said_is_the_published_rule(model, data, looked, path):
    """From the clips of training and the raw output of the model: no product, all where nobody passes."""
    clips = open_keyframes(path, rate=5, frames=8, stride=1, short=32, per_video="all")
    with torch.inference_mode():
        for row in looked.rows["none"].values():
            at = next(
                i for i in range(len(clips)) if (clips[i].name, clips[i].frame) == (row.name, (row.second - 900) * 5)
            )
            clip = torch.from_numpy((clips[at].clips[0].numpy() / 255 - 0.45) / 0.225).float().permute(3, 0, 1, 2)
            found = model([clip])
            height, width = clip.shape[2:]
            boxes = found.boxes[-1][0].clamp(min=0).minimum(torch.tensor([width, height, width, height]) - 1.0)
            kept = found.person_scores[0] >= 0.7
            kept = kept if kept.any() else torch.ones_like(kept)
            np.testing.assert_allclose(row.boxes, boxes[kept] / torch.tensor([width, height] * 2), atol=6e-4)
            np.testing.assert_allclose(row.actions, found.action_scores[0][kept], atol=6e-5)


def test_people_from_the_threshold_on_or_all(model, data, monkeypatch):
    usual = judging.answers

    def answers(*given):
        boxes, people, actions = usual(*given)
        people = torch.full_like(people, 0.69)
        people[0, 1] = 0.7
        return boxes, people, actions

    monkeypatch.setattr(judging, "answers", answers)
    rows = look_ava(model, data, ["none"]).rows["none"]
    assert rows[0].people == [0.7]
    assert set(rows[1].people) == {0.69} and len(rows[1].people) > 1


def perfect(rows):
    """The rows of a detector that is right, its best box last: order decides nothing where only one overlaps."""
    labels = {("abc", 901): [12], ("abc", 903): [12, 80], ("def", 901): [12]}
    return [
        replace(
            row,
            boxes=[[0.9, 0.9, 1.0, 1.0], np.round(box((row.second - 900) * 5), 3).tolist()],
            people=[0.7, 0.9],
            actions=[[0.0] * 80, [float(label in labels[row.name, row.second]) for label in range(1, 81)]],
        )
        for row in rows
    ]


def test_a_detector_that_is_right_reaches_one(data, looked):
    rows = perfect(looked.rows["none"].values())
    result = measured_ava(data, rows)
    assert result.frame.at(0.5) == result.frame.over() == 1
    assert sum(ranking.positives.sum() for ranking in result.frame.rankings) == 4  # 7 is not in the map, 902 excluded
    wrong = [replace(row, boxes=row.boxes[::-1]) for row in rows]
    assert measured_ava(data, wrong).frame.at(0.5) < 0.5
    empty = [replace(row, boxes=[[0.0, 0.0, 0.04, 0.0]] * 2) for row in rows]
    assert measured_ava(data, empty).frame.at(0.5) == 0  # all at an edge: wrong, and no error
    more = [replace(row, boxes=[[0.0, 0.0, 0.04, 0.0], row.boxes[1]]) for row in rows]
    assert measured_ava(data, more).frame.at(0.5) == 1 and len(measured_ava(data, more).notes) == 1
    assert measured_ava(data, rows[:1]).frame.at(0.5) == 1  # what was not looked at is not missed


def test_the_csv_has_the_same_number(data, looked, path, tmp_path):
    """Judged alone by the published rules, from files."""
    first, second = write_detections(tmp_path, looked)
    assert (first.name, second.suffix) == ("none.csv", ".csv")
    assert first.read_text().splitlines()[0].startswith("abc,0901,0.")
    folder = path.parent
    for select, file in zip(looked.rows, (first, second), strict=True):
        alone = evaluate_ava(path, file, folder / "map.pbtxt", excluded=folder / "val_excluded_timestamps_v2.2.csv")
        result = measured_ava(data, looked.rows[select].values())
        np.testing.assert_array_equal(alone.frame.values, result.frame.values)
        people = sum(len(row.people) for row in looked.rows[select].values())
        assert len(read_ava_csv(file, scored=True)) == 80 * people


def test_rows_on_disk_are_gone_on_from_within_a_film(model, data, looked, tmp_path, monkeypatch):
    look_ava(model, data, ["none", SPEC], out=tmp_path, batch=1)
    for file in tmp_path.iterdir():  # killed after one row of the film of two, and after both
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[: 2 if file.name == "none.jsonl" else 3]))
    ran, forward = [], EVAD.forward
    monkeypatch.setattr(EVAD, "forward", lambda self, *given: ran.append(1) or forward(self, *given))
    again = look_ava(model, data, ["none", SPEC], out=tmp_path, batch=1)
    assert len(ran) == 3 and again.rows["none"].keys() == looked.rows["none"].keys()
    for select, rows in looked.rows.items():
        for index, row in rows.items():
            np.testing.assert_allclose(again.rows[select][index].actions, row.actions, atol=1e-3)
    with pytest.raises(TubeletError, match="rows of another evaluation: protocol"):
        look_ava(model, replace(data, rate=6), ["none"], out=tmp_path)


def test_what_is_not_there_is_named_and_left_out(model, tmp_path):
    rows = ["gone,0901,0.1,0.2,0.3,0.5,12,0", "abc,0999,0.1,0.2,0.3,0.5,12,0", "ghi,0901,0.1,0.2,0.3,0.5,12,0"]
    path = films(tmp_path, rows)
    (tmp_path / "ghi.mp4").write_bytes(b"no video")
    data, said = open_ava(model, path, rate=5), []
    for _ in range(
        2
    ):  # the second time the seconds that are there are known, and those that are not are asked for again
        found = look_ava(model, data, ["none"], note=said.append, out=tmp_path / "rows")
        assert list(found.bad) == ["gone", "ghi"] and len(found.rows["none"]) == 3
        assert "1 of 4 seconds are not in their files, such as 999 of abc: not judged" in found.notes
    late = look_ava(model, open_ava(model, path, rate=30), ["none"])
    assert "has 20 frames, and the first with a box is 30 by start 900, rate 30" in late.bad["abc"]
    assert f"{tmp_path} has no video gone" in said and any("ghi.mp4" in sentence for sentence in said)
    assert 0 <= measured_ava(data, found.rows["none"].values()).frame.at(0.5) <= 1
    with pytest.raises(VideoError, match="has no video gone"):
        look_ava(model, data, ["none"], strict=True)
    (tmp_path / "map.pbtxt").unlink()
    (tmp_path / "val_excluded_timestamps_v2.2.csv").unlink()
    notes = open_ava(model, path, rate=5).notes
    assert (
        "all 80 actions are judged; published figures are of the 60" in notes[0] and "no second is excluded" in notes[1]
    )
    (tmp_path / "all.csv").write_text(
        "".join(f"{name},{s}\n" for name in ("abc", "def", "ghi") for s in (901, 902, 903, 999))
    )
    with pytest.raises(TubeletError, match=r"no second of its films is left, .*all.csv excludes them"):
        open_ava(model, path, rate=5, excluded=tmp_path / "all.csv")


def test_the_table(model, data, looked, monkeypatch):
    cost = {"gmacs": 1.0, "tokens": [8], "params_m": 1.0}  # counted in the tests of the other table
    monkeypatch.setattr(people_report, "costs_of", lambda model, selects, *given: dict.fromkeys(selects, cost))
    right = {row.index: row for row in perfect(looked.rows["none"].values())}
    wrong = {**right, 2: replace(right[2], boxes=right[2].boxes[::-1])}
    both = replace(looked, rows={"none": right, SPEC: wrong})
    dense, pruned = people_table(
        [AvaDetector("a", model, data, both)], "x.csv", rule="published", timing=False, draws=50
    )
    assert dense["frame_map@0.5"] == 1 and pruned["frame_map@0.5"] == pytest.approx(
        measured_ava(data, wrong.values()).frame.at(0.5)
    )
    assert pruned["frame_difference@0.5"] == pytest.approx(pruned["frame_map@0.5"] - 1) != 0
    assert (dense["videos"], dense["key_frames"], dense["rule"], dense["every"]) == (2, 3, "published", 1)
    assert not any("video_" in key for key in dense) and dense["size"] == "32x43"
    assert len(dense["notes"]) == 1 and "1 of 5 boxes have labels outside of the map (7)" in dense["notes"][0]
    with pytest.raises(TubeletError, match="AVA is judged by the published rule alone"):
        people_table([AvaDetector("a", model, data, both)], "x.csv", timing=False)


def test_what_cannot_be(model, path):
    with pytest.raises(TubeletError, match="every must be at least 1, got 0"):
        look_ava(model, open_ava(model, path, rate=5), ["none"], every=0)
    with pytest.raises(TubeletError, match="the classes of .* are not those of the model|classes are not the 80"):
        other = ava_model()
        other.config.id2label = {number: f"class {number}" for number in range(80)}
        open_ava(other, path)
    with pytest.raises(TubeletError, match="AVA is judged by its own rules: tubelet.evaluation.ava_people"):
        open_people(model, path)
    with pytest.raises(TubeletError, match="has no option 'colour'; its options are labels"):
        open_ava(model, path, colour=True)
