"""Video transformers that look only at the tokens that matter.

    model = tubelet.create_model("videomae_base", num_classes=400, select="sta:r=64")
    logits = model(clip)                      # clip (B, 3, T, H, W), normalised float
    steps = tubelet.trace(model, clip)        # what each selection step kept
    report = tubelet.count_flops(model, clip)

Names are imported when they are first used, so that `import tubelet` costs little.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tubelet._version import __version__

if TYPE_CHECKING:
    from tubelet.checkpoints import load_model, save_model
    from tubelet.errors import CheckpointError, SelectionError, SpecError, TubeletError, VideoError
    from tubelet.inference import classify, open_model
    from tubelet.models.registry import create_model, list_models, set_selection, trace
    from tubelet.profiling import count_flops
    from tubelet.selection.registry import list_selectors

_HOME = {
    "create_model": "tubelet.models.registry",
    "list_models": "tubelet.models.registry",
    "set_selection": "tubelet.models.registry",
    "trace": "tubelet.models.registry",
    "load_model": "tubelet.checkpoints",
    "save_model": "tubelet.checkpoints",
    "count_flops": "tubelet.profiling",
    "classify": "tubelet.inference",
    "open_model": "tubelet.inference",
    "list_selectors": "tubelet.selection.registry",
    "TubeletError": "tubelet.errors",
    "SpecError": "tubelet.errors",
    "SelectionError": "tubelet.errors",
    "VideoError": "tubelet.errors",
    "CheckpointError": "tubelet.errors",
}
__all__ = [
    "CheckpointError",
    "SelectionError",
    "SpecError",
    "TubeletError",
    "VideoError",
    "__version__",
    "classify",
    "count_flops",
    "create_model",
    "list_models",
    "list_selectors",
    "load_model",
    "open_model",
    "save_model",
    "set_selection",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tubelet' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
