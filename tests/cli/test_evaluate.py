"""tubelet evaluate: the table, its JSON, bad input, and a process that is killed."""

import argparse
import json
import signal
import subprocess
import sys

import pytest
import torch

import tubelet
from tests.evaluation.judged import scenes_model
from tests.evaluation.people import ava_model, films, people_model, videos
from tubelet.cli import evaluate, evaluate_people
from tubelet.data import write_video
from tubelet.evaluation import evaluate_ava
from tubelet.evaluation.people import RULES, measured, open_people, read_seen

SPECS = ["sta:keep=0.4", "random:keep=0.5@1"]
SELECTS = [word for select in SPECS for word in ("--select", select)]
QUICK = ["--no-timing", "--data", "scenes:test"]
FIELDS = {
    "model", "select", "data", "views", "videos", "unreadable", "top1", "top1_95", "top5", "top5_95", "mean_class",
    "mean_class_95", "log_loss", "difference", "difference_95", "only_first", "only_this", "p", "gmacs", "gmacs_video",
    "ratio", "tokens", "params_m", "recall", "precision", "kept", "random_recall", "random_precision", "notes",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model of scenes, whose tokens are those that the truth of scenes counts in."""
    from tests.tiny import tiny

    model = scenes_model()
    fine = tiny(size=64, patch_size=8, num_classes=12, depth=3, dim=24)
    fine.config.preprocessing, fine.config.id2label = model.config.preprocessing, model.config.id2label
    return tubelet.save_model(fine, tmp_path_factory.mktemp("evaluated") / "fine")


def rows_of(out):
    return {path.name: path.read_text() for path in (out / "rows").iterdir()}


def test_json_and_what_is_kept(run, folder, tmp_path):
    words = ["evaluate", "--model", folder, *QUICK, *SELECTS, "--limit", 12, "--out", tmp_path / "out"]
    done = run(*words, "--json")
    assert done.status == 0, done.err
    assert [row["select"] for row in done.json] == ["none", *SPECS]
    assert all(set(row) == FIELDS and row["videos"] == 12 for row in done.json)
    assert done.json == json.loads((tmp_path / "out" / "report.json").read_text())
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"rows", "report.json", "report.csv", "curve.png"}
    before = rows_of(tmp_path / "out")
    assert run(*words, "--json").json == done.json and rows_of(tmp_path / "out") == before  # nothing is run again
    more = run(*words, "--select", "uniform:keep=0.5@1")
    assert more.status == 0 and "uniform:keep=0.5@1" in more.out and "kept %" in more.out and "95 %" in more.out
    assert len(rows_of(tmp_path / "out")) == 4


def test_help_says_how_many_threads_milliseconds_are_of(run, monkeypatch, folder):
    """Without --threads an evaluation has all, and its timing one."""
    monkeypatch.setenv("COLUMNS", "200")
    assert "default: all; milliseconds are measured with one" in run("evaluate", "--help").out
    given = []
    monkeypatch.setattr("tubelet.evaluation.table", lambda *of, threads, **more: given.append(threads) or [])
    for words in ([], ["--threads", torch.get_num_threads()]):
        assert run("evaluate", "--model", folder, *QUICK, "--limit", 1, "--json", *words).status == 0
    assert given == [1, torch.get_num_threads()]


def test_two_models_on_the_same_clips(run, folder, tmp_path):
    other = tubelet.load_model(folder)
    torch.nn.init.normal_(other.head.weight)
    second = tubelet.save_model(other, tmp_path / "other")
    done = run("evaluate", "--model", folder, "--model", second, *QUICK, "--limit", 12, "--json")
    first, found = done.json
    assert [first["model"], found["model"]] == [str(folder), str(second)]
    assert first["difference"] is None and found["difference"] == pytest.approx(found["top1"] - first["top1"])


def test_videos_with_times_and_a_file_that_cannot_be_read(run, model, tmp_path):
    for number, label in enumerate(("walk", "run", "sit")):
        (tmp_path / "data" / label).mkdir(parents=True)
        pixels = torch.randint(256, (20, 32, 48, 3), generator=torch.Generator().manual_seed(number)).byte()
        write_video(tmp_path / "data" / label / "a.mp4", pixels, fps=25)
    (tmp_path / "data" / "sit" / "broken.mp4").write_bytes(b"no video")
    words = ["evaluate", "--model", model, "--data", tmp_path / "data", "--views", "2x3", "--select", "random:r=3"]
    done = run(*words, "--json")
    assert done.status == 0 and "broken.mp4" in done.err
    assert all(row["videos"] == 3 and row["unreadable"] == 1 and row["views"] == "2x3" for row in done.json)
    assert all(row["ms_median"] > 0 and row["gmacs_video"] == 6 * row["gmacs"] for row in done.json)
    assert all(row["recall"] is None for row in done.json)
    strict = run(*words, "--strict")
    assert strict.status == 2 and "broken.mp4" in strict.err


def test_config_of_a_training(run, folder, tmp_path):
    config = tmp_path / "mine.yaml"
    model = "model: videomae_small\nsteps: 3\n"
    config.write_text(f"{model}out: {folder}\ndata: scenes_easy\nval: {{split: test}}\n")
    done = run("evaluate", config, "--no-timing", "--limit", 3, "--out", tmp_path / "out", "--json")
    assert done.status == 0, done.err
    assert done.json[0]["data"] == "scenes_easy:test" and done.json[0]["model"] == str(folder)
    assert done.json[0]["notes"] == [] and "of the training" not in done.err
    config.write_text(f"{model}out: {tmp_path / 'empty'}\ndata: scenes_easy\n")
    assert "no model.safetensors there yet" in run("evaluate", config).err
    config.write_text(f"{model}data: scenes_easy\n")
    assert "says no out" in run("evaluate", config).err
    config.write_text("a list\n")
    assert "keys such as model, data and batch are expected" in run("evaluate", config).err
    assert "cannot be read" in run("evaluate", tmp_path / "none.yaml").err


def test_clips_of_the_training_are_said_to_be_so(run, model, tmp_path):
    for split in ("train", "val"):
        for number, label in enumerate(("walk", "run", "sit")):
            pixels = torch.randint(256, (16, 32, 48, 3), generator=torch.Generator().manual_seed(number)).byte()
            (tmp_path / "mk" / split / label).mkdir(parents=True)
            write_video(tmp_path / "mk" / split / label / "a.mp4", pixels, fps=25)
    config, mk = tmp_path / "mine.yaml", tmp_path / "mk"
    head = f"model: videomae_small\nsteps: 3\nout: {model}\n"
    said = "these are the clips of the training itself"
    for text, asked, name, own in (
        (f"data: {mk / 'train'}\n", None, f"{mk / 'train'}", True),
        (f"data: {mk}\n", None, f"{mk}:val", False),  # it trained on mk:train
        (f"data: {mk}:train\n", None, f"{mk}:train", True),
        (f"data: {mk}:train\n", f"{mk}:val", f"{mk}:val", False),
        (f"data: {{name: {mk}, split: train}}\nval: {{split: val}}\n", None, f"{mk}:val", False),
        ("data: scenes\n", None, "scenes:val", False),
        ("data: scenes\n", "scenes:train", "scenes:train", True),
        (f"data: {{name: {mk}, split: train}}\nval: {{split: train}}\n", None, f"{mk}:train", True),
    ):
        config.write_text(head + text)
        args = argparse.Namespace(config=config, data=asked, model=None, root=None, out=None)
        _, data, given, notes = evaluate.what(args)
        assert evaluate.shown_name(args, data, given) == name and (notes != []) == own
        assert all(one.startswith(f"{name}: {said}") for one in notes)
        assert not notes or ("says no val" in notes[0]) == (asked is None and "val:" not in text)
    done = run("evaluate", config, "--no-timing", "--views", "1x1", "--out", tmp_path / "out")
    assert done.status == 0 and f"{mk}:train: 3 videos" in done.out and f"{mk}:train: {said};" in done.err
    (row,) = json.loads((tmp_path / "out" / "report.json").read_text())
    assert row["data"] == f"{mk}:train" and said in row["notes"][0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "say what is evaluated"),
        (["--model", "MODEL", "--data", "nowhere"], "no data set 'nowhere'"),
        (["--model", "MODEL", "--data", "scenes:tset"], "no split 'tset'; allowed: train, val, test"),
        (["--model", "MODEL", "--data", "scenes", "--select", "sta:r=9999"], "r=9999 is too large"),
        (["--model", "MODEL", "--data", "scenes", "--views", "2x1"], "one view"),
        (["--model", "MODEL", "--data", "scenes", "--truth", "box"], "only JHMDB has boxes"),
        (["--model", "MODEL", "--data", "scenes", "--out", "FILE"], "is a file; a folder for the rows"),
        (["--model", "videomae_base", "--data", "scenes"], "videomae_base"),
    ],
)
def test_bad_input_is_one_sentence(run, folder, tmp_path, words, sentence):
    (tmp_path / "file").touch()
    places = {"MODEL": folder, "FILE": tmp_path / "file"}
    done = run("evaluate", *(places.get(word, word) for word in words))
    assert done.status == 2 and sentence in done.err and len(done.err.splitlines()) == 1 and not done.out


def test_rows_of_another_evaluation(run, folder, tmp_path):
    words = ["evaluate", "--model", folder, "--no-timing", "--limit", 2, "--out", tmp_path / "out"]
    assert run(*words, "--data", "scenes:test").status == 0
    other = run(*words, "--data", "scenes:val")
    assert other.status == 2 and "rows of another evaluation: data was 'scenes:test" in other.err
    assert run(*words, "--data", "scenes:val", "--renew").status == 0


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return tubelet.save_model(people_model(), tmp_path_factory.mktemp("detectors") / "people")


def test_a_detector_is_judged_by_its_boxes(run, detector, tmp_path):
    boxes = videos(tmp_path, count=2)
    words = ["evaluate", "--model", detector, "--data", boxes, "--no-timing", "--out", tmp_path / "out", "--every", 6]
    done = run(*words, "--select", "keyframe:keep=0.7@2", "--json")
    assert done.status == 0, done.err
    dense, pruned = done.json
    assert [dense["select"], pruned["select"]] == ["none", "keyframe:keep=0.7@2"]
    assert all(row["videos"] == 2 and row["key_frames"] == 6 and row["every"] == 6 for row in done.json)
    assert dense["frame_difference@0.5"] is None and pruned["frame_difference@0.5_95"] is not None
    assert done.json == json.loads((tmp_path / "out" / "report.json").read_text())
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"rows", "report.json", "report.csv", "curve.png"}
    everywhere = run(*words[:-2], "--every", 9, "--all-frames", "--rule", "joint", "--out", tmp_path / "all").out
    assert "4 key frames (1 of 9 frames), 32x43 pixels, rule joint: score = person x action" in everywhere
    shown = run(*words, "--rule", "published").out
    assert "6 key frames (1 of 6 annotated), 32x43 pixels, rule published" in shown and "frame-mAP@.5 %" in shown
    (published,) = json.loads((tmp_path / "out" / "report.json").read_text())
    assert dense["rule"] == "joint" and published["rule"] == "published" and not published["all_frames"]
    rows = [read_seen(json.loads(line)) for line in (tmp_path / "out/rows/none.jsonl").read_text().splitlines()[1:]]
    dataset = open_people(tubelet.load_model(detector), boxes)
    for row in (dense, published):
        assert row["frame_map@0.5"] == measured(dataset, rows, every=6, rule=row["rule"]).frame.at(0.5)
    assert evaluate_people.RULES == RULES == tuple(evaluate_people.RULE)


def test_a_detector_trained_on_ava_is_judged_on_ava(run, tmp_path):
    """From the config of its training, and from the csv alone: model and films -> AVA's csv -> frame-mAP."""
    truth, out = films(tmp_path), tubelet.save_model(ava_model(), tmp_path / "trained")
    config = tmp_path / "mine.yaml"
    data = f"{{name: {truth}, rate: 5, per_video: all}}"
    config.write_text(f"task: detect\nmodel: evad_tiny\nsteps: 1\nout: {out}\ndata: {data}\nval: {{per_video: 1}}\n")
    done = run("evaluate", config, "--no-timing", "--json")
    assert done.status == 0, done.err
    (row,) = done.json
    assert (row["videos"], row["key_frames"], row["rule"], row["every"], row["unreadable"]) == (2, 3, "published", 1, 0)
    assert "labels outside of the map (7)" in done.err and row["notes"][0] in done.err
    detections = out / "evaluation" / "detections" / "none.csv"
    without = tmp_path / "val_excluded_timestamps_v2.2.csv"
    alone = evaluate_ava(truth, detections, tmp_path / "map.pbtxt", excluded=without)
    for level in ("0.5", "0.75"):
        assert row[f"frame_map@{level}"] == alone.frame.at(float(level))
    (tmp_path / "none.csv").write_text("")
    words = ["evaluate", "--model", out, "--data", truth, "--rate", 5, "--excluded", tmp_path / "none.csv"]
    more = run(*words, "--no-timing")
    assert more.status == 0 and "4 key frames" in more.out and "frame-mAP@.5 %" in more.out, more.err
    assert "video-mAP" not in more.out and "rule published: score = action" in more.out
    assert "AVA is judged by the published rule" in run(*words, "--rule", "joint").err
    assert "AVA is judged at the seconds that have a box" in run(*words, "--all-frames").err
    other = run("evaluate", config, "--data", truth, "--no-timing", "--json", "--every", 2, "--out", tmp_path / "other")
    assert other.status == 0 and other.json[0]["key_frames"] == 2, other.err  # the films are those of the training


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model", "DETECTOR", "--data", "scenes:test"], "jhmdb:SPLIT, ucf24:SPLIT or a csv of boxes"),
        (["--model", "DETECTOR", "--data", "BOXES", "--views", "1x1"], "--views: a detector sees one clip"),
        (["--model", "DETECTOR", "--data", "BOXES", "--workers", "2"], "--workers: the videos of a detector"),
        (["--model", "DETECTOR", "--data", "BOXES", "--every", "0"], "'0' is not a whole number"),
        (["--model", "DETECTOR", "--data", "BOXES", "--select", "sta:r=1,groups=4/4/2"], "every token of its key"),
        (["--model", "DETECTOR", "--model", "MODEL", "--data", "BOXES"], "is a classifier, and the others are"),
        (["--model", "MODEL", "--data", "scenes:test", "--every", "2"], "--every is of detectors"),
        (["--model", "MODEL", "--data", "scenes:test", "--all-frames"], "--all-frames is of detectors"),
        (["--model", "MODEL", "--data", "scenes:test", "--rule", "joint"], "--rule is of detectors"),
        (["--model", "DETECTOR", "--data", "BOXES", "--rule", "best"], "'best'"),
        (["--model", "MODEL", "--data", "scenes:test", "--rate", "25"], "--rate is of detectors"),
        (["--model", "DETECTOR", "--data", "BOXES", "--start", "0"], "--start is of AVA's csv files"),
        (["--model", "DETECTOR", "--data", "BOXES", "--rate", "-1"], "'-1' is not a number above 0"),
    ],
)
def test_what_does_not_fit_a_detector(run, folder, detector, tmp_path, words, sentence):
    places = {"MODEL": folder, "DETECTOR": detector, "BOXES": tmp_path / "boxes.csv"}
    if "BOXES" in words:
        videos(tmp_path, count=1)
    done = run("evaluate", *(places.get(word, word) for word in words))
    assert done.status == 2 and sentence in done.err and len(done.err.splitlines()) == 1 and not done.out


