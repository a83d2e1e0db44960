"""The named end points, as a client calls them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from gradio_client import Client
from PIL import Image

import guided
from guided import cli

DOC = Path(__file__).parents[2] / "docs" / "demo.md"
QUICK = {"model": "tiny", "classes": ["cat"], "pictures": 1, "steps": 3}


def client(served) -> Client:
    return Client(served.url, verbose=False, httpx_kwargs={"timeout": 120})  # the machine may be busy


@pytest.fixture
def ask(served):
    """ask(api_name, **arguments): a call in a session of its own."""

    def call(name: str, **arguments):
        return client(served).predict(**arguments, api_name=name)

    return call


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_every_end_point_is_named_documented_and_takes_the_pages_defaults(served):
    named = client(served).view_api(return_format="dict", print_info=False)
    assert named["unnamed_endpoints"] == {}
    assert {"/generate", "/text", "/compare"} <= set(named["named_endpoints"])
    text = DOC.read_text()
    for name, point in named["named_endpoints"].items():
        assert f"`{name}`" in text, f"docs/demo.md does not speak of {name}"
        for parameter in point["parameters"]:
            assert not parameter["parameter_name"].startswith("param_"), (name, parameter)


def test_a_session_does_not_grow_from_request_to_request(served):
    one, sizes = client(served), []
    for seed in range(3):
        one.predict(**QUICK, seed=seed, api_name="/generate")
        state = served.page.app.state_holder.session_data[one.session_hash]
        sizes.append((len(state.blocks_config.blocks), len(state.config_values), len(state.state_data)))
    assert sizes[0][0] == len(served.page.blocks) and sizes[0] == sizes[1] == sizes[2]


@pytest.mark.parametrize("name", ["demo_load", "demo_wait"])
def test_the_figures_of_the_page_are_the_measured_ones(name):
    text, measured = DOC.read_text(), (DOC.parents[1] / "benchmarks" / "results" / f"{name}.md").read_text()
    lines = [line for line in measured.splitlines() if line.startswith(("|", "- All in", "- Memory"))]
    assert len(lines) >= 5 and f"benchmarks/{name}.py" in text and f"benchmarks/results/{name}.md" in text
    for line in lines:
        assert line in text, "docs/demo.md has other figures"


def test_every_picture_of_the_demo_is_shown_somewhere():
    pages = [*DOC.parent.glob("*.md"), *DOC.parents[1].glob("README*.md")]
    shown = "".join(page.read_text() for page in pages)
    pictures = list((DOC.parent / "images").glob("demo-*.png"))
    assert len(pictures) >= 7
    assert [picture.name for picture in pictures if f"images/{picture.name}" not in shown] == []


def test_generate_is_guided_sample_and_its_files_replay(served, ask, tiny_folder, tmp_path, capsys):
    pictures, grid, recipe, compared, live = ask(
        "/generate", **{**QUICK, "pictures": 2}, seed=7, guidance_scale=2.5, sampler="ddim", eta="0.5"
    )
    expected = guided.sample(
        guided.load(tiny_folder), ["cat", "cat"], steps=3, guidance_scale=2.5, sampler="ddim", eta=0.5, seeds=7
    )
    assert [row["caption"] for row in pictures] == ["seed 7", "seed 8"]
    for row, image in zip(pictures, guided.to_pil(expected), strict=True):
        assert np.array_equal(pixels(row["image"]), np.asarray(image))
        assert guided.read_metadata(row["image"])["recipe"] == recipe["recipe"]
    assert recipe["recipe"]["seeds"] == [7, 8] and recipe["recipe"]["options"] == {"eta": 0.5}
    assert compared == "" and "Step 3 of 3" in live
    for path in (pictures[1]["image"], grid):
        assert cli.main(["replay", path]) == 0
    assert capsys.readouterr().out.count("equal, every pixel") == 2


def test_mixtures_several_classes_and_a_classifier(ask):
    pictures, *_ = ask("/generate", **{**QUICK, "classes": ["cat", "dog"]})
    assert [row["caption"] for row in pictures] == ["cat, 0", "dog, 1"]
    _, _, recipe, *_ = ask("/generate", **{**QUICK, "classes": ["cat", "dog"]}, several="mix")
    assert recipe["recipe"]["labels"] == ["cat:0.5+dog:0.5"]
    _, _, recipe, *_ = ask("/generate", **{**QUICK, "classes": ["cat:0.75+fish:0.25"]}, window_high="5")
    assert recipe["recipe"]["labels"] == ["cat:0.75+fish:0.25"] and recipe["recipe"]["window"] == [0, 5]
    arguments = {"model": "emoji64", "classes": ["heart"], "pictures": 1, "steps": 2, "guidance_scale": 1}
    plain, *_ = ask("/generate", **arguments)
    guide, *_ = ask("/generate", **arguments, classifier="emoji64", classifier_scale=10)
    assert not np.array_equal(pixels(plain[0]["image"]), pixels(guide[0]["image"]))


def test_the_run_before_is_shown_with_what_was_changed_to_its_own_session_only(served):
    one, other = client(served), client(served)
    assert one.predict(**QUICK, api_name="/generate")[3] == ""
    compared = one.predict(**QUICK, guidance_scale=5, api_name="/generate")[3]
    assert "guidance scale 3 → 5" in compared and compared.count("<img") == 2
    assert other.predict(**QUICK, api_name="/generate")[3] == ""
    assert "nothing was changed" in other.predict(**QUICK, api_name="/generate")[3]


def test_many_at_once_get_each_their_own_picture(served, tiny_folder):
    model = guided.load(tiny_folder)
    jobs = {seed: client(served).submit(**QUICK, seed=seed, api_name="/generate") for seed in range(6)}
    for seed, job in jobs.items():
        ((row,), *_) = job.result(timeout=120)
        image = guided.to_pil(guided.sample(model, "cat", steps=3, guidance_scale=3.0, seeds=seed))[0]
        assert np.array_equal(pixels(row["image"]), np.asarray(image)), seed


def test_cancel_ends_ones_own_run_within_a_step(served, monkeypatch):
    from demos import recipes

    made, real = {}, recipes.states

    def counted(recipe, *rest):
        for state in real(recipe, *rest):
            made[recipe.seeds[0]] = made.get(recipe.seeds[0], 0) + 1
            yield state

    monkeypatch.setattr(recipes, "states", counted)
    job = client(served).submit(**{**QUICK, "steps": 250, "sampler": "ddpm"}, seed=1, api_name="/generate")
    other = client(served).submit(**QUICK, seed=2, api_name="/generate")
    while not made.get(1):
        pass
    job.cancel()
    at_cancel = made[1]
    assert len(other.result(timeout=120)[0]) == 1 and made[2] == 3
    assert made[1] <= at_cancel + 3 < 250  # the request to cancel takes a moment too


def test_text_draws_a_prompt_and_traces_the_terms(ask):
    arguments = {"prompts": "cat with heart eyes\nred heart", "pictures": 1, "steps": 2, "clip_scale": 3.0}
    pictures, grid, recipe, live, value, pull = ask("/text", **arguments, classifier="emoji64")
    assert [row["caption"] for row in pictures] == ["cat with heart eyes, 0", "red heart, 1"]
    assert recipe["recipe"]["prompts"] == ["cat with heart eyes", "red heart"]
    assert recipe["recipe"]["labels"] == ["cat-face", "heart"] and "is drawn as the class cat-face" in live
    for plot, column in ((value, "value"), (pull, "grad_norm")):
        table = plot["plot"] if "plot" in plot else plot
        term, y = table["columns"].index("term"), table["columns"].index(column)
        assert {row[term] for row in table["data"]} == {"CLIP", "classifier"} and len(table["data"]) == 4
        assert all(isinstance(row[y], float) for row in table["data"])
    assert cli.main(["replay", grid]) == 0
    for wrt, scale in (("x0-frozen", 500), ("x0", 100)):
        pictures, _, recipe, *_ = ask("/text", **{**arguments, "clip_scale": scale}, looks_at=wrt, cutouts=2)
        assert (recipe["recipe"]["clip"]["wrt"], recipe["recipe"]["clip"]["cutouts"]) == (wrt, 2)


def test_compare_draws_all_scales_of_a_row_in_one_batch(served, ask, monkeypatch):
    real, calls = guided.stream, []

    def stream(model, labels, **own):
        calls.append((own["sampler"], own["steps"], own["guidance_scale"].tolist(), own["seeds"]))
        return real(model, labels, **own)

    monkeypatch.setattr(guided, "stream", stream)
    arguments = {"model": "tiny", "label": "cat", "scales": "1, 2.5", "steps": "2, 3", "samplers": ["ddim", "unipc"]}
    file, table, live = ask("/compare", **arguments, seed=4)
    assert calls == [(s, n, [1.0, 2.5], [4, 4]) for s in ("ddim", "unipc") for n in (2, 3)]
    assert table.count("<img") == 8 and re.findall(r'scope="row">([^<]*)<', table) == [
        "ddim, 2 steps", "ddim, 3 steps", "unipc, 2 steps", "unipc, 3 steps",
    ]  # fmt: skip
    assert Image.open(file).format == "PNG" and "finished" in live


def test_a_scale_of_a_row_is_that_scale_alone(tiny_model):
    both = guided.sample(tiny_model, ["cat"] * 2, steps=3, guidance_scale=torch.tensor([1.0, 4.0]), seeds=[4, 4])
    alone = guided.sample(tiny_model, "cat", steps=3, guidance_scale=4.0, seeds=4)
    assert float((both[1] - alone[0]).abs().max()) < 1e-3


BAD = [
    ("/generate", {"classes": ["kat"]}, "Unknown class 'kat'; did you mean 'cat'"),
    ("/generate", {"classes": ["cat"], "pictures": 16, "several": "each", "model": "../tiny"}, "not in the list"),
    ("/generate", {"classes": ["cat"] * 9, "pictures": 2}, "18 pictures are asked for; one run draws 1 to 16"),
    ("/generate", {"sampler": "unipc", "eta": "0.5"}, "has no option 'eta'"),
    ("/generate", {"steps": 10_000}, "greater than maximum"),
    ("/generate", {"seed": -1}, "less than minimum"),
    ("/generate", {"window_low": "3", "window_high": "2"}, "Window must be"),
    ("/generate", {"classes": [], "classifier": "emoji64"}, "no class to guide to"),
    ("/generate", {"eta": "much"}, "Eta must be a number, or empty"),
    ("/generate", {"window_high": "-1"}, "A sigma of guidance must be a number from 0 on"),
    ("/text", {"prompts": " \n "}, "The prompt is empty"),
    ("/text", {"clip": "ViT-B-32"}, "not in the list"),
    ("/compare", {"samplers": []}, "Choose at least one sampler"),
    ("/compare", {"scales": "1, two"}, "Guidance scales must be numbers"),
    ("/compare", {"scales": "nan"}, "Guidance scales must be numbers"),
    ("/compare", {"steps": "0"}, "Numbers of steps must lie in 1 to 250"),
    ("/compare", {"scales": ",".join(map(str, range(13)))}, "at most 12"),
]


@pytest.mark.parametrize(("name", "arguments", "said"), BAD, ids=[f"{n[1:]}-{i}" for i, (n, _, _) in enumerate(BAD)])
def test_bad_input_is_one_sentence(ask, name, arguments, said):
    start = {"/generate": QUICK, "/text": {"model": "tiny"}, "/compare": {"model": "tiny", "label": "cat"}}[name]
    with pytest.raises(ValueError) as error:
        ask(name, **{**start, **arguments})
    assert said in str(error.value) and "Traceback" not in str(error.value) and "\n" not in str(error.value)
