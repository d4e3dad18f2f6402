"""STTS against the tensors of its published implementation: kept indices, scores, features, logits, gradients.

Cases are found by name in the folder TUBELET_PARITY; without it, in the small set that comes with the repository.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.parity.cases import parity_cases
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
