"""Which frames a clip takes: pure functions from a number of frames to frame indices.

All count *slots* of a regular time line (see `data.timeline`); in a video of constant rate a slot is a frame. Each
returns one list of `frames` indices a clip, none decreasing. Pictured for a video of 16 frames and clips of 4:

    slots     0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15
    uniform         x           x           x           x         the middle of each of 4 equal segments
    dense                 x     x     x     x                     stride 2, one clip: the centre
    dense     x     x     x     x                                 stride 2, two clips: starts evenly spaced
                                            x     x     x     x   from the first to the last possible
    k400      x     x     x     x     x     x     x     x         every 2nd (`stride`-th) frame is listed;
              1     1     1     1     2     2     2     2         two clips: evenly spaced runs of the list
    ssv2      1     2     1     2     1     2     1     2         starts (clip 1), middles (clip 2) of 4 segments
    keyframe              x     x     x     x                     stride 2 around slot 8, which is its third

A video shorter than its clip is extended by repeating its last frame (dense, k400: the last one listed); uniform and
ssv2 spread over what there is, so that each frame is repeated about equally often.
"""

from __future__ import annotations

from collections.abc import Sequence

from tubelet.errors import TubeletError


def uniform(total: int, frames: int) -> list[list[int]]:
    """One clip: the middle frame of each of `frames` equal segments."""
    _check(total=total, frames=frames)
    return [[(2 * i + 1) * total // (2 * frames) for i in range(frames)]]


def dense(total: int, frames: int, stride: int, clips: int = 1) -> list[list[int]]:
    """Clips of every `stride`-th frame, starts evenly spaced from the first to the last possible; one: the centre."""
    _check(total=total, frames=frames, stride=stride, clips=clips)
    spare = max(total - ((frames - 1) * stride + 1), 0)
    return [[min(start + i * stride, total - 1) for i in range(frames)] for start in _starts(spare, clips)]


def k400(total: int, frames: int, stride: int, clips: int = 5) -> list[list[int]]:
    """The Kinetics-400 test of VideoMAE: every `stride`-th frame is listed, clips are evenly spaced runs of it."""
    _check(total=total, frames=frames, stride=stride, clips=clips)
    listed = list(range(0, total, stride))
    listed += [listed[-1]] * (frames - len(listed))
    return [listed[start : start + frames] for start in _starts(len(listed) - frames, clips)]


def ssv2(total: int, frames: int, clips: int = 2) -> list[list[int]]:
    """The Something-Something V2 test of VideoMAE: clip c of C takes each of `frames` segments at c/C of its length.

    With two clips these are starts and middles. One clip takes the middles, as `uniform` does.
    """
    _check(total=total, frames=frames, clips=clips)
    if clips == 1:
        return uniform(total, frames)
    return [[(clips * i + clip) * total // (clips * frames) for i in range(frames)] for clip in range(clips)]


def keyframe(total: int, frames: int, stride: int, clips: int = 1) -> list[list[int]]:
    """Clips around the middle of each of `clips` equal parts, see `around`."""
    _check(total=total, frames=frames, stride=stride, clips=clips)
    return [around(total, (2 * clip + 1) * total // (2 * clips), frames, stride) for clip in range(clips)]


def around(total: int, key: int, frames: int, stride: int) -> list[int]:
    """The clip that a detector takes to tell what is done at slot `key`, which is its place `frames` / 2.

    Before the first slot and after the last, these are repeated.
    """
    _check(total=total, frames=frames, stride=stride)
    return [min(max(key + (i - frames // 2) * stride, 0), total - 1) for i in range(frames)]


SAMPLINGS = ("uniform", "dense", "k400", "ssv2", "keyframe")


def sample(sampling: str, total: int, *, frames: int, stride: int, clips: int) -> list[list[int]]:
    """The clips of a sampling by its name; `uniform` gives one. Raises TubeletError for what is not allowed."""
    if sampling == "dense":
        return dense(total, frames, stride, clips)
    if sampling == "k400":
        return k400(total, frames, stride, clips)
    if sampling == "ssv2":
        return ssv2(total, frames, clips)
    if sampling == "keyframe":
        return keyframe(total, frames, stride, clips)
    if sampling != "uniform":
        raise TubeletError(f"unknown sampling {sampling!r}; allowed: {', '.join(SAMPLINGS)}")
    if clips != 1:
        raise TubeletError(
            f"sampling 'uniform' gives 1 clip, {clips} asked for; allowed for several: dense, k400, ssv2, keyframe"
        )
    return uniform(total, frames)


def _starts(spare: int, clips: int) -> Sequence[int]:
    if clips == 1:
        return [spare // 2]
    return [clip * spare // (clips - 1) for clip in range(clips)]


def _check(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise TubeletError(f"{name} must be at least 1, got {value}")
