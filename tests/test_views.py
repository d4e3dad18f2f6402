"""What the answers for the views of a clip become."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tubelet.errors import TubeletError
from tubelet.views import AVERAGES, average_views

SURE = torch.tensor([[[9.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]])  # one view sure of 0, two that lean to 1


def test_a_sure_view_counts_for_more_among_logits():
    assert average_views(SURE, "logits").argmax() == SURE.sum(dim=1).argmax() == 0
    assert average_views(SURE[:, 1:], "logits").argmax() == 1
    by_hand = sum(view.softmax(dim=-1) for view in SURE[0]) / 3
    assert torch.allclose(average_views(SURE)[0], by_hand)
    assert not torch.allclose(average_views(SURE), average_views(SURE, "logits"), atol=0.05)


@given(st.integers(0, 1000), st.sampled_from(AVERAGES))
def test_probabilities_leave_and_one_view_is_its_softmax(seed, average):
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(seed)) * 4
    scores = average_views(logits, average)
    assert scores.shape == (2, 5) and torch.allclose(scores.sum(dim=1), torch.ones(2))
    assert torch.allclose(average_views(logits[:, :1], average), logits[:, 0].softmax(dim=-1))


def test_another_average_is_refused():
    with pytest.raises(TubeletError, match="average='median': 'probabilities' or 'logits'"):
        average_views(SURE, "median")
