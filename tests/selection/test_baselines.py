"""Random, uniform and attention: that each chooses what its name says, under every form of budget."""

import pytest
import torch
import torch.nn.functional as F

from tests.tiny import moving, tiny
from tubelet.models.registry import trace
from tubelet.selection.baselines import evenly, hashed


def received(model, clip, block):
    """The attention that each token receives in a block of a dense model, by the plain formula: (B, N)."""
    tokens = model.embed(clip)
    for before in model.blocks[:block]:
        tokens = before(tokens)
    attn, x = model.blocks[block].attn, model.blocks[block].norm1(tokens.x)
    bias = torch.cat([attn.q_bias, torch.zeros_like(attn.q_bias), attn.v_bias])
    q, k, _ = (x @ attn.qkv.weight.T + bias).unflatten(-1, (3, attn.heads, -1)).permute(2, 0, 3, 1, 4)
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1).mean(dim=(1, 2))


@pytest.fixture
def seen():
    """A clip, and what block 1 of the tiny ViT attends to."""
    model = tiny()
    clip = moving(2, model)
    with torch.no_grad():
        return clip, received(model, clip, 1)


def test_attention_keeps_the_most_attended_tokens(seen):
    clip, attention = seen
    (step,) = trace(tiny(select="attention:keep=0.5@2"), clip)
    torch.testing.assert_close(step.scores, attention)
    assert torch.equal(step.position, attention.topk(64).indices.sort().values)


def test_attention_keeps_the_most_attended_of_each_group(seen):
    clip, attention = seen
    (step,) = trace(tiny(select="attention:r=5@1,groups=4"), clip)
    best = attention.view(2, 4, 32).topk(27).indices.sort().values + 32 * torch.arange(4)[:, None]
    assert torch.equal(step.position, best.flatten(1))


def test_attention_keeps_the_most_attended_frames_and_regions(seen):
    clip, attention = seen
    (step,) = trace(tiny(select="attention:T3@2"), clip)
    frames = attention.view(2, 8, 16).mean(-1).topk(3).indices.sort().values
    assert torch.equal(step.mask.flatten(2).all(-1).nonzero()[:, 1].view(2, 3), frames)
    (step,) = trace(tiny(select="attention:S2@2"), clip)
    pooled = F.avg_pool2d(attention.view(2, 8, 4, 4), 2, stride=1).flatten(2).argmax(-1)  # corners of 3 x 3
    row, column = pooled // 3, pooled % 3
    for b in range(2):
        for t in range(8):
            expected = torch.zeros(4, 4, dtype=torch.bool)
            expected[row[b, t] : row[b, t] + 2, column[b, t] : column[b, t] + 2] = True
            assert torch.equal(step.mask[b, t], expected)


def test_uniform():
    clip = moving(1)
    (step,) = trace(tiny(select="uniform:S2@0"), clip)
    assert (step.mask[:, :, 1:3, 1:3]).all() and step.mask.sum() == 32  # the centre
    (step,) = trace(tiny(select="uniform:T4@0"), clip)
    assert step.mask[0].flatten(1).any(1).tolist() == [False, True] * 4
    (step,) = trace(tiny(select="uniform:keep=0.25@0"), clip)
    assert torch.equal(step.position[0], torch.arange(32) * 4 + 2)
    assert evenly(3, 7, torch.device("cpu")).tolist() == [1, 3, 5]
    assert evenly(1, 9, torch.device("cpu")).tolist() == [4]


@pytest.mark.parametrize("budget", ["keep=0.5@0", "T4@0", "S2@0", "r=3"])
def test_random_draws(budget):
    clip = moving(3)

    def kept(options="", train=False):
        model = tiny(select=f"random:{budget}{options}").train(train)
        return [step.position for step in trace(model, clip)]

    assert all(torch.equal(a, b) for a, b in zip(kept(), kept(), strict=True))
    assert all((p == p[:1]).all() for p in kept())  # one draw for all clips
    assert any(not torch.equal(a, b) for a, b in zip(kept(), kept(",seed=1"), strict=True))
    assert any((p != p[:1]).any() for p in kept(train=True))  # a draw each in training


def test_each_step_of_random_has_a_draw_of_its_own():
    for spec in ("random:T4@0-T2@2-T1@4", "random:r=3", "random:keep=0.5@1,3"):
        seeds = [p.selector.seed for p in tiny(select=spec).plan.placed]
        assert len(set(seeds)) == len(seeds) > 1


def test_the_hash_is_even():
    draws = torch.stack([hashed(128, seed, torch.device("cpu")).argsort()[:64] for seed in range(400)])
    counts = draws.flatten().bincount(minlength=128).double()  # each place is kept about 200 times, deviation 10
    assert counts.min() > 150 and counts.max() < 250
