"""The classifier and the names of its classes."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints import made
from tubelet import CheckpointError, load_model, save_model


@pytest.fixture(scope="module", params=["tubelet", "huggingface", "videomae"])
def stored(request, tmp_path_factory):
    """(what to load, what must be given beside it, the model)"""
    folder, model = tmp_path_factory.mktemp("stored"), made.small()
    if request.param == "videomae":
        save_file(made.released(model), folder / "weights.safetensors")
        return folder / "weights.safetensors", made.UNSEEN, model
    if request.param == "huggingface":
        return made.hf_folder(folder, model), {}, model
    return save_model(model, folder), {}, model


def test_stored(stored):
    source, given, model = stored
    loaded = load_model(source, num_classes=5, **given)
    assert torch.equal(loaded.head.weight, model.head.weight)


def test_another_number_of_classes_says_so(stored):
    source, given, _ = stored
    with pytest.raises(CheckpointError, match="has 5 classes, num_classes=9 was given: .*head='new'.*num_classes=0"):
        load_model(source, num_classes=9, **given)


def test_features(stored):
    source, given, model = stored
    loaded = load_model(source, num_classes=0, **given)
    assert loaded.head is None
    assert loaded(torch.randn(1, 3, 4, 16, 16)).shape == (1, 24)
    assert set(loaded.report.unused.values()) == {"num_classes=0 was asked for"}
    assert loaded.config.id2label == {}


@pytest.mark.parametrize("classes", [5, 9])
def test_a_new_head_says_so(stored, classes):
    source, given, model = stored
    with pytest.warns(UserWarning, match="head.weight, head.bias: random until trained"):
        loaded = load_model(source, num_classes=classes, head="new", **given)
    assert loaded.head.weight.shape == (classes, 24)
    assert not torch.equal(loaded.head.weight[:5], model.head.weight)
    assert torch.equal(loaded.fc_norm.weight, model.fc_norm.weight)
    assert set(loaded.report.new) == {"head.weight", "head.bias"}
    assert set(loaded.report.unused.values()) == {"head='new' was asked for"}
    assert loaded.config.id2label[classes - 1] == f"class {classes - 1}"


def test_what_head_may_be(stored):
    source, given, _ = stored
    with pytest.raises(CheckpointError, match="head='old': 'stored' or 'new'"):
        load_model(source, head="old", **given)
    with pytest.raises(CheckpointError, match="there would be no classifier"):
        load_model(source, head="new", num_classes=0, **given)


def test_a_saved_model_of_features_loads_as_one(tmp_path):
    model = made.small(num_classes=0)
    assert load_model(save_model(model, tmp_path)).head is None


def test_config_of_another_number_of_classes(tmp_path):
    config = json.loads((save_model(made.small(), tmp_path) / "config.json").read_text())
    save_file(load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors")  # without its header
    config["arguments"]["num_classes"] = 6
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="config.json says 6 classes, the classifier of the weights has 5"):
        load_model(tmp_path)


@pytest.mark.parametrize("saved_by", ["tubelet", "huggingface"])
def test_names_with_a_gap(tmp_path, saved_by):
    model, names = made.small(), {str(i): f"b{i}" for i in range(1, 6)}
    if saved_by == "huggingface":
        made.hf_folder(tmp_path, model, id2label=names)
    else:
        config = json.loads((save_model(model, tmp_path) / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": names}))
    with pytest.raises(CheckpointError, match="config.json of .* numbers 5 classes but has no class 0"):
        load_model(tmp_path)


def test_names_of_another_number_of_classes(tmp_path):
    folder = made.hf_folder(tmp_path, made.small(), id2label={"0": "run", "1": "jump"})
    with pytest.raises(CheckpointError, match="names 2 classes, the model has 5"):
        load_model(folder)
    assert load_model(folder, labels=list("abcde")).config.id2label[4] == "e"


def test_labels(stored, tmp_path):
    source, given, _ = stored
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    assert load_model(source, labels=tmp_path / "labels.txt", **given).config.id2label == dict(enumerate("abcde"))
    assert load_model(source, labels=str(tmp_path / "labels.txt"), **given).config.id2label[0] == "a"
    with pytest.raises(CheckpointError, match="labels names 4 classes, the model has 5"):
        load_model(source, labels=list("abcd"), **given)


def test_names_that_transformers_makes_up_are_none(tmp_path):
    made_up = {str(i): f"LABEL_{i}" for i in range(5)}
    folder = made.hf_folder(tmp_path, made.small(), id2label=made_up)
    assert load_model(folder).config.id2label[3] == "class 3"


def test_released_protocols(tmp_path):
    config = load_model(made.hf_folder(tmp_path, made.small(num_classes=174))).config
    assert (config.preprocessing.sampling, config.views) == ("ssv2", (2, 3))
