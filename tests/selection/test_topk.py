"""The perturbed top-k against its definition, with every one-hot choice written out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import one_hot

from tubelet.selection.topk import perturbed_top_k, top_k

SHAPES = {"rows": st.integers(1, 4), "candidates": st.integers(1, 12), "seed": st.integers(0, 10**6)}


def drawn(rows, candidates, seed, samples=50):
    torch.manual_seed(seed)
    return torch.randn(rows, candidates), torch.randn(rows, samples, candidates)


def written_out(scores, noise, k, sigma):
    """Choices (R, S, K, D), all at once."""
    noisy = scores[:, None] + sigma * noise
    return one_hot(noisy.topk(k).indices.sort(-1).values, scores.shape[1]).double()


@given(**SHAPES, share=st.floats(0, 1), sigma=st.floats(0.01, 2.0))
def test_equals_its_definition(rows, candidates, seed, share, sigma):
    k = max(1, round(share * candidates))
    scores, noise = drawn(rows, candidates, seed)
    scores.requires_grad_()
    y = written_out(scores.detach(), noise, k, sigma)
    upstream = torch.randn(rows, k, candidates)
    for full, moments in (
        (False, torch.einsum("rskd,rsd,rkd->rd", y, noise.double(), upstream.double())),
        (True, torch.einsum("rskd,rse,rkd->re", y, noise.double(), upstream.double())),
    ):
        weights = perturbed_top_k(scores, k, sigma, full=full, noise=noise)
        torch.testing.assert_close(weights, y.mean(1).float(), rtol=0, atol=1e-6)
        (gradient,) = torch.autograd.grad(weights, scores, upstream)
        torch.testing.assert_close(gradient, (moments / (sigma * noise.shape[1])).float(), rtol=1e-4, atol=1e-4)


@given(**SHAPES, share=st.floats(0, 1))
def test_without_noise_it_is_the_hard_one_and_has_no_gradient(rows, candidates, seed, share):
    k = max(1, round(share * candidates))
    scores, _ = drawn(rows, candidates, seed)
    scores = scores.round(decimals=0).requires_grad_()  # ties: the first of equal scores
    for sigma in (0.0, 1e-20):
        weights = perturbed_top_k(scores, k, sigma)
        assert torch.equal(weights, one_hot(top_k(scores, k), candidates).float())
        (gradient,) = torch.autograd.grad((weights * torch.randn_like(weights)).sum(), scores)
        assert not gradient.any()


@given(**SHAPES, share=st.floats(0, 1))
def test_hard_top_k(rows, candidates, seed, share):
    k = max(1, round(share * candidates))
    scores = drawn(rows, candidates, seed)[0].round(decimals=0)
    for row, places in zip(scores.tolist(), top_k(scores, k).tolist(), strict=True):
        assert places == sorted(sorted(range(candidates), key=lambda d, row=row: (-row[d], d))[:k])


def test_full_gradient_is_that_of_the_smoothed_choice():
    """With common noise the expectation changes with the scores as the full Jacobian says; the diagonal does not."""
    torch.manual_seed(0)
    scores = torch.tensor([[0.1, 0.4, 0.35, 0.0]], dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(1, 2, 4, dtype=torch.float64)
    noise, step = torch.randn(1, 400_000, 4, dtype=torch.float64), 0.02

    def value(s):
        return (perturbed_top_k(s, 2, 0.3, noise=noise) * upstream).sum()

    slopes = [
        (value(scores.detach() + step * torch.eye(4)[i]) - value(scores.detach() - step * torch.eye(4)[i])) / (2 * step)
        for i in range(4)
    ]
    (full,) = torch.autograd.grad((perturbed_top_k(scores, 2, 0.3, full=True, noise=noise) * upstream).sum(), scores)
    (diagonal,) = torch.autograd.grad(value(scores), scores)
    torch.testing.assert_close(full[0], torch.stack(slopes), rtol=0.02, atol=0.02)
    assert (diagonal - full).abs().max() > 0.3


@pytest.mark.parametrize(
    ("full", "k", "candidates", "floats"), [(False, 5, 8, 5 * 8), (True, 5, 8, 5 * 8 * 8), (True, 1, 9, 9 * 9)]
)
def test_what_is_held_for_the_way_back(full, k, candidates, floats):
    """Never samples x kept x candidates: E[Y Z] or E[Y Z^T] alone."""
    assert held(full, k, candidates) == 4 * ROWS * floats


def test_of_many_candidates_the_noise_is_held_and_places_as_small_integers():
    assert held(True, 20, 200) == ROWS * SAMPLES * (4 * 200 + 20)
    assert held(True, 20, 300) == ROWS * SAMPLES * (4 * 300 + 2 * 20)


ROWS, SAMPLES = 4, 500


def held(full, k, candidates):
    """Bytes that are saved for the backward pass."""
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        scores = torch.randn(ROWS, candidates, requires_grad=True)
        perturbed_top_k(scores, k, 0.1, samples=SAMPLES, full=full)
    return sum(t.numel() * t.element_size() for t in saved)


def test_many_candidates_are_drawn_in_parts(monkeypatch):
    monkeypatch.setattr("tubelet.selection.topk.CHUNK", 1000)
    scores, noise = drawn(3, 300, 0, samples=20)
    for full in (False, True):
        s = scores.clone().requires_grad_()
        weights = perturbed_top_k(s, 7, 0.2, full=full, noise=noise)
        weights[:, :, ::2].sum().backward()
        monkeypatch.setattr("tubelet.selection.topk.CHUNK", 2**24)
        whole = scores.clone().requires_grad_()
        perturbed_top_k(whole, 7, 0.2, full=full, noise=noise)[:, :, ::2].sum().backward()
        torch.testing.assert_close(s.grad, whole.grad)
        monkeypatch.setattr("tubelet.selection.topk.CHUNK", 1000)
    own_noise = perturbed_top_k(scores, 7, 0.2, samples=20)
    torch.testing.assert_close(own_noise.sum(-1), torch.ones(3, 7))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_counts_as_float32_does(dtype):
    torch.manual_seed(0)
    scores, noise = torch.rand(3, 8).to(dtype), torch.randn(3, 500, 8)
    upstream = torch.randn(3, 5, 8)
    for full in (False, True):
        found = []
        for dressed in (scores, scores.float()):
            s = dressed.clone().requires_grad_()
            weights = perturbed_top_k(s, 5, 0.1, full=full, noise=noise)
            weights.backward(upstream)
            found.append((weights, s.grad))
        (half, half_grad), (whole, whole_grad) = found
        assert torch.equal(half, whole) and torch.equal(half_grad, whole_grad.to(dtype))
