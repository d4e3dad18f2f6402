"""`tubelet detect`: its JSON, its table, the annotated video, and what a new user gets wrong."""

from pathlib import Path

import pytest
import torch

import tubelet
from tests.tiny import tiny_detector
from tubelet.data import open_video, write_video
from tubelet.detection import Action, Answer, Detection
from tubelet.visualize.people import COLOURS, annotated, tracks_of

FIELDS = {"video", "fps", "size", "model", "select", "detections"}  # INTERFACE of the command


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny_detector(select="keyframe:keep=0.7@2")
    made.config.id2label = dict(enumerate(("stand", "walk", "run", "jump", "wave", "sit", "fall")))
    return tubelet.save_model(made, tmp_path_factory.mktemp("detectors") / "evad_tiny_jhmdb")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_video(tmp_path / "clip.mp4", torch.full((30, 48, 80, 3), 90, dtype=torch.uint8), fps=10)
    return tmp_path / "clip.mp4"


def test_json(run, detector: Path, video: Path):
    done = run("detect", video, "--model", detector, "--threshold", "0.3", "--topk", 2, "--json")
    assert done.status == 0 and done.err == ""
    (answer,) = done.json
    assert set(answer) >= FIELDS and answer["video"] == str(video) and answer["model"] == str(detector)
    assert answer["fps"] == 10 and answer["size"] == [80, 48] and answer["select"] == "keyframe:keep=0.7@2"
    assert answer["detections"] and answer["key_frames"] == [2, 7, 12, 17, 22, 27]
    for one in answer["detections"]:
        assert set(one) >= {"frame", "time", "box", "person", "actions"} and len(one["box"]) == 4
        assert one["frame"] in answer["key_frames"] and isinstance(one["person"], int)
        assert one["score"] >= 0.3 and all(action["score"] >= 0.3 for action in one["actions"])
        assert all(set(action) == {"label", "score"} for action in one["actions"])


def test_options_reach_the_detector(run, detector: Path, video: Path):
    def answer(*words):
        return run("detect", video, "--model", detector, "--json", *words).json[0]

    assert answer("--threshold", "1")["detections"] == []
    assert len(answer("--rate", "5")["key_frames"]) == 15
    assert answer("--select", "none")["select"] == "none"
    wide, narrow = answer("--threshold", "0"), answer("--threshold", "0", "--stride", 1)
    assert wide["key_frames"] == narrow["key_frames"]
    strict = answer("--threshold", "0.3", "--action-threshold", "1")["detections"]
    assert strict and all(one["actions"] == [] for one in strict)


def test_people_read_a_table(run, detector: Path, video: Path):
    done = run("detect", video, "--model", detector, "--threshold", "0.3")
    assert done.status == 0 and "person" in done.out and "6 key frames" in done.out
    done = run("detect", video, "--model", detector, "--threshold", "1")
    assert "nothing is as sure as 1" in done.out and "0 people" in done.out


def test_the_annotated_video(run, detector: Path, video: Path, tmp_path: Path):
    out = tmp_path / "annotated.mp4"
    done = run("detect", video, "--model", detector, "--threshold", "0.3", "--out", out)
    assert done.status == 0 and f"drawn to {out}" in done.out
    with open_video(out) as reader, open_video(video) as source:
        assert reader.info.frames == 30 and (reader.info.width, reader.info.height) == (80, 48)
        assert reader.info.fps == pytest.approx(10)
        difference = (reader.read([15])[0].float() - source.read([15])[0].float()).abs()
    assert difference.max() > 50  # something was drawn


