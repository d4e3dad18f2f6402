"""Run-length tokens against the rule told with loops, and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import moving, tiny
from tubelet.errors import SelectionError, SpecError
from tubelet.models.registry import trace
from tubelet.selection.core import Grid, pixel_change
from tubelet.selection.plan import Host
from tubelet.selection.registry import build_plan
from tubelet.selection.rlt import kept_by_threshold


def slowly(clip, grid):
    """Change of each tubelet of one clip (3, T, H, W), one number at a time."""
    _, frames, height, width = clip.shape
    t, p, q = frames // grid.t, height // grid.h, width // grid.w
    found = []
    for i in range(grid.t):
        for row in range(grid.h):
            for column in range(grid.w):
                cell = (slice(row * p, row * p + p), slice(column * q, column * q + q))
                if i == 0:
                    found.append(float("inf"))
                    continue
                last, first = clip[:, i * t + t - 1], clip[:, (i - 1) * t]
                found.append(float((last[:, cell[0], cell[1]] - first[:, cell[0], cell[1]]).abs().mean()))
    return torch.tensor(found)


@given(
    grid=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4)),
    tubelet=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 10**6),
)
def test_change_is_the_published_one(grid, tubelet, seed):
    torch.manual_seed(seed)
    grid = Grid(*grid)
    clip = torch.randn(2, 3, *(a * b for a, b in zip(grid, tubelet, strict=True)))
    expected = torch.stack([slowly(one, grid) for one in clip])
    torch.testing.assert_close(pixel_change(clip, grid), expected)


def test_keeps_the_first_slot_and_what_moves():
    model = tiny(select="rlt:keep=0.3")
    clip = torch.zeros(1, 3, 16, 32, 32)
    clip[:, :, 9, 8:16, 24:32] = 1.0  # frame 9 is the last of slot 4; as the first of none it shows in no other slot
    (step,) = trace(model, clip)
    assert step.place == "before" and step.block == 0
    kept = step.mask[0]
    assert kept[0].all() and kept[4, 1, 3]
    assert kept.sum() == round(0.3 * 128)


def test_a_clip_that_stands_still_is_kept_in_order():
    model = tiny(select="rlt:keep=0.5")
    (step,) = trace(model, torch.zeros(1, 3, 16, 32, 32))
    assert torch.equal(step.position[0], torch.arange(64))


def test_the_share_that_the_threshold_keeps():
    grid = Grid(8, 4, 4)
    clip = torch.zeros(2, 3, 16, 32, 32)
    clip[1, :, 1::2] = 0.11  # every slot but the first differs, by more than 0.1
    assert kept_by_threshold(clip, grid).tolist() == [1 / 8, 1.0]
    assert kept_by_threshold(clip, grid, tau=0.2).tolist() == [1 / 8, 1 / 8]


def test_no_pixels_are_compared_unless_asked():
    clip = moving(1)
    for select, reads in (("none", False), ("sta:r=3", False), ("rlt:keep=0.5", True), ("rlt:keep=1.0", False)):
        model = tiny(select=select)
        schedule = model.plan.schedule(model.grid)
        tokens = schedule.begin(model.embed(clip), clip)
        assert (tokens.signals is not None) == reads


def test_behind_another_selector():
    clip = moving(1)
    first, second = trace(tiny(select="uniform:T4@0+rlt:keep=0.5"), clip)
    change = pixel_change(clip, Grid(8, 4, 4)).gather(1, first.position)
    best = change.sort(dim=1, descending=True, stable=True).indices[:, :32].sort(dim=1).values
    assert torch.equal(second.position, first.position.gather(1, best))


def test_refusals():
    with pytest.raises(SelectionError, match=r"leaves 13 of 128 tokens .*keep at least 0.125"):
        tiny(select="rlt:keep=0.1")
    with pytest.raises(SelectionError, match="before block 0 alone; place it there, not at 2"):
        tiny(select="rlt:keep=0.5@2")
    with pytest.raises(SpecError, match="acts once"):
        tiny(select="rlt:keep=0.5@0,1")
    with pytest.raises(SelectionError, match="Other does not hand on the pixels"):
        build_plan("rlt:keep=0.5", Host("Other", (8,) * 4)).schedule(Grid(8, 4, 4))
