"""The released layout: what keys and shapes say of the model, and what they do not."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints import made
from tests.parity.cases import parity_cases
from tests.tiny import moving
from tubelet import CheckpointError, load_model
from tubelet.checkpoints.vit import HEADS, mlp_ratio
from tubelet.models.vit import SIZES


def load(folder, state, **arguments):
    save_file(state, folder / "weights.safetensors")
    return load_model(folder / "weights.safetensors", **arguments)


CASES = {
    "plain": {},
    "no biases": {"qkv_bias": False},
    "scales": {"layer_scale": 0.3},
    "learned positions": {"positions": "learned"},
    "class token": {"class_token": True, "pool": "first", "positions": "learned"},
    "first token": {"pool": "first"},
    "wide": {"size": (16, 32), "frames": 8},
    "other tubelets and MLP": {"tubelet_size": 1, "patch_size": 4, "mlp_ratio": 2.5},
}


@pytest.mark.parametrize("case", CASES)
def test_arguments_are_read_from_the_weights(tmp_path, case):
    model = made.small(**CASES[case])
    unseen = {**made.UNSEEN, **{k: v for k, v in CASES[case].items() if k in ("frames", "size", "qkv_bias")}}
    loaded = load(tmp_path, made.released(model), **unseen)
    clip = moving(2, model)
    assert torch.equal(loaded(clip), model(clip))
    assert loaded.config.position_grid == tuple(model.grid)


@pytest.mark.parametrize("name", SIZES)
def test_heads_of_the_known_widths(name):
    assert HEADS[SIZES[name]["dim"]] == SIZES[name]["heads"]


def test_unknown_widths_need_heads(tmp_path):
    with pytest.raises(CheckpointError, match=r"width 24 is not a known one \(6 for 384.*give heads="):
        load(tmp_path, made.released(made.small()), frames=4, size=16)


def test_a_known_width_needs_nothing(tmp_path):
    model = made.small(dim=384, heads=6, depth=1, frames=16, size=224, patch_size=16, num_classes=400)
    with pytest.warns(UserWarning, match="nothing says how many heads.*: 6 are taken.*give heads="):
        loaded = load(tmp_path, made.released(model))
    assert (loaded.frames, loaded.size, loaded.blocks[0].attn.heads) == (16, (224, 224), 6)
    assert (loaded.config.preprocessing.sampling, loaded.config.views) == ("k400", (5, 3))
    assert loaded.config.id2label[17] == "class 17"
    assert any("Kinetics-400" in note for note in loaded.report.notes)


@pytest.mark.parametrize(("frames", "size"), [(16, 24), (32, 24), (16, 40)])
def test_the_grid_of_learned_positions(tmp_path, frames, size):
    """Square frames are found, if there are as many as in the released models; else frames or size say it."""
    model = made.small(positions="learned", frames=frames, size=size)
    given = {"heads": 3} if frames == 16 else {"heads": 3, "frames": frames}
    loaded = load(tmp_path, made.released(model), **given)
    assert loaded.config.position_grid == tuple(model.grid)
    with torch.no_grad():
        clip = moving(1, model)
        assert torch.equal(loaded(clip), model(clip))


@pytest.mark.parametrize("state_of", [made.released, made.huggingface])
def test_biases_that_were_lost_are_told(tmp_path, state_of):
    state = {k: v for k, v in state_of(made.small()).items() if not k.endswith(("q_bias", "v_bias"))}
    with pytest.warns(UserWarning, match="no biases of query and value.*versions of transformers lose them"):
        loaded = load(tmp_path, state, **made.UNSEEN)
    assert any("no biases" in note for note in loaded.report.notes)
    load(tmp_path, state, **made.UNSEEN, qkv_bias=False)  # without a warning


def test_positions_that_fit_no_grid(tmp_path):
    model = made.small(positions="learned", size=(16, 24))
    with pytest.raises(CheckpointError, match="pos_embed has 12 positions"):
        load(tmp_path, made.released(model), heads=3)
    assert load(tmp_path, made.released(model), heads=3, frames=4, size=(16, 24)).grid == (2, 2, 3)


def test_a_position_grid_resizes(tmp_path):
    """Frames and size describe a bare file; with the grid it was trained on beside them, they are those of the clip."""
    model = made.small()
    clip = torch.randn(1, 3, 8, 32, 32)
    loaded = load(tmp_path, made.released(model), heads=3, frames=8, size=32, position_grid=(2, 2, 2))
    assert torch.equal(loaded(clip), model(clip))


def test_pretrained_needs_a_decision(tmp_path):
    state = made.pretrained(made.small())
    with pytest.raises(CheckpointError, match="no classifier: give num_classes=0 for features, or num_classes=N"):
        load(tmp_path, state, **made.UNSEEN)


def test_pretrained_features(tmp_path):
    model = made.small(num_classes=0)
    model.fc_norm.reset_parameters()
    loaded = load(tmp_path, made.pretrained(model), **made.UNSEEN, num_classes=0)
    clip = moving(1, model)
    assert torch.equal(loaded(clip), model(clip))
    assert set(loaded.report.new) == {"fc_norm.weight", "fc_norm.bias"}
    assert {"mask_token", "encoder_to_decoder.weight", "encoder.norm.bias"} < set(loaded.report.unused)


def test_pretrained_with_a_new_classifier_says_so(tmp_path):
    with pytest.warns(UserWarning, match="head.weight, head.bias: random until trained"):
        loaded = load(tmp_path, made.pretrained(made.small()), **made.UNSEEN, num_classes=9)
    assert loaded(torch.randn(1, 3, 4, 16, 16)).shape == (1, 9)
    assert "random" in loaded.report.new["head.weight"]


@pytest.mark.parametrize("hidden", range(1, 400, 7))
def test_every_width_of_the_mlp_is_met(hidden):
    for dim in (24, 48, 384, 1408):
        assert int(dim * mlp_ratio(hidden, dim)) == hidden


@pytest.mark.parametrize("case", parity_cases("sta", "vit-*.json"), ids=lambda path: path.stem)
def test_released_weights_give_the_released_logits(tmp_path, case):
    tensors, hyper = load_file(case.with_suffix(".safetensors")), json.loads(case.read_text())["hyper"]
    state = {k.removeprefix("param."): v for k, v in tensors.items() if k.startswith("param.")}
    given = {"heads": hyper["num_heads"], "frames": hyper["all_frames"], "size": tuple(hyper["img_size"])}
    if not hyper["qkv_bias"]:  # said, or it would be warned that they are missing
        given["qkv_bias"] = False
    torch.save({"module": state}, tmp_path / "released.pth")
    loaded = load_model(tmp_path / "released.pth", **given)
    expected = tensors["dense_logits"] if "dense_logits" in tensors else tensors["logits"]
    with torch.no_grad():
        difference = (loaded(tensors["input"]) - expected).abs().max()
    assert difference < 2e-5
