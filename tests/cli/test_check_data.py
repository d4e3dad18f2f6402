"""`tubelet check-data`: 0 when clean, 1 when problems were found, 2 for what is no data set."""

import shutil
from pathlib import Path

import pytest

FIELDS = {"data", "ok", "classes", "videos", "counts", "splits", "problems", "notes"}


@pytest.fixture
def data(tmp_path: Path, clip: Path) -> Path:
    (tmp_path / "train" / "wave").mkdir(parents=True)
    shutil.copy(clip, tmp_path / "train" / "wave" / "a.mp4")
    return tmp_path


def test_clean_is_0(run, data: Path):
    done = run("check-data", data)
    assert done.status == 0 and done.err == ""
    assert "1 videos, 1 classes" in done.out and "No problem found." in done.out
    done = run("check-data", data, "--classes", 1, "--json")
    assert done.status == 0 and done.err == "" and set(done.json) == FIELDS
    assert done.json["ok"] and done.json["splits"][0]["frames"] == [70, 70, 70] and done.json["counts"] == {}


def test_problems_are_1_counts_first_and_the_worst_first(run, data: Path):
    (data / "val" / "wave").mkdir(parents=True)
    shutil.copy(data / "train" / "wave" / "a.mp4", data / "val" / "wave" / "a.mp4")
    for number in range(12):
        (data / "train" / "wave" / f"text{number:02d}.mp4").write_text(f"no video {number}")
    done = run("check-data", data)
    assert done.status == 1
    table = ["train", "val", "count", "leaks: the same content", "files that yield no frame"]
    at = -1
    for words in [*table, "leaks", "the same content in train", "files that yield", "text00.mp4", "and 2 more"]:
        at = done.out.index(words, at + 1)
    assert "text11.mp4" not in done.out
    done = run("check-data", data, "--json")
    assert done.status == 1 and done.json["counts"] == {"leak-content": 1, "broken": 12} and not done.json["ok"]
    assert done.json["problems"][0]["kind"] == "leak-content" and len(done.json["problems"]) == 13
    assert set(done.json["problems"][0]) == {"kind", "split", "clip", "message"}


def test_files_that_are_given_are_splits(run, data: Path):
    (data / "a.csv").write_text("train/wave/a.mp4,wave\n")
    (data / "b.csv").write_text("train/wave/a.mp4,wave\n")
    assert run("check-data", data / "a.csv").status == 0
    done = run("check-data", data / "a.csv", data / "b.csv")
    assert done.status == 1 and "the same file in a (train/wave/a.mp4) and b (train/wave/a.mp4)" in done.out


def test_a_csv_of_boxes(run, data: Path):
    (data / "boxes.csv").write_text("path,frame,x1,y1,x2,y2,label\ntrain/wave/a.mp4,70,0,0,3,3,wave\n")
    done = run("check-data", data / "boxes.csv")
    assert done.status == 1 and "a box at frame 70, the last is 69" in done.out
    done = run("check-data", data / "boxes.csv", data / "boxes.csv")
    assert done.status == 2 and "is checked alone" in done.err


def test_a_config_is_no_list_of_clips(run, data: Path):
    for name, text, kind in (
        ("mine.yaml", "model: {name: videomae_small, select: none}\ndata: scenes\nsteps: 3\n", "a config"),
        ("mine.YML", "data: train\n", "a config"),
        ("clips.json", '{"a": {"path": "train/wave/a.mp4", "label": "wave"}}', "JSON"),
    ):
        (data / name).write_text(text)
        for words in ([name], ["train", name]):
            done = run("check-data", *(data / word for word in words))
            assert (done.status, done.out) == (2, "") and len(done.err.splitlines()) == 1
            assert f"{data / name}: {kind}, not a table of clips; lines path,label[,start,end] are needed" in done.err
    (data / "list.txt").write_text("train/wave/a.mp4 wave\n")
    assert run("check-data", data / "list.txt").status == 0


def test_notes_are_no_problems(run, data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TUBELET_DATA", str(data))
    (data / "jhmdb").mkdir()
    (data / "train").rename(data / "jhmdb" / "videos")
    (data / "jhmdb" / "split1_train.csv").write_text("video,label\nvideos/wave/a.mp4,wave\n")
    tube = '{"label": "wave", "tube": [[70, 1, 1, 9, 9], [71, 1, 1, 9, 9]]}'
    content = f'{{"labels": ["wave"], "resolution_hw": [48, 64], "videos": {{"wave/a": {tube}}}}}'
    (data / "jhmdb" / "tubes.json").write_text(content)
    done = run("check-data", "jhmdb")
    assert done.status == 0 and "No problem found." in done.out and "notes: 1\n  videos/wave/a.mp4: 1 of 2" in done.out
    assert run("check-data", "jhmdb", "--json").json["notes"] == [
        "videos/wave/a.mp4: 1 of 2 boxes are after the last frame, not used"
    ]


def test_a_csv_in_the_format_of_ava(run, data: Path):
    (data / "ava.csv").write_text("a,0,0.1,0.2,0.5,0.75,12\n")
    done = run("check-data", data / "ava.csv")
    assert done.status == 0 and "1 videos, 1 classes" in done.out and "No problem found." in done.out
    (data / "ava.csv").write_text("a,0,0.1,0.2,0.5,0.75,12\na,900,0.1,0.2,0.5,0.75,12\nb,0,0.1,0.2,0.5,0.75,12\n")
    done = run("check-data", data / "ava.csv", "--json")
    assert done.status == 1 and done.json["counts"] == {"missing": 1, "box": 1}
    (data / "ava.csv").write_text("a,0,0.1,0.2,0.5,0.75,12\na,0,left,0.2,0.5,0.75,12\n")
    done = run("check-data", data / "ava.csv")
    assert done.status == 2 and "line 2, column 3 has 'left'" in done.err and len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "DATA"),
        ("nothing", "no data set 'nothing'; there are scenes"),
        ("scenes", "made on the fly"),
        ("jhmdb --root nowhere", "no folder nowhere"),
        ("jhmdb", "TUBELET_DATA"),
        ("empty", "neither a csv"),
        ("train:test", "no split 'test'"),
        ("train --classes 0", "'0' is not a whole number"),
    ],
)
def test_bad_input_is_2_and_one_sentence(run, data: Path, monkeypatch: pytest.MonkeyPatch, words: str, sentence: str):
    (data / "empty").mkdir()
    monkeypatch.chdir(data)
    monkeypatch.delenv("TUBELET_DATA", raising=False)
    done = run("check-data", *words.split())
    assert done.status == 2 and done.out == "" and sentence in done.err and len(done.err.splitlines()) == 1
