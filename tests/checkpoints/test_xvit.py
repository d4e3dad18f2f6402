"""X-ViT's released files and the image ViT it begins from: every key is accounted for, and what is not said is told."""

import warnings

import pytest
import torch
from safetensors.torch import save_file

from tests.tiny import moving, tiny
from tubelet import CheckpointError, load_model, save_model
from tubelet.views import average_of

SIZES = {"dim": 24, "depth": 2, "heads": 3, "frames": 4, "size": 16, "patch_size": 8, "num_classes": 5}
UNSEEN = {"heads": 3, "frames": 4, "mixing_div": 3, "segment_length": 2}  # what a file does not say
NAMES = {"temporal.cls_token": "consensus.cls_token"} | {
    f"{ours}.{p}": f"consensus.mlp_head.{number}.{p}"
    for ours, number in (("temporal.norm", 0), ("temporal.fc", 1), ("head", 4))
    for p in ("weight", "bias")
}


def small(**arguments):
    return tiny("xvit", **{**SIZES, "mixing_div": 3, "segment_length": 2, "temporal_rule": "modulo", **arguments})


def released(model):
    """As the released code saves it: with a classifier of averaged frames, whether that is used or not."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("temporal.blocks."):
            name = name.replace("temporal.blocks.", "consensus.temporal_encoder.")
        elif name.startswith(("temporal.", "head.")):
            name = NAMES[name] if model.temporal is not None else name.replace("head.", "new_fc.")
        else:
            name = f"base_model.{name}"
        state[name] = tensor.clone()
    return {"new_fc.weight": torch.randn(5, 24), "new_fc.bias": torch.randn(5)} | state


def image_vit():
    """As timm saves a ViT of images, with its classifier and the layer before it."""
    model = small(pool="average", num_classes=0)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items() if name != "temp_embed"}
    return state | {
        "head.weight": torch.randn(21, 24), "head.bias": torch.randn(21),
        "pre_logits.fc.weight": torch.randn(24, 24), "pre_logits.fc.bias": torch.randn(24),
    }  # fmt: skip


@pytest.mark.parametrize("arguments", [{}, {"pool": "average"}, {"qkv_bias": False, "mlp_ratio": 2.0, "head_dim": 40}])
def test_released_files(tmp_path, arguments):
    model = small(**arguments)
    state = released(model)
    torch.save({"epoch": 3, "model_state": state, "optimizer_state": {}, "cfg": "text"}, tmp_path / "xvit.pyth")
    loaded = load_model(tmp_path / "xvit.pyth", **UNSEEN)
    clip = moving(2, model)
    with torch.no_grad():
        assert torch.equal(loaded(clip), model(clip))
    report = loaded.report
    told = [*report.matched, *report.renamed, *(key for key in report.unused if "." in key)]
    assert sorted(told) == sorted(state) and not report.new
    unused = {key for key in report.unused if "." in key}
    assert unused == (set() if model.temporal is None else {"new_fc.weight", "new_fc.bias"})
    assert loaded.config.preprocessing.mean == (0.5, 0.5, 0.5) and loaded.config.views == (1, 3)
    assert average_of(loaded.config) == "logits"  # as released
    save_model(loaded, tmp_path / "own")
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "own")(clip), model(clip))


def test_what_no_file_says_is_told(tmp_path):
    for classes, div, segment in ((174, 4, 16), (5, 8, 8)):
        state = released(small(num_classes=classes))
        state |= {"new_fc.weight": torch.randn(classes, 24), "new_fc.bias": torch.randn(classes)}
        save_file(state, tmp_path / "xvit.safetensors")
        with pytest.warns(UserWarning, match=f"mixing_div={div}, segment_length={segment} is taken"):
            model = load_model(tmp_path / "xvit.safetensors", heads=3)
        arguments = model.config.arguments
        assert (arguments["mixing_div"], arguments["segment_length"], model.frames) == (div, segment, 16)
        assert model.temporal_rule == "modulo" and model.position_grid.t == 4
    with pytest.raises(CheckpointError, match="width 24 is not a known one .* give heads="):
        load_model(tmp_path / "xvit.safetensors")


def test_an_image_vit_begins_an_xvit(tmp_path):
    state = image_vit()
    save_file(state, tmp_path / "vit.safetensors")
    with pytest.warns(UserWarning) as told:
        model = load_model(tmp_path / "vit.safetensors", heads=3, frames=6, num_classes=7, mixing_div=4)
    said = " ".join(str(one.message) for one in told)
    assert "a ViT of images" in said and "mixing_div=4" in said and "random until trained" in said
    report = model.report
    assert sorted([*report.matched, *report.unused]) == sorted(state)
    assert set(report.unused) == {"head.weight", "head.bias", "pre_logits.fc.weight", "pre_logits.fc.bias"}
    assert all(name.startswith(("temporal.", "head.")) or name == "temp_embed" for name in report.new)
    assert model.temp_embed.shape == (1, 6, 1, 24) and not model.temp_embed.any()
    assert torch.equal(model.pos_embed, state["pos_embed"]) and model(moving(1, model)).shape == (1, 7)
    # A clip of still pictures, without mixing: the features of the image model.
    plain = small(pool="average", num_classes=0, mixing="none", frames=6)
    plain.load_state_dict({n: t for n, t in state.items() if not n.startswith(("head.", "pre_"))} | {
        "temp_embed": torch.zeros(1, 6, 1, 24)
    })  # fmt: skip
    same = load(tmp_path, state, num_classes=0, mixing="none", pool="average", frames=6)
    clip = moving(1, plain)
    with torch.no_grad():
        assert torch.equal(same(clip), plain(clip))
    with pytest.raises(CheckpointError, match="no classifier: give num_classes=0"):
        load(tmp_path, state, frames=4)


def test_an_image_vit_without_its_classifier(tmp_path):
    """As timm hands out vit_base_patch16_224.orig_in21k: neither classifier nor the layer before it."""
    state = {key: t for key, t in image_vit().items() if not key.startswith(("head.", "pre_logits."))}
    model = load(tmp_path, state, frames=4, num_classes=7)
    assert model.report.layout == "timm" and sorted(model.report.matched) == sorted(state)
    assert not model.report.unused and model(moving(1, model)).shape == (1, 7)


def test_an_image_vit_at_another_size(tmp_path):
    model = load(tmp_path, image_vit(), num_classes=3, size=(24, 40), frames=2)
    assert model.grid == (2, 3, 5) and model.position_grid == (2, 2, 2) and model.pos_embed.shape[1] == 5
    assert model(moving(1, model)).shape == (1, 3)


def load(folder, state, **arguments):
    save_file({k: t.contiguous() for k, t in state.items()}, folder / "w.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model(folder / "w.safetensors", **{"heads": 3, **arguments})


STATES = {
    "temporal": (lambda: released(small()), {}, ("new_fc.",)),
    "average": (lambda: released(small(pool="average")), {}, ()),
    "timm": (image_vit, {"num_classes": 5}, ("head.", "pre_logits.")),
}


@pytest.mark.parametrize("name", STATES)
def test_every_key_counts(tmp_path, name):
    make, arguments, unused = STATES[name]
    state = make()
    load(tmp_path, state, **arguments)
    for key in state:
        if key.startswith(unused) or "blocks.1." in key:  # block 0 tells the same
            continue
        lost = {k: v for k, v in state.items() if k != key}
        for changed in (lost, {**lost, f"{key}x": state[key]}, {**state, key: torch.cat([state[key], state[key]])}):
            with pytest.raises(CheckpointError) as error:
                load(tmp_path, changed, **arguments)
            assert key in str(error.value), (key, str(error.value))
    with pytest.raises(CheckpointError, match="not known: stray"):
        load(tmp_path, {**state, "stray": torch.zeros(2)}, **arguments)
