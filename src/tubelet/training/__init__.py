"""Training: a config in YAML, one loop for all recipes, nothing lost when the power goes.

`train(read_config("configs/smoke.yaml"))` is what `tubelet train configs/smoke.yaml` runs.
"""

from tubelet.training.config import TrainConfig, read_config
from tubelet.training.run import train

__all__ = ["TrainConfig", "read_config", "train"]
