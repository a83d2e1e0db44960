"""What `guided evaluate` compares: real pictures, features and judges by their names, and samples."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

import guided
from guided.commands.draw import load_models
from guided.commands.options import steps_of, typed_options
from guided.commands.recipe import classifier_sha256
from guided.commands.steering import FLAGS, given, steering_of
from guided.evaluate import INCEPTION, check_needs
from guided.evaluation import Features, Matcher, Pictures, draw, extract, open_pictures
from guided.evaluation import features as known
from guided.evaluation.features import by_class
from guided.evaluation.inception import inception_features
from guided.evaluation.lite import lite_features
from guided.folders import SPLITS, splits
from guided.guidance import Term
from guided.model import Model
from guided.presets import PRESETS
from guided.sampling import stream

READING = ("label", "other", "min_per_class", "background")
MOST = 10_000  # samples that are drawn unasked
WORK = Path("runs") / "evaluate"
KEPT = WORK / "features"  # of real pictures


class Measured:
    """Everything that an evaluation needs, read and checked; only the samples of a model are not drawn yet.

    Attributes:
        model: None where the samples are pictures that are there.
        reference, train: real pictures; train is None where there are none.
        features, judge, clip, measures: as `guided.evaluate` takes them.
    """

    def __init__(self, args: argparse.Namespace, device: str):
        self.args, self.device = args, device
        self.model = self._model()
        self._given = None if self.model is not None else self._pictures(args.samples, None, args.size)
        self.reference, self.train = self._real()
        self.features = [features_of(text, device) for text in split_names(args.features)]
        self.judge = None if args.judge is None else judge_of(args.judge, device)
        self.clip = None if args.clip is None else clip_of(args.clip, device)[1]
        self.measures = None if args.measures is None else [m.strip() for m in args.measures.split(",")]
        if self.reference.count == 0 and any(f.name != INCEPTION for f in self.features):
            raise ValueError(f"{args.data} holds statistics of Inception features only: --features inception:FILE")
        if self.model is not None:
            self.labels, self.prompts = self._asked()
            self.guide(args)
            first = slice(0, 1)  # says what does not fit, before there is a folder
            labels = None if self.labels is None else self.labels[first]
            prompt, how = self.prompts and self.prompts[first], self.how | self.beside
            stream(self.model, labels, n=1, prompt=prompt, seeds=[0], terms=self.terms(first), **how)
        for features in self.features:  # what cannot be fitted is said before anything is drawn
            if features.fit is not None:
                real = self.train or self.reference
                extract(features, real, fit_to=real, kept=KEPT, progress=True)
        check_needs(self.measures, self._outline(), self.reference, self.train, self.features, self.judge, self.clip)

    def samples(self) -> Pictures:
        """The pictures to measure, drawn where they are not there yet."""
        if self.model is None:
            return self._given
        args = self.args
        folder = self.folder()
        print(f"{self.count} samples on {self.device}, in {folder}", file=sys.stderr, flush=True)
        return draw(
            self.model, folder, self.count, labels=self.labels, prompts=self.prompts, seed=args.seed,
            batch_size=min(args.batch_size, self.count), name=self.name, terms=self.terms, told=self.told,
            beside=self.beside, **{k: v for k, v in self.how.items() if k not in self.beside},
        )  # fmt: skip

    @property
    def name(self) -> str:
        """Of what is measured."""
        return Path(self.args.samples).name

    @property
    def count(self) -> int:
        """Samples of a model."""
        return self.args.n or min(self.reference.count or MOST, MOST)

    def folder(self) -> Path:
        """Where a model's samples stay: named after the model and a digest of the settings, or as --work says."""
        if self.args.work is not None:
            return Path(self.args.work)
        args = self.args
        said = [
            self.how,
            self.told,
            self.asked,
            args.seed,
            min(args.batch_size, self.count),
            args.dtype,
            Path(args.data).stem,
            args.split,
            *given(args, {name: None for name in ("train_split", *READING)}),  # which and whose labels are asked for
        ]
        digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:8]
        return WORK / f"{Path(args.samples).name}-{digest}"

    def about(self) -> dict[str, Any]:
        """What decides the figures, for the report."""
        about = {"data": Path(self.args.data).name, "samples": self.name}
        if self.model is None:
            return about
        return {
            **about,
            "drawing": {**self.how, **self.told, "labels": self.asked, "n": self.count, "dtype": self.args.dtype},
        }

    def said(self, samples: Pictures) -> str:
        """A line above the table."""
        how = ""
        if self.model is not None:
            h, scale = self.how, self.told.get("classifier_scale")
            by = f", by a classifier {scale:g}" if scale is not None else ""
            name = self.args.guidance
            guidance = f"{'guidance' if name in (None, 'cfg') else name} {h['guidance_scale']:g}{by}"
            more = given(self.args, {flag: usual for flag, usual in FLAGS.items() if flag != "guidance"})
            how = f" ({h['sampler']}, {h['steps']} steps, {' '.join([guidance, *more])}, seed {self.args.seed})"
        real = f"{self.reference.count} reference pictures" if self.reference.count else "statistics"
        train = f", {self.train.count} training pictures" if self.train else ""
        return f"{samples.count} samples of {samples.name}{how}; {self.reference.name}: {real}{train}\n"

    # ------------------------------------------------------------------ reading

    def _model(self) -> Model | None:
        source = self.args.samples
        if Path(source).exists() and not (Path(source) / "config.json").exists():
            return None if Path(source).name != "model.safetensors" else self._load(source)
        return self._load(source)

    def _load(self, source: str) -> Model:
        return load_models(source, None, device=self.device, dtype=self.args.dtype)[0]

    def _reading(self) -> dict[str, Any]:
        """How classes are read: the flags, else as the model's training read them."""
        given = {name: getattr(self.args, name) for name in READING if getattr(self.args, name) is not None}
        if self.model is None:
            return given
        told = self.model.provenance.get("arguments", {})
        preset = PRESETS.get(told.get("preset"))
        was = dict(preset.data) if preset else {}
        was = {name: value for name, value in was.items() if name in READING}
        was |= {name: told[name] for name in READING if told.get(name) is not None}
        names = {"class_names": self.model.class_names} if self.model.class_names else {}
        return {**was, **names, **given}

    def _pictures(self, path: str, split: str | None, size: int | None) -> Pictures:
        return open_pictures(path, size=size, split=split, reading=self._reading())

    def _real(self) -> tuple[Pictures, Pictures | None]:
        """(reference, training pictures or None)."""
        args = self.args
        size = args.size or (self.model.image_size if self.model is not None else None)
        if Path(args.data).suffix == ".npz":
            return self._pictures(args.data, None, None), None
        there = splits(args.data)
        held_out = [name for name in ("test", *SPLITS) if name in there and name != "train"]
        split = args.split or (held_out[0] if held_out else None)
        train = args.train_split or ("train" if "train" in there and split != "train" else "none")
        reference = self._pictures(args.data, split, size)
        return reference, None if train == "none" else self._pictures(args.data, train, size)

    # ------------------------------------------------------------------ drawing

    def _how(self) -> dict[str, Any]:
        args = self.args
        return {
            "steps": steps_of(args.steps),
            "sampler": args.sampler,
            "spacing": args.spacing,
            "guidance_scale": args.guidance_scale,
            "window": args.window,
            **typed_options(args.sampler, args.option),
        }

    def guide(self, args: argparse.Namespace) -> None:
        """Draw as these arguments say: set `how` and `told`, in values that JSON holds, `beside` and `terms`."""
        self.args, scale = args, args.guidance_scale
        self.how, self.beside = self._how(), {}
        self.told, term = self._classifier()
        terms, steering = [] if term is None else [term], steering_of(args, self.model)
        if steering is not None:
            self.told |= {"steering": asdict(steering), "guidance_scale": scale}
            self.beside = steering.how(scale, self.device, args.dtype)
            if scale == 1 and steering.guidance == "cfg" and steering.schedule is None:
                self.beside["weak"] = None  # no guidance, of which a weaker model can be no part
        if steering is not None and steering.diverse:
            terms.append(lambda part: guided.particles(steering.diverse))
        self.terms = lambda part: [term(part) for term in terms]

    def _classifier(self) -> tuple[dict[str, Any], Callable[[slice], Term] | None]:
        """What the classifier that guides is, and its term for a batch."""
        args = self.args
        if args.classifier is None:
            return {}, None
        if self.labels is None:
            raise ValueError("--classifier has nothing to guide to without classes")
        import classifiers

        clf, scale = classifiers.load(args.classifier, device=self.device), args.classifier_scale
        targets, scale = by_class(self.model.class_names, self.labels, clf.class_names), 1.0 if scale is None else scale
        told = {"classifier": classifier_sha256(args.classifier), "classifier_scale": scale}
        return told, lambda part: clf.term(targets[part], scale, window=args.window)

    @property
    def asked(self) -> str:
        """Whose classes and captions samples are asked for."""
        return self.args.labels or ("train" if self.train is not None else "reference")

    def _asked(self) -> tuple[torch.Tensor | None, list[str] | None]:
        """Labels and prompts of the samples: those of real pictures in random order, begun again where they end."""
        n, model, asked = self.count, self.model, self.asked
        if asked == "none":
            if model.class_names and model.null_label is None:
                raise ValueError(f"{self.args.samples} has no null class: it cannot draw pictures of no class")
            return None, None
        if asked == "even":
            return (torch.arange(n) % len(model.class_names) if model.class_names else None), None
        real = self.train if asked == "train" else self.reference
        if real is None:
            raise ValueError("--labels train needs training pictures: a split of that name, or --train-split")
        order = torch.randperm(real.count, generator=torch.Generator().manual_seed(self.args.seed)).tolist()
        order = [order[i % len(order)] for i in range(n)] if order else []
        prompts = labels = None
        if "text" in model.conditions:
            if not real.captions:
                raise ValueError(f"{self.args.samples} takes text, and {self.args.data} has no captions: --labels none")
            prompts = [real.captions[i] for i in order]
        if model.class_names:
            if real.labels is None or list(real.class_names) != model.class_names:
                raise ValueError(f"{self.args.data} has not the model's classes: --labels even asks for all equally")
            labels = real.labels[order]
        return labels, prompts

    def _outline(self) -> Pictures:
        """What is known of the samples before they are drawn."""
        if self.model is None:
            return self._given
        names = () if self.labels is None else tuple(self.model.class_names)
        captions = None if self.prompts is None else tuple(self.prompts)
        return Pictures("samples", self.count, lambda indices: torch.empty(0), self.labels, names, captions)


