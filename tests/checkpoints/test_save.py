"""The project's own folder: what is saved loads anywhere and gives the same answer."""

import inspect
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tests.checkpoints import made
from tests.tiny import MODELS, moving, randomise, tiny
from tubelet import CheckpointError, SelectionError, create_model, load_model, save_model, set_selection
from tubelet.checkpoints import own
from tubelet.checkpoints import save as saving
from tubelet.data.sampling import SAMPLINGS
from tubelet.inference import refuse_untrained
from tubelet.models.config import ARGUMENTS, PREPROCESSING
from tubelet.models.registry import ARCHITECTURES
from tubelet.models.vit import ViT


def complete(config):
    return replace(config, arguments=own.all_arguments(config))


@pytest.mark.parametrize("alone", [False, True], ids=["folder", "file alone"])
@pytest.mark.parametrize("key", MODELS)
def test_round_trip(tmp_path, key, alone):
    model = tiny(key)
    model.config.id2label = {i: f"Aktion {i} ÄÖ" for i in range(7)}
    save_model(model, tmp_path / "saved")
    source = tmp_path / "saved"
    if alone:
        source = (source / "model.safetensors").rename(tmp_path / "renamed.safetensors")
    loaded = load_model(source)
    clip = moving(2, model)
    assert torch.equal(loaded(clip), model(clip))
    assert loaded.config == complete(model.config)
    assert not loaded.report.new and not loaded.report.unused and not loaded.report.renamed


def test_selection_is_kept_or_replaced(tmp_path):
    model = tiny("vit", select="sta:r=2")
    save_model(model, tmp_path)
    clip = moving(1, model)
    assert load_model(tmp_path).config.select == "sta:r=2"
    assert torch.equal(load_model(tmp_path)(clip), model(clip))
    dense = load_model(tmp_path, select="none")
    assert dense.config.select == "none"
    assert not torch.equal(dense(clip), model(clip))


@pytest.mark.parametrize("source", ["own", "huggingface"])
@pytest.mark.parametrize(("frames", "size"), [(8, 16), (4, (16, 32)), (8, (24, 16))])
def test_frames_and_size_resize_the_positions(tmp_path, source, frames, size):
    model = made.small()
    folder = save_model(model, tmp_path) if source == "own" else made.hf_folder(tmp_path, model)
    loaded = load_model(folder, frames=frames, size=size)
    assert (loaded.config.preprocessing.frames, loaded.config.preprocessing.size) == (frames, size)
    assert loaded.config.position_grid == (2, 2, 2)
    clip = moving(1, loaded)
    assert torch.allclose(loaded(clip), model(clip), atol=1e-4)
    again = load_model(save_model(loaded, tmp_path / "again"))
    assert torch.equal(again(clip), loaded(clip))


def test_half_precision(tmp_path):
    model = made.small()
    save_model(model, tmp_path, dtype=torch.float16)
    assert {t.dtype for t in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    loaded = load_model(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.head.weight, model.head.weight.half().float())
    with torch.no_grad():
        model.head.weight[0, 0] = 1e6
    with pytest.raises(CheckpointError, match="too large for torch.float16: head.weight"):
        save_model(model, tmp_path, dtype=torch.float16)
    with pytest.raises(CheckpointError, match="dtype=torch.int8: one of"):
        save_model(model, tmp_path, dtype=torch.int8)


def test_the_bytes_are_the_same_in_another_process(tmp_path):
    code = (
        "import sys, torch; from tubelet import create_model, save_model; torch.manual_seed(3);"
        f"save_model(create_model('videomae_small', **{made.ARGUMENTS}), sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there")], check=True)
    torch.manual_seed(3)
    save_model(create_model("videomae_small", **made.ARGUMENTS), tmp_path / "here")
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "here" / file).read_bytes() == (tmp_path / "there" / file).read_bytes()


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, call, nth):
    """Or, between the two replaces, a folder that is refused: never the weights of one save with another's names."""
    first, second = made.small(), made.small(seed=1)
    save_model(first, tmp_path)
    second.config.id2label = {i: f"other {i}" for i in range(5)}
    real, calls = getattr(os, call), []

    def full(*args):
        calls.append(args)
        if len(calls) == nth:
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(saving.os, call, full)
    with pytest.raises(OSError, match="No space"):
        save_model(second, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]
    if (call, nth) == ("replace", 2):
        with pytest.raises(
            CheckpointError, match="config.json and the weights are not of one save.*remove config.json"
        ):
            load_model(tmp_path)
        (tmp_path / "config.json").unlink()
        first = second
    loaded = load_model(tmp_path)
    assert torch.equal(loaded.head.weight, first.head.weight)
    assert loaded.config.id2label[3] == first.config.id2label.get(3, "class 3")


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "changes",
    [{"select": "sta:r=2"}, {"preprocessing": {"stride": 3}}, {"views": [2, 3]}, {"id2label": {"0": "x"}}],
)
def test_what_may_be_edited(tmp_path, changes):
    model = tiny("vit")
    model.config.id2label = {i: f"action {i}" for i in range(7)}
    edit(save_model(model, tmp_path), **changes)
    loaded = json.loads(json.dumps(load_model(tmp_path).config.to_json()))
    for field, value in changes.items():
        assert loaded[field] == ({**loaded[field], **value} if isinstance(value, dict) else value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"arguments": {"heads": 6}}, "heads"),
        ({"arguments": {"eps": 1e-3}}, "eps"),
        ({"position_grid": [4] * 3}, "position_grid"),
    ],
)
def test_what_may_not_be_edited(tmp_path, changes, named):
    """Any of these would load, and give other answers."""
    edit(save_model(made.small(), tmp_path), **changes)
    with pytest.raises(CheckpointError, match=f"config.json was edited in {named}, which the weights do not follow"):
        load_model(tmp_path)


