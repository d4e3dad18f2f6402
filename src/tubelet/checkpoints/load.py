"""load_model: from whatever people have to a model that answers, with every key accounted for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tubelet.checkpoints import evad, huggingface, mvit, own, scorers, video_swin, videomae, xvit
from tubelet.checkpoints.files import Contents
from tubelet.checkpoints.fit import fit
from tubelet.checkpoints.labels import Labels, check_count, in_order, numbered, read_labels
from tubelet.checkpoints.layout import Description, Layout, Weights
from tubelet.checkpoints.report import Report, name_some
from tubelet.checkpoints.source import Source, find, read
from tubelet.checkpoints.vit import CLASSIFIERS, stored_classes
from tubelet.errors import CheckpointError, TubeletError
from tubelet.models.base import VideoModel
from tubelet.models.config import ARGUMENTS, ModelConfig
from tubelet.models.fields import check
from tubelet.models.registry import build_model

SELECTORS = "plan.selectors."  # where every model of the project has the weights of its learned selectors


# Where a file fits several as well, the first is taken.
LAYOUTS = {
    layout.name: layout
    for layout in (
        own.LAYOUT, videomae.LAYOUT, huggingface.LAYOUT, xvit.IMAGE_VIT, *mvit.LAYOUTS, *video_swin.LAYOUTS,
        evad.LAYOUT, xvit.AVERAGE, xvit.LAYOUT,
    )
}  # fmt: skip


def list_layouts() -> list[str]:
    """Names for `layout`, beside "auto"."""
    return list(LAYOUTS)


def load_model(
    source: str | Path,
    *,
    select: str | None = None,
    labels: Labels | None = None,
    layout: str = "auto",
    head: str = "stored",
    **arguments: Any,
) -> VideoModel:
    """A model with weights, in evaluation mode. `model.config` is complete, `model.report` says what was done.

    Args:
        source: a folder saved by tubelet or by Hugging Face, a file of weights (.safetensors, .pth, ...), a hub id such
            as "MCG-NJU/videomae-base-finetuned-kinetics", or a name of packaged_models().
        select: a selection spec instead of the saved one; "none" is the dense model.
        labels: names of the classes instead of the saved ones: a file (one a line, JSON, CSV), a list or a dictionary.
        layout: a name of list_layouts(), where it should not be recognised by the keys.
        head: "stored", or "new" to begin a random classifier of `num_classes`, to be trained.
        arguments: of the model, instead of those saved: `frames` and `size` (positions are then resized to them),
            `num_classes=0` for features, `drop_path`, ... A bare file of weights says nothing of heads, frames and
            size: there they describe the model as it was trained, unless `position_grid` (t, h, w) does.

    Raises CheckpointError if nothing is there, or any key is absent, unknown or of a wrong shape; SpecError and
    SelectionError on a selection that cannot be right. Warns if anything is random or guessed, or a config.json is
    not used.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise CheckpointError(f"no layout {layout!r}; there are auto, {', '.join(LAYOUTS)}")
    if head not in ("stored", "new"):
        raise CheckpointError(f"head={head!r}: 'stored' or 'new'")
    check(arguments, ARGUMENTS, "load_model was given arguments that cannot be")
    found = find(source)
    contents = read(found)
    chosen = _choose(layout, found, contents)
    weights = chosen.rename(contents.tensors)
    weights.unused.update(contents.unused)
    config_file, unread = _config_for(chosen, found)
    try:
        description = chosen.describe(weights, config_file, arguments)
        config = description.config
        if chosen.model_types and found.processor is not None:
            description.notes += huggingface.read_processor(found.processor, config.preprocessing)
        fresh = _decide_head(weights, description, head, arguments.get("num_classes"), found.name)
        stored_window = config.arguments.get("window", "released")
        if (window := arguments.get("window", stored_window)) != stored_window:
            description.warnings.append(
                f"window={window!r} is another computation than the one the weights were trained with: fine-tune them"
            )
        _override(config, arguments, select)
        _name_classes(config, labels, fresh, found.name)
        model = build_model(config)
    except TubeletError:
        raise
    except (TypeError, ValueError, ZeroDivisionError, RuntimeError, KeyError, IndexError, AttributeError) as error:
        raise CheckpointError(f"{found.name}: no model can be built from its configuration: {error}") from error
    scorers.place(weights, model, select, found.name)
    if select is not None:  # a learned selector may be new to the weights, and theirs may not be wanted
        reason = f"of the saved selection; select={select!r} was asked for"
        weights.drop(SELECTORS + "{any}", reason, keep=model.state_dict())
        for key in model.plan.learned:
            if not weights.any(of_it := f"{SELECTORS}{key}.{{any}}"):
                description.begin[of_it] = "random: a learned selector, to be trained"
    model.config.trained_selectors = [key for key in model.config.trained_selectors if key in model.plan.selectors]
    doubts = unread + description.warnings
    report = Report(found.name, chosen.name, notes=description.notes + doubts)
    fit(model, weights, description, report)
    model.report = report
    if random := [name for name, how in report.new.items() if how.startswith("random")]:
        doubts.append(f"the file holds nothing for {name_some(random)}: random until trained")
    for text in doubts:
        warnings.warn(f"{found.name}: {text}", stacklevel=2)
    return model


