"""EVAD against the tensors of its published implementation: tokens kept, pyramid, people, actions, losses, frames.

Cases are found by name in the folder TUBELET_PARITY; without it, in the small set that comes with the repository.
"""

import json
import os

import pytest
import torch
from safetensors.torch import load_file

from tests.parity.cases import parity_cases
from tubelet.checkpoints.evad import LAYOUT
from tubelet.data.keyframe import flipped_boxes, prepared, resized_boxes, resized_size
from tubelet.data.sampling import around
from tubelet.detection import kept_proposals, scaled_boxes
from tubelet.models.boxes import extended
from tubelet.models.context import ContextDecoder
from tubelet.models.evad import EVAD, Predictions, restored_places
from tubelet.models.roi import levels_of, roi_align
from tubelet.selection.core import Grid
from tubelet.selection.registry import build_plan
from tubelet.training.detection import DetectionLoss, Target, Weights, match

CLOSE = {"rtol": 0, "atol": 1e-4}
PIXELS = {"rtol": 0, "atol": 1e-2}


def of(pattern, large=False):
    """One test a case; `large` ones are not in the small set that comes with the repository."""
    if large and not os.environ.get("TUBELET_PARITY"):
        reason = f"{pattern}: a case has 2 MB or more; set TUBELET_PARITY to the folder that holds them"
        return pytest.mark.parametrize("case", [pytest.param(None, marks=pytest.mark.skip(reason), id="none")])
    return pytest.mark.parametrize("case", parity_cases("evad", pattern), ids=lambda path: path.stem)


def read(case):
    return json.loads(case.read_text()), load_file(case.with_suffix(".safetensors"))


def spec_of(hyper):
    steps = [f"keep={float(rate)}@{layer}" for layer, rate in enumerate(hyper["keep_rates"]) if rate != 1]
    return f"keyframe:{'-'.join(steps)},weight={hyper['enhanced_weight']}" if steps else "none"


