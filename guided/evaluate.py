"""How good are samples? Distances to real pictures, scores of judges and memorisation, each with an interval.

The names beside `evaluate` are those of `guided.evaluation`; importing them pulls in torch and numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guided.evaluation import *  # noqa: F403
from guided.evaluation import __all__ as _names
from guided.evaluation.accuracy import BACKBONE, classification_accuracy
from guided.evaluation.blocks import blocks
from guided.evaluation.features import Features, by_class, colours, extract
from guided.evaluation.frechet import Gaussian, frechet, frechet_distance, frechet_infinity
from guided.evaluation.inception import NAME as INCEPTION
from guided.evaluation.intervals import estimates
from guided.evaluation.kernel import kernel_distance
from guided.evaluation.manifold import density_coverage, precision_recall
from guided.evaluation.memory import memorisation
from guided.evaluation.pictures import Pictures, from_tensor
from guided.evaluation.report import Report, Row
from guided.evaluation.scores import Matcher, clip_score, inception_score, share_right

__all__ = ["MEASURES", "compare", "evaluate", "mixed", *_names]

MEASURES = {
    "frechet": "Frechet distance",
    "infinity": "Frechet distance at infinite counts",
    "kernel": "kernel distance x 1000",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "memory": "nearer to a training picture",
    "inception": "Inception score",
    "accuracy": "found in the asked class",
    "clip": "CLIP score",
    "cas": "classification accuracy score",
}
COMPARED = ("frechet", "infinity", "kernel", "precision", "recall", "density", "coverage")
SHARES = ("precision", "recall", "coverage")
SAMPLES, TRAIN, REFERENCE, RATIO = "samples", "training pictures", "reference pictures", "ratio"


def evaluate(
    samples: Pictures | Tensor,
    reference: Pictures | Tensor,
    features: Features | Sequence[Features] | None = None,
    *,
    train: Pictures | Tensor | None = None,
    judge: Features | None = None,
    clip: Matcher | None = None,
    measures: Sequence[str] | None = None,
    equal: bool = True,
    draws: int = 100,
    level: float = 0.95,
    seed: int = 0,
    batch_size: int = 64,
    cas: dict[str, Any] | None = None,
    kept: str | Path | None = None,
    progress: bool = False,
) -> Report:
    """Measures of samples against real pictures, each with an interval (`guided.evaluation.estimates`).

    Args:
        samples: what is measured; labelled, where classes are (`guided.evaluation.draw`, `open_pictures`, or a tensor).
        reference: real pictures, best ones that the model has not seen; or only their statistics, for the Frechet
            distance of Inception features.
        features: what pictures are compared by, one or several; None is `colours()`.
        train: the training pictures. They are compared to the reference as well: what a perfect memory would get, and
            a yardstick for the samples; and memorisation is measured against them.
        judge: features with logits and class names, of a classifier that had no part in making the samples.
        clip: judges how samples match their captions, or else the names of their classes.
        measures: keys of MEASURES; None is all that the arguments allow but "infinity" and "cas".
        equal: compare equal counts of all sets, the larger ones in blocks that are averaged over. False takes all
            there are at once, as published figures do (50,000 samples, say, against all training pictures).
        draws, level, seed: of the intervals; pictures are shuffled by `seed` as well.
        batch_size: pictures in a network at once.
        cas: settings of `classification_accuracy`.
        kept: a folder for the features of real pictures and of drawn samples, which are looked up there next time.
        progress: show bars.

    Raises:
        ValueError: an unknown measure, one whose needs are not given (they are named), or sets too small.
    """
    sets = {SAMPLES: _pictures(samples, SAMPLES), REFERENCE: _pictures(reference, REFERENCE)}
    if train is not None:
        sets[TRAIN] = _pictures(train, TRAIN)
    features = [colours()] if features is None else [features] if isinstance(features, Features) else list(features)
    wanted = check_needs(measures, sets[SAMPLES], sets[REFERENCE], sets.get(TRAIN), features, judge, clip)
    interval = {"draws": draws, "level": level, "seed": seed}
    look = {"batch_size": batch_size, "progress": progress, "kept": kept}
    real, shown = sets.get(TRAIN, sets[REFERENCE]), {of: pictures for of, pictures in sets.items() if len(pictures)}
    rows: list[Row] = []
    for each in features:
        found = {of: mixed(extract(each, p, fit_to=real, **look), seed) for of, p in shown.items()}
        if set(wanted) & set(COMPARED):
            chosen = [name for name in COMPARED if name in wanted]
            statistics = sets[REFERENCE].statistics
            rows += compare(found, each.name, chosen, statistics, equal=equal, progress=progress, **interval)
        if "memory" in wanted:
            rows += _remembered(found, each.name, interval)
    if judge is not None and {"inception", "accuracy"} & set(wanted):
        rows += _judged(sets, judge, wanted, equal, interval, look)
    if "clip" in wanted:
        rows += _matched(sets, clip, interval, batch_size)
    if "cas" in wanted:
        rows += _learned(sets, cas or {}, interval, progress)
    about = {of: {"name": p.name, "count": len(p)} for of, p in sets.items()}
    return Report(rows, {"sets": about, "equal counts": equal, **interval}, level)


def mixed(rows: Tensor, seed: int) -> Tensor:
    """Rows in random order, the same for sets of equal counts: files lie by class, and blocks must not."""
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]


def _pictures(given: Pictures | Tensor, name: str) -> Pictures:
    return given if isinstance(given, Pictures) else from_tensor(given, name)


def check_needs(
    measures: Sequence[str] | None,
    samples: Pictures,
    reference: Pictures,
    train: Pictures | None,
    features: Sequence[Features],
    judge: Features | None,
    clip: Matcher | None,
) -> list[str]:
    """The measures to take, once all that they need is there; nothing is read of the pictures.

    Raises:
        ValueError: an unknown measure, what one lacks, or classes that the judge does not know.
    """
    known, statistics_fit = samples.labels is not None, all(f.name == INCEPTION for f in features)
    pictures = [] if len(reference) else ["reference pictures, not their statistics"]
    judging = judge is not None and judge.logits is not None
    lacks = dict.fromkeys(COMPARED, pictures)
    lacks["frechet"] = [] if statistics_fit else pictures
    lacks["memory"] = pictures + ([] if train is not None else ["training pictures"])
    lacks["inception"] = [] if judging else ["a judge"]
    lacks["accuracy"] = [] if judging and judge.class_names and known else ["a judge with classes", "labelled samples"]
    lacks["clip"] = [] if clip is not None and (samples.captions or known) else ["a CLIP", "captions or labels"]
    sets = [each for each in (samples, reference, train) if each]  # statistics alone count 0
    classes = {None if p.labels is None else tuple(p.class_names) for p in (samples, reference, train or samples)}
    lacks["cas"] = [] if len(classes) == 1 and None not in classes else ["labels of the same classes of all sets"]
    counts = [len(pictures) for pictures in sets]
    for name, least in {"infinity": 16, **dict.fromkeys(("precision", "recall", "density", "coverage"), 12)}.items():
        if counts and min(counts) < least:  # intervals take halves of them
            lacks[name] = [*lacks[name], f"{least} pictures or more of each set"]
    for name in measures or ():
        if name not in MEASURES:
            raise ValueError(f"unknown measure {name!r}; there are {', '.join(MEASURES)}")
        if lacks[name]:
            raise ValueError(f"the measure {name!r} needs {' and '.join(lacks[name])}")
    usual = [name for name in MEASURES if not lacks[name] and name not in ("infinity", "cas")]
    wanted = usual if measures is None else list(measures)
    if "accuracy" in wanted:
        for each in sets:
            if each.labels is not None:
                by_class(each.class_names, each.labels, judge.class_names, "the judge")
    return wanted


def compare(
    found: dict[str, Tensor],
    name: str,
    measures: Sequence[str] = ("frechet",),
    statistics: Gaussian | None = None,
    *,
    equal: bool = True,
    progress: bool = False,
    **interval: Any,
) -> list[Row]:
    """Distances of features: of the samples' and, where they are there, of the training pictures' to the reference's.

    Args:
        found: features (N, D), pictures in random order, under "samples", "reference pictures" and, if they are to be
            compared as well, "training pictures".
        name: of the features.
        measures: keys of MEASURES, of those that compare features.
        statistics: the reference's Gaussian under the Inception of FID; used for its Frechet distance where there are
            no reference pictures, or with equal=False.
        **interval: draws, level and seed, as `guided.evaluation.estimates` takes them.
    """
    if statistics is not None and name == INCEPTION and (REFERENCE not in found or not equal):
        rest = [measure for measure in measures if measure != "frechet"] if REFERENCE in found else []
        rows = _to_statistics(found, statistics, name, interval) if "frechet" in measures else []
        return rows + (compare(found, name, rest, equal=equal, progress=progress, **interval) if rest else [])
    others = [of for of in (SAMPLES, TRAIN) if of in found]
    order = [*others, REFERENCE]
    names = list(measures)

    def statistic(*index: Tensor) -> dict[tuple[str, str], float]:
        chosen = {of: found[of][i] for of, i in zip(order, index, strict=True)}
        count = min(len(x) for x in chosen.values())
        values: dict[tuple[str, str], float] = {}
        for of in others:
            pairs = blocks(chosen[of], chosen[REFERENCE], count) if equal else [(chosen[of], chosen[REFERENCE])]
            taken = [_measures(a, b, names) for a, b in pairs]
            values |= {(m, of): sum(t[m] for t in taken) / len(taken) for m in names}
        if TRAIN in found and "frechet" in names:
            values["frechet", RATIO] = values["frechet", SAMPLES] / max(values["frechet", TRAIN], 1e-12)
        return values

    counts = [len(found[of]) for of in order]
    least = min(counts)
    shares = {(m, of): len(found[of] if m == "precision" else found[REFERENCE]) for m in SHARES for of in others}
    result = estimates(statistic, counts, shares=shares, tick=_bar(name, progress), **interval)
    said = (least, least) if equal else (counts[0], counts[-1])
    return [Row(MEASURES[m], of, name, estimate, said) for (m, of), estimate in result.items()]


def _measures(a: Tensor, b: Tensor, names: Sequence[str]) -> dict[str, float]:
    """The figures of one set of features against the reference's."""
    values: dict[str, float] = {}
    if "frechet" in names:
        values["frechet"] = frechet_distance(a, b)
    if "infinity" in names:
        values["infinity"] = frechet_infinity(a, b)
    if "kernel" in names:
        values["kernel"] = 1000 * kernel_distance(a, b)
    if {"precision", "recall"} & set(names):
        values["precision"], values["recall"] = precision_recall(b, a)
    if {"density", "coverage"} & set(names):
        values["density"], values["coverage"] = density_coverage(b, a)
    return values


