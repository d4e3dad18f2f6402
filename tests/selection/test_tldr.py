"""vid-TLDR's saliency and merging against the rule told with loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import moving, tiny
from tubelet.errors import SpecError
from tubelet.models.layers import Attention
from tubelet.models.registry import trace
from tubelet.selection.core import Ask, Grid, Layout, Signals, Tokens
from tubelet.selection.tldr import SalientMerge, saliency


def slowly(x, size, sharpness, r):
    """One clip (N, C): match the tokens themselves, let the most alike join, each as much as it is salient."""
    low, high = min(sharpness), max(sharpness)
    scaled = [(s - low) / (high - low) for s in sharpness]
    mean = sum(scaled) / len(scaled)
    salient = [s if s >= mean else 0.0 for s in scaled]
    unit = F.normalize(x.double(), dim=-1)
    seekers, others = list(range(0, len(x), 2)), list(range(1, len(x), 2))
    partner = {i: max(others, key=lambda j, i=i: float(unit[i] @ unit[j])) for i in seekers}
    ranked = sorted(seekers, key=lambda i: -float(unit[i] @ unit[partner[i]]))
    out, sizes = [], []
    for i in ranked[r:]:
        out.append(x[i].double())
        sizes.append(float(size[i]))
    for j in others:
        joined = [(i, salient[i] * float(size[i])) for i in ranked[:r] if partner[i] == j]
        total = float(size[j]) + sum(weight for _, weight in joined)
        out.append((x[j].double() * size[j] + sum(x[i].double() * weight for i, weight in joined)) / total)
        sizes.append(total)
    return torch.stack(out).float(), torch.tensor(sizes)


@given(n=st.integers(4, 12), share=st.floats(0.1, 1), seed=st.integers(0, 10**6))
def test_equals_the_rule(n, share, seed):
    torch.manual_seed(seed)
    r = max(1, int(share * (n // 2)))
    x, sharpness, size = torch.randn(2, n, 5), torch.randn(2, n), torch.randint(1, 5, (2, n)).float()
    grid = Grid(1, 1, n)
    tokens = Tokens(x, Layout.dense(grid), grid, size=size, signals=Signals(sharpness=sharpness))
    step = SalientMerge(r, True)
    merged = step(tokens, step.leaves(tokens.layout, tokens.layout)).apply(tokens)
    for b in range(2):
        expected, sizes = slowly(x[b], size[b], sharpness[b].tolist(), r)
        torch.testing.assert_close(merged.x[b], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(merged.size[b], sizes)


def test_saliency_by_hand():
    assert saliency(torch.tensor([[-4.0, -3.0, -2.0, 0.0]])).tolist() == [[0.0, 0.0, 0.5, 1.0]]  # the mean is 0.4375
    assert saliency(torch.full((1, 3), -2.0)).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("length", [7, 300])  # within and over a chunk of queries
def test_sharpness_is_the_negative_entropy_of_each_row(prefix, length):
    torch.manual_seed(0)
    attn = Attention(24, 4).eval()
    for parameter in attn.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, bias = torch.randn(2, length, 24), torch.randn(2, 1, 1, length)
    with torch.no_grad():
        q, k, _ = F.linear(x, attn.qkv.weight).view(2, length, 3, 4, 6).permute(2, 0, 3, 1, 4)
        q = q + attn.q_bias.view(4, 1, 6)
        rows = (q @ k.transpose(-1, -2) / math.sqrt(6) + bias).softmax(-1).mean(1)  # (B, N, N)
        out, signals = attn(x, Ask(sharpness=True, attention=True), bias, prefix)
        plain, _ = attn(x, key_bias=bias, prefix=prefix)
        _, attention = attn(x, Ask(attention=True), bias, prefix)
    torch.testing.assert_close(signals.sharpness, (rows * rows.log()).sum(-1)[:, prefix:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(signals.attention, attention.attention)
    torch.testing.assert_close(out, plain, rtol=1e-4, atol=1e-5)


def test_steps_stand_in_the_first_blocks_in_turn():
    steps = trace(tiny(select="tldr:r=40-r=20-r=10"), moving(1))
    assert [(s.place, s.block, s.position.shape[1]) for s in steps] == [
        ("inside", 0, 88), ("inside", 1, 68), ("inside", 2, 58),
    ]  # fmt: skip
    assert tiny(select="tldr:r=9@1-r=5@3").tokens_entering() == [128, 128, 119, 119, 114, 114]


def test_the_class_token_stays_in_front():
    model = tiny("vit_class_token", select="tldr:r=64-r=32")
    assert model.tokens_entering()[:3] == [129, 65, 33]
    with torch.no_grad():
        assert not torch.equal(model(moving(1)), tiny("vit_class_token")(moving(1)))


def test_bad_option():
    with pytest.raises(SpecError, match="prop=maybe"):
        tiny(select="tldr:r=3,prop=maybe")
