"""Where weights are found: folders, files, the package, the hub's local cache."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints import made
from tubelet import CheckpointError, TubeletError, list_models, load_model, save_model
from tubelet.checkpoints import default_model, list_layouts, packaged_models, source
from tubelet.models.evad import EVAD

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
    assert len(config.id2label) == config.arguments["num_classes"] == model.num_classes
    assert not model.training
    p = config.preprocessing
    size = (p.size, p.size) if isinstance(p.size, int) else p.size
    answer = model(torch.zeros(1, 3, p.frames, *size))
    scores = answer.action_scores if isinstance(model, EVAD) else answer
    assert scores.shape[-1] == model.num_classes and scores.isfinite().all()


def test_a_file_in_its_folder_is_read_with_its_config(tmp_path):
    model = made.small()
    folder = made.hf_folder(tmp_path, model)
    assert load_model(folder / "model.safetensors").config == load_model(folder).config


def test_a_file_of_another_name_is_read_with_the_config_beside_it(tmp_path):
    folder = made.hf_folder(tmp_path, made.small())
    expected = load_model(folder).config
    (folder / "model.safetensors").rename(folder / "older.safetensors")
    assert load_model(folder / "older.safetensors").config == load_model(folder).config == expected


def test_a_config_without_model_type_is_read(tmp_path):
    """Width 384 would be given 6 heads, eps 1e-12 and no names."""
    folder = made.hf_folder(tmp_path, made.small(dim=384, heads=12))
    expected = load_model(folder).config
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_model(folder).config == expected
    assert expected.arguments["heads"] == 12 and expected.id2label[1] == "action 1"


def test_a_field_named_format_does_not_make_it_the_projects_own(tmp_path):
    folder = made.hf_folder(tmp_path, made.small(), format="pt")
    assert load_model(folder).report.layout == "huggingface"


@pytest.mark.parametrize("config", [{"learning_rate": 0.1}, {}])
def test_a_config_that_is_not_used_is_told(tmp_path, config):
    save_file(made.released(made.small()), tmp_path / "weights.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="config.json beside the weights is not used"):
        load_model(tmp_path / "weights.safetensors", **made.UNSEEN)


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
        ('{"format": true}', "not of format 1"),
        ('{"format": 1.0}', "not of format 1"),
        ('{"a":' * 100000, "cannot be read as JSON"),
        ('{"format": 1}', "config.json lacks model, .*preprocessing"),
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


OWN_SETTINGS = [  # where, what, what is said of it
    ("", {"extra": 1}, "unknown fields"),
    ("", {"architecture": "b"}, "no architecture 'b'"),
    *(("", {"select": value}, "select is .*a text is expected") for value in (None, 5, [])),
    *(("", {"views": value}, "views is ") for value in ([0, 0], "ab", [1])),
    *(("", {"position_grid": value}, "position_grid is ") for value in ([0, 0, 0], [2, 2], "abc")),
    *(("", {"id2label": value}, "id2label is ") for value in ([], "a", {"a": "b"}, {"0": None})),
    *(("arguments", {"dim": value}, "dim is .*a whole number from 1") for value in ("wide", 0, True, 24.0)),
    *(("arguments", {"heads": value}, "heads is ") for value in (0, -3, 3.0)),
    *(("arguments", {"eps": value}, "eps is .*a number above 0") for value in ("1e-6", -1, None)),
    ("arguments", {"nonsense": 1}, "no argument 'nonsense'"),
    ("preprocessing", {"crop": 1}, "preprocessing in config.json has unknown fields"),
    ("preprocessing", {"frames": "x"}, "frames is 'x'"),
    ("preprocessing", {"sampling": "nonsense"}, "sampling is 'nonsense', and one of uniform, dense, k400, ssv2"),
    ("preprocessing", {"size": [8, 8, 8]}, "size is "),
    ("preprocessing", {"mean": [0.5]}, "mean is "),
    ("preprocessing", {"std": [0, 0, 0]}, "std is "),
]


@pytest.mark.parametrize(("where", "changes", "sentence"), OWN_SETTINGS)
def test_bad_settings_of_our_own(tmp_path, where, changes, sentence):
    config = json.loads((save_model(made.small(), tmp_path) / "config.json").read_text())
    save_file(load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors")  # without its header
    (config[where] if where else config).update(changes)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(TubeletError, match=sentence):
        load_model(tmp_path)


@pytest.mark.parametrize("field", ["preprocessing", "select", "views"])
def test_settings_that_are_absent(tmp_path, field):
    config = json.loads((save_model(made.small(), tmp_path) / "config.json").read_text())
    del config[field]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"config.json lacks {field}"):
        load_model(tmp_path)


HF_SETTINGS = {
    "image_size": ([], "224", [16], {"height": 16}, 0), "patch_size": (0, "8", []), "tubelet_size": (0, [2]),
    "num_frames": ("16", True), "hidden_size": (0, "24"), "intermediate_size": ("4", 0),
    "num_attention_heads": (-3, 2.0, 0), "layer_norm_eps": ("1e-6", -1), "qv_bias": ("no",),
    "id2label": ([], "abc", {"a": "b"}, {"0": None}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in HF_SETTINGS.items() for value in values]
)
def test_values_of_another_kind(tmp_path, field, value):
    with pytest.raises(CheckpointError, match=f"config.json: {field} is .* is expected"):
        load_model(made.hf_folder(tmp_path, made.small(), **{field: value}))


PROCESSORS = {
    "image_mean": (0.5, [0.5], ["a"] * 3), "image_std": ([0, 0, 0], ["a", "b", "c"]), "rescale_factor": ("x", 0),
    "do_rescale": ("yes",),
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in PROCESSORS.items() for value in values]
)
def test_processors_of_another_kind(tmp_path, field, value):
    made.hf_folder(tmp_path, made.small())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"rescale_factor": None, field: value}))
    with pytest.raises(CheckpointError, match=f"preprocessor_config.json: {field} is .* is expected"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "given", [{"num_classes": "5"}, {"heads": 3.0}, {"size": [16]}, {"position_grid": (0, 0, 0)}, {"eps": "1e-6"}]
)
def test_arguments_of_another_kind(tmp_path, given):
    with pytest.raises(CheckpointError, match=f"{next(iter(given))} is .* is expected"):
        load_model(save_model(made.small(), tmp_path), **given)


@pytest.mark.parametrize("given", [None, "", 5, "x" * 5000, "a\0b"])
def test_what_is_no_source(given):
    with pytest.raises(CheckpointError) as error:
        load_model(given)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(("key", "value"), [("qv_bias", False), ("qkv_bias", False)])
def test_both_names_of_the_bias_setting(tmp_path, key, value):
    model = made.small(qkv_bias=False)
    model.fc_norm.eps = 1e-5  # as transformers has it
    loaded = load_model(made.hf_folder(tmp_path, model, **{key: value}))
    assert same(loaded, model)
    assert loaded.blocks[0].attn.q_bias is None
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
    assert set(list_layouts()) >= {
        "tubelet",
        "videomae",
        "huggingface",
        "slowfast",
        "pytorchvideo",
        "torchvision",
        "evad",
    }
    folder = made.hf_folder(tmp_path, made.small())
    with pytest.raises(CheckpointError, match="no layout 'mae'; there are auto, tubelet, videomae, huggingface"):
        load_model(folder, layout="mae")
    with pytest.raises(CheckpointError, match="lack patch_embed.proj.weight"):
        load_model(folder, layout="videomae")
    assert load_model(folder, layout="huggingface").report.layout == "huggingface"
