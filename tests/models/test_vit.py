"""The ViT: what a block tells when asked, positions at other sizes, and what is refused."""

import pytest
import torch

from tests.tiny import MODELS, moving, tiny
from tubelet.errors import TubeletError
from tubelet.models.layers import Attention, DropPath, resize_positions, sinusoid_table
from tubelet.models.registry import create_model
from tubelet.selection.core import Ask, Grid


def explicit(attn, x, key_bias=None):
    """Attention weights (B, heads, queries, keys), keys and values by the plain formula."""
    bias = torch.cat([attn.q_bias, torch.zeros_like(attn.q_bias), attn.v_bias])
    batch, length, dim = x.shape
    qkv = (x @ attn.qkv.weight.T + bias).view(batch, length, 3, attn.heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(-1, -2) / (dim // attn.heads) ** 0.5
    return (logits if key_bias is None else logits + key_bias).softmax(-1), k, v


@pytest.fixture
def attention():
    attn = Attention(24, 4)
    for parameter in attn.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return attn.eval()


@pytest.mark.parametrize("length", [7, 256, 300])  # within, at and over a chunk of queries
@pytest.mark.parametrize("weighted", [False, True])
def test_attention_received(attention, length, weighted):
    x = torch.randn(2, length, 24)
    query_weight = torch.rand(2, length) if weighted else None
    key_bias = torch.randn(2, 1, 1, length)
    with torch.no_grad():
        weights, keys, _ = explicit(attention, x, key_bias)
        plain, nothing = attention(x, key_bias=key_bias)
        told, signals = attention(x, Ask(keys=True, attention=True, query_weight=query_weight), key_bias)
    rows = torch.ones(2, length) if query_weight is None else query_weight
    torch.testing.assert_close(signals.attention, (weights * rows[:, None, :, None]).mean(dim=(1, 2)))
    torch.testing.assert_close(signals.keys, keys.mean(1))
    torch.testing.assert_close(told, plain, rtol=1e-4, atol=1e-5)
    assert nothing.keys is None and nothing.attention is None


def test_attention_of_the_class_token(attention):
    x = torch.randn(2, 9, 24)
    with torch.no_grad():
        weights, keys, _ = explicit(attention, x)
        plain, _ = attention(x)
        told, signals = attention(x, Ask(keys=True, attention=True), prefix=1)
    assert torch.equal(told, plain)  # the fused output is untouched
    torch.testing.assert_close(signals.attention, weights[:, :, 0, 1:].mean(1))
    torch.testing.assert_close(signals.keys, keys[:, :, 1:].mean(1))


def test_fused_attention_is_the_explicit_one(attention):
    x = torch.randn(2, 9, 24)
    with torch.no_grad():
        weights, _, v = explicit(attention, x)
        expected = attention.proj((weights @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(attention(x)[0], expected)


def test_sinusoid_table():
    table = sinusoid_table(5, 4)[0]
    assert torch.equal(table[0], torch.tensor([0.0, 1.0, 0.0, 1.0]))
    torch.testing.assert_close(
        table[3],
        torch.tensor([3.0, 3.0, 0.03, 0.03])
        .sin()
        .where(torch.tensor([True, False, True, False]), torch.tensor([3.0, 3.0, 0.03, 0.03]).cos()),
    )


def test_positions_for_other_grids():
    trained = Grid(4, 3, 3)
    plane = torch.linspace(0, 1, 4).view(4, 1, 1, 1).expand(4, 3, 3, 2).reshape(1, 36, 2)  # linear in time
    assert resize_positions(plane, trained, trained) is plane
    wide = resize_positions(plane, trained, Grid(4, 5, 6)).view(4, 5, 6, 2)
    torch.testing.assert_close(wide[:, 2, 3, 0], torch.linspace(0, 1, 4))  # constant in space stays so
    longer = resize_positions(plane, trained, Grid(8, 3, 3)).view(8, 3, 3, 2)[:, 1, 1, 0]
    assert (longer.diff() >= 0).all() and longer[0] == 0 and longer[-1] == 1
    both = resize_positions(plane, trained, Grid(2, 6, 6))
    assert both.shape == (1, 72, 2)


def test_positions_are_resized_bicubically():
    table = torch.randn(1, 2 * 4 * 4, 3)
    wide = resize_positions(table, Grid(2, 4, 4), Grid(2, 6, 7))
    frames = table.view(2, 4, 4, 3).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(frames, size=(6, 7), mode="bicubic", align_corners=False)
    torch.testing.assert_close(wide, expected.permute(0, 2, 3, 1).reshape(1, 84, 3))


def test_the_class_token_has_a_position_and_is_read():
    model = tiny("vit_class_token")
    clip = moving(1, model)
    with torch.no_grad():
        logits = model(clip)
        tokens = model.forward_features(clip)
        torch.testing.assert_close(logits, model.head(model.norm(tokens.x[:, 0])))
        first = model.embed(clip).x[:, 0]
        torch.testing.assert_close(first, (model.cls_token + model.pos_embed[:, :1])[0])


def test_a_model_built_without_memory_gets_its_table_with_its_weights():
    weights = tiny().state_dict()
    name, sizes = MODELS["vit"]
    with torch.device("meta"):
        model = create_model(name, **sizes)
    model.to_empty(device="cpu").load_state_dict(weights)
    clip = moving(1)
    with torch.no_grad():
        assert torch.equal(model.eval()(clip), tiny()(clip))


def test_deeper_blocks_are_dropped_more():
    model = tiny(drop_path=0.3)
    assert [round(b.drop_path.rate, 2) for b in model.blocks] == [0, 0.06, 0.12, 0.18, 0.24, 0.3]
    model = tiny(drop_path=0.9999, dropout=0.5).train()
    with torch.no_grad():
        assert not torch.equal(model(moving(1)), model(moving(1)))  # dropout
        tokens = model.embed(moving(1))
        assert torch.equal(model.blocks[-1](tokens).x, tokens.x)  # both branches dropped


def test_an_empty_batch():
    for select in ("none", "sta:r=3", "merge:r=3", "attention:keep=0.5@2", "random:T0.5@0"):
        assert tiny(select=select)(torch.zeros(0, 3, 16, 32, 32)).shape == (0, 7)


@pytest.mark.parametrize("frames", [2, 8, 32])
@pytest.mark.parametrize("size", [(16, 16), (40, 24)])
def test_any_clip_that_the_tubelet_divides(frames, size):
    model = tiny()
    assert model(moving(1, frames=frames, size=size)).shape == (1, 7)
    same = tiny(frames=frames, size=size, position_grid=(8, 4, 4))  # the same table, declared for another clip
    clip = moving(1, frames=frames, size=size)
    assert torch.equal(model(clip), same(clip))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: tiny(frames=15), "frames in multiples of 2"),
        (lambda: tiny(size=33), "height and width in multiples of 8"),
        (lambda: tiny(heads=5), "dim=48 is not a multiple of heads=5"),
        (lambda: tiny(positions="rotary"), "'sinusoid' or 'learned'"),
        (lambda: tiny(pool="max"), "'mean' or 'first'"),
        (lambda: tiny()(torch.zeros(1, 3, 16, 32, 30)), "multiples of 8"),
        (lambda: tiny()(torch.zeros(3, 16, 32, 32)), r"\(B, 3, T, H, W\)"),
    ],
)
def test_refusals(make, says):
    with pytest.raises(TubeletError, match=says):
        make()


def test_sizes_and_parameters():
    counts = {"videomae_small": 22.04e6, "videomae_base": 86.54e6, "videomae_large": 304.2e6, "videomae_huge": 632.2e6}
    with torch.device("meta"):
        for name, expected in counts.items():
            model = create_model(name)
            parameters = sum(p.numel() for p in model.parameters())
            assert abs(parameters / expected - 1) < 0.01, (name, parameters)
            assert model.patch_embed.proj.weight.shape[1:] == (3, 2, 16, 16)


def test_features_without_a_head():
    model = tiny(num_classes=0)
    assert model(moving(2)).shape == (2, 48)


def test_drop_path_drops_whole_clips_and_keeps_the_mean():
    layer = DropPath(0.25).train()
    out = layer(torch.ones(4000, 2, 3))
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert (out.flatten(1).std(1) == 0).all() and abs(out.mean() - 1) < 0.05
    assert torch.equal(layer.eval()(torch.ones(2, 3)), torch.ones(2, 3))
