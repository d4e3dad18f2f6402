"""AVA's csv files and label map, and the check of them before training."""

import numpy as np
import pytest

from tubelet.data.check import check_ava, is_ava, is_boxes
from tubelet.data.datasets.ava import (
    ava_boxes,
    pair_problems,
    read_ava_csv,
    read_ava_excluded,
    read_label_map,
    row_problems,
    write_ava_csv,
)
from tubelet.errors import TubeletError

ROW = "clip,0902,0.1,0.2,0.5,0.75,12"


def test_rows_of_truth_with_and_without_persons_and_frames_without_people(tmp_path):
    (tmp_path / "a.csv").write_text(f"{ROW}\nclip,903\n\nb,904.0,-0.01,0.2,0.5,1.02,80,17\r\n")
    boxes = read_ava_csv(tmp_path / "a.csv")
    assert boxes.videos == ("b", "clip") and boxes.video.tolist() == [1, 0] and boxes.second.tolist() == [902, 904]
    assert boxes.boxes.tolist() == [[0.1, 0.2, 0.5, 0.75], [-0.01, 0.2, 0.5, 1.02]] and boxes.label.tolist() == [12, 80]
    assert boxes.scores.tolist() == [1, 1] and boxes.frames() == {("clip", 902), ("b", 904)}
    with pytest.raises(TubeletError, match="line 4 has 8 columns, others have 7; needed: .*,score"):
        read_ava_csv(tmp_path / "a.csv", scored=True)
    (tmp_path / "a.csv").write_text(f"{ROW},0.5\nclip,903\n{ROW},0.25\n")
    assert read_ava_csv(tmp_path / "a.csv", scored=True).scores.tolist() == [0.5, 0.25]
    (tmp_path / "a.csv").write_text(f"{ROW}\n")
    assert read_ava_csv(tmp_path / "a.csv", scored=True).scores.tolist() == [1]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("clip,0902,0.1,0.2,0.5,12", "line 2 has 6 columns; needed: video,second,x1,y1,x2,y2,label"),
        ("clip,0902,0.1,x,0.5,0.75,12", "line 2, column 4 has 'x', a number is needed"),
        ("clip,902.5,0.1,0.2,0.5,0.75,12", "line 2, column 2 has '902.5', a whole number is needed"),
        ("clip,0902,0.1,0.2,0.5,0.75,walk", "line 2, column 7 has 'walk', a whole number is needed"),
        ("clip,0902,0.1,nan,0.5,0.75,12", "line 2, column 4 has 'nan', a number is needed"),
        ("a,hello", "line 2, column 2 has 'hello', a whole number is needed"),
        ("a,902.5", "line 2, column 2 has '902.5', a whole number is needed"),
        (f"clip,{'9' * 20},0.1,0.2,0.5,0.75,12", f"column 2 has '{'9' * 20}', a whole number below 2147483648 is"),
        ("clip,902,0.1,0.2,0.5,0.75,-9000000000", "column 7 has '-9000000000', a whole number below 2147483648 is"),
        ("a" * 140000 + ",0902,0.1,0.2,0.5,0.75,12", "line 2 is no row of a csv (field larger"),
        (f"{ROW},high", "line 2, column 8 has 'high', a number is needed"),
    ],
)
def test_a_row_that_is_none_is_named(tmp_path, row, sentence):
    (tmp_path / "a.csv").write_text(f"{ROW}\n{row}\n")
    with pytest.raises(TubeletError) as error:
        read_ava_csv(tmp_path / "a.csv", scored=True)
    assert sentence in str(error.value) and str(tmp_path / "a.csv") in str(error.value)


def test_written_boxes_are_those_that_are_read(tmp_path):
    rng = np.random.default_rng(0)
    boxes = ava_boxes(["b", "a", "b"], [902, 903, 1798], rng.random((3, 4)), [1, 80, 3], rng.random(3))
    write_ava_csv(tmp_path / "a.csv", boxes, scored=True)
    again = read_ava_csv(tmp_path / "a.csv", scored=True)
    np.testing.assert_allclose(again.boxes, boxes.boxes, atol=5.1e-4)
    np.testing.assert_allclose(again.scores, boxes.scores, atol=5.1e-5)
    assert again.videos == ("a", "b") and (again.video == boxes.video).all() and (again.label == boxes.label).all()
    with pytest.raises(TubeletError, match=r"different length: .* \[2, 1, 2, 2, 2\]"):
        ava_boxes(["a", "b"], [902], np.zeros((2, 4)), [1, 2])


