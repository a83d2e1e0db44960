"""What the training loop computes: against plain PyTorch and hand computation; steps that must not count."""

from __future__ import annotations

import importlib
import json
import math
import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from training_toys import QUIET, SGD, Pairs, assert_same, last_of, noisy_loss, plain_loss, small_net, weights

from guided.train import train
from guided.training.files import read_state
from guided.training.optimizers import NEWTON_SCHULZ, OPTIMIZERS, orthogonal
from guided.training.recipe import ema_decay, lr_factor

loop = importlib.import_module("guided.train")

# what the steps compute


def test_is_plain_adamw_with_clipping_and_decay_of_matrices_only():
    net, batches, reference = small_net(), Pairs(4), small_net()
    matrices = [p for p in reference.parameters() if p.ndim > 1]
    vectors = [p for p in reference.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.95))
    for index in range(6):
        loss = plain_loss(reference, batches.batch(index))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(reference.parameters(), 0.1)
        adamw.step()
        adamw.zero_grad()
    settings = {"lr": 0.01, "weight_decay": 0.3, "betas": (0.8, 0.95), "clip": 0.1}
    step = last_of(train(net, batches, plain_loss, images=24, **settings, **QUIET))
    assert norm > 0.1
    assert_close(step.loss, loss.item())
    assert_close(step.grad_norm, norm.item())
    assert_close(weights(net), weights(reference))