# ---------------------------------------------------------------------- features by name


def split_names(text: str) -> list[str]:
    """The names between commas.

    Raises:
        ValueError: there are none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError("--features names nothing")
    return names


def features_of(text: str, device: str) -> Features:
    """Features by their name on the command line.

    Raises:
        ValueError: unknown.
        FileNotFoundError: their weights are not there.
    """
    components = re.fullmatch(r"pca(\d+)\+(.+)", text)
    if components:
        return known.pca(features_of(components[2], device), int(components[1]))
    kind, _, rest = text.partition(":")
    if kind in ("colours", "averages", "lite0"):
        if rest and not rest.isdecimal():
            raise ValueError(f"{kind} takes a whole number, such as {kind}:8, got {rest!r}")
        make = {"colours": known.colours, "averages": known.averages, "lite0": partial(lite_features, device=device)}[
            kind
        ]
        return make(int(rest)) if rest else make()
    if kind not in ("inception", "timm", "clip", "classifier") or not rest:
        names = "colours, averages, lite0, inception:FILE, timm:NAME, clip:NAME, classifier:NAME, pca64+FEATURES"
        raise ValueError(f"unknown features {text!r}; there are {names}")
    if kind == "inception":
        return inception_features(rest, device=device)
    if kind == "timm":
        name, _, weights = rest.partition(":")
        return known.timm_features(name, weights or None, device=device)
    return clip_of(rest, device)[0] if kind == "clip" else judge_of(rest, device)


def judge_of(name: str, device: str) -> Features:
    """A classifier as features and judge."""
    import classifiers
    from classifiers.features import features

    return features(classifiers.load(name, device=device), Path(name).name)


def clip_of(text: str, device: str) -> tuple[Features, Matcher]:
    """A CLIP as features and matcher: NAME, NAME:WEIGHTS or local-dir:FOLDER."""
    import classifiers
    from classifiers.features import clip_features, matcher
    from guided.towers import FOLDER

    name, _, weights = (text, "", "") if text.startswith(FOLDER) else text.partition(":")
    net = classifiers.Clip(name, pretrained=weights or None, cutouts=0, device=device).net
    said = Path(name).name + (f" {Path(weights).name}" if weights else "")
    return clip_features(net, said), matcher(net, said)
