"""A training from outside: what it tells, what it takes, and what it makes of a `val` that cannot be read."""

import pytest
import torch

from tests.evaluation.people import videos
from tests.tiny import DETECTOR
from tests.training.tiny import MODEL, config, train
from tubelet.data.scenes import LABELS
from tubelet.models.registry import create_model
from tubelet.training.log import read_log
from tubelet.training.make import open_clips

QUIET = {"val": None, "ema": 0.0, "steps": 4, "log_every": 1, "save_every": 4}
DECODER = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}


def test_the_log_and_the_progress_have_the_learning_rate(tmp_path):
    """The one that the optimizer uses: half of warm-up, all of it, then the cosine; a tenth of it for the head."""
    changed = {"optimizer": {"lr": 0.02}, "groups": {"head": 0.1}, "schedule": {"warmup_steps": 2, "start": 0.5}}
    said = []
    train(config(tmp_path / "run", **QUIET, **changed), progress=said.append)
    rows = read_log(tmp_path / "run")
    assert [row["lr"] for row in rows] == pytest.approx([0.01, 0.015, 0.02, 0.01])
    assert [row["lr_head"] for row in rows] == pytest.approx([0.001, 0.0015, 0.002, 0.001])
    assert "lr_backbone" not in rows[0]
    assert [at.lr for at in said] == [row["lr"] for row in rows]


@pytest.mark.parametrize("augment", [{"erasing": 1.0}, {"colour": 0.4}, {"randaugment": "2/9"}])
def test_scenes_can_be_augmented_as_other_data(tmp_path, augment):
    plain = open_clips(config(tmp_path, **QUIET, augment={}), train=True, model=create_model(**MODEL))
    changed = config(tmp_path, **QUIET, augment=augment)
    clips = open_clips(changed, train=True, model=create_model(**MODEL))
    assert any(not torch.equal(clips[index].clips, plain[index].clips) for index in range(4))


def unreadable(folder, header, *rows):
    """A csv of two empty files."""
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.mp4").touch()
    lines = [header, *(f"{number}.mp4,{row}" for number, row in enumerate(rows))]
    (folder / "val.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "val.csv")


def of_clips(folder):
    return {"val": unreadable(folder / "val", "path,label", LABELS[0], LABELS[1])}


def of_people(folder):
    boxes = ("1,4,10,16,22,sit", "1,4,10,16,22,walk")
    return {
        "data": str(videos(folder, count=4)),
        "val": unreadable(folder / "val", "path,frame,x1,y1,x2,y2,label", *boxes),
        "model": {"name": "evad_base", **DETECTOR, "size": 32, "num_classes": 2},
        "augment": {},
    }


@pytest.mark.parametrize(
    ("task", "changed"),
    [
        ("classify", of_clips),
        ("pretrain", lambda folder: {**of_clips(folder), "pretrain": DECODER, "augment": {}}),
        ("detect", of_people),
    ],
)
def test_a_val_without_a_readable_clip_chooses_nothing(tmp_path, task, changed):
    """It is said once, though it is asked twice, of the raw and of the averaged weights."""
    told = []
    end = {"steps": 2, "save_every": 2, "evaluate_every": 0, "task": task}
    result = train(config(tmp_path / "run", **{**end, **changed(tmp_path)}), note=told.append)
    said = [sentence for sentence in told if "no clip of val can be read, so that no weights are chosen" in sentence]
    assert len(said) == 1 and "0.mp4" in said[0]
    assert result.best == {} and result.last == {} and result.steps == 2
    assert not (tmp_path / "run" / "best").exists() and (tmp_path / "run" / "model.safetensors").exists()
    assert all("weights" not in row for row in read_log(tmp_path / "run"))
