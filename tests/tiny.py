"""Tiny models and clips for tests: real code, random weights (biases and norms too), milliseconds."""

import torch

from tubelet.models.registry import create_model

SIZES = {"dim": 48, "depth": 6, "heads": 3, "frames": 16, "size": 32, "patch_size": 8, "num_classes": 7}
SWIN = {"dim": 12, "depths": (1, 1, 3, 1), "heads": (1, 2, 2, 4), "frames": 16, "patch_size": 2, "num_classes": 7}
# 8 slots of 8 x 8 tokens; blocks 1 and 4 halve the sides, before their MLP
MVIT = {
    "dim": 12, "depth": 5, "heads": 1, "frames": 16, "size": 32, "num_classes": 7, "pool_kv_stride": (1, 4, 4),
    "dim_mul": ((1, 2.0), (4, 2.0)), "head_mul": ((1, 2.0), (4, 2.0)), "pool_q_stride": ((1, 1, 2, 2), (4, 1, 2, 2)),
}  # fmt: skip
MODELS = {  # one entry a backbone: name for create_model, arguments
    "vit": ("videomae_small", SIZES),
    "vit_class_token": ("videomae_small", {**SIZES, "class_token": True, "pool": "first", "positions": "learned"}),
    "vit_wide": ("videomae_small", {**SIZES, "size": (32, 48), "layer_scale": 0.5, "qkv_bias": False}),
    "swin": ("videoswin_tiny", {**SWIN, "size": 48, "window_size": (4, 3, 3)}),
    # Rectangular, and every side padded: 8 x 18 x 30 tokens, then 9 x 15, 5 x 8, 3 x 4.
    "swin_wide": ("videoswin_tiny", {**SWIN, "size": (36, 60), "window_size": (3, 4, 4), "qkv_bias": False}),
    "mvit": ("mvit_base_16x4", MVIT),
    "mvit_no_class_token": (
        "mvit_base_16x4",
        {
            **MVIT,
            "class_token": False,
            "positions": "joint",
            "size": (32, 48),
            "unpooled_kv": (3, 4),
            "norm_stem": True,
        },
    ),
    "xvit": ("xvit_base", {**SIZES, "frames": 8, "mixing_div": 3}),  # a head a frame: the next, the one before, its own
    "xvit_joining": (  # head 0 joins channels of all three
        "xvit_base",
        {**SIZES, "frames": 8, "mixing_div": 8, "segment_length": 5, "frame_shift": "true", "pool": "average"},
    ),
}

# A detector, whose output is not that of the models above: tests/models/test_evad.py runs it.
DETECTOR = {
    "dim": 48, "depth": 6, "heads": 3, "frames": 8, "size": (64, 96), "num_classes": 7, "width": 32, "proposals": 9,
    "proposal_heads": 2, "attention_heads": 4, "hidden": 48, "dynamic": 8, "decoder_dim": 24, "decoder_depth": 2,
    "decoder_heads": 3, "action_dim": 40,
}  # fmt: skip


def tiny_detector(*, select="none", seed=0, **arguments):
    """A tiny detector with random parameters everywhere, in evaluation mode; its proposals are boxes of all kinds."""
    model = create_model("evad_base", select=select, **{**DETECTOR, **arguments})
    randomise(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.proposals.boxes.uniform_(0.2, 0.8, generator=generator)
    return model


def tiny(key="vit", *, select="none", seed=0, **arguments):
    """A tiny model of MODELS with random parameters everywhere, in evaluation mode."""
    name, sizes = MODELS[key]
    model = create_model(name, select=select, **{**sizes, **arguments})
    randomise(model, seed)
    return model


def randomise(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            start = 1.0 if parameter.dim() == 1 and bool((parameter == 1).all()) else 0.0
            parameter.copy_(start + 0.1 * torch.randn(parameter.shape, generator=generator))


def moving(batch, model=None, *, frames=16, size=(32, 32), seed=0):
    """Clips (B, 3, T, H, W): a bright square that moves over a still texture, with some noise."""
    if model is not None:
        frames, size = model.frames, model.size
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    clip = torch.randn(batch, 3, 1, height, width, generator=generator).repeat(1, 1, frames, 1, 1)
    clip = clip + 0.1 * torch.randn(clip.shape, generator=generator)
    for b in range(batch):
        for t in range(frames):
            x, y = (t * (b + 1)) % (width - 6), (3 * t + b) % (height - 6)
            clip[b, :, t, y : y + 6, x : x + 6] = 2.0
    return clip
