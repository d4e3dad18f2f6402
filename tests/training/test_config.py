"""Configs of trainings: every key is known, errors are a sentence."""

import pytest
import yaml

from tests.project import ROOT
from tubelet.errors import TubeletError
from tubelet.training.config import READ, as_yaml, make_config, read_config

LEAST = {"model": "videomae_small", "data": "scenes", "steps": 2}


def test_a_name_alone_is_a_section():
    config = make_config(LEAST)
    assert config.model.name == "videomae_small" and config.data.name == "scenes" and config.data.options == {}


def test_further_keys_of_model_and_data_are_their_options():
    config = make_config({**LEAST, "model": {"name": "videomae_small", "dim": 64}, "data": {"name": "x", "root": "y"}})
    assert config.model.options == {"dim": 64} and config.data.options == {"root": "y"}


def test_val_is_like_data_but_for_what_only_training_has():
    data = {"name": "jhmdb", "split": "split1_fit", "root": "r", "area": [0.3, 1.0]}
    config = make_config({**LEAST, "data": data, "val": {"split": "split1_val"}})
    assert config.val.name == "jhmdb" and config.val.options == {"root": "r", "split": "split1_val"}
    other = make_config({**LEAST, "data": data, "val": "scenes"})
    assert other.val.name == "scenes" and other.val.options == {}


def test_a_config_written_is_the_config_read(tmp_path):
    config = make_config({**LEAST, "optimizer": {"lr": 1e-4, "betas": [0.9, 0.95]}, "select_until": {0.5: "none"}})
    (tmp_path / "config.yaml").write_text(as_yaml(config))
    assert read_config(tmp_path / "config.yaml") == config


def test_overrides_reach_into_sections(tmp_path):
    (tmp_path / "c.yaml").write_text("model: videomae_small\ndata: scenes\nepochs: 3\n")
    given = {
        "optimizer.lr": "1e-4",
        "model.dim": "64",
        "data": "scenes_easy",
        "steps": "5",
        "groups.frozen.backbone": "2",
    }
    config = read_config(tmp_path / "c.yaml", given)
    assert config.optimizer.lr == 1e-4  # which YAML alone reads as a text
    assert config.model.name == "videomae_small" and config.model.options == {"dim": 64}
    assert config.data.name == "scenes_easy" and config.steps == 5 and config.epochs is None
    assert config.groups.frozen == {"backbone": 2.0}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"bacth": 3}, "unknown key 'bacth'; there are .* did you mean 'batch'?"),
        ({"optimizer": {"learning_rate": 3}}, "unknown key 'optimizer.learning_rate'; there are name, lr"),
        ({"optimizer": {"name": "lamb"}}, "optimizer.name is 'lamb': input should be 'adamw' or 'sgd'"),
        ({"batch": "many"}, "batch is 'many': input should be a valid integer"),
        ({"batch": 0}, "batch is 0: input should be greater than or equal to 1"),
        ({"epochs": 2}, "one of epochs and steps"),
        ({"steps": None}, "one of epochs and steps"),
        ({"batch": 6, "accumulate": 4}, "batch=6 is not made of accumulate=4"),
        (
            {"data": {"name": "scenes", "frames": 8}},
            "data.frames: frames and size of a clip are arguments of the model",
        ),
        ({"model": {"dim": 3}}, "a name or weights must be given"),
        ({"select_until": {1.5: "none"}}, "select_until: shares"),
        ({"task": "detect", "batch": 4, "accumulate": 2}, "accumulate: the losses of a detector"),
        ({"groups": {"frozen": {"heart": 2}}}, "groups.frozen.heart"),
    ],
)
def test_what_is_wrong_is_said(changed, sentence):
    with pytest.raises(TubeletError, match=sentence):
        make_config({**LEAST, **changed})


@pytest.mark.parametrize(
    ("task", "key", "value"),
    [
        ("detect", "augment.randaugment", "2/7"),
        ("detect", "augment.erasing", 0.2),
        ("detect", "augment.colour", 0.4),
        ("detect", "augment.label_smoothing", 0.1),
        ("detect", "augment.mixup", 0.8),
        ("detect", "augment.mix_share", 0.5),
        ("detect", "pretrain.mask", 0.5),
        ("pretrain", "augment.mixup", 0.8),
        ("pretrain", "augment.label_smoothing", 0.1),
        ("pretrain", "detect.l1", 1.0),
        ("pretrain", "model.select", "sta:r=8"),
        ("pretrain", "select_until", {0.5: "sta:r=8"}),
        ("classify", "pretrain.mask", 0.5),
        ("classify", "detect.l1", 1.0),
    ],
)
def test_a_key_that_the_task_does_not_read_is_refused(task, key, value):
    section, _, last = key.partition(".")
    content = {**LEAST, "model": {"name": "videomae_small"}}
    content[section] = {**content.get(section, {}), last: value} if last else value
    with pytest.raises(TubeletError, match=f"{key}: task {task} does not read it; .* reads {', '.join(READ[task])}$"):
        make_config({**content, "task": task})
    for other in READ:
        if {key, section} & set(READ[other]):
            make_config({**content, "task": other})


@pytest.mark.parametrize("task", READ)
def test_defaults_may_stand_in_a_config_of_any_task(task):
    """As they do in the config.yaml of every run."""
    config = make_config({**LEAST, "task": task})
    assert make_config(yaml.safe_load(as_yaml(config))) == config


def test_a_missing_key_is_named():
    with pytest.raises(TubeletError, match="key 'model' is missing"):
        make_config({"data": "scenes", "steps": 1})


@pytest.mark.parametrize(
    ("text", "sentence"), [("- a\n- b\n", "holds a list"), ("a: [", "is no YAML"), ("", "NoneType")]
)
def test_a_file_that_is_no_config(tmp_path, text, sentence):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(TubeletError, match=sentence):
        read_config(tmp_path / "c.yaml")
    with pytest.raises(TubeletError, match="cannot be read"):
        read_config(tmp_path / "none.yaml")


CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=[p.stem for p in CONFIGS])
def test_a_shipped_config_is_read_and_says_what_to_expect(path):
    read_config(path)
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("Expect:", "Cost:", "Command:"):
        assert any(word in line for line in head), f"{path.name} does not say {word}"
    assert any(f"configs/{path.name}" in line for line in head)
