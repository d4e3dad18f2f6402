"""The detector: the promises of the suite for a model that gives boxes; sizes of all kinds, cost, what is refused."""

import io

import pytest
import torch

from tests.tiny import moving, randomise, tiny_detector
from tubelet.errors import SelectionError, TubeletError
from tubelet.models.boxes import apply_deltas, clipped, extended, from_centres, generalised_iou, pair_iou, whwh
from tubelet.models.evad import restored_places
from tubelet.models.registry import create_model, set_selection, trace
from tubelet.profiling import count_flops, flops_table

SPECS = [
    "none",
    "keyframe:keep=0.7@2,4",
    "keyframe:keep=0.6@1,weight=4",
    "random:keep=0.7@2,4",
    "uniform:keep=0.7@3",
    "attention:keep=0.8@2-keep=0.6@4",
]
NO_OPS = ["keyframe:keep=1.0", "random:keep=1.0@2", "uniform:T4@0", "sta:r=0,groups=4/4/2", "merge:r=0"]
all_specs = pytest.mark.parametrize("spec", SPECS)


def clips_for(model, batch, seed=0):
    return moving(batch, model, seed=seed)


def assert_same(ours, theirs, atol=0.0):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


@all_specs
def test_forward_and_trace(spec):
    model = tiny_detector(select=spec)
    clip = clips_for(model, 2)
    with torch.no_grad():
        found, again = model(clip), model(clip)
    assert found.person_logits.shape == (2, 2, 9, 2) and found.boxes.shape == (2, 2, 9, 4)
    assert found.action_logits.shape == (2, 2, 9, 7) and found.sizes.tolist() == [[64, 96]] * 2
    assert all(torch.isfinite(one).all() for one in found)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert bool((found.person_scores > 0).all()) and bool((found.action_scores < 1).all())
    steps = trace(model, clip)
    assert bool(steps) == (spec != "none")
    for step in steps:
        assert (step.mask.flatten(1).sum(1) == step.position.shape[1]).all()
        assert step.mask[:, 2].all()  # the key slab
    assert model.plan.schedule(model.grid).leaving.tokens == (steps[-1].position.shape[1] if steps else 96)


@all_specs
def test_backward(spec):
    model = tiny_detector(select=spec).train()
    clip = clips_for(model, 2).requires_grad_()
    found = model(clip)
    (found.person_logits.square().sum() + found.boxes.square().mean() + found.action_logits.square().sum()).backward()
    assert torch.isfinite(clip.grad).all() and clip.grad.abs().sum() > 0
    unused = {"context.mask_token"} if spec == "none" else set()  # it stands in for dropped tokens
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name in unused), name
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("spec", NO_OPS)
def test_no_selection_is_the_dense_model_bit_for_bit(spec):
    dense, idle = tiny_detector(), tiny_detector(select=spec)
    clip = clips_for(dense, 2)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(dense(clip), idle(clip), strict=True))
        set_selection(idle, "keyframe:keep=0.6@1")
        assert not torch.equal(dense(clip).action_logits, idle(clip).action_logits)


@all_specs
def test_a_clip_does_not_hang_on_its_neighbours(spec):
    model = tiny_detector(select=spec)
    clips = clips_for(model, 3)
    others = torch.cat([clips[:1], 3 * clips_for(model, 2, seed=9)])
    with torch.no_grad():
        batch, beside_others, alone = model(clips), model(others), model(clips[:1])
    for a, b, c in zip(batch[:3], beside_others[:3], alone[:3], strict=True):
        torch.testing.assert_close(a[:, 0], b[:, 0], rtol=0, atol=1e-4)
        torch.testing.assert_close(a[:, :1], c, rtol=0, atol=1e-4)


SHORT = {"depth": 3, "proposal_heads": 1, "decoder_depth": 1, "taps": (0, 1, 1, 2)}  # compilers take their time


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["none", "keyframe:keep=0.6@1,weight=4"])
def test_compiles_as_one_graph(spec):
    model = tiny_detector(select=spec, **SHORT)
    clip = clips_for(model, 2)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        assert all(torch.equal(a, b) for a, b in zip(compiled(clip), model(clip), strict=True))


@pytest.mark.slow
def test_exports():
    """Saved, loaded, and run at another batch size."""
    model = tiny_detector(select="keyframe:keep=0.6@1,weight=4", **SHORT)
    batch, buffer = torch.export.Dim("batch", min=1, max=8), io.BytesIO()
    with torch.no_grad():
        program = torch.export.export(model, (clips_for(model, 2),), dynamic_shapes={"clip": {0: batch}})
        torch.export.save(program, buffer)
        buffer.seek(0)
        loaded = torch.export.load(buffer).module()
        for size in (2, 3):
            clips = clips_for(model, size, seed=size)
            assert_same(loaded(clips), model(clips), 1e-4)


