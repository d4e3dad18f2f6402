"""Data sets of clips: `open_dataset` by name or path, each clip a `Sample` that its `Key` decides."""

from tubelet.data.datasets.base import ClipDataset, Key, Sample
from tubelet.data.datasets.listing import Listing, Record, Views
from tubelet.data.datasets.registry import find_splits, list_datasets, open_dataset
from tubelet.data.datasets.scenes import SceneClips, write_scenes
from tubelet.data.datasets.tubes import Tube, Tubes, read_boxes_csv, read_jhmdb_tubes, read_ucf24_tubes, write_boxes_csv
from tubelet.data.datasets.videos import VideoClips

__all__ = [
    "ClipDataset",
    "Key",
    "Listing",
    "Record",
    "Sample",
    "SceneClips",
    "Tube",
    "Tubes",
    "VideoClips",
    "Views",
    "find_splits",
    "list_datasets",
    "open_dataset",
    "read_boxes_csv",
    "read_jhmdb_tubes",
    "read_ucf24_tubes",
    "write_boxes_csv",
    "write_scenes",
]
