"""Multiply-adds against formulas written out here, and against those counted on the published implementations."""

import pytest
import torch
from torch import nn

from benchmarks import flops_videomae
from tests.tiny import SIZES, moving, tiny
from tubelet.errors import SelectionError, TubeletError
from tubelet.models.registry import create_model
from tubelet.profiling import count_flops, flops_table

OPERATIONS = ["linear", "attention", "convolution", "layer norm", "selection"]


def by_hand(tokens, *, dim, depth, classes, tubelet, entered=None, batch=1):
    """Multiply-adds of a ViT whose blocks see these numbers of tokens. `entered`: tubelets embedded."""
    embed = (entered or tokens[0]) * tubelet * dim
    total = embed + 5 * dim + dim * classes  # norm of the mean, classifier
    for n in tokens:
        linear = n * dim * 3 * dim + n * dim * dim + 2 * n * dim * 4 * dim  # qkv, proj, MLP
        attention = 2 * n * n * dim  # all heads: logits, and the mean of the values
        norms = 2 * 5 * n * dim
        total += linear + attention + norms
    assert len(tokens) == depth
    return batch * total


def sta_by_hand(tokens, groups, r, width):
    """Products of one step of STA: similarity in the first group, then a transition and the mass it carries."""
    n = tokens // groups
    before, total = n, (n - n // 2) * (n // 2) * width
    for _ in range(groups - 1):
        total += n * before * width + n * before
        before = n - r
    return total


def macs(model, clip=None):
    return round(count_flops(model, clip).gmacs * 1e9)


def test_dense_equals_the_formula():
    parts = {"dim": 48, "depth": 6, "classes": 7, "tubelet": 3 * 2 * 8 * 8}
    assert macs(tiny()) == by_hand([128] * 6, **parts)
    assert macs(tiny(), (3, 3, 16, 32, 32)) == by_hand([128] * 6, batch=3, **parts)
    assert macs(tiny(), torch.zeros(1, 3, 8, 24, 40)) == by_hand([4 * 15] * 6, **parts)


def test_base_equals_the_formula():
    expected = by_hand([1568] * 12, dim=768, depth=12, classes=400, tubelet=1536)
    with torch.device("meta"):
        model = create_model("videomae_base")
    assert macs(model) == expected
    assert expected / 1e9 == pytest.approx(180.49, abs=0.005)  # fvcore on the released code


def test_sta_equals_the_formula():
    model = create_model("videomae_small", select="sta:r=3", **SIZES)
    tokens = [128, 104, 104, 92, 92, 86]
    cost = count_flops(model)
    steps = sta_by_hand(128, 8, 3, 16) + sta_by_hand(104, 4, 3, 16) + sta_by_hand(92, 2, 3, 16)
    dense = by_hand(tokens, dim=48, depth=6, classes=7, tubelet=384)
    assert cost.tokens == tokens
    assert round(cost.by_operation["selection"] * 1e9) == steps
    assert round(cost.gmacs * 1e9) == dense + steps


def test_merging_equals_the_formula():
    """A drop inside a block: its attention sees all that enter, its MLP what is left."""
    cost = count_flops(create_model("videomae_small", select="merge:r=10@2", **SIZES))
    assert cost.tokens == [128, 128, 128, 118, 118, 118]
    dense = by_hand(cost.tokens, dim=48, depth=6, classes=7, tubelet=384)
    fewer = 10 * (2 * 48 * 4 * 48 + 5 * 48)  # MLP and norm before it
    assert round(cost.by_operation["selection"] * 1e9) == 64 * 64 * 16
    assert round(cost.gmacs * 1e9) == dense - fewer + 64 * 64 * 16


def test_attention_that_is_read_costs_no_more_products():
    """Formed in chunks instead of fused: the same two products. Random choice costs none."""
    tokens = [128, 128, 64, 64, 64, 64]
    expected = by_hand(tokens, dim=48, depth=6, classes=7, tubelet=384)
    for select in ("attention:keep=0.5@2", "random:keep=0.5@2", "uniform:keep=0.5@2"):
        cost = count_flops(tiny(select=select))
        assert cost.tokens == tokens and round(cost.gmacs * 1e9) == expected
        assert cost.by_operation["selection"] == 0


def test_class_token_is_counted():
    model = tiny("vit_class_token", select="random:keep=0.5@2")
    cost = count_flops(model)
    assert cost.tokens == [129, 129, 65, 65, 65, 65]
    # The norm is of all tokens, here.
    expected = by_hand(cost.tokens, entered=128, dim=48, depth=6, classes=7, tubelet=384)
    assert round(cost.gmacs * 1e9) == expected


@pytest.mark.parametrize("row", flops_videomae.rows(), ids=lambda row: f"{row['model']}-{row['select']}")
def test_published_figures(row):
    assert abs(row["difference"]) <= 0.003, row


def test_fused_attention_is_counted_once():
    class Fused(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    for device in ("meta", "cpu"):  # kernels differ by device
        from torch.utils.flop_counter import FlopCounterMode

        from tubelet.profiling.flops import _MORE_FORMULAS

        with FlopCounterMode(display=False, custom_mapping=_MORE_FORMULAS) as counter:
            Fused()(torch.zeros(2, 3, 10, 4, device=device))
        assert counter.get_total_flops() == 2 * (2 * 3 * 2 * 10 * 10 * 4)
    assert macs(Fused(), (2, 3, 10, 4)) == 2 * 3 * 2 * 10 * 10 * 4


def test_products_that_torch_leaves_out():
    class Products(nn.Module):
        def __init__(self):
            super().__init__()
            self.plain = nn.LayerNorm(8, elementwise_affine=False)
            self.affine = nn.LayerNorm(8)
            self.vector = nn.Parameter(torch.zeros(8))

        def forward(self, x):  # (5, 8)
            x = self.affine(self.plain(x))
            y = x @ self.vector  # (5,)
            return torch.addmv(y, x, self.vector) + y.dot(y)

    cost = count_flops(Products(), (5, 8))
    assert round(cost.gmacs * 1e9) == 40 * 4 + 40 * 5 + 40 + 40 + 5


def test_the_report():
    model = create_model("videomae_small", select="sta:r=3", **SIZES)
    cost = count_flops(model)
    assert list(cost.by_operation) == OPERATIONS
    assert sum(cost.by_operation.values()) == pytest.approx(cost.gmacs)
    assert cost.params_m == sum(p.numel() for p in model.parameters()) / 1e6
    whole = sum(cost.by_module[name] for name in ("patch_embed", "fc_norm", "head"))
    whole += sum(
        cost.by_module[f"blocks.{i}"] + cost.by_module.get(f"plan.selectors.block{i}_sta", 0) for i in range(6)
    )
    assert whole == pytest.approx(cost.gmacs)
    assert f"{cost.gmacs:.2f} GMACs" in str(cost) and "128 104 104 92 92 86" in str(cost)


def test_the_model_is_left_as_it_is():
    model = tiny(select="sta:r=3").train()
    clip = moving(1, model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_flops(model, clip)
    flops_table(model, ["random:keep=0.5@1"])
    assert model.training and all(m.training for m in model.modules())
    assert model.plan.spec == "sta:r=3" and model.config.select == "sta:r=3"
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_weights_may_be_anywhere():
    with torch.device("meta"):
        outline = create_model("videomae_small", select="merge:r=10", **SIZES)
    assert count_flops(outline) == count_flops(tiny(select="merge:r=10"))
    assert count_flops(tiny(select="sta:r=3").bfloat16()) == count_flops(tiny(select="sta:r=3"))


def test_table():
    rows = flops_table(tiny(), ["sta:r=3", "none", "random:keep=0.5@2"])
    assert [row["select"] for row in rows] == ["none", "sta:r=3", "none", "random:keep=0.5@2"]
    assert all(set(row) == {"model", "select", "gmacs", "ratio", "params_m", "tokens"} for row in rows)
    assert rows[0]["ratio"] == rows[2]["ratio"] == 1.0
    assert rows[1]["ratio"] == rows[0]["gmacs"] / rows[1]["gmacs"] > 1
    assert rows[3]["tokens"] == [128, 128, 64, 64, 64, 64]


def test_table_at_other_sizes():
    by_name = flops_table("videomae_small", ["sta:r=4"], frames=32, size=(64, 96), classes=5)
    model = create_model("videomae_small", frames=32, size=(64, 96), num_classes=5, select="sta:r=4")
    assert by_name[1]["gmacs"] == count_flops(model).gmacs
    # A model that is built is run at another size as it is.
    wider = flops_table(tiny(), ["uniform:T0.5@0"], frames=8, size=64)
    assert wider[1]["tokens"] == [2 * 64] * 6
    # What would be wrong on the declared clip may be right on the one asked for, and the other way round.
    short = tiny(frames=8)
    assert flops_table(short, ["sta:r=3"], frames=16)[1]["tokens"][1] == 104
    with pytest.raises(SelectionError, match="cut across frames"):
        flops_table(tiny(), ["sta:r=3"], frames=8)


def test_refusals():
    with pytest.raises(TubeletError, match="classes=5"):
        flops_table(tiny(), classes=5)
    with pytest.raises(TubeletError, match="whole tubelets"):
        flops_table("videomae_small", size=100)
    with pytest.raises(TubeletError, match="give a clip or its shape"):
        count_flops(nn.Linear(3, 3))
