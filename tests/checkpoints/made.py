"""Checkpoints made for the tests, as others write them: from a tiny model of the project, every weight random."""

import json

import torch
from safetensors.torch import save_file

from tests.tiny import tiny

ARGUMENTS = {"dim": 24, "depth": 2, "heads": 3, "frames": 4, "size": 16, "patch_size": 8, "num_classes": 5}
UNSEEN = {"heads": 3, "frames": 4, "size": 16}  # what a bare file of weights does not say
# HF's name of each of the project's, of the parts that have another one.
HF_NAMES = {
    "patch_embed.proj.": "videomae.embeddings.patch_embeddings.projection.",
    "blocks.": "videomae.encoder.layer.",
    ".norm1.": ".layernorm_before.",
    ".norm2.": ".layernorm_after.",
    ".attn.proj.": ".attention.output.dense.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
    "head.": "classifier.",
}
SPELLINGS = {
    "4.x": (".attention.attention.q_bias", ".attention.attention.v_bias"),
    "5.x": (".attention.attention.query.bias", ".attention.attention.value.bias"),
}


def small(**arguments):
    return tiny("vit", **{**ARGUMENTS, **arguments})


def released(model):
    """As in the released VideoMAE files: the project's names."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def pretrained(model):
    """As after VideoMAE's pre-training: an encoder with a last norm, a decoder, no classifier."""
    state = {f"encoder.{n}": t for n, t in released(model).items() if not n.startswith(("head.", "fc_norm."))}
    state |= {"encoder.norm.weight": torch.randn(24), "encoder.norm.bias": torch.randn(24)}
    state |= {"mask_token": torch.randn(1, 1, 12), "encoder_to_decoder.weight": torch.randn(12, 24)}
    return state | {"decoder.blocks.0.norm1.weight": torch.randn(12), "decoder.head.bias": torch.randn(8)}


def huggingface(model, spelling="4.x"):
    state = {}
    for name, tensor in released(model).items():
        for ours, theirs in HF_NAMES.items():
            name = name.replace(ours, theirs)
        if name.endswith(".attn.qkv.weight"):
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                state[name.replace(".attn.qkv.", f".attention.attention.{part}.")] = rows.clone()
        else:
            for ours, theirs in zip((".attn.q_bias", ".attn.v_bias"), SPELLINGS[spelling], strict=True):
                name = name.replace(ours, theirs)
            state[name] = tensor
    return state


def hf_config(model, **changes):
    a = model.config.arguments
    config = {
        "model_type": "videomae", "image_size": list(model.size), "num_frames": model.frames, "hidden_size": a["dim"],
        "patch_size": a["patch_size"], "num_hidden_layers": a["depth"], "num_attention_heads": a["heads"],
        "intermediate_size": 4 * a["dim"], "layer_norm_eps": 1e-6,
        "id2label": {str(i): f"action {i}" for i in range(a["num_classes"])},
    }  # fmt: skip
    return {**config, **changes}


def hf_folder(folder, model, spelling="4.x", state=None, **changes):
    """A folder with config.json and model.safetensors, of a tiny model or of the state given."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state or huggingface(model, spelling), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(hf_config(model, **changes)))
    return folder