def test_accumulated_batches_equal_one_large_batch():
    class Halves:
        batch_size = 4

        def batch(self, index, rank=0, world=1):
            whole = Pairs(8).batch(index // 2)
            return {key: value[4 * (index % 2) :][:4] for key, value in whole.items()}

    def with_metric(module, batch):
        return plain_loss(module, batch), {"mean": batch["image"].mean(), "two": 2}

    one, two = small_net(), small_net()
    a = last_of(train(one, Pairs(8), with_metric, images=24, lr=0.1, **SGD, **QUIET))
    b = last_of(train(two, Halves(), with_metric, images=24, lr=0.1, accumulate=2, **SGD, **QUIET))
    assert (a.step, a.images) == (b.step, b.images) == (3, 24)
    assert_close([a.loss, a.grad_norm], [b.loss, b.grad_norm], rtol=1e-5, atol=0)
    assert a.metrics == {"mean": Pairs(8).batch(2)["image"].mean().item(), "two": 2.0}
    assert_close(b.metrics, a.metrics, rtol=1e-5, atol=1e-6)
    assert_close(weights(one), weights(two))


@pytest.mark.parametrize("clip", [None, 0.05, 1e6])
def test_clip_bounds_the_global_norm_of_the_update(clip):
    net = small_net()
    before = nn.utils.parameters_to_vector(net.parameters()).detach()
    step = last_of(train(net, Pairs(4), plain_loss, images=4, lr=1.0, **SGD | {"clip": clip}, **QUIET))
    moved = (nn.utils.parameters_to_vector(net.parameters()) - before).norm().item()
    assert step.grad_norm > 0.1
    assert_close(moved, min(step.grad_norm, clip or math.inf), rtol=1e-4, atol=0)


def test_frozen_parameters_stay():
    net = small_net()
    net[0].requires_grad_(False)
    before = weights(net)
    step = last_of(train(net, Pairs(4), plain_loss, images=8, weight_decay=0.5, **QUIET))
    assert_same(weights(net[0]), {k[2:]: v for k, v in before.items() if k.startswith("0.")})
    assert_same(weights(step.ema[0]), weights(net[0]))
    assert not torch.equal(net[2].weight, before["2.weight"])


def test_trains_in_train_mode_whatever_the_caller_did_in_between():
    modes = []

    def loss(module, batch):
        modes.append(module.training)
        return plain_loss(module, batch)

    net = small_net()
    for _ in train(net, Pairs(4), loss, images=12, **QUIET):
        net.eval()
    assert modes == [True, True, True]


def test_learning_rate_rises_over_the_warmup_and_falls_to_the_end():
    assert [lr_factor(i, 100, warmup=10) for i in (0, 5, 10, 55, 100)] == [0, 0.5, 1, 1, 1]
    linear = [lr_factor(i, 110, warmup=10, decay="linear") for i in (5, 10, 35, 60, 110)]
    assert linear == [0.5, 1, 0.75, 0.5, 0]
    assert_close(
        [lr_factor(i, 110, warmup=10, decay="cosine") for i in (10, 35, 60, 85, 110, 200)],
        [1.0, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0.0, 0.0],
    )
    assert lr_factor(10, 10, warmup=10, decay="linear") == 0  # nothing but warm-up
    # in a run, at the middle of each step: images 2, 6, ... of 24, the first 8 of them warm-up
    settings = {"images": 24, "lr": 8.0, "warmup": 8, "decay": "linear"}
    steps = train(small_net(), Pairs(4), plain_loss, **settings, **SGD, **QUIET)
    assert_close([step.lr for step in steps], [2.0, 6.0, 7.0, 5.0, 3.0, 1.0])


def test_ema_is_the_recursion_with_warm_up():
    assert [ema_decay(n, 0.999) for n in (0, 1, 5, 80)] == [1 / 10, 2 / 11, 6 / 15, 81 / 90]
    assert ema_decay(10**6, 0.999) == 0.999
    net, expected = small_net(), None
    for n, step in enumerate(train(net, Pairs(4), plain_loss, images=80, lr=0.02, ema=0.3, **QUIET)):
        now = weights(net)
        d = min(0.3, (1 + n) / (10 + n))
        expected = now if expected is None else {k: d * expected[k] + (1 - d) * now[k] for k in now}
        assert_close(weights(step.ema), expected, rtol=1e-5, atol=1e-6)
        assert not step.ema.training and net.training
    assert (step.ema[0].weight - net[0].weight).abs().max() > 1e-4


def test_no_average_with_ema_zero():
    net = small_net()
    step = last_of(train(net, Pairs(4), plain_loss, images=24, lr=0.02, ema=0.0, **QUIET))
    assert_close(weights(step.ema), weights(net), rtol=0, atol=1e-7)


# randomness


def test_the_callers_generator_and_the_runs_do_not_meet():
    quiet, drawing = small_net(), small_net()
    last_of(train(quiet, Pairs(4), noisy_loss, images=24, **QUIET))
    torch.manual_seed(5)
    drawn = [torch.rand(()).item() for _ in train(drawing, Pairs(4), noisy_loss, images=24, **QUIET)]
    assert_same(weights(quiet), weights(drawing))
    torch.manual_seed(5)
    assert drawn == torch.rand(6).tolist() or drawn == [torch.rand(()).item() for _ in range(6)]


def test_seed_and_step_change_the_noise():
    def losses(seed):
        class Same(Pairs):
            def batch(self, index, rank=0, world=1):
                return super().batch(0)

        steps = train(small_net(), Same(4), noisy_loss, images=24, lr=1e-9, seed=seed, **QUIET)
        return [step.loss for step in steps]

    assert losses(0) == losses(0)
    assert len({*losses(0), *losses(1)}) == 12


# steps that must not count


def breaks_at(step_number, how):
    """plain_loss, but at one step the loss, or the gradient alone, is not finite."""
    seen = []

    def loss(module, batch):
        seen.append(1)
        value = plain_loss(module, batch)
        if len(seen) != step_number:
            return value
        zero = (value - value.detach()) * 0
        return value + (zero * math.nan if how == "loss" else zero.sqrt())  # d sqrt(0) is infinite

    return loss


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_a_step_without_finite_loss_or_gradient_changes_nothing(how, tmp_path):
    net = nn.Sequential(nn.BatchNorm2d(3), small_net())
    before = None
    for step in train(net, Pairs(4), breaks_at(3, how), images=20, out=tmp_path, save_every=4, **QUIET):
        tensors, numbers = read_state(tmp_path / "training" / "state.safetensors")
        if step.step == 3:
            assert math.isnan(step.loss) if how == "loss" else math.isfinite(step.loss)
            assert not math.isfinite(step.grad_norm)
            assert_same(tensors, before)  # weights, EMA, optimizer, running statistics
        elif before is not None:
            assert not torch.equal(tensors["module.1.0.weight"], before["module.1.0.weight"])
        assert step.skipped == numbers["skipped"] == (step.step >= 3)
        before = tensors
    assert step.step == 5
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[2])
    assert line["skipped"] == 1 and line["grad_norm"] is None and (line["loss"] is None) == (how == "loss")


