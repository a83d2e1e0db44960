"""Guidance beyond a scale on the command line: its flags, what of it a PNG remembers, the arguments made of that."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the parser of the command line imports this file: what is heavy waits
    from guided.model import Model

METHODS = ("cfg", "cfg++", "apg", "cfg-zero", "cfg-reuse")
SCHEDULES = ("linear", "cosine")
FLAGS: dict[str, Any] = {  # and what they are where they are not given
    "guidance": None, "guidance_option": [], "guidance_schedule": None, "autoguide": None, "and_": [], "not_": [],
    "anneal": None, "diverse": None, "recurrence": None,
}  # fmt: skip


@dataclass(frozen=True)
class Steering:
    """What guides besides the scale, in values that JSON holds.

    Attributes:
        guidance, options: a name of `guided.guidance.METHODS`, and its own options.
        schedule: "linear" or "cosine", the scale's course over the run (`guided.scales`); None is constant.
        autoguide, autoguide_sha256: the weaker model, and of its model.safetensors.
        also: other labels, by name, with their weights.
        anneal: the noise on the condition (`guided.Anneal.scale`); None is none.
        diverse: the scale of `guided.particles`; 0 is off.
        recurrence: how often each step is made.
    """

    guidance: str = "cfg"
    options: dict[str, float | int | str] = field(default_factory=dict)
    schedule: str | None = None
    autoguide: str | None = None
    autoguide_sha256: str | None = None
    also: dict[str, float] = field(default_factory=dict)
    anneal: float | None = None
    diverse: float = 0.0
    recurrence: int = 1

    def sound(self) -> bool:
        """Whether the types are right; values are checked where they are used."""
        numbers = all(isinstance(v, int | float) for v in (*self.also.values(), self.diverse, self.recurrence))
        texts = all(v is None or isinstance(v, str) for v in (self.schedule, self.autoguide, self.autoguide_sha256))
        annealed = self.anneal is None or isinstance(self.anneal, int | float)
        return numbers and texts and annealed and isinstance(self.guidance, str) and isinstance(self.options, dict)

    def how(self, guidance_scale: float, device: str, dtype: str) -> dict[str, Any]:
        """The arguments of `guided.stream` that it stands for; that of `diverse` is a term."""
        import guided

        function: Any = self.guidance
        if self.options and self.guidance in METHODS:
            function = partial(guided.guidance.METHODS[self.guidance], **self.options)
        scale: Any = guidance_scale
        if self.schedule is not None:
            scale = getattr(guided.scales, self.schedule)(scale)
        return {
            "guidance": function,
            "guidance_scale": scale,
            "weak": None if self.autoguide is None else load_weak(self.autoguide, device, dtype),
            "also": self.also or None,
            "anneal": None if self.anneal is None else guided.Anneal(scale=self.anneal),
            "recurrence": self.recurrence,
        }


def add_flags(p: argparse.ArgumentParser) -> None:
    """The flags of guidance beyond a scale."""
    more = p.add_argument_group("more guidance")
    more.add_argument(
        "--guidance", choices=METHODS,
        help="how the scale is applied; that of cfg++ lies in 0..1; default: cfg",
    )  # fmt: skip
    more.add_argument(
        "--guidance-option", action="append", default=[], metavar="NAME=VALUE",
        help="of that way: rescale=0.7, norm=15, parallel=0, zero_steps=1, ...; repeatable",
    )  # fmt: skip
    more.add_argument(
        "--guidance-schedule",
        choices=SCHEDULES,
        help="none of it in noise, twice as much at the end; default: constant",
    )
    more.add_argument(
        "--autoguide", metavar="NAME|FOLDER",
        help="a weaker model of the same classes to guide away from, in place of the model without label",
    )  # fmt: skip
    more.add_argument(
        "--and", action="append", default=[], dest="and_", metavar="LABEL[:WEIGHT]",
        help="another label that holds as well; its weight is by default the guidance scale; repeatable",
    )  # fmt: skip
    more.add_argument(
        "--not", action="append", default=[], dest="not_", metavar="LABEL[:WEIGHT]",
        help="a label that must not hold; its weight is by default 1; repeatable",
    )  # fmt: skip
    more.add_argument(
        "--anneal", type=float, nargs="?", const=0.25, metavar="S",
        help="noise on the label at first, for diversity; S alone: 0.25",
    )  # fmt: skip
    more.add_argument("--diverse", type=float, metavar="S", help="how hard the pictures of a batch keep apart")
    more.add_argument("--recurrence", type=int, metavar="K", help="make each step K times, with noise in between")


def check_flags(args: argparse.Namespace) -> None:
    """What can be said before anything is loaded.

    Raises:
        ValueError: naming the flag.
    """
    for name in ("anneal", "diverse"):
        value = getattr(args, name)
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"--{name} must not be negative, got {value}")
    if args.recurrence is not None and args.recurrence < 1:
        raise ValueError(f"--recurrence must be at least 1, got {args.recurrence}")
    unguided = args.guidance_scale in (None, 1)
    for name in ("autoguide", "guidance_schedule"):
        if getattr(args, name) is not None and unguided and args.guidance != "cfg++":
            raise ValueError(f"--{name.replace('_', '-')} has nothing to do without --guidance-scale: give one")
    if args.guidance_schedule is not None and args.guidance == "cfg++":
        raise ValueError("--guidance-schedule: the scale of cfg++ follows the noise in its own way; leave one out")
    if args.guidance not in (None, "cfg", "cfg++") and unguided:
        raise ValueError(f"--guidance {args.guidance} has nothing to do without --guidance-scale: give one")
    if args.autoguide is not None and (args.and_ or args.not_):
        raise ValueError("--autoguide does not go with --and and --not: leave one out")


def steering_of(args: argparse.Namespace, model: Model) -> Steering | None:
    """What the flags stand for; None where none is given.

    Raises:
        ValueError: a label or an option is not understood.
    """
    if not given(args, FLAGS):
        return None
    from guided.commands.recipe import model_sha256

    name = args.guidance or "cfg"
    default = 1.0 if args.guidance_scale is None else args.guidance_scale
    also = {label: default if w is None else w for label, w in (_weighted("--and", text, model) for text in args.and_)}
    for label, w in (_weighted("--not", text, model) for text in args.not_):
        if label in also:
            raise ValueError(f"--not {label}: it was asked for by --and")
        also[label] = -(1.0 if w is None else w)
    return Steering(
        guidance=name,
        options=_options(name, args.guidance_option),
        schedule=args.guidance_schedule,
        autoguide=args.autoguide,
        autoguide_sha256=None if args.autoguide is None else model_sha256(args.autoguide),
        also=also,
        anneal=args.anneal,
        diverse=args.diverse or 0.0,
        recurrence=args.recurrence or 1,
    )


def given(args: argparse.Namespace, usual: dict[str, Any]) -> list[str]:
    """The flags that are not what they usually are, as words."""
    words = []
    for name, value in usual.items():
        own, flag = getattr(args, name), f"--{name.strip('_').replace('_', '-')}"
        if own == value:
            continue
        if isinstance(value, list):  # repeatable
            words += [word for each in own for word in (flag, each)]
        else:
            words += [flag, *map(str, own if isinstance(own, list) else [own])]
    return words


@lru_cache(maxsize=2)
def load_weak(source: str, device: str, dtype: str) -> Model:
    """The weaker model, loaded once for all batches."""
    from guided.commands.draw import load_models

    return load_models(source, None, device=device, dtype=dtype)[0]


def _weighted(flag: str, text: str, model: Model) -> tuple[str, float | None]:
    """LABEL[:WEIGHT] -> the class by its name, and the weight or None."""
    from guided.commands.labels import class_and_share

    if not model.class_names:
        raise ValueError(f"this model has no classes: leave {flag} out")
    index, weight = class_and_share(text, model)
    if weight is not None and not weight > 0:
        raise ValueError(f"{flag} {text}: the weight must be positive")
    return model.class_names[index], weight


def _options(name: str, pairs: list[str]) -> dict[str, float | int | str]:
    """--guidance-option NAME=VALUE as the way of guidance takes them.

    Raises:
        ValueError: it has no such option, or a value is of the wrong type.
    """
    import inspect

    from guided.commands.options import typed
    from guided.guidance import METHODS as FUNCTIONS

    options = typed("--guidance-option", FUNCTIONS[name], pairs)
    keywords = inspect.signature(FUNCTIONS[name]).parameters.values()
    known = [p.name for p in keywords if p.kind is p.KEYWORD_ONLY and p.name not in ("window", "sigmas")]
    for option in options:
        if option not in known:
            raise ValueError(f"--guidance {name} has no option {option!r}; it has {', '.join(known) or 'none'}")
    return options
