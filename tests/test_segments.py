"""What the channels of a mask mean: codes of classes, and back."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

import guided
from guided.segments import Segments


def named(count: int, code: str) -> Segments:
    return Segments(tuple(f"class {k}" for k in range(count)), code)


@pytest.mark.parametrize("code", ["bits", "one-hot"])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 11, 17])
def test_what_is_encoded_is_decoded(count, code):
    segments = named(count, code)
    labels = torch.arange(4 * count).reshape(1, 4, count) % count
    x0 = segments.encode(labels)
    assert x0.shape == (1, segments.channels, 4, count) and set(x0.unique().tolist()) <= {-1.0, 1.0}
    p = segments.decode(x0)
    assert p.shape == (1, 1 if count == 2 else count, 4, count)
    assert torch.equal(segments.mask(p)[:, 0].long(), labels)
    assert (segments.mask(p).dtype == torch.bool) == (count == 2)
    sure = p if count == 2 else p.amax(1, keepdim=True)
    assert_close(sure[sure > 0.5], torch.ones_like(sure[sure > 0.5]))


def test_the_number_of_channels():
    assert [named(k, "bits").channels for k in (2, 3, 4, 5, 11, 16, 17)] == [1, 2, 2, 3, 4, 4, 5]
    assert [named(k, "one-hot").channels for k in (2, 5)] == [2, 5]


def test_bits_are_independent():
    """The probability of a class is the product over its bits, among the classes there are (of four words, three)."""
    x0 = torch.tensor([0.2, -0.6]).reshape(1, 2, 1, 1)  # bit 0 is set with 0.6, bit 1 with 0.2
    p = named(3, "bits").decode(x0).flatten()
    words = torch.tensor([0.4 * 0.8, 0.6 * 0.8, 0.4 * 0.2])
    assert_close(p, words / words.sum())


def test_a_word_that_is_no_class_says_nothing():
    p = named(3, "bits").decode(torch.ones(1, 2, 1, 1))  # both bits set: the fourth of four words
    assert_close(p.flatten(), torch.full((3,), 1 / 3))


def test_one_hot_shares_add_up_even_where_no_class_is_seen():
    segments = named(4, "one-hot")
    x0 = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0)) * 2
    x0[0, :, 0, 0] = -1.5
    p = segments.decode(x0)
    assert_close(p.sum(1), torch.ones(2, 3, 3))
    assert_close(p[0, :, 0, 0], torch.full((4,), 0.25))


def test_one_hot_is_the_nearest_point_of_the_simplex():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 1, 1, generator=draw)
    found = named(4, "one-hot").decode(2 * x - 1).flatten()
    others = torch.distributions.Dirichlet(torch.ones(4)).sample((20_000,))
    gaps = (others - x.flatten()).square().sum(1)
    assert (found >= 0).all() and (found - x.flatten()).square().sum() <= gaps.min() + 1e-6
    certain = torch.tensor([0.1, 1.02, -0.05, 0.08]).reshape(1, 4, 1, 1)
    assert named(4, "one-hot").decode(2 * certain - 1).flatten()[2] == 0


def test_two_classes_say_the_seconds_probability_in_either_code():
    x0 = torch.tensor([-0.5, 0.5]).reshape(1, 2, 1, 1)
    assert_close(named(2, "one-hot").decode(x0).flatten(), torch.tensor([0.75]))
    assert_close(named(2, "bits").decode(x0[:, 1:]).flatten(), torch.tensor([0.75]))


def test_the_threshold_is_the_stored_one_unless_another_is_given():
    segments = Segments(("a", "b"), threshold=0.8)
    p = torch.tensor([0.7, 0.8, 0.9]).reshape(1, 1, 1, 3)
    assert segments.mask(p).flatten().tolist() == [False, True, True]
    assert segments.mask(p, 0.75).flatten().tolist() == [False, True, True]
    assert segments.mask(p, 0.5).all()


def test_pixels_without_a_class_are_neither():
    labels = torch.tensor([[[0, Segments.VOID, 2]]])
    for code in ("bits", "one-hot"):
        assert not named(3, code).encode(labels)[..., 1].any()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: named(1, "bits"), "at least two classes"),
        (lambda: Segments(("a", "a")), "a name of its own"),
        (lambda: named(3, "gray"), "code must be one of bits, one-hot"),
        (lambda: Segments(("a", "b"), threshold=1.0), "threshold"),
        (lambda: named(3, "bits").encode(torch.tensor([[[3]]])), "label 3, but there are 3 classes"),
        (lambda: named(3, "bits").encode(torch.tensor([[[-2]]])), "label -2"),
    ],
)
def test_clear_errors(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_the_plainest_reading_of_channels():
    assert Segments.of(1).binary and Segments.of(1).channels == 1
    assert Segments.of(5) == Segments(tuple("01234"), "one-hot")


def segmenter(segments: Segments | None) -> guided.Model:
    channels = 1 if segments is None else segments.channels
    config = guided.networks.UNetConfig(
        in_channels=channels, out_channels=channels, image_channels=3, model_channels=32, num_res_blocks=1,
        channel_mult=(1,), attention_resolutions=(), num_head_channels=32,
    )  # fmt: skip
    return guided.Model(
        guided.networks.UNet(config), None, "edm", channels=channels, image_size=8, segments=segments
    ).eval()


@pytest.mark.parametrize("segments", [None, Segments(("sky", "sea"), threshold=0.35), named(5, "bits")])
def test_a_checkpoint_keeps_the_segments(segments, tmp_path):
    guided.save(segmenter(segments), tmp_path / "saved")
    assert guided.load(tmp_path / "saved").segments == segments


def test_a_model_has_the_channels_its_segments_take():
    model = segmenter(named(3, "bits"))
    with pytest.raises(ValueError, match="these segments take 3 channels, the model has 2"):
        guided.Model(model.net, None, "edm", channels=2, segments=named(3, "one-hot"))


def test_a_config_with_damaged_segments_is_refused(tmp_path):
    import json

    guided.save(segmenter(named(3, "bits")), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["segments"]["colour"] = "red"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"segments in config\.json has an unknown key 'colour'"):
        guided.load(tmp_path)
