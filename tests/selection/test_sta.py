"""STA's formula, restated token by token, and its edges."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import moving, tiny
from tubelet.models.registry import trace
from tubelet.selection.sta import accumulate, semantic_weight


def slowly(x, keys, groups, r, backward):
    """The paper's steps for one clip, one token at a time, without a thought for speed."""
    n = len(x) // groups
    order = list(range(groups))[::-1] if backward else list(range(groups))
    x, keys = x.double(), torch.nn.functional.normalize(keys.double(), dim=-1)
    result = [None] * groups
    for place, g in enumerate(order):
        k, norm = keys[g * n : (g + 1) * n], x[g * n : (g + 1) * n].abs().sum(-1)
        if place == 0:
            odd, even = list(range(1, n, 2)), list(range(0, n, 2))
            likeness = {i: max(float(k[i] @ k[j]) for j in odd) for i in even}
            result[g] = (odd + sorted(even, key=likeness.get))[: n - r]
            mass, previous = torch.ones(n).double(), k
            continue
        semantic = (norm - norm.min()) / (norm.max() - norm.min())
        weights = torch.exp(k @ previous.T)
        weights = weights / weights.sum(0, keepdim=True)
        received = torch.tensor([sum(weights[i, j] * mass[j] for j in range(len(previous))) for i in range(n)])
        score = received * (1 - semantic)
        result[g] = sorted(range(n), key=lambda i, s=score: float(s[i]))[: n - r]
        mass = received[result[g]] / received[result[g]].sum()
        previous = k[result[g]]
    return result


@given(
    groups=st.integers(1, 4),
    n=st.integers(2, 9),
    share=st.floats(0, 0.99),
    backward=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_equals_the_formula_told_slowly(groups, n, share, backward, seed):
    r = int(share * n)
    torch.manual_seed(seed)
    x, keys = torch.randn(2, groups * n, 6), torch.randn(2, groups * n, 4)
    scores = accumulate(x, keys, groups, r, backward=backward)
    for b in range(2):
        assert scores.kept[b].tolist() == slowly(x[b], keys[b], groups, r, backward)


def test_the_most_active_token_always_stays():
    x = torch.randn(1, 40, 6)
    scores = accumulate(x, torch.randn(1, 40, 4), 4, 8)
    for g in range(1, 4):
        assert scores.kept[0, g, 0] == x[0, g * 10 : (g + 1) * 10].abs().sum(-1).argmax()


def test_equal_activity_is_no_nan():
    assert torch.equal(semantic_weight(torch.ones(1, 2, 5, 3)), torch.zeros(1, 2, 5))
    scores = accumulate(torch.ones(1, 18, 3), torch.ones(1, 18, 2), 3, 2)
    assert torch.equal(scores.kept[0, 1], torch.arange(4))  # ties: the lower place first
    assert torch.equal(scores.kept[0, 0], torch.tensor([1, 3, 5, 0]))


def test_half_precision_does_not_overflow():
    x = 70 * torch.randn(1, 8, 1024)  # an L1 norm of about 57,000, near the end of float16
    x[:, 3] *= 2
    weight = semantic_weight(x.half().view(1, 1, 8, 1024))
    torch.testing.assert_close(weight, semantic_weight(x.view(1, 1, 8, 1024)), rtol=1e-2, atol=1e-2)


def test_a_key_of_zeros_is_no_nan():
    keys = torch.randn(1, 18, 4)
    keys[:, 7] = 0
    assert torch.isfinite(accumulate(torch.randn(1, 18, 3), keys, 3, 2).score).all()


def test_order_is_taken():
    clip = moving(1)
    forward = trace(tiny(select="sta:r=3,order=forward/forward/forward"), clip)
    published = trace(tiny(select="sta:r=3"), clip)
    named = trace(tiny(select="sta:r=3,order=forward/backward/forward"), clip)
    assert torch.equal(forward[0].position, published[0].position)
    assert not torch.equal(forward[1].position, published[1].position)
    assert all(torch.equal(a.position, b.position) for a, b in zip(named, published, strict=True))


def test_r_over_half_drops_odd_tokens_from_the_end():
    scores = accumulate(torch.randn(1, 10, 3), torch.randn(1, 10, 2), 1, 7)
    assert torch.equal(scores.kept[0, 0], torch.tensor([1, 3, 5]))
