"""Counts, no-ops and refusals: decided from the grid, before a tensor is seen."""

import copy
import gc
import io
import re
import weakref
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import tiny
from tubelet.errors import SelectionError, SpecError, TubeletError
from tubelet.models.registry import build_model, create_model, list_models, set_selection
from tubelet.selection.budgets import fitting_groups, r_for_share, share_of, side_of
from tubelet.selection.plan import Placed, Plan, Selector
from tubelet.selection.registry import build_plan, list_selectors

BASE = {"frames": 16, "size": 224, "dim": 12, "heads": 3, "depth": 12, "num_classes": 0}  # VideoMAE's grid, thin


def kept(select, **arguments):
    return create_model("videomae_base", select=select, **{**BASE, **arguments}).tokens_entering()


@pytest.mark.parametrize(
    ("select", "entering"),
    [
        ("none", [1568] * 12),
        ("sta:r=64", [1568] + [1056] * 4 + [800] * 4 + [672] * 3),
        ("random:r=64", [1568] + [1056] * 4 + [800] * 4 + [672] * 3),
        ("sta:keep=0.5", [1568] + [1120] * 4 + [896] * 4 + [784] * 3),  # r=56: exactly half at the end
        ("uniform:T0.5@0", [784] * 12),
        ("random:T0.6@0", [5 * 196] * 12),  # 4.8 frames
        ("random:S0.9@4", [1568] * 4 + [8 * 13 * 13] * 8),  # sides of 13.28
        ("random:S0.25@4", [1568] * 4 + [8 * 7 * 7] * 8),
        ("random:S12x14@4", [1568] * 4 + [8 * 12 * 14] * 8),
        ("random:T5@0-S13@4", [980] * 4 + [845] * 8),
        ("random:S13@4-T5@4", [1568] * 4 + [845] * 8),
        ("random:keep=0.7@3,6,9", [1568] * 3 + [1098] * 3 + [769] * 3 + [538] * 3),
        ("attention:keep=0.5@4", [1568] * 4 + [784] * 8),
        ("merge:r=65", [1568 - 65 * i for i in range(12)]),
        ("merge:r=100@0,1", [1568, 1468] + [1368] * 10),
        ("uniform:T0.5@0+sta:r=16,groups=4/4/2", [784] + [720] * 4 + [656] * 4 + [624] * 3),
    ],
)
def test_tokens_entering_each_block(select, entering):
    assert kept(select) == entering


def test_larger_sizes_of_the_schedule():
    large = create_model("videomae_large", select="sta:r=64", dim=16, heads=2, num_classes=0)
    assert [i for i in range(23) if large.tokens_entering()[i] != large.tokens_entering()[i + 1]] == [0, 8, 16]
    huge = create_model("videomae_huge", select="sta:r=64", dim=16, heads=2, num_classes=0)
    assert [i for i in range(31) if huge.tokens_entering()[i] != huge.tokens_entering()[i + 1]] == [0, 10, 21]


@pytest.mark.parametrize(
    "select",
    [
        "none",
        "sta:r=0",
        "sta:keep=1.0",
        "merge:r=0",
        "random:keep=1.0@4",
        "uniform:T8@0",
        "attention:S14@3",
        "random:T1.0@0",
    ],
)
def test_what_keeps_everything_is_no_step_at_all(select):
    model = create_model("videomae_base", select=select, **BASE)
    assert not model.plan.schedule(model.grid).actions


@pytest.mark.parametrize(
    ("select", "says"),
    [
        ("foo:r=1", "no selector 'foo'; there are none, sta"),
        ("randm:keep=0.5@4", "did you mean 'random'?"),
        ("sta", "sta needs a budget: r=48"),
        ("sta:T5@0", "sta does not take T5 (in sta:T5@0)"),
        ("sta:r=4-r=5", "one budget"),
        ("merge:keep=0.5", "merge does not take keep=0.5"),
        ("sta:r=8,colour=1", "no option 'colour'"),
        ("sta:r=112", "r=112 is too large for 1568 tokens in a 8 x 14 x 14 grid (time, rows, columns)"),
        ("sta:r=500", "r is at most 111 here"),
        ("sta:r=8,groups=8/3/2", "each must divide"),
        ("sta:r=8,groups=8/4", "2 groups for 3 places"),
        ("sta:r=8@0,2,4,6", "4 places; give one group count a place"),
        ("sta:r=8,groups=a/4/2", "whole numbers"),
        ("sta:r=8,order=up/down/up", "forward or backward"),
        ("sta:r=8@8,4,0", "ascend"),
        ("sta:r=8@0,4,12", "block 12 does not exist; ViT has blocks 0 to 11"),
        ("uniform:T0.5@0+sta:r=16", "use groups=4/4/2"),
        ("random:keep=0.5@0+sta:r=16", "use groups=1/1/1"),
        ("random:keep=0.5@1+sta:r=16", "another selector acts between its steps"),
        ("random:keep=0.5", "say before which block"),
        ("attention:keep=0.5@0", "no attention has been formed before block 0"),
        ("random:T9@0", "would keep 9 of 8 frames"),
        ("random:T0.01@0", "would keep 0 of 8 frames"),
        ("random:S15@0", "does not fit"),
        ("random:S0.0001@0", "does not fit"),
        ("random:keep=0.0001@0", "would keep none"),
        ("random:keep=0.5@0-T4@1", "needs a dense grid"),
        ("random:keep=0.5@2,seed=x", "a whole number"),
        ("merge:r=4,prop=maybe", "true or false"),
        ("random:keep=0.5@4,groups=8/4/2", "groups belong to an r budget"),
        ("random:T0.5@0-r=2", "use groups=4/4/2"),
        ("sta:r=\u0663", "is not a budget"),
    ],
)
def test_refusals_say_what_would_be_right(select, says):
    with pytest.raises(TubeletError, match=re.escape(says)):
        create_model("videomae_base", select=select, **BASE)


