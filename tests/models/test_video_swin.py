"""VideoSwin: windows told slowly, padding, what a set of tokens becomes, what it costs."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import SWIN, moving, randomise, tiny
from tubelet.errors import TubeletError
from tubelet.models.registry import create_model, set_selection, trace
from tubelet.models.video_swin import WindowAttention
from tubelet.models.windows import axis_runs, clipped, fitted, windows_of
from tubelet.profiling import count_flops
from tubelet.selection.core import Ask

CPU = torch.device("cpu")
grids = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7))
sizes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))


def slowly(attn, x, grid, window, shifted):
    """Window attention as published: pad, roll, cut, mask, every padded token with its own key."""
    window, shift = zip(*(clipped(n, w, w // 2 * shifted) for n, w in zip(grid, window, strict=True)), strict=True)
    batch, dim = x.shape[0], x.shape[-1]
    padding = [-n % w for n, w in zip(grid, window, strict=True)]
    x = F.pad(x.view(batch, *grid, dim), (0, 0, 0, padding[2], 0, padding[1], 0, padding[0]))
    region = torch.zeros(x.shape[1:4])
    for axis, (w, s) in enumerate(zip(window, shift, strict=True)):
        n = x.shape[axis + 1]
        part = torch.arange(n).ge(n - w).int() + (torch.arange(n).ge(n - s).int() if s else 0)
        region = region * 3 + part.view([-1 if a == axis else 1 for a in range(3)])

    def cut(x):  # (B, T, H, W, C) -> (B, windows, tokens, C)
        x = x.unflatten(3, (-1, window[2])).unflatten(2, (-1, window[1])).unflatten(1, (-1, window[0]))
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(1, 3)

    rolled = x.roll([-s for s in shift], (1, 2, 3))
    tokens, regions = cut(rolled), cut(region[None, ..., None])[0, ..., 0]
    n = tokens.shape[2]
    whole = torch.cartesian_prod(*(torch.arange(w) for w in attn.window)).view(-1, 3)[:n]
    offset = whole[:, None] - whole[None] + torch.tensor(attn.window) - 1
    number = (offset[..., 0] * (2 * attn.window[1] - 1) + offset[..., 1]) * (2 * attn.window[2] - 1) + offset[..., 2]
    bias = attn.relative_position_bias_table[number].permute(2, 0, 1)[:, None]  # (heads, 1, n, n)
    bias = bias + torch.where(regions[:, :, None] != regions[:, None], -100.0, 0.0)
    q, k, v = attn.qkv(tokens).unflatten(-1, (3, attn.heads, -1)).permute(3, 0, 4, 1, 2, 5)
    weights = ((q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1]) + bias).softmax(-1)
    out = (weights @ v).permute(0, 2, 3, 1, 4).flatten(3)  # (B, windows, n, C)
    counts = [a // w for a, w in zip(x.shape[1:4], window, strict=True)]
    out = out.view(batch, *counts, *window, dim).permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(x.shape)
    out = out.roll(shift, (1, 2, 3))[:, : grid[0], : grid[1], : grid[2]]
    return attn.proj(out.reshape(batch, -1, dim))


@given(grids, sizes, st.booleans())
def test_windows_as_published(grid, window, shifted):
    """Whatever is clipped, padded or shifted."""
    attn = WindowAttention(8, 2, window)
    randomise(attn)
    x = torch.randn(2, math.prod(grid), 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        fast, _ = attn(x, windows_of(grid, window, shifted, CPU))
        torch.testing.assert_close(fast, slowly(attn, x, grid, window, shifted), rtol=0, atol=1e-5)


@given(grids, sizes, st.booleans())
def test_every_token_is_in_one_window(grid, window, shifted):
    windows = windows_of(grid, window, shifted, CPU)
    order = torch.cat([kind.tokens.flatten() for kind in windows.kinds])
    assert torch.equal(order[windows.place], torch.arange(math.prod(grid)))


@given(st.integers(1, 40), st.integers(1, 9), st.booleans())
def test_runs_count_every_token(size, window, shifted):
    window, shift = clipped(size, window, window // 2 * shifted)
    runs = axis_runs(size, window, shift)
    assert sum(run.windows * len(run.real) for run in runs) == size
    assert sum(run.windows for run in runs) == -(-size // window)
    assert all(run.real for run in runs)  # no window is padding alone


def test_fitted_windows_divide():
    assert [fitted(n, 8) for n in (4, 8, 9, 10, 11, 12, 14, 15, 16, 20)] == [8, 8, 9, 5, 11, 6, 7, 5, 8, 5]
    assert all(n % fitted(n, 8) == 0 for n in range(9, 64))


def test_a_fitted_window_changes_nothing_where_the_released_one_fits():
    clip = moving(1, tiny("swin"))
    with torch.no_grad():
        assert torch.equal(tiny("swin", window="fitted")(clip), tiny("swin")(clip))
        shorter = clip[:, :, :12]  # 6 slots: windows of 4 are padded, of 3 not
        released, other = tiny("swin")(shorter), tiny("swin", window="fitted")(shorter)
    assert not torch.allclose(released, other, atol=1e-4)


def test_resized_biases_keep_ends_and_middle():
    attn = WindowAttention(8, 2, (4, 2, 2))
    randomise(attn)
    table = attn.relative_position_bias_table.view(7, 9, 2)
    with torch.no_grad():
        for frames in (2, 3, 5, 9):
            resized = attn.bias_table(frames).view(2, 2, 2 * frames - 1, 9)[:, 0].permute(1, 2, 0)
            torch.testing.assert_close(resized[[0, frames - 1, -1]], table[[0, 3, -1]])


def test_attention_received_sums_to_one_a_token():
    """Each window hands on one unit for each of its tokens, so the mean over a grid is one over a window's tokens."""
    attn = WindowAttention(8, 2, (2, 2, 2))
    randomise(attn)
    x = torch.randn(2, 4 * 4 * 4, 8)
    windows = windows_of((4, 4, 4), (2, 2, 2), True, CPU)
    with torch.no_grad():
        plain, _ = attn(x, windows)
        y, signals = attn(x, windows, Ask(keys=True, attention=True))
    torch.testing.assert_close(y, plain, rtol=0, atol=1e-6)
    torch.testing.assert_close(signals.attention.mean(1), torch.full((2,), 1 / 8))
    keys = attn.qkv(x).unflatten(-1, (3, 2, 4))[:, :, 1].mean(2)
    torch.testing.assert_close(signals.keys, keys)


