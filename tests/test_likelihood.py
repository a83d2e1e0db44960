"""Bits per dimension: exact log densities of mixtures, error bars, the bound above them, and the command."""

from __future__ import annotations

import json
import math

import pytest
import torch
from oracle import Mixture, blobs
from PIL import Image
from torch import Tensor, nn
from torch.testing import assert_close

import guided
from guided import Model, Schedule, SeededNoise, cli, last
from guided.bits import bound_chain, summary
from guided.density import BIN

ENDS = {"sigma_min": 1e-3, "sigma_max": 3000.0}
TIGHT = {"rtol": 1e-7, "atol": 1e-7}


def draws(n: int, mixture: Mixture | None = None) -> Tensor:
    return (mixture or blobs()).sample(n, torch.Generator().manual_seed(1))


# ---------------------------------------------------------------------- densities


@pytest.mark.parametrize("classes", [None, [0, 2]])
def test_the_flows_density_is_that_of_a_mixture(classes):
    """Within 1e-3 nats a dimension, also where a class is given: p(x | class in classes)."""
    x = draws(40)
    made = guided.log_density(blobs().denoiser(classes), x, probes=None, **ENDS, **TIGHT)
    share = 1.0 if classes is None else float(blobs().weights[classes].sum())
    exact = blobs().log_p(x, 1e-3, classes) - math.log(share)
    assert float((made.nats - exact).abs().max()) / 4 < 1e-3
    assert torch.equal(made.error, torch.zeros(40, dtype=torch.float64))
    up = torch.tensor([1e-3, 3000.0], dtype=torch.float64)
    latent = last(guided.rk45(blobs().denoiser(classes), x, up, **TIGHT))
    assert_close(made.latent, latent, rtol=1e-4, atol=1e-2)


def test_it_is_the_density_of_noisy_data_where_sigma_min_is_large():
    x = draws(10) + 0.5 * SeededNoise(range(10))(draws(10))
    made = guided.log_density(blobs().denoiser(), x, probes=None, sigma_min=0.5, sigma_max=3000.0, **TIGHT)
    assert float((made.nats - blobs().log_p(x, 0.5)).abs().max()) / 4 < 1e-3


def test_hutchinsons_estimate_and_its_error_bars():
    x = draws(30)
    options = {"sigma_min": 0.01, "sigma_max": 300.0, "rtol": 1e-4, "atol": 1e-4}
    exact = guided.log_density(blobs().denoiser(), x, probes=None, **options)
    few, many = (
        guided.log_density(blobs().denoiser(), x, probes=k, noise=SeededNoise(range(30)), **options) for k in (8, 40)
    )
    for made, bars in ((few, 9.0), (many, 4.5)):  # 8 probes have Student's tails
        assert bool(((made.nats - exact.nats).abs() <= bars * made.error + 1e-3).all())
        within = ((made.nats - exact.nats).abs() <= made.error + 1e-3).double().mean()
        assert 0.4 < float(within) < 0.95
    assert float(many.error.mean()) == pytest.approx(float(few.error.mean()) / 5**0.5, rel=0.35)
    one = guided.log_density(blobs().denoiser(), x[:2], probes=1, **options)
    assert bool(one.error.isnan().all()) and bool(one.nats.isfinite().all())


def test_the_ends_and_the_tolerance_matter():
    def nats(**options):
        options = {"sigma_min": 0.01, "sigma_max": 300.0, "probes": None, **options}
        return guided.log_density(blobs().denoiser(), draws(5), **options).nats

    plain = nats()
    assert float((nats(sigma_max=3.0) - plain).abs().max()) > 0.05  # the data matter beside so little noise
    assert float((nats(sigma_min=0.2) - plain).abs().max()) > 0.1
    fine = nats(**TIGHT)
    coarse = [float((nats(**o) - fine).abs().max()) for o in ({"rtol": 1e-1}, {"atol": 1e-1}, {})]
    assert coarse[0] > 3 * coarse[2] and coarse[1] > 3 * coarse[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma_min": 0.0, "sigma_max": 1.0}, "0 < sigma_min < sigma_max, got 0.0 and 1.0"),
        ({"sigma_min": 2.0, "sigma_max": 1.0}, "0 < sigma_min < sigma_max"),
        ({**ENDS, "probes": 0}, "probes must be at least 1, or None"),
        ({**ENDS, "rtol": 0}, "rtol must be positive"),
    ],
)
def test_wrong_densities(options, message):
    with pytest.raises(ValueError, match=message):
        guided.log_density(blobs().denoiser(), draws(2), **options)