def test_label_maps_of_both_forms(tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text('item {\n  name: "bend/bow (at the waist)"\n  id: 1\n}\nitem { id: 3 name: "it\'s" } # rest\n')
    assert read_label_map(path) == {1: "bend/bow (at the waist)", 3: "it's"}
    path.write_text('label {\n  name: "run {fast}"\n  label_id: 7\n  label_type: PERSON_MOVEMENT\n}\n')
    with pytest.raises(TubeletError, match="needs a name and an id"):
        read_label_map(path)  # braces in a name are none of AVA's
    path.write_text('label {\n  name: "run"\n  label_id: 7\n  label_type: PERSON_MOVEMENT\n}\n')
    assert read_label_map(path) == {7: "run"}
    for text, sentence in (
        ("", "needs entries such as"),
        ('item { name: "a" id: 1 } item { name: "b" id: 1 }', "the id 1"),
        (f'item {{ name: "a" id: {"9" * 20} }}', "the id of 'a' is not below 2147483648"),
    ):
        path.write_text(text)
        with pytest.raises(TubeletError, match=sentence):
            read_label_map(path)
    (tmp_path / "excluded.csv").write_text("a,0902\nb,1000\n")
    assert read_ava_excluded(tmp_path / "excluded.csv") == {("a", 902), ("b", 1000)}
    for text in ("a\n", "a,hello\n", f"a,{'9' * 20}\n"):
        (tmp_path / "excluded.csv").write_text(text)
        with pytest.raises(TubeletError, match="rows of video,second"):
            read_ava_excluded(tmp_path / "excluded.csv")
    for read in (read_label_map, read_ava_excluded):
        with pytest.raises(TubeletError, match="no such file"):
            read(tmp_path / "none.pbtxt")


def test_what_is_commented_out_of_a_label_map_is_no_class(tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text(
        '# item { name: "sit" id: 1 }\nitem { name: "run #2" id: 2 } # was "jog"\n'
        "item {\n  name: 'it is' # \"quoted\"\n  # id: 4\n  id: 3\n}\n"
    )
    assert read_label_map(path) == {2: "run #2", 3: "it is"}


def test_a_first_row_in_any_way_of_writing_numbers_is_one_of_ava(tmp_path):
    path = tmp_path / "a.csv"
    for row, expected in (
        ("clip,0902,1e-05,.2,+0.5,0.75,12", True),
        ("clip,903\nclip,0902,1e-05,2E-1,0.5,0.75,12,1", True),
        ("clip,0902,nan,0.2,0.5,0.75,12", False),
        ("path,frame,x1,y1,x2,y2,label", False),
        ("clip,0902,0.1,0.2,0.5,0.75", False),
    ):
        path.write_text(row + "\n")
        assert is_ava(str(path)) == expected


def test_boxes_that_are_all_empty_are_of_no_use():
    boxes = ava_boxes(["a", "a"], [902, 903], [[0.5, 0.1, 0.4, 0.2], [0.9, 0.1, 0.1, 0.2]], [1, 1])
    (wrong,), odd = row_problems(boxes)
    assert "2 of 2 boxes empty, such as [0.5, 0.1, 0.4, 0.2]; x1 < x2 and y1 < y2 are needed" in wrong and odd == []


def test_real_samples(data_root):
    folder = data_root / "annotation-samples"
    names = read_label_map(folder / "ava_action_list_v2.1_for_activitynet_2018.pbtxt")
    assert len(names) == 60 and max(names) == 80 and names[12] == "stand"
    sample = folder / "mmaction2-ava_dataset"
    boxes = read_ava_csv(sample / "ava_sample.csv")
    assert len(boxes) == 8 and row_problems(boxes, names) == ([], [])
    assert read_ava_excluded(sample / "ava_excluded_timestamps_sample.csv") == {
        ("0f39OWEqJ24", 903),
        ("_-Z6wFjXtGQ", 902),
    }
    sample = folder / "mmaction2-eval_detection"
    truth, found = read_ava_csv(sample / "gt.csv"), read_ava_csv(sample / "pred.csv", scored=True)
    assert (len(truth), len(found)) == (12, 30) and pair_problems(truth, found) == ([], [])
    assert row_problems(found, read_label_map(sample / "action_list.txt")) == ([], [])


def test_check_names_ids_and_seconds_that_are_not_those_of_the_videos(tmp_path, render):
    path = render("clip.mp4", 60)  # 2.4 s
    table = tmp_path / "a.csv"
    table.write_text("clip,0,0.1,0.2,0.5,0.75,12\nclip,1,0.1,0.2,0.5,0.75,12\n")
    report = check_ava(table, root=path.parent)
    assert "`start: 0`" in report.notes[0] and "25.00 frames a second" in report.notes[1]
    assert report.problems == [] and report.videos == 1 and report.splits[0].clips == 2 and report.classes == 1
    assert is_ava(str(table)) and not is_boxes(str(table))
    rows = ["clip,0900,0.1,0.2,0.5,0.75,12", "clip,0901,0.1,0.2,0.5,0.75,0", "clip,0901,0.1,0.2,0.5,0.75,0"]
    table.write_text("\n".join([*rows, "film,0901,0.5,0.2,0.4,0.75,3"]))
    report = check_ava(table, root=path.parent)
    told = {problem.kind: problem.message for problem in report.problems}
    assert "has no video film" in told["missing"] and "1 rows stand twice, such as clip,901" in told["duplicate"]
    sentences = " | ".join(problem.message for problem in report.problems)
    assert "a box at second" not in sentences  # the film was cut at its 900th second
    assert "1 of 4 boxes empty" in sentences and "does it count from 0" in sentences
    table.write_text("clip,0903,0.1,0.2,0.5,0.75,12\n")
    (problem,) = check_ava(table, root=path.parent).problems
    assert "a box at second 903, the video has 2.4 s, from second 900 of the film on" in problem.message
    table.write_text("\n".join([*rows, "film,0901,0.5,0.2,0.4,0.75,3"]))
    report = check_ava(table, root=tmp_path / "nowhere")
    assert [p.message for p in report.problems if p.kind == "missing"] == [
        f"{tmp_path / 'nowhere'} has no video by any of the 2 ids, such as clip; --root names their folder"
    ]
    table.write_text("clip,0,10,20,50,75,12\n")
    assert "seem to be pixels" in check_ava(table, root=path.parent).problems[0].message
