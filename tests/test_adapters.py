"""Models of other programs: EDM's networks against recorded numbers, diffusers' UNet2DModel against its own forward."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

import guided
from guided.adapters import load_diffusers, load_edm
from guided.adapters.song import SongUNet
from guided.networks import UNet

GOLDEN = json.loads((Path(__file__).parent / "golden" / "adapters" / "edm.json").read_text())["networks"]
KINDS = {"EDMPrecond": "edm", "VPPrecond": "vp", "VEPrecond": "ve"}
X = 2 * torch.sin(0.37 * torch.arange(2 * 3 * 8 * 8, dtype=torch.float64)).float().reshape(2, 3, 8, 8)
SIGMA = torch.tensor([0.3, 5.0])


def by_formula(shapes: dict[str, list[int]], taps: tuple[float, ...] = (1.0, 1.0)) -> dict[str, torch.Tensor]:
    """Weights of these names and shapes, as those were that the numbers were recorded with."""
    line = torch.tensor(taps)
    weights = {}
    for k, (name, shape) in enumerate(sorted(shapes.items())):
        if name.endswith("resample_filter"):
            weights[name] = (torch.outer(line, line) / line.sum() ** 2)[None, None]
            continue
        i = torch.arange(math.prod(shape), dtype=torch.float64)
        w = torch.sin(1.7 * i + 0.9 * k + 0.3 * (i % 7))
        if len(shape) > 1:
            w = w / math.sqrt(math.prod(shape[1:]))
        else:
            w = 1 + 0.2 * w if "norm" in name and name.endswith("weight") else 0.1 * w
        w = 3 * w if name.endswith("map_noise.freqs") else w
        weights[name] = w.reshape(shape).float()
    return weights


def state_of(name: str) -> dict[str, torch.Tensor]:
    return by_formula(GOLDEN[name]["shapes"], (1.0, 3.0, 3.0, 1.0) if name == "ncsnpp" else (1.0, 1.0))


@pytest.fixture
def file(tmp_path):
    """Writes a state dict and returns its path."""

    def write(tensors, name="net.pt"):
        if name.endswith(".safetensors"):
            save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / name)
        else:
            torch.save(tensors, tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", GOLDEN)
def test_edm_networks_give_the_recorded_numbers(name, file):
    path = file(state_of(name))
    for wrapper, wanted in GOLDEN[name]["D"].items():
        model = load_edm(path, parametrization=KINDS[wrapper])
        cond = {"label": ["0", "2"]} if model.class_names else {}
        with torch.no_grad():
            x0 = model(X, SIGMA, **cond).x0
        # the program's own times are in float32, which t of VP and VE shows
        assert_close(x0.flatten()[::29], torch.tensor(wanted), atol=1e-5 if wrapper == "EDMPrecond" else 4e-5, rtol=0)
    assert type(model.net) is (UNet if name == "dhariwal" else SongUNet)
    assert model.image_size == 8 and not any(p.requires_grad for p in model.parameters())


# Karras et al. 2022, Table 1: those of EDM and VE; for VP sigma(t) at t = 1e-5 and 1, beta_d = 19.9 and beta_min = 0.1
VP = tuple(math.sqrt(math.expm1(9.95 * t**2 + 0.1 * t)) for t in (1e-5, 1.0))
RANGES = {"edm": (0.002, 80.0), "vp": VP, "ve": (0.02, 100.0)}


@pytest.mark.parametrize("kind", RANGES)
def test_the_wrapper_says_the_range_of_sigma(kind, file):
    model = load_edm(file(state_of("ddpmpp")), parametrization=kind)
    assert model.parametrization == kind
    assert (model.sigma_min, model.sigma_max) == pytest.approx(RANGES[kind], rel=2e-3)
    sigmas = model.sigmas(4)
    assert [float(sigmas[0]), float(sigmas[-2])] == pytest.approx([model.sigma_max, model.sigma_min])


def test_sigma_data_is_that_of_the_wrapper(file):
    """D = c_skip x + c_out F(c_in x), where F is asked the same (Karras et al. 2022, Table 1)."""
    path, s, label = file(state_of("ddpmpp")), SIGMA.reshape(2, 1, 1, 1), ["0", "2"]

    def scalings(d):
        return d**2 / (s**2 + d**2), s * d / (s**2 + d**2).sqrt(), 1 / (s**2 + d**2).sqrt()

    (skip, out, c_in), (other_skip, other_out, other_in) = scalings(0.5), scalings(1.5)
    with torch.no_grad():
        F = (load_edm(path)(X, SIGMA, label=label).x0 - skip * X) / out
        x = X * c_in / other_in
        got = load_edm(path, sigma_data=1.5)(x, SIGMA, label=label).x0
    assert_close(got, other_skip * x + other_out * F, atol=1e-4, rtol=1e-4)


def test_prefix_and_format_do_not_matter(file):
    bare = {key.removeprefix("model."): value for key, value in state_of("ddpmpp").items()}
    a, b = load_edm(file(state_of("ddpmpp"))), load_edm(file(bare, "net.safetensors"))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_dhariwals_is_our_network_and_is_kept_as_a_folder(file, tmp_path):
    names = ["ant", "bee", "cow"]
    model = load_edm(file(state_of("dhariwal")), class_names=names, null_class=True)
    guided.save(model, tmp_path / "folder")
    again = guided.load(tmp_path / "folder")
    assert again.class_names == names and again.parametrization == "edm"
    with torch.no_grad():
        assert_close(again(X, SIGMA, label=["ant", "cow"]).x0, model(X, SIGMA, label=["ant", "cow"]).x0)
        rows = torch.eye(3)[[0, 2]]
        assert_close(model(X, SIGMA, label=rows).x0, model(X, SIGMA, label=["ant", "cow"]).x0)
        zeros = model(X, SIGMA, label=torch.zeros(2, 3)).x0
        assert_close(model(X, SIGMA, label=None).x0, zeros)  # no class is a row of zeros


def test_song_nets_take_mixtures_and_no_class_and_are_sampled(file):
    model = load_edm(file(state_of("ddpmpp")), null_class=True)
    with torch.no_grad():
        rows = torch.eye(3)[[0, 2]]
        assert_close(model(X, SIGMA, label=rows).x0, model(X, SIGMA, label=["0", "2"]).x0)
        assert_close(model(X, SIGMA, label=None).x0, model(X, SIGMA, label=torch.zeros(2, 3)).x0)
    images = guided.sample(model, ["1", "2"], steps=3, guidance_scale=2.0, seeds=0, guidance="cfg++")
    assert images.shape == (2, 3, 8, 8) and images.isfinite().all()


def without(tensors, *keys):
    return {key: value for key, value in tensors.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: without(t, "model.dec.4x4_in0.affine.bias"), {}, "4x4_in0|does not fit"),
        (lambda t: t | {"model.enc.8x8_extra.weight": torch.zeros(1)}, {}, "unexpected|does not fit"),
        (lambda t: without(t, "model.map_layer0.weight"), {}, "is no network of EDM"),
        (lambda t: without(t, "model.enc.8x8_conv.weight"), {}, "lacks the key|does not fit"),
        (lambda t: t, {"class_names": ["a"]}, "the network has 3 classes, got 1 class_names"),
        (lambda t: t, {"parametrization": "eps"}, "parametrization must be one of edm, vp, ve"),
    ],
)
@pytest.mark.parametrize("name", ["ddpmpp", "dhariwal"])
def test_what_does_not_fit_is_named(file, name, change, options, message):
    with pytest.raises(ValueError, match=message):
        load_edm(file(change(state_of(name))), **options)


def test_pickled_code_is_refused(tmp_path):
    path = tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps({"ema": object}))
    with pytest.raises(ValueError, match=r"not a readable weights file|refused"):
        load_edm(path)
    with pytest.raises(ValueError, match="has no classes"):
        (tmp_path / "x").mkdir()
        torch.save(state_of("ncsnpp"), tmp_path / "x" / "n.pt")
        load_edm(tmp_path / "x" / "n.pt", null_class=True)


def test_a_smaller_network_of_ours_is_no_network_of_edms(file):
    net = UNet(guided.networks.UNetConfig(model_channels=32, channel_mult=(1,), num_res_blocks=1))
    with pytest.raises(ValueError, match="is no network of EDM"):
        load_edm(file(net.state_dict()))


# ---------------------------------------------------------------------- diffusers


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A pipeline's folder with a small class-conditional UNet2DModel, and the network."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, num_class_embeds=4, norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("pipeline")
    net.save_pretrained(folder / "unet")
    diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2").save_pretrained(folder / "scheduler")
    return folder, net.eval()


def test_diffusers_numbers_are_its_own(pipeline):
    """eps of the network at x / sqrt(1 + sigma^2) and t(sigma); x0 = x - sigma eps."""
    folder, net = pipeline
    model = load_diffusers(folder, class_names=["ant", "bee", "cow"], null_class=True)
    chain = guided.Schedule.cosine()
    t = torch.tensor([100, 700])
    sigma = chain.sigma[t]
    s = sigma.float().reshape(2, 1, 1, 1)
    with torch.no_grad():
        eps = net(X / (1 + s**2).sqrt(), t, class_labels=torch.tensor([0, 3])).sample
        got = model(X, sigma, label=torch.tensor([0, 3])).x0
        assert_close(got, X - s * eps, atol=1e-5, rtol=1e-5)
        assert_close(model(X, sigma, label=torch.eye(3)[[0, 1]]).x0, model(X, sigma, label=["ant", "bee"]).x0)
    assert model.schedule.name == "cosine" and model.image_size == 8 and model.null_label == 3
    images = guided.sample(model, "cow", n=2, steps=3, guidance_scale=2.0, seeds=0)
    assert images.shape == (2, 3, 8, 8) and images.isfinite().all()


def test_the_unets_folder_alone_and_other_schedulers(pipeline, tmp_path):
    folder, _ = pipeline
    assert load_diffusers(folder / "unet").schedule.name == "cosine"  # its neighbour
    said = {"num_train_timesteps": 500, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(said | {"beta_start": 0.00085, "beta_end": 0.012}))
    model = load_diffusers(folder / "unet", scheduler=tmp_path)
    assert model.parametrization == "v" and len(model.schedule) == 500
    assert_close(model.schedule.beta[[0, -1]], torch.tensor([0.00085, 0.012], dtype=torch.float64))


@pytest.fixture(scope="module")
def flat(pipeline, tmp_path_factory):
    """The same pipeline with all its files in one folder, as diffusers itself reads it."""
    import diffusers

    folder, there = pipeline[0], tmp_path_factory.mktemp("flat")
    for path in (folder / "unet", folder / "scheduler"):
        for file in path.iterdir():
            shutil.copy(file, there)
    index = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    (there / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline", **index}))
    assert diffusers.DDPMPipeline.from_pretrained(there).scheduler.config.beta_schedule == "squaredcos_cap_v2"
    return there


def test_a_pipelines_layouts_are_one_model(pipeline, flat, tmp_path, capsys):
    """In two folders or in one, by the adapter, `guided.load` and the command line."""
    from guided.cli import main

    nested = pipeline[0]
    with torch.no_grad():
        label, wanted = torch.tensor([0, 3]), load_diffusers(nested / "unet")(X, SIGMA, label=torch.tensor([0, 3])).x0
        for load in (load_diffusers, guided.load):
            for folder in (nested, flat):
                model = load(folder)
                assert model.schedule.name == "cosine"
                assert torch.equal(model(X, SIGMA, label=label).x0, wanted)
    shutil.copytree(nested, tmp_path / "both")
    for name in ("config.json", "model_index.json"):  # a pipeline may have a config of its own
        (tmp_path / "both" / name).write_text("{}")
    assert guided.load(tmp_path / "both").schedule.name == "cosine"
    (tmp_path / "scheduler_config.json").write_text('{"beta_schedule": "linear"}')
    assert load_diffusers(flat, scheduler=tmp_path).schedule.name != "cosine"
    out = tmp_path / "a.png"
    words = ["--model", flat, "--label", "1", "--steps", "2", "--device", "cpu", "--out", out]
    assert main(["sample", *map(str, words)]) == 0 and main(["replay", str(out)]) == 0
    assert "equal, every pixel" in capsys.readouterr().out
    assert main(["info", str(nested), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["classes"] == ["0", "1", "2", "3"] and said["file"].endswith("unet/diffusion_pytorch_model.safetensors")


def test_other_pipelines_are_named(pipeline, flat, tmp_path):
    shutil.copytree(pipeline[0], tmp_path / "a")
    shutil.copytree(flat, tmp_path / "b")
    (tmp_path / "a" / "model_index.json").write_text("{}")
    (tmp_path / "a" / "unet" / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(ValueError, match="holds a UNet2DConditionModel, not a UNet2DModel"):
        guided.load(tmp_path / "a")
    (tmp_path / "b" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"diffusion_pytorch_model.safetensors is missing"):
        guided.load(tmp_path / "b")


def test_what_diffusers_folder_lacks_is_named(pipeline, tmp_path, monkeypatch):
    import sys

    folder, _ = pipeline
    for change, message in (
        ({"_class_name": "AutoencoderKL"}, "holds a AutoencoderKL, not a UNet2DModel"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type 'fourier' is not understood"),
        ({"class_embed_type": "timestep"}, "class_embed_type 'timestep' is not understood"),
        ({"layers_per_block": 2}, "does not fit the network: .* missing"),
    ):
        there = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(folder, there)
        config = json.loads((there / "unet" / "config.json").read_text()) | change
        (there / "unet" / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=message):
            load_diffusers(there)
    (there / "scheduler" / "scheduler_config.json").write_text('{"beta_schedule": "sigmoid"}')
    config = json.loads((folder / "unet" / "config.json").read_text())
    (there / "unet" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="beta_schedule 'sigmoid' is not understood"):
        load_diffusers(there)
    shutil.rmtree(there / "scheduler")
    with pytest.raises(FileNotFoundError, match=r"scheduler_config.json is missing"):
        load_diffusers(there)
    with pytest.raises(ValueError, match="got 1 class_names"):
        load_diffusers(folder, class_names=["a"])
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ModuleNotFoundError, match=r"guided\[diffusers\]"):
        load_diffusers(folder)


# ---------------------------------------------------------------------- from the command line


def test_import_and_sample_from_the_command_line(file, pipeline, tmp_path, capsys):
    from guided.cli import main

    def run(*words) -> int:
        return main([str(word) for word in words])

    (tmp_path / "names.txt").write_text("ant\nbee\ncow\n")
    named = ["ve", "--class-names", tmp_path / "names.txt"]
    for kind, words, names in (("edm", [], "012"), ("vp", ["vp"], "012"), ("ve", named, ["ant", "bee", "cow"])):
        out = tmp_path / kind
        assert run("import", file(state_of("dhariwal")), "--out", out, "--edm", *words) == 0
        made = guided.load(out)
        assert made.parametrization == kind and made.class_names == list(names)
        assert (made.sigma_min, made.sigma_max) == pytest.approx(RANGES[kind], rel=2e-3)
    assert run("import", file(state_of("ddpmpp")), "--edm", "vp", "--out", tmp_path / "song") == 2
    assert "guided.adapters.load_edm reads it" in capsys.readouterr().err
    assert run("import", file(state_of("dhariwal")), "--edm", "--preset", "adm-64", "--out", tmp_path / "x") == 2
    out = tmp_path / "a.png"
    words = ["--model", pipeline[0] / "unet", "--label", "1", "--steps", "2", "--device", "cpu", "--out", out]
    assert run("sample", *words) == 0 and run("replay", out) == 0
    capsys.readouterr()
    model = guided.load(pipeline[0] / "unet")
    assert model.class_names == ["0", "1", "2", "3"]
    with pytest.raises(ValueError, match="computes in float32 here"):
        guided.load(pipeline[0] / "unet", dtype=torch.bfloat16)
