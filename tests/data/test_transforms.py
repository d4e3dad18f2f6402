import pytest
import torch

from tubelet.data import transforms
from tubelet.errors import TubeletError


def ramp(height, width, frames=2):
    columns = torch.linspace(0, 255, width).round().to(torch.uint8)
    return columns.view(1, 1, width, 1).expand(frames, height, width, 3).contiguous()


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (256, 340, 224, (224, 297)),
        (340, 256, 224, (297, 224)),
        (224, 224, 224, (224, 224)),
        (50, 50, 224, (224, 224)),
        (720, 1280, (224, 224), (224, 398)),
        (720, 1280, (240, 480), (270, 480)),
        (100, 401, (50, 50), (50, 200)),
    ],
)
def test_covering_size(height, width, size, expected):
    assert transforms.covering_size(height, width, size) == expected


def test_resize_of_uint8_is_that_of_float_within_a_grey_level():
    frames = torch.randint(0, 256, (2, 61, 83, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    small = transforms.resize(frames, (20, 27))
    assert small.dtype == torch.uint8
    assert (small.float() - transforms.resize(frames.float(), (20, 27))).abs().max() <= 1


def test_resize_has_antialias():
    stripes = torch.zeros(1, 64, 64, 3)
    stripes[:, :, ::3] = 255  # four columns to one: without antialias some would be all bright, others all dark
    inner = transforms.resize(stripes, (16, 16))[:, :, 1:-1]
    assert (inner - 255 / 3).abs().max() < 20


@pytest.mark.parametrize(("height", "width"), [(20, 50), (50, 20), (20, 20), (21, 51)])
def test_three_crops_lie_along_the_long_side(height, width):
    frames = torch.arange(height * width).view(1, height, width, 1).expand(1, height, width, 3)
    first, middle, last = transforms.crops(frames, 20, 3)
    assert torch.equal(first[0, 0, 0], frames[0, (height - 20) // 2 if width > height else 0, 0])
    assert torch.equal(middle, transforms.crops(frames, 20, 1)[0])
    assert torch.equal(last[0, -1, -1], frames[0, -1 - (height - 20 + 1) // 2 if width > height else -1, -1])
    assert {tuple(crop.shape) for crop in (first, middle, last)} == {(1, 20, 20, 3)}


def test_normalize():
    clip = transforms.normalize(ramp(4, 6), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.25))
    assert clip.shape == (3, 2, 4, 6)
    assert clip.dtype == torch.float32
    assert clip[:, 0, 0, 0].tolist() == [-1, -1, -2]
    assert clip[:, 0, 0, -1].tolist() == [1, 1, 2]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: transforms.crops(ramp(20, 20), 20, 2), "crops must be 1 or 3, got 2"),
        (lambda: transforms.crops(ramp(20, 20), 21, 1), "21 x 21 crop does not fit in a 20 x 20"),
        (lambda: transforms.short_side(ramp(4, 6), 0), "size must be positive, got 0"),
        (lambda: transforms.resize(ramp(4, 6), (10**5, 10**5)), "too large"),
        (lambda: transforms.normalize(ramp(4, 6), std=(0, 1, 1)), "std above 0"),
    ],
)
def test_refusals_name_the_value_and_what_is_allowed(call, words):
    with pytest.raises(TubeletError, match=words):
        call()
