"""What changes the look of a training view."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tubelet.data import randaugment
from tubelet.data.randaugment import OPERATIONS, Augment
from tubelet.errors import TubeletError


def frames(seed=0, t=3, h=20, w=28):
    return torch.randint(0, 256, (t, h, w, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@given(st.integers(0, 1000), st.integers(0, 5), st.floats(0, 10), st.floats(0, 2), st.booleans())
def test_form_and_repeatability(seed, operations, magnitude, deviation, erasing):
    augment = Augment(operations, magnitude, deviation, 0.4, float(erasing))
    one, two = (augment(frames(), np.random.default_rng(seed)) for _ in range(2))
    assert one.shape == frames().shape and one.dtype == torch.uint8 and torch.equal(one, two)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("strength", [-1.0, -0.3, 0.6, 1.0])
def test_all_frames_are_treated_alike(name, strength):
    """Of a still clip a still clip is left, and no clip that was given is written into."""
    still = frames(t=1).expand(4, -1, -1, -1).permute(0, 3, 1, 2)
    before = still.clone()
    changed = OPERATIONS[name](still, strength)
    assert torch.equal(changed, changed[:1].expand_as(changed)) and changed.dtype == torch.uint8
    assert torch.equal(still, before)


@pytest.mark.parametrize(
    "name", ["rotate", "saturation", "contrast", "brightness", "sharpness", "shear_x", "shear_y", "shift_x", "shift_y"]
)
def test_no_strength_is_no_change(name):
    x = frames().permute(0, 3, 1, 2)
    assert (OPERATIONS[name](x, 0.0).int() - x.int()).abs().max() <= 1


def test_operations_do_what_they_are_called():
    x = frames().permute(0, 3, 1, 2)
    assert torch.equal(randaugment.brightness(x, 0.0), torch.zeros_like(x))
    grey = randaugment.saturation(x, 0.0)
    assert torch.equal(grey[:, 0], grey[:, 1]) and torch.equal(grey[:, 1], grey[:, 2])
    assert randaugment.contrast(x, 0.0).unique().numel() == 1
    assert torch.equal(randaugment.solarise(x, 0), 255 - x) and torch.equal(randaugment.solarise(x, 256), x)
    assert randaugment.posterise(x, 1).unique().tolist() == [0, 128]
    low = randaugment.autocontrast(x // 4 + 60)
    assert low.min() == 0 and low.max() == 255
    counts = torch.bincount(randaugment.equalise(x // 8)[:, 0].flatten(), minlength=256)
    assert counts[:128].sum().item() == pytest.approx(counts[128:].sum().item(), rel=0.2)
    quarter = randaugment.rotated(frames(h=20, w=20).permute(0, 3, 1, 2), 90)
    turned = frames(h=20, w=20).permute(0, 3, 1, 2)
    assert torch.equal(quarter, turned.rot90(1, (2, 3))) or torch.equal(quarter, turned.rot90(-1, (2, 3)))
    right = randaugment.moved(x, ((1, 0, 2 / 28), (0, 1, 0)))  # by one column
    assert torch.equal(right[..., :-1], x[..., 1:])


def test_a_box_is_erased_in_all_frames():
    x = torch.zeros(4, 3, 30, 40, dtype=torch.uint8)
    for seed in range(20):
        changed = (randaugment.erase(x, np.random.default_rng(seed)) != x).any(1)  # (T, H, W)
        assert torch.equal(changed, changed[:1].expand_as(changed))
        assert 0.01 < changed[0].float().mean() < 0.4


@pytest.mark.parametrize("text", ["4", "4/7/0.5/3", "a/b", "4/11"])
def test_another_form_is_refused(text):
    with pytest.raises(TubeletError, match="randaugment="):
        Augment.of(text, 0.0, 0.0)


def test_nothing_asked_for_is_none():
    assert Augment.of("", 0.0, 0.0) is None
    assert Augment.of("4/7/0.5", 0.4, 0.25) == Augment(4, 7.0, 0.5, 0.4, 0.25)
