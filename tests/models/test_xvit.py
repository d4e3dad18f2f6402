"""X-ViT: mixing and selection against dense attention with masks told slowly, and what must not mix."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.selectors import SoftFrames, SoftRegion
from tests.tiny import moving, randomise, tiny
from tubelet.errors import SelectionError, TubeletError
from tubelet.models.layers import sinusoid_table
from tubelet.models.registry import create_model, trace
from tubelet.selection.core import Ask, Grid, Layout, Selection
from tubelet.selection.plan import Placed, Plan, Selector

DIM, HEADS, DEPTH = 24, 3, 3
WIDTH = DIM // HEADS
GRID = Grid(6, 2, 3)


class Given(Selector):
    """Keeps the tokens it is told, in the order it is told."""

    name = "given"

    def __init__(self, index, layout):
        super().__init__()
        self.index, self.layout = index, layout

    def leaves(self, layout, start):
        return self.layout

    def forward(self, tokens, left):
        return Selection(self.index, left)


def small(**arguments):
    sizes = {"dim": DIM, "depth": DEPTH, "heads": HEADS, "patch_size": 4, "frames": GRID.t, "num_classes": 5}
    return create_model("xvit_base", **{**sizes, "size": (GRID.h * 4, GRID.w * 4), **arguments})


def told_slowly(model, x, frames, places):
    """Block by block on whole pictures, with masks: attention of frame t to each place, head by head.

    x (T, 1 + places of a picture, C) of one clip and the frames kept; `frames` their numbers in the clip; `places` what
    each of them has kept. Returns x, and the attention that each place of each frame received in the last block.
    """
    count = len(frames)

    def neighbour(t, step):
        """The frame that is `step` from t among those kept, or None."""
        if not 0 <= t + step < count:
            return None
        near, segment = frames[t + step], model.segment_length or 10**6
        if frames[t] // segment != near // segment or (model.frame_shift == "true" and near != frames[t] + step):
            return None
        return t + step

    for block in model.blocks:
        attn = block.attn
        q, k, v = attn.qkv(block.norm1(x)).view(*x.shape[:2], 3, HEADS, WIDTH).unbind(2)
        out = torch.zeros_like(q)
        received, looks = torch.zeros(x.shape[:2]), torch.zeros(x.shape[:2])
        for t in range(count):
            for h in range(HEADS):
                inside = range(h * WIDTH, (h + 1) * WIDTH)
                part = DIM // attn.groups
                source = [1 if c % part < attn.width else -1 if c % part < 2 * attn.width else 0 for c in inside]
                key, value = torch.zeros(x.shape[1], WIDTH), torch.zeros(x.shape[1], WIDTH)
                held = {0}  # places that any frame this head reads still has; its class token always
                for c, step in enumerate(source):
                    if (other := neighbour(t, step)) is not None:
                        there = [0, *(1 + p for p in places[other])]
                        key[there, c], value[there, c] = k[other, there, h, c], v[other, there, h, c]
                        held.update(there)
                if len(set(source)) > 1:  # it joins frames at the same place: those that its own frame has kept
                    held &= {0, *(1 + p for p in places[t])}
                elif neighbour(t, source[0]) is None:
                    continue  # zeros alone
                held = sorted(held)
                weights = (q[t, :, h] @ key[held].T / WIDTH**0.5).softmax(-1)
                out[t, :, h] = weights @ value[held]
                for step in set(source):
                    if (other := neighbour(t, step)) is not None:
                        share = source.count(step) / WIDTH
                        there = {0, *(1 + p for p in places[other])}
                        for number, place in enumerate(held):
                            if place in there:
                                received[other, place] += share * weights[0, number]
                                looks[other, place] += share
        x = x + attn.proj(out.flatten(2))
        x = x + block.mlp(block.norm2(x))
    return x, received / looks


@st.composite
def kept(draw, batch=2):
    """For each clip the frames kept and, of each of them, the places in the order they are held."""
    frames = draw(st.integers(1, GRID.t))
    each = draw(st.integers(1, GRID.per_frame))
    clips = []
    for _ in range(batch):
        chosen = sorted(draw(st.permutations(range(GRID.t)))[:frames])
        clips.append((chosen, [draw(st.permutations(range(GRID.per_frame)))[:each] for _ in chosen]))
    return clips


arguments = st.fixed_dictionaries(
    {
        "mixing": st.sampled_from(["over_heads", "over_heads", "per_head", "none"]),
        "mixing_div": st.sampled_from([2, 3, 4, 5, 6, 8]),  # 3 and 6: whole heads, or one head of both
        "segment_length": st.sampled_from([None, 1, 2, 4]),
        "frame_shift": st.sampled_from(["kept", "true"]),
        "mixing_layers": st.sampled_from([None, (0, 2)]),
    }
)


@given(kept(), arguments, st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_pruned_is_dense_with_masks(clips, arguments, seed):
    model = small(**arguments)
    randomise(model, seed)
    clip = torch.randn(2, 3, GRID.t, GRID.h * 4, GRID.w * 4, generator=torch.Generator().manual_seed(seed))
    count, each = len(clips[0][0]), len(clips[0][1][0])
    box = Grid(count, GRID.h, GRID.w)
    layout = Layout.dense(box) if each == GRID.per_frame else Layout(count * each, segments=count)
    whole = [[f * GRID.per_frame + p for f in frames for p in range(GRID.per_frame)] for frames, _ in clips]
    tokens = [[t * GRID.per_frame + p for t, row in enumerate(places) for p in row] for _, places in clips]
    steps = [Given(torch.tensor(whole), Layout.dense(box)), Given(torch.tensor(tokens), layout)]
    if layout.grid:  # a dense box is in the order of its places
        steps, clips = steps[:1], [(frames, [sorted(row) for row in places]) for frames, places in clips]
    model.set_plan(Plan([Placed(0, step) for step in steps], model.host()))
    with torch.no_grad():
        left = model.forward_features(clip)
        features = model.frame_features(left)
        dense = model.embed(clip).frames
        signals = _last_signals(model, clip)
        for b, (frames, places) in enumerate(clips):
            x, received = told_slowly(model, dense[b, frames], frames, places)
            torch.testing.assert_close(features[b], model.norm(x[:, 0]), rtol=0, atol=1e-5)
            rows = torch.stack([x[t, [1 + p for p in row]] for t, row in enumerate(places)])
            torch.testing.assert_close(left.frames[b, :, 1:], rows, rtol=0, atol=1e-5)
            expected = torch.cat([received[t, [1 + p for p in row]] for t, row in enumerate(places)])
            if not expected.isnan().any():  # a head looks at every frame
                torch.testing.assert_close(signals.attention[b], expected, rtol=0, atol=1e-5)


def _last_signals(model, clip):
    """What the last block tells when asked."""
    tokens = model.embed(clip)
    schedule = model.plan.schedule(tokens.source)
    tokens = schedule.apply("before", 0, tokens)
    for block in model.blocks[:-1]:
        tokens = block(tokens, model.frames_of(tokens))
    return model.blocks[-1](tokens, model.frames_of(tokens), Ask(keys=True, attention=True)).signals


def test_attention_is_credited_to_the_frame_it_came_from():
    """Two frames, a head for each source: what frame 0 looks at in its offset head lies in frame 1."""
    model = small(frames=2, mixing_div=3, depth=1)
    randomise(model, 3)
    clip = torch.randn(1, 3, 2, 8, 12)
    with torch.no_grad():
        tokens = model.embed(clip)
        block = model.blocks[0]
        x = block.norm1(tokens.frames)[0]  # (2, 1 + n, C)
        q, k, _ = block.attn.qkv(x).view(2, -1, 3, HEADS, WIDTH).unbind(2)

        def looked(query, keys, head):
            return (q[query, 0, head] @ k[keys, :, head].T / WIDTH**0.5).softmax(-1)[1:]

        # Head 0 reads the next frame, head 1 the one before, head 2 its own. The ends have nothing beyond them.
        first = (looked(0, 0, 2) + looked(1, 0, 1)) / 2
        second = (looked(1, 1, 2) + looked(0, 1, 0)) / 2
        told = block(tokens, model.frames_of(tokens), Ask(keys=True, attention=True)).signals
    torch.testing.assert_close(told.attention[0], torch.cat([first, second]))
    torch.testing.assert_close(told.keys[0], k[:, 1:].mean(2).flatten(0, 1))  # its own, not what it reads


@pytest.mark.parametrize("key", ["xvit", "xvit_joining"])
def test_clips_do_not_mix(key):
    """Whatever the batch and the segment length have in common (the released code exchanges between clips there)."""
    for frames, segment in ((4, 8), (8, 8), (6, 4)):
        model = tiny(key, frames=frames, segment_length=segment)
        clips = moving(2, model)
        with torch.no_grad():
            before, features = model(clips), model.frame_features(model.forward_features(clips))
            clips[1] += torch.randn(clips.shape[1:])
            after = model(clips)
        assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])
        assert features.shape == (2, frames, 48)


@pytest.mark.parametrize("key", ["xvit", "xvit_joining"])
@pytest.mark.parametrize("select", ["none", "uniform:T6@2", "attention:S3@1", "random:r=4@0,groups=8"])
def test_segments_do_not_mix(key, select):
    model = tiny(key, segment_length=3, select=select)
    clip = moving(1, model)
    changed = clip.clone()
    changed[:, :, 3] += 1  # the first frame of the second segment

    def by_frame(clip):
        record = []
        with torch.no_grad():
            features = model.frame_features(model.forward_features(clip, record))[0]
        kept = record[-1].position[0].view(len(features), -1)[:, 0] // 16 if record else torch.arange(8)
        return dict(zip(kept.tolist(), features, strict=True))

    before, after = by_frame(clip), by_frame(changed)
    assert before.keys() == after.keys()
    for frame in before:
        assert torch.equal(before[frame], after[frame]) == (frame // 3 != 1), frame


def test_mixing_reaches_one_frame_a_block():
    model = tiny("xvit", depth=2)
    clip = moving(1, model)
    changed = clip.clone()
    changed[:, :, 4] += 1
    with torch.no_grad():
        same = [
            torch.equal(a, b)
            for a, b in zip(*(model.frame_features(model.forward_features(c))[0] for c in (clip, changed)), strict=True)
        ]
    assert same == [True, True, False, False, False, False, False, True]


def test_mixing_everything_that_is_kept_is_dense():
    """A step that keeps every token, each frame in another order: the scatter changes nothing."""
    model = tiny("xvit_joining", segment_length=3)
    clip = moving(2, model)
    with torch.no_grad():
        dense = model(clip)
        order = torch.stack([torch.randperm(16) + 16 * t for _ in range(2) for t in range(8)]).view(2, -1)
        model.set_plan(Plan([Placed(0, Given(order, Layout(128, segments=8)))], model.host()))
        torch.testing.assert_close(model(clip), dense, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pool", ["temporal", "average"])
def test_frames_go_with_their_class_token_and_time(pool):
    """Without mixing a frame is an image: a clip of the frames kept, with their times, gives the same answer."""
    model = tiny("xvit", mixing="none", pool=pool, select="uniform:T4@2")
    clip = moving(2, model)
    chosen = [1, 3, 5, 7]
    short = tiny("xvit", mixing="none", pool=pool, frames=4)
    short.load_state_dict({**model.state_dict(), "temp_embed": model.temp_embed[:, chosen]})
    with torch.no_grad():
        torch.testing.assert_close(model(clip), short(clip[:, :, chosen]), rtol=0, atol=1e-5)
    (step,) = trace(model, clip)
    assert step.mask[0].flatten(1).all(1).nonzero()[:, 0].tolist() == chosen


@pytest.mark.parametrize("key", ["xvit", "xvit_joining"])
def test_soft_frames_and_regions(key):
    """Sharp weights are the hard choice; a soft frame is a mean of frames, its class token too."""
    model = tiny(key)
    clip = moving(2, model)
    frames = SoftFrames(48, 5)
    region = SoftRegion(48, 2)
    randomise(frames, 1)
    with torch.no_grad():
        tokens = model.embed(clip)
        selection = frames(tokens, frames.leaves(tokens.layout, tokens.layout))
        soft = selection.apply(tokens)
        expected = torch.einsum("bua,banc->bunc", selection.weights, tokens.frames)
        torch.testing.assert_close(soft.frames, expected)
        assert soft.prefix == 5 and soft.patches.shape == (2, 5 * 16, 48)
        left = region.leaves(soft.layout, soft.layout)
        boxes = region(soft, left).apply(soft)
        assert torch.equal(boxes.frames[:, :, 0], soft.frames[:, :, 0]) and boxes.frames.shape == (2, 5, 5, 48)
        sharp = Selection.apply(Selection(selection.index, selection.layout), tokens)
        weights = torch.nn.functional.one_hot(selection.weights.argmax(-1), 8).float()
        hard = type(selection).of(selection.candidates, weights, selection.layout).apply(tokens)
        torch.testing.assert_close(hard.x, sharp.x)
    model.set_plan(Plan([Placed(1, frames), Placed(3, region)], model.host()))
    model.train()
    model(clip).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert frames.score.weight.grad.abs().sum() > 0 and region.score.weight.grad.abs().sum() > 0


def test_times_of_other_lengths():
    model = tiny("xvit", frames=4)
    with torch.no_grad():
        model.temp_embed.copy_(torch.arange(4.0).view(1, 4, 1, 1).expand(-1, -1, -1, 48))
    assert torch.equal(model.times(4)[:, 0, 0], torch.arange(4.0))
    assert model.times(7)[:, 0, 0].diff().min() >= 0 and model.times(7)[-1, 0, 0] == 3  # resized: in order
    model.temporal_rule = "modulo"
    assert model.times(7)[:, 0, 0].tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert model.times(2)[:, 0, 0].tolist() == [0, 1]


def test_deep_models_mix_in_every_block():
    deep = small(depth=24)
    assert all(block.attn.width == 3 for block in deep.blocks)
    half = small(depth=24, mixing_layers=range(12))
    assert [block.attn.width for block in half.blocks] == [3] * 12 + [0] * 12


def test_heads_that_join_frames():
    def joining(**arguments):
        with torch.device("meta"):
            return create_model("xvit_base", depth=1, **arguments).blocks[0].attn.joining

    assert joining(mixing_div=4) == [] and joining(mixing_div=12) == [] and joining(mixing_div=2) == []
    assert joining(mixing_div=8) == [1]  # 32 channels of the next frame and 32 of the one before
    assert joining(mixing_div=3) == [] and joining(mixing_div=5) == [2, 4]
    assert joining(mixing_div=8, mixing="per_head") == list(range(12))


def test_any_number_of_frames_and_any_size():
    model = tiny("xvit")
    for frames, size in ((1, (32, 32)), (2, (16, 40)), (11, (40, 32))):
        with torch.no_grad():
            logits = model(moving(2, frames=frames, size=size))
        assert logits.shape == (2, 7) and logits.isfinite().all()
    assert tiny("xvit", num_classes=0, head_dim=20)(moving(1, frames=3)).shape == (1, 20)
    assert model(torch.zeros(0, 3, 8, 32, 32)).shape == (0, 7)


def test_tokens_entering_count_the_class_tokens_of_the_frames_left():
    model = tiny("xvit", select="uniform:T4@1-S2@2+sta:r=1@4,groups=4")
    assert model.tokens_entering() == [8 * 17, 4 * 17, 4 * 5, 4 * 5, 4 * 5, 4 * 4]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: small(mixing="heads"), "mixing='heads': 'over_heads' or 'per_head' or 'none'"),
        (lambda: small(mixing_div=1), "mixing_div=1: at least 2"),
        (lambda: small(segment_length=0), "segment_length=0: at least 1 frame"),
        (lambda: small(segment_length=-2), "segment_length=-2: at least 1 frame"),
        (lambda: small(mixing_div=25), "mixing_div=25 leaves none of the 24 channels to mix"),
        (lambda: small(mixing="per_head", mixing_div=9), "leaves none of the 8 channels of a head to mix"),
        (lambda: small(mixing_layers=(0, 3)), "mixing_layers has 3: there are blocks 0 to 2"),
        (lambda: small(temporal_rule="cut"), "'resize' or 'modulo'"),
        (lambda: small(frame_shift="near"), "'kept' or 'true'"),
        (lambda: small(pool="mean"), "'temporal' or 'average'"),
        (lambda: small(heads=5), "dim=24 is not a multiple of heads=5"),
        (lambda: small(temporal_heads=7), "dim=24 is not a multiple of temporal_heads=7"),
        (lambda: small(size=(8, 10)), "height and width in multiples of 4"),
        (lambda: small()(torch.zeros(3, 6, 8, 12)), r"\(B, 3, T, H, W\)"),
        (lambda: tiny("xvit", select="sta:r=3"), "of 8 frames block 2 would leave 92 tokens in 4 equal parts"),
        (lambda: tiny("xvit", select="random:keep=0.5@1"), "without an order in time; .* groups=8/8/8"),
        (lambda: tiny("xvit", select="merge:r=4"), "needs equally many tokens in each"),
    ],
)
def test_refusals(make, says):
    with pytest.raises((TubeletError, SelectionError), match=says):
        make()


def test_positions_of_a_model_from_nothing_begin_as_sinusoids():
    arguments = {"frames": 4, "size": 32, "patch_size": 8, "dim": 16, "depth": 1, "heads": 2}
    image, scratch = (create_model("xvit_base", position_init=name, **arguments) for name in ("image", "sinusoid"))
    assert not image.temp_embed.any() and 0 < image.pos_embed.std() < 0.1
    assert torch.equal(scratch.temp_embed[:, :, 0], sinusoid_table(4, 16))
    assert torch.equal(scratch.pos_embed, sinusoid_table(17, 16))
    with pytest.raises(TubeletError, match="position_init='zeros': 'image' or 'sinusoid'"):
        create_model("xvit_base", position_init="zeros", **arguments)
