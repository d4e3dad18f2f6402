"""The cache on disk: whole entries or none, never above its limit, whoever else writes."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tubelet.data.cache import FrameCache
from tubelet.errors import TubeletError

FRAMES = torch.arange(2 * 3 * 4 * 3, dtype=torch.uint8).view(2, 3, 4, 3)


def test_what_was_put_comes_back_and_may_be_written_into(tmp_path):
    cache = FrameCache(tmp_path)
    assert cache.get("a") is None
    assert cache.put("a", FRAMES) and torch.equal(cache.get("a"), FRAMES)
    cache.get("a").zero_()
    assert torch.equal(FrameCache(tmp_path).get("a"), FRAMES)
    assert cache.used() == (tmp_path / "a.npy").stat().st_size == FRAMES.numel() + 128


def test_entries_are_named_by_the_file_and_the_parameters(tmp_path):
    video = tmp_path / "a.mp4"
    video.write_bytes(b"one")
    names = {FrameCache.entry(video, 32), FrameCache.entry(video, 64), FrameCache.entry(video, 32, 0.5)}
    assert FrameCache.entry(video, 32) in names and len(names) == 3
    before = FrameCache.entry(video, 32)
    os.utime(video, (1, 1))
    assert FrameCache.entry(video, 32) != before
    os.utime(video, (1, 1))
    with pytest.raises(OSError):
        FrameCache.entry(tmp_path / "b.mp4", 32)


@pytest.mark.parametrize("length", [0, 5, 60, 128, 150])
def test_an_entry_cut_short_is_no_entry_and_is_replaced(tmp_path, length):
    cache = FrameCache(tmp_path)
    cache.put("a", FRAMES)
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[:length])
    cache = FrameCache(tmp_path)
    assert cache.get("a") is None and cache.used() == length
    assert cache.put("a", FRAMES) and torch.equal(cache.get("a"), FRAMES)
    assert cache.used() == len(data)


def test_what_was_never_renamed_is_removed_once_it_is_old(tmp_path):
    for name, age in {".writing-old": 7200, ".writing-new": 10}.items():
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    cache = FrameCache(tmp_path)
    assert not (tmp_path / ".writing-old").exists() and (tmp_path / ".writing-new").exists()
    assert cache.used() == 0


def test_a_full_disk_is_no_error(tmp_path, monkeypatch):
    cache = FrameCache(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert not cache.put("a", FRAMES) and cache.get("a") is None
    assert not list(tmp_path.glob(".writing-*"))


def fill(folder: str, limit: int, who: int) -> None:
    cache = FrameCache(folder, limit)
    for number in range(40):
        cache.put(f"{who}-{number}", FRAMES)


def test_several_processes_never_go_over_the_limit(tmp_path):
    limit = 50 * (FRAMES.numel() + 128)
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    running = [context.Process(target=fill, args=(str(tmp_path), limit, who)) for who in range(3)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    entries = [path.stat().st_size for path in tmp_path.glob("*.npy")]
    assert len(entries) == 50 and FrameCache(tmp_path, limit).used() == sum(entries) == limit


def write_forever(folder: str) -> None:
    cache, number = FrameCache(folder), 0
    while True:
        cache.put(f"{number % 20}", torch.full((20, 64, 64, 3), number % 20, dtype=torch.uint8))
        number += 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_killed_half_way_leaves_whole_entries(tmp_path):
    for pause in (0.1, 0.17, 0.23):
        process = multiprocessing.get_context("fork").Process(target=write_forever, args=(str(tmp_path),))
        process.start()
        time.sleep(pause)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        cache = FrameCache(tmp_path)
        for path in tmp_path.glob("*.npy"):
            frames = cache.get(path.stem)
            assert frames is not None and (frames == int(path.stem)).all()
        assert cache.used() == sum(path.stat().st_size for path in tmp_path.glob("*.npy"))


def test_a_limit_must_be_positive_and_the_folder_one(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(TubeletError, match="must be positive, got 0"):
        FrameCache(tmp_path, 0)
    with pytest.raises(TubeletError, match="cannot be a cache folder"):
        FrameCache(tmp_path / "file")
