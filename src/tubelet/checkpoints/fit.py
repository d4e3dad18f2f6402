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

    Raises CheckpointError if any key is absent, unknown, given twice or of another shape or type; keys are named
    as the file spells them.
    """
    expected: dict[str, Tensor] = model.state_dict()
    found: dict[str, Tensor] = {}
    missing: list[str] = []
    shapes: list[str] = []
    types: list[str] = []
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
        parts = weights.parts_of(name)
        missing += [weights.key_of(name, part) for part in parts if part not in given]
        ordered = [given[part] for part in sorted(parts) if part in given]
        for piece in ordered:
            shape = (tensor.shape[0] // piece.part[1], *tensor.shape[1:]) if tensor.dim() else ()
            if piece.tensor.shape != shape:
                shapes.append(f"{piece.key} {tuple(piece.tensor.shape)} where {shape} is expected")
            elif piece.tensor.is_floating_point() != tensor.is_floating_point():
                types.append(f"{piece.key} of {piece.tensor.dtype} where {tensor.dtype} is expected")
        if len(ordered) == len(parts) and not shapes and not types:
            found[name] = torch.cat([piece.tensor.to(tensor.dtype) for piece in ordered])
            _tell(report, name, ordered)
    lists = {
        "missing": missing,
        "not known": unknown,
        "of another shape": shapes,
        "of another type": types,
        "given twice": weights.twice,
    }
    if problems := "; ".join(f"{what}: {name_some(names)}" for what, names in lists.items() if names):
        raise CheckpointError(f"the weights of {report.source} do not fit {model.config.model}: {problems}")
    model.load_state_dict(found, strict=True)


def _tell(report: Report, name: str, pieces: list[Piece]) -> None:
    for piece in pieces:
        if piece.key == name:
            report.matched.append(name)
        else:
            report.renamed[piece.key] = name
