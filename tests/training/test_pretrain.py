"""Masked auto-encoding: what is hidden, what is to be told, and that it is learnt."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import moving, tiny
from tests.training.tiny import MODEL, config, train
from tubelet import load_model
from tubelet.selection.core import Grid
from tubelet.training.log import read_log
from tubelet.training.pretrain import MaskedAutoencoder, tubelet_pixels, visible_tubes


@given(st.integers(1, 8), st.integers(2, 6), st.integers(1, 6), st.floats(0.05, 0.95))
def test_a_tube_is_hidden_in_all_slots(t, h, w, mask):
    grid = Grid(t, h, w)
    visible, hidden = visible_tubes(3, grid, mask)
    for seen, not_seen in zip(visible, hidden, strict=True):
        assert torch.equal(torch.cat([seen, not_seen]).sort().values, torch.arange(grid.tokens))
        places = seen.view(t, -1) - torch.arange(t)[:, None] * grid.per_frame
        assert torch.equal(places, places[:1].expand(t, -1))
    assert abs(hidden.shape[1] / grid.tokens - mask) <= max(0.5, 1) / grid.per_frame + 1e-9 or h * w == 2


def test_pixels_of_each_token():
    clip = torch.randn(2, 3, 4, 16, 24)
    told = tubelet_pixels(clip, 2, 8, normalise=False).view(
        2, 2, 2, 3, 2, 8, 8, 3
    )  # t h w, tubelet patch patch, colour
    assert torch.equal(told[1, 1, 0, 2], clip[1, :, 2:4, 0:8, 16:24].permute(1, 2, 3, 0))
    normal = tubelet_pixels(clip, 2, 8, normalise=True).view(2, 12, -1, 3)
    torch.testing.assert_close(normal.mean(2), torch.zeros(2, 12, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.var(2), torch.ones(2, 12, 3), atol=1e-4, rtol=0)


def test_the_encoder_sees_nothing_of_what_is_hidden():
    """Changing hidden pixels changes the loss, but neither what the encoder computes nor what is told."""
    model = MaskedAutoencoder(tiny(), mask=0.75, dim=24, depth=1, heads=2, normalise=False)
    clip, told = moving(2), []
    model.to_pixels.register_forward_hook(lambda module, inputs, output: told.append(output))
    torch.manual_seed(3)
    _, hidden = visible_tubes(2, model.encoder.grid, 0.75)
    changed = clip.clone()
    for b, index in enumerate(hidden[:, 0]):  # the first hidden tube's first tubelet
        row, column = divmod(int(index), 4)
        changed[b, :, :2, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 5
    losses = []
    for x in (clip, changed):
        torch.manual_seed(3)
        losses.append(model(x).item())
    assert torch.equal(told[0], told[1]) and losses[0] != losses[1]


def test_the_loss_falls():
    """On pictures of one slope each, which any visible part tells."""
    encoder = tiny(dim=48, depth=2, frames=4, num_classes=0)
    model = MaskedAutoencoder(encoder, mask=0.6, dim=48, depth=1, heads=2, normalise=False).train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    ramp, losses = torch.linspace(-1, 1, 32), []
    for _ in range(150):
        level, right, down = torch.randn(3, 16, 3, 1, 1, 1)
        clip = (level + right * ramp + down * ramp[:, None]).expand(-1, -1, 4, -1, -1)
        loss = model(clip)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-30:]) / 30 < 0.75 * sum(losses[:10]) / 10


def test_the_encoder_is_kept(tmp_path):
    small = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
    first = train(config(tmp_path / "one", task="pretrain", augment={}, pretrain=small))
    again = train(config(tmp_path / "two", task="pretrain", augment={}, pretrain=small))
    assert first.last == again.last  # the same tubes are hidden when it is judged
    assert len([row for row in read_log(tmp_path / "one") if row.get("weights") == "ema"]) == 2
    encoder = load_model(tmp_path / "one")
    assert encoder.num_classes == 0 and encoder.dim == MODEL["dim"]


def test_a_classifier_begins_from_it(tmp_path):
    small = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
    train(config(tmp_path / "pre", task="pretrain", steps=2, pretrain=small, ema=0.0, augment={}))
    begun = train(config(tmp_path / "fine", steps=1, model={"weights": str(tmp_path / "pre")}, optimizer={"lr": 0.0}))
    before, after = load_model(tmp_path / "pre"), load_model(begun.out)
    assert after.num_classes == 12 and after.config.id2label[0] == "red left"
    for name, weight in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], weight), name
