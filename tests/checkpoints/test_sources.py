"""Where weights are found: folders, files, the package, the hub's local cache."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints import made
from tubelet import CheckpointError, list_models, load_model, save_model
from tubelet.checkpoints import default_model, list_layouts, packaged_models, source

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "MCG-NJU/videomae-tiny-finetuned"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A local cache of the hub, laid out as huggingface_hub does: refs/main, snapshots/COMMIT with links to blobs."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repo = tmp_path / "hub" / f"models--{REPO.replace('/', '--')}"
    for folder in ("refs", "blobs", f"snapshots/{COMMIT}"):
        (repo / folder).mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)

    def fill(folder):
        for number, file in enumerate(sorted(folder.iterdir())):
            shutil.copy(file, repo / "blobs" / str(number))
            (repo / "snapshots" / COMMIT / file.name).symlink_to(f"../../blobs/{number}")

    return fill


def same(loaded, model):
    clip = torch.randn(1, 3, *(4, 16, 16))
    return torch.equal(loaded(clip), model(clip))


@pytest.mark.parametrize("saved_by", ["hugging face", "tubelet"])
def test_hub_id(tmp_path, cache, saved_by):
    model = made.small()
    folder = (
        made.hf_folder(tmp_path / "made", model) if saved_by == "hugging face" else save_model(model, tmp_path / "m")
    )
    cache(folder)
    loaded = load_model(REPO)
    assert (loaded.head.weight == model.head.weight).all()
    assert loaded.report.source == REPO


def test_hub_id_with_bin_only(tmp_path, cache):
    model = made.small()
    folder = made.hf_folder(tmp_path / "made", model)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    cache(folder)
    assert torch.equal(load_model(REPO).head.weight, model.head.weight)


def test_hub_id_of_which_only_settings_are_here(tmp_path, cache):
    folder = made.hf_folder(tmp_path / "made", made.small())
    (folder / "model.safetensors").unlink()
    cache(folder)
    with pytest.raises(CheckpointError, match=f"{REPO} has no weights .*it holds config.json"):
        load_model(REPO)


def test_hub_id_without_network(cache):
    with pytest.raises(CheckpointError, match="'user/name' is no folder or file here.* HF_HUB_OFFLINE is set") as error:
        load_model("user/name")
    assert "\n" not in str(error.value)


def test_network_that_does_not_answer(cache, monkeypatch):
    import huggingface_hub

    def broken(*args, **kwargs):
        raise ConnectionError("something\nlong")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    with pytest.raises(CheckpointError, match="cannot be had: ConnectionError: something$"):
        load_model("user/name")


@pytest.mark.parametrize("name", ["nowhere", "runs/model.pth", "a/b/c", "/no/folder", "./a", "a/", "-a/b", "a b/c", ""])
def test_neither_path_nor_hub_id(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(source, "download", lambda repo: pytest.fail(f"asked the hub for {repo!r}"))
    with pytest.raises(CheckpointError):
        load_model(name)


def test_an_architecture_is_no_model():
    for name in list_models():
        with pytest.raises(CheckpointError, match=f"{name} is an architecture whose weights do not come with"):
            load_model(name)


def test_packaged(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "PACKAGED", tmp_path)
    assert packaged_models() == []
    with pytest.raises(CheckpointError, match="no weights come with this copy"):
        default_model()
    model = made.small()
    save_model(model, tmp_path / "b_scenes")
    assert default_model() == "b_scenes"
    save_model(model, tmp_path / source.DEFAULT)
    assert packaged_models() == ["b_scenes", source.DEFAULT]
    assert default_model() == source.DEFAULT
    assert same(load_model("b_scenes"), model)


@pytest.mark.parametrize("name", packaged_models())
def test_what_comes_with_the_package_loads(name):
    model = load_model(name)
    config = model.config
    assert len(config.id2label) == config.arguments["num_classes"] == model.head.out_features
    assert not model.training
    p = config.preprocessing
    size = (p.size, p.size) if isinstance(p.size, int) else p.size
    assert model(torch.zeros(1, 3, p.frames, *size)).isfinite().all()


def test_a_file_in_its_folder_is_read_with_its_config(tmp_path):
    model = made.small()
    folder = made.hf_folder(tmp_path, model)
    assert load_model(folder / "model.safetensors").config == load_model(folder).config


def test_a_file_of_another_name_is_read_alone(tmp_path):
    """Its config.json may be another model's."""
    folder = made.hf_folder(tmp_path, made.small())
    (folder / "model.safetensors").rename(folder / "older.safetensors")
    with pytest.raises(CheckpointError, match="give heads="):
        load_model(folder / "older.safetensors")
    assert load_model(folder).frames == 4  # the only weights of that folder


