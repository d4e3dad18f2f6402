"""`tubelet classify` and the Python function behind it."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tubelet
from tests.cli.conftest import LABELS
from tests.data.videos import render_video
from tubelet import inference
from tubelet.cli import main
from tubelet.data import load_clips
from tubelet.devices import device_of
from tubelet.inference import UNLIKELY, classify, clips_for, open_model

FIELDS = {"video", "labels", "model", "select", "views", "gmacs", "seconds"}  # INTERFACE of the command


def test_json_is_a_list_of_one_object_a_video(run, model: Path, clip: Path):
    done = run("classify", clip, "--model", model, "--select", "sta:r=4", "--topk", 3, "--json")
    assert done.status == 0 and done.err == ""
    (answer,) = done.json
    assert set(answer) == FIELDS
    assert answer["video"] == str(clip) and answer["model"] == str(model) and answer["select"] == "sta:r=4"
    assert answer["views"] == "1x1"
    assert set(answer["seconds"]) == {"decode", "model"} and min(answer["seconds"].values()) > 0
    assert len(answer["labels"]) == 3 and all(set(label) == {"label", "score"} for label in answer["labels"])
    scores = [label["score"] for label in answer["labels"]]
    assert scores == sorted(scores, reverse=True) and {label["label"] for label in answer["labels"]} < set(LABELS)


def test_scores_are_the_mean_over_views_of_the_softmax(run, model: Path, clip: Path):
    (answer,) = run("classify", clip, "--model", model, "--views", "2x3", "--topk", 99, "--json").json
    loaded = tubelet.load_model(model)
    p = loaded.config.preprocessing
    views = load_clips(clip, frames=p.frames, stride=p.stride, size=p.size, views=(2, 3)).tensor
    with torch.no_grad():
        expected = torch.cat([loaded(view[None]).softmax(-1) for view in views]).mean(0)
    assert [label["label"] for label in answer["labels"]] == [LABELS[i] for i in expected.argsort(descending=True)]
    torch.testing.assert_close(
        torch.tensor([label["score"] for label in answer["labels"]]), expected.sort(descending=True).values
    )
    assert answer["gmacs"] == pytest.approx(tubelet.count_flops(loaded, views[:1]).gmacs)  # of one view


def test_a_selection_costs_less_and_none_is_the_dense_model(run, model: Path, clip: Path):
    def answer(*words: str) -> dict:
        (found,) = run("classify", clip, "--model", model, "--json", *words).json
        del found["seconds"]
        return found

    assert answer() == answer("--select", "none")
    assert answer("--select", "sta:r=0")["labels"] == answer()["labels"]
    assert answer("--select", "sta:r=6")["gmacs"] < answer()["gmacs"]


def test_people_read_a_table_and_what_it_cost(run, model: Path, clip: Path):
    done = run("classify", clip, "--model", model, "--select", "sta:r=4", "--views", "2x1", "--topk", 2)
    assert done.status == 0 and done.err == ""
    assert str(clip) in done.out and "GMACs a view" in done.out and "2x1 views" in done.out
    assert "s to decode" in done.out and "s in the model" in done.out
    assert sum(label in done.out.split() for label in LABELS) == 2


def test_the_packaged_model_is_the_default(run, packaged: str, clip: Path):
    (answer,) = run("classify", clip, "--json").json
    assert answer["model"] == packaged


def test_labels_of_a_file(run, model: Path, clip: Path, tmp_path: Path):
    (tmp_path / "labels.txt").write_text("\n".join("abcdefg"))
    (answer,) = run("classify", clip, "--model", model, "--labels", tmp_path / "labels.txt", "--json").json
    assert {label["label"] for label in answer["labels"]} < set("abcdefg")


def test_each_of_several_videos_is_answered(run, model: Path, clip: Path, tmp_path: Path):
    shutil.copy(clip, tmp_path / "b.mp4")
    shutil.copy(clip, tmp_path / "a.mp4")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "._a.mp4").touch()  # hidden: left by some systems, and no video
    done = run("classify", tmp_path, clip, "--model", model, "--json")
    assert done.status == 0
    assert [answer["video"] for answer in done.json] == [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4"), str(clip)]
    (tmp_path / "b.mp4").write_text("not a video")
    done = run("classify", tmp_path, tmp_path / "missing.mp4", "--model", model, "--json")
    assert done.status == 1
    good, bad, missing = done.json
    assert set(good) == FIELDS
    assert set(bad) == set(missing) == {"video", "error"}
    assert bad["video"] == str(tmp_path / "b.mp4") and missing["video"] == str(tmp_path / "missing.mp4")
    assert done.err.splitlines() == [f"tubelet: {bad['error']}", f"tubelet: {missing['error']}"]


def test_none_of_several_could_be_read(run, model: Path, tmp_path: Path):
    for name in "ab":
        (tmp_path / f"{name}.mp4").touch()
    done = run("classify", tmp_path, "--model", model, "--json")
    assert done.status == 2 and [set(answer) for answer in done.json] == [{"video", "error"}] * 2


def test_a_cut_video_is_answered_with_a_warning(run, model: Path, tmp_path: Path):
    whole = render_video(tmp_path / "whole.mp4", 60, size=(64, 96), faststart=True, options={"g": "5", "bf": "0"})
    content = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 3 // 4])
    done = run("classify", tmp_path / "cut.mp4", "--model", model, "--json")
    assert done.status == 0 and set(done.json[0]) == FIELDS
    assert "frames are missing" in done.err


def test_views_run_a_few_at_a_time(model: Path, clip: Path):
    advanced: list[int] = []
    answer = classify(open_model(model), clip, views=(2, 3), advance=advanced.append)
    assert advanced == [4, 2] and answer.views == (2, 3)


def test_the_seconds_of_decoding_and_of_the_model_are_told_apart(model: Path, clip: Path, monkeypatch):
    opened, clock = open_model(model), [0.0]
    load, scores = inference.load_clips, inference.view_logits

    def slow_load(*positional, **named):
        return replace(load(*positional, **named), seconds=1.0)

    def slow_scores(*positional):
        clock[0] += 2
        return scores(*positional)

    monkeypatch.setattr(inference, "load_clips", slow_load)
    monkeypatch.setattr(inference, "view_logits", slow_scores)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    seconds = classify(opened, clip).seconds
    assert (seconds.decode, seconds.model) == (1.0, 2.0)


@pytest.mark.parametrize("topk", [0, -1])
def test_at_least_one_class_is_asked_for(model: Path, clip: Path, topk: int):
    with pytest.raises(tubelet.TubeletError, match=f"topk must be at least 1, got {topk}"):
        classify(open_model(model), clip, topk=topk)


def test_names_that_standard_output_cannot_encode(run, model: Path, clip: Path, tmp_path: Path, monkeypatch):
    path = tmp_path / "\u00e9.mp4"
    shutil.copy(clip, path)
    done = run("classify", path, "\udcff.mp4", "--model", model, "--json")  # a byte that is no UTF-8
    assert done.out.isascii() and [answer["video"] for answer in done.json] == [str(path), "\udcff.mp4"]
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    assert main(["classify", str(path), "--model", str(model)]) == 0
    assert b"\\xe9.mp4" in out.buffer.getvalue()  # type: ignore[attr-defined]


def test_a_low_score_is_called_unlikely(run, model: Path, clip: Path):
    answer = classify(open_model(model), clip)
    assert answer.unlikely == (answer.labels[0].score < UNLIKELY)
    done = run("classify", clip, "--model", model)
    assert ("none of the model's classes" in done.out) == answer.unlikely


def test_enlarged_views_show_the_same(model: Path, clip: Path):
    loaded = open_model(model)
    views, large = clips_for(loaded, clip), clips_for(loaded, clip, enlarge=3)
    assert large.indices == views.indices
    assert large.tensor.shape[-2:] == (3 * views.tensor.shape[-2], 3 * views.tensor.shape[-1])
    shrunk = torch.nn.functional.avg_pool3d(large.tensor, (1, 3, 3))
    assert (shrunk - views.tensor).abs().mean() < 0.2


def test_devices():
    assert device_of("cpu").type == "cpu"
    for name in ("meta", "tpu", "cuda:99", ""):
        with pytest.raises(tubelet.TubeletError):
            device_of(name)
