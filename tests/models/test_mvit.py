"""MViT: its block by the plain formula, what pooling does to positions and signals, multiply-adds, refusals."""

import math

import pytest
import torch
import torch.nn.functional as F

from benchmarks.peers import torchvision_mvit
from tests.checkpoints.mvit import torchvision_state
from tests.tiny import MVIT, moving, randomise, tiny
from tubelet.errors import SelectionError, TubeletError
from tubelet.models.mvit import MViT, PoolingAttention, max_pool, round_width, spread, widths_and_heads
from tubelet.models.registry import create_model, trace
from tubelet.profiling import count_flops, flops_table
from tubelet.selection.core import Ask, Grid, Layout, Selection, Tokens


def pooled_one_head(x, grid, prefix, conv, norm):
    """(n, d) tokens of one head of one clip, as the paper says it: convolve the maps, the class token aside."""
    maps = x[prefix:].T.reshape(1, -1, *grid)
    pooled = conv(maps).flatten(2)[0].T
    return norm(torch.cat([x[:prefix], pooled]))


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("strides", [((1, 2, 2), (1, 2, 2)), (None, (2, 4, 4)), (None, None), ((1, 2, 2), (1, 1, 1))])
def test_attention_is_that_of_the_plain_formula(prefix, strides):
    """A head and a clip at a time."""
    torch.manual_seed(0)
    q_stride, kv_stride = strides
    grid, heads = Grid(4, 7, 6), 2
    attn = PoolingAttention(12, heads, q_stride=q_stride, kv_stride=kv_stride).eval()
    randomise(attn)
    x = torch.randn(2, prefix + grid.tokens, 12)
    with torch.no_grad():
        out, signals, left = attn(x, grid, prefix, Ask(attention=True))
        plain, nothing, _ = attn(x, grid, prefix)
        expected, received = [], []
        for clip in x:
            outs, rows = [], []
            for h in range(heads):
                q, k, v = ((clip @ attn.qkv.weight.T + attn.qkv.bias).view(-1, 3, heads, 6)[:, i, h] for i in range(3))
                if q_stride:
                    q = pooled_one_head(q, grid, prefix, attn.pool_q, attn.norm_q)
                if kv_stride:
                    k = pooled_one_head(k, grid, prefix, attn.pool_k, attn.norm_k)
                    v = pooled_one_head(v, grid, prefix, attn.pool_v, attn.norm_v)
                weights = (q @ k.T / math.sqrt(6)).softmax(-1)
                outs.append(weights @ v)
                rows.append((weights[0] if prefix else weights.mean(0))[prefix:])
            expected.append(attn.proj(torch.cat(outs, dim=-1)))
            received.append(torch.stack(rows).mean(0))
    torch.testing.assert_close(out, torch.stack(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(plain, out, rtol=1e-4, atol=1e-5)
    assert nothing.attention is None
    assert out.shape[1] == prefix + left.tokens == prefix + signals.attention.shape[1]
    keys = Grid(*(-(-n // s) for n, s in zip(grid, kv_stride or (1, 1, 1), strict=True)))
    torch.testing.assert_close(
        signals.attention, spread(torch.stack(received), keys, kv_stride, grid, q_stride), rtol=1e-4, atol=1e-6
    )


def test_attention_of_a_key_goes_to_its_cell():
    """7 columns of tokens, keys every 2, queries every 2 or not."""
    keys, entered = Grid(1, 1, 4), Grid(1, 1, 7)
    received = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert spread(received, keys, (1, 1, 2), entered, None).tolist() == [[1, 1, 2, 2, 3, 3, 4]]
    assert spread(received, keys, (1, 1, 2), entered, (1, 1, 2)).tolist() == [[1, 2, 3, 4]]
    every = torch.arange(7.0)[None]
    assert spread(every, entered, (1, 1, 1), entered, (1, 1, 2)).tolist() == [[0.5, 2.5, 4.5, 6]]
    assert torch.equal(spread(every, entered, None, entered, None), every)


@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 2), (1, 4, 2)])
@pytest.mark.parametrize("prefix", [0, 1])
def test_residual_takes_the_maximum(stride, prefix):
    grid = Grid(4, 7, 5)
    x = torch.randn(2, prefix + grid.tokens, 6)
    window = [s + 1 if s > 1 else 1 for s in stride]
    maps = x[:, prefix:].transpose(1, 2).unflatten(2, grid)
    expected = F.max_pool3d(maps, window, stride, [w // 2 for w in window]).flatten(2).transpose(1, 2)
    out = max_pool(x, grid, prefix, stride)
    assert torch.equal(out[:, prefix:], expected) and torch.equal(out[:, :prefix], x[:, :prefix])


def test_pooled_tokens_own_their_cells():
    """A region of odd sides, then pooling: positions where the cells begin, owners all over them."""
    source = Grid(2, 6, 6)
    tokens = Tokens(torch.zeros(1, 72, 4), Layout.dense(source), source).traced()
    box = Grid(2, 3, 5)
    index = (torch.arange(2)[:, None, None] * 36 + (torch.arange(3) + 2)[:, None] * 6 + torch.arange(5) + 1).flatten()[
        None
    ]
    tokens = Selection(index, Layout.dense(box)).apply(tokens)
    pooled = tokens.pooled(torch.zeros(1, 2 * 2 * 3, 4), Grid(2, 2, 3), (1, 2, 2))
    owner = pooled.owner.view(2, 6, 6)
    assert owner[0].tolist() == [
        [-1] * 6, [-1] * 6,
        [-1, 0, 0, 1, 1, 2],
        [-1, 0, 0, 1, 1, 2],
        [-1, 3, 3, 4, 4, 5],
        [-1] * 6,
    ]  # fmt: skip
    assert torch.equal(owner[1], torch.where(owner[0] < 0, owner[0], owner[0] + 6))
    assert pooled.position[0, :6].tolist() == [2 * 6 + 1, 2 * 6 + 3, 2 * 6 + 5, 4 * 6 + 1, 4 * 6 + 3, 4 * 6 + 5]
    assert pooled.layout == Layout.dense(Grid(2, 2, 3)) and pooled.cells


def test_trace_shows_the_region_in_the_input_grid():
    model = tiny("mvit", select="stts:T5@0-S2x3@3")
    frames, region = trace(model, moving(2, model))
    assert not frames.cells and frames.mask.sum() == 2 * 5 * 64
    assert region.cells and region.scores.shape == (2, 5, 3 * 2)  # rows 0, 1, 2 and columns 0, 1
    for b in range(2):
        kept = frames.mask[b].flatten(1).any(1)
        assert torch.equal(region.mask[b].flatten(1).sum(1), kept * 2 * 3 * 4)
        for t in kept.nonzero():
            rows, columns = (region.mask[b, t].squeeze(0).any(dim) for dim in (1, 0))
            assert rows.sum() == 4 and columns.sum() == 6 and region.mask[b, t].sum() == 24
            assert rows.nonzero()[0] % 2 == 0  # a box of whole cells


@pytest.mark.parametrize("key", ["mvit", "mvit_no_class_token"])
def test_other_frames_and_sizes(key):
    """Positions are resized; every selection is planned anew."""
    model = tiny(key, select="stts:T0.5@0-S0.5@3")
    for frames, size in ((8, (32, 32)), (32, (48, 40)), (16, model.size)):
        with torch.no_grad():
            assert torch.isfinite(model(moving(1, frames=frames, size=size))).all()
    assert model.tokens_entering(Grid(4, 8, 8))[0] == 2 * 64 + (key == "mvit")
    with pytest.raises(TubeletError, match=r"frames in multiples of 2, height in multiples of 4"):
        model(torch.zeros(1, 3, 15, 32, 32))


def test_published_widths():
    model = MViT.__init__.__kwdefaults__
    widths, heads = widths_and_heads(96, 1, 16, model["dim_mul"], model["head_mul"])
    assert widths == [96, 192, 192, *[384] * 11, 768, 768, 768] and heads == [1, 2, 2, *[4] * 11, 8, 8, 8]
    with torch.device("meta"):
        base = create_model("mvit_base_16x4")
    assert sum(p.numel() for p in base.parameters()) == 36_610_672
    assert base.tokens_entering() == [25089, 25089, 6273, 6273, *[1569] * 11, 393]
    strides = [block.attn.kv_stride[1] for block in base.blocks]
    assert strides == [8, 4, 4, *[2] * 11, 1, 1]
    assert round_width(12, 1.5, 4) == 20 and round_width(10, 1.0, 4) == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positions": "sinusoid"}, "'separable' or 'joint'"),
        ({"pool_kernel": (3, 2, 3)}, "odd sides"),
        ({"pool_kv_stride": (1, 3, 3)}, "1 or even"),
        ({"size": 30}, "whole tubelets"),
        ({"select": "sta:r=3"}, r"whole frames may be dropped \(T\), or all but a region of each \(S\); block 0 would"),
        ({"select": "stts:S9@0"}, "does not fit in frames of 8 x 8"),
        ({"select": "stts:S5@2"}, "does not fit in frames of 4 x 4"),  # block 1 pooled
        ({"select": "attention:T4@0"}, "no attention has been formed before block 0"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises((TubeletError, SelectionError), match=message):
        create_model("mvit_base_16x4", **{**MVIT, **arguments})


def test_config_holds_everything():
    model = create_model("mvit_base_16x4", **MVIT)
    assert model.config.preprocessing.mean == (0.45,) * 3 and model.config.preprocessing.std == (0.225,) * 3
    assert model.config.preprocessing.frames == 16 and model.config.position_grid == (8, 8, 8)


MEASURED = {  # GMACs of the released implementation, of one clip 16 x 224
    "none": 70.80,
    "stts:T7@0-S13@4": 56.39,
    "stts:T6@0-S13@4": 47.21,
    "stts:T5@0-S13@4": 38.46,
    "stts:T4@0-S12@4": 26.95,
    "stts:T3@0-S11@4": 18.46,
    "stts:T5@0": 41.29,
    "stts:T2@4": 37.49,
    "stts:T0.9@0-T0.7@4-S0.9@0-S0.7@4,bookkeeping=released": 32.35,
    "stts:T0.9@0,4-T0.7@8-S0.9@0,4-S0.8@8,bookkeeping=released": 38.22,
}


@pytest.mark.slow
def test_multiply_adds_are_those_measured_on_the_released_code():
    rows = flops_table("mvit_base_16x4", [select for select in MEASURED if select != "none"])
    for row in rows:
        assert row["gmacs"] == pytest.approx(MEASURED[row["select"]], rel=5e-4), row["select"]
    assert rows[3]["params_m"] == pytest.approx(36.91, abs=0.005)  # scorers included


def test_scorers_are_counted_apart():
    """A frame's mean and maximum, then each token's: four layers, as the norm."""
    model = create_model("mvit_base_16x4", select="stts:T4@0-S2@3", **MVIT)

    def scorer(candidates, d):
        return candidates * (5 * d + d * d + d * (d // 2) + (d // 2) * (d // 4) + d // 4)

    cost = count_flops(model)
    assert round(cost.by_operation["selection"] * 1e9) == scorer(8, 24) + scorer(4 * 16, 24)


def test_equals_torchvision():
    model = create_model("mvit_base_16x4", **MVIT, pool_eps=1e-6)
    randomise(model)
    _, peer, layout = torchvision_mvit(model)
    peer.load_state_dict(torchvision_state(model))
    clip = moving(2, model)
    with torch.no_grad():
        torch.testing.assert_close(model(clip), peer(layout(clip)), rtol=0, atol=1e-5)
