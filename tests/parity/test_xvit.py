"""X-ViT against the tensors of its released implementation: logits, and what goes into and out of one block.

Cases are found in the folder TUBELET_PARITY; without it, in the small set that comes with the repository. Weights go
through the layout of released files, so that every name is accounted for.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.parity.cases import parity_cases
from tubelet.checkpoints import xvit as layouts
from tubelet.checkpoints.fit import fit
from tubelet.checkpoints.layout import Description
from tubelet.checkpoints.report import Report
from tubelet.models.config import ModelConfig
from tubelet.models.registry import build_model

TOLERANCE = {"atol": 1e-4, "rtol": 0}  # where a case gives none


@pytest.mark.parametrize("case", parity_cases("xvit", "*.json"), ids=lambda path: path.stem)
def test_xvit(case):
    about, tensors = json.loads(case.read_text()), load_file(case.with_suffix(".safetensors"))
    model = _model(about, {k[6:]: t for k, t in tensors.items() if k.startswith("state.")})
    clip = tensors["input.clip"]
    close = about.get("tolerance", TOLERANCE)
    compared = set()

    def same(name, found):
        expected = tensors[name]
        torch.testing.assert_close(found.reshape(expected.shape), expected, **close, msg=lambda m: f"{name}: {m}")
        compared.add(name)

    with torch.no_grad():
        same("output.logits", model(clip))
        tokens = model.embed(clip)
        frames = model.frames_of(tokens)
        same("probe.tokens_embedded", tokens.frames)
        for number, block in enumerate(model.blocks):
            if number == about["probe_block"]:
                same("probe.block_in", tokens.frames)
                _attention(block, tokens, frames, same)
            tokens = block(tokens, frames)
            if number == about["probe_block"]:
                same("probe.block_out", tokens.frames)
        same("probe.frame_features", model.frame_features(tokens))
    assert compared == {name for name in tensors if name.startswith(("probe.", "output."))}


def _attention(block, tokens, frames, same):
    attn, x = block.attn, block.norm1(tokens.frames)
    same("probe.attn_in", x)
    qkv = attn.qkv(x)  # (B, T, L, 3 C), in which the mixing takes place
    _, key, value = qkv.unflatten(3, (3, attn.heads, -1)).transpose(2, 4).unbind(3)  # (B, T, heads, L, d)
    same("probe.key_before", key)
    same("probe.value_before", value)
    if attn.width:
        assert attn.mix(qkv, frames) is None
    same("probe.key_mixed", key)
    same("probe.value_mixed", value)
    same("probe.attn_out", attn(x, frames)[0])


def _model(about, state):
    clip, mixing, positions, head = (about[k] for k in ("clip", "mixing", "position_embedding", "temporal_head"))
    assert about["qk_scale"] is None and about["temporal_embedding_rule"].startswith("frame index modulo")
    arguments = {
        "frames": clip["frames"],
        "size": (clip["height"], clip["width"]),
        "num_classes": about["num_classes"],
        "dim": about["embed_dim"],
        "depth": about["depth"],
        "heads": about["num_heads"],
        "mlp_ratio": about["mlp_ratio"],
        "patch_size": about["patch_size"],
        "qkv_bias": about["qkv_bias"],
        "eps": about["layer_norm_eps"],
        "mixing": "over_heads" if mixing["enabled"] else "none",
        "mixing_div": mixing["shift_div"],
        "mixing_layers": mixing["layers"],
        "segment_length": mixing["segment_length"],
        "temporal_rule": "modulo",
        "pool": "average",
    }
    layout = layouts.AVERAGE
    if head["kind"] == "transformer":
        layout = layouts.LAYOUT
        assert not head["qkv_bias"] and head["layer_norm_eps"] == 1e-5  # what the released head always has
        arguments |= {
            "pool": "temporal",
            "temporal_depth": head["layers"],
            "temporal_heads": head["num_heads"],
            "temporal_mlp_ratio": head["mlp_ratio"],
            "head_dim": head["mlp_dim_classifier"],
        }
    grid = (about["temporal_embedding_frames"], *positions["grid"])
    model = build_model(ModelConfig("xvit", "xvit", arguments, position_grid=grid))
    report = Report(about["name"], layout.name)
    fit(model, layout.rename(state), Description(model.config), report)
    assert sorted([*report.matched, *report.renamed, *report.unused]) == sorted(state)
    assert set(report.unused) == set(head.get("unused_state", []))
    return model