@all_specs
def test_half_precision_runs(spec):
    model = tiny_detector(select=spec)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = model(clips_for(model, 2))
    assert all(torch.isfinite(one).all() for one in found) and found.boxes.dtype == torch.float32


@all_specs
def test_weights_are_those_of_the_dense_model(spec):
    dense, pruned = tiny_detector(), tiny_detector(select=spec)
    randomise(dense, seed=5)
    pruned.load_state_dict(dense.state_dict())


@pytest.mark.parametrize("spec", SPECS[:3])
def test_any_size_is_padded_below_and_on_the_right(spec):
    model = tiny_detector(select=spec)
    clip = clips_for(model, 1)[..., :60, :70]
    padded = torch.nn.functional.pad(clip, (0, 26, 0, 4))
    with torch.no_grad():
        ours, theirs = model(clip), model(padded, None, [(60, 70)])
        listed = model([clip[0]])
    assert_same(ours, theirs)
    assert_same(ours, listed)
    assert ours.sizes.tolist() == [[60, 70]]


@pytest.mark.parametrize("spec", SPECS[:3])
def test_a_batch_of_different_sizes_is_padded_to_the_largest(spec):
    model = tiny_detector(select=spec)
    large, small = clips_for(model, 2)[0], clips_for(model, 2)[1][..., :40, :90]
    with torch.no_grad():
        found = model([large, small])
        together = torch.stack([large, torch.nn.functional.pad(small, (0, 6, 0, 24))])
        expected = model(together, None, [(64, 96), (40, 90)])
        other_way = model([small, large])
    assert_same(found, expected)
    assert found.sizes.tolist() == [[64, 96], [40, 90]]
    torch.testing.assert_close(other_way.boxes[:, 1], found.boxes[:, 0], rtol=0, atol=1e-3)


def test_position_exact_and_published_order_differ_only_where_tokens_are_dropped():
    clip = moving(1, frames=8, size=(64, 96))
    for spec, same in (("none", True), ("keyframe:keep=0.7@2", False)):
        exact = tiny_detector(select=spec)
        published = tiny_detector(select=spec, restoration="published")
        with torch.no_grad():
            a, b = exact(clip), published(clip)
        assert torch.equal(a.boxes, b.boxes) and torch.equal(a.action_logits, b.action_logits) == same
        tokens, _ = exact.forward_features(clip)
        if not same:
            ours, theirs = restored_places(tokens, "exact"), restored_places(tokens, "published")
            assert torch.equal(ours.sort(1).values, theirs.sort(1).values) and not torch.equal(ours, theirs)


def test_every_token_returns_to_its_own_place():
    """Of a clip where each token is marked with its own place, the map holds the same mark there, or the mask token."""
    model = tiny_detector(select="keyframe:keep=0.6@1,weight=4")
    tokens, _ = model.forward_features(moving(2, model))
    marks = tokens.position.float()[..., None].expand(-1, -1, 24) + 1
    with torch.no_grad():
        model.context.mask_token.zero_()
        full = model.context.full_map(marks, restored_places(tokens, "exact"), torch.zeros(1, 96, 24))
    expected = torch.zeros(2, 96).scatter(1, tokens.position, tokens.position.float() + 1)
    assert torch.equal(full[..., 0], expected)


@pytest.mark.parametrize(
    ("name", "selects", "published"),
    [
        ("evad_base", ["keyframe:keep=0.7@3,6,9", "keyframe:keep=0.6@3,6,9,weight=4"], [424.5, 242.8, 208.9]),
        ("evad_large", ["keyframe:keep=0.7@6,12,18"], [None, 737.1]),
    ],
)
def test_multiply_adds_are_the_published_ones(name, selects, published):
    for row, gmacs in zip(flops_table(name, selects), published, strict=True):
        assert gmacs is None or row["gmacs"] == pytest.approx(gmacs, rel=0.005)


def test_multiply_adds_by_a_hand_formula():
    """Blocks: 4 N D^2 + 2 N^2 D + 8 M D^2, N tokens in and M after the drop."""
    spec = "keyframe:keep=0.7@2,4"
    model = tiny_detector(select=spec)
    found = count_flops(model)
    counts, width = found.tokens, 48
    after = [*counts[1:], model.plan.schedule(model.grid).leaving.tokens]
    for block, (n, m) in enumerate(zip(counts, after, strict=True)):
        norms = 5 * width * (n + m)
        expected = 4 * n * width**2 + 2 * n**2 * width + 8 * m * width**2 + norms
        assert found.by_module[f"backbone.blocks.{block}"] * 1e9 == pytest.approx(expected)


