"""Reading the weights that people have, loud about every key, and saving them as the project's own folder.

model = load_model("MCG-NJU/videomae-base-finetuned-kinetics", select="sta:r=64")
print(model.report)                # what became of every key
save_model(model, "kinetics")      # model.safetensors + config.json: load_model("kinetics") anywhere
"""

from tubelet.checkpoints.backbone import load_backbone
from tubelet.checkpoints.labels import read_labels
from tubelet.checkpoints.load import list_layouts, load_model
from tubelet.checkpoints.report import Report
from tubelet.checkpoints.save import save_model
from tubelet.checkpoints.source import default_detector, default_model, packaged_models

__all__ = [
    "Report",
    "default_detector",
    "default_model",
    "list_layouts",
    "load_backbone",
    "load_model",
    "packaged_models",
    "read_labels",
    "save_model",
]
