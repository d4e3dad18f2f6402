"""VideoSwin against the tensors of the released STTS code: kept indices, scores, what stages leave, features, logits.

Cases are found by name in the folder TUBELET_PARITY; without it, in the small set that comes with the repository.
"""

import pytest
import torch

from tests.parity.test_stts import cases, read
from tubelet.models.registry import create_model
from tubelet.models.windows import pair_places
from tubelet.selection.stts import Frames
from tubelet.selection.topk import top_k

INDEX = ".relative_position_index"


@cases("stts_videoswin_*.json")
def test_videoswin(case):
    about, tensors, close = read(case)
    model = _model({**about["hyperparameters"], **about})
    scorers = _scorers(model)
    state = {}
    for key, tensor in tensors.items():
        if not key.startswith("state_dict."):
            continue
        name = key.removeprefix("state_dict.").removeprefix("backbone.").replace("cls_head.fc_cls.", "head.")
        for theirs, ours in scorers.items():
            name = name.replace(f"{theirs}.", f"{ours}.")
        if name.endswith(INDEX):  # known without the file
            assert torch.equal(tensor, pair_places(model.get_submodule(name.removesuffix(INDEX)).window))
        else:
            state[name] = tensor
    model.load_state_dict(state)

    record, outputs = [], []
    for layer in model.layers:
        (layer.downsample or layer.blocks[-1]).register_forward_hook(lambda *call: outputs.append(call[-1]))
    with torch.no_grad():
        logits = model(tensors["input"], record)
    for output, layer in zip(outputs, about["layers"], strict=True):
        expected = layer["output"]
        assert output.layout.grid == tuple(expected[axis] for axis in "thw")
        assert output.x.mean().item() == pytest.approx(expected["mean"], abs=close["atol"])
        assert output.x.abs().mean().item() == pytest.approx(expected["mean_abs"], abs=close["atol"])
    for theirs, step in zip(scorers, record, strict=True):
        scores, indices = tensors[f"scores.{theirs}"], tensors[f"indices.{theirs}"]
        torch.testing.assert_close(step.scores.reshape(scores.shape), scores, **close)
        assert torch.equal(top_k(step.scores.reshape(scores.shape), indices.shape[1]), indices)
        if theirs == "time_score_predictor.0" and len(record) == 1 and step.block == 0:
            assert torch.equal(step.position[:, :: step.grid.per_frame] // step.grid.per_frame, indices)
    with torch.no_grad():
        features = model.norm(outputs[-1].x).mean(dim=1)
    torch.testing.assert_close(features, tensors["features"], **close)
    torch.testing.assert_close(logits, tensors["logits"], **close)


def _model(about):
    tubelet_size, patch_size, _ = about["patch_size"]
    return create_model(
        "videoswin_tiny",
        select=_spec(about),
        frames=about["num_frames"],
        size=about["image_size"],
        num_classes=about["num_classes"],
        dim=about["embed_dim"],
        depths=tuple(about["depths"]),
        heads=tuple(about["num_heads"]),
        window_size=tuple(about["window_size"]),
        mlp_ratio=about["mlp_ratio"],
        patch_size=patch_size,
        tubelet_size=tubelet_size,
        patch_norm=about["patch_norm"],
        qkv_bias=about["qkv_bias"],
        eps=about["norm_eps"],
    )


def _spec(about):
    """The counts of the case at its places."""
    steps = [f"T{k}@{place}" for k, place in zip(about["time_k"], about.get("time_pruning_loc", []), strict=True)]
    places = about.get("space_pruning_loc", [])
    steps += [f"S{side}@{place}" for side, place in zip(about["anchor_sizes"], places, strict=True)]
    return f"stts:{'-'.join(steps)}" if steps else "none"


def _scorers(model):
    """Released name of each scorer -> its name here."""
    found, count = {}, {"time": 0, "space": 0}
    for number, selector in enumerate(model.plan.selectors):
        kind = "time" if isinstance(selector, Frames) else "space"
        found[f"{kind}_score_predictor.{count[kind]}"] = f"plan.selectors.{number}"
        count[kind] += 1
    return found
