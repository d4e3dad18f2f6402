"""Boxes and silhouettes of JHMDB in the token grid of a view."""

import torch

from tubelet.data.datasets.tubes import Tube
from tubelet.evaluation import open_for
from tubelet.evaluation.truth import box_pixels, token_map
from tubelet.selection.core import Grid


def test_a_token_counts_if_any_of_its_pixels_does():
    pixels = torch.zeros(4, 6, 8, dtype=torch.bool)
    pixels[1, 2, 3] = pixels[3, 5, 7] = True
    found = token_map(pixels, Grid(2, 3, 2))
    assert found.nonzero().tolist() == [[0, 1, 0], [1, 2, 1]]


def test_pixels_of_a_box_are_those_whose_centre_is_inside():
    tube = Tube(0, torch.tensor([0, 1, 5]), torch.tensor([[0.0, 0, 320, 240], [80, 60, 160, 120], [0, 0, 4, 4]]))
    found = box_pixels(tube, [0, 1, 2, 9], (320, 240), (60, 80))  # 4 pixels of the picture are one
    assert found.shape == (4, 60, 80) and found[0].all()
    expected = torch.zeros(60, 80, dtype=torch.bool)
    expected[15:30, 20:40] = True
    assert torch.equal(found[1], expected) and torch.equal(found[2], expected)  # the nearest frame that has one
    assert found[3].nonzero().tolist() == [[0, 0]]


def test_the_silhouette_lies_in_the_box(data_root):
    """Two annotations of one actor, each brought into the tokens of three crops on its own way."""
    import tubelet

    model = tubelet.load_model("videomae_tiny_jhmdb")
    silhouettes, boxes = (
        open_for(model, "jhmdb:split1_val", root=data_root / "jhmdb", truth=truth) for truth in ("silhouette", "box")
    )
    inside = total = 0
    for index in (0, 30, 60, 90):
        of_body, of_box = silhouettes[index].truth, boxes[index].truth
        assert of_body.shape == of_box.shape == (3, 8, 7, 7)
        inside, total = inside + int((of_body & of_box).sum()), total + int(of_body.sum())
        assert of_body.sum() < of_box.sum() < of_box.numel()
    assert inside / total > 0.95
