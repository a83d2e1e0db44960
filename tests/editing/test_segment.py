"""Segmentation by diffusion: ensembles follow the posterior, seeds, early stop, what is refused."""

from __future__ import annotations

import functools
import inspect
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import editing
import guided
from editing import segmentation
from editing.segmentation import standard_error, summarise
from guided import Segments
from tests.editing.segment_toys import one_of, picture

SHAPES = torch.stack([torch.ones(1, 4, 4), -torch.ones(1, 4, 4)])
SHAPES[:, :, :, :2] = 1  # the left half is foreground in both masks, the right half in the first


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "ddpm"])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_samples_follow_the_posterior(share, sampler):
    """The mean is the probability given the picture, the spread that of a coin, and all of it disagreement."""
    count, model = 300, one_of(SHAPES)
    result = editing.segment(
        model, picture(math.log(share), math.log(1 - share)), samples=count, steps=15, seeds=0, sampler=sampler,
        batch_size=300,
    )  # fmt: skip
    found = float(result.probability[0, 0, 0, 3])
    assert found == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / count))
    assert_close(result.probability[..., :2], torch.ones(1, 1, 4, 2), atol=1e-3, rtol=0)
    assert_close(result.std[..., 2:], torch.full((1, 1, 4, 2), math.sqrt(found * (1 - found))), atol=1e-3, rtol=0)
    coin = -found * math.log(found) - (1 - found) * math.log(1 - found)
    assert_close(result.entropy[..., 2:], torch.full((1, 1, 4, 2), coin), atol=1e-3, rtol=0)
    assert_close(result.mutual_information, result.entropy, atol=0.01, rtol=0)
    assert result.samples.shape == (count, 1, 1, 4, 4) and result.mask.dtype == torch.bool


def test_a_sure_model_has_no_uncertainty():
    result = editing.segment(one_of(SHAPES[:1]), picture(0.0), samples=4, steps=5, seeds=0)
    for value in (result.entropy, result.mutual_information, result.std):
        assert value.abs().max() < 1e-5
    assert torch.equal(result.mask, SHAPES[:1] > 0)


@pytest.mark.parametrize("code", ["bits", "one-hot"])
def test_many_classes_in_either_code(code):
    segments = Segments(tuple("abcde"), code)
    labels = torch.arange(5)[:, None, None].expand(5, 4, 4)  # whole pictures of one class
    logs = [math.log(p) for p in (0.5, 0.25, 0.1, 0.08, 0.07)]
    result = editing.segment(
        one_of(segments.encode(labels), segments), picture(*logs), samples=300, steps=12, seeds=0, batch_size=300
    )
    assert result.probability.shape == (1, 5, 4, 4) and result.mask.dtype == torch.int64
    assert result.mask.shape == (1, 1, 4, 4) and not result.mask.any()
    wanted = torch.tensor(logs).exp()
    gap = (result.probability[0, :, 0, 0] - wanted).abs()
    assert (gap < 4 * (wanted * (1 - wanted) / 300).sqrt() + 1e-3).all()
    assert_close(result.probability.sum(1), torch.ones(1, 4, 4))
    exact = torch.special.entr(result.probability).sum(1, keepdim=True)
    assert_close(result.entropy, exact)


def test_mutual_information_is_the_part_that_samples_disagree_about():
    same = summarise(torch.full((3, 1, 1, 1, 1), 0.5), Segments.of(1))
    assert_close(same.entropy.flatten(), torch.tensor([math.log(2)]))
    assert_close(same.mutual_information.flatten(), torch.zeros(1), atol=1e-6, rtol=0)
    apart = summarise(torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1, 1), Segments.of(1))
    assert_close(apart.mutual_information.flatten(), torch.tensor([math.log(2)]))
    assert_close(apart.std.flatten(), torch.tensor([0.5]))


# --- seeds and early stop -------------------------------------------------------------------------------------


