"""MViT's files: SlowFast's and STTS's, PyTorchVideo's, torchvision's; every key of each accounted for."""

import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoints import mvit as made
from tests.tiny import MVIT, moving, randomise, tiny
from tubelet import CheckpointError, load_model, save_model
from tubelet.checkpoints import mvit as layouts
from tubelet.checkpoints.layout import Weights
from tubelet.errors import SelectionError
from tubelet.inference import refuse_untrained
from tubelet.models.registry import create_model

STEPS = "stts:T5@0-S2@3"
# name: (state, arguments of the model that differ, arguments that no weight tells)
UNSEEN = {"pool_kv_stride": (1, 4, 4)}
LAYOUTS = {
    "stts": (made.stts_state, {"select": STEPS}, {"select": STEPS}),
    "slowfast": (made.slowfast_state, {}, {}),
    "slowfast, fused": (made.stts_state, {"unpooled_kv": (3,)}, {}),
    "slowfast, joint": (made.slowfast_state, {"positions": "joint", "norm_stem": True}, {"frames": 16, "size": 32}),
    "pytorchvideo": (made.pytorchvideo_state, {}, {}),
    "torchvision": (made.torchvision_state, {"pool_eps": 1e-6}, {}),
}


def small(**arguments):
    model = create_model("mvit_base_16x4", **{**MVIT, "depth": 4, "dim_mul": ((1, 2.0),), **arguments})
    randomise(model)
    return model


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request, tmp_path_factory):
    """(name, model, state, load): load takes a changed state."""
    make, differs, unseen = LAYOUTS[request.param]
    path = tmp_path_factory.mktemp("layout") / "weights.safetensors"
    model = small(**differs)

    def load(state, **arguments):
        save_file(state, path)
        return load_model(path, **{**UNSEEN, **unseen, **arguments})

    return request.param, model, make(model), load


def some(state):
    """All keys but those of blocks, which are alike: of these one that pools queries, and what makes one wider."""
    return [k for k in state if k.startswith(("blocks.1.", "blocks.0.proj")) or not k.startswith("blocks.")]


def test_the_same_model_comes_back(layout):
    name, model, state, load = layout
    loaded = load(state)
    assert loaded.report.layout == name.split(",")[0].replace("stts", "slowfast")
    told = [*loaded.report.matched, *loaded.report.renamed, *loaded.report.unused]
    assert sorted(told) == sorted(state) and not loaded.report.unused and not loaded.report.new
    clip = moving(2, model)
    with torch.no_grad():
        assert torch.equal(loaded(clip), model(clip))
    assert loaded.config.preprocessing.mean == (0.45,) * 3 and loaded.config.views == (5, 1)
    if name == "stts":
        refuse_untrained(loaded)  # its scorers came with the file


def test_an_absent_key_is_named(layout):
    name, _, state, load = layout
    for key in some(state):
        if "norm_stem" in key or key == "pos_embed":
            continue
        with pytest.raises(CheckpointError) as error:
            load({k: v for k, v in state.items() if k != key})
        assert key in str(error.value)


def test_a_key_of_another_shape_is_named(layout):
    name, _, state, load = layout
    for key in some(state):
        for changed in (torch.cat([state[key], state[key][:1]]), state[key][None]):
            with pytest.raises(CheckpointError) as error:
                load({**state, key: changed}, frames=16, size=32)
            assert key in str(error.value), (key, changed.shape)


def test_an_additional_key_is_named(layout):
    name, _, state, load = layout
    for key in ("blocks.0.attn.rel_pos_h", "blocks.1.attn.pool_x.weight", "extra", "blocks.0.norm3.weight"):
        with pytest.raises(CheckpointError) as error:
            load({**state, key: torch.zeros(3)})
        assert key in str(error.value)


def test_a_training_file_is_unwrapped(tmp_path):
    model = small()
    path = made.save_as_trained(made.stts_state(model), tmp_path / "best.pyth.pt")
    loaded = load_model(path, **UNSEEN)
    assert set(loaded.report.unused) == {"epoch", "optimizer_state", "cfg"}
    with torch.no_grad():
        assert torch.equal(loaded(moving(1, model)), model(moving(1, model)))


