"""A second stage on the command line: its flags, what of it a PNG remembers, and how it enlarges."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the parser of the command line imports this file: what is heavy waits
    from torch import Tensor

    from guided.cascade import Stage
    from guided.commands.recipe import Recipe
    from guided.model import Model

STEPS = 10  # a network that enlarges has little left to decide


@dataclass(frozen=True)
class Upsampling:
    """What enlarges the pictures, in values that JSON holds.

    Attributes:
        model, sha256: the network, and of its model.safetensors.
        steps: as `guided.sample` takes them.
        low_res_noise: level of the noise on what it enlarges (`guided.Stage`).
    """

    model: str
    sha256: str
    steps: int | str = STEPS
    low_res_noise: float = 0.0

    def sound(self) -> bool:
        """Whether the types are right; values are checked where they are used."""
        texts = isinstance(self.model, str) and isinstance(self.sha256, str)
        return texts and isinstance(self.steps, int | str) and isinstance(self.low_res_noise, int | float)

    def stage(self, recipe: Recipe) -> Stage:
        """The second stage of the cascade."""
        from guided.cascade import Stage

        network = load_upsampler(self.model, recipe.device, recipe.dtype)
        return Stage(network, self.steps, low_res_noise=self.low_res_noise)

    def check(self, recipe: Recipe, model: Model) -> None:
        """ValueError unless the stage can enlarge what the model makes, in so many steps."""
        from guided.cascade import Stage, check_stages

        if model.segments is not None:
            raise ValueError("--upsampler enlarges pictures, and this model makes masks")
        size = {} if recipe.size is None else {"size": recipe.size}
        stage = self.stage(recipe)
        check_stages([Stage(model, options=size), stage], None, None)
        try:
            stage.model.sigmas(stage.steps)
        except ValueError as error:
            raise ValueError(f"--upsampler-steps: {error}") from None

    def run(self, recipe: Recipe, x: Tensor, labels: Tensor | None, seeds: list[int]) -> Any:
        """The states in which pictures x (N, C, h, w) in [-1, 1] become large, as `guided.cascade` has them."""
        from guided.cascade import enlarging
        from guided.sampling import stream

        stage = self.stage(recipe)
        return stream(stage.model, **enlarging(stage, x, seeds=seeds, labels=labels))


def add_flags(p: argparse.ArgumentParser) -> None:
    """The flags of a second stage."""
    more = p.add_argument_group("second stage")
    more.add_argument("--upsampler", metavar="NAME|FOLDER", help="a model that enlarges the pictures, such as emoji128")
    more.add_argument("--upsampler-steps", metavar="STEPS", help=f"its steps; default: {STEPS}")
    more.add_argument(
        "--low-res-noise", type=float, metavar="SIGMA",
        help="noise put on what it enlarges, which hides what the first stage got wrong; default: 0",
    )  # fmt: skip


def check_flags(args: argparse.Namespace) -> None:
    """What can be said before anything is loaded.

    Raises:
        ValueError: naming the flag.
    """
    for name in ("upsampler_steps", "low_res_noise"):
        if getattr(args, name) is not None and args.upsampler is None:
            raise ValueError(f"--{name.replace('_', '-')} needs --upsampler, the model")
    if args.low_res_noise is not None and not 0 <= args.low_res_noise < math.inf:
        raise ValueError(f"--low-res-noise must not be negative, got {args.low_res_noise}")


def upsampling_of(args: argparse.Namespace) -> Upsampling | None:
    """What the flags stand for; None where there is no second stage."""
    if args.upsampler is None:
        return None
    from guided.commands.options import steps_of
    from guided.commands.recipe import model_sha256

    steps = STEPS if args.upsampler_steps is None else steps_of(args.upsampler_steps)
    return Upsampling(args.upsampler, model_sha256(args.upsampler), steps, args.low_res_noise or 0.0)


@lru_cache(maxsize=2)
def load_upsampler(source: str, device: str, dtype: str) -> Model:
    """The network, loaded once for all batches."""
    from guided.commands.draw import load_models

    return load_models(source, None, device=device, dtype=dtype)[0]
