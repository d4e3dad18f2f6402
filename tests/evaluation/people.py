"""Annotated videos of a moving square, and a tiny detector that takes them."""

import torch

from tests.tiny import tiny_detector
from tubelet.data import write_video
from tubelet.models.config import Preprocessing

LABELS = ("sit", "walk")
MAP = "".join(f'item {{ name: "{number}" id: {number} }}\n' for number in range(1, 81) if number != 7)


def drawn(path, frames=20, height=48, width=64, fps=25):
    """A white square of 12 pixels that moves one pixel a frame: its box at frame t is t + 4, 10, t + 16, 22."""
    video = torch.full((frames, height, width, 3), 30, dtype=torch.uint8)
    for t in range(frames):
        video[t, 10:22, t + 4 : t + 16] = 230
    write_video(path, video, fps=fps)


def videos(folder, count=4, frames=20):
    """A csv of boxes and its videos, of two classes in turn; of each film two. The first and last frame have no box."""
    rows = ["path,frame,x1,y1,x2,y2,label"]
    for number in range(count):
        name = f"film{number // 2}_walk_u_cm_np1_fr_med_{number}.mp4"
        drawn(folder / name, frames)
        rows += [f"{name},{t},{t + 4},10,{t + 16},22,{LABELS[number % 2]}" for t in range(1, frames - 1)]
    (folder / "boxes.csv").write_text("\n".join(rows) + "\n")
    return folder / "boxes.csv"


def people_model(**arguments):
    model = tiny_detector(**{"size": 32, "num_classes": len(LABELS), **arguments})
    model.config.preprocessing = Preprocessing(8, 1, 32, (0.45,) * 3, (0.225,) * 3, "keyframe")
    model.config.id2label = dict(enumerate(LABELS))
    return model


def box(frame):
    """The square of `drawn`, as shares of the picture."""
    return [(frame + 4) / 64, 10 / 48, (frame + 16) / 64, 22 / 48]


def films(folder, more=()):
    """AVA's files of two films from second 900 on, 5 frames a second; a second without people, one excluded."""
    for name in ("abc", "def"):
        drawn(folder / f"{name}.mp4", fps=5)
    rows = [
        f"{name},{second:04d},{','.join(f'{side:.3f}' for side in box((second - 900) * 5))},{label},0"
        for name, second, labels in (
            ("def", 901, [12]),
            ("abc", 903, [12, 80]),
            ("abc", 901, [12, 7]),
            ("abc", 902, [3]),
        )
        for label in labels
    ]
    (folder / "val_v2.2.csv").write_text("\n".join([*rows, "abc,0900", *more]) + "\n")
    (folder / "val_excluded_timestamps_v2.2.csv").write_text("abc,0902\n")
    (folder / "map.pbtxt").write_text(MAP)
    return folder / "val_v2.2.csv"


def ava_model(**arguments):
    model = people_model(num_classes=80, **arguments)
    model.config.id2label = {number: str(number + 1) for number in range(80)}
    return model
