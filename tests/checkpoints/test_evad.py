"""Released EVAD files and backbones of others: every key is accounted for, and the answer is the same."""

import pytest
import torch

from tests.tiny import moving, randomise, tiny, tiny_detector
from tubelet.checkpoints import load_backbone, load_model, save_model
from tubelet.checkpoints.evad import LAYOUT
from tubelet.checkpoints.layout import Weights
from tubelet.errors import CheckpointError, TubeletError
from tubelet.models.registry import create_model

GIVEN = {"heads": 3, "attention_heads": 4, "decoder_heads": 3, "frames": 8, "size": (64, 96)}


def released(model):
    """Its weights under the released names."""
    spelt = Weights(LAYOUT, ())
    return {spelt.key_of(name): tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture
def file(tmp_path):
    model = tiny_detector()
    state = {**released(model), "criterion.empty_weight": torch.ones(2)}
    torch.save({"model_state": state, "epoch": 11, "optimizer_state": {}}, tmp_path / "evad.pyth")
    return model, tmp_path / "evad.pyth"


def test_a_released_file(file, tmp_path):
    model, path = file
    loaded = load_model(path, **GIVEN)
    assert loaded.report.layout == "evad"
    assert set(loaded.report.unused) >= {"criterion.empty_weight"} and not loaded.report.new
    assert len(loaded.report.renamed) == len(model.state_dict())
    # weights of the released code expect its behaviour, and the saved folder keeps asking for it
    assert (loaded.restoration, loaded.resize_when) == ("published", "count")
    assert loaded.config.preprocessing.mean == (0.45, 0.45, 0.45) and loaded.config.preprocessing.sampling == "keyframe"
    clip = moving(1, model)
    for spec in ("none", "keyframe:keep=0.6@2"):
        expected = tiny_detector(select=spec, restoration="published", resize_when="count")
        save_model(load_model(path, select=spec, **GIVEN), tmp_path / "saved")
        again = load_model(tmp_path / "saved")
        assert again.restoration == "published" and again.config.select == spec
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(again(clip), expected(clip), strict=True))
    exact = load_model(path, restoration="exact", select="keyframe:keep=0.6@2", **GIVEN)
    with torch.no_grad():
        assert not torch.equal(exact(clip).action_logits, expected(clip).action_logits)


def test_every_key_is_needed_and_none_is_passed_over(file, tmp_path):
    _, path = file
    state = torch.load(path)["model_state"]
    for key in list(state)[::23]:
        if key.startswith("criterion"):
            continue
        torch.save({k: t for k, t in state.items() if k != key}, tmp_path / "less.pth")
        with pytest.raises(CheckpointError, match=key.replace(".", r"\.")):
            load_model(tmp_path / "less.pth", **GIVEN)
    torch.save({**state, "det_head.more.weight": torch.ones(3)}, tmp_path / "more.pth")
    with pytest.raises(CheckpointError, match=r"not known: det_head\.more\.weight"):
        load_model(tmp_path / "more.pth", **GIVEN)


def test_a_backbone_alone(file, tmp_path):
    model, path = file
    state = {k: t for k, t in torch.load(path)["model_state"].items() if not k.startswith(("det_", "init_", "crit"))}
    torch.save(state, tmp_path / "backbone.pth")
    with pytest.warns(UserWarning, match="random until trained"):
        loaded = load_model(tmp_path / "backbone.pth", num_classes=5, proposals=4, **GIVEN)
    assert loaded.num_classes == 5 and loaded.restoration == "exact"
    for name, tensor in loaded.state_dict().items():
        if name.startswith(("backbone.", "pyramid.")):
            assert torch.equal(tensor, model.state_dict()[name]), name
    assert all(name.startswith(("proposals.", "context.")) for name in loaded.report.new)


