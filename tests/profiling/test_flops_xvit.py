"""X-ViT's multiply-adds against a formula, the published counts, and the ways to attend that it stands beside."""

import json

import pytest
import torch

from benchmarks import flops_xvit, timing_xvit
from tests.project import ROOT
from tests.tiny import SIZES, tiny
from tubelet.models.registry import create_model
from tubelet.profiling import count_flops, flops_table


def by_hand(frames, places, *, dim, depth, classes, pixels, heads=None, head_dim=None, before=None):
    """Multiply-adds of X-ViT whose blocks see `frames` x (1 + `places`) tokens each, one number or one a block."""
    head_dim = head_dim or dim
    frames = [frames] * depth if isinstance(frames, int) else frames
    places = [places] * depth if isinstance(places, int) else places
    total = frames[0] * places[0] * pixels * dim  # patches
    for t, n in zip(frames, places, strict=True):
        total += block(t * (n + 1), n + 1, dim)
    left = frames[-1]
    total += 5 * left * dim  # norm of the class tokens
    total += block(left + 1, left + 1, dim)  # temporal transformer
    return total + 5 * dim + dim * head_dim + head_dim * classes


def block(tokens, attended, dim):
    linear = tokens * (3 + 1 + 8) * dim * dim
    return linear + 2 * tokens * attended * dim + 2 * 5 * tokens * dim


def macs(model):
    return round(count_flops(model).gmacs * 1e9)


@pytest.mark.parametrize(("frames", "published"), [(8, 140.72), (16, 281.43)])  # by fvcore, on the released code
def test_base_equals_the_formula(frames, published):
    (row,) = flops_table("xvit_base", frames=frames)
    assert round(row["gmacs"] * 1e9) == by_hand(frames, 196, dim=768, depth=12, classes=400, pixels=768)
    assert row["gmacs"] == pytest.approx(published, rel=0.003)
    assert row["tokens"] == [frames * 197] * 12


def test_linear_in_the_frames():
    """All but the temporal transformer, whose attention is over the frames."""
    four, eight, twelve = (macs(tiny("xvit", frames=t)) for t in (4, 8, 12))
    assert twelve - eight == eight - four + 2 * 48 * 2 * 4**2  # second difference of 2 dim (T + 1)^2


def test_selection_saves_in_proportion():
    sizes = {"dim": 48, "depth": 6, "classes": 7, "pixels": 3 * 64}
    pruned = tiny("xvit", select="uniform:T4@2-S2@3")
    assert macs(pruned) == by_hand([8, 8, 4, 4, 4, 4], [16, 16, 16, 4, 4, 4], **sizes)
    joining = tiny("xvit_joining", select="uniform:S3@2")  # masks and zeros at dropped places cost no product
    kept = [16, 16, 9, 9, 9, 9]
    backbone = by_hand(8, kept, **sizes) - (block(9, 9, 48) + 5 * 48 + 48 * 48)
    assert macs(joining) == backbone


def test_the_table_of_ways_to_attend():
    table = flops_xvit.table()
    for row, reference in zip(table["rows"], table["reference"], strict=True):
        for name, expected in reference.items():
            assert row[name] == pytest.approx(expected, rel=0.003), (name, row["frames"])
        assert row["xvit"] == pytest.approx(row["image_vit"], rel=0.001)
        assert (row["tubelets"] < row["xvit"]) == (row["frames"] < 52)
    assert table["cheaper_than_tubelets_from"] == 52
    json.dumps(table)


def test_timing():
    rows = timing_xvit.measure(1, 1, **{**SIZES, "frames": 4})
    assert len(rows) == 4 and {row["rounds"] for row in rows} == {7}
    assert {row["other"] for row in rows} == {"image ViT on each frame", "joint attention"}
    for row in rows:
        assert row["ratio"] > 0 and row["seconds"] > 0 and row["other_seconds"] > 0
    json.dumps(rows)


def test_the_image_vit_beside_it_is_of_the_same_size():
    with torch.device("meta"):
        image, ours = create_model("videomae_base", frames=1, **flops_xvit.IMAGE), create_model("xvit_base")
    counts = [sum(p.numel() for p in model.blocks.parameters()) for model in (image, ours)]
    assert counts[0] == counts[1] - 12 * 768  # keys have no bias there
    assert image.pos_embed.shape == ours.pos_embed.shape


def test_the_table_in_the_docs_is_that_of_the_results():
    result = json.loads((ROOT / "results" / "flops_xvit.json").read_text())["result"]
    lines = (ROOT / "docs" / "xvit.md").read_text().splitlines()
    for row in result["rows"]:
        ways = ("xvit", "image_vit", "divided", "joint", "tubelets")
        assert "| " + " | ".join([str(row["frames"]), *(f"{row[way]:.1f}" for way in ways)]) + " |" in lines
    assert any(f"below {result['cheaper_than_tubelets_from']} frames" in line for line in lines)
