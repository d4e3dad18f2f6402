"""Every key is matched, renamed, known to be unused, or named in an error."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.checkpoints import made
from tubelet import CheckpointError, load_model, save_model

# name: (state of a model, whether a config.json stands beside it)
LAYOUTS = {
    "own": (made.released, True),
    "released": (made.released, False),
    "released, pre-trained": (made.pretrained, False),
    "huggingface 4.x": (made.huggingface, True),
    "huggingface 5.x": (lambda model: made.huggingface(model, "5.x"), True),
    "huggingface, no config": (made.huggingface, False),
}
# Without a config.json only the keys say what is there: without this one, the file is of another, possible model.
TELLS_ALONE = {("released", "pos_embed")}

KNOWN_UNUSED = {"mask_token", "position_embeddings"}


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request, tmp_path_factory):
    """(name, state, load): load takes a changed state."""
    make, config = LAYOUTS[request.param]
    folder = tmp_path_factory.mktemp("layout")
    model = made.small(layer_scale=0.5, positions="learned") if request.param == "released" else made.small()
    state = make(model)
    if request.param == "own":
        save_model(model, folder)
    elif config:
        made.hf_folder(folder, model)

    def load(state):
        save_file(state, folder / "model.safetensors")
        if config:
            return load_model(folder)
        arguments = {"num_classes": 0} if "mask_token" in state else {}
        return load_model(folder / "model.safetensors", **made.UNSEEN, **arguments)

    return request.param, state, load


def test_all_keys_are_accounted_for(layout):
    _, state, load = layout
    report = load(state).report
    told = [*report.matched, *report.renamed, *report.unused]
    assert sorted(told) == sorted(state)
    assert all(reason for reason in report.unused.values())


def needed(name, state):
    """Keys whose loss must be told."""
    unused = ("decoder.", "encoder.norm.", "encoder_to_decoder.", "mask_token")
    return [k for k in state if not k.startswith(unused) and (name, k) not in TELLS_ALONE]


def test_an_absent_key_is_named(layout):
    name, state, load = layout
    for key in needed(name, state):
        with pytest.raises(CheckpointError) as error:
            load({k: v for k, v in state.items() if k != key})
        assert key in str(error.value)


def test_a_renamed_key_is_named(layout):
    name, state, load = layout
    for key in needed(name, state):
        for other in (f"{key}x", f"x.{key}", key.replace(".0.", ".99.") if ".0." in key else f"{key}.y"):
            with pytest.raises(CheckpointError) as error:
                load({other if k == key else k: v for k, v in state.items()})
            assert other in str(error.value) or key in str(error.value)


def test_a_key_of_another_shape_is_named(layout):
    name, state, load = layout
    for key in needed(name, state):
        for changed in (torch.cat([state[key], state[key][:1]]), state[key][None], torch.zeros(())):
            with pytest.raises(CheckpointError) as error:
                load({**state, key: changed})
            assert key in str(error.value), (key, changed.shape)


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1))
def test_an_additional_key_is_named(layout, key):
    name, state, load = layout
    if key in state or key in KNOWN_UNUSED or key.startswith(("decoder.", "encoder_to_decoder.")):
        return
    if name == "released, pre-trained" and key in ("head.weight", "head.bias"):
        return  # loaded with num_classes=0: a classifier is known, and not wanted
    with pytest.raises(CheckpointError) as error:
        load({**state, key: torch.zeros(3)})
    assert key in str(error.value)


def test_both_spellings_of_a_bias_are_one_too_many(tmp_path):
    model = made.small()
    state = {**made.huggingface(model, "5.x"), **made.huggingface(model, "4.x")}
    with pytest.raises(CheckpointError, match="given twice: .*layer.1.attention"):
        load_model(made.hf_folder(tmp_path, model, state=state))


def test_many_keys_are_counted(tmp_path):
    model = made.small()
    state = {k: v for k, v in made.released(model).items() if ".mlp." not in k}
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="missing: blocks.0.mlp.fc1.weight, .* and 3 more"):
        load_model(tmp_path / "weights.safetensors", **made.UNSEEN)


def test_integers_are_no_weights(tmp_path):
    state = made.released(made.small())
    state["head.bias"] = torch.zeros(5, dtype=torch.int64)
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="head.bias of torch.int64 where torch.float32"):
        load_model(tmp_path / "weights.safetensors", **made.UNSEEN)


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64])
def test_other_types_are_no_weights(tmp_path, dtype):
    torch.save({**made.released(made.small()), "head.bias": torch.zeros(5, dtype=dtype)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=f"of another type: head.bias of {dtype}"):
        load_model(tmp_path / "w.pth", **made.UNSEEN)


def test_a_strange_file_shows_its_keys(tmp_path):
    save_file({"conv1.weight": torch.zeros(3), "layer1.0.bn.bias": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="no known layout .*conv1.weight"):
        load_model(tmp_path / "w.safetensors")