def alone(attn, x, grid, window, cell):
    """The tokens `cell` of one clip attend within their windows, told one by one."""
    windows = windows_of(grid, window, False, CPU)
    (kind,) = windows.kinds
    q, k, v = attn.qkv(x[0]).unflatten(-1, (3, attn.heads, -1)).permute(1, 2, 0, 3)
    out = torch.zeros_like(x[0])
    for i, place in enumerate(cell.tolist()):
        (home,) = [w for w in kind.tokens.tolist() if place in w]
        mates = [j for j, other in enumerate(cell.tolist()) if other in home]
        n = len(home)
        pairs = [home.index(place) * n + home.index(cell[j].item()) for j in mates]
        bias = attn.relative_position_bias_table[kind.bias[pairs].long()].T  # (heads, mates)
        logits = (q[:, i, None] * k[:, mates]).sum(-1) / math.sqrt(q.shape[-1]) + bias
        out[i] = (logits.softmax(-1)[..., None] * v[:, mates]).sum(1).flatten()
    return attn.proj(out)[None]


def test_dropped_tokens_neither_attend_nor_are_attended_to():
    attn = WindowAttention(8, 2, (2, 2, 2))
    randomise(attn)
    cell = torch.randperm(4 * 4 * 2, generator=torch.Generator().manual_seed(3))[:13]
    x = torch.randn(1, 13, 8)
    with torch.no_grad():
        y, signals = attn(x, windows_of((4, 4, 2), (2, 2, 2), False, CPU), Ask(attention=True), cell[None])
        torch.testing.assert_close(y, alone(attn, x, (4, 4, 2), (2, 2, 2), cell), rtol=0, atol=1e-5)
    torch.testing.assert_close(signals.attention.sum(), torch.tensor(13 / 8))  # 13 queries, in windows of 8


