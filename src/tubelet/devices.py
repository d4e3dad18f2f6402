"""Where a model runs, from the name that a user gives."""

import torch

from tubelet.errors import TubeletError


def device_of(name: str) -> torch.device:
    """Raises TubeletError for a device that does not exist here."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise TubeletError(f"device={name!r} is unknown; there are cpu and cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise TubeletError(f"device={name!r} is not supported; there are cpu and cuda")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        there = f"{count} GPU(s)" if count else "no GPU"
        raise TubeletError(f"device={name!r} is not here: torch finds {there}; use cpu")
    return device
