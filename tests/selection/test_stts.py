"""STTS by itself: its choice against the released way of making it, soft choices, anchors, counts, options."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import moving, tiny
from tubelet.errors import SelectionError, SpecError
from tubelet.models.registry import create_model, trace
from tubelet.selection.core import Grid, Layout, Selection, Tokens
from tubelet.selection.gumbel import gumbel_top_k
from tubelet.selection.plan import Host
from tubelet.selection.registry import build_plan
from tubelet.selection.spec import Budget, parse
from tubelet.selection.stts import (
    Anchors,
    Frames,
    Options,
    Regions,
    SoftFrames,
    SoftRegions,
    SoftTokens,
    anchor_starts,
    min_max,
    released_amount,
)


def state(grid, channels=8, prefix=1, batch=2, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    x = torch.randn(batch, prefix + grid.tokens, channels, dtype=dtype)
    return Tokens(x, Layout.dense(grid), grid, prefix)


def step(kind, grid, amount, options=None, channels=8, train=False):
    budget = Budget("T" if kind is Frames else "S", amount)
    torch.manual_seed(1)
    selector = kind((2 if kind is Frames else 1) * channels, [(0, budget)], options).train(train)
    for parameter in selector.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return selector, selector.leaves(Layout.dense(grid), Layout.dense(grid))


@given(side=st.integers(2, 12), region=st.integers(1, 12), frames=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_region_equals_unfolding_every_anchor(side, region, frames, seed):
    """Bit for bit what the released code gathers out of all overlapping crops."""
    region = min(region, side - 1)
    grid = Grid(frames, side, side)
    tokens = state(grid, seed=seed)
    selector, left = step(Regions, grid, region)
    with torch.no_grad():
        kept = selector(tokens, left).apply(tokens)
        raw = selector.raw_scores(tokens)
    stride = max((side - region) // 2, 1)
    score_crops = F.unfold(raw.view(-1, 1, side, side), region, stride=stride)  # (B T, n, A)
    best = score_crops.mean(1).argmax(1)
    maps = tokens.patches.reshape(-1, side * side, 8).transpose(1, 2).reshape(-1, 8, side, side)
    crops = F.unfold(maps, region, stride=stride).view(len(maps), 8, region * region, -1)  # (B T, C, n, A)
    released = crops[torch.arange(len(maps)), :, :, best].transpose(1, 2)
    assert torch.equal(kept.patches, released.reshape(2, -1, 8))
    assert torch.equal(kept.x[:, :1], tokens.x[:, :1])


@given(
    side=st.integers(1, 60),
    region=st.integers(1, 60),
)
def test_anchors_fit_and_cover_reaches_the_end(side, region):
    region = min(region, side)
    released, cover = (anchor_starts(side, region, kind) for kind in ("released", "cover"))
    assert released == list(range(0, side - region + 1, max((side - region) // 2, 1)))
    assert cover[: len(released)] == released and len(cover) - len(released) in (0, 1)
    assert cover[0] == 0 and cover[-1] == side - region and cover == sorted(set(cover))


@pytest.mark.parametrize(
    ("side", "region", "count"),
    [(56, 40, 9), (56, 47, 9), (56, 53, 16), (14, 13, 4), (14, 12, 9), (14, 11, 16), (14, 7, 9)],
)
def test_released_anchors(side, region, count):
    anchors = Anchors.of(Grid(8, side, side), Grid(8, region, region), "released")
    assert len(anchors.corners) == count


def test_frames_need_not_be_square():
    grid = Grid(2, 5, 9)
    selector, left = step(Regions, grid, (4, 3))
    tokens = state(grid)
    selection = selector(tokens, left)
    assert left.grid == Grid(2, 4, 3) and selection.scores.shape == (2, 2, 2 * 3)  # rows 0, 1; columns 0, 3, 6
    rows = selection.index.view(2, 2, 4, 3)
    assert torch.equal(rows[..., 1] - rows[..., 0], torch.ones(2, 2, 4, dtype=torch.long))
    assert torch.equal(rows[:, :, 1] - rows[:, :, 0], torch.full((2, 2, 3), 9))


def soft_cases(grid):
    k, a = 2, 9
    left_t, left_s = Layout.dense(Grid(k, grid.h, grid.w)), Layout.dense(Grid(grid.t, 3, 2))
    anchors = Anchors.of(grid, left_s.grid, "released")
    a = len(anchors.corners)
    frames = torch.rand(2, k, grid.t, dtype=torch.float64)
    regions = torch.rand(2, grid.t, a, dtype=torch.float64)
    scattered = torch.rand(2, grid.t, 6, grid.per_frame, dtype=torch.float64)
    whole = torch.arange(grid.tokens).view(1, grid.t, -1).expand(k, -1, -1)  # (units, candidates, n)
    first = torch.arange(grid.t)[:, None, None] * grid.per_frame
    crops = first + anchors.tokens(torch.device("cpu"))
    single = (first + torch.arange(grid.per_frame)[:, None]).repeat_interleave(6, 0)
    return {
        "frames": (lambda w: SoftFrames.of(w, grid, left_t, w), frames, whole),
        "regions": (lambda w: SoftRegions.of(w, anchors, left_s, w), regions, crops),
        "tokens": (lambda w: SoftTokens.of(w, grid, left_s, w), scattered, single),
    }


@pytest.mark.parametrize("kind", ["frames", "regions", "tokens"])
@pytest.mark.parametrize("prefix", [0, 1])
def test_soft_choice_is_the_weighted_mean_of_the_candidates(kind, prefix):
    """Features, both gradients, and for the rest the heaviest candidate."""
    grid = Grid(3, 5, 4)
    tokens = state(grid, prefix=prefix, dtype=torch.float64)
    make, weights, candidates = soft_cases(grid)[kind]
    weights.requires_grad_()
    x = tokens.x.clone().requires_grad_()
    selection = make(weights)
    mixed = selection.apply(tokens.with_x(x))
    flat = weights.reshape(2, candidates.shape[0], -1)  # (B, units, candidates)
    slow = torch.einsum("bua,buanc->bunc", flat, x[:, prefix:][:, candidates]).flatten(1, 2)
    torch.testing.assert_close(mixed.patches, slow)
    assert torch.equal(mixed.x[:, :prefix], x[:, :prefix])
    upstream = torch.randn_like(slow)
    for fast, expected in zip(
        torch.autograd.grad(mixed.patches, (x, weights), upstream),
        torch.autograd.grad(slow, (x, weights), upstream),
        strict=True,
    ):
        torch.testing.assert_close(fast, expected)
    heaviest = candidates[torch.arange(candidates.shape[0]), flat.argmax(-1)]  # (B, units, n)
    assert torch.equal(mixed.positions(), heaviest.flatten(1))


@pytest.mark.parametrize("kind", ["frames", "regions", "tokens"])
def test_class_tokens_of_frames_go_with_them(kind):
    """One-hot weights choose as the hard selection of the same tokens does, a class token a frame included."""
    grid = Grid(3, 5, 4)
    torch.manual_seed(0)
    x = torch.randn(2, 3 + grid.tokens, 8, dtype=torch.float64)
    tokens = Tokens(x, Layout.dense(grid), grid, prefix=3, framed=True)
    make, weights, _ = soft_cases(grid)[kind]
    if kind == "frames":  # ascending
        weights = F.one_hot(torch.tensor([[0, 2], [1, 2]]), 3).double()
    elif kind == "tokens":
        weights = F.one_hot(torch.rand(2, 3, 20).topk(6).indices.sort().values, 20).double()
    else:
        weights = F.one_hot(weights.argmax(-1), weights.shape[-1]).double()
    soft = make(weights)
    hard = Selection(soft.index, soft.layout).apply(tokens)
    assert torch.equal(soft.apply(tokens).x, hard.x) and hard.prefix == soft.layout.segments


def test_soft_regions_hold_no_crop():
    """What a region's mean saves for the way back are views of the tokens that entered."""
    grid = Grid(2, 8, 8)
    tokens = state(grid)
    x = tokens.x.clone().requires_grad_()
    anchors = Anchors.of(grid, Grid(2, 4, 4), "released")
    weights = torch.rand(2, 2, len(anchors.corners), requires_grad=True)
    selection = SoftRegions.of(weights, anchors, Layout.dense(anchors.region), weights)
    held = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: held.setdefault(t.untyped_storage().data_ptr(), t) if t.is_floating_point() else t, lambda t: t
    ):
        selection.apply(tokens.with_x(x))
    assert sum(t.untyped_storage().nbytes() for t in held.values()) <= (x.numel() + weights.numel()) * 4


