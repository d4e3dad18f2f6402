"""Decoded clips on disk, for data that is small enough: a file a clip, read by memory mapping.

- Entries are known by the identity of their video (path, size, time of change), the part of it and the resized side:
  a video that is replaced is decoded again.
- An entry is written aside and renamed, so it is there as a whole or not at all; one that a crash of the machine left
  cut short is found by its length and ignored, and what was never renamed is removed when the cache is next opened.
- The folder holds at most `limit` bytes. When it is full nothing more is taken and nothing is thrown out: training
  visits all clips equally often, so that throwing out the oldest would throw out each before it is used.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tubelet.errors import TubeletError

try:
    import fcntl
except ImportError:  # Windows: two processes that write at once may then go over the limit by a clip each
    fcntl = None  # type: ignore[assignment]

FORMAT = "1"  # entries of other formats are never looked at
LEFTOVER_SECONDS = 3600.0


class FrameCache:
    """uint8 frames (T, H, W, 3) by the name of their entry. Several processes may use one folder at once.

    Raises TubeletError if the folder cannot be made or the limit is not positive.
    """

    def __init__(self, folder: str | Path, limit: int = 20 * 2**30) -> None:
        if limit < 1:
            raise TubeletError(f"the limit of a cache must be positive, got {limit} bytes")
        self.folder, self.limit = Path(folder), limit
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TubeletError(f"{folder}: cannot be a cache folder ({error.strerror})") from None
        for left in self.folder.glob(".writing-*"):
            if time.time() - left.stat().st_mtime > LEFTOVER_SECONDS:  # not one that is being written just now
                left.unlink(missing_ok=True)
        with self._locked():
            self._set_used(sum(entry.stat().st_size for entry in self.folder.glob("*.npy")))

    @staticmethod
    def entry(path: Path, *parameters: object) -> str:
        """The name of an entry. Raises OSError if the file is not there."""
        stat = path.stat()
        identity = (FORMAT, os.path.abspath(path), stat.st_size, stat.st_mtime_ns, *parameters)
        return hashlib.sha256(repr(identity).encode()).hexdigest()[:32]

    def get(self, entry: str) -> Tensor | None:
        """The frames, mapped (writing into them changes no file), or None."""
        path = self.folder / f"{entry}.npy"
        try:
            frames = np.load(path, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError):  # not there, or cut short
            return None
        return torch.from_numpy(frames)

    def put(self, entry: str, frames: Tensor) -> bool:
        """Writes an entry if there is room for it; says whether it did."""
        path, size = self.folder / f"{entry}.npy", frames.numel() + 128  # 128: the header
        if not self.has_room(frames.numel()):
            return False
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".writing-")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, frames.numpy(), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            with self._locked():
                before = path.stat().st_size if path.exists() else 0  # cut short, or of another process just now
                used = self.used() - before + size
                if used > self.limit:
                    os.unlink(temporary)
                    return False
                os.replace(temporary, path)
                self._set_used(used)
            return True
        except OSError:  # the disk is full: the clip is at hand all the same
            Path(temporary).unlink(missing_ok=True)
            return False
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def has_room(self, size: int) -> bool:
        """Whether an entry of so many bytes fits at present."""
        return self.used() + size + 128 <= self.limit

    def used(self) -> int:
        """Bytes of all entries."""
        try:
            return int((self.folder / "used").read_text())
        except (OSError, ValueError):
            return sum(entry.stat().st_size for entry in self.folder.glob("*.npy"))

    def _set_used(self, used: int) -> None:
        (self.folder / ".used").write_text(str(used))
        os.replace(self.folder / ".used", self.folder / "used")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.folder / ".lock", "w") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
