"""The real files of data/clips-robustness: one test a file, whatever files the index names."""

import csv
import os
from pathlib import Path

import pytest
import torch

from tubelet.data import load_clips, open_video
from tubelet.data.torchcodec import import_error
from tubelet.errors import VideoError


def rows():
    index = Path(os.environ.get("TUBELET_DATA", "")) / "clips-robustness" / "index.csv"
    if not index.is_file():
        return [
            pytest.param(None, marks=pytest.mark.skip(reason="TUBELET_DATA is not set, or has no clips-robustness"))
        ]
    with index.open() as file:
        return [pytest.param(row, id=row["file"]) for row in csv.DictReader(file)]


def has_frames(row):
    return bool(row["frames_decoded"])


@pytest.mark.parametrize("row", rows())
def test_frame_counts_are_those_of_the_index(robustness, row):
    path = robustness / "files" / row["file"]
    if not has_frames(row):
        with pytest.raises(VideoError, match="no video"):
            open_video(path)
        return
    with open_video(path, backend="pyav") as reader:
        assert len(reader.readable()) == int(row["frames_decoded"])
        assert sorted((reader.info.width, reader.info.height)) == sorted((int(row["width"]), int(row["height"])))
        if not row["error"]:
            assert reader.info.frames == reader.info.declared == int(row["frames_decoded"])


@pytest.mark.parametrize("row", rows())
@pytest.mark.parametrize("sampling", ["dense", "uniform"])
def test_clips_are_taken_and_what_is_missing_is_said(robustness, row, sampling):
    path = robustness / "files" / row["file"]
    if not has_frames(row):
        with pytest.raises(VideoError) as caught:
            load_clips(path)
        assert "\n" not in str(caught.value)
        return
    clips = load_clips(path, frames=8, stride=8, size=32, sampling=sampling)
    assert clips.tensor.shape == (1, 3, 8, 32, 32)
    assert clips.tensor.isfinite().all()
    assert max(clips.indices[0]) < int(row["frames_decoded"])
    assert bool(clips.warnings) == bool(row["error"])
    for sentence in clips.warnings:
        missing = clips.info.declared - int(row["frames_decoded"])
        assert f"{missing} of {clips.info.declared} frames are missing" in sentence


@pytest.mark.parametrize("row", [row for row in rows() if row.values[0] is None or has_frames(row.values[0])])
def test_torchcodec_gives_the_same_frames(robustness, row, record_property):
    if reason := import_error():
        pytest.skip(f"torchcodec does not load: {reason}")
    path = robustness / "files" / row["file"]
    means, largest = [], 0
    with open_video(path, backend="pyav") as one, open_video(path, backend="torchcodec") as other:
        for (index, frame), (other_index, other_frame) in zip(one.frames(), other.frames(), strict=True):
            assert index == other_index
            if torch.equal(frame, other_frame):
                means.append(0.0)
                continue
            difference = (frame.int() - other_frame.int()).abs()
            means.append(difference.float().mean().item())
            largest = max(largest, int(difference.max()))
        info = other.info
    record_property("largest difference", largest)
    print(f"{row['file']}: {info.backend}, {info.pixel_format}, largest difference {largest}, mean {max(means):.3f}")
    assert max(means) <= 1
    if info.pixel_format == "yuv420p" and not info.full_range:
        assert largest == 0


def test_a_turned_video_stands_upright(robustness):
    path = robustness / "files" / "decord__video_90.mov"
    if not path.exists():
        pytest.skip(f"{path.name} is not among the files")
    clips = load_clips(path, frames=2, size=(56, 32))
    assert (clips.info.width, clips.info.height, abs(clips.info.rotation)) == (320, 568, 90)
    assert clips.tensor.shape == torch.Size((1, 3, 2, 56, 32))