def detector(hyper, tensors, restoration="exact"):
    """The detector of a case, with its selection and as many of its parts as the case has weights for."""
    side = hyper["pretrain_img_size"] // hyper["patch_size"]
    model = EVAD(
        frames=hyper["num_frames"],
        size=tensors["input.clip0"].shape[2:],
        num_classes=hyper["num_classes"],
        dim=hyper["embed_dim"],
        depth=hyper["depth"],
        heads=hyper["num_heads"],
        mlp_ratio=hyper["mlp_ratio"],
        patch_size=hyper["patch_size"],
        tubelet_size=hyper["tubelet_size"],
        positions="learned" if hyper["learnable_pos_embed"] else "sinusoid",
        position_grid=(hyper["num_frames"] // hyper["tubelet_size"], side, side),
        layer_scale=hyper["layer_scale_init"] or None,
        eps=hyper["layernorm_eps"],
        taps=tuple(hyper["fpn_indices"]),
        width=hyper["head_dim"],
        proposals=hyper["num_proposals"],
        proposal_heads=hyper["num_loc_heads"],
        attention_heads=hyper["head_attn_heads"],
        hidden=hyper["head_ffn_dim"],
        dynamic=hyper["dynamic_dim"],
        decoder_dim=hyper["decoder_dim"],
        decoder_depth=hyper["decoder_depth"],
        decoder_heads=hyper["decoder_heads"],
        action_dim=hyper["action_fc_dim"],
        roi_extension=tuple(hyper["roi_extension"]),
        restoration=restoration,
        resize_when="count",
    )
    model.set_plan(build_plan(spec_of(hyper), model.host()))
    return model


def load(model, tensors, parts=""):
    """Put the reference's parameters in, by the key map of checkpoints; every one of them, and all of those parts."""
    weights = LAYOUT.rename({name[6:]: t for name, t in tensors.items() if name.startswith("param.")})
    assert not weights.unknown and not weights.twice
    state = {name: pieces[0].tensor for name, pieces in weights.pieces.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and not [name for name in missing if name.startswith(parts)]
    return model.eval()


def clips_of(tensors):
    names = sorted((name for name in tensors if name.startswith("input.clip")), key=lambda name: int(name[10:]))
    return [tensors[name] for name in names]


@of("evad_backbone_*.json")
def test_backbone(case):
    about, tensors = read(case)
    hyper = about["hyper"]
    model = load(detector(hyper, tensors), tensors, ("backbone.", "pyramid."))
    clip, sizes = model.padded(clips_of(tensors))
    assert sizes.tolist() == about["image_sizes"]
    grid = model.grid_of(*clip.shape[2:])
    assert list(grid) == about["token_grid"]
    schedule = model.plan.schedule(grid)
    assert [*schedule.entering[1:], schedule.leaving.tokens] == about["tokens_after_each_layer"]

    record = []
    with torch.no_grad():
        tokens, maps = model.forward_features(clip, record)
        out = model.backbone.fc_norm(tokens.x)
        levels = model.pyramid(maps)
    key, first = grid.per_frame, grid.t // 2 * grid.per_frame
    assert len(record) == sum(rate != 1 for rate in hyper["keep_rates"])
    for step in record:
        position = step.position[:, key:]
        others = torch.where(position < first, position, position - key)  # counted without the key slab
        assert torch.equal(others, tensors[f"kept.layer{step.block}"])
        scores = step.scores
        slab = slice(0, key) if step is not record[0] else slice(first, first + key)
        scores = torch.cat([scores[:, : slab.start], scores[:, slab.stop :]], dim=1)
        torch.testing.assert_close(scores, tensors[f"importance.layer{step.block}"], rtol=1e-4, atol=1e-7)
    if record:
        dropped = torch.ones(len(clip), grid.tokens, dtype=torch.bool).scatter(1, record[-1].position, False)
        dropped = torch.cat([dropped[:, :first], dropped[:, first + key :]], dim=1)
        assert torch.equal(dropped, tensors["output.dropped_mask"])
    else:  # there the reference moves the key slab to the front
        out = torch.cat([out[:, first : first + key], out[:, :first], out[:, first + key :]], dim=1)
    torch.testing.assert_close(out, tensors["output.tokens"], **CLOSE)
    for i, level in enumerate(levels):
        torch.testing.assert_close(level, tensors[f"output.fpn.p{i + 2}"], **CLOSE)


@pytest.mark.parametrize("restoration", ["published", "exact"])
@of("evad_detector_*.json", large=True)
def test_detector(case, restoration):
    about, tensors = read(case)
    model = load(detector(about["hyper"], tensors, restoration), tensors)
    prefix = {"published": "output.official.", "exact": "output.position_exact."}[restoration]
    expected = {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}
    clips = clips_of(tensors)
    with torch.no_grad():
        found = model(clips)
        tokens, _ = model.forward_features(model.padded(clips)[0])
        places = restored_places(tokens, restoration)
        codes = model.positions_for(model.context.pos_embed, tokens.source)
        full = model.context.full_map(model.context.embed(model.backbone.fc_norm(tokens.x)), places, codes)
    channels_first = full.transpose(1, 2).unflatten(2, tuple(tokens.source))
    torch.testing.assert_close(channels_first, expected["map_for_roi"], **CLOSE)
    torch.testing.assert_close(found.person_logits[-1], expected["raw.person_logits"], **CLOSE)
    torch.testing.assert_close(found.action_logits[-1], expected["raw.action_logits"], **CLOSE)
    around = extended(found.boxes[-1], found.sizes, model.roi_extension)
    torch.testing.assert_close(around, expected["action_boxes"], **PIXELS)

    originals = [(meta["ori_height"], meta["ori_width"]) for meta in about["metas"]]
    boxes = scaled_boxes(found, originals)
    torch.testing.assert_close(found.person_scores, expected["person.scores"], **CLOSE)
    torch.testing.assert_close(boxes, expected["person.boxes_original_pixels"], **PIXELS)
    kept = kept_proposals(found.person_scores, about["hyper"]["person_threshold"], all_if_none=True)
    assert int(kept.sum()) == about["selected"]
    rows, metadata = [], []
    for number, (mask, (height, width)) in enumerate(zip(kept, originals, strict=True)):
        shares = boxes[number][mask] / torch.tensor([width, height, width, height])
        rows.append(torch.cat([torch.full((len(shares), 1), float(number)), shares], dim=1))
        metadata += about["metas"][number]["metadata"] * len(shares)
    torch.testing.assert_close(torch.cat(rows), expected["boxes_normalised_with_batch_index"], **CLOSE)
    torch.testing.assert_close(found.action_scores[kept], expected["action_scores"], **CLOSE)
    assert metadata == expected["metadata"].tolist()


@of("evad_decoder_*.json")
def test_decoder(case):
    about, tensors = read(case)
    hyper = about["hyper"]
    decoder = ContextDecoder(
        backbone_dim=8,
        dim=hyper["decoder_dim"],
        depth=hyper["decoder_depth"],
        heads=hyper["decoder_heads"],
        mlp_ratio=hyper["mlp_ratio"],
        eps=hyper["layernorm_eps"],
        hidden=hyper["action_fc_dim"],
        num_classes=hyper["num_classes"],
        position_grid=Grid(1, 1, 1),
    ).eval()
    named = {f"det_head.decoder.{name[6:]}": t for name, t in tensors.items() if name.startswith("param.")}
    weights = LAYOUT.rename(named)
    assert not weights.unknown
    state = {name.removeprefix("context."): pieces[0].tensor for name, pieces in weights.pieces.items()}
    missing, unexpected = decoder.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) == {"embed.weight", "mask_token"}
    with torch.no_grad():
        logits, sequences = decoder.refine(tensors["input.tokens"], tensors["input.actors"])
    kept = tensors["input.tokens"].shape[1]
    for i in range(hyper["decoder_depth"]):
        torch.testing.assert_close(logits[i], tensors[f"output.layer{i}.action_logits"], **CLOSE)
        torch.testing.assert_close(sequences[i], tensors[f"output.layer{i}.sequence"], **CLOSE)
        torch.testing.assert_close(sequences[i][:, kept:], tensors[f"output.layer{i}.refined_actors"], **CLOSE)


@of("evad_roi_pool*.json")
def test_roi_pool(case):
    about, tensors = read(case)
    names = sorted((name for name in tensors if name.startswith("input.p")), key=lambda name: int(name[7:]))
    maps = [tensors[name].permute(0, 2, 3, 1) for name in names]
    boxes = torch.stack([tensors[f"input.boxes.{image}"] for image in range(len(maps[0]))])
    level = levels_of(boxes, len(maps))
    assert torch.equal(level.flatten(), tensors["output.levels"])
    shape = {"resolution": about["resolution"], "samples": about["sampling_ratio"]}
    pooled = roi_align(maps, boxes, about["strides"], level, **shape)
    single = roi_align([maps[about["strides"].index(16)]], boxes, (16,), **shape)
    for ours, theirs in ((pooled, "output.pooled"), (single, "output.single_level_stride16")):
        ours = ours.flatten(0, 1).transpose(1, 2).unflatten(2, (about["resolution"],) * 2)
        torch.testing.assert_close(ours, tensors[theirs], **CLOSE)


@of("evad_losses_*.json")
def test_losses(case):
    about, tensors = read(case)
    given = about["weights"]
    weights = Weights(given["class"], given["l1"], given["giou"], given["action"], given["no_object"])

    def inputs(kind, count):
        return [tensors[f"input.{kind}.{i}"].requires_grad_() for i in range(count)]

    persons, boxes = (inputs(kind, about["num_loc_heads"]) for kind in ("person_logits", "boxes"))
    actions = inputs("action_logits", about["num_decoder_layers"])
    sizes = tensors["input.image_whwh"][:, :2].flip(1)  # height, width
    assert sizes.tolist() == about["image_sizes"]
    found = Predictions(torch.stack(persons), torch.stack(boxes), torch.stack(actions), sizes)
    images = range(about["batch"])
    targets = [Target(tensors[f"target.boxes.{i}"], tensors[f"target.actions.{i}"]) for i in images]
    assert [len(target.boxes) for target in targets] == about["targets_per_image"]

    for i, one in enumerate(match(found, targets, weights)[-1]):
        assert torch.equal(one.found, tensors[f"match.pred.{i}"])
        assert torch.equal(one.target, tensors[f"match.target.{i}"])
    loss, terms = DetectionLoss(weights)(found, targets)
    assert {f"loss_{name}": float(term) for name, term in terms.items()} == pytest.approx(
        about["losses_unweighted"], abs=1e-4
    )
    assert float(loss.detach()) == pytest.approx(about["total"], abs=1e-4)
    loss.backward()
    for kind, given in (("person_logits", persons), ("boxes", boxes), ("action_logits", actions)):
        for i, one in enumerate(given):
            torch.testing.assert_close(one.grad, tensors[f"grad.{kind}.{i}"], **CLOSE)


@of("evad_preprocess_*.json")
def test_preprocessing(case):
    about, tensors = read(case)
    frames = tensors["input.frames"].flip(-1)  # BGR -> RGB
    if about["flip"]:
        frames = frames.flip(2)
    height, width = frames.shape[1:3]
    size = resized_size(height, width, about["min_size"], about["max_size"])
    assert list(size) == about["out_size"]
    clip = prepared(frames, about["min_size"], about["mean"], about["std"], longest=about["max_size"])
    grey = 1 / 255 / min(about["std"])
    torch.testing.assert_close(clip, tensors["output.clip"], rtol=0, atol=grey * (1 + 1e-5))
    boxes = tensors["input.boxes_unit"] * torch.tensor([width, height, width, height])
    boxes = resized_boxes(boxes, height, width, about["min_size"], about["max_size"], published=True)
    if about["flip"]:
        boxes = flipped_boxes(boxes, size[1], published=True)
    torch.testing.assert_close(boxes, tensors["output.boxes_pixels"], **PIXELS)
    for sampled in about["clip_sampling"]:
        frames, rate = len(sampled["indices"]), sampled["rate"]
        assert 2 * sampled["half_len"] == frames * rate
        assert around(sampled["num_frames"], sampled["center"], frames, rate) == sampled["indices"]
