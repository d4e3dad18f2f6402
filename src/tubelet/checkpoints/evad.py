"""The layout of the released EVAD files: backbone, pyramid and heads as published, or the backbone and pyramid alone.

The names say nothing of how many tokens a model was trained to keep; give `select`. Weights that were trained in the
released code expect two of its quirks, which this layout asks for: see `restoration` and `resize_when` of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tubelet.checkpoints import videomae
from tubelet.checkpoints.layout import Description, Layout, Rename, Weights
from tubelet.checkpoints.vit import guesses, infer_arguments, learned_grid
from tubelet.models.config import ModelConfig, Preprocessing
from tubelet.models.evad import PRETRAINED, SIZES
from tubelet.models.proposals import LEVELS

HEAD, DECODER = "det_head.s0_headseries.{i}.", "det_head.decoder.blocks.{i}."
INTO_HEAD, INTO_DECODER = "proposals.heads.{i}.", "context.blocks.{i}."
TRUNK = tuple(name for name in videomae.TRUNK if name not in ("norm.{p}", "cls_token"))
RENAMES = (
    *(Rename(f"[backbone.]{name}", f"backbone.{name}") for name in TRUNK),
    Rename("[backbone.]norm.{p}", "backbone.fc_norm.{p}"),
    *(Rename(f"[backbone.]fpn_lateral{i + 2}.{{p}}", f"pyramid.lateral.{i}.{{p}}") for i in range(LEVELS)),
    *(Rename(f"[backbone.]fpn_output{i + 2}.{{p}}", f"pyramid.output.{i}.{{p}}") for i in range(LEVELS)),
    Rename("init_proposal_boxes.weight", "proposals.boxes"),
    Rename("init_proposal_features.weight", "proposals.features"),
    *(
        Rename(HEAD + key, INTO_HEAD + name)
        for key, name in (
            ("self_attn.in_proj_{p}", "attn.qkv.{p}"),
            ("self_attn.out_proj.{p}", "attn.proj.{p}"),
            ("inst_interact.dynamic_layer.{p}", "mix.matrices.{p}"),
            ("inst_interact.norm1.{p}", "mix.norm1.{p}"),
            ("inst_interact.norm2.{p}", "mix.norm2.{p}"),
            ("inst_interact.norm3.{p}", "mix.norm3.{p}"),
            ("inst_interact.out_layer.{p}", "mix.out.{p}"),
            ("norm1.{p}", "norm1.{p}"),
            ("norm2.{p}", "norm2.{p}"),
            ("norm3.{p}", "norm3.{p}"),
            ("linear1.{p}", "fc1.{p}"),
            ("linear2.{p}", "fc2.{p}"),
            ("cls_module.{i}.{p}", "person.{i}.{p}"),
            ("reg_module.{i}.{p}", "move.{i}.{p}"),
            ("class_logits.{p}", "person_logits.{p}"),
            ("bboxes_delta.{p}", "deltas.{p}"),
        )
    ),
    Rename("det_head.encoder_to_decoder.{p}", "context.embed.{p}"),
    Rename("det_head.mask_token", "context.mask_token"),
    *(
        Rename(DECODER + name.removeprefix("blocks.{i}."), INTO_DECODER + name.removeprefix("blocks.{i}."))
        for name in videomae.TRUNK
        if name.startswith("blocks.")
    ),
    Rename(DECODER + "act_module.0.{p}", "context.classifiers.{i}.fc.{p}"),
    Rename(DECODER + "act_module.1.{p}", "context.classifiers.{i}.norm.{p}"),
    Rename(DECODER + "action_logits.{p}", "context.classifiers.{i}.logits.{p}"),
)
UNUSED = (
    ("criterion.{any}", "of the training's loss"),
    ("[backbone.]cls_token", "a class token, which the detector has not"),
)
HEADLESS = {
    "proposals.{any}": "random: the file has no heads, to be trained",
    "context.{any}": "random: the file has no decoder, to be trained",
}
RELEASED_FRAMES, RELEASED_SIZE = 16, 288


def describe(weights: Weights, config: dict[str, Any] | None, given: Mapping[str, Any]) -> Description:
    """Everything from keys and shapes, and what these do not tell as in the released configurations."""
    trunk = backbone_of(weights)
    frames, size = given.get("frames", RELEASED_FRAMES), given.get("size", RELEASED_SIZE)
    inferred = infer_arguments(trunk, {**given, "frames": frames, "size": PRETRAINED})
    not_here = ("num_classes", "class_token", "pool", "frames", "size")
    arguments = {name: value for name, value in inferred.items() if name not in not_here}
    arguments |= {"frames": frames, "size": size, "eps": given.get("eps", 1e-6)}
    arguments["width"] = weights.need("pyramid.lateral.0.weight").shape[0]
    made = Description(
        ModelConfig(
            "evad",
            "evad",
            arguments,
            position_grid=learned_grid(trunk, inferred),
            preprocessing=Preprocessing(frames, 4, size, (0.45, 0.45, 0.45), (0.225, 0.225, 0.225), "keyframe"),
        ),
        warnings=guesses(trunk, inferred, given),
    )
    if weights.any("proposals.{any}") or weights.any("context.{any}"):
        arguments |= head_arguments(weights, given)
        arguments |= {"restoration": "published", "resize_when": "count"}
        made.notes.append("tokens go back in the order of the released code, which its weights expect")
        made.notes.append(
            "nothing says which selection the weights were trained with: give select, such as keyframe:keep=0.7@3,6,9; "
            "nor whether boxes are enlarged for the actions, as they are in all released models but the dense one "
            "(roi_extension)"
        )
    else:
        made.begin |= HEADLESS
        arguments["num_classes"] = given.get("num_classes", 80)
    made.config.model = _name(arguments)
    return made


def backbone_of(weights: Weights) -> Weights:
    """The weights of the backbone alone, as those of a VideoMAE."""
    inside = [pieces[0] for name, pieces in weights.pieces.items() if name.startswith("backbone.")]
    return videomae.LAYOUT.rename({piece.key.removeprefix("backbone."): piece.tensor for piece in inside})


def head_arguments(weights: Weights, given: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of the proposal heads and of the decoder. Numbers of attention heads are not in the weights."""
    decoder_dim = weights.need("context.embed.weight").shape[0]
    return {
        "num_classes": weights.need("context.classifiers.0.logits.weight").shape[0],
        "proposals": weights.need("proposals.boxes").shape[0],
        "proposal_heads": _count(weights, "proposals.heads.{i}.fc1.weight"),
        "attention_heads": given.get("attention_heads", 8),
        "hidden": weights.need("proposals.heads.0.fc1.weight").shape[0],
        "dynamic": weights.need("proposals.heads.0.mix.norm1.weight").shape[0],
        "decoder_dim": decoder_dim,
        "decoder_depth": _count(weights, "context.blocks.{i}.norm1.weight"),
        "decoder_heads": given.get("decoder_heads", max(decoder_dim // 64, 1)),
        "action_dim": weights.need("context.classifiers.0.fc.weight").shape[0],
    }


def _count(weights: Weights, pattern: str) -> int:
    return len(weights.tensors(pattern))


def _name(arguments: Mapping[str, Any]) -> str:
    usual = {"mlp_ratio": 4.0, "patch_size": 16, "tubelet_size": 2}
    for name, size in SIZES.items():
        if all(arguments.get(key, value) == value for key, value in {**size, **usual}.items()):
            return name
    return "evad"


LAYOUT = Layout("evad", "released EVAD detectors", RENAMES, UNUSED, describe)
