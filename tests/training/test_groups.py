"""Which parameters learn how fast, and which decay."""

import pytest
import torch
from torch import nn

from tests.tiny import tiny
from tubelet.training.config import GroupsSection
from tubelet.training.groups import layer_of, parameter_groups, rule_of


def groups_of(model, **given):
    return parameter_groups(model, 0.1, 0.05, GroupsSection(**given), len(model.host().widths))


def test_every_parameter_is_in_one_group():
    model = tiny("vit_class_token")
    found = [p for group in groups_of(model, layer_decay=0.75) for p in group["params"]]
    assert sorted(map(id, found)) == sorted(map(id, model.parameters()))


def test_vectors_and_positions_do_not_decay():
    model = tiny("vit_class_token")
    decaying = {id(p) for group in groups_of(model) if group["weight_decay"] for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in decaying}
    assert names == {n for n, p in model.named_parameters() if p.ndim > 1 and n not in ("pos_embed", "cls_token")}
    assert all(group["weight_decay"] == 0.05 for group in groups_of(model, decay_norms=True))


def test_vectors_of_one_group_decay():
    model = tiny("mvit", select="stts:T5@0")
    groups = GroupsSection(decay_norms="selector")
    vectors = {n for n, p in model.named_parameters() if p.ndim == 1 and rule_of(n, p, groups, 5).decays}
    assert vectors == {n for n, p in model.named_parameters() if p.ndim == 1 and n.startswith("plan.")} != set()


def test_selector_backbone_and_head_have_rates_of_their_own():
    parameter = nn.Parameter(torch.zeros(3, 3))
    groups = GroupsSection(selector=2.0, backbone=0.01, head=0.5)
    names = {"plan.selectors.block0_stts_T.score.weight": 2.0, "blocks.0.attn.qkv.weight": 0.01, "head.weight": 0.5}
    for name, scale in names.items():
        assert rule_of(name, parameter, groups, 4).scale == scale
    rates = {group["kind"]: group["lr"] for group in groups_of(tiny(), backbone=0.01, head=0.5)}
    assert rates == pytest.approx({"backbone": 0.001, "head": 0.05})


def test_layer_decay_goes_from_the_last_block_to_the_embedding():
    depth, groups, p = 4, GroupsSection(layer_decay=0.5), nn.Parameter(torch.zeros(3, 3))
    scales = [rule_of(f"blocks.{i}.mlp.fc1.weight", p, groups, depth).scale for i in range(depth)]
    assert scales == [1 / 16, 1 / 8, 1 / 4, 1 / 2]
    assert rule_of("patch_embed.proj.weight", p, groups, depth).scale == 1 / 32
    assert rule_of("fc_norm.weight", p, groups, depth).scale == 1 == rule_of("head.weight", p, groups, depth).scale
    assert [layer_of(name, depth) for name in ("cls_token", "blocks.3.norm1.bias", "norm.weight")] == [0, 4, 5]
