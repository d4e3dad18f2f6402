"""The same logits as transformers' own VideoMAE, on random weights."""

import json

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.peers import mend_torchvision
from tests.tiny import randomise
from tubelet import load_model, save_model

mend_torchvision()
transformers = pytest.importorskip("transformers", reason="needs the extra hf")

TINY = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 80, "patch_size": 8,
    "image_size": 32, "num_frames": 16, "num_labels": 5,
}  # fmt: skip
CASES = {
    "square": {},
    "eps of the released code": {"layer_norm_eps": 1e-6},
    "wide, 8 frames": {"image_size": [32, 48], "num_frames": 8},
    "high, 32 frames": {"image_size": [48, 32], "num_frames": 32},
    "tubelets of one frame": {"tubelet_size": 1, "num_frames": 4},
    "no biases": {"qv_bias": False},
    "the first token": {"use_mean_pooling": False},
    "400 classes, 2 heads of 24": {"num_labels": 400, "num_attention_heads": 2},
}
NEW_OF_OLD = {"attention.attention.q_bias": "attention.attention.query.bias"}
NEW_OF_OLD["attention.attention.v_bias"] = "attention.attention.value.bias"


def theirs(**changes):
    model = transformers.VideoMAEForVideoClassification(transformers.VideoMAEConfig(**{**TINY, **changes})).eval()
    randomise(model)
    return model


def state_of(model, spelling):
    """Written by hand, whatever spelling the installed transformers has."""
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    for old, new in NEW_OF_OLD.items():
        wanted, other = (old, new) if spelling == "4.x" else (new, old)
        state = {key.replace(other, wanted): tensor for key, tensor in state.items()}
    return state


def write(folder, model, spelling, file="model.safetensors"):
    state = state_of(model, spelling)
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    if file == "model.safetensors":
        save_file(state, folder / file, {"format": "pt"})
    elif file == "pytorch_model.bin":
        torch.save(state, folder / file)
    else:  # spread over two files
        keys = sorted(state)
        shards = {"model-00001-of-00002.safetensors": keys[::2], "model-00002-of-00002.safetensors": keys[1::2]}
        for name, held in shards.items():
            save_file({key: state[key] for key in held}, folder / name, {"format": "pt"})
        index = {"weight_map": {key: name for name, held in shards.items() for key in held}}
        (folder / file).write_text(json.dumps(index))
    return folder


def compare(ours, model, **clip):
    c = model.config
    size = c.image_size if isinstance(c.image_size, (list, tuple)) else (c.image_size, c.image_size)
    clip = torch.randn(2, 3, c.num_frames, *size)
    with torch.no_grad():
        expected = model(clip.transpose(1, 2)).logits
        assert expected.std() > 0.1
        difference = (ours(clip) - expected).abs().max().item()
    print(f"max |logit difference| {difference:.1e}")
    assert difference < 1e-5


@pytest.mark.parametrize("spelling", ["4.x", "5.x"])
@pytest.mark.parametrize("case", CASES)
def test_logits(tmp_path, case, spelling):
    model = theirs(**CASES[case])
    compare(load_model(write(tmp_path, model, spelling)), model)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors.index.json"])
def test_other_files(tmp_path, file):
    model = theirs()
    compare(load_model(write(tmp_path, model, "4.x", file)), model)


def test_eps_of_every_norm(tmp_path):
    """The last norm keeps 1e-5 in transformers, whatever the config says; a saved copy keeps it too."""
    model = theirs(layer_norm_eps=1e-3)
    ours = load_model(write(tmp_path, model, "4.x"))
    save_model(ours, tmp_path / "copy")
    for loaded in (ours, load_model(tmp_path / "copy"), load_model(tmp_path / "copy" / "model.safetensors")):
        assert loaded.fc_norm.eps == model.fc_norm.eps == 1e-5
        assert {norm.eps for block in loaded.blocks for norm in (block.norm1, block.norm2)} == {1e-3}
        compare(loaded, model)


def test_as_the_installed_version_saves_it(tmp_path):
    model = theirs()
    model.save_pretrained(tmp_path)
    compare(load_model(tmp_path), model)


@pytest.mark.parametrize("spelling", ["4.x", "5.x"])
def test_a_bias_survives(tmp_path, spelling):
    """Versions 5.6 to 5.17 of transformers drop the biases of every published file."""
    model = theirs()
    ours = load_model(write(tmp_path, model, spelling))
    state = state_of(model, "4.x")
    for i, block in enumerate(ours.blocks):
        for name in ("q_bias", "v_bias"):
            expected = state[f"videomae.encoder.layer.{i}.attention.attention.{name}"]
            assert expected.abs().min() > 0
            assert torch.equal(getattr(block.attn, name), expected)


def test_a_file_without_config(tmp_path):
    """Known widths need nothing more than the released number of frames and size."""
    model = theirs(hidden_size=384, num_attention_heads=6, num_hidden_layers=1, image_size=224, patch_size=16)
    save_file(state_of(model, "4.x"), tmp_path / "weights.safetensors")
    with pytest.warns(UserWarning, match="nothing says how many heads.*: 6 are taken"):
        ours = load_model(tmp_path / "weights.safetensors")
    assert (ours.frames, ours.size) == (16, (224, 224))
    assert any("6 heads" in note for note in ours.report.notes)
    compare(ours, model)


def test_processor(tmp_path):
    model = theirs()
    write(tmp_path, model, "4.x")
    processor = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": {"shortest_edge": 32}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    p = load_model(tmp_path).config.preprocessing
    assert (p.mean, p.std, p.size, p.frames) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 32, 16)


def test_features_of_a_trunk(tmp_path):
    """Without classifier: the mean of transformers' last hidden state, normalised."""
    trunk = transformers.VideoMAEModel(transformers.VideoMAEConfig(**TINY)).eval()
    randomise(trunk)
    write(tmp_path, trunk, "5.x")
    ours = load_model(tmp_path, num_classes=0)
    clip = torch.randn(1, 3, 16, 32, 32)
    with torch.no_grad():
        hidden = trunk(clip.transpose(1, 2)).last_hidden_state
        expected = torch.nn.functional.layer_norm(hidden.mean(1), (48,))
        assert (ours(clip) - expected).abs().max() < 1e-5
    assert set(ours.report.new) == {"fc_norm.weight", "fc_norm.bias"}