DYING = """
import os, signal, sys
from tubelet.cli import main
from tubelet.evaluation.rows import RowFile
usual, batches = RowFile.add, []
def add(file, rows):
    usual(file, rows)
    batches.append(None)
    if len(batches) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
RowFile.add = add
main(sys.argv[2:])
"""


@pytest.mark.slow
def test_a_killed_evaluation_resumes_to_the_same_rows(run, folder, tmp_path):
    words = ["evaluate", "--model", folder, *QUICK, *SELECTS, "--limit", 36, "--batch", 2]
    assert run(*map(str, words), "--out", tmp_path / "whole").status == 0
    expected, out = rows_of(tmp_path / "whole"), tmp_path / "killed"
    for batches, least in ((8, 4), (17, 14)):  # of all three selections together; rows each one has then
        command = [sys.executable, "-c", DYING, str(batches), *map(str, words), "--out", str(out)]
        died = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = [text.count("\n") - 1 for text in rows_of(out).values()]
        assert died.returncode == -signal.SIGKILL and len(lines) == 3 and not (out / "report.json").exists()
        assert least <= min(lines) < max(lines) < 36  # killed between the selections of a batch
    assert run(*map(str, words), "--out", out).status == 0
    assert rows_of(out) == expected
    assert (out / "report.csv").read_text() == (tmp_path / "whole" / "report.csv").read_text()
