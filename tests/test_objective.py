"""What training minimises: which levels, labels and losses an objective puts together, and that it can be minimised."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from guided.levels import LogNormal, LossSecondMoment, Uniform
from guided.losses import denoising_loss, hybrid_loss, variational_term
from guided.model import Model
from guided.networks import UNet, UNetConfig
from guided.objective import Objective
from guided.schedule import Schedule


class Recorder(nn.Module):
    """A network that keeps what it was asked, and depends on all of it."""

    def __init__(self, out: int = 3):
        super().__init__()
        self.weight = nn.Parameter(torch.full((out, 3), 0.1))
        self.calls: list[tuple] = []

    def forward(self, x, t, y=None):
        self.calls.append((x, t, y))
        shift = torch.zeros(()) if y is None else y.to(x.dtype).reshape(-1, 1, 1, 1)
        return torch.einsum("oc,nchw->nohw", self.weight, x) + t.reshape(-1, 1, 1, 1) / 1000 + shift


def model(schedule: Schedule | None = None, *, classes: bool = False, learned: bool = False) -> Model:
    return Model(
        Recorder(6 if learned else 3),
        schedule,
        "edm" if schedule is None else "eps",
        image_size=4,
        class_names=["a", "b", "c"] if classes else (),
        null_class=classes,
        learned_range=learned,
    )


def batch(n: int = 4) -> dict:
    return {"image": torch.rand(n, 3, 4, 4) * 2 - 1, "label": torch.arange(n) % 3}


def told(kind: str, m: Model, n: int, **options) -> Model:
    """The model once the objective has asked it about n pictures."""
    torch.manual_seed(0)
    Objective(m, kind, **options)(m, batch(n))
    return m


def test_levels_follow_the_model():
    _, t, _ = told("simple", model(Schedule.linear(30)), 20_000).net.calls[0]
    share = torch.bincount(t.long(), minlength=30) / len(t)
    assert torch.equal(t, t.round()) and float((share - 1 / 30).abs().max()) < 5 * (1 / 30 / 20_000) ** 0.5
    _, c_noise, _ = told("simple", model(), 20_000).net.calls[0]
    log_sigma = 4 * c_noise  # c_noise of EDM is log(sigma) / 4
    assert float(log_sigma.mean()) == pytest.approx(-1.2, abs=0.05)
    assert float(log_sigma.std()) == pytest.approx(1.2, abs=0.05)
    _, c_noise, _ = told("simple", model(), 20_000, levels=LogNormal(0.5, 0.3)).net.calls[0]
    assert float(4 * c_noise.mean()) == pytest.approx(0.5, abs=0.02)


def test_noise_is_standard_normal():
    m = model(Schedule.linear(30))
    torch.manual_seed(0)
    Objective(m)(m, {"image": torch.zeros(2000, 3, 4, 4)})
    x_t, t, _ = m.net.calls[0]
    eps = x_t / (1 - m.schedule.alpha_bar[t.long()]).sqrt().float().reshape(-1, 1, 1, 1)
    assert float(eps.mean()) == pytest.approx(0, abs=5 / eps.numel() ** 0.5)
    assert float(eps.var()) == pytest.approx(1, abs=5 * (2 / eps.numel()) ** 0.5)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_label_dropout(share):
    _, _, y = told("simple", model(classes=True), 20_000, label_dropout=share).net.calls[0]
    dropped = y == 3
    assert float(dropped.float().mean()) == pytest.approx(share, abs=5 * (share * (1 - share) / 20_000) ** 0.5)
    assert torch.equal(y[~dropped], batch(20_000)["label"][~dropped])


@pytest.mark.parametrize("kind", ["simple", "edm", "min-snr", "hybrid", "vlb"])
def test_kinds_are_the_losses(kind, monkeypatch):
    m = model(Schedule.cosine(40), classes=True, learned=True)
    levels, pictures = Uniform(40), batch(6)
    noise = torch.randn(6, 3, 4, 4)
    monkeypatch.setattr(torch, "randn_like", lambda x: noise)
    torch.manual_seed(5)
    got = Objective(m, kind, levels=levels)(m, pictures)
    torch.manual_seed(5)
    t, _ = levels.sample(6)
    x0, y, sigma = pictures["image"], pictures["label"], m.schedule.sigma[t]
    want = {
        "simple": lambda: denoising_loss(m, x0, sigma, noise=noise, label=y),
        "edm": lambda: denoising_loss(m, x0, sigma, noise=noise, weighting="edm", label=y),
        "min-snr": lambda: denoising_loss(m, x0, sigma, noise=noise, weighting="min-snr", label=y),
        "hybrid": lambda: hybrid_loss(m, x0, t, noise=noise, label=y),
        "vlb": lambda: 40 * variational_term(m, x0, t, noise=noise, label=y),
    }[kind]()
    assert got.shape == (6,)
    torch.testing.assert_close(got, want)


def test_loss_aware_levels_learn_in_training_only():
    m = model(Schedule.linear(30))
    objective = Objective(m, levels="loss-second-moment")
    objective.eval()(m, batch(8))
    assert int(objective.levels.counts.sum()) == 0
    objective.train()(m, batch(8))
    assert int(objective.levels.counts.sum()) == 8
    assert {"levels.losses", "levels.counts"} <= objective.state_dict().keys()


def test_importance_weights_keep_the_expectation(monkeypatch):
    # a network whose loss is 1 + (t / 10)^2, and a record that makes late timesteps thirty times as likely
    m = model(Schedule.linear(30))
    monkeypatch.setattr(m.net, "forward", lambda x, t: (t / 10).reshape(-1, 1, 1, 1).expand_as(x))
    objective = Objective(m, levels=LossSecondMoment(30, history=1)).eval()
    objective.levels.update(torch.arange(30), torch.linspace(0.1, 3, 30))
    torch.manual_seed(0)
    loss = objective(m, {"image": torch.zeros(6000, 3, 4, 4)})
    expected = 1 + sum((t / 10) ** 2 for t in range(30)) / 30
    assert float(loss.mean()) == pytest.approx(expected, rel=0.05)


def test_a_loss_that_blew_up_leaves_the_levels_usable():
    m = model(Schedule.linear(30))
    objective = Objective(m, levels=LossSecondMoment(30, history=1))
    objective.levels.update(torch.arange(30), torch.ones(30))
    broken = batch(8)
    broken["image"] = torch.full_like(broken["image"], float("nan"))
    assert not bool(objective(m, broken).isfinite().any())
    assert bool(objective(m, batch(8)).isfinite().all())


def test_overfits_eight_pictures():
    # eight flat pictures of eight colours, told apart by their class: a network can make no error at all
    torch.manual_seed(0)
    net = UNet(
        UNetConfig(
            model_channels=32,
            channel_mult=(1,),
            num_res_blocks=1,
            attention_resolutions=(),
            num_classes=8,
            num_head_channels=32,
        )
    )
    m = Model(
        net,
        None,
        "edm",
        image_size=4,
        class_names=[str(i) for i in range(8)],
        time_scale=250.0,
        sigma_data=0.8,
    )
    corners = torch.cartesian_prod(*[torch.tensor([-0.8, 0.8])] * 3)
    pictures = {"image": corners[:, :, None, None].expand(8, 3, 4, 4), "label": torch.arange(8)}
    objective, optimizer = Objective(m, "edm"), torch.optim.Adam(m.parameters(), 1e-2)
    losses = []
    for _ in range(70):
        loss = objective(m, pictures).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[:5]) / 5 > 0.7  # an untrained F is 0, and its target has unit variance
    assert sum(losses[-10:]) / 10 < 0.4


def test_errors():
    chain, continuous = model(Schedule.linear(30), classes=True), model()
    for build, message in (
        (lambda: Objective(chain, "mse"), "the objective must be one of simple, .*, got 'mse'"),
        (lambda: Objective(continuous, "vlb"), "'vlb' is that of a discrete chain"),
        (lambda: Objective(chain, "hybrid"), "trains a learned variance, which this model has not"),
        (lambda: Objective(continuous, label_dropout=0.1), "needs a model with a null class"),
        (lambda: Objective(chain, label_dropout=1.5), "label_dropout is a probability, got 1.5"),
        (
            lambda: Objective(chain, levels="uniform"),
            "levels must be 'loss-second-moment' or an object .*'uniform'",
        ),
        (lambda: Objective(chain, levels=LogNormal()), "LogNormal levels are for continuous models"),
        (lambda: Objective(continuous, levels=Uniform(30)), "continuous in time: use LogNormal"),
        (lambda: Objective(continuous, levels="loss-second-moment"), "continuous in time: use LogNormal"),
        (lambda: Objective(chain, levels=Uniform(1000)), "for 1000 timesteps, the model's chain has 30"),
    ):
        with pytest.raises(ValueError, match=message):
            build()


def test_a_batch_without_labels():
    chain = model(classes=True)
    with pytest.raises(ValueError, match="the model has classes, but the batch holds only image: give 'label'"):
        Objective(chain)(chain, {"image": batch()["image"]})
