"""The core carries every kind of selection on the plain ViT: whole frames, regions, soft, merged, a key slab."""

from dataclasses import replace

import pytest
import torch

from tests.selectors import KeySlab, SoftFrames, SoftRegion, SoftSelection
from tests.tiny import moving, randomise, tiny
from tubelet.errors import SelectionError
from tubelet.models.registry import trace
from tubelet.selection.core import Grid, Layout, MergeSelection, Selection, Signals, Tokens, take
from tubelet.selection.plan import Host, Placed, Plan, Selector
from tubelet.selection.registry import build_plan


def with_selectors(model, *placed):
    for _, selector in placed:
        randomise(selector, 1)
    model.set_plan(Plan([Placed(block, s, schedule=i) for i, (block, s) in enumerate(placed)], model.host(), "test"))
    return model.eval()


def some_tokens(batch=2, channels=5, prefix=0):
    grid = Grid(4, 3, 3)
    x = torch.randn(batch, prefix + grid.tokens, channels)
    return Tokens(x, Layout.dense(grid), grid, prefix)


def test_take_is_a_gather():
    x, index = torch.randn(3, 7, 4), torch.randint(0, 7, (3, 5))
    assert torch.equal(take(x, index), x.gather(1, index[..., None].expand(-1, -1, 4)))


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_hard_selection_moves_everything_alike(prefix):
    tokens = some_tokens(prefix=prefix)
    index = torch.tensor([[5, 0, 30], [7, 8, 1]])
    left = Selection(index, Layout(3, 1)).apply(tokens)
    assert torch.equal(left.x[:, :prefix], tokens.x[:, :prefix])
    for b in range(2):
        assert torch.equal(left.patches[b], tokens.patches[b, index[b]])
    assert torch.equal(left.positions(), index)
    twice = Selection(torch.tensor([[2, 0], [1, 2]]), Layout(2, 1)).apply(left)
    assert torch.equal(twice.positions(), torch.tensor([[30, 5], [8, 1]]))


def test_soft_selection_with_one_hot_weights_is_the_hard_one():
    tokens, grid = some_tokens(), Grid(4, 3, 3)
    frames = torch.tensor([[0, 2], [1, 3]])
    weights = torch.nn.functional.one_hot(frames, 4).float()
    candidates = torch.arange(grid.tokens).view(1, 4, 9)
    soft = SoftSelection.of(candidates, weights, Layout.dense(Grid(2, 3, 3))).apply(tokens)
    index = (frames[..., None] * 9 + torch.arange(9)).flatten(1)
    hard = Selection(index, Layout.dense(Grid(2, 3, 3))).apply(tokens)
    assert torch.equal(soft.positions(), hard.positions())
    torch.testing.assert_close(soft.x, hard.x, rtol=0, atol=1e-6)


def test_merging_keeps_the_weighted_mean():
    tokens = some_tokens(prefix=1)
    index = torch.arange(30).expand(2, -1)
    joining, into = torch.arange(30, 36).expand(2, -1), torch.tensor([[0, 0, 1, 2, 3, 4], [5, 5, 5, 5, 5, 5]])
    merged = MergeSelection(index, Layout(30, 1), joining=joining, into=into).apply(tokens)
    assert merged.size[1, 5] == 7 and merged.size[0, 0] == 3 and merged.size.sum() == 72
    torch.testing.assert_close(merged.patches[1, 5], tokens.patches[1, [5, 30, 31, 32, 33, 34, 35]].mean(0))
    torch.testing.assert_close(merged.mean(), tokens.mean())  # the weighted mean of means is the mean
    again = MergeSelection(
        index[:, :29], Layout(29, 1), joining=torch.full((2, 1), 29), into=torch.full((2, 1), 5)
    ).apply(merged)
    torch.testing.assert_close(again.mean(), tokens.mean())
    assert again.key_bias().shape == (2, 1, 1, 30) and (again.key_bias()[..., 0] == 0).all()  # class token


