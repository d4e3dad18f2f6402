"""VideoSwin's files: mmaction's (its authors', STTS's) and torchvision's; every key of each accounted for."""

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.peers import mend_torchvision
from tests.checkpoints import video_swin as made
from tests.tiny import SWIN, moving, randomise, tiny
from tubelet import CheckpointError, load_model, save_model
from tubelet.inference import refuse_untrained
from tubelet.models.registry import create_model

STEPS = "stts:T5@0-S4@1"
# name: (state, layout, arguments of the model that differ, arguments that no weight tells)
LAYOUTS = {
    "stts": (made.mmaction, "mmaction", {"select": STEPS}, {"select": STEPS}),
    "mmaction": (made.mmaction, "mmaction", {"qkv_bias": False, "patch_norm": False}, {}),
    "torchvision": (made.torchvision, "swin3d", {"window_size": (4, 3, 2)}, {}),
}
SMALL = {**SWIN, "depths": (1, 2), "heads": (2, 3), "frames": 16, "size": 16, "window_size": (4, 3, 3)}


def small(**arguments):
    model = create_model("videoswin_tiny", **{**SMALL, **arguments})
    randomise(model)
    return model


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request, tmp_path_factory):
    """(layout's name, model, state, load): load takes a changed state."""
    make, name, differs, unseen = LAYOUTS[request.param]
    path = tmp_path_factory.mktemp("layout") / "weights.safetensors"
    model = small(**differs)

    def load(state, **arguments):
        save_file(state, path)
        return load_model(path, **{"frames": 16, "size": 16, **unseen, **arguments})

    return name, model, make(model), load


def weights_of(state):
    """Keys whose loss must be told: the index is known without them."""
    return [key for key in state if not key.endswith("relative_position_index")]


def test_the_same_model_comes_back(layout, tmp_path):
    name, model, state, load = layout
    loaded = load(state)
    report = loaded.report
    assert report.layout == name and not report.new
    assert sorted([*report.matched, *report.renamed, *report.unused]) == sorted(state)
    assert sorted(report.unused) == sorted(key for key in state if key.endswith("relative_position_index"))
    clip = moving(2, model)
    with torch.no_grad():
        assert torch.equal(loaded(clip), model(clip))
        saved = load_model(save_model(loaded, tmp_path))
        assert torch.equal(saved(clip), model(clip))
    assert loaded.config.preprocessing.stride == 2
    if model.plan.placed:
        refuse_untrained(loaded)  # its scorers came with the file


def test_a_fitted_window_says_that_it_needs_fine_tuning(tmp_path):
    save_model(tiny("swin"), tmp_path / "released")
    with pytest.warns(UserWarning, match="window='fitted' is another computation .* fine-tune"):
        load_model(tmp_path / "released", window="fitted")
    load_model(tmp_path / "released", window="released")
    save_model(tiny("swin", window="fitted"), tmp_path / "fitted")
    load_model(tmp_path / "fitted")  # as it was trained


def test_a_key_that_is_absent_or_of_another_shape_is_named(layout):
    _, model, state, load = layout
    for key in weights_of(state):
        with pytest.raises(CheckpointError) as error:
            load({k: v for k, v in state.items() if k != key})
        assert key in str(error.value), key
        with pytest.raises(CheckpointError) as error:
            load({**state, key: state[key][None]})
        assert key in str(error.value), key


def test_an_additional_key_is_named(layout):
    _, _, state, load = layout
    for key in ("layers.9.blocks.0.norm1.weight", "features.4.0.mlp.1.bias", "backbone.norm3.bias", "head.scale"):
        with pytest.raises(CheckpointError) as error:
            load({**state, key: torch.zeros(3)})
        assert key in str(error.value)


def test_a_wrong_index_is_named(layout):
    _, _, state, load = layout
    key = next(key for key in state if key.endswith("index"))
    last = [key for key in state if key.endswith("index")][-1]
    with pytest.raises(CheckpointError, match=f"{last}.* is not the index of pairs"):
        load({**state, last: state[last].flip(0)})
    with pytest.raises(CheckpointError, match=f"{key}.* is not the index of pairs in a window of 2 x 2 x 2"):
        load(state, window_size=(2, 2, 2))


def test_without_the_index_the_window_is_a_guess(layout):
    _, model, state, load = layout
    bare = {key: state[key] for key in weights_of(state)}
    if model.window_size == (4, 3, 3):
        with pytest.warns(UserWarning, match="which window"):
            loaded = load(bare)
        assert loaded.window_size[1] == loaded.window_size[2]
    clip = moving(1, model)
    with torch.no_grad():
        assert torch.equal(load(bare, window_size=model.window_size)(clip), model(clip))


@pytest.mark.parametrize("size", [(16, 36, 44), (10, 28, 30), (6, 64, 24)])
def test_equal_to_torchvision(size, tmp_path):
    """Its own state dict, its own answer: whole, padded and clipped windows."""
    mend_torchvision()
    from torchvision.models.video.swin_transformer import SwinTransformer3d

    torch.manual_seed(0)
    peer = SwinTransformer3d(
        patch_size=[2, 4, 4], embed_dim=12, depths=[2, 2, 3], num_heads=[1, 2, 4], window_size=[4, 3, 3], num_classes=5
    ).eval()  # fmt: skip
    randomise(peer)
    save_file(peer.state_dict(), tmp_path / "weights.safetensors")
    model = load_model(tmp_path / "weights.safetensors", frames=16, size=32)
    assert model.report.layout == "swin3d" and model.depths == (2, 2, 3)
    clip = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(model(clip), peer(clip), rtol=0, atol=2e-5)