def _choose(layout: str, source: Source, contents: Contents) -> Layout:
    if layout != "auto":
        return LAYOUTS[layout]
    config = source.config or {}
    if own.LAYOUT.described_by(config) and not huggingface.LAYOUT.described_by(config):
        return own.LAYOUT
    if "model_type" in config:
        known = [made for made in LAYOUTS.values() if config["model_type"] in made.model_types]
        if not known:
            types = ", ".join(name for made in LAYOUTS.values() for name in made.model_types)
            raise CheckpointError(
                f"{source.name} is a model of type {config['model_type']!r}; of Hugging Face's, {types} can be read"
            )
        return known[0]
    share = {made: len(contents.tensors) - len(made.rename(contents.tensors).unknown) for made in LAYOUTS.values()}
    share.pop(own.LAYOUT)
    best = max(share, key=lambda made: share[made])
    if 2 * share[best] < len(contents.tensors):
        raise CheckpointError(
            f"{source.name} is of no known layout ({', '.join(LAYOUTS)}); its keys are {name_some(contents.tensors)}"
        )
    return best


def _config_for(layout: Layout, source: Source) -> tuple[dict[str, Any] | None, list[str]]:
    """config.json, if it is one that this layout can read; and what to say if it is not."""
    config = source.config
    if config is None or layout is own.LAYOUT or layout.described_by(config):
        return config, []
    return None, [f"the config.json beside the weights is not used: it is none of layout {layout.name}"]


def _decide_head(weights: Weights, description: Description, head: str, wanted: int | None, name: str) -> bool:
    """Set num_classes, and say what to do with the stored classifier. Returns whether the classifier will be random."""
    arguments = description.config.arguments
    stored = stored_classes(weights)
    if wanted is None:
        wanted = arguments.get("num_classes") if stored is None else stored
    if wanted is None:
        raise CheckpointError(
            f"{name} has no classifier: give num_classes=0 for features, or num_classes=N for a new classifier to train"
        )
    if wanted == 0 and head == "new":
        raise CheckpointError("head='new' with num_classes=0: there would be no classifier")
    if stored is not None and wanted not in (0, stored) and head == "stored":
        raise CheckpointError(
            f"the classifier of {name} has {stored} classes, num_classes={wanted} was given: leave it out to use the "
            f"{stored}, or give head='new' for a new classifier to train, or num_classes=0 for features"
        )
    arguments["num_classes"] = wanted
    fresh = wanted != 0 and (stored is None or head == "new")
    for names in CLASSIFIERS:
        if stored is not None and (wanted == 0 or head == "new"):
            weights.drop(names, "head='new' was asked for" if wanted else "num_classes=0 was asked for")
        if fresh:
            description.begin[names] = "random: a new classifier, to be trained"
    return fresh


def _override(config: ModelConfig, given: Mapping[str, Any], select: str | None) -> None:
    """The user's arguments over the saved ones; what is made of a video follows the model's frames and size."""
    given = {key: value for key, value in given.items() if key != "num_classes"}  # decided with the head
    if "position_grid" in given:
        config.position_grid = given.pop("position_grid")
    config.arguments.update(given)
    config.preprocessing.frames = given.get("frames", config.preprocessing.frames)
    config.preprocessing.size = given.get("size", config.preprocessing.size)
    if select is not None:
        config.select = select


def _name_classes(config: ModelConfig, labels: Labels | None, fresh: bool, name: str) -> None:
    classes = config.arguments["num_classes"]
    if labels is not None:
        config.id2label = read_labels(labels)
        check_count(config.id2label, classes, "labels")
    elif fresh or not config.id2label or not classes:
        config.id2label = numbered(classes)
    else:
        check_count(config.id2label, classes, f"config.json of {name}")
        config.id2label = in_order(config.id2label, f"config.json of {name}")
