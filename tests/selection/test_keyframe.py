"""Keyframe pruning: the formula told slowly, its counts, what is refused, and the baselines beside the key slab."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import moving, tiny, tiny_detector
from tubelet.errors import SelectionError, SpecError
from tubelet.models.registry import create_model, set_selection, trace
from tubelet.selection.core import Grid, Layout
from tubelet.selection.keyframe import key_slab, left_beside_key, pick_beside_key

GRID = Grid(4, 4, 6)
SLAB, TOKENS = GRID.per_frame, GRID.tokens


def importance(attention, slab, weight):
    """Mean over heads and queries of the attention (heads, N, N) that each token receives, key queries by `weight`."""
    heads, count, _ = attention.shape
    scores = []
    for j in range(count):
        received = 0.0
        for h in range(heads):
            for i in range(count):
                received += float(attention[h, i, j]) * (weight if i in slab else 1)
        scores.append(received / heads / count)
    return scores


@pytest.mark.parametrize("weight", [1, 4])
def test_the_formula_told_slowly(weight):
    model = tiny_detector(select=f"keyframe:keep=0.6@1,weight={weight}", frames=8, size=(32, 32))
    clip = moving(1, frames=8, size=(32, 32))
    (step,) = trace(model, clip)
    grid = model.grid
    with torch.no_grad():
        x = model.backbone.patch_embed(clip) + model.positions_for(model.backbone.pos_embed, grid)
        tokens = model.backbone.embed(clip).with_x(x)
        block = model.backbone.blocks[1]
        y = block.norm1(model.backbone.blocks[0](tokens).x)[0]
        bias = torch.cat([block.attn.q_bias, torch.zeros_like(block.attn.q_bias), block.attn.v_bias])
        q, k, _ = (y @ block.attn.qkv.weight.T + bias).view(len(y), 3, 3, -1).permute(1, 2, 0, 3)
        attention = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)
    slab = range(grid.t // 2 * grid.per_frame, (grid.t // 2 + 1) * grid.per_frame)
    scores = importance(attention, slab, weight)
    torch.testing.assert_close(step.scores[0], torch.tensor(scores), rtol=1e-4, atol=1e-7)
    kept = math.ceil(0.6 * grid.tokens) - grid.per_frame
    others = sorted((j for j in range(grid.tokens) if j not in slab), key=lambda j: -scores[j])
    assert step.position[0].tolist() == [*slab, *others[:kept]]


def test_the_weight_ranks_and_does_not_gather():
    """The block's output for the tokens kept is that without a selector."""
    clip = moving(1, frames=8, size=(64, 96))
    dense, heavy = tiny_detector(), tiny_detector(select="keyframe:keep=0.7@5,weight=9")
    with torch.no_grad():
        full, _ = dense.forward_features(clip)
        kept, _ = heavy.forward_features(clip)
    expected = full.x[0][kept.position[0]]
    torch.testing.assert_close(kept.x[0], expected, rtol=0, atol=1e-5)


def test_published_counts():
    with torch.device("meta"):
        model = create_model("evad_base")
    for spec, counts in {
        "keyframe:keep=0.7": [2592] * 4 + [1815] * 3 + [1271] * 3 + [890] * 2,
        "keyframe:keep=0.7@3,6,9": [2592] * 4 + [1815] * 3 + [1271] * 3 + [890] * 2,
        "random:keep=0.7@3,6,9": [2592] * 4 + [1815] * 3 + [1271] * 3 + [890] * 2,
        "keyframe:keep=0.6@3,6,9,weight=4": [2592] * 4 + [1556] * 3 + [934] * 3 + [561] * 2,
        "keyframe:keep=0.8@3-keep=0.6@6": [2592] * 4 + [2074] * 3 + [1245] * 5,
    }.items():
        assert set_selection(model, spec).tokens_entering() == counts