def test_owners_follow_tokens_through_steps():
    model = tiny(select="merge:r=20@0+random:keep=0.5@2")
    first, second = trace(model, moving(2, model))
    assert (first.owner >= 0).all()  # merging loses none
    held = torch.zeros(2, 108, dtype=torch.long).scatter_add(1, first.owner, torch.ones_like(first.owner))
    assert held.sum() == 2 * 128 and held.min() == 1 and held.max() > 1
    assert second.mask.sum() == 2 * 54
    rows = torch.arange(2)[:, None]
    assert torch.equal(second.owner[rows, second.position], torch.arange(54).expand(2, -1))
    assert ((second.owner >= 0).sum() > second.mask.sum()).item()  # tokens merged into kept ones are still held


@pytest.mark.parametrize(
    ("placed", "entering"),
    [
        ([(0, SoftFrames(48, 5))], [80] * 6),
        ([(2, SoftRegion(48, 3))], [128, 128, 72, 72, 72, 72]),
        ([(0, SoftFrames(48, 4)), (1, SoftRegion(48, 2))], [64, 16, 16, 16, 16, 16]),
        ([(1, KeySlab(96)), (3, KeySlab(40))], [128, 128, 96, 96, 40, 40]),
    ],
    ids=["frames", "region", "frames+region", "key slab"],
)
def test_new_kinds_fit_the_vit(placed, entering):
    """Forward, the counts, and a gradient for every parameter of model and selector, with no change to the model."""
    model = with_selectors(tiny(), *placed)
    assert model.tokens_entering() == entering
    clip = moving(2, model).requires_grad_()
    logits = model(clip)
    logits.square().sum().backward()
    assert torch.isfinite(logits).all() and clip.grad.abs().sum() > 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    learned = [p for n, p in model.named_parameters() if n.startswith("plan.") and n.endswith("weight")]
    assert all(p.grad.abs().sum() > 0 for p in learned)


def test_key_slab_follows_the_weighted_attention():
    """The kept set is that of an explicit softmax with the key slab's queries counted four times."""
    model = with_selectors(tiny(), (1, KeySlab(96)))
    clip = moving(2, model)
    (step,) = trace(model, clip)
    slab = torch.arange(64, 80)
    with torch.no_grad():
        tokens = model.embed(clip)
        tokens = model.blocks[0](tokens)
        attn = model.blocks[1].attn
        x = model.blocks[1].norm1(tokens.x)
        bias = torch.cat([attn.q_bias, torch.zeros(48), attn.v_bias])
        q, k, _ = (x @ attn.qkv.weight.T + bias).view(2, 128, 3, 3, 16).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / 4).softmax(-1)  # (B, heads, queries, keys)
        weights[:, :, slab] *= 4
        score = weights.mean(dim=(1, 2))
    torch.testing.assert_close(step.scores, score)
    score[:, slab] = -1
    best = score.sort(dim=1, descending=True, stable=True).indices[:, :80]
    assert torch.equal(step.position, torch.cat([slab.expand(2, -1), best], dim=1))


@pytest.mark.parametrize(
    ("first", "spec", "last", "says"),
    [
        (None, "random:keep=0.5@0", (1, KeySlab(20)), "an earlier step dropped a part of the key slab"),
        ((1, KeySlab(96)), "random:keep=0.5@3", None, "must stay whole"),
        ((1, KeySlab(96)), "merge:r=3@3", None, "must stay whole"),
        ((1, KeySlab(96)), "none", (1, KeySlab(90, 2.0)), "different query weights"),
    ],
)
def test_what_would_break_a_key_slab_is_refused_when_the_plan_is_made(first, spec, last, says):
    model = tiny()
    placed = [Placed(*p, schedule=i) for i, p in enumerate((first, last)) if p]
    with pytest.raises(SelectionError, match=says):
        model.set_plan(Plan([*placed, *build_plan(spec, model.host()).placed], model.host()))


def test_the_class_tokens_attention_has_no_queries_to_weigh():
    model = tiny("vit_class_token")
    with pytest.raises(SelectionError, match="class token"):
        model.set_plan(Plan([Placed(1, KeySlab(96))], model.host()))