def test_running_statistics_do_not_keep_nan():
    class NanImage(Pairs):
        def batch(self, index, rank=0, world=1):
            batch = super().batch(index)
            return batch | {"image": batch["image"] * (math.nan if index == 1 else 1)}

    net = nn.Sequential(nn.BatchNorm2d(3), small_net())
    step = last_of(train(net, NanImage(4), plain_loss, images=12, **QUIET))
    assert step.skipped == 1 and math.isfinite(step.loss)
    assert net[0].running_mean.isfinite().all() and net[0].num_batches_tracked == 2


def test_gives_up_after_fifty_skipped_steps_in_a_row():
    steps = []
    never = train(small_net(), Pairs(4), lambda m, b: plain_loss(m, b) * math.nan, images=999, **QUIET)
    with pytest.raises(RuntimeError, match=r"50 steps in a row .*step 50: loss nan, .*lower lr"):
        steps.extend(iter(lambda: next(never), None))
    assert len(steps) == 49


def test_fp16_scales_the_loss_and_backs_off(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_autocast_dtype", lambda precision, device: torch.float16)

    def go(net, images):
        return train(net, Pairs(4), lambda m, b: 300 * plain_loss(m, b), images=images, out=tmp_path, **QUIET)

    net = small_net()
    step = last_of(go(net, 40))  # gradients of about 100 times 65536 do not fit into fp16
    _, numbers = read_state(tmp_path / "training" / "state.safetensors")
    assert 1 <= step.skipped < 10
    assert numbers["scaler"]["scale"] == 65536 / 2**step.skipped
    before = weights(net)
    assert next(iter(go(net, 44))).skipped == step.skipped  # the scale was found again
    assert any(not torch.equal(v, before[k]) for k, v in weights(net).items())


def test_fp16_on_the_cpu_is_bf16(monkeypatch):
    monkeypatch.setattr(loop, "computes_bfloat16", lambda device: True)
    with pytest.warns(UserWarning, match="bf16 instead"):
        half = last_of(train(small_net(), Pairs(4), noisy_loss, images=12, precision="fp16", **QUIET))
    brain = last_of(train(small_net(), Pairs(4), noisy_loss, images=12, precision="bf16", **QUIET))
    full = last_of(train(small_net(), Pairs(4), noisy_loss, images=12, **QUIET))
    assert half.loss == brain.loss != full.loss
    assert_close(brain.loss, full.loss, rtol=0.02, atol=0)


def test_bf16_is_fp32_where_it_would_be_emulated(monkeypatch):
    full = last_of(train(small_net(), Pairs(4), noisy_loss, images=12, **QUIET))
    for has, message in ((False, "bf16 is emulated on this cpu, slowly: training in fp32 instead"), (True, None)):
        monkeypatch.setattr(loop, "computes_bfloat16", lambda device, has=has: has)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            half = last_of(train(small_net(), Pairs(4), noisy_loss, images=12, precision="bf16", **QUIET))
        assert (half.loss == full.loss) is not has
        assert [str(w.message) for w in said] == ([] if message is None else [message])


# what is said on the way


def test_log_and_steps_say_the_same(tmp_path, capsys):
    def loss(module, batch):
        return plain_loss(module, batch), {"mean": batch["image"].mean()}

    arguments = {"images": 26, "out": tmp_path, "save_every": 10, "device": "cpu"}
    steps = list(train(small_net(), Pairs(4), loss, **arguments))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [step.numbers() for step in steps]
    assert [step.images for step in steps] == [4, 8, 12, 16, 20, 24, 28]
    assert [step.saved for step in steps] == [False, False, True, False, True, False, True]  # 10, 20, the end
    assert steps[-1].seconds_left == 0 < steps[0].seconds_left and steps[0].images_per_second > 0
    bar = capsys.readouterr().err
    assert "28.0/28.0" in bar and "img/s" in bar and f"loss={steps[-1].loss:.4f}" in bar


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"precision": "fp8"}, "precision must be one of fp32, bf16, fp16, got 'fp8'"),
        ({"decay": "step"}, "decay must be one of constant, cosine, linear, got 'step'"),
        ({"images": 0}, "images must be positive, got 0"),
        ({"lr": math.nan}, "lr must be positive, got nan"),
        ({"clip": 0.0}, "clip must be positive, got 0.0"),
        ({"accumulate": 0}, "accumulate must be positive, got 0"),
        ({"save_every": -1}, "save_every must be positive, got -1"),
        ({"ema": 1.0}, r"ema must be in \[0, 1\), got 1.0"),
        ({"warmup": -1}, "warmup must not be negative, got -1"),
        ({"weight_decay": -0.1}, "weight_decay must not be negative, got -0.1"),
        ({"seed": -3}, "seed must not be negative, got -3"),
        ({"processes": 3}, "processes=3 .* but 1 started; .*torchrun --standalone --nproc_per_node 3"),
    ],
)
def test_bad_arguments_are_named_before_any_work(wrong, message):
    with pytest.raises(ValueError, match=message):
        train(small_net(), Pairs(4), plain_loss, **{"images": 8, **QUIET, **wrong})