def test_a_new_classifier(file):
    _, path = file
    with pytest.warns(UserWarning, match="random until trained"):
        loaded = load_model(path, head="new", num_classes=3, **GIVEN)
    assert loaded.num_classes == 3
    with pytest.raises(CheckpointError, match="has 7 classes, num_classes=3 was given"):
        load_model(path, num_classes=3, **GIVEN)
    with pytest.raises(TubeletError, match="at least 1 class"):
        load_model(path, num_classes=0, **GIVEN)


def test_our_own_folder_in_half_precision(tmp_path):
    model = tiny_detector(select="keyframe:keep=0.7@2,4")
    save_model(model, tmp_path / "own", dtype=torch.float16)
    loaded = load_model(tmp_path / "own")
    ours, theirs = loaded.config, model.config
    assert ours.preprocessing == theirs.preprocessing and ours.position_grid == theirs.position_grid == (4, 14, 14)
    assert ours.select == "keyframe:keep=0.7@2,4" and ours.arguments.items() >= theirs.arguments.items()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].half().float()), name


@pytest.mark.parametrize("key", ["sinusoid", "learned"])
def test_a_detector_begins_with_the_backbone_of_a_classifier(tmp_path, key):
    classifier = tiny("vit", positions=key, patch_size=16, size=64, frames=8)
    save_model(classifier, tmp_path / "classifier")
    grid = (4, 4, 4) if key == "sinusoid" else (4, 5, 6)
    detector = tiny_detector(positions=key, position_grid=grid)
    before = {name: t.clone() for name, t in detector.state_dict().items()}
    report = load_backbone(detector, tmp_path / "classifier")
    assert set(report.unused) == {"head.weight", "head.bias"}
    for name, tensor in detector.state_dict().items():
        own = name.removeprefix("backbone.")
        if not name.startswith("backbone."):
            assert torch.equal(tensor, before[name]), name
        elif own == "pos_embed":
            assert tensor.shape == (1, 120, 48)  # resized
        else:
            assert torch.equal(tensor, classifier.state_dict()[own]), name


def test_released_videomae_files_give_a_backbone(tmp_path):
    classifier = tiny("vit", patch_size=16, size=64)
    randomise(classifier, 3)
    fine_tuned = {k: t for k, t in classifier.state_dict().items() if k != "pos_embed"}
    trunk = {f"encoder.{k.replace('fc_norm', 'norm')}": t for k, t in fine_tuned.items() if not k.startswith("head")}
    for name, state in (("fine.pth", {"module": fine_tuned}), ("pre.pth", {"model": trunk})):
        torch.save(state, tmp_path / name)
        detector = tiny_detector(frames=16)
        load_backbone(detector, tmp_path / name)
        for own, tensor in detector.backbone.blocks.state_dict().items():
            assert torch.equal(tensor, classifier.blocks.state_dict()[own])


def test_a_backbone_that_does_not_fit(tmp_path):
    detector = tiny_detector()
    for arguments, says in (
        ({"depth": 5}, "lack blocks.5.norm1.weight"),
        ({"mlp_ratio": 2.0}, "do not fit the backbone: blocks.0.mlp.fc1.weight"),
        ({"positions": "learned"}, "the backbone lacks pos_embed"),
        ({"class_token": True}, "no plain video ViT without class token"),
    ):
        save_model(tiny("vit", **{"patch_size": 16, "size": 64, **arguments}), tmp_path / "other")
        with pytest.raises(CheckpointError, match=says):
            load_backbone(detector, tmp_path / "other")
    with pytest.raises(CheckpointError, match="is no detector"):
        load_backbone(tiny("vit"), tmp_path / "other")


def test_the_small_detector_begins_with_the_packaged_classifier():
    model = create_model("evad_tiny")
    load_backbone(model, "videomae_tiny_jhmdb")
    stored = load_model("videomae_tiny_jhmdb").state_dict()
    assert torch.equal(model.backbone.patch_embed.proj.weight, stored["patch_embed.proj.weight"])
    assert torch.equal(model.backbone.pos_embed, stored["pos_embed"])
