"""The project's models beside those that users would pick instead: the same sizes, random weights, runs in turn.

    python benchmarks/peers.py --model videomae_base --json

"ratio" is the project's time / the peer's, the median over pairs. Needs the extra dev, which holds the peers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded here

import torch
from torch import Tensor, nn

from tubelet.errors import TubeletError
from tubelet.models.base import VideoModel
from tubelet.models.mvit import Block, MViT
from tubelet.models.registry import create_model
from tubelet.models.video_swin import VideoSwin
from tubelet.models.vit import Block as ViTBlock
from tubelet.models.vit import ViT
from tubelet.profiling.flops import clip_shape
from tubelet.profiling.latency import interleaved, using_threads

LEAST_PAIRS = 7
_declared: list[torch.library.Library] = []  # operators live as long as this


def mend_torchvision() -> None:
    """Before transformers or torchvision's models are imported. Does nothing where torchvision works or is absent.

    PyPI's torchvision beside a CPU build of torch: its compiled operators do not load, so its import fails, and with it
    that of transformers' models. Models need none of them: declared without code, they let it be imported.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:  # operator torchvision::nms does not exist
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        _declared.append(library)


def transformers_videomae(model: VideoModel) -> tuple[str, nn.Module, Callable[[Tensor], Tensor]]:
    """VideoMAE of transformers with fused attention, in the sizes of `model`: name, model, its layout of a clip."""
    mend_torchvision()
    import transformers

    assert isinstance(model, ViT) and isinstance(block := model.blocks[0], ViTBlock)
    config = transformers.VideoMAEConfig(
        image_size=model.size[0],
        patch_size=model.patch_size,
        tubelet_size=model.tubelet_size,
        num_frames=model.frames,
        hidden_size=model.dim,
        num_hidden_layers=model.depth,
        num_attention_heads=block.attn.heads,
        intermediate_size=block.mlp.fc1.out_features,
        num_labels=model.num_classes,
        layer_norm_eps=1e-6,
        attn_implementation="sdpa",
    )
    peer = transformers.VideoMAEForVideoClassification(config).eval()
    return f"transformers {transformers.__version__} VideoMAE, sdpa", peer, lambda clip: clip.transpose(1, 2)


def torchvision_mvit(model: VideoModel) -> tuple[str, nn.Module, Callable[[Tensor], Tensor]]:
    """MViT (version 1) of torchvision in the sizes of `model`: its mvit_v1_b where these are the published ones."""
    mend_torchvision()
    import torchvision
    from torchvision.models.video.mvit import MSBlockConfig
    from torchvision.models.video.mvit import MViT as Peer

    assert isinstance(model, MViT)
    settings = []
    for block in model.blocks:
        assert isinstance(block, Block) and block.attn.kv_stride is not None
        width = block.attn.qkv.in_features
        settings.append(
            MSBlockConfig(
                num_heads=block.attn.heads,
                input_channels=width,
                output_channels=width if block.proj is None else block.proj.out_features,
                kernel_q=[3, 3, 3] if block.attn.q_stride else [],
                kernel_kv=[3, 3, 3],
                stride_q=list(block.attn.q_stride or ()),
                stride_kv=list(block.attn.kv_stride),
            )
        )
    peer = Peer(
        spatial_size=model.size,
        temporal_size=model.frames,
        block_setting=settings,
        residual_pool=False,
        residual_with_cls_embed=False,
        rel_pos_embed=False,
        proj_after_attn=False,
        num_classes=model.num_classes,
    ).eval()
    return f"torchvision {torchvision.__version__} MViT (version 1)", peer, lambda clip: clip


def torchvision_swin3d(model: VideoModel) -> tuple[str, nn.Module, Callable[[Tensor], Tensor]]:
    """VideoSwin of torchvision in the sizes of `model`: name, model, its layout of a clip."""
    mend_torchvision()
    import torchvision
    from torchvision.models.video.swin_transformer import SwinTransformer3d

    assert isinstance(model, VideoSwin)
    arguments = model.config.arguments
    peer = SwinTransformer3d(
        patch_size=list(model.patch),
        embed_dim=model.widths[0],
        depths=list(arguments["depths"]),
        num_heads=list(arguments["heads"]),
        window_size=list(model.window_size),
        num_classes=model.num_classes,
    ).eval()
    return f"torchvision {torchvision.__version__} SwinTransformer3d", peer, lambda clip: clip


PEERS: dict[str, Callable[[VideoModel], tuple[str, nn.Module, Callable[[Tensor], Tensor]]]] = {
    **{f"videomae_{size}": transformers_videomae for size in ("small", "base", "large", "huge")},
    "mvit_base_16x4": torchvision_mvit,
    **{f"videoswin_{size}": torchvision_swin3d for size in ("tiny", "small", "base", "base_ssv2")},
}


def compare(
    name: str,
    *,
    pairs: int = LEAST_PAIRS,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """One model beside its peer, float32, one clip. `arguments` are those of create_model."""
    if name not in PEERS:
        raise TubeletError(f"no peer for {name!r}; there are peers for {', '.join(PEERS)}")
    model = create_model(name, **arguments)
    peer_name, peer, layout = PEERS[name](model)
    clip = torch.randn(clip_shape(model))
    with using_threads(threads), torch.inference_mode():
        passes = [partial(model, clip), partial(peer, layout(clip))]
        ours, theirs = interleaved(passes, max(pairs, LEAST_PAIRS), warmup=1, progress=progress)
    return {
        "model": name,
        "peer": peer_name,
        "ratio": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        "seconds": statistics.median(ours),
        "peer_seconds": statistics.median(theirs),
        "pairs": len(ours),
        "threads": threads,
    }


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", action="append", metavar="NAME", help="may be repeated (default: videomae_base)")
    parser.add_argument("--pairs", type=int, default=LEAST_PAIRS, help=f"at least {LEAST_PAIRS}, the default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    args = parser.parse_args(words)
    torch.manual_seed(args.seed)
    try:
        rows = [compare(name, pairs=args.pairs, threads=args.threads) for name in args.model or ["videomae_base"]]
    except TubeletError as error:
        print(error, file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        print(
            f"{row['model']}: {row['ratio']:.3f} x the time of {row['peer']} "
            f"({row['seconds']:.3f} s and {row['peer_seconds']:.3f} s, {row['pairs']} pairs, {row['threads']} threads)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