def test_dequantisation_is_uniform_in_the_bin():
    x0 = torch.zeros(4, 3, 50, 50)
    moved = (guided.dequantise(x0, noise=SeededNoise(range(4))) - x0) / BIN
    assert float(moved.abs().max()) <= 0.5
    assert float(moved.mean()) == pytest.approx(0, abs=0.01)
    assert float(moved.var()) == pytest.approx(1 / 12, rel=0.03)
    again = guided.dequantise(x0[1:2], noise=SeededNoise([1])) / BIN
    assert torch.equal(again, moved[1:2])


# ---------------------------------------------------------------------- bits of pictures


class Net(nn.Module):
    """E[x0 | x] of a mixture, as the network of an "x0" model: told log(sigma) / 4, shown x / sqrt(1 + sigma^2)."""

    def __init__(self, mixture: Mixture):
        super().__init__()
        self.mixture = mixture

    def forward(self, y: Tensor, t: Tensor, y_label: Tensor | None = None) -> Tensor:
        sigma = (4 * t.double()).exp()
        x = y.double() * (1 + sigma**2).sqrt().reshape(-1, 1, 1, 1)
        return self.mixture.denoiser()(x, sigma).x0.to(y.dtype)


def pictures_mixture() -> Mixture:
    """As `blobs`, but all of it well inside [-1, 1]."""
    return Mixture(0.3 * blobs().means, 0.3 * blobs().stds, blobs().weights)


def exact_model() -> Model:
    return Model(Net(pictures_mixture()), None, "x0", channels=2, image_size=2, sigma_min=0.01, sigma_max=500.0)


def eight_bit(n: int) -> Tensor:
    return (draws(n, pictures_mixture()) * 127.5 + 127.5).round() / 127.5 - 1


def exact_bits(x0: Tensor) -> Tensor:
    """-log2 of the mixture's density times a bin, which is its mass but for terms of (bin / deviation)^2."""
    return -pictures_mixture().log_p(x0, 0.0) / (4 * math.log(2)) - math.log2(BIN)


def test_flow_bits_are_the_mixtures_and_the_bound_is_above():
    x0 = eight_bit(400)
    options = {"levels": 200, "variance": "level-large", "probes": 4, "tolerance": 1e-4, "batch_size": 400}
    made = list(guided.likelihood(exact_model(), x0, **options))
    flow, bound = (torch.tensor([row[name] for row in made], dtype=torch.float64) for name in ("flow", "bound"))
    exact = float(exact_bits(x0).mean())
    # a picture's own numbers have the dequantisation's and the probes' noise, the mean of 400 little
    assert float(flow.mean()) == pytest.approx(exact, abs=0.03)
    assert float(bound.mean()) > float(flow.mean()) and float(bound.mean()) > exact
    assert float(bound.mean()) < exact + 0.2
    means = summary(made)
    assert means["bound"][0] == pytest.approx(float(bound.mean()))
    assert means["bound"][1] == pytest.approx(float(bound.std()) / 20)
    assert means["prior"][0] < 1e-3


def test_flow_bits_within_a_thousandth_with_an_exact_trace():
    x0 = eight_bit(20)
    noise = SeededNoise(range(20))
    made = guided.flow_bits_per_dim(exact_model(), x0, probes=None, noise=noise, sigma_max=3000.0, **TIGHT)
    moved = guided.dequantise(x0, noise=SeededNoise(range(20)))
    exact = -pictures_mixture().log_p(moved, 0.01) / 4  # nats a dimension
    nats = (made["total"] + math.log2(BIN)) * math.log(2)
    assert float((nats - exact).abs().max()) < 1e-3


