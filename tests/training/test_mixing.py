"""Soft targets, mixup and CutMix."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tubelet.training.config import AugmentSection
from tubelet.training.mixing import mix, soft_targets


def batch(size=4):
    """Clips that hold their own number everywhere, so that what a mixed one holds tells the shares."""
    return torch.arange(size).float().view(-1, 1, 1, 1, 1).expand(-1, 3, 2, 20, 24), torch.eye(size)


def test_soft_targets():
    assert torch.equal(soft_targets(torch.tensor([1, 0]), 2, 0.0), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert torch.allclose(soft_targets(torch.tensor([2]), 4, 0.2), torch.tensor([[0.05, 0.05, 0.85, 0.05]]))


@given(st.integers(0, 10_000), st.booleans(), st.booleans(), st.floats(0.2, 3))
def test_targets_are_mixed_as_the_pixels_are(seed, mixup, cutmix, alpha):
    augment = AugmentSection(mixup=alpha * mixup, cutmix=alpha * cutmix)
    clips, targets = batch()
    mixed, soft = mix(clips, targets, augment, np.random.default_rng(seed))
    means = mixed.mean(dim=(1, 2, 3, 4))
    assert torch.allclose(soft.sum(1), torch.ones(4))
    assert torch.allclose(soft @ torch.arange(4.0), means, atol=1e-4)
    if cutmix and not mixup:  # every pixel is of one clip or the other, the same box in all frames and colours
        assert all(set(one.unique().tolist()) <= {float(i), float(3 - i)} for i, one in enumerate(mixed))
        assert torch.equal(mixed, mixed[:, :1, :1].expand_as(mixed))


def test_nothing_asked_for_is_nothing_done():
    clips, targets = batch()
    mixed, soft = mix(clips, targets, AugmentSection(), np.random.default_rng(0))
    assert mixed is clips and soft is targets
    rng = np.random.default_rng(0)
    parts = [mix(clips, targets, AugmentSection(mixup=1.0, mix_share=0.3), rng)[0] is clips for _ in range(300)]
    assert 0.62 < np.mean(parts) < 0.78


@pytest.mark.parametrize("switch", [0.0, 1.0])
def test_switch_chooses_between_the_two(switch):
    clips, targets = batch()
    mixed, _ = mix(clips, targets, AugmentSection(mixup=1.0, cutmix=1.0, switch=switch), np.random.default_rng(3))
    assert (len(mixed[0].unique()) == 1) == (switch == 0.0)
