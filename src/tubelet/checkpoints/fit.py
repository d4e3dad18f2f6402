"""Put weights into a model: each one must be there, be known, and have the right shape."""

from __future__ import annotations

import torch
from torch import Tensor

from tubelet.checkpoints.layout import Description, Piece, Weights, first_match
from tubelet.checkpoints.report import Report, name_some
from tubelet.errors import CheckpointError
from tubelet.models.base import VideoModel


def fit(model: VideoModel, weights: Weights, description: Description, report: Report) -> None:
    """Load the weights into the model, as its own number type, and fill the report.

    Raises CheckpointError if any key is absent, unknown, given twice or of another shape; keys are named as the file
    spells them.
    """
    expected: dict[str, Tensor] = model.state_dict()
    found: dict[str, Tensor] = {}
    missing: list[str] = []
    shapes: list[str] = []
    report.unused.update(weights.unused)
    unknown = list(weights.unknown)
    for name, pieces in weights.pieces.items():
        if name not in expected:
            unknown += [piece.key for piece in pieces]
    for name, tensor in expected.items():
        how = first_match(description.begin, name)
        given = {piece.part: piece for piece in weights.pieces.get(name, [])}
        if how and not given:
            report.new[name] = how
            found[name] = tensor
            continue
        parts = list(given) if (0, 1) in given else weights.parts_of(name)
        missing += [weights.key_of(name, part) for part in parts if part not in given]
        ordered = [given[part] for part in sorted(parts) if part in given]
        wrong = [text for piece in ordered if (text := _wrong(piece, tensor))]
        shapes += wrong
        if len(ordered) == len(parts) and not wrong:
            found[name] = torch.cat([piece.tensor.to(tensor.dtype) for piece in ordered])
            _tell(report, name, ordered)
    if missing or unknown or shapes or weights.twice:
        raise CheckpointError(_sentence(model, report.source, missing, unknown, shapes, weights.twice))
    model.load_state_dict(found, strict=True)


def _wrong(piece: Piece, expected: Tensor) -> str | None:
    """What is wrong with a tensor for (its part of) a weight."""
    shape = (expected.shape[0] // piece.part[1], *expected.shape[1:]) if expected.dim() else ()
    if tuple(piece.tensor.shape) != shape:
        return f"{piece.key} {tuple(piece.tensor.shape)} where {shape} is expected"
    if piece.tensor.is_floating_point() != expected.is_floating_point():
        return f"{piece.key} of {piece.tensor.dtype} where {expected.dtype} is expected"
    return None


def _tell(report: Report, name: str, pieces: list[Piece]) -> None:
    for piece in pieces:
        if piece.key == name:
            report.matched.append(name)
        else:
            report.renamed[piece.key] = name


def _sentence(
    model: VideoModel, source: str, missing: list[str], unknown: list[str], shapes: list[str], twice: list[str]
) -> str:
    lists = {"missing": missing, "not known": unknown, "of another shape": shapes, "given twice": twice}
    problems = "; ".join(f"{what}: {name_some(names)}" for what, names in lists.items() if names)
    return f"the weights of {source} do not fit {model.config.model}: {problems}"
