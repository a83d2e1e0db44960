"""Editors take a guidance scale that follows the noise, and so CFG++ and schedules, without knowing of them."""

from __future__ import annotations

import torch
from mixture_model import mixture_model
from torch.testing import assert_close

import editing
import guided


def test_an_editor_takes_a_scale_that_follows_the_noise():
    model, image = mixture_model(), torch.zeros(1, 3, 8, 8)
    sigmas = model.sigmas(10)
    scale = guided.scales.cfgpp(0.6, sigmas)
    edited = editing.sdedit(
        model, image, sigma=float(sigmas[3]), labels="left", guidance_scale=scale, steps=10, seeds=0
    )
    D = guided.denoiser(model, "left", guidance="cfg++", guidance_scale=0.6, sigmas=sigmas)
    by_hand = guided.last(editing.sdedit_stream(D, image, sigmas[3:], noise=guided.SeededNoise([0])))
    assert_close(edited, by_hand.clamp(-1, 1), atol=1e-6, rtol=0)
    plain = editing.sdedit(model, image, sigma=float(sigmas[3]), labels="left", guidance_scale=0.6, steps=10, seeds=0)
    assert (edited - plain).abs().max() > 1e-3


def test_inversion_with_cfgpp_brings_the_picture_back():
    model = mixture_model()
    sigmas = model.sigmas(20)
    scale = guided.scales.cfgpp(0.6, sigmas)
    picture = guided.sample(model, "left", n=2, steps=20, seeds=0)
    noise = editing.invert(model, picture, labels="left", guidance_scale=scale, steps=20, evaluations=10)
    D = guided.denoiser(model, "left", guidance_scale=scale)
    assert_close(guided.last(guided.ddim(D, noise, sigmas)), picture, atol=0.02, rtol=0)
