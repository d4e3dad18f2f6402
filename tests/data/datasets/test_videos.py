"""Views of video files: decided by (seed, epoch, index), those of the protocol in tests, the same with a cache."""

import os

import numpy as np
import pytest
import torch

from tests.data.videos import number_of
from tubelet.data import Steps, load_clips, train_loader
from tubelet.data.augment import random_slots
from tubelet.data.cache import FrameCache
from tubelet.data.datasets import Key, open_dataset
from tubelet.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from tubelet.errors import TubeletError, VideoError


def same(frames, rng):
    """An augmentation that changes nothing but the number of columns, so that frames show their numbers."""
    return frames


def opened(data, **options):
    return open_dataset(data, **{"frames": 4, "size": 32, "train": True, **options})


def test_a_sample_is_decided_by_seed_epoch_and_index(folders):
    one, again = opened(folders), opened(folders)
    _ = [again[index] for index in (5, 1)]  # what was read before does not matter
    for key in (Key(2), Key(2, 1), Key(3)):
        assert torch.equal(one[key].clips, again[key].clips)
    assert torch.equal(one[2].clips, one[Key(2, 0)].clips)
    for other in (one[Key(2, 1)], one[Key(1)], opened(folders, seed=1)[2]):
        assert other.clips.shape != one[2].clips.shape or not torch.equal(other.clips, one[2].clips)
    sample = one[3]
    assert (sample.label, sample.name, sample.index, sample.truth) == (1, "run/3.mp4", 3, None)
    assert sample.clips.dtype == torch.uint8 and sample.clips.shape == (1, 4, 32, 32, 3)
    assert one.targets == [0, 0, 0, 1, 1, 2, 2, 2] and one.labels == ["jump", "run", "walk"]