def test_a_refused_selection_leaves_the_model_as_it_was():
    model = tiny(select="sta:r=3")
    with pytest.raises(SelectionError):
        set_selection(model, "sta:r=500")
    assert model.config.select == "sta:r=3" and model.plan.spec == "sta:r=3"


def test_reading_keys_before_the_first_block_is_refused():
    class ReadsKeys(Selector):
        reads_keys = True

    with pytest.raises(SelectionError, match="before block 0"):
        Plan([Placed(0, ReadsKeys())], tiny().host())


def test_a_selection_follows_the_model_it_is_given_to():
    """Mode, type and the saved spec: whether it comes with the model or later."""
    model = tiny()
    clip = torch.zeros(1, 3, 16, 32, 32)
    set_selection(model, "random:keep=0.5@1")
    assert not model.plan.training and torch.equal(model(clip), model(clip))
    assert model.config.select == "random:keep=0.5@1"
    model.set_plan(build_plan("sta:r=3", model.host()))
    assert model.config.select == "sta:r=3"
    other = build_model(model.config)
    set_selection(other, "none")
    assert model.config.select == "sta:r=3" and other.config.select == "none"
    model.train()
    set_selection(model, "random:keep=0.5@1")
    assert model.plan.training


def test_models_are_copied_and_pickled():
    model = tiny(select="sta:r=3")
    clip = torch.randn(1, 3, 16, 32, 32)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        assert torch.equal(other(clip), model(clip))


def test_a_model_goes_when_the_last_name_of_it_does():
    """No cycle holds it: its memory is free at once."""
    model = tiny(select="sta:r=3")
    there = weakref.ref(model)
    gc.collect()
    gc.disable()
    try:
        del model
        assert there() is None
    finally:
        gc.enable()


def test_steps_that_collide_are_refused():
    with pytest.raises(SelectionError, match="collide"):
        tiny(depth=2, select="sta:r=3")
    assert tiny(depth=2, select="sta:r=3@0,1,groups=8/4").tokens_entering() == [128, 104]


def test_other_grids_are_judged_when_they_come():
    """12 frames make 6 slots, across which 8 groups would cut; 32 frames make 16, two a group."""
    from tests.tiny import moving

    model = tiny(select="sta:r=3")
    with pytest.raises(SelectionError, match="groups=6/3/1"):
        model(moving(1, frames=12))
    assert model(moving(1, frames=32)).shape == (1, 7)
    with pytest.raises(SelectionError, match="groups=6/3/1"):
        tiny(frames=12, select="sta:r=3")
    assert tiny(frames=12, select="sta:r=3,groups=6/3/1").tokens_entering() == [96, 78, 78, 69, 69, 66]


def test_the_first_token_of_a_model_without_class_token_cannot_be_read_after_a_drop():
    with pytest.raises(SelectionError, match="class token"):
        tiny(pool="first", select="sta:r=3")
    assert tiny(pool="first").plan.spec == "none"


@given(st.integers(1, 10**6), st.integers(1, 10**4))
def test_shares_round_half_up(total, numerator):
    share = numerator / 10**4
    exact = Fraction(numerator, 10**4) * total
    count = share_of(share, total)
    assert abs(count - exact) <= Fraction(1, 2) and (count - exact != -Fraction(1, 2))


@given(st.integers(1, 200), st.integers(1, 10**4))
def test_sides_round_half_up(side, numerator):
    """n is right where n - 1/2 <= sqrt(share) side < n + 1/2; squared, so that no root is rounded."""
    share = numerator / 10**4
    area, n = Fraction(numerator, 10**4) * side**2, side_of(share, side)
    assert (n == 0 or (n - Fraction(1, 2)) ** 2 <= area) and area < (n + Fraction(1, 2)) ** 2


def test_sides_that_are_exactly_half():
    assert side_of(0.49, 45) == 32  # 31.5
    assert side_of(0.0841, 50) == 15  # 14.5


@given(st.floats(0.001, 1), st.integers(100, 3000))
def test_r_for_a_share_is_the_nearest(keep, tokens):
    groups = (8, 4, 2)
    best = r_for_share(keep, tokens, groups)
    distance = abs(tokens - 14 * best - keep * tokens)
    assert all(distance <= abs(tokens - 14 * r - keep * tokens) + 1e-6 for r in (best - 1, best + 1))


@given(st.integers(1, 64))
def test_fitting_groups_fit(segments):
    groups = [int(g) for g in fitting_groups(segments).split("/")]
    assert segments % groups[0] == groups[0] % groups[1] == groups[1] % groups[2] == 0
    assert all(g <= wanted for g, wanted in zip(groups, (8, 4, 2), strict=True))


def test_names():
    assert list_selectors()[:2] == ["none", "sta"]
    assert list_models("videomae_*") == ["videomae_small", "videomae_base", "videomae_large", "videomae_huge"]
    with pytest.raises(TubeletError, match="did you mean 'videomae_base'"):
        create_model("videomae_bse")
    with pytest.raises(TubeletError, match="no argument 'width'; its arguments are frames"):
        create_model("videomae_base", width=3)
    with pytest.raises(SpecError):
        create_model("videomae_base", select="")
