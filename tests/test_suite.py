"""Every model with every selector: the promises that hold for all of them."""

import io
import re

import pytest
import torch

from tests.tiny import MODELS, moving, randomise, tiny
from tubelet.errors import SelectionError
from tubelet.models.registry import set_selection, trace
from tubelet.selection.registry import list_selectors, methods
from tubelet.selection.spec import parse

SELECTORS = {  # selector: budgets of every form that it takes
    "none": ["none"],
    "stts": ["stts:T0.5@0-S0.5@3", "stts:S2x3@1,anchors=cover"],
    "gumbel": ["gumbel:T5@1-T2@4,tau=0.5"],
    "sta": ["sta:r=3", "sta:keep=0.4", "sta:r=4@1,3,groups=4/2"],
    "keyframe": ["keyframe:keep=0.7", "keyframe:keep=0.6@1,weight=4", "keyframe:keep=0.9@0-keep=0.5@3"],
    "random": ["random:r=3", "random:keep=0.5@0,2", "random:T0.5@0-S3@3", "random:S2x3@1"],
    "uniform": ["uniform:r=3", "uniform:keep=0.3@1", "uniform:T3@0-S0.5@2"],
    "attention": ["attention:r=3", "attention:keep=0.5@1,4", "attention:T5@2-S2@4"],
    "merge": ["merge:r=10", "merge:r=7,prop=false", "merge:r=20@0,4"],
    "rlt": ["rlt:keep=0.3", "rlt:keep=0.6@0"],
    "tldr": ["tldr:r=40-r=20", "tldr:r=30@1-r=5@4,prop=false"],
    "several": [
        "uniform:T0.5@0+sta:r=3,groups=4/4/2",
        "merge:r=5+attention:keep=0.5@3",
        "uniform:T4@0+rlt:keep=0.5",
        "tldr:r=9@1+attention:keep=0.5@2",
    ],
}
NO_OPS = [
    "sta:r=0",
    "sta:keep=1.0",
    "merge:r=0",
    "rlt:keep=1.0",
    "tldr:r=0",
    "random:keep=1.0@2",
    "keyframe:keep=1.0",
    "uniform:T8@0",
    "attention:T1.0@2-S1.0@3",
    "stts:T8@0-S1.0@2",
    "uniform:keep=1.0@0+sta:r=0",
]
SPECS = [spec for specs in SELECTORS.values() for spec in specs]
# Models that take some specs alone: those that leave a dense box, or as many tokens of each frame.
BOXES = [spec for spec in SPECS if all(step.budget.kind in "TS" for term in parse(spec).terms for step in term.steps)]
KEYFRAME = SELECTORS["keyframe"]
SWIN = [
    *(spec for spec in SPECS if not re.search("merge|tldr", spec) and not re.search("[TS][0-9.]+@4", spec)),
    *("gumbel:T5@1-T2@3,tau=0.5", "attention:T5@2-S2@3", "random:keep=0.6@2-keep=0.5@3,4"),
    "attention:keep=0.9@1+sta:r=3",
]
TAKES = {
    "swin": SWIN,
    "swin_wide": ["none", "stts:T0.5@0-S0.5@3", "random:keep=0.6@2-keep=0.5@3,4", "attention:T5@2-S2@3"],
    "vit_class_token": [spec for spec in SPECS if spec not in KEYFRAME],
    "mvit": BOXES,
    "mvit_no_class_token": ["none", "stts:T0.5@0-S0.5@3", "attention:T5@2-S2@4"],  # as the other in the rest
    "xvit": [
        "none", "sta:r=3,groups=8/8/8", "random:r=5@1,groups=8", "random:T0.5@0-S3@3", "attention:T5@2-S2@4",
        "uniform:T4@0+attention:r=4@2,groups=4", "stts:T0.5@0-S0.5@3", "gumbel:T5@1-T2@4,tau=0.5",
    ],
    "xvit_joining": [
        "none", "sta:keep=0.4@1,groups=8", "uniform:T3@0-S0.5@2", "random:T0.5@0-S3@3", "attention:T5@2-S2@4",
        "stts:S2x3@1,anchors=cover", "gumbel:T5@1-T2@4,tau=0.5",
    ],
}  # fmt: skip
# The others are refused, with a sentence that says this.
SAYS = {
    "swin": "a merged token stands for several|stage 4 does not exist",
    "swin_wide": "a merged token stands for several|stage 4 does not exist",
    "vit_class_token": "weighs queries; this model tells the class token's attention alone",
    "mvit": "pools over a dense grid of tokens|does not hand on the pixels",
    "mvit_no_class_token": "pools over a dense grid of tokens|does not hand on the pixels",
    "xvit": "equally many tokens in each|does not hand on the pixels",
    "xvit_joining": "equally many tokens in each|does not hand on the pixels",
}
PAIRS = [(key, spec) for key in MODELS for spec in TAKES.get(key, SPECS)]
REFUSED = [("vit_class_token", spec) for spec in KEYFRAME]
REFUSED += [(key, spec) for key in ("swin", "swin_wide") for spec in SPECS if spec not in SWIN]
BOXED = [key for key in TAKES if key not in ("vit_class_token", "swin", "swin_wide")]
REFUSED += [(key, spec) for key in BOXED for spec in SPECS if spec not in BOXES]
all_models = pytest.mark.parametrize("key", MODELS)
all_pairs = pytest.mark.parametrize(("key", "spec"), PAIRS)
# Graphs of windows take seconds each: of these, one for each way of selecting.
SWIN_GRAPHS = ["none", "stts:T0.5@0-S0.5@3", "random:keep=0.6@2-keep=0.5@3,4", "sta:keep=0.4", "attention:T5@2-S2@3"]
GRAPHS = [(key, spec) for key, spec in PAIRS if key not in ("swin", "swin_wide") or spec in SWIN_GRAPHS]
GRAPHS = [(key, spec) for key, spec in GRAPHS if key != "swin_wide" or spec == "none"]
FIRST = [specs[0] for specs in SELECTORS.values()]  # enough of the ViT's variants: their graphs differ little
GRAPHS = [(key, spec) for key, spec in GRAPHS if key not in ("vit_wide", "vit_class_token") or spec in FIRST]
all_graphs = pytest.mark.parametrize(("key", "spec"), GRAPHS)


