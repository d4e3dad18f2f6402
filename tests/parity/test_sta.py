"""STA against the tensors of its published implementation: kept tokens in order, scores, logits.

Cases are found by name in the folder TUBELET_PARITY; without it, in the small set that comes with the repository.
"""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tests.parity.cases import parity_cases
from tubelet.models.vit import ViT
from tubelet.selection.plan import takes_anything
from tubelet.selection.registry import build_plan
from tubelet.selection.sta import accumulate

LOGITS = 2e-5  # absolute, as the README of the tensors suggests
SCORES = 1e-5  # relative


@pytest.mark.parametrize("case", parity_cases("sta", "score-*.json"), ids=lambda path: path.stem)
def test_one_step(case):
    about, tensors = json.loads(case.read_text()), load_file(case.with_suffix(".safetensors"))
    groups, n = about["groups"], about["tokens_per_group"]
    scores = accumulate(
        tensors["tokens"],
        tensors["metric"],
        groups,
        about["removed_per_group"],
        backward=about["reversed_order"],
    )
    kept = (scores.kept + torch.arange(groups)[:, None] * n).flatten(1)
    assert torch.equal(kept, tensors["kept"])
    rows = torch.arange(len(kept))[:, None]
    assert torch.equal(tensors["tokens"][rows, kept], tensors["tokens_out"])
    _compare_scores(scores, {name: tensors[name] for name in SCORE_NAMES}, tensors["group_order"])


@pytest.mark.parametrize("case", parity_cases("sta", "vit-*.json"), ids=lambda path: path.stem)
def test_model(case):
    about, tensors = json.loads(case.read_text()), load_file(case.with_suffix(".safetensors"))
    hyper = about["hyper"]
    model = _model(hyper, tensors)
    clip = tensors["input"]
    with torch.no_grad():
        dense = model(clip)
        if "dense_logits" in tensors:
            torch.testing.assert_close(dense, tensors["dense_logits"], rtol=0, atol=LOGITS)
        # The published code also prunes where the head reads the first token, which this library refuses.
        model.set_plan(build_plan(f"sta:r={hyper['r']}", replace(model.host(), check=takes_anything)))
        record = []
        logits = model(clip, record)
        features = model.fc_norm(model.forward_features(clip).mean()) if hyper["use_mean_pooling"] else None
    assert len(record) == len(about["stages"])
    for number, (step, stage) in enumerate(zip(record, about["stages"], strict=True)):
        assert step.block == stage["after_block"]
        assert torch.equal(step.position, tensors[f"stage{number}.kept_original"])
        scores = accumulate(
            tensors[f"stage{number}.tokens_in"],
            tensors[f"stage{number}.metric_in"],
            stage["groups"],
            stage["removed_per_group"],
            backward=stage["group_order"][0] != 0,
        )
        expected = {name: tensors[f"stage{number}.{name}"] for name in SCORE_NAMES}
        _compare_scores(scores, expected, tensors[f"stage{number}.group_order"])
    torch.testing.assert_close(logits, tensors["logits"], rtol=0, atol=LOGITS)
    if features is not None and "feature" in tensors:
        torch.testing.assert_close(features, tensors["feature"], rtol=0, atol=LOGITS)


SCORE_NAMES = ("first_similarity", "temporal", "semantic", "score")


def _compare_scores(scores, expected, order):
    """`temporal` and `score` are stored for the groups after the first, in visiting order."""
    later = order[1:]
    close = {"rtol": SCORES, "atol": 1e-6}
    torch.testing.assert_close(scores.first_similarity, expected["first_similarity"], **close)
    torch.testing.assert_close(scores.semantic, expected["semantic"], **close)
    torch.testing.assert_close(scores.mass[:, later], expected["temporal"], **close)
    torch.testing.assert_close(scores.score[:, later], expected["score"], **close)


def _model(hyper, tensors):
    model = ViT(
        frames=hyper["all_frames"],
        size=tuple(hyper["img_size"]),
        num_classes=hyper["num_classes"],
        dim=hyper["embed_dim"],
        depth=hyper["depth"],
        heads=hyper["num_heads"],
        mlp_ratio=hyper["mlp_ratio"],
        patch_size=hyper["patch_size"],
        tubelet_size=hyper["tubelet_size"],
        qkv_bias=hyper["qkv_bias"],
        positions="learned" if hyper["use_learnable_pos_emb"] else "sinusoid",
        pool="mean" if hyper["use_mean_pooling"] else "first",
        eps=hyper["layer_norm_eps"],
    )
    model.load_state_dict({name[6:]: t for name, t in tensors.items() if name.startswith("param.")})
    if "fixed.pos_embed" in tensors:
        torch.testing.assert_close(model.pos_embed, tensors["fixed.pos_embed"], rtol=0, atol=1e-6)
    return model.eval()
