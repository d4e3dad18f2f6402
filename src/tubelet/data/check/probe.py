"""What one video file turns out to be, and many of them in parallel; a crashing decoder takes only its file along."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from tubelet.data.video import open_video
from tubelet.errors import VideoError

FEW = 24
"""So many files are looked at in this process: starting others takes longer."""

START = "spawn"
"""How processes are started: without the threads and locks of this one."""


@dataclass(frozen=True)
class Probe:
    """A video file.

    error:   a sentence if it yields no frame, and nothing else is known then but the digest;  missing: it is not there
    frames:  that can be decoded;  declared: that its header promises
    seconds: duration;  width, height: pixels, after rotation;  digest: of its content
    """

    path: Path
    error: str = ""
    missing: bool = False
    frames: int = 0
    declared: int = 0
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    digest: str = ""


def probe(path: Path, quick: bool = False) -> Probe:
    """Decodes a file from end to end, or if `quick` only its first frame. Raises nothing for a bad file."""
    digest = ""
    try:
        digest = _digest(path)
        with open_video(path, backend="pyav") as reader:
            frames = reader.info.frames if quick else len(reader.readable())
            info = reader.info
    except FileNotFoundError:
        return Probe(path, f"{path}: no such file", missing=True)
    except (VideoError, OSError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())
        return Probe(path, reason if str(path) in reason else f"{path}: {reason}", digest=digest)
    if not frames:
        return Probe(path, f"{path}: none of its {info.frames} frames can be decoded", digest=digest)
    return Probe(path, "", False, frames, info.declared, info.duration, info.width, info.height, digest)


def probe_all(
    paths: Sequence[Path], *, quick: bool = False, workers: int = 1, advance: Callable[[], None] = lambda: None
) -> dict[Path, Probe]:
    """Every file once. With several workers, a script that calls this needs `if __name__ == "__main__":`.

    advance:  is called after each file
    """
    found: dict[Path, Probe] = {}
    each = _in_processes(paths, quick, workers) if workers > 1 and len(paths) > FEW else _here(paths, quick)
    for one in each:
        found[one.path] = one
        advance()
    return found


def _here(paths: Sequence[Path], quick: bool) -> Iterator[Probe]:
    return (probe(path, quick) for path in paths)


def _in_processes(paths: Sequence[Path], quick: bool, workers: int) -> Iterator[Probe]:
    waiting, at_once = list(reversed(paths)), 2 * workers if workers > 1 else 1
    while waiting:
        under_way: dict[Future[Probe], Path] = {}
        try:
            with ProcessPoolExecutor(workers, mp_context=get_context(START)) as pool:
                while waiting or under_way:
                    while waiting and len(under_way) < at_once:
                        path = waiting.pop()
                        under_way[pool.submit(probe, path, quick)] = path
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        del under_way[future]
                        yield result
        except BrokenProcessPool:  # by one of those under way; one at a time it is known by which
            suspects = list(under_way.values())
            if len(suspects) == 1:
                yield Probe(suspects[0], f"{suspects[0]}: the decoder crashes on it")
            else:
                yield from _in_processes(suspects, quick, 1)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.blake2b(digest_size=16)
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