def test_a_sample_is_a_function_of_its_seed_and_number():
    model, images = one_of(SHAPES), picture(0.0, 0.0, n=3)
    run = functools.partial(editing.segment, model, steps=6)
    whole = run(images, samples=5, seeds=[7, 8, 9], batch_size=100)
    assert whole.seeds == [7, 8, 9]
    assert_close(run(images, samples=5, seeds=7, batch_size=2).samples, whole.samples, atol=1e-5, rtol=0)
    assert_close(run(images[1:2], samples=3, seeds=8).samples[:, 0], whole.samples[:3, 1], atol=1e-5, rtol=0)
    assert not torch.equal(whole.samples[:, 0], whole.samples[:, 1])  # of other pictures the noise is another


def test_it_is_the_sampler_and_the_derived_seeds_and_nothing_else():
    model, image = one_of(SHAPES), picture(0.2, 0.0)
    sigmas, noise = model.sigmas(6), guided.SeededNoise([guided.derive_seed(3, 1)])
    x = float(sigmas[0]) * noise(torch.empty(1, 1, 4, 4))
    by_hand = guided.last(guided.ddpm(guided.clamp(model.given(image=image)), x, sigmas, noise=noise))
    result = editing.segment(model, image, samples=2, steps=6, seeds=3)
    assert_close(result.samples[1], (by_hand + 1) / 2, atol=1e-5, rtol=0)


def test_drawing_stops_once_the_mean_has_settled():
    sure, unsure = picture(3.0, -3.0), picture(0.0, 0.0)
    run = functools.partial(editing.segment, one_of(SHAPES), samples=24, steps=5, seeds=0, batch_size=4)
    assert len(run(unsure).samples) == 24
    few = run(sure, tolerance=0.05)
    assert len(few.samples) == 4 and torch.equal(few.samples, run(sure).samples[:4])
    many = run(unsure, tolerance=0.1)
    assert 4 < len(many.samples) < 24 and standard_error(many.samples) <= 0.1
    assert len(run(torch.cat([sure, unsure]), tolerance=0.001).samples) == 24  # the least settled picture decides
    assert len(run(sure, batch_size=1, tolerance=0.05).samples) == 4  # fewer may agree by luck


def test_the_standard_error_is_that_of_a_mean():
    coin = (torch.arange(100) % 2).float().reshape(100, 1, 1, 1, 1)
    assert standard_error(coin) == pytest.approx(0.5 / math.sqrt(99), rel=1e-5)
    assert standard_error(coin[:1]) == math.inf


def test_the_stream_grows():
    stream = editing.segment_stream(one_of(SHAPES), picture(0.0, 0.0), samples=5, steps=3, seeds=0, batch_size=2)
    assert [len(result.samples) for result in stream] == [2, 4, 5]


def test_the_threshold_stored_with_the_model_counts():
    models = [one_of(SHAPES, Segments(("a", "b"), threshold=t)) for t in (0.05, 0.95)]
    result = [editing.segment(model, picture(0.0, 0.0), samples=20, steps=5, seeds=0) for model in models]
    assert result[0].mask.all() and int(result[1].mask.sum()) == 8


# --- models and pictures of all kinds ---------------------------------------------------------------------------


