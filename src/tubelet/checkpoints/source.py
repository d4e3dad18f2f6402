"""Where weights are: a folder, a file, the package itself, the Hugging Face hub."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tubelet.checkpoints import own
from tubelet.checkpoints.files import SUFFIXES, Contents, read_file, read_json
from tubelet.checkpoints.report import name_some
from tubelet.errors import CheckpointError
from tubelet.models.registry import list_models

PACKAGED = Path(__file__).parent.parent / "weights"
DEFAULT = "videomae_tiny_jhmdb"
DEFAULT_DETECTOR, DETECTORS = "evad_tiny_jhmdb", ("evad",)
# In this order; an index lists the files that the weights are spread over.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_SETTINGS = ["config.json", *PROCESSORS]
HUB_WEIGHTS = (  # the second only where there are none of the first
    ["model.safetensors", "model-*.safetensors", "model.safetensors.index.json"],
    ["pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"],
)
HUB_SECONDS = 10.0


@dataclass
class Source:
    """Files to read, and the settings beside them."""

    name: str
    files: list[Path]
    config: dict[str, Any] | None = None
    processor: dict[str, Any] | None = None
    keys: dict[str, str] = field(default_factory=dict)  # key -> file, as an index says


def packaged_models() -> list[str]:
    """Names of the weights that come with the package."""
    return sorted(path.parent.name for path in PACKAGED.glob("*/config.json"))


def default_model() -> str:
    """The packaged model that is used where none is named. Raises CheckpointError if no weights were packaged."""
    names = [name for name in packaged_models() if _architecture(name) not in DETECTORS]
    if not names:
        raise CheckpointError("no weights come with this copy of tubelet: name a folder, a file or a hub id")
    return DEFAULT if DEFAULT in names else names[0]


def default_detector() -> str:
    """The packaged detector that is used where none is named. Raises CheckpointError if none was packaged."""
    names = [name for name in packaged_models() if _architecture(name) in DETECTORS]
    if not names:
        raise CheckpointError("no detector comes with this copy of tubelet: name a folder or a file with --model")
    return DEFAULT_DETECTOR if DEFAULT_DETECTOR in names else names[0]


def _architecture(packaged: str) -> object:
    return read_json(PACKAGED / packaged / "config.json").get("architecture")


def find(source: str | Path) -> Source:
    """Resolve what load_model was given. Raises CheckpointError, one sentence, if nothing is there."""
    if not isinstance(source, (str, Path)) or source == "":
        raise CheckpointError(
            f"source {source!r}: a folder, a file, a hub id or the name of a packaged model is expected"
        )
    name, path = str(source), Path(source)
    try:
        path = path.expanduser()
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a zero byte, no such user
        raise CheckpointError(f"{name[:80]!r} cannot be a path: {getattr(error, 'strerror', None) or error}") from error
    if exists:
        return in_folder(path, name) if is_folder else in_folder(path.parent, name, path.name)
    if name in packaged_models():
        return in_folder(PACKAGED / name, name)
    if name in list_models():
        raise CheckpointError(
            f"{name} is an architecture whose weights do not come with the package, and random ones give no answer: "
            f"give a saved model, a checkpoint or a hub id; packaged are {', '.join(packaged_models()) or 'none'}"
        )
    if HUB_ID.fullmatch(name) and path.suffix not in SUFFIXES:
        return in_folder(download(name), name)
    raise CheckpointError(
        f"{name!r} is no folder, file, hub id (user/name) or packaged model; packaged are "
        f"{', '.join(packaged_models()) or 'none'}"
    )


def in_folder(folder: Path, name: str, weights: str | None = None) -> Source:
    """The weights and settings in a folder: the project's own, Hugging Face's, or a single file of weights."""
    files = [weights] if weights else [file for file in WEIGHTS if (folder / file).exists()][:1]
    if not files:
        files = sorted(path.name for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    if len(files) != 1:
        held = name_some(files or sorted(path.name for path in folder.iterdir())) or "nothing"
        what = "several files of weights: name one of" if files else f"no weights (such as {WEIGHTS[0]}); it holds"
        raise CheckpointError(f"{name} has {what} {held}")
    found = Source(name, [folder / files[0]])
    if files[0].endswith(".index.json"):
        found.keys = _index(folder / files[0])
        found.files = [folder / file for file in sorted(set(found.keys.values()))]
        if lost := [path.name for path in found.files if not path.exists()]:
            raise CheckpointError(f"{name} lacks {name_some(lost)}, which {files[0]} lists")
    if (folder / "config.json").exists():
        found.config = read_json(folder / "config.json")
    processor = next((folder / file for file in PROCESSORS if (folder / file).exists()), None)
    if processor is not None:
        found.processor = read_json(processor)
    return found


def _index(path: Path) -> dict[str, str]:
    keys = read_json(path).get("weight_map")
    if not isinstance(keys, dict) or not keys:
        raise CheckpointError(f"{path} has no weight_map")
    if strange := [file for file in keys.values() if not isinstance(file, str) or Path(file).name != file]:
        raise CheckpointError(f"{path} lists files outside its folder: {name_some(map(str, strange))}")
    return keys


def read(source: Source) -> Contents:
    """All files of a source as one; with an index, each key must be where it says. Raises CheckpointError."""
    merged = Contents({})
    home: dict[str, str] = {}
    for path in source.files:
        contents = read_file(path)
        if twice := [key for key in contents.tensors if key in home]:
            raise CheckpointError(f"{path.name} and {home[twice[0]]} both hold {name_some(twice)}")
        home.update(dict.fromkeys(contents.tensors, path.name))
        merged.tensors.update(contents.tensors)
        merged.unused.update(contents.unused)
        merged.metadata.update(contents.metadata)
    if lost := [f"{key} ({file})" for key, file in source.keys.items() if home.get(key) != file]:
        raise CheckpointError(f"{source.name} lacks keys that its index lists: {name_some(lost)}")
    if not merged.tensors:
        raise CheckpointError(f"{source.name} holds no weights")
    if "tubelet" in merged.metadata:
        header = _from_metadata(merged.metadata["tubelet"], source.name)
        if source.config is None:  # model.safetensors without its folder
            source.config = header
        else:
            own.compare(source.config, header, source.name)
    return merged


def _from_metadata(text: str, name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{name} has a configuration in its header that cannot be read: {error}") from error


def download(repo: str) -> Path:
    """The local copy of a model of the hub, fetched if need be. Raises CheckpointError, one sentence."""
    from huggingface_hub import snapshot_download

    try:
        for weights in HUB_WEIGHTS:
            folder = Path(snapshot_download(repo, allow_patterns=HUB_SETTINGS + weights, etag_timeout=HUB_SECONDS))
            if any(path.name in WEIGHTS for path in folder.iterdir()):
                break
        return folder
    except Exception as error:  # of several libraries, whose classes change from version to version
        raise CheckpointError(
            f"{repo!r} is no folder or file here, and as a hub id it cannot be had: {_hub_says(error)}"
        ) from error


def _hub_says(error: Exception) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return "its owner lets people in one by one; ask on its page and log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has no such model, or it is private (log in with `hf auth login`)"
    if isinstance(error, LocalEntryNotFoundError):
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        return f"it is not complete in the local cache ({constants.HF_HUB_CACHE}), and {why}"
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
