"""VideoSwin against the tensors of the released STTS code: kept frames, logits, features.

Cases are found by name in the folder TUBELET_PARITY; without it, in the small set that comes with the repository.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.parity.cases import parity_cases
from tubelet.models.video_swin import VideoSwin
from tubelet.selection.registry import list_selectors

CASES = parity_cases("stts", "stts_videoswin_*.json")


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_model(case):
    about, tensors = json.loads(case.read_text()), load_file(case.with_suffix(".safetensors"))
    if about["selections"] and "stts" not in list_selectors():
        pytest.skip("stts is not there")
    model = _model(about["hyperparameters"], tensors)
    with torch.no_grad():
        logits = model(tensors["input"])
    torch.testing.assert_close(logits, tensors["logits"], rtol=0, atol=about.get("suggested_atol", 1e-4))


def _model(hyper, tensors):
    tubelet_size, patch_size, _ = hyper["patch_size"]
    model = VideoSwin(
        frames=hyper["num_frames"],
        size=hyper["image_size"],
        num_classes=hyper["num_classes"],
        dim=hyper["embed_dim"],
        depths=hyper["depths"],
        heads=hyper["num_heads"],
        window_size=tuple(hyper["window_size"]),
        mlp_ratio=hyper["mlp_ratio"],
        patch_size=patch_size,
        tubelet_size=tubelet_size,
        patch_norm=hyper["patch_norm"],
        qkv_bias=hyper["qkv_bias"],
        eps=hyper["norm_eps"],
    )
    weights = {}
    for key, tensor in tensors.items():
        prefix, _, name = key.partition(".")
        if prefix == "state_dict" and not name.endswith("relative_position_index"):
            weights[name.removeprefix("backbone.").replace("cls_head.fc_cls.", "head.")] = tensor
    model.load_state_dict(weights)
    return model.eval()