def test_dropped_tokens_keep_their_last_features():
    """What merging reads: the tokens left as the last block made them, the others as they were when dropped."""
    dense, pruned = (
        tiny("swin"),
        tiny("swin", select="uniform:keep=0.5@3"),
    )  # in the third stage, before its second block
    clip = moving(1, dense)
    seen = {}
    for name, model in (("dense", dense), ("pruned", pruned)):
        model.layers[2].blocks[0].register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    pruned.layers[2].downsample.register_forward_hook(lambda _m, given, _o: seen.update(merging=given[0]))
    with torch.no_grad():
        pruned(clip), dense(clip)
        (step,) = trace(pruned, clip)
    assert torch.equal(seen["dense"].x, seen["pruned"].x)
    merging = seen["merging"]
    dropped = torch.ones(seen["dense"].x.shape[1], dtype=torch.bool).scatter(0, merging.cell[0], False)
    filled = merging.filled()
    assert torch.equal(filled.x[0, dropped], seen["dense"].x[0, dropped])
    assert torch.equal(filled.x[0, merging.cell[0]], merging.x[0]) and filled.layout.grid == (8, 6, 6)
    assert dropped.sum() == 144 and step.position.shape == (1, 144)


def test_a_set_lasts_until_its_stage_ends():
    entering = [8 * 24 * 24, 8 * 12 * 12, 8 * 6 * 6, 8 * 6 * 6, 8 * 6 * 6, 8 * 3 * 3]
    assert tiny("swin").tokens_entering() == entering
    half = [n // 2 for n in entering]
    assert tiny("swin", select="random:keep=0.5@0").tokens_entering() == [half[0], *entering[1:]]
    assert tiny("swin", select="random:keep=0.5@3").tokens_entering() == [*entering[:3], *half[3:5], entering[5]]
    assert tiny("swin", select="random:T4@2").tokens_entering() == [*entering[:2], *half[2:]]
    assert tiny("swin", select="random:T4@0-keep=0.5@5").tokens_entering() == [*half[:5], half[5] // 2]
    # STA's schedule stands in the longest stage: after blocks 2, 3 and 4.
    assert tiny("swin", select="sta:r=6").tokens_entering() == [*entering[:3], 288 - 48, 288 - 72, entering[5]]


def test_the_last_stage_means_what_is_left():
    model = tiny("swin", select="uniform:keep=0.5@5")
    clip = moving(1, model)
    with torch.no_grad():
        left = model.forward_features(clip)
        assert left.x.shape[1] == 36
        torch.testing.assert_close(model(clip), model.head(model.norm(left.x).mean(1)))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: tiny("swin", select="merge:r=3"), "a merged token stands for several"),
        (lambda: tiny("swin", select="random:T4@4"), "VideoSwin has stages 0 to 3"),
        (lambda: tiny("swin", select="stts:T4@4"), "VideoSwin has stages 0 to 3"),
        (lambda: tiny("swin", select="random:keep=0.5@6"), "VideoSwin has blocks 0 to 5"),
        (lambda: tiny("swin", select="attention:keep=0.5@0"), "no attention has been formed before block 0"),
        (lambda: tiny("swin", select="random:keep=0.5@0+random:T4@0"), "needs a dense grid"),
        (lambda: tiny("swin", depths=(1, 2, 1, 1), select="sta:r=3"), "say which blocks"),
        (lambda: tiny("swin", window="stretched"), "'released' or 'fitted'"),
        (lambda: tiny("swin", depths=(1, 1)), "one of each for every stage"),
        (lambda: tiny("swin", heads=(5, 2, 2, 4)), "width 12 is not a multiple of its heads=5"),
        (lambda: tiny("swin")(torch.zeros(1, 4, 8, 8, 8)), "is expected"),
    ],
)
def test_refusals(make, says):
    with pytest.raises(TubeletError, match=says):
        make()


