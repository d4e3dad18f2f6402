"""From video files to clips: `load_clips` gives the views of a model, `open_video` frames, `write_video` a file.

`open_dataset` gives labelled clips by name or path; `train_loader` and `eval_loader` make batches of them.
"""

from tubelet.data.batches import Batch, Steps
from tubelet.data.clips import Clips, list_videos, load_clips
from tubelet.data.datasets import list_datasets, open_dataset
from tubelet.data.loader import eval_loader, train_loader
from tubelet.data.video import VideoInfo, VideoReader, open_video
from tubelet.data.write import write_video

__all__ = [
    "Batch",
    "Clips",
    "Steps",
    "VideoInfo",
    "VideoReader",
    "eval_loader",
    "list_datasets",
    "list_videos",
    "load_clips",
    "open_dataset",
    "open_video",
    "train_loader",
    "write_video",
]
