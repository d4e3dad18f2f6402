"""Where the reference tensors are: TUBELET_PARITY, or the small set in this folder."""

import os
from pathlib import Path

REFERENCE = Path(__file__).parent / "reference"


def parity_cases(method: str, pattern: str) -> list[Path]:
    """The JSON files of a method's cases. At least one: an empty folder would prove nothing."""
    folder = Path(os.environ.get("TUBELET_PARITY") or REFERENCE) / method
    found = sorted(folder.glob(pattern))
    if not found:
        raise FileNotFoundError(f"no reference case {pattern} in {folder}")
    return found