def test_box_selections_act_as_a_smaller_clip():
    """Frames kept before the first stage: the same as those frames alone, since the patches do not overlap."""
    model = tiny("swin")
    clip = moving(1, model)
    with torch.no_grad():
        set_selection(model, "uniform:T4@0")
        (step,) = trace(model, clip)
        slots = step.position[0, :: step.grid.per_frame] // step.grid.per_frame
        kept = clip.unflatten(2, (-1, 2))[:, :, slots].flatten(2, 3)
        pruned = model(clip)
        set_selection(model, "none")
        torch.testing.assert_close(pruned, model(kept), rtol=0, atol=1e-6)


def test_rectangles_are_no_squares():
    model = tiny("swin_wide")
    assert model.grid == (8, 18, 30)
    with torch.no_grad():
        clip = moving(1, model)
        assert not torch.allclose(model(clip), model(clip.transpose(3, 4)), atol=1e-4)


def hand_count(grid, window, depths, dim, classes, patch, *, mlp=4):
    """Multiply-adds by the formula, where windows divide the grid: biases, sums and softmax are not counted."""
    tokens = math.prod(grid)
    total = tokens * 3 * math.prod(patch) * dim + 5 * tokens * dim
    for stage, depth in enumerate(depths):
        size = math.prod(min(n, w) for n, w in zip(grid, window, strict=True))
        linear = (4 + 2 * mlp) * dim * dim * tokens
        total += depth * (linear + 2 * tokens * size * dim + 2 * 5 * tokens * dim)
        if stage < len(depths) - 1:
            grid = (grid[0], grid[1] // 2, grid[2] // 2)
            tokens, dim = math.prod(grid), 2 * dim
            total += 5 * tokens * 2 * dim + tokens * 2 * dim * dim
    return (total + 5 * tokens * dim + dim * classes) / 1e9


def test_cost_by_hand():
    model = tiny("swin")
    expected = hand_count((8, 24, 24), (4, 3, 3), SWIN["depths"], 12, 7, (2, 2, 2))
    assert count_flops(model).gmacs == pytest.approx(expected, rel=1e-12)


def test_cost_of_a_set_by_hand():
    """Of a block with half of its tokens: half the linear layers and norms, all of the products of whole windows."""
    dense, pruned = count_flops(tiny("swin")).gmacs, count_flops(tiny("swin", select="random:keep=0.5@3")).gmacs
    per_block = (12 * 48 * 48 + 2 * 5 * 48) * 288 / 1e9
    assert dense - pruned == pytest.approx(2 * per_block / 2, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "select", "expected", "at_most"),
    [
        ("videoswin_base", "none", 281.9, False),
        ("videoswin_base", "stts:T6@0", 102.5, False),
        ("videoswin_base", "stts:T14@0", 261.5, True),
        ("videoswin_base", "stts:T10@0", 220.7, True),
        ("videoswin_base_ssv2", "stts:T12@0", 226.2, False),
        ("videoswin_base_ssv2", "stts:T10@0", 182.5, False),
    ],
)
def test_cost_as_measured_on_the_released_code(name, select, expected, at_most):
    with torch.device("meta"):
        model = create_model(name, num_classes=400, select=select)
    gmacs = count_flops(model).gmacs
    assert gmacs < expected if at_most else gmacs == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize(("kept", "expected"), [(10, 167.3), (9, 161.6)])
def test_cost_of_fitted_windows(kept, expected):
    """As the released code costs when built with a window that divides the frames."""
    with torch.device("meta"):
        model = create_model("videoswin_base", select=f"stts:T{kept}@0", window="fitted")
    assert count_flops(model).gmacs == pytest.approx(expected, rel=0.005)


def test_fitted_windows_cost_less_where_they_are_shorter():
    for kept in (9, 10, 11, 12, 13, 14):
        costs = []
        for window in ("released", "fitted"):
            with torch.device("meta"):
                model = create_model("videoswin_tiny", depths=(1, 1, 1, 1), select=f"stts:T{kept}@0", window=window)
            costs.append(count_flops(model).gmacs)
        assert (costs[1] < costs[0]) == (fitted(kept, 8) < 8)


def test_sizes_and_parameters():
    with torch.device("meta"):
        counts = {
            name: sum(p.numel() for p in create_model(f"videoswin_{name}").parameters()) for name in ("base", "tiny")
        }
    assert counts == {"base": 88_048_984, "tiny": 28_158_070}
