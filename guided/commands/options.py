"""What --option says: a sampler's own arguments, as NAME=VALUE; and what --guidance-option says of guidance."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from guided.samplers import SAMPLERS


def steps_of(text: str) -> int | str:
    """A number of steps, or a respacing ("250," is one)."""
    return int(text) if text.removeprefix("-").isdecimal() else text.removesuffix(",")


def typed_options(sampler: str, pairs: list[str]) -> dict[str, float | int | str]:
    """--option NAME=VALUE as the sampler takes them.

    Raises:
        ValueError: no "=", a name given twice, or a value of the wrong type. (Unknown names are left as they are for
            `guided.stream`, whose error names what there is.)
    """
    return typed("--option", SAMPLERS.get(sampler), pairs)


def typed(flag: str, function: Callable | None, pairs: list[str]) -> dict[str, float | int | str]:
    """FLAG NAME=VALUE as a function takes them; errors as `typed_options`."""
    kinds = _kinds(function)
    options: dict[str, float | int | str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise ValueError(f"{flag} {pair!r}: write NAME=VALUE, such as eta=0.3")
        if name in options:
            raise ValueError(f"{flag} {name} is given twice")
        options[name] = _typed(f"{flag} {name}", kinds.get(name, "str"), text.strip())
    return options


def _kinds(function: Callable | None) -> dict[str, str]:
    if function is None:
        return {}
    annotations = {name: str(p.annotation) for name, p in inspect.signature(function).parameters.items()}
    return {name: kind.removesuffix(" | None") for name, kind in annotations.items()}


def _typed(name: str, kind: str, text: str) -> float | int | str:
    try:
        return {"float": float, "int": int}.get(kind, str)(text)
    except ValueError:
        what = "a whole number" if kind == "int" else "a number"
        raise ValueError(f"{name} must be {what}, got {text!r}") from None