def test_all_arguments_are_saved(tmp_path):
    """So that a later change of a default leaves saved models as they are."""
    config = json.loads((save_model(made.small(), tmp_path) / "config.json").read_text())
    signature = set(inspect.signature(ViT).parameters) - {"plan", "position_grid"}
    assert set(config["arguments"]) == signature
    assert config["arguments"]["eps"] == 1e-6


def test_every_argument_has_a_kind():
    for builder in ARCHITECTURES.values():
        assert set(inspect.signature(builder).parameters) - {"plan"} <= set(ARGUMENTS)
    assert all(PREPROCESSING["sampling"].holds(name) for name in SAMPLINGS)
    assert not PREPROCESSING["sampling"].holds("nonsense")


def test_a_folder_is_made_and_a_file_refused(tmp_path):
    model = made.small()
    folder = save_model(model, tmp_path / "deep" / "folder")
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
    with pytest.raises(CheckpointError, match="is a file; a folder"):
        save_model(model, folder / "config.json")


def test_converted_weights_load_anywhere(tmp_path):
    """What `tubelet convert` does, from each layout."""
    model = made.small()
    converted = load_model(made.hf_folder(tmp_path / "hf", model, "5.x"))
    save_model(converted, tmp_path / "own")
    again = load_model(tmp_path / "own")
    clip = moving(2, model)
    assert torch.equal(again(clip), converted(clip))
    assert again.config == complete(converted.config)
    assert again.config.id2label[2] == "action 2"
    assert len(converted.report.renamed) > 20
    text = str(converted.report)
    assert "layout huggingface" in text and "renamed" in text and len(text.splitlines()) < 8


def test_weights_of_learned_selectors(tmp_path):
    """They are stored; another selection leaves them out, and says so."""
    from tests.selectors import SoftFrames
    from tubelet.selection.plan import Placed, Plan

    model = create_model("videomae_small", **made.ARGUMENTS)
    model.set_plan(Plan([Placed(1, SoftFrames(24, 1))], model.host()))
    save_model(model, tmp_path)
    with pytest.raises(CheckpointError, match="not known: plan.selectors.block1_soft_frames.score"):
        load_model(tmp_path)  # its config names no selection
    unused = load_model(tmp_path, select="none").report.unused
    assert set(unused) == {f"plan.selectors.block1_soft_frames.score.{name}" for name in ("weight", "bias")}


def test_scorers_go_where_they_were_trained_and_nowhere_else(tmp_path):
    """By method, kind and block, never by their number: those of another step would fit as well."""
    model = with_trained_scorers()
    frames, regions = (selector.score_network.state_dict() for selector in model.plan.selectors.values())
    folder = save_model(model, tmp_path)

    def loaded(select):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = load_model(folder, select=select)
        held = {k: s.score_network.state_dict() for k, s in model.plan.selectors.items()}
        return model, held, " ".join(str(one.message) for one in caught)

    for select in ("stts:T1@0", "stts:S2@1", "stts:S3@1-T2@0", "stts:T1@0-S2@1,gradient=full"):
        model, held, said = loaded(select)
        refuse_untrained(model)
        assert not said and set(held) <= {"block0_stts_T", "block1_stts_S"}
        for key, state in held.items():
            assert equal(state, frames if key.endswith("T") else regions)
        refuse_untrained(load_model(save_model(model, tmp_path / "again")))
    for select, new in (
        ("stts:S2@0", "block0_stts_S"),
        ("stts:T2@1", "block1_stts_T"),
        ("gumbel:T2@0", "block0_gumbel"),
        ("stts:S2@1,scores=anchor", "block1_stts_S_anchor"),
        ("stts:T2@0-S2@0", "block0_stts_S"),
    ):
        model, held, said = loaded(select)
        assert f"plan.selectors.{new}" in said and "random until trained" in said
        assert not equal(held[new], frames) and not equal(held[new], regions)
        with pytest.raises(SelectionError, match=f"{new} is learned, and these weights hold no trained scorer"):
            refuse_untrained(model)


def test_another_selection_keeps_the_scorers_that_it_has_too():
    model = with_trained_scorers()
    before = {key: s.score_network.state_dict() for key, s in model.plan.selectors.items()}
    for select in ("stts:T2@0-S2@1", "stts:T1@0-S2@1"):
        set_selection(model, select)
        refuse_untrained(model)
        assert all(equal(s.score_network.state_dict(), before[key]) for key, s in model.plan.selectors.items())
    set_selection(model, "stts:T1@0")
    refuse_untrained(model)
    set_selection(model, "stts:T1@0-S2@1")  # the scorer of regions went with the last selection
    with pytest.raises(SelectionError, match="block1_stts_S is learned.* there are block0_stts_T"):
        refuse_untrained(model)


def with_trained_scorers():
    model = create_model("videomae_small", select="stts:T2@0-S2@1", **{**made.ARGUMENTS, "frames": 8, "size": 32})
    randomise(model, seed=3)
    model.config.trained_selectors = model.plan.learned
    return model


def equal(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items() if tensor.shape == other[name].shape)
