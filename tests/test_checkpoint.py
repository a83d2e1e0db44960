"""Checkpoint folders: what is saved comes back, and what does not fit is named."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from guided import stored
from guided.checkpoint import load, save
from guided.devices import check_device
from guided.model import Model
from guided.networks import UNet, UNetConfig
from guided.parametrizations import PARAMETRIZATIONS
from guided.schedule import Schedule
from guided.stored import names_in, read_weights

NET = UNetConfig(model_channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(2,), num_heads=2)
SCHEDULES = {
    "linear": Schedule.linear(1000),
    "cosine": Schedule.cosine(4000),
    "scaled-linear": Schedule.scaled_linear(100),
    "sigmoid": Schedule.sigmoid(50),
    "betas": Schedule.from_betas(torch.linspace(0.001, 0.03, 77, dtype=torch.float64) ** 1.1),
    "respaced": Schedule.linear(1000).respace("25"),
    "respaced to few": Schedule.linear(1000).respace("4"),
}


def make(schedule: Schedule | None = None, parametrization: str = "eps", config: UNetConfig = NET, **options) -> Model:
    torch.manual_seed(0)
    model = Model(UNet(config), schedule, parametrization, **{"image_size": 8, **options})
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


def same_answer(a: Model, b: Model, **cond) -> None:
    assert a.class_names == b.class_names and a.null_label == b.null_label
    assert a.image_size == b.image_size
    assert (a.sigma_min, a.sigma_max) == pytest.approx((b.sigma_min, b.sigma_max), rel=1e-14)
    x = torch.randn(2, a.channels, 8, 8, generator=torch.Generator().manual_seed(1))
    for sigma in (a.sigma_min, 1.0, a.sigma_max):
        ours, theirs = a.given(**cond)(x, sigma), b.given(**cond)(x, sigma)
        assert torch.equal(ours.x0, theirs.x0)
        if a.learned_range:
            assert torch.equal(ours.var_frac, theirs.var_frac)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_continuous_models_come_back(parametrization, tmp_path):
    model = make(None, parametrization, sigma_min=0.01, sigma_max=50.0, sigma_data=0.7, time_scale=250.0)
    save(model, tmp_path / "m")
    same_answer(load(tmp_path / "m"), model)


@pytest.mark.parametrize("name", SCHEDULES)
def test_discrete_models_come_back(name, tmp_path):
    model = make(SCHEDULES[name], "v", time_scale=0.25)
    save(model, tmp_path)
    again = load(tmp_path)
    same_answer(again, model)
    assert torch.equal(again.schedule.beta, model.schedule.beta)
    assert torch.equal(again.schedule.timesteps, model.schedule.timesteps)


def test_everything_else_comes_back(tmp_path):
    config = replace(NET, in_channels=12, out_channels=24, num_classes=3, low_res=True, use_scale_shift_norm=False)
    options = {
        "class_names": ["a", "b"],
        "null_class": True,
        "patch": 2,
        "learned_range": True,
        "image_size": 32,
    }
    model = make(Schedule.cosine(100), config=config, **options)
    save(model, tmp_path, provenance={"data": "none", "steps": 3})
    again = load(str(tmp_path / "model.safetensors"))
    same_answer(again, model, label=["b", None], low_res=torch.ones(1, 3, 4, 4))
    assert again.provenance == {"data": "none", "steps": 3}
    assert again.net.config == config
    save(again, tmp_path / "copy")  # keeps where it came from
    assert load(tmp_path / "copy").provenance == again.provenance


def test_a_loaded_model_is_frozen_and_in_eval_mode(tmp_path):
    save(make(config=replace(NET, dropout=0.5)).train(), tmp_path)
    again = load(tmp_path)
    assert not any(m.training for m in again.modules())
    assert not any(p.requires_grad for p in again.parameters())
    assert next(again.parameters()).device.type == "cpu"


def test_half_storage(tmp_path):
    model = make()
    save(model, tmp_path / "full")
    save(model, tmp_path / "half", dtype=torch.bfloat16)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.bfloat16}
    full, half = ((tmp_path / n / "model.safetensors").stat().st_size for n in ("full", "half"))
    assert half < 0.55 * full
    again = load(tmp_path / "half")
    for (name, p), q in zip(model.net.named_parameters(), again.net.parameters(), strict=True):
        assert q.dtype == torch.float32, name
        assert torch.equal(q, p.bfloat16().float()), name
    assert {v.dtype for v in read_weights(tmp_path / "half").values()} == {torch.float32}


def test_bfloat16_that_would_be_emulated_is_made_with_a_warning(tmp_path, monkeypatch):
    save(make(), tmp_path)
    for has, said in ((True, 0), (False, 1)):
        monkeypatch.setattr("guided.devices.computes_bfloat16", lambda device, has=has: has)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = load(tmp_path, dtype="bfloat16")
        assert [str(w.message) for w in caught] == ["bfloat16 is emulated on this cpu, slower than float32"] * said
        assert torch.bfloat16 in {p.dtype for p in model.parameters()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_torso_is_stored_as_it_is(dtype, tmp_path):
    save(make(), tmp_path / "whole")
    half = load(tmp_path / "whole", dtype=dtype)
    convolution = half.net.input_blocks[0][0].weight
    assert convolution.dtype == dtype and half.net.time_embed[0].weight.dtype == torch.float32
    save(half, tmp_path / "half")
    same_answer(load(tmp_path / "half", dtype=dtype), half)
    again = load(tmp_path / "half")
    assert torch.equal(again.net.input_blocks[0][0].weight, convolution.float())
    assert torch.equal(again.net.time_embed[0].weight, half.net.time_embed[0].weight)


def test_saving_again_replaces_whole_files(tmp_path):
    save(make(), tmp_path)
    other = make(Schedule.cosine(10), "x0")
    save(other, tmp_path)
    same_answer(load(tmp_path), other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_provenance_that_json_cannot_hold_leaves_the_old_checkpoint(tmp_path):
    model = make()
    save(model, tmp_path)
    with pytest.raises(TypeError):
        save(make(None, "x0"), tmp_path, provenance={"made": object()})
    same_answer(load(tmp_path), model)


# ---------------------------------------------------------------------- names


def test_embedded_names(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "WEIGHTS", tmp_path)
    monkeypatch.setattr(stored.find, "__defaults__", (tmp_path,))
    model = make()
    save(model, tmp_path / "emoji64")
    save(model, tmp_path / "other")
    (tmp_path / "notes").mkdir()
    assert names_in(tmp_path) == ["emoji64", "other"]
    same_answer(load("other"), model)
    same_answer(load(), model)
    with pytest.raises(
        FileNotFoundError, match=r"othr: no checkpoint folder .* the embedded models are: emoji64, other"
    ):
        load("othr")


# ---------------------------------------------------------------------- what does not fit


def change(folder, **values) -> None:
    """Sets keys of config.json; None takes one out."""
    config = json.loads((folder / "config.json").read_text())
    for key, value in values.items():
        config[key] = value
        if value is None:
            del config[key]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"guidance": 2}, "config.json has an unknown key 'guidance'; known are: "),
        ({"patch": None}, "config.json lacks the key 'patch'"),
        ({"format": 7}, "has format 7, this version reads 1"),
        ({"kind": "classifier"}, "holds a classifier, not a model"),
        (
            {"schedule": {"name": "exponential", "T": 10}},
            "schedule must be one of linear, .*, got 'exponential'",
        ),
        ({"network": {"type": "DiT"}}, "network type must be one of UNet, Encoder, got 'DiT'"),
        ({"network": {"type": "UNet", "depth": 3}}, "network in config.json has an unknown key 'depth'"),
        ({"schedule": {"name": "linear", "T": 50, "beta": 2}}, "schedule in config.json has an unknown key 'beta'"),
        ({"schedule": {"name": "cosine"}}, "schedule in config.json lacks the key 'T'"),
        ({"schedule": {"T": 50}}, "schedule must be one of linear, .*, got None"),
        ({"parametrization": "score"}, "parametrization must be one of"),
    ],
)
def test_wrong_configs(values, message, tmp_path):
    save(make(), tmp_path)
    change(tmp_path, **values)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_wrong_weights(tmp_path):
    save(make(), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    wrong = {k: v for k, v in weights.items() if not k.startswith("time_embed.0")}
    wrong["label_emb.weight"] = torch.zeros(3, 128)
    wrong["out.2.bias"] = torch.zeros(7)
    save_file(wrong, tmp_path / "model.safetensors")
    with pytest.raises(ValueError) as error:
        load(tmp_path)
    assert str(error.value).endswith(
        "does not fit the network: 2 missing (time_embed.0.weight, time_embed.0.bias); "
        "1 unexpected (label_emb.weight); 1 of another shape (out.2.bias is (7,), should be (3,))"
    )


def test_damaged_and_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no checkpoint folder \(config.json\) there"):
        load(tmp_path / "nowhere")
    official = tmp_path / "64x64_diffusion.pt"
    official.write_bytes(b"")
    with pytest.raises(
        FileNotFoundError, match=r"is a file, not a checkpoint folder; for official files use guided.openai"
    ):
        load(official)
    save(make(), tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model.safetensors is missing"):
        load(tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
        load(tmp_path / "a")
    (tmp_path / "a" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is not JSON"):
        load(tmp_path / "a")


def test_networks_of_ones_own_are_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"only networks of guided.networks can be saved as a folder, got Conv2d"):
        save(Model(torch.nn.Conv2d(3, 3, 1)), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_devices_and_dtypes_are_checked_before_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda' was asked for but no GPU is available; use 'cpu'"):
        load(tmp_path / "nowhere", device="cuda")
    with pytest.raises(ValueError, match="device 'mps' was asked for"):
        check_device("mps")
    with pytest.raises(ValueError, match=r"dtype must be torch.float32, bfloat16 or float16, got torch.float64"):
        load(tmp_path / "nowhere", dtype=torch.float64)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="'cuda:3' was asked for but there are 1 GPUs"):
        check_device("cuda:3")
    assert check_device("cuda:0") == torch.device("cuda:0")


@pytest.mark.parametrize(("key", "value"), [("class_names", None), ("network", None), ("sigma_max", "x")])
def test_a_value_of_the_wrong_type_is_a_clear_error(tmp_path, tiny_model, key, value):
    save(tiny_model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(ValueError, match=r"wrong type|network type"):
        load(tmp_path)