def test_folders_that_cannot_be_right(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no weights \(such as model.safetensors\); it holds nothing"):
        load_model(tmp_path)
    for name in ("a.pth", "b.safetensors"):
        save_file({"x": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(CheckpointError, match="several files of weights: name one of a.pth, b.safetensors"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds a list"),
        ('{"model_type": "vivit"}', "of type 'vivit'; of Hugging Face's, videomae can be read"),
        ('{"format": 99}', "not of format 1"),
        ('{"format": 1}', "config.json is not as tubelet writes it"),
        ('{"format": 1, "model": "a", "architecture": "b", "extra": 1}', "unknown fields"),
        ('{"format": 1, "model": "a", "architecture": "b"}', "no architecture 'b'"),
        ('{"format": 1, "model": "a", "architecture": "vit", "arguments": {"dim": "wide"}}', "no model can be built"),
        ('{"format": 1, "model": "a", "architecture": "vit", "arguments": {"heads": 0}}', "no model can be built"),
        ('{"format": 1, "model": "a", "architecture": "vit", "preprocessing": {"crop": 1}}', "not as tubelet writes"),
    ],
)
def test_bad_settings(tmp_path, config, sentence):
    save_file(made.released(made.small()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointError if "architecture 'b'" not in sentence else ValueError, match=sentence):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_act": "relu"}, "hidden_act 'relu': only 'gelu'"),
        ({"num_channels": 1}, "num_channels 1: only 3"),
        ({"patch_size": [8, 4]}, "only square patches"),
        ({"num_hidden_layers": 3}, "missing: videomae.encoder.layer.2.layernorm_before.weight"),
        ({"hidden_size": 48}, "of another shape: .*(48,) is expected"),
        ({"image_size": 20}, "whole tubelets"),
    ],
)
def test_bad_settings_of_hugging_face(tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        load_model(made.hf_folder(tmp_path, made.small(), **changes))


@pytest.mark.parametrize(("key", "value"), [("qv_bias", False), ("qkv_bias", False)])
def test_both_names_of_the_bias_setting(tmp_path, key, value):
    model = made.small(qkv_bias=False)
    assert same(load_model(made.hf_folder(tmp_path, model, **{key: value})), model) is False  # eps of fc_norm differs
    with pytest.raises(CheckpointError, match="not known: .*q_bias"):
        load_model(made.hf_folder(tmp_path, made.small(), **{key: value}))


def index(folder, keys):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": keys}))


def test_sharded(tmp_path):
    model = made.small()
    folder = made.hf_folder(tmp_path, model)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    first, second = dict(list(state.items())[:9]), dict(list(state.items())[9:])
    save_file(first, folder / "model-1.safetensors")
    keys = {**dict.fromkeys(first, "model-1.safetensors"), **dict.fromkeys(second, "model-2.safetensors")}
    index(folder, keys)
    with pytest.raises(CheckpointError, match="lacks model-2.safetensors, which model.safetensors.index.json lists"):
        load_model(folder)
    save_file(dict(list(second.items())[1:]), folder / "model-2.safetensors")
    with pytest.raises(CheckpointError, match=f"lacks keys that its index lists: {next(iter(second))}"):
        load_model(folder)
    save_file(second | {next(iter(first)): torch.zeros(1)}, folder / "model-2.safetensors")
    with pytest.raises(CheckpointError, match="model-2.safetensors and model-1.safetensors both hold"):
        load_model(folder)
    save_file(second, folder / "model-2.safetensors")
    assert torch.equal(load_model(folder).head.weight, model.head.weight)
    index(folder, {**keys, "a": "../secret.safetensors"})
    with pytest.raises(CheckpointError, match="files outside its folder: ../secret.safetensors"):
        load_model(folder)
    index(folder, {})
    with pytest.raises(CheckpointError, match="no weight_map"):
        load_model(folder)


def test_layouts(tmp_path):
    assert list_layouts() == ["tubelet", "videomae", "huggingface"]
    folder = made.hf_folder(tmp_path, made.small())
    with pytest.raises(CheckpointError, match="no layout 'mae'; there are auto, tubelet, videomae, huggingface"):
        load_model(folder, layout="mae")
    with pytest.raises(CheckpointError, match="lack patch_embed.proj.weight"):
        load_model(folder, layout="videomae")
    assert load_model(folder, layout="huggingface").report.layout == "huggingface"
