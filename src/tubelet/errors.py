"""The errors a person can mend.

Every sentence says what was given and what is allowed. The command line prints it alone and ends with status 2.
"""


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
