"""The shipped configs build and run two steps: models made small, a few drawn clips, all else as written."""

import pytest
import torch
import yaml

from tests.project import ROOT
from tests.tiny import DETECTOR, MODELS
from tests.training.tiny import train
from tubelet import load_model
from tubelet.data.datasets.scenes import SceneClips, write_scenes
from tubelet.data.scenes import LABELS
from tubelet.inference import refuse_untrained
from tubelet.models.config import ARGUMENTS
from tubelet.selection.spec import parse
from tubelet.training.config import ONLY_TRAINING, make_config, read_config

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
SMALL = dict(MODELS.values()) | {  # of a model: arguments that make it so
    "videomae_small": {"dim": 16, "depth": 2, "heads": 2},
    "videomae_base": {"size": 32, "patch_size": 16, "dim": 16, "depth": 2, "heads": 2},
    "videomae_tiny_jhmdb": {"size": 32, "patch_size": 16, "dim": 16, "depth": 2, "heads": 2},
    "evad_base": DETECTOR,
    "evad_tiny": {**DETECTOR, "frames": 16},
    "videoswin_base": MODELS["swin"][1],
    "videoswin_base_ssv2": MODELS["swin"][1],
}
OWN = ("frames", "segment_length", "position_init", "mixing_div", "dropout", "drop_path", "positions", "select")
HERE = {"device": "cpu", "workers": 0, "threads": 1, "tensorboard": False, "precision": "float32", "log_every": 1}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder with train.csv and val.csv of 24 and 12 small mp4, and a csv of boxes for each."""
    folder = tmp_path_factory.mktemp("clips")
    for split, length in (("train", 24), ("val", 12)):
        write_scenes(folder, SceneClips(split, length=length, curriculum=False, fresh=False))
        rows = [f"{split}/{index:06d}.mp4,8,10,5,40,50,{LABELS[index % 12]}" for index in range(length)]
        (folder / f"{split}_boxes.csv").write_text("\n".join(["path,frame,x1,y1,x2,y2,label", *rows]) + "\n")
    return folder


def small(content, clips):
    """The config with another model and other clips; what it says of training stays."""
    model, data = content["model"], content["data"]
    name = model["name"] if model["name"] != "videomae_tiny_jhmdb" else "videomae_small"
    kept = {k: v for k, v in model.items() if k in OWN}
    content["model"] = {"name": name, **kept, **SMALL[model["name"]]}
    content["model"].pop("num_classes", None)  # those of the data
    if str(data["name"]).startswith("scenes"):
        content["model"]["size"] = 64
    if "select" in kept:
        content["model"]["select"] = smaller(kept["select"])
    if str(data["name"]).startswith("scenes"):
        content["data"]["length"], content["val"]["length"] = 48, 6
    elif content.get("task") == "detect":
        kept = {k: v for k, v in data.items() if k in ("zoom", "per_video")}
        content["data"] = {"name": str(clips / "train_boxes.csv"), **kept}
        content["val"] = {"name": str(clips / "val_boxes.csv")}
    else:
        options = {k: v for k, v in data.items() if k in (*ONLY_TRAINING, "area", "stride", "flip", "mean", "std")}
        content["data"] = {**options, "name": str(clips), "split": "train"}
        content["val"] = {"split": "val", "clips": 1, "crops": 1}
    repeated = content.get("augment", {}).get("repeated", 1)
    content["batch"] = 2 * repeated * content.get("accumulate", 1) if content.get("accumulate", 1) < 3 else 8
    content.pop("epochs", None)
    content["accumulate"] = min(content.get("accumulate", 1), 4)
    return {**content, **HERE, "steps": 2}


def smaller(spec):
    """A spec of the same kind that fits a small model."""
    term = parse(spec).terms[0]
    steps = {"T": "T0.6@0", "S": "S0.8@1", "keep": "keep=0.9@3"}
    budgets = "-".join(steps[step.budget.kind] for step in term.steps)
    return f"{term.name}:{budgets}" + "".join(f",{k}={v}" for k, v in term.options)


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=[p.stem for p in CONFIGS])
def test_two_steps(path, clips, tmp_path):
    written = read_config(path)
    assert set(written.model.options) <= set(ARGUMENTS)
    content = small(yaml.safe_load(path.read_text()), clips)
    config = make_config({**content, "out": str(tmp_path / "run")})
    for section in ("optimizer", "schedule", "augment", "groups"):
        assert getattr(config, section) == getattr(written, section)
    result = train(config)
    assert result.steps == 2
    model = load_model(tmp_path / "run")
    assert all(torch.isfinite(p).all() for p in model.parameters())
    if config.model.select:
        assert model.config.select == config.model.select
        refuse_untrained(model)  # which a learned selection would be, if its training left no word
