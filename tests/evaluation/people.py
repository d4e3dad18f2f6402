"""Annotated videos of a moving square, and a tiny detector that takes them."""

import torch

from tests.tiny import tiny_detector
from tubelet.data import write_video
from tubelet.models.config import Preprocessing

LABELS = ("sit", "walk")


def drawn(path, frames=20, height=48, width=64):
    """A white square of 12 pixels that moves one pixel a frame: its box at frame t is t + 4, 10, t + 16, 22."""
    video = torch.full((frames, height, width, 3), 30, dtype=torch.uint8)
    for t in range(frames):
        video[t, 10:22, t + 4 : t + 16] = 230
    write_video(path, video, fps=25)


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
    model = tiny_detector(size=32, num_classes=len(LABELS), **arguments)
    model.config.preprocessing = Preprocessing(8, 1, 32, (0.45,) * 3, (0.225,) * 3, "keyframe")
    model.config.id2label = dict(enumerate(LABELS))
    return model
