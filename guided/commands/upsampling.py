"""A second stage on the command line: its flags, what of it a PNG remembers, and how it enlarges."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the parser of the command line imports this file: what is heavy waits
    from guided.cascade import Stage
    from guided.commands.recipe import Recipe
    from guided.model import Model

STEPS = 5  # a network that enlarges has little left to decide: benchmarks/upsample.py


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
        numbers = type(self.steps) in (int, str) and type(self.low_res_noise) in (int, float)
        return texts and numbers

    def stage(self, network: Model) -> Stage:
        """The second stage of the cascade."""
        from guided.cascade import Stage

        return Stage(network, self.steps, low_res_noise=self.low_res_noise)

    def check(self, recipe: Recipe, model: Model, network: Model) -> None:
        """ValueError unless the network can enlarge what the model makes, in so many steps."""
        from guided.cascade import Stage, check_stages
        from guided.presets import trained_factor

        if model.segments is not None:
            raise ValueError("it enlarges pictures, and the model makes masks")
        size = {} if recipe.size is None else {"size": recipe.size}
        check_stages([Stage(model, options=size), self.stage(network)], None, None)
        (height, *_), (h, *_) = network.sides, (recipe.size,) if recipe.size else model.sides
        factor = trained_factor(network)
        if factor is not None and height != factor * h:
            raise ValueError(f"it was trained to make {height} pixels of {height // factor}; the first stage makes {h}")
        try:
            network.sigmas(self.steps)
        except ValueError as error:
            raise ValueError(f"its steps: {error}") from None


def add_flags(p: argparse.ArgumentParser) -> None:
    """The flags of a second stage."""
    more = p.add_argument_group(
        "second stage",
        "By unipc, without guidance; the other flags of samplers, steps, scales, size and film are of the first stage.",
    )
    more.add_argument("--upsampler", metavar="NAME|FOLDER", help="a model that enlarges the pictures, such as emoji128")
    more.add_argument("--upsampler-steps", metavar="STEPS", help=f"its steps; default: {STEPS}")
    more.add_argument(
        "--low-res-noise", type=float, metavar="SIGMA",
        help="level of the noise put on what it enlarges (conditioning augmentation); default: 0",
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
        raise ValueError(f"--low-res-noise must be a number from 0 on, got {args.low_res_noise}")


def upsampling_of(args: argparse.Namespace) -> Upsampling | None:
    """What the flags stand for; None where there is no second stage."""
    if args.upsampler is None:
        return None
    from guided.commands.options import steps_of
    from guided.commands.recipe import model_sha256

    steps = STEPS if args.upsampler_steps is None else steps_of(args.upsampler_steps)
    return Upsampling(args.upsampler, model_sha256(args.upsampler), steps, args.low_res_noise or 0.0)