@pytest.mark.parametrize("kind", [Frames, Regions])
@pytest.mark.parametrize("gradient", ["diagonal", "full"])
def test_training_becomes_evaluation_as_the_noise_fades(kind, gradient):
    grid = Grid(6, 6, 6)
    tokens = state(grid)
    selector, left = step(kind, grid, 4, Options(gradient=gradient))
    hard = selector(tokens, left).apply(tokens).x
    selector.train()
    assert selector.sigma == 0.1
    distance = []
    for done in (0.0, 0.9, 1.0):
        selector.set_progress(done)
        torch.manual_seed(0)
        distance.append(float((selector(tokens, left).apply(tokens).x - hard).detach().abs().max()))
    assert distance[0] > distance[2] == 0.0 and selector.sigma == 0.0
    selector.set_progress(0.0)
    loss = selector(tokens, left).apply(tokens).x.square().sum()
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in selector.parameters())
    assert selector.score_network.in_conv[1].weight.grad.abs().sum() > 0


def test_scattered_tokens_and_anchor_features():
    grid = Grid(2, 4, 4)
    tokens = state(grid)
    selector, left = step(Regions, grid, 2, Options(anchors="none"))
    selection = selector(tokens, left)
    scores = min_max(selector.raw_scores(tokens))
    kept = selection.index.view(2, 2, 4) - torch.tensor([[0], [16]])
    for b in range(2):
        for t in range(2):
            assert sorted(scores[b, t].topk(4).indices.tolist()) == kept[b, t].tolist()
    selector, left = step(Regions, grid, 2, Options(scores="anchor"))
    anchors = Anchors.of(grid, left.grid, "released")
    frames = tokens.patches.view(2, 2, 4, 4, 8)
    means = torch.stack([frames[:, :, r : r + 2, c : c + 2].mean((2, 3)) for r, c in anchors.corners], 2)
    expected = min_max(selector.score_network(means))
    torch.testing.assert_close(selector(tokens, left).scores, expected)


