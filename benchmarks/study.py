"""Which sampler, with how many evaluations, and how much guidance: a study of one model, resumable row by row.

    python benchmarks/study.py DATA [--model emoji64] [--judge FOLDER] [--n 160] [--parts samplers guidance]

Every row is a set of samples with the same classes (as frequent as among the training pictures) and the same seeds;
its Frechet distances in each of the features are to the training pictures, at equal counts. Held-out pictures in their
place are the yardstick. Samples stay in runs/study/, figures in benchmarks/results/study-NAME.json as they are made,
and the program goes on where it was stopped. Each start also writes docs/study.md and its plots from all figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import study_page
import torch
from torch import Tensor

import classifiers
import guided
from guided.commands.measured import features_of, judge_of
from guided.evaluate import REFERENCE, SAMPLES, compare, mixed
from guided.evaluation import Features, Pictures, draw, estimates, extract, open_pictures, share_right
from guided.evaluation.accuracy import classification_accuracy
from guided.evaluation.draw import fingerprint
from guided.evaluation.features import by_class
from guided.folders import splits
from guided.presets import PRESETS
from guided.samplers import SAMPLERS
from guided.types import Prediction

ROOT = Path(__file__).parent.parent
BUDGETS = (10, 20, 5, 50, 250)  # evaluations, those of most use first
STUDIED = (  # for what lacks here: study_page.SAME and ADAPTIVE
    "unipc", "ddim", "ddpm", "dpmpp_2m", "heun", "dpmpp_2m_sde", "dpmpp_3m_sde", "lms", "dpm2", "dpmpp_sde",
    "dpmpp_2s_ancestral", "dpm2_ancestral", "reverse_diffusion", "euler_maruyama", "predictor_corrector",
    "annealed_langevin",
)  # fmt: skip
GUIDED_STEPS = 10
RESCALE = 0.7  # as Lin et al. 2024 use it
WINDOW = (0.3, 10.0)
TAUGHT = (("none", 1.0), ("cfg", 2.0))  # samples that a classifier is taught by
MEASURES = ("frechet", "precision", "recall", "coverage")


@dataclass(frozen=True)
class Kind:
    """A kind of guidance in the study.

    Attributes:
        scales: of the rows.
        arguments: what a study gives `draw` for a scale.
        plain: whether JSON holds the arguments; else kept samples are known by kind and scale.
        needs: the flag that brings what it takes.
    """

    scales: tuple[float, ...]
    arguments: Callable[[Study, float], dict]
    plain: bool = True
    needs: str | None = None


def way(**how: Any) -> Callable[[Study, float], dict]:
    """Classifier-free guidance, with what else `guided.sample` takes for it."""
    return lambda study, scale: {"guidance_scale": scale, **how}


def rising(shape: Callable) -> Callable[[Study, float], dict]:
    """A scale that follows the noise level."""
    return lambda study, scale: {"guidance_scale": shape(scale)}


GUIDANCE = {
    "none": Kind((1.0,), way()),
    "cfg": Kind((1.5, 2.0, 3.0, 5.0), way()),
    "window": Kind((2.0, 3.0, 5.0), way(window=WINDOW)),
    "classifier": Kind(
        (2.0, 5.0, 10.0), lambda study, scale: {"terms": study.classified(scale)}, plain=False, needs="classifier"
    ),
    "apg": Kind((2.0, 3.0, 5.0), way(guidance="apg")),
    "cfg-zero": Kind((2.0, 3.0, 5.0), way(guidance="cfg-zero")),
    "cfg++": Kind((0.3, 0.6, 0.9), way(guidance="cfg++")),
    "rescale": Kind((2.0, 3.0, 5.0), way(guidance=partial(guided.cfg, rescale=RESCALE)), plain=False),
    "linear": Kind((2.0, 3.0, 5.0), rising(guided.scales.linear), plain=False),
    "cosine": Kind((2.0, 3.0, 5.0), rising(guided.scales.cosine), plain=False),
    "anneal": Kind((2.0, 3.0, 5.0), way(anneal=guided.Anneal()), plain=False),
    "autoguidance": Kind(
        (1.5, 2.0, 3.0), lambda study, scale: {"guidance_scale": scale, "weak": study.weak}, plain=False, needs="weak"
    ),
}


def steps_for(sampler: str, evaluations: int) -> int:
    """The most steps of a sampler that take no more evaluations than that; at least one step."""

    def calls(steps: int) -> int:
        count = 0

        def D(x: Tensor, sigma: Tensor) -> Prediction:
            nonlocal count
            count += 1
            return Prediction(x * 0)

        sigmas = torch.cat([torch.linspace(5, 0.1, steps, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
        for _ in SAMPLERS[sampler](D, torch.ones(1, 1, 1, 1), sigmas, noise=torch.zeros_like):
            pass
        return count

    each = (calls(6) - calls(4)) / 2
    steps = max(1, int((evaluations - calls(4)) / each + 4))
    while steps > 1 and calls(steps) > evaluations:
        steps -= 1
    return steps


def rows_of(args: argparse.Namespace) -> list[dict]:
    """What is to be measured, in the order in which the parts and the budgets are given."""
    found = {"guidance": [], "samplers": []}
    for name, kind in GUIDANCE.items():
        if kind.needs is None or getattr(args, kind.needs) != "none":
            row = {"part": "guidance", "kind": name, "steps": GUIDED_STEPS}
            found["guidance"] += [{**row, "scale": scale} for scale in kind.scales]
    row = {"part": "accuracy", "steps": GUIDED_STEPS}
    found["accuracy"] = [{**row, "kind": "real", "scale": None}]
    found["accuracy"] += [{**row, "kind": kind, "scale": scale} for kind, scale in TAUGHT]
    for budget in args.budgets:
        for name in args.samplers:
            row = {"part": "samplers", "sampler": name, "budget": budget, "steps": steps_for(name, budget)}
            found["samplers"].append(row)
    return [row for part in args.parts for row in found[part]]


class Study:
    """A model, the pictures it is compared to, and what they are compared by; figures are kept in a file."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.name = args.name or Path(args.data).stem
        self.weights = fingerprint(guided.load(args.model, dtype=torch.float32))[:12]  # one for rows of both dtypes
        self.model = guided.load(args.model, dtype=torch.bfloat16 if args.dtype == "bf16" else None)
        self.work = Path(args.work) / self.name
        self.train, self.held_out = self._real("train"), self._real(args.split)
        self.features = [features_of(name, "cpu") for name in args.features]
        self.judge = None if args.judge is None else judge_of(args.judge, "cpu")
        self.clf = None if args.classifier == "none" else classifiers.load(args.classifier)
        self.weak = None if args.weak == "none" else guided.load(args.weak, dtype=self.model.net.dtype)
        if args.real is not None:
            self.train, self.held_out = (p.shuffled(0, args.real) for p in (self.train, self.held_out))
        self.labels = self._labels(args.n)
        self.file = Path(args.results) / f"study-{self.name}.json"
        self.figures = json.loads(self.file.read_text()) if self.file.exists() else {"about": {}, "rows": {}}
        about = self._about()
        was = self.figures["about"]
        for key in ("model", "weights", "n", "features", "data", "train"):
            if key in was and was[key] != about[key]:  # the oldest files do not say their weights
                raise ValueError(f"{self.file} holds figures of other {key}: {was.get(key)}; give another --name")
        kept = ("dtype", "judge", "told") if was and about["judge"] is None else ("dtype",)
        self.figures["about"] = {**about, **{key: was[key] for key in kept if was.get(key)}}

    def _about(self) -> dict:
        shown = ("classifier", "weak", "judge", "real", "features", "split")
        said = {f"--{name}": getattr(self.args, name) for name in shown}
        usual = {name: parser().get_default(name.lstrip("-")) for name in said}
        words = {name: " ".join(v) if isinstance(v, list) else v for name, v in said.items() if v != usual[name]}
        return {
            "told": "".join(f" {name} {value}" for name, value in words.items()),
            "data": Path(self.args.data).name, "model": self.args.model, "weights": self.weights,
            "seen": self.model.provenance.get("images_seen"), "n": self.args.n, "dtype": self.args.dtype,
            "features": [f.name for f in self.features], "judge": self.judge and self.judge.name,
            "train": len(self.train), "held_out": len(self.held_out), "guided_steps": GUIDED_STEPS, "window": WINDOW,
        }  # fmt: skip

    def _labels(self, n: int) -> Tensor | None:
        """Classes of n samples, as frequent as among the training pictures."""
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(0))[:n]
        return None if self.train.labels is None else self.train.labels[order]

    def _real(self, split: str) -> Pictures:
        reading = {}
        preset = PRESETS.get(self.model.provenance.get("arguments", {}).get("preset"))
        if preset is not None:
            reading = {k: v for k, v in preset.data.items() if k in ("label", "other", "min_per_class", "background")}
        if self.model.class_names:
            reading["class_names"] = self.model.class_names
        return open_pictures(self.args.data, size=self.model.image_size, split=split, reading=reading)

    def rows(self, features: Features, pictures: Pictures) -> Tensor:
        """Features in random order; those of real pictures come from the disk where they are there."""
        return mixed(extract(features, pictures, fit_to=self.train, kept=self.work / "features"), 0)

    def samples(self, row: dict) -> Pictures:
        """A row's samples, drawn where they are not there yet."""
        n, labels = self.args.n, self.labels
        if row["part"] == "accuracy":
            n, labels = self.taught, self._labels(self.taught)
        if row["part"] == "samplers":
            how, beside, told = {"sampler": row["sampler"]}, {}, {}
        else:
            kind = GUIDANCE[row["kind"]]
            arguments, known = kind.arguments(self, row["scale"]), {"kind": row["kind"], "scale": row["scale"]}
            how, beside, told = (arguments, {}, {}) if kind.plain else ({}, arguments, {**known, **self._beside(kind)})
        folder = self.work / label_of(row).replace(" ", "-")
        return draw(
            self.model, folder, n, labels=labels, batch_size=self.args.batch_size, terms=beside.pop("terms", None),
            told=told, beside=beside, name="samples", steps=row["steps"], **how,
        )  # fmt: skip

    def _beside(self, kind: Kind) -> dict:
        """What else decides samples that are known by their kind."""
        return {"rescale": RESCALE, **({kind.needs: getattr(self.args, kind.needs)} if kind.needs else {})}

    def classified(self, scale: float) -> Callable[[slice], list]:
        """Guidance by the classifier, for a part of the samples."""
        targets = by_class(self.model.class_names, self.labels, self.clf.class_names)
        return lambda part: [self.clf.term(targets[part], scale)]

    def measure(self, pictures: Pictures) -> dict:
        """Figures of a set of pictures against the training pictures, in every feature space; the judge's share."""
        found: dict = {}
        for features in self.features:
            rows = self.rows(features, pictures)[: self.args.n]
            sets = {SAMPLES: rows, REFERENCE: self.rows(features, self.train)}
            for row in compare(sets, features.name, MEASURES, draws=self.args.draws):
                found.setdefault(features.name, {})[row.measure] = asdict(row.estimate)
        if self.judge is not None and pictures.labels is not None:
            found["judge"] = self.judged(pictures)
        return found

    @property
    def taught(self) -> int:
        """How many pictures a classifier is taught by: so many samples, and as many training pictures."""
        return min(self.args.taught, len(self.train))

    def accuracy(self, pictures: Pictures) -> dict:
        """The classification accuracy score of pictures, on the held-out ones."""
        how = {"images": self.args.taught_images, "progress": True}
        logits = classification_accuracy(pictures, self.held_out, **how)
        y, n = self.held_out.labels, len(logits)
        score = estimates(lambda i: {"score": share_right(logits[i], y[i])}, [n], shares={"score": n})["score"]
        return {"n": len(pictures), "images": self.args.taught_images, "score": asdict(score)}

    def judged(self, pictures: Pictures) -> dict:
        """The share that the judge finds in the asked class."""
        logits = extract(self.judge, pictures, logits=True)
        y = by_class(pictures.class_names, pictures.labels, self.judge.class_names)
        n = len(y)
        result = estimates(lambda i: {"top1": share_right(logits[i], y[i])}, [n], shares={"top1": n})
        return {self.judge.name: asdict(result["top1"])}

    def run(self, rows: list[dict]) -> None:
        """Measure what has no figures yet; they are written after each row."""
        if "held-out" not in self.figures["rows"]:
            self.keep("held-out", {"part": "real"}, self.measure(self.held_out))
        for row in rows:
            key, done = label_of(row), self.figures["rows"].get(label_of(row))
            if row["part"] == "accuracy":
                if done is None or (done["n"], done["images"]) != (self.taught, self.args.taught_images):
                    real = row["kind"] == "real"
                    pictures = self.train.shuffled(0, self.taught) if real else self.samples(row)
                    self.keep(key, row, self.accuracy(pictures))
            elif done is None:
                self.keep(key, row, self.measure(self.samples(row)))
            elif self.judge is not None and "judge" not in done:
                self.keep(key, row, {**done, "judge": self.judged(self.samples(row))})
        if self.judge is not None and "judge" not in self.figures["rows"]["held-out"]:
            real = self.figures["rows"]["held-out"]
            self.keep("held-out", {"part": "real"}, {**real, "judge": self.judged(self.held_out)})

    def keep(self, key: str, row: dict, figures: dict) -> None:
        """Write one row; it says its dtype where that is not the study's."""
        if self.args.dtype != self.figures["about"]["dtype"]:
            row = {**row, "dtype": self.args.dtype}
        self.figures["rows"][key] = {**row, **figures}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(self.figures, indent=1) + "\n")
        distances = [figures[f.name]["Frechet distance"] for f in self.features if f.name in figures]
        print(key, *(f"{e['value']:.4g}" for e in distances or [figures["score"]]), file=sys.stderr, flush=True)


