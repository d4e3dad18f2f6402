"""Pictures of the tokens kept: what was drawn is read back and compared with what the model kept."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tubelet
from tests.tiny import tiny
from tubelet.cli import main
from tubelet.data import load_clips, open_video, write_video
from tubelet.visualize import Step, animation, contact_sheet, draw, font, visualize

SELECT = "sta:keep=0.5"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright and colourful clip, in which what is dimmed cannot be missed."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    frames = torch.randint(128, 256, (80, 8, 10, 3)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    write_video(path, frames.byte(), fps=25)
    return path


def step(mask: torch.Tensor) -> Step:
    return Step("sta", "after", 0, int(mask.sum()), mask.numel(), mask, merged=False)


def test_kept_cells_stay_and_dropped_ones_are_dim_and_grey():
    frames = torch.randint(100, 256, (4, 24, 32, 3)).byte()
    mask = torch.rand(2, 3, 4) < 0.5
    shaded = draw.shade(frames, mask)
    assert shaded.shape == frames.shape and shaded.dtype == torch.uint8
    for t, row, column in [(t, r, c) for t in range(2) for r in range(3) for c in range(4)]:
        inner = (slice(2 * t, 2 * t + 2), slice(8 * row + 1, 8 * row + 8), slice(8 * column + 1, 8 * column + 8))
        if mask[t, row, column]:
            assert torch.equal(shaded[inner], frames[inner])
        else:
            assert shaded[inner].float().mean() < 0.45 * frames[inner].float().mean()
            colourful = frames[inner].float().std(-1).mean()
            assert shaded[inner].float().std(-1).mean() < 0.3 * colourful


def test_lines_between_cells_are_darker_and_around_the_kept_lighter():
    frames = torch.full((1, 8, 32, 3), 120, dtype=torch.uint8)
    shaded = draw.shade(frames, torch.tensor([[[True, True, False, False]]]))[0, :, :, 0]
    assert (
        (shaded[:, 8] < 120).all() and (shaded[:, 16] > shaded[:, 17]).all() and (shaded[:, 24] < shaded[:, 25]).all()
    )


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_an_animation_has_a_panel_a_step(clip: Path, tmp_path: Path, suffix: str):
    out = tmp_path / f"kept{suffix}"
    model = tiny(select=SELECT)
    drawing = visualize(model, clip, out)
    assert Path(drawing.out) == out and len(drawing.steps) == 3
    with open_video(out) as video:
        frames = video.read(range(model.frames))
        assert video.info.frames % model.frames == 0
        assert suffix == ".gif" or video.info.duration > 5
    side = 224
    top = frames.shape[1] - draw.MARGIN - side
    brightness = []
    for i in range(4):
        left = draw.MARGIN + i * (side + draw.MARGIN)
        brightness.append(frames[:, top : top + side, left : left + side].float().mean())
    assert frames.shape[2] - (left + side + draw.MARGIN) in (0, 1)  # H.264 needs even sides
    assert brightness == sorted(brightness, reverse=True) and brightness[3] < 0.8 * brightness[0]


def test_a_sheet_has_a_row_a_step_and_a_column_a_slot(clip: Path, tmp_path: Path):
    model = tiny(select=SELECT)
    drawing = visualize(model, clip, tmp_path / "kept.png")
    with open_video(tmp_path / "kept.png") as video:
        picture = video.read([0])[0]
    assert picture.shape[1] == 8 * (224 + draw.MARGIN) + draw.MARGIN
    assert picture.shape[0] > 4 * 224
    # the last row, cell by cell, against what the model kept
    p = model.config.preprocessing
    seen = load_clips(clip, frames=p.frames, stride=p.stride, size=p.size).tensor
    mask = tubelet.trace(model, seen)[-1].mask[0]
    assert torch.equal(mask, drawing.steps[-1].mask) and drawing.steps[-1].kept == mask.sum()
    cell = 224 // mask.shape[1]
    row = picture[-draw.MARGIN - 224 : -draw.MARGIN].float()
    levels = torch.empty(mask.shape)
    for t in range(8):
        left = draw.MARGIN + t * (224 + draw.MARGIN)
        part = row[:, left : left + 224].mean(-1).unfold(0, cell, cell).unfold(1, cell, cell)
        levels[t] = part.mean((-1, -2))
    assert levels[mask].min() > levels[~mask].max()


def test_each_row_of_a_sheet_has_the_mask_of_its_own_step():
    frames = torch.full((4, 64, 64, 3), 200, dtype=torch.uint8)
    masks = [torch.zeros(2, 2, 2, dtype=torch.bool) for _ in range(3)]
    for i, mask in enumerate(masks):
        mask.view(2, 4)[:, : 3 - i] = True  # of four cells 3, 2, 1
    sheet = contact_sheet(frames, [step(mask) for mask in masks], ["model", "spec"], [0, 1, 2, 3])[0]
    row = draw.LINE_HEIGHT + 2 * draw.MARGIN + 64
    for i, mask in enumerate(masks):
        top = sheet.shape[0] - (3 - i) * row + draw.LINE_HEIGHT + draw.MARGIN
        cells = sheet[top : top + 64, draw.MARGIN : draw.MARGIN + 64].float().mean(-1)
        bright = cells.unfold(0, 32, 32).unfold(1, 32, 32).mean((-1, -2)) > 150
        assert torch.equal(bright, mask[0])


def test_a_sheet_has_the_time_of_its_frame_above_each_column():
    frames = torch.zeros(4, 64, 64, 3, dtype=torch.uint8)
    frames[2:] = 90
    steps = [step(torch.ones(2, 2, 2, dtype=torch.bool))]
    sheet = contact_sheet(frames, steps, ["m", "s"], [0.25, 1.0, 7.5, 9.0])[0]
    below = 2 * (draw.LINE_HEIGHT + 2 * draw.MARGIN + 64)  # the input's row and that of the step
    clock = sheet[: sheet.shape[0] - below]
    for column, time in enumerate(["0.25 s", "7.50 s"]):
        left = draw.MARGIN + column * (64 + draw.MARGIN)
        dots = (clock[-draw.LINE_HEIGHT - draw.MARGIN :, left : left + 64] == torch.tensor(draw.FAINT)).all(-1)
        text = font.text(time, draw.TEXT_SCALE)
        assert torch.equal(dots[2 : 2 + text.shape[0], : text.shape[1]], text)
        assert sheet[-draw.MARGIN - 60, left + 5].tolist() == [90 * column] * 3


def test_frames_are_drawn_in_order_and_in_their_colours(tmp_path: Path):
    """A clip that turns from red to blue, each frame a little more."""
    share = torch.linspace(0, 1, 16).view(16, 1, 1, 1).expand(16, 64, 64, 1)
    colours = torch.cat([220 * (1 - share), torch.full_like(share, 60), 220 * share], dim=-1)
    write_video(tmp_path / "clip.mp4", colours.round().byte(), fps=25)
    model = tiny(select=SELECT)
    model.config.preprocessing = replace(model.config.preprocessing, frames=16, stride=1)
    visualize(model, tmp_path / "clip.mp4", tmp_path / "kept.mp4")
    with open_video(tmp_path / "kept.mp4") as video:
        frames = video.read(range(16))
    top = frames.shape[1] - draw.MARGIN - 224
    panel = frames[:, top + 80 : top + 120, draw.MARGIN + 80 : draw.MARGIN + 120].float().mean((1, 2))  # the input
    assert (panel - colours[:, 0, 0]).abs().max() < 25


def test_many_slots_and_many_steps_fit():
    frames = torch.zeros(32, 64, 64, 3, dtype=torch.uint8)
    steps = [step(torch.ones(16, 4, 4, dtype=torch.bool))] * 6
    sheet = contact_sheet(frames, steps, ["model", "spec"], [0.1 * i for i in range(32)])
    assert sheet.shape[0] == 1 and sheet.shape[2] == 8 * (64 + draw.MARGIN) + draw.MARGIN
    moving = animation(frames, steps, ["model", "spec" * 100])
    assert moving.shape[0] == 32 and moving.shape[2] == 4 * (64 + draw.MARGIN) + draw.MARGIN


def test_merged_tokens_are_said_to_be_merged(clip: Path, tmp_path: Path):
    drawing = visualize(tiny(select="merge:r=8"), clip, tmp_path / "kept.png")
    assert all(one.merged for one in drawing.steps) and len(drawing.steps) == 6
    assert not any(one.merged for one in visualize(tiny(select=SELECT), clip, tmp_path / "kept.png").steps)


def test_an_oblong_model(clip: Path, tmp_path: Path):
    visualize(tiny("vit_wide", select=SELECT), clip, tmp_path / "kept.png")
    with open_video(tmp_path / "kept.png") as video:
        assert video.info.width == 8 * (336 + draw.MARGIN) + draw.MARGIN


@pytest.mark.parametrize("select", ["none", "sta:r=0", "random:keep=1.0@2"])
def test_nothing_dropped_is_nothing_to_show(clip: Path, tmp_path: Path, select: str):
    with pytest.raises(tubelet.TubeletError, match="drops no token"):
        visualize(tiny(select=select), clip, tmp_path / "kept.png")
    assert not (tmp_path / "kept.png").exists()


def test_every_printable_character_has_its_own_glyph():
    characters = [chr(code) for code in range(33, 127)]
    dots = [font._FONT[character] for character in characters]
    assert all(glyph.any() for glyph in dots)
    different = {tuple(glyph.flatten().tolist()) for glyph in dots}
    assert len(different) == len(characters)


def test_text_grows_with_its_scale_and_replaces_what_it_lacks():
    assert font.text("ab", 1).shape[0] == font.HEIGHT
    assert font.text("ab", 3).shape == tuple(3 * side for side in font.text("ab", 1).shape)
    assert torch.equal(font.text("\u00e9"), font.text("?"))
    assert font.text("").shape[0] == 2 * font.HEIGHT


def test_the_command_says_what_was_kept_and_where_it_is(clip: Path, tmp_path: Path, capsys):
    tubelet.save_model(tiny(), tmp_path / "tiny")
    words = ["visualize", clip, "--model", tmp_path / "tiny", "--select", SELECT, "--out", tmp_path / "kept.png"]
    assert main([str(word) for word in words]) == 0
    out = capsys.readouterr().out
    assert "sta after block 0" in out and f"drawn to {tmp_path / 'kept.png'}" in out
    assert main([*(str(word) for word in words), "--json"]) == 0
    drawn = json.loads(capsys.readouterr().out)
    assert set(drawn) == {"video", "out", "model", "select", "steps"}
    assert [one["block"] for one in drawn["steps"]] == [0, 2, 4]


def test_small_cells_have_no_lines_but_around_what_is_kept():
    frames = torch.full((1, 8, 32, 3), 100, dtype=torch.uint8)
    shaded = draw.shade(frames, torch.tensor([[[True] * 4 + [False] * 4]]))[0, 4, :, 0]
    assert (shaded[:16] == 100).all() and shaded[16] > 200 and (shaded[17:] < 60).all()


def test_scores_are_light_where_high_and_dim_where_there_is_none():
    frames = torch.full((2, 8, 16, 3), 128, dtype=torch.uint8)
    tinted = draw.tint(frames, torch.tensor([[[0.0, 0.3, 1.0, float("nan")]]])).float()
    levels = tinted[0, 0, ::4].mean(-1)
    assert levels[0] < levels[1] < levels[2] and levels[3] < 0.5 * 128
    assert tinted[0, 0, 12].std() < 5 < tinted[0, 0, 4].std()  # grey, and coloured


def test_mvit_shows_frames_regions_and_scores(clip: Path, tmp_path: Path):
    """Frames left out are grey, one region of each other is bright, and each step's scores stand above it."""
    model = tiny("mvit", select="stts:T5@0-S2@3")
    drawing = visualize(model, clip, tmp_path / "kept.png")
    frames, region = drawing.steps
    kept = frames.mask.flatten(1).any(1)
    assert kept.sum() == 5 and region.mask.sum() == 5 * 4 * 4
    assert (frames.scores.flatten(1).std(1) == 0).all() and not frames.scores.isnan().any()  # one a frame
    assert torch.equal(region.scores.isnan(), ~frames.mask)
    assert frames.scores[kept].min() > frames.scores[~kept].max()
    with open_video(tmp_path / "kept.png") as video:
        picture = video.read([0])[0].float().mean(-1)
    step = draw.LINE_HEIGHT + 2 * draw.MARGIN + 224
    assert picture.shape[0] > 5 * step  # input, and two rows a step
    for t in range(8):
        left = draw.MARGIN + t * (224 + draw.MARGIN)
        cells = picture[-draw.MARGIN - 224 : -draw.MARGIN, left : left + 224].unfold(0, 28, 28).unfold(1, 28, 28)
        bright = cells.mean((-1, -2)) > 110
        assert torch.equal(bright, region.mask[t])
    visualize(model, clip, tmp_path / "kept.gif")
    with open_video(tmp_path / "kept.gif") as video:
        assert video.info.width == 4 * (224 + draw.MARGIN) + draw.MARGIN
