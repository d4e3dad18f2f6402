"""MViT's weights as others write them: from a tiny model of the project."""

import torch

# The project's name -> theirs, of the parts that have another one.
SLOWFAST = {"head.": "head.projection."}
PYTORCHVIDEO = {
    **{name: f"cls_positional_encoding.{name}" for name in ("cls_token", "pos_embed")},
    "patch_embed.proj.": "patch_embed.patch_model.",
    "norm.": "norm_embed.",
    "head.": "head.proj.",
}
TORCHVISION = {
    "patch_embed.proj.": "conv_proj.",
    "cls_token": "pos_encoding.class_token",
    "pos_embed_spatial": "pos_encoding.spatial_pos",
    "pos_embed_temporal": "pos_encoding.temporal_pos",
    "pos_embed_class": "pos_encoding.class_pos",
    "head.": "head.1.",
}
INSIDE = {  # of the names of blocks
    ".attn.proj.": ".attn.project.0.",
    ".mlp.fc1.": ".mlp.0.",
    ".mlp.fc2.": ".mlp.3.",
    **{f".attn.pool_{x}.": f".attn.pool_{x}.pool." for x in "qkv"},
    **{f".attn.norm_{x}.": f".attn.pool_{x}.norm_act.0." for x in "qkv"},
}


def renamed(model, table):
    state = {}
    for name, tensor in model.state_dict().items():
        begin = next((begin for begin in table if name.startswith(begin)), "")
        state[table.get(begin, "") + name.removeprefix(begin)] = tensor.clone()
    return state


def stts_state(model):
    """As STTS's code writes it: scorers numbered apart for frames and regions, in the order in which they act."""
    numbers = {"T": 0, "S": 0}
    table = dict(SLOWFAST)
    for key, selector in model.plan.selectors.items():
        kind = selector.budget.kind
        table[f"plan.selectors.{key}."] = f"{'time' if kind == 'T' else 'space'}_score_predictor.{numbers[kind]}."
        numbers[kind] += 1
    return renamed(model, table)


def apart(state):
    """Query, key and value in weights of their own, as SlowFast and PyTorchVideo have them."""
    parted = {}
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            for x, rows in zip("qkv", tensor.chunk(3), strict=True):
                parted[name.replace(".qkv.", f".{x}.")] = rows.clone()
        else:
            parted[name] = tensor
    return parted


def slowfast_state(model):
    return apart(renamed(model, SLOWFAST))


def pytorchvideo_state(model):
    return apart(renamed(model, PYTORCHVIDEO))


def torchvision_state(model):
    state = {}
    for name, tensor in renamed(model, TORCHVISION).items():
        if name.startswith("blocks."):
            number = name.split(".")[1]
            name = name.replace(f"blocks.{number}.proj.", f"blocks.{number}.project.")
            for ours, theirs in INSIDE.items():
                name = name.replace(ours, theirs)
        state[name] = tensor
    for name in ("class_token", "class_pos"):
        state[f"pos_encoding.{name}"] = state[f"pos_encoding.{name}"].flatten()
    for name in ("spatial_pos", "temporal_pos"):
        state[f"pos_encoding.{name}"] = state[f"pos_encoding.{name}"][0]
    return state


def save_as_trained(state, path):
    """As SlowFast's training loop: the weights beside its own state."""
    torch.save(
        {"epoch": 3, "model_state": state, "optimizer_state": {"state": {}, "param_groups": []}, "cfg": "x: 1"}, path
    )
    return path