def label_of(row: dict) -> str:
    """A row's name."""
    if row["part"] == "samplers":
        return f"{row['sampler']} {row['budget']}"
    if row["part"] == "accuracy":
        return "taught by real pictures" if row["kind"] == "real" else f"taught by {row['kind']} {row['scale']:g}"
    return f"{row['kind']} {row['scale']:g}"


def parser() -> argparse.ArgumentParser:
    """The program's arguments."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", help="the pack that the model was trained on, with splits")
    p.add_argument("--model", default="emoji64")
    p.add_argument("--classifier", default="emoji64", help="that guides; none for none")
    p.add_argument("--weak", default="none", help="model that autoguidance holds the model against; none for none")
    p.add_argument("--judge", help="a classifier of its own that judges; may be given later")
    p.add_argument("--features", nargs="+", default=["colours", "pca64+clip:emoji64"])
    p.add_argument("--n", type=int, default=160, help="samples a row")
    p.add_argument("--real", type=int, help="at most so many training and held-out pictures, at random")
    p.add_argument(
        "--parts", nargs="+", default=["guidance", "samplers"], choices=["guidance", "samplers", "accuracy"],
        help="accuracy is the classification accuracy score",
    )  # fmt: skip
    p.add_argument(
        "--taught", type=int, default=study_page.TAUGHT, help="samples that a classifier is taught by, for accuracy"
    )
    p.add_argument("--taught-images", type=int, default=study_page.TAUGHT_IMAGES, help="pictures it sees")
    p.add_argument("--budgets", nargs="+", type=int, default=list(BUDGETS), help="evaluations")
    p.add_argument("--samplers", nargs="+", default=list(STUDIED))
    p.add_argument("--split", default="test", help="of the held-out pictures")
    p.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    p.add_argument("--batch-size", type=int, default=16)
    p.add_argument("--draws", type=int, default=100, help="halves that an interval is made of")
    p.add_argument("--name", help="of the study; the pack's by default")
    p.add_argument("--work", default="runs/study")
    p.add_argument("--results", default=str(ROOT / "benchmarks" / "results"))
    p.add_argument("--page", default=str(ROOT / "docs" / "study.md"))
    p.add_argument("--images", default=str(ROOT / "docs" / "images"))
    return p


def main(argv: list[str] | None = None) -> None:
    """Measure what is left, then write the page."""
    args = parser().parse_args(argv)
    if not {"train", args.split} <= set(splits(args.data)):
        raise SystemExit(f"{args.data} needs the splits train and {args.split}")
    study = Study(args)
    if "accuracy" in args.parts and study.labels is None:
        raise SystemExit(f"{args.data} has no classes: leave accuracy out of --parts")
    study_page.write(Path(args.results), Path(args.page), Path(args.images))
    study.run(rows_of(args))
    study_page.write(Path(args.results), Path(args.page), Path(args.images))


if __name__ == "__main__":
    main()
