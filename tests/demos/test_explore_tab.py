"""Explore: what it shows is what the library computes, as functions and by the API."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import classifiers
import guided
from demos.figure import Row, figure
from demos.tabs import explore_denoiser, explore_forward, explore_runs
from demos.tabs.edit_inputs import example

gradio_client = pytest.importorskip("gradio_client")
TINY = {"model": "tiny", "label": "cat", "seed": 3}


@pytest.fixture(scope="module")
def client(served):
    return gradio_client.Client(served.url, verbose=False)


@pytest.fixture(scope="module")
def cat():
    return guided.to_tensor(example("cat"))


# ---------------------------------------------------------------------- as functions


@pytest.mark.parametrize("name", explore_forward.SCHEDULES)
def test_what_is_said_of_a_timestep_is_the_schedules(name, cat):
    chain, t = explore_forward.SCHEDULES[name](), 400
    said = explore_forward.levels(name, t)
    assert said["signal"] ** 2 + said["noise"] ** 2 == pytest.approx(1, abs=1e-6)
    assert said["signal"] == pytest.approx(float(chain.alpha_bar[t].sqrt()), rel=1e-5)
    noise = guided.SeededNoise([5])(cat)
    x = explore_forward.noised(cat, name, t, 5)
    assert_close(x, said["signal"] * cat + said["noise"] * noise, atol=1e-5, rtol=1e-5)


def test_the_curves_are_the_schedules_own(tiny_model):
    curves = explore_forward.curves()
    for name, one in curves.groupby("schedule"):
        chain = explore_forward.SCHEDULES[name]()
        assert (one["signal"] ** 2).tolist() == pytest.approx(chain.alpha_bar[one["t"].tolist()].tolist())
        assert one["log10 sigma"].is_monotonic_increasing
    walks = explore_forward.walks(tiny_model, 7)
    for spacing, one in walks.groupby("spacing"):
        sigmas = tiny_model.sigmas(7, spacing)[:-1]
        assert (10.0 ** one["log10 sigma"]).tolist() == pytest.approx(sigmas.tolist(), rel=1e-9)


def test_a_picture_is_known_through_little_noise_and_not_through_much(cat):
    clf = classifiers.load()
    seen = explore_denoiser.beliefs(guided.load("emoji64", device="cpu"), clf, cat, label="cat-face", seed=0)
    error = (seen.x0 - cat).square().mean((1, 2, 3)).sqrt()
    assert float(error[0]) < 0.1 and bool((error.diff() > 0).all()), "the more noise, the worse the estimate"
    assert_close(seen.probabilities.sum(1), torch.ones(len(seen.sigmas)))
    belief = seen.probabilities[:, clf.class_names.index("cat-face")]
    assert float(belief[0]) > 0.5 > 0.3 > float(belief[-1])
    noise = guided.SeededNoise([0])(cat)
    assert_close(seen.probabilities[3:4], clf(cat + float(seen.sigmas[3]) * noise, seen.sigmas[3]).softmax(1).detach())
    table = explore_denoiser.table(seen, clf.class_names)
    assert "cat-face" in set(table["class"]) and len(table) == 5 * len(seen.sigmas)


def test_samplers_are_compared_at_equal_evaluations(tiny_model):
    calls = []
    hook = tiny_model.net.register_forward_hook(lambda *args: calls.append(1))
    try:
        for run in explore_runs.samplers(tiny_model, label="cat", evaluations=9, seeds=[0, 1]):
            calls.clear()
            assert len(list(run.states)) == run.steps
            assert len(calls) == 9, run.title
    finally:
        hook.remove()
    with pytest.raises(ValueError, match="must be odd"):
        next(explore_runs.samplers(tiny_model, label="cat", evaluations=8, seeds=[0]))


def test_without_extra_noise_one_start_is_one_picture(tiny_model):
    runs = explore_runs.extra_noise(tiny_model, label="cat", steps=5, seed=0, n=3)
    spread = [float(guided.last(run.states).std(0).mean()) for run in runs]
    assert spread[0] < 1e-5 < spread[1], "eta = 0 adds nothing, any other does"
    assert spread == sorted(spread)


@pytest.mark.parametrize(("scale", "label"), [(0.0, [None]), (1.0, "cat")])
def test_guidance_of_scale_0_is_no_class_and_of_1_the_network_alone(tiny_model, scale, label):
    run = explore_runs.scales(tiny_model, None, kind="classifier-free", label="cat", steps=4, seed=2)
    k = explore_runs.SCALES["classifier-free"].index(scale)
    alone = guided.sample(tiny_model, label, steps=4, sampler="ddim", seeds=[2])
    assert_close(guided.last(run.states)[k : k + 1].clamp(-1, 1), alone, atol=1e-3, rtol=0)


def test_a_figure_holds_its_pictures(cat):
    sheet = figure([Row("above", torch.cat([cat, -cat]), ["a", "b"]), Row("", None)], tile=64)
    pixels = guided.to_tensor(sheet)
    found = pixels[..., 28 : 28 + 64, 6 : 6 + 64]  # a gap, and the title's line
    assert torch.equal(found, cat)
    assert torch.equal(pixels[..., 28 : 28 + 64, 76 : 76 + 64], guided.to_tensor(guided.to_pil(-cat)))
    with pytest.raises(ValueError, match="1 captions for 2 pictures"):
        figure([Row("", torch.cat([cat, cat]), ["a"])])


# ---------------------------------------------------------------------- by the API


def picture_file(name="cat"):
    return gradio_client.handle_file(example(name))


def test_the_forward_process_by_the_api(client):
    image, formula = client.predict(picture_file(), "emoji64", "cosine", 250, 3, api_name="/forward")
    x = explore_forward.noised(guided.to_tensor(example("cat")), "cosine", 250, 3).clamp(-1, 1)
    assert torch.equal(guided.to_tensor(image), guided.to_tensor(guided.to_pil(x)))
    assert f"{explore_forward.levels('cosine', 250)['sigma']:.3g}" in formula


def test_the_lessons_by_the_api(client):
    assert Image.open(client.predict(picture_file(), "tiny", 0, api_name="/schedules")).width > 8 * 96
    assert "uniform" in str(client.predict("tiny", 5, api_name="/levels"))
    figure, plot, said = client.predict(picture_file(), "tiny", "cat", 0, api_name="/beliefs")
    assert Image.open(figure).width > 0 and plot is None and "explore.no-judge" in said
    _, plot, said = client.predict(picture_file(), "emoji64", "cat-face", 0, api_name="/beliefs")
    assert "cat-face" in str(plot) and said == ""


@pytest.mark.parametrize(
    ("name", "own", "rows"),
    [
        ("samplers", {"evaluations": 5}, 4),
        ("eta", {"steps": 4}, 4),
        ("guidance", {"kind": "classifier-free", "steps": 4}, 1),
    ],
)
def test_the_comparisons_by_the_api(client, name, own, rows):
    figure, live = client.predict(**TINY, **own, api_name=f"/explore_{name}")
    assert "in all" in live
    assert Image.open(figure).height > rows * 96


@pytest.mark.parametrize(
    ("name", "inputs", "said"),
    [
        ("forward", [None, "tiny", "linear", 10, 0], "picture is missing"),
        ("explore_guidance", ["tiny", "", "classifier-free", 4, 0], "choose a class"),
        ("explore_guidance", ["tiny", "cat", "classifier", 4, 0], "no classifier here"),
        ("explore_samplers", ["tiny", "catt", 5, 0], "did you mean 'cat'"),
        ("explore_eta", ["tiny", "cat", 4, None], "seed is missing"),
    ],
)
def test_what_is_wrong_is_said(client, name, inputs, said):
    with pytest.raises(ValueError, match=f"(?i){said}"):
        client.predict(*inputs, api_name=f"/{name}")
