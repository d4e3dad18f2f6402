"""VideoSwin's weights as others write them: from a tiny model of the project."""

import re

from tubelet.models.windows import pair_places


def mmaction(model):
    """As STTS's code writes it, with the index of pairs and the scorers of frames and regions."""
    state, numbers = {}, {"T": 0, "S": 0}
    for name, tensor in indexed(model).items():
        state[("cls_head.fc_cls." + name[5:]) if name.startswith("head.") else f"backbone.{name}"] = tensor
    for key, selector in model.plan.selectors.items():
        kind = selector.budget.kind
        theirs = f"backbone.{'time' if kind == 'T' else 'space'}_score_predictor.{numbers[kind]}."
        ours = f"backbone.plan.selectors.{key}."
        state = {name.replace(ours, theirs): tensor for name, tensor in state.items()}
        numbers[kind] += 1
    return state


def torchvision(model):
    state = {}
    for name, tensor in indexed(model).items():
        name = re.sub(r"layers\.(\d+)\.blocks\.", lambda m: f"features.{2 * int(m[1])}.", name)
        name = re.sub(r"layers\.(\d+)\.downsample\.", lambda m: f"features.{2 * int(m[1]) + 1}.", name)
        state[name.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")] = tensor
    return state


def indexed(model):
    state = {}
    for name, tensor in model.state_dict().items():
        state[name] = tensor.clone()
        if name.endswith("relative_position_bias_table"):
            state[name.replace("bias_table", "index")] = pair_places(model.window_size).clone()
    return state