def test_more_levels_make_the_bound_tighter():
    x0 = eight_bit(200)

    def bound(**options):
        rows = guided.likelihood(exact_model(), x0, methods=["bound"], batch_size=200, **options)
        return summary(list(rows))["bound"][0]

    coarse, fine = bound(levels=12), bound(levels=60)
    assert coarse > fine + 0.02 > float(exact_bits(x0).mean())
    listed = guided.schedule.log_snr_sigmas(60, 0.01, 500.0)
    assert bound(levels=listed.tolist()) == pytest.approx(fine, abs=1e-9)
    assert bound(levels=60, sigma_min=0.02) != pytest.approx(fine, abs=1e-3)
    assert bound(levels=2) > coarse + 0.1
    assert bound(levels=60, variance="level-large") < fine - 0.05  # data that are wide beside most levels
    assert bound(levels=60, variance="fixed-small") > fine + 0.3  # levels that lie close


def test_rows_come_one_a_picture_and_do_not_depend_on_the_batch(tiny_model):
    x0 = (torch.rand(3, 3, 16, 16) * 255).round() / 127.5 - 1
    options = {"methods": ["bound"], "levels": 5}
    whole = list(guided.likelihood(tiny_model, x0, "cat", batch_size=3, **options))
    assert [set(row) for row in whole] == [{"bound", "prior"}] * 3
    parts = list(guided.likelihood(tiny_model, x0, ["cat"] * 3, batch_size=2, **options))
    alone = list(guided.likelihood(tiny_model, x0[2:], "cat", seeds=[2], **options))
    for other in (parts, [*whole[:2], *alone]):
        assert_close([r["bound"] for r in other], [r["bound"] for r in whole], rtol=1e-5, atol=1e-5)
    none = list(guided.likelihood(tiny_model, x0, **options))
    assert abs(none[0]["bound"] - whole[0]["bound"]) > 1e-4
    seeded = list(guided.likelihood(tiny_model, x0, "cat", seeds=[7, 8, 9], **options))
    assert abs(seeded[0]["bound"] - whole[0]["bound"]) > 1e-6


def test_discrete_models_take_their_own_chain_or_fewer_timesteps():
    chain = Schedule.linear(50)
    m = Model(nn.Conv2d(2, 2, 1), chain, "eps", channels=2)
    m.net.forward = lambda x, t: 0.3 * x
    assert bound_chain(m, None) is chain
    assert len(bound_chain(m, 10)) == len(bound_chain(m, "10")) == 10
    x0 = eight_bit(3)
    rows = list(guided.likelihood(m, x0.float(), methods=["bound"]))
    noise = SeededNoise(range(3))
    assert_close([r["bound"] for r in rows], guided.bits_per_dim(m, x0.float(), noise=noise)["total"].tolist())


def test_a_chain_of_levels():
    chain = Schedule.from_sigmas([80.0, 0.002, 1.0])
    assert_close(chain.sigma, torch.tensor([0.002, 1.0, 80.0], dtype=torch.float64), rtol=1e-9, atol=0)
    assert_close(torch.cumprod(1 - chain.beta, 0), chain.alpha_bar)
    for wrong in ([1.0, 1.0], [0.0, 1.0], [], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="different positive levels"):
            Schedule.from_sigmas(wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["elbo"]}, "methods must be among bound, flow, got elbo"),
        ({"methods": []}, "got none"),
        ({"levels": 1}, "at least 2 levels, got 1"),
        ({"levels": "250"}, "no chain to respace"),
        ({"sigma_min": 600.0}, "sigma_min is for continuous models"),
        ({"variance": "small"}, "variance must be learned, fixed-small, .* got 'small'"),
        ({"variance": "learned"}, "needs a model with a learned range"),
        ({"seeds": [1]}, "1 seeds for 2 pictures"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"labels": "cat"}, "no classes"),
    ],
)
def test_wrong_likelihoods(options, message):
    with pytest.raises(ValueError, match=message):
        guided.likelihood(exact_model(), eight_bit(2), **options)
    with pytest.raises(ValueError, match="8-bit pictures"):
        guided.likelihood(exact_model(), eight_bit(2) + 0.001)


