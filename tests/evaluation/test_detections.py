"""Detections from columns, csv and what `tubelet detect --json` prints."""

import json

import numpy as np
import pytest

from tubelet.errors import TubeletError
from tubelet.evaluation.detections import as_detections, read_detect_json, read_detections_csv

HEAD = "path,frame,x1,y1,x2,y2,label,score\n"


def test_columns_of_boxes_and_of_tubelets():
    flat = np.arange(16).reshape(2, 8)
    found = as_detections(["b", "a"], [3, 4], [0, 1], flat, [0.5, 0.25])
    assert found.videos == ("a", "b") and found.video.tolist() == [1, 0] and found.length == 2 and len(found) == 2
    assert found.boxes[1].tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]
    assert len(as_detections([], [], [], [], [])) == 0
    for boxes, scores, sentence in (
        (np.zeros((2, 3)), [1, 1], r"shape \(2, 3\)"),
        (np.zeros((2, 4)), [1], r"\[2, 2, 2, 1\]"),
        (np.full((2, 4), np.nan), [1, 1], "no finite number"),
    ):
        with pytest.raises(TubeletError, match=sentence):
            as_detections(["b", "a"], [3, 4], [0, 1], boxes, scores)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("path,frame,x1,y1,x2,y2,label\n", "needs a header with the columns path,frame,x1,y1,x2,y2,label,score"),
        (HEAD + "a,0,0,0,1,1,fly,1\n", "line 2 has the class 'fly', which is none of the 2"),
        (HEAD + "a,0,0,0,1,1,run,1\na,0,0,0,1,1,run,high\n", "line 3 needs a whole frame, four numbers and a score"),
        (HEAD + "a,0,0,0,1,1,run\n", "line 2 has 7 columns, the header has 8"),
        (HEAD + f"a,{'9' * 23},0,0,1,1,run,1\n", "line 2 has frame 99999999999999999999999"),
        (HEAD + ",0,0,0,1,1,run,1\n", "line 2 has no path"),
        (HEAD + "a,0,0,0,inf,1,run,1\n", "line 2 has the box"),
        (HEAD + "a,0,0,0,1,1,run,nan\n", "line 2 has the score nan"),
    ],
)
def test_a_csv_that_is_none(tmp_path, text, sentence):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(TubeletError, match=sentence):
        read_detections_csv(tmp_path / "a.csv", ["run", "walk"])
    with pytest.raises(TubeletError, match="no such file"):
        read_detections_csv(tmp_path / "b.csv", ["run", "walk"])


def test_files_that_are_none(tmp_path):
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    for name, sentence in (("latin", "not a file of text in UTF-8"), ("", "a folder; a file is needed")):
        for read in (read_detections_csv, read_detect_json):
            with pytest.raises(TubeletError, match=sentence):
                read(tmp_path / name, ["run"])


def test_what_detect_prints(tmp_path):
    one = {"frame": 8, "time": 0.3, "box": [1, 2, 30, 40.5], "person": 0.9}
    actions = [{"label": "walk", "score": 0.75}, {"label": "run", "score": 0.25}]
    listed = [
        {"video": "clips/a.mp4", "fps": 30, "size": [64, 48], "detections": [{**one, "actions": actions}]},
        {"video": "clips/b.mp4", "error": "clips/b.mp4: no such file"},
    ]
    path = tmp_path / "found.json"
    path.write_text(json.dumps(listed))
    found = read_detect_json(path, ["run", "walk"], {"clips/a.mp4": "a"})
    assert found.videos == ("a",) and found.frame.tolist() == [8, 8] and found.label.tolist() == [1, 0]
    assert found.boxes.tolist() == [[[1, 2, 30, 40.5]]] * 2 and found.scores.tolist() == [0.75, 0.25]
    with pytest.raises(TubeletError, match="has the class 'walk', which is none of the 1"):
        read_detect_json(path, ["run"])
    for text in ("[]x", '[{"video": "a", "detections": [{"frame": 1}]}]', "3"):
        path.write_text(text)
        with pytest.raises(TubeletError, match="not what `tubelet detect --json` prints"):
            read_detect_json(path, ["run"])
    action = {"label": "run", "score": 0.5}
    for wrong in ({"frame": 10**23}, {"frame": "x"}, {"box": [1, 2, 3]}, {"box": [1, 2, 3, None]}, {"box": 3}):
        one = {"frame": 8, "box": [1, 2, 30, 40], "actions": [action], **wrong}
        path.write_text(json.dumps([{"video": "a", "detections": [one]}]))
        with pytest.raises(TubeletError, match="not what `tubelet detect --json` prints"):
            read_detect_json(path, ["run"])