def test_soft_frames_equal_hard_frames_when_the_score_is_sharp():
    """A soft choice that is certain gives the same answer as the hard one: training meets inference."""
    model = tiny()
    selector = SoftFrames(48, 4)
    with_selectors(model, (0, selector))
    with torch.no_grad():
        selector.score.weight.zero_()
        selector.score.bias.zero_()
    kept = torch.tensor([1, 3, 5, 7])
    selector.forward = lambda tokens, left: SoftSelection.of(  # one-hot weights at the centres that "uniform" takes
        torch.arange(128).view(1, 8, 16), torch.nn.functional.one_hot(kept, 8).float().expand(2, -1, -1), left
    )
    clip = moving(2, model)
    with torch.no_grad():
        soft = model(clip)
        hard = tiny(select="uniform:T4@0")(clip)
    torch.testing.assert_close(soft, hard, rtol=0, atol=1e-5)


def test_signals_and_sizes_move_with_their_tokens():
    tokens = some_tokens()
    signals = Signals(keys=torch.randn(2, 36, 3), attention=torch.rand(2, 36))
    tokens = replace(tokens, signals=signals, size=torch.rand(2, 36))
    index = torch.tensor([[5, 0, 30], [7, 8, 1]])
    left = Selection(index, Layout(3, 1)).apply(tokens)
    for b in range(2):
        assert torch.equal(left.keys[b], signals.keys[b, index[b]])
        assert torch.equal(left.attention[b], signals.attention[b, index[b]])
        assert torch.equal(left.size[b], tokens.size[b, index[b]])


def test_sizes_are_counted_exactly_in_half_precision():
    grid = Grid(1, 1, 600)
    tokens = Tokens(torch.randn(1, 600, 4, dtype=torch.bfloat16), Layout.dense(grid), grid)
    index, joining = torch.zeros(1, 1, dtype=torch.long), torch.arange(1, 600)[None]
    merged = MergeSelection(index, Layout(1, 1), joining=joining, into=torch.zeros_like(joining)).apply(tokens)
    assert merged.size.item() == 600 and merged.x.dtype == torch.bfloat16


def test_soft_units_that_share_a_candidate():
    """Two frames that are mostly the same one: both stand at its place, and the first of them holds it."""
    tokens, weights = some_tokens().traced(), torch.tensor([[[0.9, 0.1, 0, 0], [0.8, 0, 0.2, 0]]] * 2)
    soft = SoftSelection.of(torch.arange(36).view(1, 4, 9), weights, Layout.dense(Grid(2, 3, 3)))
    left = soft.apply(tokens)
    assert torch.equal(left.positions()[0], torch.arange(9).repeat(2))
    assert torch.equal(left.owner[0, :9], torch.arange(9)) and (left.owner[0, 9:] == -1).all()


def test_a_list_used_twice_records_each_pass_by_itself():
    model, record = tiny(select="sta:r=3"), []
    clip = moving(1, model)
    with torch.no_grad():
        model(clip, record)
        model(clip, record)
    for first, second in zip(record[:3], record[3:], strict=True):
        assert torch.equal(first.owner, second.owner)


def test_pooling_of_the_model_is_counted_where_it_happens():
    """A model that halves its rows and columns in the attention of block 1: steps after that see the smaller grid."""

    class Watch(Selector):
        def __init__(self, place):
            super().__init__()
            self.place, self.seen = place, None

        def leaves(self, layout, start):
            self.seen = layout.grid
            return layout

    def arriving(block, place, layout):
        return Layout.dense(Grid(4, 2, 2)) if (block, place) == (1, "inside") else layout

    watches = [Watch(place) for place in ("before", "inside", "after")]
    plan = Plan([Placed(1, w) for w in watches], Host("pooling", (8, 8), arriving=arriving))
    assert plan.schedule(Grid(4, 4, 4)).entering == [64, 64]
    assert [w.seen for w in watches] == [Grid(4, 4, 4), Grid(4, 2, 2), Grid(4, 2, 2)]