def _to_statistics(found, statistics: Gaussian, name: str, interval) -> list[Row]:
    result = estimates(
        lambda i: {"frechet": frechet(Gaussian.of(found[SAMPLES][i]), statistics)}, [len(found[SAMPLES])], **interval
    )
    counts = (len(found[SAMPLES]),)
    return [Row(MEASURES["frechet"], SAMPLES, name, result["frechet"], counts)]


def _remembered(found, name, interval) -> list[Row]:
    """Shares near a training picture; the training set, which says what near is, stays whole."""
    train = found[TRAIN]

    def statistic(i: Tensor, j: Tensor) -> dict[str, float]:
        return memorisation(found[SAMPLES][i], found[REFERENCE][j], train)

    counts = [len(found[SAMPLES]), len(found[REFERENCE])]
    shares = {f"{k} {who}": n for k in ("near", "copy") for who, n in zip(("samples", "held-out"), counts, strict=True)}
    result = estimates(statistic, counts, shares=shares, **interval)
    words = {"near": "nearer to a training picture than their median", "copy": "nearer than their 5th percentile"}
    of = {"samples": SAMPLES, "held-out": REFERENCE, "gap": "difference"}
    return [
        Row(words[key.split()[0]], of[key.split()[1]], name, estimate, (*counts, len(train)))
        for key, estimate in result.items()
    ]


