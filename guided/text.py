"""How a model reads prompts: from strings to the tokens, or the encoded text, that its network takes."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from guided.bpe import BytePairs, read_merges
from guided.towers import FOLDER, check, create

VOCABULARY = "vocab.bpe"
VOCABULARY_URL = f"https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/{VOCABULARY}"
PAD = -1


class Reader(Protocol):
    """Texts to what a network takes: tokens (N, L) int64, PAD after the end, or encoded text (N, L, W) float32."""

    def __call__(self, texts: Sequence[str]) -> Tensor: ...

    def config(self) -> dict[str, Any]:
        """What `reader_from` needs to make it again."""


@dataclass(frozen=True)
class Bytes:
    """The UTF-8 bytes of the lower-cased text: a vocabulary of 256 that needs no file and knows every language.

    Attributes:
        context: bytes that are read; longer texts are cut, with a warning.
    """

    context: int = 64

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return padded([list(text.lower().encode("utf-8")) for text in texts], self.context)

    def config(self) -> dict[str, Any]:
        return {"kind": "bytes", "context": self.context}


@dataclass(frozen=True)
class Gpt2:
    """GPT-2's byte pairs of the lower-cased text, which GLIDE reads.

    Attributes:
        context: tokens that are read; longer texts are cut, with a warning.
        path: GPT-2's vocab.bpe, plain or .gz; None: only the empty text can be read.
        merges: how many the file must have; GPT-2's vocabulary is 256 bytes, these, and one that marks an end.
    """

    context: int = 128
    path: str | Path | None = None
    merges: int = 50_000

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return padded([self._encode(text) for text in texts], self.context)

    def _encode(self, text: str) -> list[int]:
        return self.pairs.encode(text.lower()) if text else []

    @cached_property
    def pairs(self) -> BytePairs:
        if self.path is None:
            raise FileNotFoundError(
                f"this model reads prompts by GPT-2's vocabulary, which is not here: get {VOCABULARY_URL} and put it "
                f"beside the weights as {VOCABULARY}, or give its place as vocabulary=..."
            )
        merges = read_merges(self.path)
        if len(merges) != self.merges:
            raise ValueError(f"{self.path} has {len(merges)} merges, this model's vocabulary {self.merges}")
        return BytePairs(merges)

    def config(self) -> dict[str, Any]:
        return {"kind": "gpt2", "context": self.context, "merges": self.merges}

    def save(self, folder: Path) -> None:
        """Put the vocabulary beside a checkpoint's weights, where `reader_from` finds it."""
        if self.path is not None and find_vocabulary(folder) is None:
            data = Path(self.path).read_bytes()
            (folder / VOCABULARY).write_bytes(gzip.decompress(data) if Path(self.path).suffix == ".gz" else data)

    def __deepcopy__(self, memo: dict) -> Gpt2:
        return self


@dataclass(frozen=True)
class OpenClip:
    """The text tower of an open_clip model, frozen: each token as its last layer sees it, zero after the end, and then
    once more the end token, which stands for the whole.

    Attributes:
        name: as `open_clip.list_models` has it, or "local-dir:FOLDER".
        weights: a file, or a tag of `open_clip.list_pretrained`; None only where the name is that of a folder.
    """

    name: str
    weights: str | None = None

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        tower, tokenizer = self.tower
        tokens = tokenizer(list(texts))
        if bool((tokens[:, -1] != 0).any()):  # a text that was cut ends in the end token
            _warn_long(tokens.shape[1])
        caught: list[Tensor] = []
        hook = _last_norm(tower).register_forward_hook(lambda *args: caught.append(args[2]))
        try:
            tower.encode_text(tokens)
        finally:
            hook.remove()
        end = tokens.argmax(dim=1)  # the end token has the largest number
        read = torch.arange(tokens.shape[1]) <= end[:, None]
        words = caught[0].float() * read[..., None]
        return torch.cat([words, words[torch.arange(len(words)), end][:, None]], dim=1)

    @property
    def width(self) -> int:
        """Of the encoded text."""
        return _last_norm(self.tower[0]).normalized_shape[0]

    @cached_property
    def tower(self) -> tuple[nn.Module, Any]:
        """The model without its image side, and its tokenizer."""
        if self.weights is None and not self.name.startswith(FOLDER):
            check(self.name, None)
            raise ValueError(f"say which weights {self.name} has: a file or a tag, {self.name}@WEIGHTS")
        model = create(self.name, self.weights)
        if _last_norm(model) is None:
            raise ValueError(f"the text tower of {self.name} is none of open_clip's own transformers: take another")
        model.visual = nn.Identity()  # it is never asked
        import open_clip

        return model, open_clip.get_tokenizer(self.name)

    def config(self) -> dict[str, Any]:
        return {"kind": "open_clip", "name": self.name, "weights": self.weights}

    def __deepcopy__(self, memo: dict) -> OpenClip:
        return self


def _last_norm(model: nn.Module) -> nn.Module | None:
    return getattr(getattr(model, "text", model), "ln_final", None)


def padded(rows: Sequence[Sequence[int]], context: int) -> Tensor:
    """(N, context) int64, PAD after each row's end; a row too long is cut, with a warning."""
    if any(len(row) > context for row in rows):
        _warn_long(context)
    tokens = torch.full((len(rows), context), PAD)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(list(row[:context]), dtype=torch.long)
    return tokens


def _warn_long(context: int) -> None:
    warnings.warn(f"a text is longer than the {context} tokens that the model reads: its end is cut off", stacklevel=4)


def reader_from(config: dict[str, Any] | None, folder: Path | None = None) -> Reader | None:
    """The reader that a checkpoint's config describes; files of its own lie in the checkpoint's folder.

    Raises:
        ValueError: its kind is unknown, or a value is missing or unknown.
    """
    if config is None:
        return None
    kinds = {"bytes": Bytes, "gpt2": Gpt2, "open_clip": OpenClip}
    own = {k: v for k, v in config.items() if k != "kind"}
    if config.get("kind") not in kinds:
        raise ValueError(f"a model reads text by one of {', '.join(kinds)}, got {config.get('kind')!r}")
    if config["kind"] == "gpt2":
        own["path"] = find_vocabulary(folder)
    try:
        return kinds[config["kind"]](**own)
    except TypeError as error:
        raise ValueError(f"the text part of config.json does not fit: {error}") from None


def find_vocabulary(folder: Path | None) -> Path | None:
    """GPT-2's vocabulary in a folder, plain or .gz; None where it is not there."""
    places = [] if folder is None else [folder / VOCABULARY, folder / f"{VOCABULARY}.gz"]
    return next((place for place in places if place.is_file()), None)