@given(st.integers(2, 8), st.integers(1, 6), st.integers(1, 6), st.floats(0.05, 0.999).map(lambda x: round(x, 3)))
def test_the_key_slab_stays_and_the_count_is_the_published_one(half, h, w, share):
    grid = Grid(2 * half, h, w)
    dense = Layout.dense(grid)
    slab = key_slab(dense)
    assert len(slab) == grid.per_frame and slab.start == half * grid.per_frame
    try:
        left = left_beside_key(dense, dense, share, Fraction(repr(share)), "keyframe")
    except SelectionError:
        assert math.ceil(share * grid.tokens) <= grid.per_frame or Fraction(repr(share)) * grid.t <= 1
        return
    if left == dense:
        assert math.ceil(share * grid.tokens) == grid.tokens
        return
    assert left.tokens == math.ceil(share * grid.tokens) and left.pinned == grid.per_frame
    scores = torch.rand(2, grid.tokens)
    picked = pick_beside_key(scores, dense, left)
    assert picked.index.shape == (2, left.tokens)
    for row, score in zip(picked.index, scores, strict=True):
        assert row[: len(slab)].tolist() == list(slab)
        others = row[len(slab) :]
        assert len(set(row.tolist())) == left.tokens
        assert (score[others][1:] <= score[others][:-1]).all()  # in falling order
        dropped = torch.ones(grid.tokens, dtype=torch.bool)
        dropped[row] = False
        assert len(others) == 0 or not dropped.any() or score[others].min() >= score[dropped].max()


def test_ties_go_to_the_lower_place():
    dense = Layout.dense(Grid(2, 1, 3))
    left = Layout(5, segments=1, pinned=3)
    assert pick_beside_key(torch.ones(1, 6), dense, left).index.tolist() == [[3, 4, 5, 0, 1]]


REFUSED = {
    "keyframe:keep=0.25@1": "must stay above 1/4",
    "keyframe:keep=0.5@1,2": "are 0.25 here, and must stay above 1/4",
    "keyframe:keep=0.6": "must stay above 1/4",
    "keyframe:keep=0.01@3": "the key slab alone has 24",
    "random:keep=0.5@1,2": "must stay above 1/4",
    "random:T0.5@1": "a detector needs every token of its key frame",
    "uniform:S2@1": "a detector needs every token",
    "sta:r=2,groups=4/4/2": "a detector needs every token",
    "merge:r=4": "a detector needs every token",
    "keyframe:keep=0.7@2+merge:r=4@4": "it may drop a part of the key slab",
    "keyframe:keep=0.7@2+random:T2@4": "T keeps whole frames and needs a dense grid",
    "keyframe:keep=0.7@2-keep=0.9@2": "different query weights",
}


@pytest.mark.parametrize("spec", REFUSED)
def test_a_plan_that_cannot_work_is_refused_when_it_is_built(spec):
    with pytest.raises(SelectionError, match=REFUSED[spec]):
        tiny_detector(select=spec)


@pytest.mark.parametrize(
    ("spec", "says"),
    {
        "keyframe:r=3": "keyframe does not take r=3",
        "keyframe:T5@1": "keyframe does not take T5",
        "keyframe": "keyframe needs a budget",
        "keyframe:keep=0.7,weight=0": "weight=0 in keyframe:keep=0.7,weight=0: a number above 0",
        "keyframe:keep=0.7,weight=x": "a number above 0",
        "keyframe:keep=0.7-keep=0.8@4": "say at which blocks each acts",
        "keyframe:keep=0.7,seed=1": "has no option 'seed'",
    }.items(),
)
def test_a_spec_that_cannot_be_read(spec, says):
    with pytest.raises(SpecError, match=says):
        tiny_detector(select=spec)


def test_an_odd_number_of_slots_has_no_middle_one():
    with pytest.raises(SelectionError, match="even number of time slots, and there are 7"):
        tiny("vit", select="keyframe:keep=0.7@1", frames=14)


def test_it_works_on_a_classifier_too():
    model = tiny("vit", select="keyframe:keep=0.7@1,3")
    first, second = trace(model, moving(1, model))
    key = model.grid.t // 2
    assert first.mask[0, key].all() and second.mask[0, key].all() and not second.mask.all()


@pytest.mark.parametrize("name", ["random", "uniform", "attention"])
def test_baselines_act_beside_the_key_slab_with_the_same_counts(name):
    clip = moving(2, frames=8, size=(64, 96))
    ours = trace(tiny_detector(select="keyframe:keep=0.7@2,4"), clip)
    theirs = trace(tiny_detector(select=f"{name}:keep=0.7@2,4"), clip)
    assert [(s.place, s.block, s.position.shape) for s in ours] == [
        (s.place, s.block, s.position.shape) for s in theirs
    ]
    for step in theirs:
        assert step.mask[:, GRID.t // 2].all()
    same = all(torch.equal(a.mask, b.mask) for a, b in zip(ours, theirs, strict=True))
    assert same == (name == "attention")  # the mean attention received is keyframe's score with weight 1


def test_the_seed_of_random_matters():
    clip = moving(1, frames=8, size=(64, 96))
    masks = [trace(tiny_detector(select=f"random:keep=0.7@2,seed={seed}"), clip)[0].mask for seed in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
