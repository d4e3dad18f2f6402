"""The errors a person can mend.

Every sentence says what was given and what is allowed. The command line prints it alone and ends with status 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class TubeletError(ValueError):
    """Input that cannot be used as it is: a name, a spec, a file, a size, a pair that cannot be right."""


class SpecError(TubeletError):
    """A selection spec that cannot be read, or a budget that its selector does not take."""


class SelectionError(TubeletError):
    """A selector that cannot be right on this model or on this grid of tokens."""


class VideoError(TubeletError):
    """A file from which no frame can be read."""


class WriteError(OSError):
    """A file that cannot be written, such as on a full disk. No input is wrong, so it is no TubeletError."""


class CheckpointError(TubeletError):
    """Weights that do not fit the model, or that cannot be recognised."""


def suggestion(given: str, known: Iterable[str]) -> str:
    """For the end of a sentence on an unknown name: the nearest known one, or nothing where none is near."""
    near = get_close_matches(given, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