# ---------------------------------------------------------------------- the command


@pytest.fixture
def pets(tmp_path):
    for i, name in enumerate(["cat", "cat", "dog"]):
        folder = tmp_path / "pets" / name
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(i)) * 255).byte().numpy()
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "pets"


def test_command_writes_rows_and_goes_on(tiny_folder, pets, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    words = ["likelihood", str(tiny_folder), str(pets), "--levels", "4", "--tolerance", "0.05", "--out", str(out)]
    words += ["--sigma-min", "0.5", "--batch-size", "1"]
    assert cli.main(words) == 0
    first = capsys.readouterr().out
    assert "3 pictures of 16x16" in first and "variational bound" in first and "probability flow" in first
    head, *rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert head["settings"]["levels"] == "4" and len(rows) == 3
    assert {"file", "bound", "prior", "flow", "flow_error"} == set(rows[0])
    # killed in the middle of the third line
    whole = out.read_text()
    out.write_text(whole[: whole.rindex('"bound"')])
    assert cli.main(words) == 0
    assert capsys.readouterr().out == first
    again = [json.loads(line) for line in out.read_text().splitlines() if line.endswith("}")][1:]
    assert {row["file"]: row for row in again} == {row["file"]: row for row in rows}
    assert cli.main([*words, "--probes", "2"]) == 2
    assert "was made with probes 1, not 2" in capsys.readouterr().err


def test_command_options_do_something(tiny_folder, pets, tmp_path, capsys):
    def printed(*words):
        assert cli.main(["likelihood", str(tiny_folder), str(pets), "--method", "bound", "--levels", "4", *words]) == 0
        return capsys.readouterr().out

    plain = printed()
    assert "flow" not in plain
    assert "2 pictures" in printed("--n", "2")
    assert len({plain, printed("--levels", "6"), printed("--seed", "5"), printed("--labels", "data")}) == 4
    assert printed("--variance", "level-large") != plain
    assert printed("--sigma-min", "0.1") != plain
    assert printed("--dtype", "bf16") != plain
    flow = ["--method", "flow", "--n", "1", "--sigma-min", "1", "--tolerance", "0.1"]
    assert "trace, error" in printed(*flow, "--probes", "2") and "trace, error" not in printed(*flow)
    assert printed(*flow, "--tolerance", "0.001") != printed(*flow)


def test_command_reads_what_is_asked_for(tiny_folder, tmp_path, capsys):
    """The split, the background under transparent pixels, and columns of metadata as labels."""
    rows = ["file,kind,group,split"]
    for i, split in enumerate(["test", "test", "other"]):
        alpha = torch.rand(16, 16, 4, generator=torch.Generator().manual_seed(i))
        Image.fromarray((alpha * 255).byte().numpy(), "RGBA").save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{'cat' if i else 'heart'},{'fish'},{split}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")

    def printed(*words):
        words = ["--method", "bound", "--levels", "4", "--label", "kind", *words]
        assert cli.main(["likelihood", str(tiny_folder), str(tmp_path), *words]) == 0
        return capsys.readouterr().out

    plain = printed()
    assert plain.startswith("2 pictures") and printed("--split", "other").startswith("1 pictures")
    assert printed("--background", "red") != plain
    told = printed("--labels", "data")
    assert told != plain
    assert printed("--labels", "data", "--label", "group") not in (plain, told)
    gathered = ["--other", "group", "--min-per-class", "3", "--labels", "data", "--label", "kind", "--levels", "4"]
    assert cli.main(["likelihood", str(tiny_folder), str(tmp_path), *gathered]) == 2
    assert "fish-other" in capsys.readouterr().err  # what small classes are gathered in, which the model has not


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n", "0"], "--n must be at least 1"),
        (["--seed", "-1"], "--seed must not be negative"),
        (["--levels", "1"], "at least 2 levels"),
        (["--split", "tset"], "tset"),
    ],
)
def test_command_errors(tiny_folder, pets, capsys, words, message):
    assert cli.main(["likelihood", str(tiny_folder), str(pets), *words]) == 2
    assert message in capsys.readouterr().err