@pytest.mark.parametrize("sampling", ["dense", "uniform"])
def test_training_takes_other_frames_each_epoch(folders, sampling):
    dataset = opened(folders, sampling=sampling, stride=3, augment=same)
    seen = set()
    for epoch in range(12):
        clip = dataset[Key(7, epoch)].clips[0]
        numbers = [number_of(frame) for frame in clip]
        if sampling == "dense":
            assert np.diff(numbers).tolist() == [3, 3, 3]
        else:
            assert all(27 * i // 4 <= n < 27 * (i + 1) / 4 for i, n in enumerate(numbers))
        seen.add(tuple(numbers))
    assert len(seen) > 6


def test_random_slots_reach_every_place_and_stay_inside():
    rng = np.random.default_rng(0)
    starts = [random_slots(rng, "dense", 10, 4, 2) for _ in range(200)]
    assert {slots[0] for slots in starts} == {0, 1, 2, 3} and all(slots[-1] == slots[0] + 6 for slots in starts)
    assert random_slots(rng, "k400", 3, 4, 2) == [0, 2, 2, 2]
    segments = np.array([random_slots(rng, "ssv2", 10, 5, 1) for _ in range(200)])
    assert [sorted(set(column)) for column in segments.T.tolist()] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert max(random_slots(rng, "uniform", 1, 4, 1)) == 0
    with pytest.raises(TubeletError, match="no random clips for sampling 'best'"):
        random_slots(rng, "best", 10, 4, 1)


@pytest.mark.parametrize(
    ("sampling", "views"), [("dense", (1, 1)), ("k400", (2, 3)), ("ssv2", (2, 3)), ("uniform", (1, 3))]
)
def test_test_views_are_those_of_load_clips(folders, sampling, views):
    options = {"frames": 4, "stride": 3, "size": 24, "sampling": sampling}
    dataset = open_dataset(folders, clips=views[0], crops=views[1], **options)
    sample = dataset[6]
    clips = load_clips(dataset.listing.records[6].path, views=views, **options)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    assert torch.allclose((sample.clips.permute(0, 4, 1, 2, 3) / 255 - mean) / std, clips.tensor, atol=1e-6)


def test_a_part_of_a_video(folders):
    (folders / "a.csv").write_text("path,label,start,end\nwalk/7.mp4,walk,0.2,0.6\nwalk/7.mp4,walk,5,6\n")
    dataset = opened(folders / "a.csv", sampling="uniform", frames=5, augment=same)
    for epoch in range(3):
        numbers = [number_of(frame) for frame in dataset[Key(0, epoch)].clips[0]]
        assert all(5 + 2 * i <= number < 7 + 2 * i for i, number in enumerate(numbers))
    with pytest.raises(VideoError, match="no frame from 5 to 6 s"):
        dataset[1]


@pytest.mark.parametrize("options", [{"train": True}, {"train": False, "crops": 3}])
def test_the_cache_changes_no_sample(folders, tmp_path, options):
    plain = opened(folders, **options)
    cached = opened(folders, **options, cache=tmp_path / "cache")
    keys = [Key(index, epoch) for epoch in range(2) for index in range(8)]
    for key in keys:
        assert torch.equal(plain[key].clips, cached[key].clips)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 8
    for path in folders.glob("*/*"):  # the same size and time, but nothing to decode
        stat = path.stat()
        path.write_bytes(b"x" * stat.st_size)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = opened(folders, **options, cache=FrameCache(tmp_path / "cache"))
    assert all(torch.equal(again[key].clips, cached[key].clips) for key in keys)
    os.utime(folders / "jump" / "0.mp4")
    with pytest.raises(VideoError, match="0.mp4"):  # another file by now
        again[0]


def test_a_full_cache_takes_no_more_but_samples_go_on(folders, tmp_path):
    plain = opened(folders)
    size = 27 * 37 * 74 * 3 + 128
    cache = FrameCache(tmp_path / "cache", limit=4 * size)
    cached = opened(folders, cache=cache)
    for index in range(8):
        assert torch.equal(plain[index].clips, cached[index].clips)
    held = [path.stat().st_size for path in (tmp_path / "cache").glob("*.npy")]
    assert 0 < len(held) < 8 and sum(held) == cache.used() <= 4 * size


def test_a_file_cut_short_is_read_as_far_as_it_goes(render, tmp_path):
    path = render("a.mp4", 60, faststart=True, options={"g": "12"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    (tmp_path / "a.csv").write_text("a.mp4,x\n")
    plain = opened(tmp_path / "a.csv", augment=same, sampling="uniform")
    cached = opened(tmp_path / "a.csv", augment=same, sampling="uniform", cache=tmp_path / "cache")
    for epoch in range(3):
        one, other = plain[Key(0, epoch)], cached[Key(0, epoch)]
        assert torch.equal(one.clips, other.clips)
        assert epoch or "of 60 frames are missing" in one.warning == other.warning
        assert max(number_of(frame) for frame in one.clips[0]) < 50


def test_no_real_file_stops_the_loader(robustness, tmp_path):
    files = sorted(path for path in (robustness / "files").iterdir() if path.stat().st_size < 400_000)
    (tmp_path / "a.csv").write_text("".join(f"{path},{number % 2}\n" for number, path in enumerate(files)))
    dataset = opened(tmp_path / "a.csv")
    told = []
    loader = train_loader(dataset, Steps(len(files), len(files), 2), note=told.append)
    assert [batch.clips.shape for batch in loader] == [(len(files), 1, 4, 32, 32, 3)] * 2
    assert 0 < len(loader.bad) < len(files) and all("no video" in sentence for sentence in loader.bad.values())
    assert len(told) == len(set(told))


def test_a_picture_that_is_too_large_is_a_bad_file(render, tmp_path):
    render("a.mp4", 8, size=(16, 1024))
    (tmp_path / "a.csv").write_text("a.mp4,x\n")
    dataset = opened(tmp_path / "a.csv", size=2000)
    with pytest.raises(VideoError, match="a.mp4: a picture of .* is too large"):
        dataset[0]


def test_options_that_cannot_be(folders):
    for options, words in [
        ({"sampling": "best"}, "'best'"),
        ({"crops": 2}, "crops must be 1 or 3, got 2"),
        ({"area": (0, 1)}, "area of a random view"),
        ({"size": 0}, "size must be positive"),
        ({"frames": 0, "train": False}, "frames must be at least 1"),
        ({"cache": folders / "jump" / "0.mp4"}, "cannot be a cache folder"),
        ({"cache": folders / "c", "cache_limit": 0}, "must be positive"),
    ]:
        with pytest.raises(TubeletError, match=words):
            opened(folders, **options)
    for options, words in [({"frames": 5}, "of them, not 5"), ({"size": 32}, "pictures of 64 x 64, not 32")]:
        with pytest.raises(TubeletError, match=words):
            open_dataset("scenes", **options)


def test_scenes_are_a_data_set_like_others():
    train, val = open_dataset("scenes", train=True, length=24), open_dataset("scenes_hard")
    assert (train.split, val.split, val.level, len(train)) == ("train", "val", "hard", 24)
    assert train[0].clips.shape == (1, 16, 64, 64, 3) and train[0].truth.shape == (8, 8, 8)
    assert open_dataset("scenes_table:test").split == "test"
    with pytest.raises(TubeletError, match="scenes has no option 'speed'"):
        open_dataset("scenes", speed=3)
