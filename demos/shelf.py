"""The models of the page: the embedded ones and the folders given at the start. Nothing else can be loaded."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import classifiers
import guided
from classifiers.checkpoint import WEIGHTS as CLASSIFIERS
from classifiers.clip.checkpoint import WEIGHTS as CLIPS
from guided.checkpoint import AUTOENCODER
from guided.stored import WEIGHTS as GENERATORS
from guided.stored import find, names_in, read_config


class Shelf:
    """Generators, upsamplers, segmenters, classifiers and CLIPs by name; each is loaded when first asked for, and kept.

    A page sends names, never paths: a name that is not on the shelf is an error, whatever lies at it as a path.

    Args:
        models, classifiers: checkpoint folders, beside the embedded ones; the first model is the page's default.
        clips: checkpoint folders of CLIPs, or MODEL=FILE for a model of open_clip and its weights.
        device: where all of them live.

    Attributes:
        generators, upsamplers, segmenters, classifiers, clips: name -> what it is loaded from, defaults first.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: a folder is one of another kind.
    """

    def __init__(
        self,
        models: Sequence[str] = (),
        classifiers: Sequence[str] = (),
        clips: Sequence[str] = (),
        *,
        device: str | None = None,
    ):
        self.device = device
        self.generators: dict[str, str] = {}
        self.upsamplers: dict[str, str] = {}
        self.segmenters: dict[str, str] = {}
        for source in [*models, *names_in(GENERATORS)]:
            config = _config(source, GENERATORS, "model")
            small = config["network"].get("low_res")
            shown = config["channels"] in (1, 3) or bool(config.get("segments")) or _latent(source)
            if not (shown and isinstance(config["image_size"], int)):
                raise ValueError(
                    f"{source} draws {config['channels']} channels of {config['image_size']}; the page shows square "
                    "pictures, in colour or grey"
                )
            row = self.segmenters if config.get("segments") else self.upsamplers if small else self.generators
            _put(row, source)
        self.classifiers = _row([*classifiers, *names_in(CLASSIFIERS)], CLASSIFIERS, "classifier")
        files = dict(_named_file(text) for text in clips if "=" in text)
        folders = [text for text in clips if "=" not in text]
        for text in folders:
            if Path(text).is_file():
                raise ValueError(f"{text} is a file: say whose weights it holds, MODEL=FILE such as ViT-B-32={text}")
        self.clips = _row([*folders, *names_in(CLIPS)], CLIPS, "clip")
        self.clips = {**{model: model for model in files}, **self.clips}
        self.clip_files = files
        self._kept: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    def generator(self, name: str) -> guided.Model:
        """The model of pictures with that name."""
        return self._get("generator", name, self.generators, lambda s: guided.load(s, device=self.device))

    def upsampler(self, name: str) -> guided.Model:
        """The super-resolution model with that name."""
        return self._get("upsampler", name, self.upsamplers, lambda s: guided.load(s, device=self.device))

    def segmenter(self, name: str) -> guided.Model:
        """The model of masks with that name."""
        return self._get("segmenter", name, self.segmenters, lambda s: guided.load(s, device=self.device))

    def classifier(self, name: str) -> classifiers.NoisyClassifier:
        """The noise-aware classifier with that name."""
        return self._get("classifier", name, self.classifiers, lambda s: classifiers.load(s, device=self.device))

    def clip(self, name: str, cutouts: int = 16) -> classifiers.Clip:
        """The CLIP with that name, looking at so many parts of a picture; its network is shared."""

        def load(source: str) -> classifiers.ClipNet:
            return classifiers.Clip(source, self.clip_files.get(name), device=self.device).net

        net = self._get("CLIP", name, self.clips, load)
        return classifiers.Clip(net, cutouts=cutouts, device=self.device)

    def warm(self) -> None:
        """Load the first generator from a thread, so that the first run need not wait for it."""

        def load() -> None:
            with contextlib.suppress(Exception):  # said to the one who asks for it
                self.generator(next(iter(self.generators)))

        threading.Thread(target=load, daemon=True).start()

    def config(self, name: str) -> dict[str, Any]:
        """config.json of a generator, upsampler or segmenter, without loading it."""
        return read_config(find((self.generators | self.upsamplers | self.segmenters)[name]))

    def class_names(self, name: str) -> list[str]:
        """The classes of a generator, without loading it; none for one without."""
        return list(self.config(name).get("class_names") or ())

    def sees_noise(self, clip: str, name: str) -> bool:
        """Whether a CLIP knows the noisy states of a generator, so that it can look at them; neither is loaded."""
        if clip in self.clip_files or clip not in self.clips or name not in self.generators:
            return False
        about, config = read_config(find(self.clips[clip], CLIPS)), self.config(name)
        alike = about.get("levels") is not None and about["image_size"] == config["image_size"]
        return alike and not _latent(self.generators[name])

    def _get(self, kind: str, name: str, row: dict[str, str], load: Callable[[str], Any]) -> Any:
        if not isinstance(name, str) or name not in row:
            raise ValueError(f"there is no {kind} {name!r} here; there are: {', '.join(row) or 'none'}")
        with self._lock:
            if (kind, name) not in self._kept:
                self._kept[kind, name] = load(row[name])
            return self._kept[kind, name]


def _latent(source: str) -> bool:
    return (find(source) / AUTOENCODER).exists()


def _config(source: str, embedded: Path, kind: str) -> dict[str, Any]:
    folder = find(source, embedded)
    config = read_config(folder)
    if config.get("kind") != kind:
        raise ValueError(f"{source} holds a {config.get('kind')}, not a {kind}")
    return config


def _row(sources: Sequence[str], embedded: Path, kind: str) -> dict[str, str]:
    row: dict[str, str] = {}
    for source in sources:
        _config(source, embedded, kind)
        _put(row, source)
    return row


def _put(row: dict[str, str], source: str) -> None:
    """Under its folder's name; a second of the same name gets a number."""
    name = Path(source).resolve().name if Path(source).exists() else source
    name = Path(source).resolve().parent.name if name == "model.safetensors" else name
    row[next(n for n in (name, *(f"{name} ({i})" for i in range(2, 1000))) if n not in row)] = source


def _named_file(text: str) -> tuple[str, str]:
    model, _, file = text.partition("=")
    if not Path(file).is_file():
        raise FileNotFoundError(
            f"{file}: no such file; a CLIP is a folder, or MODEL=FILE such as ViT-B-32=clip.safetensors"
        )
    from guided.towers import check

    check(model, file)  # open_clip's names: a wrong one is said before the page is there
    return model, file