def test_equal_scores_take_the_first_and_give_no_nan():
    grid = Grid(3, 4, 4)
    tokens = state(grid).with_x(torch.ones(2, 1 + grid.tokens, 8))
    selector, left = step(Frames, grid, 2)
    selection = selector(tokens, left)
    assert not selection.scores.any() and torch.equal(selection.index, torch.arange(32).expand(2, -1))
    selector, left = step(Regions, grid, 3, train=True)
    assert torch.isfinite(selector(tokens, left).apply(tokens).x).all()


B16 = Grid(8, 56, 56)
STRIDES = (1, 2, 1, 2, *[1] * 10, 2, 1)  # MViT-B


def released(text, grid=B16):
    """The counts of each step, in the order they act."""
    host = Host("MViT", (96,) * 16, nominal_strides=STRIDES)
    plan = build_plan(f"stts:{text},bookkeeping=released", host)
    return [p.selector.amount(Layout.dense(grid)) for p in plan.placed]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("T0.875@0-S0.863@4", [7, 13]),
        ("T0.625@0-S0.863@4", [5, 13]),
        ("T0.5@0-S0.7367@4", [4, 12]),
        ("T0.375@0-S0.6174@4", [3, 11]),
        ("T0.6@0", [4]),
        ("S0.5105@0", [40]),
        ("S0.6@0", [43]),
        ("S0.3@4", [7]),
        ("T0.75@0-S0.7@0", [6, 46]),
        ("T0.9@0-T0.7@4-S0.9@0-S0.7@4", [7, 53, 4, 10]),
        ("T0.6@4-T0.4@8-S0.7@4-S0.7@8", [4, 11, 1, 9]),
        ("T0.9@0,4-T0.7@8-S0.9@0,4-S0.8@8", [7, 53, 6, 12, 4, 11]),
        ("S0.5@1", [19]),  # sized for 28 x 28, cut out of 56 x 56
        ("S40@0-S0.5@1", [40, 14]),
    ],
)
def test_released_counts(text, counts):
    """As measured with the released code on MViT-B, 16 x 224."""
    assert released(text) == counts


