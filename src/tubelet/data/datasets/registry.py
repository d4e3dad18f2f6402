"""Data sets by name or path: "jhmdb:split1_fit", "scenes_hard", a folder, a csv."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import fields
from itertools import combinations
from pathlib import Path
from typing import Any

from tubelet.data.cache import FrameCache
from tubelet.data.datasets import jhmdb, kinetics, ssv2, ucf24
from tubelet.data.datasets.base import ClipDataset
from tubelet.data.datasets.formats import folder_splits, read_csv
from tubelet.data.datasets.listing import Listing, Views
from tubelet.data.datasets.scenes import LEVELS, SceneClips
from tubelet.data.datasets.videos import VideoClips, with_views
from tubelet.data.scenes import SIZE
from tubelet.data.transforms import Size, height_width
from tubelet.errors import TubeletError, suggestion

READERS: dict[str, Callable[[Path], dict[str, Listing]]] = {
    "jhmdb": jhmdb.splits,
    "kinetics400": kinetics.splits,
    "ssv2": ssv2.splits,
    "ucf24": ucf24.splits,
}
SCENES = {"scenes": "standard", **{f"scenes_{level}": level for level in LEVELS if level != "standard"}}
ROOT_VARIABLE = "TUBELET_DATA"
FUNCTIONS = ("augment", "finish")  # options in Python alone
DEFAULT_SPLITS = {True: ("train", "training"), False: ("val", "validation", "valid", "test", "testing")}


def list_datasets() -> list[str]:
    """The names that `open_dataset` knows."""
    return [*SCENES, *READERS]


def open_dataset(
    data: str | Path,
    *,
    split: str | None = None,
    train: bool = False,
    root: str | Path | None = None,
    labels: Sequence[str] | None = None,
    frames: int = 16,
    size: Size | None = None,
    sampling: str | None = None,
    stride: int | None = None,
    clips: int | None = None,
    crops: int | None = None,
    flip: bool | None = None,
    seed: int = 0,
    cache: str | Path | FrameCache | None = None,
    cache_limit: int | None = None,
    **options: Any,
) -> ClipDataset:
    """A data set by name (see `list_datasets`), folder or csv; "NAME:SPLIT" and "FOLDER:SPLIT" name a split as well.

    split:   otherwise the one called train in training, and val or test where not
    root:    where the videos of a name lie; by default the folder of that name in $TUBELET_DATA. Of a csv: what its
             paths are relative to, by default its folder
    labels:  the class list, where it is not the data set's own: give that of training to what is tested
    frames, size:  of a clip; size is 224 by default, and 64 of scenes, which have no other (and 16 frames or a part)
    sampling, stride, clips, crops, flip:  by default those of the data set's protocol
    cache:   a folder for decoded clips, of `cache_limit` bytes (20 GiB)
    options: of `VideoClips` (area, side, augment, finish, mean, std, backend) or `SceneClips` (length, fresh, finish,
             curriculum)

    Raises TubeletError for what is unknown, missing or empty. Opens no video.
    """
    name, named_split = split_name(data)
    split = split or named_split
    own = {
        "root": root, "labels": labels, "sampling": sampling, "stride": stride, "clips": clips, "crops": crops,
        "flip": flip, "cache": cache, "cache_limit": cache_limit,
    }  # fmt: skip
    given = [*(option for option, value in own.items() if value is not None), *options]
    check_options(name, given, options_of(name), FUNCTIONS)
    if name in SCENES:
        if size is not None and height_width(size) != (SIZE, SIZE):
            raise TubeletError(f"scenes are pictures of {SIZE} x {SIZE}, not {size}")
        options.setdefault("curriculum", train)
        options.setdefault("fresh", train)
        return SceneClips(
            split or ("train" if train else "val"), level=SCENES[name], seed=seed, frames=frames, **options
        )
    listing = find_listing(name, split, train=train, root=root, labels=labels)
    views = with_views(listing, sampling=sampling, stride=stride, clips=clips, crops=crops, flip=flip)
    if cache is not None and not isinstance(cache, FrameCache):
        cache = FrameCache(cache, **({} if cache_limit is None else {"limit": cache_limit}))
    return VideoClips(
        listing,
        train=train,
        frames=frames,
        size=224 if size is None else size,
        views=views,
        seed=seed,
        cache=cache,
        **options,
    )


def options_of(name: str) -> list[str]:
    """The options that a data set has, but for frames and size of a clip, and FUNCTIONS.

    Raises TubeletError for what is neither a name nor a path.
    """
    if name in SCENES:
        return ["split", "seed", *keywords(SceneClips, but=("seed", "level", "frames", *FUNCTIONS))]
    path = Path(name)
    if name not in READERS and not path.exists():
        raise _unknown(name)
    root = [] if name not in READERS and path.is_dir() else ["root"]  # a folder is its own root
    views = [field.name for field in fields(Views)]
    of_videos = keywords(VideoClips, but=("train", "frames", "size", "views", *FUNCTIONS))
    return ["split", *root, "labels", *views, "cache_limit", *of_videos]


def keywords(build: Callable[..., object], *, but: Collection[str]) -> list[str]:
    """The options of a function or class that are given by name alone."""
    parameters = inspect.signature(build).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in but]


def check_options(name: str, given: Iterable[str], known: Sequence[str], also: Collection[str] = ()) -> None:
    """Raises TubeletError for an option that a data set does not have, with those it has and the nearest of them.

    also:  further ones that it takes, of which the sentence says nothing
    """
    for option in given:
        if option not in known and option not in also:
            hint = suggestion(option, known)
            raise TubeletError(f"{name} has no option {option!r}; its options are {', '.join(known)}{hint}")


def split_name(data: str | Path) -> tuple[str, str | None]:
    """ "jhmdb:split1_fit" -> ("jhmdb", "split1_fit"); a path that exists is no such pair."""
    text = os.fspath(data)
    name, colon, split = text.rpartition(":")
    if not colon or os.path.exists(text) or not split or os.sep in split:
        return text, None
    return name, split


def full_name(
    data: str | Path, *, split: str | None = None, train: bool = False, root: str | Path | None = None
) -> str:
    """ "data" -> "data:val", with the split that `open_dataset` takes; a csv or a folder without splits as it is."""
    name, named = split_name(data)
    split = split or named
    if name in SCENES:
        return f"{name}:{split or ('train' if train else 'val')}"
    if Path(name).is_file():
        return name
    split = split or find_listing(name, train=train, root=root).name
    return name if Path(name).is_dir() and split == Path(name).resolve().name else f"{name}:{split}"


def find_listing(
    name: str,
    split: str | None = None,
    *,
    train: bool = False,
    root: str | Path | None = None,
    labels: Sequence[str] | None = None,
) -> Listing:
    """The listing of one split. Raises TubeletError for a split that is not there, or if one must be said."""
    found = find_splits(name, root=root, labels=labels)
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    return found[choose_split(name, split, found, train=train)]


def choose_split(name: str, split: str | None, found: Collection[str], *, train: bool) -> str:
    """The split asked for, or the default one. Raises TubeletError with those that are there if it is not."""
    wanted = [split] if split is not None else [default for default in DEFAULT_SPLITS[train] if default in found]
    if not wanted or wanted[0] not in found:
        asked = f"no split {split!r}" if split else "a split must be named"
        hint = suggestion(split or "", found)
        raise TubeletError(f"{name}: {asked}; there are {', '.join(sorted(found)) or 'none'}{hint}")
    return wanted[0]


def find_splits(
    name: str, *, root: str | Path | None = None, labels: Sequence[str] | None = None
) -> dict[str, Listing]:
    """All splits of a data set of videos. Raises TubeletError for what is neither a name nor a path in a known form."""
    if name in READERS:
        folder = Path(root) if root is not None else data_root() / name
        if not folder.is_dir():
            raise TubeletError(f"{name}: no folder {folder}; give root, or set {ROOT_VARIABLE} to the folder above it")
        return {split: _relabelled(listing, labels) for split, listing in READERS[name](folder).items()}
    path = Path(name)
    if path.is_dir():
        return folder_splits(path, labels)
    if path.is_file():
        return {path.stem: read_csv(path, labels, root=Path(root) if root else None)}
    raise _unknown(name)


def _unknown(name: str) -> TubeletError:
    known = list_datasets()
    hint = suggestion(name, known)
    return TubeletError(f"no data set {name!r}; there are {', '.join(known)}, or a folder or csv of clips{hint}")


def data_root() -> Path:
    """Raises TubeletError where the variable is not set."""
    root = os.environ.get(ROOT_VARIABLE)
    if not root:
        raise TubeletError(f"where are the data sets? Give root, or set {ROOT_VARIABLE} to the folder that holds them")
    return Path(root)


def disjoint_pairs(splits: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of splits that may share no clip.

    Splits of other divisions (split1_..., split2_...) may. So may train and what was carved out of it: where there is a
    fit, that and val are parts of train.
    """
    pairs = []
    for a, b in combinations(splits, 2):
        (group_a, _, part_a), (group_b, _, part_b) = a.rpartition("_"), b.rpartition("_")
        prefix = f"{group_a}_" if group_a else ""
        carved = {part_a, part_b} in ({"train", "fit"}, {"train", "val"}) and f"{prefix}fit" in splits
        if group_a == group_b and not carved:
            pairs.append((a, b))
    return pairs


def _relabelled(listing: Listing, labels: Sequence[str] | None) -> Listing:
    """Refuses a class list that is not the data set's own."""
    if labels is not None and list(labels) != listing.labels:
        given, own = len(labels), len(listing.labels)
        raise TubeletError(f"{listing.name}: has {own} classes of its own, and the {given} given are not the same")
    return listing
