"""Token merging against the published rule restated with loops, and its effect on attention and pooling."""

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import moving, tiny
from tubelet.models.registry import trace
from tubelet.selection.core import Grid, Layout, Signals, Tokens
from tubelet.selection.merge import Merge


def slowly(x, size, keys, r):
    """Bipartite soft matching of one clip: alternate, match, merge by weighted mean; kept seekers, then the others."""
    keys = F.normalize(keys.double(), dim=-1)
    seekers, others = list(range(0, len(x), 2)), list(range(1, len(x), 2))
    partner = {i: max(others, key=lambda j, i=i: float(keys[i] @ keys[j])) for i in seekers}
    ranked = sorted(seekers, key=lambda i: -float(keys[i] @ keys[partner[i]]))
    members = {j: [j] for j in others}
    for i in ranked[:r]:
        members[partner[i]].append(i)
    groups = [[i] for i in ranked[r:]] + [members[j] for j in others]
    merged = [(x[g].double() * size[g].double()[:, None]).sum(0) / size[g].sum() for g in groups]
    return torch.stack(merged).float(), torch.stack([size[g].sum() for g in groups])


@given(n=st.integers(2, 12), share=st.floats(0.1, 1), seed=st.integers(0, 10**6))
def test_equals_the_published_rule(n, share, seed):
    torch.manual_seed(seed)
    r = max(1, int(share * (n // 2)))
    x, keys, size = torch.randn(2, n, 5), torch.randn(2, n, 4), torch.randint(1, 5, (2, n)).float()
    tokens = Tokens(x, Layout.dense(Grid(1, 1, n)), Grid(1, 1, n), size=size, signals=Signals(keys=keys))
    merge = Merge(r, True)
    merged = merge(tokens, merge.leaves(tokens.layout, tokens.layout)).apply(tokens)
    for b in range(2):
        expected, sizes = slowly(x[b], size[b], keys[b], r)
        torch.testing.assert_close(merged.x[b], expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(merged.size[b], sizes)


def test_at_most_every_seeker_joins():
    merge = Merge(65, True)
    assert merge.leaves(Layout(73, 1), Layout(73, 1)).tokens == 73 - 36
    assert merge.leaves(Layout(1, 1), Layout(1, 1)) == Layout(1, 1)


def test_identical_tokens_merge_without_a_trace():
    """A clip of equal tokens: whatever merges, proportional attention and the weighted mean give the dense answer."""
    model = tiny()
    with torch.no_grad():
        model.pos_embed.zero_()
        clip = torch.ones(1, 3, 16, 32, 32)
        clip[:, :, 8:] = -1  # two kinds of tokens, half each, so far apart that each finds its like
        dense = model(clip)
        merged = tiny(select="merge:r=12")  # few enough that none must join one of the other kind
        merged.pos_embed.zero_()
        torch.testing.assert_close(merged(clip), dense, rtol=0, atol=1e-4)
        assert trace(merged, clip)[-1].position.shape[1] == 128 - 6 * 12


def slowly_with_class_token(x, size, keys, r):
    """The published rule on a sequence whose first token is the class token: a seeker that never joins; order kept."""
    keys = F.normalize(keys.double(), dim=-1)
    seekers, others = list(range(0, len(x), 2)), list(range(1, len(x), 2))
    partner = {i: max(others, key=lambda j, i=i: float(keys[i] @ keys[j])) for i in seekers}
    ranked = sorted(seekers, key=lambda i: float("inf") if i == 0 else -float(keys[i] @ keys[partner[i]]))
    members = {j: [j] for j in others}
    for i in ranked[:r]:
        members[partner[i]].append(i)
    groups = [[i] for i in sorted(ranked[r:])] + [members[j] for j in others]
    return torch.stack([(x[g].double() * size[g].double()[:, None]).sum(0) / size[g].sum() for g in groups]).float()


@given(n=st.integers(3, 13), share=st.floats(0.1, 1), seed=st.integers(0, 10**6))
def test_equals_the_published_rule_with_a_class_token(n, share, seed):
    torch.manual_seed(seed)
    r = max(1, int(share * (n // 2)))
    x, keys = torch.randn(1, 1 + n, 5), torch.randn(1, 1 + n, 4)
    size = torch.cat([torch.ones(1, 1), torch.randint(1, 5, (1, n)).float()], dim=1)
    grid = Grid(1, 1, n)
    tokens = Tokens(x, Layout.dense(grid), grid, prefix=1, size=size[:, 1:], signals=Signals(keys=keys[:, 1:]))
    merge = Merge(r, True)
    merged = merge(tokens, merge.leaves(tokens.layout, tokens.layout)).apply(tokens)
    torch.testing.assert_close(merged.x[0], slowly_with_class_token(x[0], size[0], keys[0], r), rtol=1e-5, atol=1e-5)


def test_class_token_is_never_merged():
    model = tiny("vit_class_token", select="merge:r=30")
    steps = trace(model, moving(2, model))
    assert all((step.owner >= 0).all() for step in steps)
    assert model.tokens_entering()[:2] == [129, 99]


def test_prop_changes_attention_only():
    clip = moving(1)
    with torch.no_grad():
        assert not torch.equal(tiny(select="merge:r=20")(clip), tiny(select="merge:r=20,prop=false")(clip))
    on, off = (trace(tiny(select=f"merge:r=20@1,prop={p}"), clip)[0] for p in ("true", "false"))
    assert torch.equal(on.position, off.position)