REFUSED = {
    "frames in multiples of 4": {"frames": 6},
    "restoration='other': one of exact, published": {"restoration": "other"},
    "resize_when='never': one of grid, count": {"resize_when": "never"},
    "a detector says which actions": {"num_classes": 0},
    "width=30 is not a multiple of its 4 attention heads": {"width": 30},
    "decoder_dim=25 is not a multiple": {"decoder_dim": 25},
    "taps=.*4 of the blocks 0 to 5": {"taps": (0, 1, 2)},
    "4 of the blocks 0 to 5 are needed": {"taps": (0, 1, 2, 6)},
}


@pytest.mark.parametrize("says", REFUSED)
def test_arguments_that_cannot_be(says):
    with pytest.raises(TubeletError, match=says):
        tiny_detector(**REFUSED[says])


def test_clips_that_cannot_be():
    model = tiny_detector(select="keyframe:keep=0.7@2,4")
    with pytest.raises(TubeletError, match="frames in multiples of 4"):
        model(torch.zeros(1, 3, 6, 64, 96))
    with pytest.raises(TubeletError, match="several .* of one T"):
        model([torch.zeros(3, 8, 64, 96), torch.zeros(3, 4, 64, 96)])
    with pytest.raises(TubeletError, match=r"\(B, 3, T, H, W\) is expected"):
        model(torch.zeros(3, 8, 64, 96))
    with pytest.raises(SelectionError, match="must stay above 1/2"):  # 4 frames have 2 slots
        model(torch.zeros(1, 3, 4, 64, 96))


def test_other_frames_and_sizes_than_the_declared_ones():
    model = tiny_detector(select="keyframe:keep=0.8@2")
    with torch.no_grad():
        found = model(moving(1, frames=16, size=(96, 160)))
    assert torch.isfinite(found.action_logits).all()


def test_the_table_is_resized_by_the_grid_or_as_published_by_the_count():
    exact = tiny_detector(position_grid=(4, 4, 6), size=(64, 96))
    published = tiny_detector(position_grid=(4, 4, 6), size=(64, 96), resize_when="count")
    turned = exact.grid_of(8, 96, 64)  # as many tokens
    table = exact.backbone.pos_embed
    assert torch.equal(published.positions_for(table, turned), table)
    assert not torch.equal(exact.positions_for(table, turned), table)


def test_sizes_are_arguments():
    small = create_model("evad_tiny")
    assert small.config.model == "evad_tiny" and small.num_classes == 21 and small.size == (128, 128)
    assert len(small.proposals.heads) == 3 and small.proposals.boxes.shape == (20, 4)
    assert sum(p.numel() for p in small.backbone.parameters()) < 3.2e6


def test_boxes():
    box = torch.tensor([[[10.0, 20, 30, 60]]])
    sizes = torch.tensor([[50.0, 40.0]])  # height, width
    assert whwh(sizes).tolist() == [[[40, 50, 40, 50]]]
    assert from_centres(torch.tensor([0.5, 0.5, 1.0, 0.5])).tolist() == [0.0, 0.25, 1.0, 0.75]
    assert clipped(box, sizes).tolist() == [[[10, 20, 30, 49]]]
    # 40 % of 21 columns, 20 % of 41 rows, half on each side
    torch.testing.assert_close(extended(box, sizes, (0.4, 0.2)), torch.tensor([[[5.8, 15.9, 34.2, 49.0]]]))
    assert torch.equal(apply_deltas(box, torch.zeros(1, 1, 4)), box)
    moved = apply_deltas(box, torch.tensor([[[1.0, -0.5, 0.0, 99.0]]]))[0, 0]
    assert moved[:3:2].tolist() == [20.0, 40.0]  # half a width to the right
    assert float(moved[3] - moved[1]) == pytest.approx(40 * 100_000 / 16)  # no more than that
    iou, union = pair_iou(torch.tensor([0.0, 0, 10, 10]), torch.tensor([5.0, 0, 15, 10]))
    assert (float(iou), float(union)) == (pytest.approx(1 / 3), 150.0)
    apart = generalised_iou(torch.tensor([0.0, 0, 1, 1]), torch.tensor([3.0, 0, 4, 1]))
    assert float(apart) == pytest.approx(-0.5)