def _judged(sets, judge: Features, wanted, equal, interval, look) -> list[Row]:
    """What a classifier says: of the samples, and of the real pictures beside them."""
    rows = []
    least = min(len(pictures) for pictures in sets.values() if len(pictures))
    for of, pictures in sets.items():
        if not len(pictures):
            continue
        logits = extract(judge, pictures, logits=True, **look)
        n = len(logits)
        if "accuracy" in wanted and pictures.labels is not None:
            y = by_class(pictures.class_names, pictures.labels, judge.class_names)
            result = estimates(
                lambda i, z=logits, y=y: {f"top-{k}": share_right(z[i], y[i], k) for k in (1, 5)},
                [n], shares={"top-1": n, "top-5": n}, **interval,
            )  # fmt: skip
            rows += [Row(f"{MEASURES['accuracy']}, {k}", of, judge.name, e, (n,)) for k, e in result.items()]
        if "inception" in wanted:
            some = mixed(logits, interval["seed"])[:least] if equal else logits
            result = estimates(lambda i, z=some: {"score": inception_score(z[i])}, [len(some)], **interval)
            rows.append(Row(MEASURES["inception"], of, judge.name, result["score"], (len(some),)))
    return sorted(rows, key=lambda row: row.measure)


def _matched(sets, clip: Matcher, interval, batch_size) -> list[Row]:
    rows = []
    for of in (SAMPLES, REFERENCE):
        pictures = sets[of]
        if not len(pictures) or not (pictures.captions or pictures.labels is not None):
            continue
        texts = pictures.captions or [pictures.class_names[i].replace("-", " ") for i in pictures.labels.tolist()]
        parts = range(0, len(texts), batch_size)
        cosines = torch.cat(
            [clip.match(x, texts[i : i + batch_size]) for i, x in zip(parts, pictures.batches(batch_size), strict=True)]
        ).cpu()
        result = estimates(lambda i, c=cosines: {"score": clip_score(c[i])}, [len(cosines)], **interval)
        rows.append(Row(MEASURES["clip"], of, clip.name, result["score"], (len(cosines),)))
    return rows


def _learned(sets, settings, interval, progress) -> list[Row]:
    """Classification accuracy score of the samples, and of as many real training pictures."""
    rows, reference = [], sets[REFERENCE]
    taught = [of for of in (SAMPLES, TRAIN) if of in sets]
    least = min(len(sets[of]) for of in taught)
    for of in taught:
        some = sets[of].shuffled(interval["seed"], least)
        logits = classification_accuracy(some, reference, progress=progress, **settings)
        n = len(logits)
        result = estimates(
            lambda i, z=logits: {"score": share_right(z[i], reference.labels[i])}, [n], shares={"score": n}, **interval
        )
        name = f"a {settings.get('backbone', BACKBONE)} taught by them"
        rows.append(Row(MEASURES["cas"], of, name, result["score"], (least, n)))
    return rows


def _bar(name: str, progress: bool):
    if not progress:
        return iter
    from tqdm import tqdm

    return lambda draws: tqdm(draws, desc=f"intervals, {name}", unit="draw", leave=False)
