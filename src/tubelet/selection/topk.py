"""Top-k, hard and differentiable (STTS: Wang et al., ECCV 2022, equations 4 to 8; Berthet et al., NeurIPS 2020).

The differentiable one averages the hard choice over noisy copies of the scores, Y_sigma = E[top-k(s + sigma Z)].
Its Jacobian is J = E[Y Z^T] / sigma (equation 8):

    full       dL/ds_j = sum_{k, i} g_{k, i} E[Y_{k, i} Z_j] / sigma
    diagonal   dL/ds_j = sum_k      g_{k, j} E[Y_{k, j} Z_j] / sigma

The diagonal one is what the released code of STTS (and the code it comes from) returns: it leaves out how the score of
one candidate moves the place of another. Both vanish with sigma.

Shapes: R rows, D candidates, K kept, S samples. One-hot choices of all samples, (R, S, K, D), are never formed. Going
back needs E[Y Z] alone for the diagonal gradient, (R, K, D); for the full one E[Y Z^T], (R, K, D, D), or where that is
larger the noise, (R, S, D), and the chosen places as small integers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SAMPLES = 500
NO_NOISE = 1e-20  # sigma from which on the choice is hard and has no gradient
CHUNK = 2**24  # noisy scores at a time: each tensor of that shape that is worked with has at most 64 MB


def top_k(scores: Tensor, k: int) -> Tensor:
    """Places (..., K) of the k highest scores (..., D), in ascending order; of equal scores the first."""
    best = scores.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return best.sort(dim=-1).values


def perturbed_top_k(
    scores: Tensor,
    k: int,
    sigma: float,
    *,
    samples: int = SAMPLES,
    full: bool = False,
    noise: Tensor | None = None,
) -> Tensor:
    """Weights (R, K, D) of each candidate in each of the k places, from scores (R, D); rows sum to 1.

    Args:
        sigma: deviation of the noise; at 0 the choice is hard and the gradient exactly zero.
        full: the whole Jacobian of equation 8 in the backward pass; else its diagonal, as released.
        noise: (R, S, D) standard normal numbers, where they are to be the same each time.

    Half precision, which does not count to 500 exactly, is left for float32: then so are the weights.
    """
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    if sigma <= NO_NOISE:
        one_hot = scores.new_zeros(scores.shape[0], k, scores.shape[1])
        return one_hot.scatter(2, top_k(scores.detach(), k)[..., None], 1.0) + 0.0 * scores[:, None]
    return _PerturbedTopK.apply(scores, k, sigma, samples, full, noise)


class _PerturbedTopK(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, k: int, sigma: float, samples: int, full: bool, noise: Tensor | None
    ) -> Tensor:
        rows, candidates = scores.shape
        if noise is not None:
            samples = noise.shape[1]
        counts = scores.new_zeros(rows, k, candidates)  # how often each candidate took each place
        noise_is_less = full and k * candidates > samples
        shape = (*counts.shape, candidates) if full and not noise_is_less else counts.shape
        moments = scores.new_zeros(shape)  # sum over samples of Y Z, or Y Z^T
        kept: list[tuple[Tensor, Tensor]] = []
        step = max(1, CHUNK // (rows * candidates))
        for start in range(0, samples, step):
            length = min(step, samples - start)
            if noise is None:
                z = torch.randn(rows, length, candidates, dtype=scores.dtype, device=scores.device)
            else:
                z = noise[:, start : start + length].to(scores.dtype)
            place = _top_k_unordered_ties(scores[:, None] + sigma * z, k)  # (R, s, K)
            by_place = place.transpose(1, 2)  # (R, K, s)
            counts.scatter_add_(2, by_place, torch.ones_like(by_place, dtype=scores.dtype))
            if noise_is_less:
                kept.append((z, place.to(_integer_for(candidates))))
            elif full:
                for j in range(k):  # row by row of noise onto the candidate that took place j
                    chosen = place[:, :, j, None].expand_as(z)
                    moments[:, j].scatter_add_(1, chosen, z)
            else:
                moments.scatter_add_(2, by_place, z.gather(2, place).transpose(1, 2))
        ctx.sigma, ctx.samples = sigma, samples
        held = [torch.cat(part, dim=1) for part in zip(*kept, strict=True)] if noise_is_less else [moments]
        ctx.save_for_backward(*held)
        return counts / samples

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads  # (R, K, D)
        held = ctx.saved_tensors
        if len(held) == 2:
            z, place = held  # (R, S, D), (R, S, K)
            chosen = grad.gather(2, place.long().transpose(1, 2)).sum(dim=1)  # (R, S): sum_k g at what was chosen
            total = (chosen[..., None] * z).sum(dim=1)  # no matrix product: it adds up less exactly
        elif held[0].dim() == 4:
            total = (grad[..., None] * held[0]).sum(dim=(1, 2))
        else:
            total = (grad * held[0]).sum(dim=1)
        return total / (ctx.samples * ctx.sigma), None, None, None, None, None


def _top_k_unordered_ties(noisy: Tensor, k: int) -> Tensor:
    """As top_k, faster; which of equal scores is left open, and noise makes none equal."""
    if k == 1:
        return noisy.argmax(dim=-1, keepdim=True)
    return noisy.topk(k, dim=-1, sorted=False).indices.sort(dim=-1).values


def _integer_for(count: int) -> torch.dtype:
    """The smallest integer that numbers `count` candidates."""
    return torch.uint8 if count <= 256 else torch.int16 if count <= 32768 else torch.int64