def test_scorers_need_their_selection(tmp_path):
    """The file does not say what its scorers keep, nor where: asked for in a sentence."""
    model = small(select="stts:T6@0-S7@0-T4@2-S3@3")
    path = tmp_path / "stts.safetensors"
    save_file(made.stts_state(model), path)
    with pytest.raises(CheckpointError, match=r"scorers \(2 of frames and 2 of regions\).*--select"):
        load_model(path, **UNSEEN)
    with pytest.raises(CheckpointError, match=r"space_score_predictor.0, space_score_predictor.1, and .* has 1 steps"):
        load_model(path, select="stts:T6@0-S7@0-T4@2", **UNSEEN)
    loaded = load_model(path, select="stts:S7@0-T6@0-T4@2-S3@3", **UNSEEN)
    with torch.no_grad():
        assert torch.equal(loaded(moving(2, model)), model(moving(2, model)))
    dense = load_model(path, select="none", **UNSEEN)
    assert len(dense.report.unused) == 40 and not dense.plan.placed
    assert "trained_selectors" not in dense.config.released_options
    other = load_model(path, select="uniform:T4@0", **UNSEEN)
    assert len(other.report.unused) == 40
    again = load_model(save_model(loaded, tmp_path / "own"))
    refuse_untrained(again)
    with torch.no_grad():
        assert torch.equal(again(moving(2, model)), model(moving(2, model)))
    with pytest.raises(SelectionError, match="no trained scorer"):
        refuse_untrained(small(select="gumbel:T4@0"))


def test_released_counts_are_an_option_of_the_selection(tmp_path):
    model = small(select="stts:T0.7@0-S0.8@3,bookkeeping=released")
    save_file(made.stts_state(model), tmp_path / "w.safetensors")
    loaded = load_model(tmp_path / "w.safetensors", select=model.config.select, **UNSEEN)
    assert loaded.tokens_entering() == model.tokens_entering() == [1 + 5 * 64] * 2 + [1 + 5 * 16, 1 + 5 * 9]


def test_other_frames_and_sizes(tmp_path):
    model = small()
    save_file(made.slowfast_state(model), tmp_path / "w.safetensors")
    loaded = load_model(tmp_path / "w.safetensors", frames=8, size=(48, 32), position_grid=(8, 8, 8), **UNSEEN)
    assert loaded.grid == (4, 12, 8) and loaded.position_grid == (8, 8, 8)
    clip = moving(1, frames=8, size=(48, 32))
    with torch.no_grad():
        torch.testing.assert_close(loaded(clip), model(clip))
    with pytest.raises(CheckpointError, match="give the frames the weights were trained with"):
        load_model(tmp_path / "w.safetensors", frames=8, **UNSEEN)
    with pytest.raises(CheckpointError, match="give the size the weights were trained with"):
        load_model(tmp_path / "w.safetensors", size=48, **UNSEEN)


def test_what_no_weight_tells_is_said_aloud(tmp_path):
    save_file(made.slowfast_state(small(pool_kv_stride=(1, 8, 8))), tmp_path / "w.safetensors")
    with pytest.warns(UserWarning, match=r"\(1, 8, 8\) in the first block.*give pool_kv_stride="):
        load_model(tmp_path / "w.safetensors")


def test_the_published_model_is_known_by_its_shapes():
    """313 keys of MViT-B, 36.6 M parameters: no guess is left."""
    with torch.device("meta"):
        model = create_model("mvit_base_16x4")
    state = made.torchvision_state(model)
    weights = layouts.LAYOUTS[2].rename(state)
    assert isinstance(weights, Weights) and not weights.unknown and len(state) == 313
    description = layouts.describe_torchvision(weights, None, {})
    assert description.config.model == "mvit_base_16x4" and not description.warnings
    assert description.config.arguments["size"] == 224 and description.config.arguments["frames"] == 16
    assert len(made.pytorchvideo_state(model)) == 377


def test_layouts_of_other_models_are_not_mistaken(tmp_path):
    save_file(tiny("vit").state_dict(), tmp_path / "vit.safetensors")
    loaded = load_model(tmp_path / "vit.safetensors", heads=3, frames=16, size=32)
    assert loaded.report.layout == "videomae"