def test_a_module_without_parameters_to_train_is_refused():
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        train(small_net().requires_grad_(False), Pairs(4), plain_loss, images=8, **QUIET)


@pytest.mark.parametrize("shape", [(12, 12), (8, 40), (40, 8)])
@pytest.mark.parametrize("smallest", [1.0, 1e-3, 0.0])
def test_orthogonal_is_five_rounds_of_the_polynomial_on_the_singular_values(shape, smallest):
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    s = torch.linspace(1, smallest, len(v), dtype=torch.float64)
    expected, (a, b, c) = s / s.norm(), NEWTON_SCHULZ
    for _ in range(5):
        expected = a * expected + b * expected**3 + c * expected**5
    assert_close(orthogonal(u @ s.diag() @ v), (u @ expected.diag() @ v).float(), rtol=0, atol=1e-4)


def test_muon_steps_as_torch_does_on_matrices_and_as_adamw_elsewhere():
    """torch's Muon makes them orthogonal in bfloat16: near it, not at it. A kernel is the matrix of its rows."""
    torch.manual_seed(0)
    groups = {"lr": 0.01, "weight_decay": 0.1}
    kernel, bias = torch.randn(8, 6, 3, 3), torch.randn(8)
    ours = [nn.Parameter(v.clone()) for v in (kernel, bias)]
    matrix, vector = nn.Parameter(kernel.flatten(1).clone()), nn.Parameter(bias.clone())
    optimizers = [
        OPTIMIZERS["muon"]([{"params": ours, **groups}]),
        torch.optim.Muon([matrix], momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw", **groups),
        torch.optim.AdamW([vector], betas=(0.9, 0.99), **groups),
    ]
    for _ in range(4):
        ours[0].grad, ours[1].grad = torch.randn_like(kernel), torch.randn_like(bias)
        matrix.grad, vector.grad = ours[0].grad.flatten(1), ours[1].grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    moved = ours[0].detach() - kernel
    assert_close(ours[1], vector, rtol=1e-5, atol=1e-6)
    assert (ours[0].flatten(1) - matrix).norm() < 0.02 * moved.norm()


def test_muon_makes_the_updates_of_kernels_orthogonal():
    """The first step is the gradient made orthogonal: its singular values are nearly equal (Jordan et al. 2024)."""
    torch.manual_seed(0)
    net = nn.Linear(24, 8)
    before = net.weight.detach().clone()
    optimizer = OPTIMIZERS["muon"]([{"params": [net.weight], "lr": 1.0}, {"params": [net.bias], "lr": 1.0}])
    net(torch.randn(32, 24) * torch.logspace(-1, 1, 24)).square().mean().backward()
    raw = torch.linalg.svdvals(net.weight.grad)
    optimizer.step()
    made = torch.linalg.svdvals(before - net.weight.detach())
    assert raw[0] / raw[-1] > 5 and made[0] / made[-1] < 2