def test_no_selector_is_left_out():
    assert set(list_selectors()) == set(SELECTORS) - {"several"}
    for key in set(MODELS) - {"swin_wide", "mvit_no_class_token"}:  # these take a few, as the others of their kind
        for name in list_selectors():  # it runs there, or is refused
            assert any((key, name) == (k, s.split(":")[0]) for k, s in [*PAIRS, *REFUSED]), (key, name)


@pytest.mark.parametrize(("key", "spec"), REFUSED)
def test_what_cannot_be_right_is_refused(key, spec):
    with pytest.raises(SelectionError, match=SAYS[key]):
        tiny(key, select=spec)


@all_pairs
def test_forward_and_trace(key, spec):
    model = tiny(key, select=spec)
    clip = moving(2, model)
    with torch.no_grad():
        logits = model(clip)
        again = model(clip)
    assert logits.shape == (2, 7) and torch.isfinite(logits).all() and torch.equal(logits, again)
    steps = trace(model, clip)
    assert bool(steps) == (spec != "none")
    before, last = None, 0
    for step in steps:
        kept = step.position.shape[1]
        if step.cells:
            assert torch.equal(step.mask, (step.owner >= 0).view(2, *model.grid))
        else:
            assert (step.mask.flatten(1).sum(1) == kept).all()  # every token at a place of its own
        assert step.mask.shape == (2, *model.grid)
        if before is not None and not any(last < block <= step.block for block in model.host().refills):
            assert (step.mask <= before).all()  # nothing comes back
        held = step.owner.gather(1, step.position)
        assert torch.equal(held, torch.arange(kept).expand(2, -1))
        before, last = step.mask, step.block
    left = model.forward_features(clip)
    assert left.layout == model.plan.schedule(model.grid).leaving
    assert left.patches.shape[1] == left.layout.tokens


@all_pairs
def test_backward(key, spec):
    model = tiny(key, select=spec).train()
    clip = moving(2, model).requires_grad_()
    loss = model(clip).square().sum()
    loss.backward()
    assert torch.isfinite(clip.grad).all() and clip.grad.abs().sum() > 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@all_models
@pytest.mark.parametrize("spec", NO_OPS)
def test_no_selection_is_the_dense_model_bit_for_bit(key, spec):
    dense, idle = tiny(key), tiny(key, select=spec)
    clip = moving(2, dense)
    with torch.no_grad():
        assert torch.equal(dense(clip), idle(clip))
        set_selection(idle, "random:S2x3@1")
        assert not torch.equal(dense(clip), idle(clip))
        set_selection(idle, "none")
        assert torch.equal(dense(clip), idle(clip))


@all_pairs
def test_a_clip_does_not_hang_on_its_neighbours(key, spec):
    model = tiny(key, select=spec)
    clips = moving(4, model)
    others = torch.cat([clips[:1], 3 * moving(3, model, seed=9)])
    with torch.no_grad():
        batch, beside_others, alone = model(clips), model(others), model(clips[:1])
    assert torch.equal(batch[0], beside_others[0])  # whatever they hold
    torch.testing.assert_close(batch[:1], alone, rtol=0, atol=1e-5)  # however many they are


@all_graphs
def test_compiles_as_one_graph(key, spec):
    model = tiny(key, select=spec)
    clip = moving(2, model)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)  # a break anywhere is an error
        assert torch.equal(compiled(clip), model(clip))


@all_graphs
def test_exports(key, spec, tmp_path):
    """A pruned model is an ordinary graph: saved, loaded, and run at another batch size."""
    model = tiny(key, select=spec)
    clip = moving(2, model)
    batch = torch.export.Dim("batch", min=1, max=8)
    with torch.no_grad():
        program = torch.export.export(model, (clip,), dynamic_shapes={"clip": {0: batch}})
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        buffer.seek(0)
        loaded = torch.export.load(buffer).module()
        for size in (2, 3):
            clips = moving(size, model, seed=size)
            torch.testing.assert_close(loaded(clips), model(clips), rtol=0, atol=1e-5)


@all_pairs
def test_weights_are_those_of_the_dense_model(key, spec):
    """The state dict goes from one to the other; a learned selector adds its scorers, a training-free one nothing."""
    dense, pruned = tiny(key), tiny(key, select=spec)
    randomise(dense, seed=5)
    missing, unexpected = pruned.load_state_dict(dense.state_dict(), strict=False)
    learned = any(methods()[term.name].learned for term in parse(spec).terms)
    assert not unexpected and bool(missing) == learned and all(name.startswith("plan.selectors.") for name in missing)


@all_pairs
def test_half_precision_runs(key, spec):
    model = tiny(key, select=spec)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = model(moving(2, model))
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("spec", ["sta:keep=0.4", "random:keep=0.5@2", "uniform:T0.5@0-S0.5@2", "merge:r=3"])
def test_compiles_on_a_grid_that_was_not_declared(spec):
    """The plan for a new grid is made while the graph is: counts are taken as they are."""
    model = tiny(select=spec)
    clip = moving(1, frames=32, size=(32, 40))
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        assert torch.equal(compiled(clip), model(clip))
