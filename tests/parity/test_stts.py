"""STTS against the tensors of its published implementation: kept indices, scores, features, logits, gradients.

Cases are found by name in the folder TUBELET_PARITY; without it, in the small set that comes with the repository.
"""

import json
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from tests.parity.cases import parity_cases
from tubelet.models.registry import create_model, set_selection
from tubelet.models.windows import pair_places
from tubelet.selection.core import Grid, Layout, Tokens
from tubelet.selection.spec import Budget
from tubelet.selection.stts import Frames, Options, Regions
from tubelet.selection.topk import perturbed_top_k, top_k


def read(case):
    about = json.loads(case.read_text())
    return about, load_file(case.with_suffix(".safetensors")), {"rtol": 0, "atol": about.get("suggested_atol", 1e-4)}


def cases(pattern):
    return pytest.mark.parametrize("case", parity_cases("stts", pattern), ids=lambda path: path.stem)


@cases("stts_perturbed_*.json")
def test_perturbed_top_k(case):
    about, tensors, close = read(case)
    k, sigma, noise = about["k"], about["sigma"], tensors["noise"]
    assert torch.equal(top_k(tensors["scores"], k), tensors["hard_topk_indices"])
    for name, full in (("diagonal", False), ("full_jacobian", True)):
        scores = tensors["scores"].clone().requires_grad_()
        weights = perturbed_top_k(scores, k, sigma, full=full, noise=noise)
        weights.backward(tensors["upstream_grad"])
        torch.testing.assert_close(weights, tensors["forward"], **close)
        torch.testing.assert_close(scores.grad, tensors[f"grad_scores_{name}"], **close)
        if sigma <= 1e-20:
            assert not scores.grad.any()


@cases("stts_selector_*.json")
def test_selector(case):
    """The choice of evaluation, and the training choice with its noise and all gradients."""
    about, tensors, close = read(case)
    frames, channels = about["frames"], about["channels"]
    grid = Grid(frames, about["grid"], about["grid"])
    if about["kind"] == "time":
        selector = Frames(2 * channels, [(0, Budget("T", about["k"]))], Options(sigma=about["sigma"]))
    else:
        side = about["anchor_size"]
        assert side**2 <= about["k"] < (side + 1) ** 2
        selector = Regions(channels, [(0, Budget("S", side))], Options(sigma=about["sigma"]))
    selector.load_state_dict({name[11:]: t for name, t in tensors.items() if name.startswith("state_dict.")})
    left = selector.leaves(Layout.dense(grid), Layout.dense(grid))

    tokens = Tokens(tensors["input"], Layout.dense(grid), grid)
    with torch.no_grad():
        selection = selector.eval()(tokens, left)
    scores = tensors["eval_scores"]
    torch.testing.assert_close(selection.scores.reshape(scores.shape), scores, **close)
    assert torch.equal(
        top_k(selection.scores.reshape(scores.shape), tensors["eval_indices"].shape[1]), tensors["eval_indices"]
    )
    assert torch.equal(selection.apply(tokens).x, tensors["eval_output"])

    x = tensors["input"].clone().requires_grad_()
    tokens = tokens.with_x(x)
    mixed = selector.train()(tokens, left, noise=tensors["noise"]).apply(tokens).x
    mixed.backward(tensors["upstream_grad"])
    torch.testing.assert_close(mixed, tensors["train_output"], **close)
    torch.testing.assert_close(x.grad, tensors["grad_input"], **close)
    for name, parameter in selector.named_parameters():
        torch.testing.assert_close(parameter.grad, tensors[f"grad.{name}"], **close)


@cases("stts_mvit_*.json")
def test_mvit(case):
    about, tensors, close = read(case)
    hyper = about["hyperparameters"]
    model = mvit(hyper)
    counts = [(block, 0, f"T{k}@{block}") for block, k in steps(hyper, "time", "time_k")]
    counts += [(block, 1, f"S{side}@{block}") for block, side in steps(hyper, "space", "anchor_sizes")]
    if counts:
        set_selection(model, "stts:" + "-".join(text for *_, text in sorted(counts)))
    model.load_state_dict(own_names(tensors, model, prefix=""), strict=True)
    check(model, about, tensors, close)
    entering = [block["tokens_incl_cls"] for block in about["block_inputs"]]
    assert model.tokens_entering() == entering
    if counts:  # the ratios of the case, as its code counts them
        set_selection(model, released_spec(hyper))
        assert model.tokens_entering() == entering


def check(model, about, tensors, close):
    """Scores and kept indices of each step, what the classifier reads, logits."""
    clip = tensors["input"]
    seen = {}
    with torch.no_grad(), watched(model, seen):
        logits = model(clip)
        features = model.features(model.forward_features(clip))
    torch.testing.assert_close(logits, tensors["logits"], **close)
    torch.testing.assert_close(features, tensors["features"], **close)
    if "probs" in tensors:
        torch.testing.assert_close(logits.softmax(-1), tensors["probs"], **close)
    for step in about["selections"]:
        if step["predictor"] not in seen:  # a step that keeps everything is none
            assert step["k"] == step["candidates"]
            continue
        raw, selection = seen[step["predictor"]]
        expected = tensors[f"scores.{step['predictor']}"]
        torch.testing.assert_close(raw.flatten(0, -2), tensors[f"raw_scores.{step['predictor']}"], **close)
        scores = selection.scores.flatten(0, -2)
        torch.testing.assert_close(scores, expected, **close)
        assert torch.equal(top_k(scores, step["k"]), tensors[f"indices.{step['predictor']}"])