def network(channels: int = 1, image_channels: int = 3, patch: int = 1) -> guided.networks.UNet:
    config = guided.networks.UNetConfig(
        in_channels=channels * patch**2, out_channels=channels * patch**2, image_channels=image_channels * patch**2,
        model_channels=32, num_res_blocks=1, channel_mult=(1, 1), attention_resolutions=(), num_head_channels=32,
    )  # fmt: skip
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = guided.networks.UNet(config)
        for parameter in net.parameters():
            if parameter.ndim > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("parametrization", "schedule"),
    [
        ("edm", None),
        ("flow", None),
        ("v", None),
        ("eps", guided.Schedule.linear(100)),
        ("x0", guided.Schedule.cosine(50)),
    ],
)
def test_any_parametrization(parametrization, schedule):
    model = guided.Model(network(patch=2), schedule, parametrization, channels=1, image_size=16, patch=2)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    result = editing.segment(model, images, samples=3, steps=3, seeds=0)
    assert result.probability.shape == (2, 1, 16, 16) and bool(result.samples.isfinite().all())
    other = editing.segment(model, -images, samples=3, steps=3, seeds=0)
    assert not torch.equal(result.probability, other.probability)  # it looks at the picture


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_of_any_number_of_channels(channels, tmp_path):
    model = guided.Model(network(image_channels=channels), None, "edm", channels=1, image_size=16)
    images = torch.rand(1, channels, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    wanted = editing.segment(model, images, samples=2, steps=2, seeds=0)
    np.save(tmp_path / "a.npy", images[0].permute(1, 2, 0).numpy())
    got = editing.segment(model, tmp_path / "a.npy", samples=2, steps=2, seeds=0)
    assert_close(got.probability, wanted.probability, atol=1e-4, rtol=0)


def test_a_file_a_pil_image_and_bytes_are_one_picture(tmp_path):
    model = guided.Model(network(), None, "edm", channels=1, image_size=16)
    array = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    run = functools.partial(editing.segment, model, samples=1, steps=2, seeds=0)
    results = [run(source).samples for source in (tmp_path / "a.png", Image.fromarray(array), array)]
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    assert_close(run([tmp_path / "a.png"] * 2).samples[:, 0], results[0][:, 0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": torch.zeros(1, 3, 10, 16)}, "10x16, the network takes multiples of 4"),
        ({"image": torch.zeros(1, 4, 16, 16)}, "the picture has 4 channels, the model looks at 3"),
        ({"image": torch.full((1, 3, 16, 16), math.nan)}, "not finite"),
        ({"image": torch.full((1, 3, 16, 16), 2.0)}, r"must lie in \[-1, 1\]"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"seeds": [1, 2, 3]}, "3 seeds for 1 pictures"),
        ({"sampler": "magic"}, "unknown sampler 'magic'"),
    ],
)
def test_clear_errors(change, said):
    model = guided.Model(network(patch=2), None, "edm", channels=1, image_size=16, patch=2)
    image = change.pop("image", torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match=said):
        editing.segment(model, image, **{"steps": 2, **change})


def test_only_a_model_of_masks_segments(tiny_model):
    with pytest.raises(
        ValueError, match="a segmenter is a model conditioned on a picture alone; this one is given label"
    ):
        editing.segment(tiny_model, torch.zeros(1, 3, 16, 16))


def test_a_path_that_is_not_there():
    model = guided.Model(network(), None, "edm", channels=1, image_size=16)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        editing.segment(model, "/nowhere.png")


def test_the_method_is_short():
    """Wolleb's segmentation proper, the generator of ensembles, is at most 40 lines of code."""
    lines = inspect.getsource(editing.segment_stream).split('"""')
    code = [line for line in (lines[0] + lines[2]).splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(code) <= 40


# --- pictures of the result ---------------------------------------------------------------------------------


def test_an_overlay_colours_segments_and_leaves_the_rest():
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:7, 2:7] = 1
    result = summarise(mask[None], Segments.of(1))
    shown = editing.overlay(image, result, opacity=0.5)
    outside = (mask == 0).expand(-1, 3, -1, -1)
    assert torch.equal(shown[outside], image[outside])
    red = torch.tensor(segmentation.PALETTE[0]) / 127.5 - 1
    assert_close(shown[0, :, 2, 4], red)  # the outline
    assert_close(shown[0, :, 4, 4], (image[0, :, 4, 4] + red) / 2)
    with pytest.raises(ValueError, match="the pictures are"):
        editing.overlay(image[..., :4], result)


def test_heat_goes_from_black_to_white():
    shown = segmentation.heat(torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3))
    assert shown[0, :, 0, 0].tolist() == [-1, -1, -1] and shown[0, :, 0, 2].tolist() == [1, 1, 1]
    assert_close(shown[0, :, 0, 1], torch.tensor([1.0, 0.0, -1.0]))