def test_several_videos_are_drawn_into_a_folder(run, detector: Path, video: Path, tmp_path: Path):
    (tmp_path / "bad.mp4").write_text("not a video")
    (tmp_path / "out").mkdir()
    done = run("detect", video, tmp_path / "bad.mp4", "--model", detector, "--out", tmp_path / "out", "--json")
    assert done.status == 1
    good, bad = done.json
    assert set(good) >= FIELDS and set(bad) == {"video", "error"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip-people.mp4"]


def test_the_packaged_detector_is_the_default(run, detector: Path, video: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tubelet.checkpoints.source.PACKAGED", detector.parent)
    (answer,) = run("detect", video, "--json").json
    assert answer["model"] == "evad_tiny_jhmdb"
    done = run("classify", video)  # a detector is no default of it
    assert done.status == 2 and "no weights come with this copy" in done.err


CASES = {
    "detect": "VIDEO",
    "detect missing.mp4 --model detector": "missing.mp4",
    "detect text.mp4 --model detector": "text.mp4",
    "detect clip.mp4 --model classifier": "is a classifier, which says nothing of where: tubelet classify takes it",
    "classify clip.mp4 --model detector": "is a detector, which says what each person does: tubelet detect takes it",
    "detect clip.mp4 --model evad_base": "evad_base is an architecture",
    "detect clip.mp4 --model nothing": "'nothing'",
    "detect clip.mp4 --model detector --threshold 2": "'2' is not a number from 0 to 1",
    "detect clip.mp4 --model detector --threshold -0.1": "--threshold",
    "detect clip.mp4 --model detector --threshold": "--threshold",
    "detect clip.mp4 --model detector --rate 0": "'0' is not a number above 0",
    "detect clip.mp4 --model detector --stride 0": "'0' is not a whole number",
    "detect clip.mp4 --model detector --topk x": "'x' is not a whole number",
    "detect clip.mp4 --model detector --select sta:r=1,groups=4/4/2": "a detector needs every token of its key frame",
    "detect clip.mp4 --model detector --select keyframe:keep=0.1@2": "must stay above 1/4",
    "detect clip.mp4 --model detector --out out.gif": "its name must end in .mp4",
    "detect clip.mp4 --model detector --out nowhere/out.mp4": "no folder nowhere",
    "detect clip.mp4 --model detector --out clip.mp4": "it is the video itself",
    "detect clip.mp4 text.mp4 --model detector --out out.mp4": "cannot draw 2 videos to out.mp4",
    "detect clip.mp4 --model detector --device tpu": "'tpu'",
}


@pytest.mark.parametrize("words", CASES)
def test_one_sentence_and_status_2(words, run, detector, model, video, tmp_path, monkeypatch):
    (tmp_path / "text.mp4").write_text("not a video\n")
    (tmp_path / "detector").symlink_to(detector)
    (tmp_path / "classifier").symlink_to(model)
    monkeypatch.chdir(tmp_path)
    done = run(*words.split())
    assert done.status == 2 and done.out == "" and CASES[words] in done.err
    assert done.err.startswith("tubelet: ") and len(done.err.splitlines()) == 1
    assert not (tmp_path / "out.mp4").exists()


def test_without_a_packaged_detector_one_is_asked_for(run, video: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tubelet.checkpoints.source.PACKAGED", tmp_path / "nothing")
    done = run("detect", video)
    assert done.status == 2 and "no detector comes with this copy of tubelet" in done.err


def seen(frame, left, person=1, label="walk"):
    return Detection(frame, frame / 10, (left, 20.0, left + 20, 60.0), person, 0.9, (Action(label, 0.8),))


def answer(*detections, keys=(5, 15, 25, 35, 45, 55)):
    return Answer("v.mp4", 10.0, (100, 80), "m", "none", detections, keys, 0.5, 1.0)


def test_boxes_move_evenly_between_key_frames():
    (track,) = tracks_of(answer(seen(15, 10), seen(25, 30, label="run")))
    assert track.at(15).box[0] == 10 and track.at(20).box[0] == 20 and track.at(25).box[0] == 30
    assert track.at(17).actions[0].label == "walk" and track.at(24).actions[0].label == "run"
    assert track.at(10).box[0] == 10 and track.at(30).box[0] == 30  # half a space before and after
    assert track.at(9) is None and track.at(31) is None
    (away,) = tracks_of(answer(seen(5, 10), seen(55, 30)))  # not seen for long
    assert away.at(10) and away.at(50) and away.at(30) is None
    (only,) = tracks_of(answer(seen(2, 10), keys=(2,)))
    assert only.at(0) and only.at(999)  # a video with one key frame


@pytest.mark.parametrize("size", [(80, 100), (48, 40), (800, 900), (3, 3)])
def test_each_person_has_a_colour_and_readable_words(size):
    picture = torch.full((*size, 3), 90, dtype=torch.uint8)
    people = [seen(5, 0, 1), seen(5, 40, 2), None]
    drawn = annotated(picture, people)
    assert torch.equal(picture, torch.full_like(picture, 90)) and drawn.shape == picture.shape
    if min(size) > 70:
        for one in (1, 2):
            colour = torch.tensor(COLOURS[one - 1], dtype=torch.uint8)
            assert (drawn == colour).all(-1).sum() > 100
    assert torch.equal(annotated(picture, [None]), picture)