@contextmanager
def watched(model, seen):
    """Predictor -> raw scores and selection of each step of a pass."""
    hooks = []
    for predictor, key in predictors(model).items():
        selector = model.plan.selectors[key]

        def note(selector, given, selection, predictor=predictor):
            seen[predictor] = selector.raw_scores(given[0]), selection

        hooks.append(selector.register_forward_hook(note))
    yield
    for hook in hooks:
        hook.remove()


def predictors(model):
    """The released name of each selector -> its key in the plan."""
    names = {}
    for kind, name in (("T", "time"), ("S", "space")):
        keys = [key for key, selector in model.plan.selectors.items() if selector.budget.kind == kind]
        names.update({f"{name}_score_predictor.{j}": key for j, key in enumerate(keys)})
    return names


def own_names(tensors, model, prefix):
    """The case's parameters under the names of the model."""
    scorers = {f"{prefix}{name}.": f"plan.selectors.{key}." for name, key in predictors(model).items()}
    renamed = {"head.projection.": "head.", "cls_head.fc_cls.": "head.", **scorers, prefix: ""}
    state = {}
    for key, tensor in tensors.items():
        if not key.startswith("state_dict."):
            continue
        name = key.removeprefix("state_dict.")
        begin = next((begin for begin in renamed if name.startswith(begin)), "")
        state[renamed.get(begin, "") + name.removeprefix(begin)] = tensor
    return state


def steps(hyper, name, counts):
    """(block, count) of each step of a kind; `counts` or the name of them."""
    found = hyper[counts] if isinstance(counts, str) else counts
    return list(zip(hyper.get(f"{name}_pruning_loc") or [], found, strict=True))


def released_spec(hyper):
    parts = [f"T{float(share)}@{block}" for block, share in steps(hyper, "time", "time_left_ratio")]
    parts += [f"S{float(share)}@{block}" for block, share in steps(hyper, "space", "space_left_ratio")]
    return f"stts:{'-'.join(parts)},bookkeeping=released"


def mvit(hyper):
    assert hyper["pool_mode"] == "conv"
    return create_model(
        "mvit_base_16x4",
        frames=hyper["num_frames"],
        size=hyper["crop_size"],
        num_classes=hyper["num_classes"],
        dim=hyper["embed_dim"],
        depth=hyper["depth"],
        heads=hyper["num_heads"],
        mlp_ratio=hyper["mlp_ratio"],
        patch_kernel=tuple(hyper["patch_kernel"]),
        patch_stride=tuple(hyper["patch_stride"]),
        patch_padding=tuple(hyper["patch_padding"]),
        dim_mul=hyper["dim_mul"],
        head_mul=hyper["head_mul"],
        pool_kernel=tuple(hyper["pool_kvq_kernel"]),
        pool_q_stride=hyper["pool_q_stride"],
        pool_kv_stride=tuple(hyper["pool_kv_stride_adaptive"]),
        qkv_bias=hyper["qkv_bias"],
        positions="separable" if hyper["sep_pos_embed"] else "joint",
        class_token=hyper["cls_embed_on"],
        norm_stem=hyper["norm_stem"],
        eps=hyper["block_norm_eps"],
        pool_eps=hyper["pool_norm_eps"],
    )


INDEX = ".relative_position_index"  # a buffer of the released code


@cases("stts_videoswin_*.json")
def test_videoswin(case):
    about, tensors, close = read(case)
    model = _video_swin({**about["hyperparameters"], **about})
    scorers = _video_swin_scorers(model)
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


def _video_swin(about):
    tubelet_size, patch_size, _ = about["patch_size"]
    return create_model(
        "videoswin_tiny",
        select=_video_swin_spec(about),
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


def _video_swin_spec(about):
    """The counts of the case at its places."""
    steps = [f"T{k}@{place}" for k, place in zip(about["time_k"], about.get("time_pruning_loc", []), strict=True)]
    places = about.get("space_pruning_loc", [])
    steps += [f"S{side}@{place}" for side, place in zip(about["anchor_sizes"], places, strict=True)]
    return f"stts:{'-'.join(steps)}" if steps else "none"


def _video_swin_scorers(model):
    """Released name of each scorer -> its name here."""
    found, count = {}, {"time": 0, "space": 0}
    for key, selector in model.plan.selectors.items():
        kind = "time" if isinstance(selector, Frames) else "space"
        found[f"{kind}_score_predictor.{count[kind]}"] = f"plan.selectors.{key}"
        count[kind] += 1
    return found