def test_released_counts_of_the_paper_table_are_truncated_products():
    steps = [(0, Budget("S", 0.5)), (4, Budget("S", 0.5))]
    assert released_amount(Grid(8, 14, 14), steps, [1] * 8) == 7  # of 98 tokens; of 9 x 9 it were 6
    with pytest.raises(SelectionError, match=r"8 x 6 tokens; use bookkeeping=grid"):
        released("S0.5@0", Grid(8, 8, 6))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("stts", "needs a budget"),
        ("stts:T5", "say before which block T5 acts"),
        ("stts:keep=0.5@3", "does not take keep=0.5"),
        ("stts:T5@0,gradient=half", "diagonal or full"),
        ("stts:S3@0,anchors=all", "released or cover or none"),
        ("stts:S3@0,anchors=none,scores=anchor", "without anchors"),
        ("stts:T5@0,samples=0", "a whole number from 1 on"),
        ("stts:T5@0,sigma=x", "a number from 0 on"),
        ("stts:T5@9", "block 9 does not exist; ViT has blocks 0 to 5"),
        ("stts:T9@0", "would keep 9 of 8 frames"),
        ("stts:S5@0", "does not fit in frames of 4 x 4"),
        ("gumbel:S3@0", "does not take S3"),
        ("gumbel:T3@0,tau=0", "a number above 0"),
    ],
)
def test_refusals(spec, message):
    with pytest.raises((SpecError, SelectionError), match=message):
        tiny(select=spec)


def test_steps_act_by_block_and_frames_first():
    model = tiny(select="stts:S3@0-T5@2-T6@0-S2@2")
    assert [(p.block, str(p.selector.budget)) for p in model.plan.placed] == [
        (0, "T6"),
        (0, "S3"),
        (2, "T5"),
        (2, "S2"),
    ]
    steps = trace(model, moving(2, model))
    assert [s.position.shape[1] for s in steps] == [6 * 16, 6 * 9, 5 * 9, 5 * 4]


def test_scorer_has_the_released_names_and_shapes():
    model = create_model("videomae_base", depth=2, select="stts:T5@0-S7@1")
    frames, regions = model.plan.selectors.values()
    shapes = {name: tuple(p.shape) for name, p in frames.named_parameters()}
    assert shapes["score_network.in_conv.0.weight"] == (1536,)
    assert shapes["score_network.in_conv.1.weight"] == (1536, 1536)
    assert shapes["score_network.out_conv.0.weight"] == (768, 1536)
    assert shapes["score_network.out_conv.2.weight"] == (384, 768)
    assert shapes["score_network.out_conv.4.weight"] == (1, 384)
    assert regions.score_network.in_conv[1].weight.shape == (768, 768)


def test_spec_is_read_back_as_given():
    for text in ("stts:T0.6@0-S0.9@4", "stts:T7@0-T5@4-S53@0-S10@4", "stts:T5@0,gradient=full,bookkeeping=released"):
        assert str(parse(text)) == text


@given(frames=st.integers(1, 6), k=st.integers(1, 6), tau=st.floats(0.1, 3), seed=st.integers(0, 10**6))
def test_gumbel_picks_are_the_noisy_best_and_their_gradient_flows(frames, k, tau, seed):
    k = min(k, frames)
    torch.manual_seed(seed)
    scores, noise = torch.randn(2, frames, requires_grad=True), torch.randn(2, frames)
    weights = gumbel_top_k(scores, k, tau, noise)
    best = (scores + noise).topk(k).indices.sort(-1).values
    assert torch.equal(weights, F.one_hot(best, frames).float())
    (gradient,) = torch.autograd.grad((weights * torch.randn_like(weights)).sum(), scores)
    assert torch.isfinite(gradient).all() and (frames == 1 or gradient.abs().sum() > 0)


def test_first_gumbel_pick_is_the_usual_relaxation():
    scores, noise = torch.randn(2, 5, requires_grad=True), torch.randn(2, 5)
    upstream = torch.randn(2, 1, 5)
    (ours,) = torch.autograd.grad(gumbel_top_k(scores, 1, 0.7, noise), scores, upstream)
    (usual,) = torch.autograd.grad(F.softmax((scores + noise) / 0.7, -1)[:, None], scores, upstream)
    torch.testing.assert_close(ours, usual)
