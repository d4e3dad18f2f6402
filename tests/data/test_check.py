"""What check-data finds: each kind of problem once, and nothing in a clean data set."""

import json
import os
from pathlib import Path

import av
import pytest

from tests.data.videos import render_video
from tubelet.data.check import KINDS, check_boxes, check_data, is_boxes
from tubelet.data.check import probe as probing
from tubelet.data.check.leaks import source_of
from tubelet.errors import TubeletError

SIZE = (16, 32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Folders with splits, a class each for run and walk, nothing wrong with any of the videos."""
    frames = iter(range(16, 40))
    for split in ("train", "val"):
        for label in ("run", "walk"):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for number in range(2):
                render_video(tmp_path / "data" / split / label / f"{split}{number}.mp4", next(frames), size=SIZE)
    return tmp_path / "data"


def found(data, **options):
    report = check_data([str(data)], **options)
    assert list(report.counts) == sorted(report.counts, key=list(KINDS).index)
    assert report.to_json()["ok"] == (not report.problems)
    return [(problem.kind, problem.message) for problem in report.problems]


def only(problems, kind):
    """The message of the one problem there is."""
    ((got, message),) = problems
    assert got == kind
    return message


def test_a_clean_data_set(data):
    report = check_data([str(data)], classes=2)
    assert (report.problems, report.videos, report.classes) == ([], 8, 2)
    train, val = report.splits
    assert (train.split, train.clips, train.classes, train.smallest, train.largest) == ("train", 4, 2, 2, 2)
    assert (train.frames, val.frames) == ((16, 17, 19), (20, 21, 23))


def test_broken_missing_damaged_and_short(data):
    (data / "train" / "run" / "text.mp4").write_text("no video")
    assert "text.mp4: not a video file" in only(found(data), "broken")
    (data / "train" / "run" / "text.mp4").unlink()
    path = render_video(data / "train" / "run" / "cut.mp4", 60, size=SIZE, faststart=True, options={"g": "12"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert "of 60 frames are missing" in only(found(data), "damaged")
    path.unlink()
    render_video(data / "train" / "run" / "short.mp4", 15, size=SIZE)
    assert only(found(data), "short") == "train/run/short.mp4: 15 frames, 16 are needed"
    assert not found(data, frames=15)
    (data / "train" / "run" / "short.mp4").unlink()
    (data / "gone.csv").write_text("path,label\ntrain/run/train0.mp4,run\ntrain/run/gone.mp4,run\n")
    assert "gone.mp4: no such file" in only(found(data / "gone.csv"), "missing")


def test_quick_does_not_decode_to_the_end(data):
    path = render_video(data / "train" / "run" / "damaged.mp4", 60, size=SIZE, options={"g": "12"})
    with av.open(str(path)) as container:
        positions = [packet.pos for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    content[positions[14] : positions[14] + 8] = b"\xff" * 8  # in the second of five groups of 12
    path.write_bytes(bytes(content))
    assert [kind for kind, _ in found(data)] == ["damaged"] and not found(data, quick=True)


def test_classes(data):
    messages = [message for kind, message in found(data, classes=3) if kind == "class-count"]
    assert messages == ["train: 2 classes, 3 expected", "val: 2 classes, 3 expected"]


def test_a_class_without_a_clip(data):
    for video in (data / "val" / "walk").iterdir():
        video.unlink()
    assert only(found(data), "class-empty") == "val: no clip of the class 'walk'"
    (data / "classes.txt").write_text("run\nwalk\nfly\n")
    assert len([1 for kind, _ in found(data) if kind == "class-empty"]) == 3


def test_splits_that_number_their_classes_differently(data):
    (data / "a.csv").write_text("train/run/train0.mp4,run\ntrain/walk/train0.mp4,walk\n")
    (data / "b.csv").write_text("val/run/val0.mp4,run\n")
    report = check_data([str(data / "a.csv"), str(data / "b.csv")])
    (problem,) = report.problems
    assert (
        problem.kind == "class-count"
        and "a and b number their classes differently (only in one: walk)" in problem.message
    )


def test_rows_that_are_no_clip(data):
    (data / "a.csv").write_text("path,label,start,end\ntrain/run/train0.mp4,run,,\nx.mp4,run,2,1\n")
    assert "line 3 has start '2' and end '1'" in only(found(data / "a.csv"), "row")


def test_parts_of_a_video_are_clips(data):
    rows = [
        "path,label,start,end",
        "train/run/train0.mp4,run,0,0.2",
        "train/run/train0.mp4,run,0.2,",
        "train/run/train0.mp4,run,7,8",
    ]
    (data / "a.csv").write_text("\n".join(rows))
    broken, *short = found(data / "a.csv")
    assert broken == ("broken", "train/run/train0.mp4 7-8 s: its part begins at 7 s, the video has 0.64 s")
    assert [message.partition(": ")[2] for _, message in short] == [f"{n} frames, 16 are needed" for n in (5, 11)]


def test_leaks_are_told_once_as_the_worst_that_they_are(data):
    train, val = data / "train" / "run", data / "val" / "run"
    (val / "copy.mp4").write_bytes((train / "train0.mp4").read_bytes())
    message = only(found(data), "leak-content")
    assert message == "the same content in train (train/run/train0.mp4) and val (val/run/copy.mp4)"
    (val / "copy.mp4").unlink()
    (val / "link.mp4").symlink_to(train / "train0.mp4")
    assert only(found(data), "leak-file").startswith("the same file in train")
    (val / "link.mp4").unlink()
    (train / "train0.mp4").rename(train / "My_Clip_run_u_cm_np1_fr_med_4.mp4")
    (val / "val0.mp4").rename(val / "My_Clip_run_f_nm_np2_ba_goo_11.mp4")
    assert only(found(data), "leak-source").startswith("the same source My_Clip_run in train (train/run/My_Clip")


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("April_09_brush_hair_u_nm_np1_ba_goo_0.mp4", "April_09_brush_hair"),
        ("v_Basketball_g01_c02.avi", "v_Basketball_g01"),
        ("v_Basketball_g01_c07.mp4", "v_Basketball_g01"),
        ("0f39OWEqJ24_000010_000020.mp4", "0f39OWEqJ24"),
        ("_-Z6wFjXtGQ_000001_000011.webm", "_-Z6wFjXtGQ"),
        ("holiday_2.mp4", None),
        ("78687.webm", None),
    ],
)
def test_sources_that_names_tell(name, source):
    assert source_of(Path(name)) == source


def test_clips_that_stand_twice(data):
    run, walk = data / "train" / "run", data / "train" / "walk"
    (run / "again.mp4").write_bytes((run / "train0.mp4").read_bytes())
    assert "the same clip 2 times: train/run/again.mp4" in only(found(data), "duplicate")
    (run / "again.mp4").rename(walk / "again.mp4")
    assert "the same clip as run and walk" in only(found(data), "two-classes")


def test_boxes(data):
    head = "path,frame,x1,y1,x2,y2,label\n"
    good = "train/run/train0.mp4,0,0,0,30,15,run\ntrain/run/train0.mp4,15,1,1,32,16,run\n"
    (data / "boxes.csv").write_text(head + good)
    assert is_boxes(str(data / "boxes.csv")) and not is_boxes(str(data))
    assert not check_boxes(data / "boxes.csv").problems
    bad = "train/run/train0.mp4,16,0,0,30,15,walk\ntrain/run/train1.mp4,0,40,0,50,15,run\ngone.mp4,0,0,0,3,3,run\n"
    shares = "val/run/val0.mp4,0,0.1,0.1,0.9,0.9,run\n"
    (data / "boxes.csv").write_text(head + good + bad + shares)
    report = check_boxes(data / "boxes.csv")
    assert report.counts == {"missing": 1, "box": 3}
    messages = " ".join(problem.message for problem in report.problems)
    for words in ("a box at frame 16, the last is 15", "outside of the 32 x 16 picture", "shares of the picture"):
        assert words in messages
    (data / "boxes.csv").write_text(head + good + good.replace("0,0,30", "9,9,30"))
    report = check_boxes(data / "boxes.csv")
    assert report.counts == {"box": 2} and "lines 2 and 4 give train/run/train0.mp4 two" in report.problems[0].message
    (data / "boxes.csv").write_text(head)
    with pytest.raises(TubeletError, match="no row"):
        check_boxes(data / "boxes.csv")


def test_boxes_of_another_resolution(data):
    """Training cuts them at the edges of the picture (32 x 16) without a word."""
    head = "path,frame,x1,y1,x2,y2,label\n"
    fits = "train/run/train0.mp4,{},-2,-1.5,34,18,run\n"
    over = ["train/run/train0.mp4,3,0,0,30,18.5,run\n", "val/run/val0.mp4,4,-2.5,0,30,15,run\n"]

    def told(*rows):
        (data / "boxes.csv").write_text(head + "".join(rows))
        return [problem.message for problem in check_boxes(data / "boxes.csv").problems if problem.kind == "box"]

    assert told(fits.format(0), fits.format(1)) == []
    (some,) = told(fits.format(0), fits.format(1), over[0], fits.format(4))
    assert (
        "1 of 4 boxes (25 %) reach more than 2 pixels over the edges, such as [0.0, 0.0, 30.0, 18.5] at frame 3" in some
    )
    assert "train/run/train0.mp4 (32 x 16)" in some and "resolution" not in some
    (left,) = told(fits.format(0), over[1], fits.format(5))
    assert "1 of 3 boxes" in left and "[-2.5, 0.0, 30.0, 15.0] at frame 4 of val/run/val0.mp4" in left
    *outside, most = told(over[0], over[1], "val/run/val0.mp4,5,40,5,89.5,52.5,run\n", fits.format(5))
    assert len(outside) == 1 and "is outside of the 32 x 16 picture" in outside[0]
    assert "3 of 4 boxes (75 %)" in most and "they would fit pictures of 90 x 53: are they pixels of another" in most


def test_tubes_of_a_data_set_by_name(data, tmp_path):
    root = tmp_path / "jhmdb"
    for number, label in enumerate(("run", "run", "run", "walk", "walk")):
        (root / label).mkdir(parents=True, exist_ok=True)
        render_video(root / label / f"{number}.mp4", 20 + number, size=SIZE)  # half as large as 64 x 32
    rows = [f"{label}/{number}.mp4,{label}\n" for number, label in enumerate(("run", "run", "run", "walk", "walk"))]
    (root / "split1_train.csv").write_text("video,label\n" + "".join(rows))
    (root / "split1_val.csv").write_text("video,label\n")
    (root / "classes.txt").write_text("run\nwalk\n")

    def tube(*boxes, label="run"):
        return {"label": label, "tube": [[frame, *box] for frame, box in boxes]}

    inside = (40, 1, 60, 30)  # not of a picture of 32 x 16
    videos = {
        "run/0": tube((1, inside), (20, inside)),
        "run/1": tube((1, inside), (2, (70, 1, 90, 30))),
        "run/2": tube((22, inside), (23, inside)),
        "walk/3": tube((99, inside), label="walk"),
    }
    (root / "tubes.json").write_text(
        json.dumps({"labels": ["run", "walk"], "resolution_hw": [32, 64], "videos": videos})
    )
    report = check_data(["jhmdb:split1_train"], root=root, quick=True)
    assert [(problem.kind, problem.message) for problem in report.problems] == [
        ("box", "run/1.mp4: the box [69.0, 0.0, 90.0, 30.0] at frame 1 is outside of the 64 x 32 picture"),
        ("box", "walk/3.mp4: a box at frame 98, the last is 22"),
        ("box", "walk/4.mp4: no tube for this video"),
    ]
    assert report.notes == ["run/2.mp4: 1 of 2 boxes are after the last frame, not used"]
    (root / "tubes.json").unlink()
    assert check_data(["jhmdb:split1_train"], root=root, quick=True).problems == []


def test_real_jhmdb(data_root):
    """Three of its tubes go on after their clips, two of them in this split."""
    report = check_data(["jhmdb:split1_test"], root=data_root / "jhmdb", quick=True)
    assert {problem.kind for problem in report.problems} <= {"short"}
    assert len(report.notes) == 2 and all("/The_Slow_Clap_clap_u_" in note for note in report.notes)


def test_what_cannot_be_checked(data):
    for names, words in {
        ("scenes",): "made on the fly",
        (f"{data}:test",): "no split 'test'; there are train, val",
        ("nothing",): "no data set 'nothing'",
        (f"{data}:val", f"{data}:val"): "given twice",
    }.items():
        with pytest.raises(TubeletError, match=words) as caught:
            check_data(list(names))
        assert "\n" not in str(caught.value)


def crash_on_bad(path: Path, quick: bool = False) -> probing.Probe:
    if path.name == "bad.mp4":
        os._exit(11)
    return probing.Probe(path, frames=20, declared=20)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, to be quick")
def test_a_decoder_that_crashes_takes_only_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(probing, "probe", crash_on_bad)
    monkeypatch.setattr(probing, "START", "fork")
    paths = [tmp_path / ("bad.mp4" if number == 7 else f"{number}.mp4") for number in range(30)]
    told = []
    results = probing.probe_all(paths, workers=2, advance=lambda: told.append(1))
    assert set(results) == set(paths) and len(told) == 30
    assert [path.name for path, one in results.items() if one.error] == ["bad.mp4"]
    assert "the decoder crashes on it" in results[tmp_path / "bad.mp4"].error
