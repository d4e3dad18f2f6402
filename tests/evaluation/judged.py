"""A tiny model of scenes, for tests that judge it."""

from tests.tiny import tiny
from tubelet.data.scenes import LABELS, MEAN, STD
from tubelet.models.config import Preprocessing


def scenes_model(**arguments):
    """A tiny ViT that takes scenes; its weights are random."""
    model = tiny(size=64, patch_size=16, num_classes=12, depth=3, **arguments)
    model.config.preprocessing = Preprocessing(16, 1, 64, MEAN, STD, "dense")
    model.config.id2label = dict(enumerate(LABELS))
    return model
